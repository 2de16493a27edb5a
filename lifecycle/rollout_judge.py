"""What is measured of a version on its way to its users, and when the evidence against it is enough (R8.1).

Beside the version it would replace while both answer, against its own first labels once it answers everybody alone.
Every bound stands in the model file; every FAIL is a test that may be looked at any time (`lifecycle.sequential`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.sequential import least_rate, log_e_above, log_e_ratio, mean_margin
from lifecycle.spec import Rollout as Plan

ALPHA = 0.01
"""Chance that a version within every bound is ever rolled back, over its whole rollout."""
SLOW_SHARE = 0.05
"""What of a version's answers may be slower than the limit: the limit is a multiple of the baseline's P95."""
WORSE_ERRORS = 1.25
"""How many times the live version's error rate a candidate's may be, beside the bound on the rate itself."""
SCORE_BINS = 20
"""Equal bins of the scores from 0 to 1 in which two distributions are compared."""
TESTS = 7
"""Tests that share ALPHA: error_rate, slow_share, error_ratio, performance_drop, ranking_drop, value_drop, score_shift."""
FIRST_LABELS = 4
"""Times `Plan.min_requests`: a live version's first labels, which its newest are compared with."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What was seen of one version since its step began.

    Parameters
    ----------
    requests, errors
        Rows asked of it, and rows it could not answer.
    timed, slow
        Answers that somebody waited for while a limit was known, and those of them slower than it:
        `Plan.rollback.latency_ratio` times the baseline's P95, but at least its ``latency_floor_ms``.
    labelled, right
        Answers whose label came, and those of them that were decided rightly.
    pairs, ordered
        Pairs of a positive and a negative label, each label in one pair at most, and those of them that the scores put
        in order, half for a tie: their share is an unbiased estimate of ROC AUC.
    worth
        Business value of the labelled decisions, each from 0 (the worst of the four outcomes) to 1 (the best).
    compared, agreed
        Rows that both versions scored, and those decided alike (shadow).
    scores
        Answers in each of `SCORE_BINS` equal bins of the score; empty before the first.
    """

    requests: int = 0
    errors: int = 0
    timed: int = 0
    slow: int = 0
    labelled: int = 0
    right: int = 0
    pairs: int = 0
    ordered: float = 0.0
    worth: float = 0.0
    compared: int = 0
    agreed: int = 0
    scores: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse counts that cannot be; ValueError."""
        pairs = (
            (self.errors, self.requests),
            (self.timed, self.requests),
            (self.slow, self.timed),
            (self.right, self.labelled),
            (self.ordered, self.pairs),
            (self.worth, self.labelled),
            (self.agreed, self.compared),
        )
        if any(not 0 <= part <= whole for part, whole in pairs) or len(self.scores) not in (0, SCORE_BINS):
            raise ValueError(f"{self}; accepted: no part above its whole, none negative, {SCORE_BINS} bins or none")


def judge(plan: Plan, candidate: Counts, baseline: Counts | None, *, alpha: float = ALPHA) -> list[Finding]:
    """Compare a version with the bounds of R8.1 and with the version it would replace.

    Parameters
    ----------
    plan
        The model file's rollout section.
    candidate
        Counts of the version that is judged, since its step began.
    baseline
        Counts of the version beside it over the same time; None without one.
    alpha
        Chance of a FAIL, at any look, for a version within every bound; shared evenly by what is measured.

    Returns
    -------
    list of Finding
        ``error_rate`` and ``slow_share``, and with a baseline ``error_ratio``, ``performance_drop`` (right decisions),
        ``ranking_drop`` (ROC AUC), ``value_drop`` (business value, as a share of the span between the worst and the best
        decision) and ``score_shift`` (largest distance of the two score distributions): FAIL where the evidence is
        enough, WARN where the value lies beyond the bound and the evidence is not, PASS after `Plan.min_requests`,
        else NO_DATA. ``shadow_agreement`` only tells.
    """
    each = alpha / TESTS
    bounds, least = plan.rollback, plan.min_requests
    found = [
        _rate("error_rate", candidate.errors, candidate.requests, bounds.error_rate, least, each),
        _rate("slow_share", candidate.slow, candidate.timed, SLOW_SHARE, least, each),
    ]
    if baseline is not None:
        found += [
            _error_ratio(candidate, baseline, least, each),
            _drop(
                "performance_drop", (candidate.right, candidate.labelled), (baseline.right, baseline.labelled),
                bounds.performance_drop, least, each,
            ),
            _drop(
                "ranking_drop", (candidate.ordered, candidate.pairs), (baseline.ordered, baseline.pairs),
                bounds.performance_drop, least // 5, each,
            ),
            _value(candidate, baseline, bounds.value_drop, least, each),
            _shift(candidate, baseline, bounds.score_shift, least, each),
        ]  # fmt: skip
    if candidate.compared:
        share = candidate.agreed / candidate.compared
        reason = f"decided {share:.1%} of {candidate.compared} rows as the live version did"
        found.append(
            Finding(
                "shadow_agreement", "all rows", share, None, Direction.AT_LEAST, SINCE, Verdict.PASS, reason,
                candidate.compared,
            )
        )  # fmt: skip
    return found


