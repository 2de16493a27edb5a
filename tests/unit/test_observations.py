"""What the log says is counted once, for the step it belongs to; what turns bad after a long good time still shows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle import observations
from lifecycle.findings import Verdict
from lifecycle.observations import Answer, Labels, Watch
from lifecycle.rollout import RolloutState, Stage, advance, propose
from lifecycle.rollout_judge import FIRST_LABELS, Counts
from lifecycle.spec import Business, Rollback
from lifecycle.spec import Rollout as Plan

pytestmark = pytest.mark.requirement("R8.1", "R5.1", "R5.2")
START = datetime(2026, 1, 1, tzinfo=UTC)
T = START.timestamp()
PLAN = Plan(min_requests=50, rollback=Rollback(latency_floor_ms=0))
BUSINESS = Business(currency="USD", decision="call", true_positive=10.0, false_positive=-5.0)


def at(stage: Stage, baseline: str | None = "1") -> RolloutState:
    return replace(propose("r", "m", "2", baseline, "canary", START, needs_approval=False), stage=stage)


class Told:
    """A watch, and answers in few words."""

    def __init__(
        self, stage: Stage = Stage.CANARY, baseline: str | None = "1", stretch: int = 500, plan: Plan = PLAN
    ) -> None:
        self.watch = Watch(at(stage, baseline), plan, BUSINESS, stretch)
        self.names = (f"r{number}" for number in count())

    def answer(
        self,
        version: str,
        second: float = 0.0,
        latency: float = 1.0,
        score: float | None = 0.7,
        name: str | None = None,
        shadow: bool = False,
    ) -> str:
        name = name or next(self.names)
        decision = None if score is None else int(score >= 0.5)
        self.watch.answered(name, Answer(version, T + second, score, decision, latency, shadow))
        return name

    def counts(self) -> tuple[Counts, Counts | None]:
        return self.watch._whole.counts()

    def verdict(self, measure: str) -> Verdict:
        return {one.measure: one.verdict for one in self.watch.findings()}[measure]


def test_answers_labels_and_errors_are_counted_for_their_version():
    told = Told()
    right, wrong = told.answer("1", score=0.2), told.answer("2", score=0.8)
    told.answer("2", score=None)
    unknown = told.answer("9")
    for name in (right, wrong, unknown, "never asked", right):  # a label counts once, however often it comes
        told.watch.labelled(name, 0)
    mine, its = told.counts()
    assert (mine.requests, mine.errors, mine.labelled, mine.right, mine.worth) == (2, 1, 1, 0, 0.0)
    assert its is not None
    assert (its.requests, its.labelled, its.right, its.worth) == (1, 1, 1, pytest.approx(1 / 3))
    assert (sum(mine.scores), mine.scores[16], its.scores[4]) == (1, 1, 1)


def test_what_was_before_the_step_only_tells_how_fast_the_baseline_was():
    told = Told()
    early = [told.answer("1", -1, latency=10.0) for _ in range(50)]
    for _ in range(50):
        told.answer("2", -1, score=None)
    told.answer("2", latency=20.1)
    told.answer("2", latency=19.9)
    told.watch.labelled(early[0], 1)
    mine, its = told.counts()
    assert told.watch._whole.limit_ms == 20.0
    assert (mine.requests, mine.slow, mine.errors) == (2, 1, 0)
    assert its == Counts(scores=(0,) * 20)


def test_the_limit_of_slowness_stays_when_the_baseline_slows_down_too():
    told = Told()
    for _ in range(50):
        told.answer("1")
    told.counts()
    for _ in range(100):
        told.answer("1", latency=50.0)
    told.answer("2", latency=40.0)
    assert told.counts()[0].slow == 1


def test_twice_of_little_is_not_slow():
    told = Told(plan=Plan(min_requests=50))
    for _ in range(50):
        told.answer("1", -1, latency=2.0)
    for latency in (10.0, 49.0, 51.0):
        told.answer("2", latency=latency)
    assert told.counts()[0].slow == 1
    assert told.watch._whole.limit_ms == 50.0


def test_a_shadow_is_compared_and_its_latency_says_nothing():
    told = Told(Stage.SHADOW)
    for _ in range(50):
        told.answer("1")
    for live, shadow in [(0.7, 0.9), (0.2, 0.9), (0.1, 0.3)]:
        name = told.answer("1", score=live)
        told.answer("2", latency=500.0, score=shadow, name=name, shadow=True)
    told.answer("2", score=0.4, name="a shadow that answers first", shadow=True)
    told.answer("1", score=0.4, name="a shadow that answers first")
    mine, _ = told.counts()
    assert (mine.requests, mine.slow, mine.compared, mine.agreed) == (4, 0, 4, 3)


def test_a_label_counts_for_both_who_answered():
    told = Told(Stage.SHADOW)
    name = told.answer("1", score=0.2)
    told.answer("2", score=0.9, name=name, shadow=True)
    told.watch.labelled(name, 1)
    mine, its = told.counts()
    assert its is not None
    assert (mine.labelled, mine.right, its.labelled, its.right) == (1, 1, 1, 0)


def test_a_shadow_that_lags_behind_is_compared_on_the_rows_that_both_have_scored():
    told = Told(Stage.SHADOW)
    names = [told.answer("1", score=0.2 if number < 100 else 0.9) for number in range(200)]
    for name in names[:100]:
        told.answer("2", score=0.2, name=name, shadow=True)
    for name in names[100:]:
        told.watch.labelled(name, 1)  # before the shadow has come so far
    mine, its = told.counts()
    assert its is not None
    assert mine.scores == its.scores
    assert (sum(mine.scores), mine.labelled, its.labelled) == (100, 0, 0)
    assert told.verdict("score_shift") is Verdict.PASS


@pytest.mark.parametrize("stage", [Stage.CANARY, Stage.LIVE])
def test_what_a_shadow_still_scores_after_its_step_counts_no_more(stage: Stage):
    told = Told(stage)
    name = told.answer("2", score=0.9, shadow=True)
    told.watch.labelled(name, 0)
    assert told.counts()[0] == Counts(scores=(0,) * 20)
    assert told.watch._first.labelled == 0


def test_without_a_baseline_nothing_is_slow():
    told = Told(baseline=None)
    told.answer("2", latency=1e9)
    mine, its = told.counts()
    assert (mine.requests, mine.slow, its) == (1, 0, None)


@pytest.mark.parametrize("stage", [Stage.CANARY, Stage.LIVE])
def test_a_long_good_time_excuses_nothing(stage: Stage):
    told = Told(stage, stretch=300)
    for second in range(3_000):
        for version in ("1", "2"):
            for _ in range(5):
                told.answer(version, second)
    assert told.verdict("error_rate") is Verdict.PASS
    for one in range(40):
        told.answer("2", 3_000 + one / 10, score=None)
    failed = [one for one in told.watch.findings() if one.verdict is Verdict.FAIL]
    # Forty of fifteen thousand are far below a tenth: the newest stretch alone shows them.
    if stage is Stage.CANARY:
        assert failed == [] or failed[0].window == "newest stretch"
    for one in range(400):
        told.answer("2", 3_070 + one / 100, score=None)
    failed = [one for one in told.watch.findings() if one.verdict is Verdict.FAIL]
    assert {"error_rate"} <= {one.measure for one in failed}
    assert {one.window for one in failed if one.measure == "error_rate"} == {"newest stretch"}
    assert advance(at(stage), PLAN, failed, START + timedelta(hours=1)).stage is Stage.ROLLED_BACK


@pytest.mark.parametrize("good", [0, 499, 500, 100_000])
def test_what_turns_bad_shows_within_as_many_rows_however_long_it_was_good(good: int):
    told = Told(Stage.LIVE)
    for number in range(good):
        told.answer("2", number / 200)
    for number in range(200):
        told.answer("2", (good + number) / 200, score=None)
    assert told.verdict("error_rate") is Verdict.FAIL


def test_slow_answers_show_in_the_newest_stretch_too():
    told = Told(Stage.LIVE, stretch=60)
    for _ in range(200):
        told.answer("1", -10)
    for number in range(200):
        told.answer("2", number, latency=1.5)
    assert told.verdict("slow_share") is Verdict.PASS
    for number in range(200):
        told.answer("2", 200 + number / 10, latency=2.5)
    assert told.verdict("slow_share") is Verdict.FAIL


def test_a_live_version_does_not_gather_its_whole_life(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(observations, "MOST_AWAITED", 100)
    told = Told(Stage.LIVE, stretch=1)
    names = [told.answer("2", second) for second in range(500)]
    assert sum(one.counts()[0].requests for one in told.watch._recent) <= 3
    assert len(told.watch._awaited) == 100
    told.watch.labelled(names[0], 1)  # too long ago: left to monitoring
    told.watch.labelled(names[-1], 1)
    assert told.watch._first.labelled == 1


def test_nothing_seen_is_no_data():
    for stage in (Stage.SHADOW, Stage.CANARY, Stage.LIVE):
        found = Told(stage).watch.findings()
        assert found
        assert {one.verdict for one in found} == {Verdict.NO_DATA}


@pytest.mark.parametrize("delay", [0.0, 30 * 86_400.0])
def test_a_live_version_that_decides_worse_than_at_first_is_condemned_whenever_its_labels_come(delay: float):
    rng = np.random.default_rng(0)
    told = Told(Stage.LIVE)
    answered = FIRST_LABELS * PLAN.min_requests + 400
    names = [told.answer("2", second, score=float(rng.uniform(0.5, 1))) for second in range(answered)]
    told.answer("1", delay)  # time goes on
    for place, name in enumerate(names):
        told.watch.labelled(name, 1 if place < FIRST_LABELS * PLAN.min_requests else int(rng.random() < 0.3))
    assert told.verdict("performance_drop") is Verdict.FAIL
    assert told.verdict("value_drop") is Verdict.FAIL
    assert len(told.watch._newest) == 2


def test_a_live_version_as_good_as_at_first_stays():
    rng = np.random.default_rng(0)
    told = Told(Stage.LIVE)
    for second in range(3_000):
        told.watch.labelled(told.answer("2", second, score=float(rng.uniform(0, 1))), int(rng.random() < 0.5))
    assert {told.verdict(name) for name in ("performance_drop", "ranking_drop", "value_drop")} <= {
        Verdict.PASS, Verdict.WARN,
    }  # fmt: skip


# Labels


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.7, 0.9]), st.integers(0, 1)), max_size=60))
def test_each_label_stands_in_one_pair_at_most(rows: list[tuple[float, int]]):
    labels = Labels(BUSINESS)
    for score, label in rows:
        labels.add(int(score >= 0.5), score, label)
    counts = labels.counts()
    positive = sum(label for _, label in rows)
    assert counts.pairs <= min(positive, len(rows) - positive)
    assert counts.labelled == len(rows)
    if positive in (0, len(rows)):
        assert counts.pairs == 0


def test_the_pairs_estimate_roc_auc():
    rng = np.random.default_rng(2)
    labels = Labels(BUSINESS)
    drawn = rng.integers(0, 2, 20_000)
    scores = 1 / (1 + np.exp(-(rng.normal(size=20_000) + drawn)))  # two normals one apart: AUC is Phi(1 / sqrt 2)
    for score, label in zip(scores.tolist(), drawn.tolist(), strict=True):
        labels.add(int(score >= 0.5), score, label)
    counts = labels.counts()
    assert counts.pairs > 9_000
    assert counts.ordered / counts.pairs == pytest.approx(0.7602, abs=0.015)


def test_a_tie_is_half_a_pair_in_order():
    labels = Labels(BUSINESS)
    labels.add(1, 0.5, 1)
    labels.add(1, 0.5, 0)
    assert (labels.counts().pairs, labels.counts().ordered) == (1, 0.5)
