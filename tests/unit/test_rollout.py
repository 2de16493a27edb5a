"""Evidence condemns, enough of it without evidence promotes, no data does neither, and a person can always stop it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lifecycle.errors import ConfigError
from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.rollout import (
    OPEN,
    OVER,
    REMIND_HOLDS,
    SERVICE,
    RolloutState,
    Stage,
    advance,
    approve,
    guard,
    guarded,
    pause,
    promote,
    propose,
    resume,
    roll_back,
    routing_of,
    supersede,
    withdraw,
)
from lifecycle.spec import Rollout as Plan

pytestmark = pytest.mark.requirement("R4.1", "R4.2", "R4.3", "R8.1", "R8.2")
PLAN = Plan(min_requests=100)
START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def finding(measure: str, verdict: Verdict) -> Finding:
    return Finding(measure, "all rows", 0.0, 1.0, Direction.AT_MOST, "w", verdict, f"{measure} {verdict.label}", 1)


def service(verdict: Verdict) -> list[Finding]:
    return [finding(measure, verdict) for measure in SERVICE]


GOOD, FEW, BAD = (
    service(Verdict.PASS),
    service(Verdict.NO_DATA),
    [*service(Verdict.PASS), finding("error_rate", Verdict.FAIL)],
)


def begun(strategy: Any = "canary", baseline: str | None = "1", **other: Any) -> RolloutState:
    values = {"needs_approval": False, **other}
    return propose("r", "m", "2", baseline, strategy, START, **values)


def at(stage: Stage, step: int = 0, **other: Any) -> RolloutState:
    return replace(begun(), stage=stage, step=step, **other)


def test_a_good_canary_goes_from_shadow_over_its_steps_to_live():
    state, seen, now = begun(), [], START
    for _ in range(6):
        routing = routing_of(state, PLAN, 1)
        assert routing is not None
        seen.append((state.stage, routing.weights))
        now += HOUR
        state = advance(state, PLAN, GOOD, now)
    assert seen == [
        (Stage.SHADOW, {"1": 1.0}),
        (Stage.CANARY, {"1": 0.9, "2": 0.1}),
        (Stage.CANARY, {"1": 0.5, "2": 0.5}),
        (Stage.LIVE, {"2": 1.0}),
        (Stage.LIVE, {"2": 1.0}),
        (Stage.LIVE, {"2": 1.0}),
    ]


def test_blue_green_moves_all_traffic_at_once_and_keeps_the_version_before_in_memory():
    state = advance(begun("blue_green"), PLAN, GOOD, START + HOUR)
    assert state.stage is Stage.LIVE
    routing = routing_of(state, PLAN, 2)
    assert routing is not None
    assert (routing.live, routing.previous, routing.candidate) == ("2", "1", None)


def test_a_shadow_never_takes_traffic_however_good():
    state = begun("shadow")
    assert advance(state, PLAN, GOOD, START + 1_000 * HOUR) is state
    routing = routing_of(state, PLAN, 1)
    assert routing is not None
    assert (routing.weights, routing.shadow) == ({"1": 1.0}, "2")


def test_a_shadow_that_fails_takes_no_user_with_it():
    assert advance(begun("shadow"), PLAN, BAD, START).stage is Stage.ROLLED_BACK


@pytest.mark.parametrize("stage", [Stage.SHADOW, Stage.CANARY, Stage.LIVE])
@pytest.mark.parametrize("paused", [False, True])
def test_evidence_rolls_back_at_once_in_every_stage_with_its_reason(stage: Stage, paused: bool):
    state = advance(at(stage, paused=paused), PLAN, BAD, START)
    assert (state.stage, state.reasons) == (Stage.ROLLED_BACK, ("error_rate fail",))
    routing = routing_of(state, PLAN, 9)
    assert routing is not None
    assert (routing.weights, routing.candidate) == ({"1": 1.0}, None)


@pytest.mark.parametrize("stage", [Stage.SHADOW, Stage.CANARY])
@pytest.mark.parametrize(
    "findings", [FEW, [], service(Verdict.WARN), GOOD[:1] + FEW[1:], [finding("performance_drop", Verdict.PASS)]]
)
def test_without_enough_data_it_neither_goes_on_nor_back(stage: Stage, findings: list[Finding]):
    state = at(stage)
    assert advance(state, PLAN, findings, START + 2 * HOUR) is state


def test_no_traffic_for_long_reminds_the_owner_once():
    state = at(Stage.CANARY)
    assert advance(state, PLAN, FEW, START + (REMIND_HOLDS - 1) * HOUR) is state
    told = advance(state, PLAN, FEW, START + REMIND_HOLDS * HOUR)
    assert "reminded" in told.reasons[0]
    assert told.stage is Stage.CANARY
    assert advance(told, PLAN, FEW, START + 10 * REMIND_HOLDS * HOUR) is told


def test_without_a_hold_time_the_owner_is_not_reminded_at_once():
    quick = Plan(hold="0m", min_requests=100)
    assert advance(at(Stage.CANARY), quick, FEW, START + HOUR / 2).reasons == at(Stage.CANARY).reasons
    assert "reminded" in advance(at(Stage.CANARY), quick, FEW, START + HOUR).reasons[0]


def test_it_holds_for_its_time_and_a_clock_that_went_back_waits():
    state = at(Stage.CANARY)
    assert advance(state, PLAN, GOOD, START + HOUR - timedelta(seconds=1)) is state
    assert advance(state, PLAN, GOOD, START - 100 * HOUR) is state
    assert advance(state, PLAN, GOOD, START + HOUR).step == 1


def test_late_labels_do_not_keep_a_version_from_going_on_and_bad_ones_take_it_back():
    waiting = [*GOOD, finding("performance_drop", Verdict.NO_DATA)]
    assert advance(at(Stage.CANARY), PLAN, waiting, START + HOUR).step == 1
    worse = [*GOOD, finding("performance_drop", Verdict.FAIL)]
    assert advance(at(Stage.LIVE), PLAN, worse, START + 1_000 * HOUR).stage is Stage.ROLLED_BACK


def test_the_first_version_answers_everybody_and_has_nowhere_to_go_back_to():
    state = begun(baseline=None)
    assert state.stage is Stage.LIVE
    routing = routing_of(state, PLAN, 1)
    assert routing is not None
    assert routing.weights == {"2": 1.0}
    told = advance(state, PLAN, BAD, START)
    assert told.stage is Stage.LIVE
    assert "a person has to decide" in told.reasons[0]
    assert advance(told, PLAN, BAD, START + HOUR) is told
    with pytest.raises(ConfigError, match="deploy another one"):
        roll_back(told, START, "r")


def test_two_bad_versions_in_a_row_are_no_loop():
    state = at(Stage.LIVE, blocked=("1",))
    told = advance(state, PLAN, BAD, START)
    assert told.stage is Stage.LIVE
    assert "version 1 was rolled back itself" in told.reasons[0]
    routing = routing_of(told, PLAN, 1)
    assert routing is not None
    assert routing.previous is None


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"baseline": "2"}, "is live already"),
        ({"blocked": ("2",)}, "was rolled back before"),
        ({"strategy": "shadow", "baseline": None}, "nothing|no live version"),
    ],
)
def test_a_rollout_that_cannot_be_is_refused(values: dict[str, Any], problem: str):
    with pytest.raises(ConfigError, match=problem):
        begun(**values)


def test_what_needs_approval_waits_for_it():
    state = begun(needs_approval=True)
    assert state.stage is Stage.AWAITING_APPROVAL
    assert advance(state, PLAN, GOOD, START + 1_000 * HOUR) is state
    assert advance(state, PLAN, BAD, START) is state
    routing = routing_of(state, PLAN, 1)
    assert routing is not None
    assert routing.weights == {"1": 1.0}
    assert routing_of(begun(baseline=None, needs_approval=True), PLAN, 1) is None
    assert approve(state, START + HOUR, "Mina said so").stage is Stage.SHADOW
    assert roll_back(state, START, "no longer wanted").stage is Stage.WITHDRAWN


@pytest.mark.parametrize("stage", list(Stage))
def test_each_action_is_taken_where_it_makes_sense_and_refused_elsewhere(stage: Stage):
    state = at(stage)
    for action, allowed in (
        (lambda: roll_back(state, START, "r"), OPEN),
        (lambda: promote(state, START, "r"), {Stage.SHADOW, Stage.CANARY}),
        (lambda: pause(state, "r"), {Stage.SHADOW, Stage.CANARY}),
        (lambda: approve(state, START, "r"), {Stage.AWAITING_APPROVAL}),
        (lambda: supersede(state, START, "3"), {Stage.LIVE}),
        (lambda: withdraw(state, START, "r"), {Stage.AWAITING_APPROVAL, Stage.SHADOW, Stage.CANARY}),
    ):
        if stage in allowed:
            assert action().reasons
        else:
            with pytest.raises(ConfigError, match="accepted: one that is"):
                action()
    with pytest.raises(ConfigError, match="is not paused"):
        resume(state, START, "r")


def test_a_shadow_goes_on_without_being_timed_and_a_canary_does_not():
    untimed = [finding("slow_share", Verdict.NO_DATA) if one.measure == "slow_share" else one for one in GOOD]
    assert advance(at(Stage.SHADOW), PLAN, untimed, START + HOUR).stage is Stage.CANARY
    waiting = at(Stage.CANARY)
    assert advance(waiting, PLAN, untimed, START + HOUR) is waiting


def test_a_paused_rollout_goes_on_only_when_resumed_and_holds_anew():
    paused = pause(at(Stage.CANARY), "a question")
    assert advance(paused, PLAN, GOOD, START + 100 * HOUR) is paused
    resumed = resume(paused, START + 100 * HOUR, "answered")
    assert advance(resumed, PLAN, GOOD, START + 100 * HOUR) is resumed
    assert advance(resumed, PLAN, GOOD, START + 101 * HOUR).step == 1


def test_a_state_survives_json():
    state = at(Stage.CANARY, 1, blocked=("0",), reasons=("a", "b"), paused=True)
    assert RolloutState.from_dict(state.to_dict()) == state


# The live version while the newest rollout is another version's

LIVE_ONE = replace(at(Stage.LIVE), rollout_id="live one")
AFTER = ("nobody knows",)


def other(stage: Stage) -> RolloutState:
    """Version 3's rollout beside version 2, which is live and followed version 1."""
    return RolloutState("r3", "m", "3", "2", "canary", stage, 0, START, reasons=AFTER)