def judge_against_first(plan: Plan, newest: Counts, first: Counts, *, alpha: float) -> list[Finding]:
    """Compare a live version's newest labels with its own first ones: nobody answers beside it any more.

    Parameters
    ----------
    plan
        The model file's rollout section.
    newest
        Counts of the newest labelled answers.
    first
        Counts of its first labelled answers, which do not change any more.
    alpha
        Chance of a FAIL, at any look at this stretch, for a version that is as good as it was.

    Returns
    -------
    list of Finding
        ``performance_drop``, ``ranking_drop`` and ``value_drop``. What was seen first is taken at the unfavourable end
        of its interval, so that a lucky start condemns nobody.
    """
    each = alpha / 3
    bounds, least = plan.rollback, plan.min_requests
    return [
        _drop_below(
            "performance_drop", (newest.right, newest.labelled), (first.right, first.labelled),
            bounds.performance_drop, least, each,
        ),
        _drop_below(
            "ranking_drop", (newest.ordered, newest.pairs), (first.ordered, first.pairs),
            bounds.performance_drop, least // 5, each,
        ),
        _value(newest, first, bounds.value_drop, least, each),
    ]  # fmt: skip


SINCE = "since the step began"


def _rate(measure: str, events: int, trials: int, bound: float, least: int, alpha: float) -> Finding:
    certain = log_e_above(events, trials, bound) >= math.log(1 / alpha)
    value = events / trials if trials else None
    return _verdict(measure, value, bound, trials, least, certain, f"{events} of {trials}")


def _error_ratio(candidate: Counts, baseline: Counts, least: int, alpha: float) -> Finding:
    log_e = log_e_ratio(candidate.errors, candidate.requests, baseline.errors, baseline.requests, WORSE_ERRORS)
    mine = candidate.errors / candidate.requests if candidate.requests else None
    its = baseline.errors / baseline.requests if baseline.requests else None
    # Without an error on either side the ratio is no number, and as good as equal.
    value = None if mine is None or its is None else mine / its if its else 1.0 if not mine else math.inf
    seen = f"{candidate.errors} of {candidate.requests} against {baseline.errors} of {baseline.requests}"
    few = min(candidate.requests, baseline.requests)
    if value == math.inf:
        # One error against none is beyond any ratio, and no evidence yet.
        value = (candidate.errors + 1) / (candidate.requests + 1) * (baseline.requests + 1)
    return _verdict("error_ratio", value, WORSE_ERRORS, few, least, log_e >= math.log(1 / alpha), seen)


def _drop(
    measure: str, mine: tuple[float, int], its: tuple[float, int], bound: float, least: int, alpha: float
) -> Finding:
    """A share of good answers beside another's: the baseline's may be 1 / (1 - bound) times the candidate's."""
    log_e = log_e_ratio(its[0], its[1], mine[0], mine[1], 1 / (1 - bound))
    return _dropped(measure, mine, its, bound, least, log_e >= math.log(1 / alpha))


def _drop_below(
    measure: str, mine: tuple[float, int], its: tuple[float, int], bound: float, least: int, alpha: float
) -> Finding:
    """A share of good answers against one that is over: half of alpha for what that one was, half for what is now."""
    lowest = (1 - bound) * least_rate(its[0], its[1], alpha / 2)
    bad = mine[1] - mine[0]
    certain = lowest > 0 and log_e_above(bad, mine[1], 1 - lowest) >= math.log(2 / alpha)
    return _dropped(measure, mine, its, bound, least, certain)


def _dropped(
    measure: str, mine: tuple[float, int], its: tuple[float, int], bound: float, least: int, certain: bool
) -> Finding:
    rate = mine[0] / mine[1] if mine[1] else None
    other = its[0] / its[1] if its[1] else None
    value = None if rate is None or not other else 1 - rate / other
    seen = f"{mine[0]:g} of {mine[1]} against {its[0]:g} of {its[1]}"
    return _verdict(measure, value, bound, min(mine[1], its[1]), least, certain, seen)


def _value(mine: Counts, its: Counts, bound: float, least: int, alpha: float) -> Finding:
    few = min(mine.labelled, its.labelled)
    lost = its.worth / its.labelled - mine.worth / mine.labelled if few else None
    margin = mean_margin(mine.labelled, alpha / 2) + mean_margin(its.labelled, alpha / 2)
    seen = f"of the span between worst and best decision, {mine.labelled} labels against {its.labelled}"
    return _verdict("value_drop", lost, bound, few, least, lost is not None and lost - margin > bound, seen)


def _shift(mine: Counts, its: Counts, bound: float, least: int, alpha: float) -> Finding:
    """Kolmogorov and Smirnov's distance at the bins' edges, each edge a mean of its own with its share of alpha."""
    few = min(sum(mine.scores), sum(its.scores))
    value = None
    if few:
        below = [np.cumsum(one.scores)[:-1] / sum(one.scores) for one in (mine, its)]
        value = float(np.abs(below[0] - below[1]).max())
    each = alpha / (SCORE_BINS - 1) / 2
    margin = mean_margin(sum(mine.scores), each) + mean_margin(sum(its.scores), each)
    seen = f"{sum(mine.scores)} scores against {sum(its.scores)}"
    return _verdict("score_shift", value, bound, few, least, value is not None and value - margin > bound, seen)


def _verdict(
    measure: str, value: float | None, bound: float, count: int, least: int, certain: bool, seen: str
) -> Finding:
    if certain:
        verdict, reason = Verdict.FAIL, f"{measure} is above {bound:g} beyond doubt: {seen}"
    elif value is None or count < least:
        verdict, reason = Verdict.NO_DATA, f"{measure}: {count} rows, {least} needed to judge"
    elif value > bound:
        verdict, reason = Verdict.WARN, f"{measure} is {value:.3g}, above {bound:g}, and may be so by chance: {seen}"
    else:
        verdict, reason = Verdict.PASS, f"{measure} is {value:.3g}, at most {bound:g} as asked: {seen}"
    return Finding(measure, "all rows", value, bound, Direction.AT_MOST, SINCE, verdict, reason, count)
