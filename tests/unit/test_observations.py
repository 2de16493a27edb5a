"""What the log says is counted once, for the step it belongs to; what turns bad after a long good time still shows."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lifecycle.findings import Verdict
from lifecycle.observations import Observer, Watch
from lifecycle.rollout import Counts, Stage, advance, propose
from lifecycle.spec import Rollout as Plan

pytestmark = pytest.mark.requirement("R8.1", "R5.1")
START = datetime(2026, 1, 1, tzinfo=UTC)
T = START.timestamp()
PLAN = Plan(min_requests=50)


def observer(**other: Any) -> Observer:
    return Observer(**{"candidate": "2", "baseline": "1", "since": T, "latency_ratio": 2.0, "least": 10, **other})


def test_answers_labels_and_errors_are_counted_for_their_version():
    seen = observer()
    seen.answered("a", T, "2", 1.0, 1, shadow=False)
    seen.answered("b", T, "2", 1.0, None, shadow=False)
    seen.answered("c", T, "1", 1.0, 0, shadow=False)
    seen.answered("d", T, "9", 1.0, 0, shadow=False)
    for name, label in (("a", 0), ("c", 0), ("d", 1), ("never", 1)):
        seen.labelled(name, label)
    mine, its = seen.counts()
    assert mine == Counts(requests=2, errors=1, labelled=1, right=0)
    assert its == Counts(requests=1, labelled=1, right=1)


def test_what_was_before_the_step_only_tells_how_fast_the_baseline_was():
    seen = observer()
    for number in range(10):
        seen.answered(f"p{number}", T - 1, "1", 10.0, 1, shadow=False)
        seen.answered(f"q{number}", T - 1, "2", 10.0, None, shadow=False)
    seen.answered("slow", T, "2", 20.1, 1, shadow=False)
    seen.answered("fast", T, "2", 19.9, 1, shadow=False)
    mine, its = seen.counts()
    assert seen.limit_ms == 20.0
    assert (mine.requests, mine.slow, mine.errors) == (2, 1, 0)
    assert its == Counts()


def test_the_limit_of_slowness_stays_when_the_baseline_slows_down_too():
    seen = observer()
    for number in range(10):
        seen.answered(f"a{number}", T, "1", 1.0, 1, shadow=False)
    seen.counts()
    for number in range(100):
        seen.answered(f"b{number}", T, "1", 50.0, 1, shadow=False)
    seen.answered("c", T, "2", 40.0, 1, shadow=False)
    assert seen.counts()[0].slow == 1


def test_a_shadow_is_compared_and_its_latency_says_nothing():
    seen = observer(least=1)
    for number, (live, shadow) in enumerate([(1, 1), (0, 1), (0, 0)]):
        seen.answered(f"r{number}", T, "1", 1.0, live, shadow=False)
        seen.answered(f"r{number}", T, "2", 500.0, shadow, shadow=True)
    mine, _ = seen.counts()
    assert (mine.requests, mine.slow, mine.compared, mine.agreed) == (3, 0, 3, 2)


def test_without_a_baseline_nothing_is_slow():
    seen = observer(baseline=None)
    seen.answered("a", T, "2", 1e9, 1, shadow=False)
    assert seen.counts() == (Counts(requests=1), None)


def verdict(watch: Watch, measure: str) -> Verdict:
    return {one.measure: one.verdict for one in watch.findings()}[measure]


@pytest.mark.parametrize("stage", [Stage.CANARY, Stage.LIVE])
def test_a_long_good_time_excuses_nothing(stage: Stage):
    state = propose("r", "m", "2", "1", "canary", START, needs_approval=False)
    watch = Watch(replace(state, stage=stage), PLAN, window=60.0)
    number = 0
    for second in range(3_000):
        for version in ("1", "2"):
            for _ in range(5):
                number += 1
                watch.answered(f"r{number}", T + second, version, 1.0, 1, shadow=False)
    assert verdict(watch, "error_rate") is Verdict.PASS
    for one in range(40):
        watch.answered(f"e{one}", T + 3_000 + one / 10, "2", 1.0, None, shadow=False)
    failed = [one for one in watch.findings() if one.verdict is Verdict.FAIL]
    # Forty of fifteen thousand are far below a tenth: the newest stretch alone shows them.
    if stage is Stage.CANARY:
        assert failed == [] or failed[0].window == "newest stretch"
    for one in range(400):
        watch.answered(f"f{one}", T + 3_070 + one / 100, "2", 1.0, None, shadow=False)
    failed = [one for one in watch.findings() if one.verdict is Verdict.FAIL]
    assert {"error_rate"} <= {one.measure for one in failed}
    assert {one.window for one in failed if one.measure == "error_rate"} == {"newest stretch"}
    assert advance(replace(state, stage=stage), PLAN, failed, START + timedelta(hours=1)).stage is Stage.ROLLED_BACK


def test_slow_answers_show_in_the_newest_stretch_too():
    state = replace(propose("r", "m", "2", "1", "canary", START, needs_approval=False), stage=Stage.LIVE)
    watch = Watch(state, PLAN, window=60.0)
    for number in range(200):
        watch.answered(f"p{number}", T - 10, "1", 1.0, 1, shadow=False)
    for number in range(200):
        watch.answered(f"g{number}", T + number, "2", 1.5, 1, shadow=False)
    assert verdict(watch, "slow_share") is Verdict.PASS
    for number in range(200):
        watch.answered(f"s{number}", T + 200 + number / 10, "2", 2.5, 1, shadow=False)
    assert verdict(watch, "slow_share") is Verdict.FAIL


def test_a_live_version_does_not_gather_its_whole_life():
    state = replace(propose("r", "m", "2", "1", "canary", START, needs_approval=False), stage=Stage.LIVE)
    watch = Watch(state, PLAN, window=1.0)
    for second in range(500):
        watch.answered(f"r{second}", T + second, "2", 1.0, 1, shadow=False)
    assert sum(len(one._decisions) for one in [watch._whole, *watch._recent]) <= 3


def test_nothing_seen_is_no_data():
    state = propose("r", "m", "2", "1", "canary", START, needs_approval=False)
    assert {one.verdict for one in Watch(state, PLAN).findings()} == {Verdict.NO_DATA}


@pytest.mark.parametrize(
    ("stage", "age", "newest"),
    [(Stage.CANARY, 86_400.0, 0.0), (Stage.LIVE, 86_400.0, 86_280.0), (Stage.LIVE, 10.0, 0.0)],
)
def test_what_a_watch_has_to_read_is_the_step_or_the_newest_of_a_life(stage: Stage, age: float, newest: float):
    state = replace(propose("r", "m", "2", "1", "canary", START, needs_approval=False), stage=stage)
    since = state.since.timestamp()
    past, recent = Watch(state, PLAN, window=60.0).spans(since + age)
    assert past == (since - 3_600, since)
    assert recent == (since + newest, math.inf)