BESIDE = [stage for stage in Stage if stage is not Stage.LIVE]


def test_a_live_versions_own_rollout_is_its_guard_and_a_later_one_changes_what_is_blocked():
    live = at(Stage.LIVE, reasons=("a",))
    assert guarded(live, LIVE_ONE, ("9",)) is live
    found = guarded(other(Stage.SHADOW), replace(LIVE_ONE, reasons=("told",)), ("1",))
    assert found == replace(LIVE_ONE, blocked=("1",), reasons=())


@pytest.mark.parametrize("stage", BESIDE)
@pytest.mark.parametrize("findings", [GOOD, FEW, [], service(Verdict.WARN)])
def test_a_live_version_without_evidence_against_it_stays_beside_any_rollout(stage: Stage, findings: list[Finding]):
    assert guard(other(stage), LIVE_ONE, PLAN, findings, START + 1_000 * HOUR) == other(stage)


@pytest.mark.parametrize("stage", [stage for stage in BESIDE if stage is not Stage.ROLLED_BACK])
def test_a_live_version_that_fails_beside_a_rollout_is_rolled_back(stage: Stage):
    found = guard(other(stage), LIVE_ONE, PLAN, BAD, START + HOUR)
    assert (found.rollout_id, found.candidate, found.stage) == ("live one", "2", Stage.ROLLED_BACK)
    assert found.reasons == ("error_rate fail",)


