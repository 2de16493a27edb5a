"""What is beyond its bound beyond doubt condemns a version, chance does not, and few rows say nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.findings import Verdict
from lifecycle.rollout_judge import ALPHA, SCORE_BINS, Counts, judge, judge_against_first
from lifecycle.spec import Rollout as Plan

pytestmark = pytest.mark.requirement("R4.1", "R8.1", "R5.2")
PLAN = Plan(min_requests=100)
BINS = (100,) * SCORE_BINS
SAME = Counts(
    requests=2_000,
    errors=10,
    timed=2_000,
    slow=20,
    labelled=1_000,
    right=700,
    pairs=400,
    ordered=320.0,
    worth=600.0,
    scores=BINS,
)


def verdicts(candidate: Counts, baseline: Counts | None = None) -> dict[str, Verdict]:
    return {one.measure: one.verdict for one in judge(PLAN, candidate, baseline)}


def bins(*heights: int) -> tuple[int, ...]:
    """A distribution whose few given bins are spread evenly over all."""
    return tuple(np.repeat(heights, SCORE_BINS // len(heights)).tolist())


def test_equal_versions_pass():
    assert set(verdicts(SAME, SAME).values()) == {Verdict.PASS}


@pytest.mark.parametrize(
    ("change", "measure"),
    [
        ({"errors": 400}, "error_rate"),
        ({"errors": 100}, "error_ratio"),
        ({"slow": 400}, "slow_share"),
        ({"right": 300}, "performance_drop"),
        ({"ordered": 150.0}, "ranking_drop"),
        ({"worth": 300.0}, "value_drop"),
        ({"scores": bins(200, 200, 0, 0)}, "score_shift"),
    ],
)
def test_each_bound_condemns_what_is_far_beyond_it(change: dict[str, Any], measure: str):
    assert verdicts(replace(SAME, **change), SAME)[measure] is Verdict.FAIL


@pytest.mark.parametrize(
    ("change", "measure"),
    [
        ({"errors": 205}, "error_rate"),
        ({"errors": 14}, "error_ratio"),
        ({"slow": 103}, "slow_share"),
        ({"right": 555}, "performance_drop"),
        ({"ordered": 250.0}, "ranking_drop"),
        ({"worth": 490.0}, "value_drop"),
        ({"scores": bins(170, 150, 50, 30)}, "score_shift"),
    ],
)
def test_just_beyond_a_bound_warns(change: dict[str, Any], measure: str):
    assert verdicts(replace(SAME, **change), SAME)[measure] is Verdict.WARN


@pytest.mark.parametrize("requests", [0, 1, 99])
def test_a_few_bad_answers_are_no_evidence_and_a_few_good_ones_no_pass(requests: int):
    found = verdicts(Counts(requests, min(1, requests), requests, min(1, requests)), SAME)
    assert set(found.values()) == {Verdict.NO_DATA}


def test_no_answer_at_all_is_evidence_soon():
    assert verdicts(Counts(requests=20, errors=20), SAME)["error_rate"] is Verdict.FAIL


def test_one_error_against_none_is_no_reason_to_roll_back():
    assert verdicts(Counts(200, 1), Counts(2_000))["error_ratio"] is not Verdict.FAIL
    assert verdicts(Counts(200), Counts(2_000))["error_ratio"] is Verdict.PASS


def test_while_nobody_knows_what_is_slow_there_is_no_data():
    assert verdicts(replace(SAME, timed=0, slow=0), SAME)["slow_share"] is Verdict.NO_DATA


def test_without_a_baseline_only_the_bounds_themselves_are_judged():
    assert set(verdicts(SAME)) == {"error_rate", "slow_share"}
    nobody = verdicts(SAME, Counts())
    for measure in ("performance_drop", "ranking_drop", "value_drop", "score_shift"):
        assert nobody[measure] is Verdict.NO_DATA


def test_agreement_of_a_shadow_is_told_and_decides_nothing():
    found = verdicts(replace(SAME, compared=100, agreed=3), SAME)
    assert found["shadow_agreement"] is Verdict.PASS


@pytest.mark.parametrize(
    "counts",
    [
        {"requests": 1, "errors": 2},
        {"requests": -1},
        {"requests": 1, "timed": 2},
        {"requests": 2, "timed": 1, "slow": 2},
        {"labelled": 1, "right": 2},
        {"labelled": 1, "worth": 1.5},
        {"pairs": 1, "ordered": -0.5},
        {"compared": 0, "agreed": 1},
        {"scores": (1, 2)},
    ],
)
def test_counts_that_cannot_be_are_refused(counts: dict[str, Any]):
    with pytest.raises(ValueError, match="accepted"):
        Counts(**counts)


def test_equal_versions_are_rolled_back_no_oftener_than_declared():
    rng = np.random.default_rng(0)
    rollouts, ticks, rolled_back = 300, 40, 0
    for _ in range(rollouts):
        mine = its = Counts()
        for _ in range(ticks):
            mine, its = more(rng, mine, 50), more(rng, its, 450)
            if any(one.verdict is Verdict.FAIL for one in judge(PLAN, mine, its)):
                rolled_back += 1
                break
    assert rolled_back / rollouts <= ALPHA + 3 * (ALPHA * (1 - ALPHA) / rollouts) ** 0.5


def more(rng: np.random.Generator, before: Counts, rows: int) -> Counts:
    """Rows of a version that lies just within its bounds."""
    labelled, pairs = rows // 5, rows // 20
    scores = np.array(before.scores or [0] * SCORE_BINS) + rng.multinomial(rows, [1 / SCORE_BINS] * SCORE_BINS)
    return Counts(
        before.requests + rows,
        before.errors + int(rng.binomial(rows, 0.09)),
        before.timed + rows,
        before.slow + int(rng.binomial(rows, 0.05)),
        before.labelled + labelled,
        before.right + int(rng.binomial(labelled, 0.7)),
        before.pairs + pairs,
        before.ordered + float(rng.binomial(pairs, 0.7)),
        before.worth + float(rng.beta(2, 2, labelled).sum()),
        scores=tuple(scores.tolist()),
    )


# A live version, against its own first labels

FIRST = Counts(labelled=2_000, right=1_600, pairs=600, ordered=450.0, worth=1_200.0)


def alone(newest: Counts, first: Counts = FIRST) -> dict[str, Verdict]:
    return {one.measure: one.verdict for one in judge_against_first(PLAN, newest, first, alpha=ALPHA)}


def test_a_live_version_as_good_as_it_was_passes():
    assert set(alone(FIRST).values()) == {Verdict.PASS}


@pytest.mark.parametrize(
    ("change", "measure"),
    [({"right": 1_000}, "performance_drop"), ({"ordered": 240.0}, "ranking_drop"), ({"worth": 700.0}, "value_drop")],
)
def test_a_live_version_far_worse_than_it_was_is_condemned(change: dict[str, Any], measure: str):
    assert alone(replace(FIRST, **change))[measure] is Verdict.FAIL


def test_few_first_or_newest_labels_are_no_data():
    for newest, first in ((Counts(), FIRST), (FIRST, Counts()), (Counts(), Counts())):
        assert set(alone(newest, first).values()) == {Verdict.NO_DATA}


def test_a_lucky_start_condemns_nobody():
    rng = np.random.default_rng(1)
    condemned = 0
    for _ in range(200):
        first = Counts(labelled=120, right=int(rng.binomial(120, 0.62)))
        right = 0
        for look in range(1, 21):
            right += int(rng.binomial(50, 0.62 * 0.8))
            found = judge_against_first(PLAN, Counts(labelled=50 * look, right=right), first, alpha=ALPHA)
            if found[0].verdict is Verdict.FAIL:
                condemned += 1
                break
    assert condemned / 200 <= ALPHA + 3 * (ALPHA / 200) ** 0.5


@given(st.integers(0, 1_000), st.integers(0, 1_000))
def test_a_better_version_is_never_condemned(labelled: int, fewer: int):
    mine = Counts(labelled=labelled, right=labelled, pairs=labelled // 2, ordered=labelled // 2, worth=float(labelled))
    its = Counts(labelled=labelled, right=max(0, labelled - fewer), pairs=labelled // 2, worth=float(labelled) / 2)
    for found in (judge(PLAN, mine, its), judge_against_first(PLAN, mine, its, alpha=ALPHA)):
        assert not any(one.verdict is Verdict.FAIL for one in found)
