"""What the prediction log says of a version, counted: requests, errors, slow answers, scores, and labels as they come (R5.1, R5.2)."""

from __future__ import annotations

from array import array
from collections import OrderedDict, deque
from dataclasses import dataclass, field, replace

import numpy as np

from lifecycle.findings import Finding, Verdict
from lifecycle.rollout import RolloutState, Stage
from lifecycle.rollout_judge import FIRST_LABELS, SCORE_BINS, Counts, judge, judge_against_first
from lifecycle.spec import Business
from lifecycle.spec import Rollout as Plan

P95 = 0.95
PAST_SECONDS = 3_600.0
"""Of a baseline's answers before a step: enough to know how quick it was."""
STRETCH_ROWS = 500
"""The version's rows from one fresh count of a `Watch` to the next. Counted in rows, as evidence is: what a long good time
leaves in the newest stretch delays the judge by as many rows at most, however much traffic there is."""
GUARD_ALPHA = 1e-7
"""Chance of a false alarm in one guarded stretch: at 200 rows/s about once a year, of a version right at its bounds."""
MOST_AWAITED = 500_000
"""Answers whose label is still awaited; of more, the oldest are left to monitoring, which joins them from the log."""
MOST_UNPAIRED = 1_000
NEWEST = "newest stretch"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a version answered to one row.

    Parameters
    ----------
    version, at
        Who, and when in Unix seconds.
    score, decision
        Probability of the positive class, and 0 or 1; None when the version failed.
    latency_ms
        From the request to its record.
    shadow
        Whether nobody waited for it: its latency says nothing then.
    """

    version: str
    at: float
    score: float | None
    decision: int | None
    latency_ms: float
    shadow: bool = False


class Labels:
    """Labelled answers of one version, counted as their labels come.

    Parameters
    ----------
    business
        The model file's worth of each outcome.
    """

    def __init__(self, business: Business) -> None:
        worths = (
            (business.true_negative, business.false_negative),
            (business.false_positive, business.true_positive),
        )
        lowest = min(min(row) for row in worths)
        span = max(max(row) for row in worths) - lowest
        self._worth = [[(one - lowest) / span for one in row] for row in worths]
        self._unpaired: deque[tuple[int, float]] = deque(maxlen=MOST_UNPAIRED)
        self.labelled = self.right = self.pairs = 0
        self.ordered = self.worth = 0.0

    def add(self, decision: int, score: float, label: int) -> None:
        """Count one label; each stands in one pair at most, so that the pairs are independent of each other."""
        self.labelled += 1
        self.right += decision == label
        self.worth += self._worth[decision][label]
        if not self._unpaired or self._unpaired[0][0] == label:
            self._unpaired.append((label, score))
            return
        _, other = self._unpaired.popleft()
        difference = score - other if label else other - score
        self.pairs += 1
        self.ordered += 1.0 if difference > 0 else 0.5 if difference == 0 else 0.0

    def counts(self) -> Counts:
        """As counts without requests."""
        # A sum of floats may exceed its number of terms by their rounding.
        return Counts(
            labelled=self.labelled,
            right=self.right,
            pairs=self.pairs,
            ordered=self.ordered,
            worth=min(self.worth, float(self.labelled)),
        )


@dataclass(slots=True)
class _Bucket:
    labels: Labels
    requests: int = 0
    errors: int = 0
    latencies: array[float] = field(default_factory=lambda: array("d"))
    scores: list[int] = field(default_factory=lambda: [0] * SCORE_BINS)


class Observer:
    """Counts one rollout step's answers as they are read from the log; each record is given once, in the log's order.

    Parameters
    ----------
    state
        The rollout: which version is judged, and beside which.
    since
        Unix seconds when the step began: earlier answers are the baseline's past alone.
    plan, business
        The model file's sections.
    """

    def __init__(self, state: RolloutState, since: float, plan: Plan, business: Business) -> None:
        self.since = since
        self.limit_ms: float | None = None
        """Slower answers are slow: a multiple of the baseline's P95, taken once and kept for the whole step, or the model's floor."""
        self._plan = plan
        self._candidate, self._baseline = state.candidate, state.baseline
        self._paired = state.stage is Stage.SHADOW
        self._seen = {
            version: _Bucket(Labels(business)) for version in (state.candidate, state.baseline) if version is not None
        }
        self._past = array("d")
        self._compared = self._agreed = 0

    @property
    def rows(self) -> int:
        """Rows that the candidate was asked in this step."""
        return self._seen[self._candidate].requests

    def answered(self, answer: Answer, other: Answer | None = None) -> None:
        """Count an answer of either version; `other` is what the other one answered to the same row, when it has."""
        if answer.at < self.since:
            if answer.version == self._baseline and not answer.shadow:
                self._past.append(answer.latency_ms)
            return
        seen = self._seen[answer.version]
        seen.requests += 1
        if answer.score is None:
            seen.errors += 1
            return
        if not answer.shadow:
            seen.latencies.append(answer.latency_ms)
        if other is not None:
            self._compared += 1
            self._agreed += other.decision == answer.decision
        # A shadow may lag behind: the two are compared on the rows that both have scored.
        told = (answer,) if not self._paired else (answer, other) if other is not None else ()
        for one in told:
            if one.score is not None:
                self._seen[one.version].scores[min(int(one.score * SCORE_BINS), SCORE_BINS - 1)] += 1

    def labelled(self, answer: Answer, label: int) -> None:
        """Count the label of an answer that was given in this step."""
        if answer.at >= self.since and answer.score is not None and answer.decision is not None:
            self._seen[answer.version].labels.add(answer.decision, answer.score, label)

    def counts(self) -> tuple[Counts, Counts | None]:
        """Counts of the candidate, and of the baseline; None for a baseline that is not there."""
        self._settle_limit()
        mine = replace(self._counts(self._candidate), compared=self._compared, agreed=self._agreed)
        return mine, None if self._baseline is None else self._counts(self._baseline)

    def _settle_limit(self) -> None:
        if self.limit_ms is not None or self._baseline is None:
            return
        least = self._plan.min_requests
        known = self._past if len(self._past) >= least else self._seen[self._baseline].latencies
        if len(known) >= least:
            newest = np.frombuffer(known, dtype=np.float64)[-10_000:]
            rule = self._plan.rollback
            self.limit_ms = max(rule.latency_floor_ms, rule.latency_ratio * float(np.quantile(newest, P95)))

    def _counts(self, version: str) -> Counts:
        seen = self._seen[version]
        timed = slow = 0
        if self.limit_ms is not None and seen.latencies:
            timed = len(seen.latencies)
            slow = int((np.frombuffer(seen.latencies, dtype=np.float64) > self.limit_ms).sum())
        return replace(
            seen.labels.counts(),
            requests=seen.requests,
            errors=seen.errors,
            timed=timed,
            slow=slow,
            scores=tuple(seen.scores),
        )


class Watch:
    """A rollout step under guard: all of it, and its newest stretch, in which what turned bad later shows soonest.

    A version that answered well for a day and then fails must not be excused by its day: every `stretch` a fresh count
    begins, and two of them overlap, so that one always looks back at least a stretch. A live version's labels may come days
    after its answers: their stretches are counted in labels, and compared with its own first ones.

    Parameters
    ----------
    state
        The rollout as it stands; another stage or step needs another watch.
    plan, business
        The model file's sections.
    stretch
        The version's rows from one fresh count to the next.
    """

    def __init__(self, state: RolloutState, plan: Plan, business: Business, stretch: int = STRETCH_ROWS) -> None:
        self.state, self._plan, self._business, self._stretch = state, plan, business, stretch
        self._whole = self._fresh(state.since.timestamp())
        self._recent: list[Observer] = []
        self._awaited: OrderedDict[str, tuple[Answer, ...]] = OrderedDict()
        self._first = Labels(business)
        self._newest: list[Labels] = []

    def answered(self, request_id: str, answer: Answer) -> None:
        """Count an answer; those of other versions are passed over."""
        if answer.version not in (self.state.candidate, self.state.baseline):
            return
        if answer.shadow and self.state.stage is not Stage.SHADOW:
            return  # left over from the step before: rows of another time, which the version beside it has behind it
        other = self._await(request_id, answer)
        if answer.at < self._whole.since:
            self._whole.answered(answer)
            return
        if not self._recent or self._recent[-1].rows >= self._stretch:
            # The limit of slowness stays the step's: a baseline that slows down with the candidate excuses nobody.
            fresh = self._fresh(answer.at)
            fresh.limit_ms = self._whole.limit_ms
            self._recent = [*self._recent[-1:], fresh]
        for one in self._all():
            one.answered(answer, other)

    def labelled(self, request_id: str, label: int) -> None:
        """Count the label of a request, once, for every version that answered it."""
        answers = self._awaited.pop(request_id, ())
        if self.state.stage is Stage.SHADOW and len(answers) < 2:
            return  # the shadow lags behind: a label that counts for one alone would compare other rows
        for answer in answers:
            if self._bounded:
                for one in self._all():
                    one.labelled(answer, label)
            elif answer.version == self.state.candidate:
                self._label_alone(answer, label)

    def findings(self) -> list[Finding]:
        """Findings about the whole step, those about its newest stretch in their place where these are worse."""
        mine, its = self._whole.counts()
        found = {one.measure: one for one in judge(self._plan, mine, its)} if self._bounded else {}
        for recent in self._recent:
            recent.limit_ms = recent.limit_ms or self._whole.limit_ms
            mine, its = recent.counts()
            _add(found, judge(self._plan, mine, its if self._bounded else None, alpha=GUARD_ALPHA), NEWEST)
        if not self._bounded:
            first = self._first.counts()
            for labels in self._newest or [Labels(self._business)]:
                newest = labels.counts()
                window = f"newest {newest.labelled} labels against its first {first.labelled}"
                _add(found, judge_against_first(self._plan, newest, first, alpha=GUARD_ALPHA), window)
        return list(found.values())

    @property
    def _bounded(self) -> bool:
        """Whether the step ends by itself: a live version's life does not, and is judged by its newest stretch."""
        return self.state.stage is not Stage.LIVE

    def _all(self) -> list[Observer]:
        return [self._whole, *self._recent] if self._bounded else self._recent

    def _fresh(self, since: float) -> Observer:
        return Observer(self.state, since, self._plan, self._business)

    def _await(self, request_id: str, answer: Answer) -> Answer | None:
        """Remember an answer for its label; what the other version answered to the same row, None while it has not."""
        if answer.score is None:
            return None
        others = self._awaited.get(request_id, ())
        self._awaited[request_id] = (*others, answer)
        if len(self._awaited) > MOST_AWAITED:
            self._awaited.popitem(last=False)
        return others[0] if others else None

    def _label_alone(self, answer: Answer, label: int) -> None:
        assert answer.score is not None  # held by `_await`
        assert answer.decision is not None
        least = self._plan.min_requests
        if self._first.labelled < FIRST_LABELS * least:
            self._first.add(answer.decision, answer.score, label)
            return
        if not self._newest or self._newest[-1].labelled >= least:
            self._newest = [*self._newest[-1:], Labels(self._business)]
        for one in self._newest:
            one.add(answer.decision, answer.score, label)


def _add(found: dict[str, Finding], more: list[Finding], window: str) -> None:
    """Take findings that are new, or condemn what was not condemned yet."""
    for one in more:
        before = found.get(one.measure)
        if before is None or (one.verdict is Verdict.FAIL and before.verdict is not Verdict.FAIL):
            found[one.measure] = replace(one, window=window)