def test_who_came_back_by_a_rollback_is_left_to_a_person_and_told_once():
    state = other(Stage.ROLLED_BACK)
    told = guard(state, LIVE_ONE, PLAN, BAD, START + HOUR)
    assert (told.candidate, told.stage, told.since) == ("3", Stage.ROLLED_BACK, START)
    assert told.reasons == (
        "version 2 came back by a rollback and fails as well: a person has to decide", "error_rate fail", *AFTER,
    )  # fmt: skip
    assert guard(told, LIVE_ONE, PLAN, BAD, START + 2 * HOUR) is told


@pytest.mark.parametrize("stage", BESIDE)
@pytest.mark.parametrize("live", [replace(LIVE_ONE, baseline=None), replace(LIVE_ONE, blocked=("1",))])
def test_a_live_version_with_nowhere_to_go_is_left_to_a_person_and_told_once(stage: Stage, live: RolloutState):
    told = guard(other(stage), live, PLAN, BAD, START + HOUR)
    assert told == replace(other(stage), reasons=told.reasons)
    assert "a person has to decide" in told.reasons[0]
    assert guard(told, live, PLAN, BAD, START + 2 * HOUR) is told


def test_two_reminders_do_not_take_turns_for_ever():
    """A rollout without data beside a live version that fails and cannot be taken back: each is told once."""
    live = replace(LIVE_ONE, baseline=None)
    state, now = other(Stage.CANARY), START + (REMIND_HOLDS + 1) * HOUR
    for _ in range(3):
        state = guard(advance(state, PLAN, FEW, now), live, PLAN, BAD, now)
    assert advance(state, PLAN, FEW, now) is state
    assert guard(state, live, PLAN, BAD, now) is state
    assert len(state.reasons) == len(set(state.reasons))


def test_fewer_steps_in_the_model_file_than_a_rollout_has_made_are_no_error():
    state, shorter = at(Stage.CANARY, 1), Plan(min_requests=100, steps=[1.0])
    assert routing_of(state, shorter, 1) is not None
    assert advance(state, shorter, GOOD, START + HOUR).stage is Stage.LIVE
    assert advance(state, shorter, BAD, START + HOUR).stage is Stage.ROLLED_BACK


# Any order of events


class Rollouts(RuleBasedStateMachine):
    """A rollout under whatever happens to it."""

    @initialize(
        strategy=st.sampled_from(["canary", "blue_green", "shadow"]),
        needs=st.booleans(),
        blocked=st.sampled_from([(), ("1",)]),
    )
    def begin(self, strategy: Any, needs: bool, blocked: tuple[str, ...]) -> None:
        self.now = START
        self.state = propose("r", "m", "2", "1", strategy, START, needs_approval=needs, blocked=blocked)
        self.by_person = False
        self.good_looks = 0

    @rule(hours=st.integers(0, 30), findings=st.sampled_from([GOOD, FEW, BAD, service(Verdict.WARN), []]))
    def tick(self, hours: int, findings: list[Finding]) -> None:
        self.now += timedelta(hours=hours)
        before = self.state
        self.state = advance(before, PLAN, findings, self.now)
        if before.stage in OVER or before.stage is Stage.AWAITING_APPROVAL:
            assert self.state is before
        elif findings is BAD:
            assert self.state.stage is (Stage.ROLLED_BACK if not before.blocked else before.stage)
        elif findings is not GOOD or before.paused:
            assert (self.state.stage, self.state.step) == (before.stage, before.step)
        self.good_looks += self.state.stage is not before.stage or self.state.step != before.step

    @precondition(lambda self: self.state.stage is Stage.AWAITING_APPROVAL)
    @rule()
    def approved(self) -> None:
        self.state = approve(self.state, self.now, "yes")

    @precondition(lambda self: self.state.stage in (Stage.SHADOW, Stage.CANARY))
    @rule()
    def promoted(self) -> None:
        self.state, self.by_person = promote(self.state, self.now, "now"), True

    @precondition(lambda self: self.state.stage in (Stage.SHADOW, Stage.CANARY) and not self.state.paused)
    @rule()
    def paused(self) -> None:
        self.state = pause(self.state, "wait")

    @precondition(lambda self: self.state.paused)
    @rule()
    def resumed(self) -> None:
        self.state = resume(self.state, self.now, "go on")

    @precondition(lambda self: self.state.stage in OPEN and not self.state.blocked)
    @rule()
    def aborted(self) -> None:
        waiting = self.state.stage is Stage.AWAITING_APPROVAL
        self.state = roll_back(self.state, self.now, "abort")
        assert self.state.stage is (Stage.WITHDRAWN if waiting else Stage.ROLLED_BACK)

    @invariant()
    def everybody_is_answered(self) -> None:
        if not hasattr(self, "state"):
            return
        routing = routing_of(self.state, PLAN, 1)
        assert routing is not None
        assert sum(routing.weights.values()) == pytest.approx(1)
        if self.state.stage in (Stage.AWAITING_APPROVAL, Stage.SHADOW, Stage.ROLLED_BACK, Stage.WITHDRAWN):
            assert routing.weights == {"1": 1.0}

    @invariant()
    def nobody_is_live_without_having_passed_its_stages(self) -> None:
        if hasattr(self, "state") and self.state.stage is Stage.LIVE and not self.by_person:
            assert self.state.strategy != "shadow"
            assert self.good_looks >= (1 if self.state.strategy == "blue_green" else 3)


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
