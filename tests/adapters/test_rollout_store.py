"""Every change of a rollout is kept, exactly one of two racing ones, and aliases and audit follow in the same transaction."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.model_files import load_environment, load_file, load_model
from adapters.ops_store import OpsStore
from adapters.rollout_store import RolloutStore
from lifecycle.aliases import Alias
from lifecycle.approvals import ApprovalPolicy
from lifecycle.errors import BusyError, ConfigError
from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.rollout import RolloutState, Stage, promote, propose, roll_back, withdraw
from lifecycle.spec import Rollout as Plan

pytestmark = pytest.mark.requirement("R4.1", "R8.2")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLAN = Plan()
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
POLICY = load_file(CONFIGS / "policies" / "approval.yaml", ApprovalPolicy, {})


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def ops(request: pytest.FixtureRequest, tmp_path: Path) -> OpsStore:
    url = f"sqlite:///{tmp_path / 'ops.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    store = OpsStore.open(url)
    run = store.start_run(
        pipeline="train", model="m", stack="local", trigger_kind="manual", reason="r", requested_by="t", as_of=NOW,
        now=NOW, lease=timedelta(minutes=1),
    )  # fmt: skip
    for version in ("1", "2", "3"):
        store.record_version("m", version, run.run_id, "s", "c", "approved", ["ok"], NOW)
    return store


def first(rollouts: RolloutStore):
    state = propose("r1", "m", "1", None, "canary", NOW, needs_approval=False)
    return rollouts.change(None, state, PLAN, actor="t", now=NOW, requested_by="Ali")


def test_a_first_version_is_live_and_the_champion(ops: OpsStore):
    rollouts = RolloutStore(ops)
    assert rollouts.current("m") is None
    change = first(rollouts)
    assert (change.generation, change.weights, change.requested_by) == (1, {"1": 1.0}, "Ali")
    assert ops.aliases("m") == {Alias.CHAMPION: "1"}
    assert rollouts.models() == ["m"]


def test_promotion_and_rollback_move_the_aliases_and_are_told(ops: OpsStore):
    rollouts = RolloutStore(ops)
    change = first(rollouts)
    state = propose("r2", "m", "2", "1", "canary", NOW, needs_approval=False)
    change = rollouts.change(change, state, PLAN, actor="t", now=NOW + timedelta(hours=1))
    change = rollouts.change(change, promote(state, NOW, "sure"), PLAN, actor="Mina", now=NOW + timedelta(hours=2))
    assert ops.aliases("m") == {Alias.CHAMPION: "2", Alias.PREVIOUS: "1"}
    change = rollouts.change(
        change, roll_back(change.state, NOW, "complaints"), PLAN, actor="Mina", now=NOW + timedelta(hours=3)
    )
    assert ops.aliases("m") == {Alias.CHAMPION: "1"}
    assert rollouts.blocked("m") == ("2",)
    assert [one.state.stage for one in rollouts.history("m")] == [
        Stage.ROLLED_BACK,
        Stage.LIVE,
        Stage.SHADOW,
        Stage.LIVE,
    ]
    then = rollouts.history("m", limit=1, until=NOW + timedelta(hours=2, minutes=1))[0]
    assert (then.weights, then.actor, then.state.reasons) == ({"2": 1.0}, "Mina", ("sure",))
    told = [entry.action for entry in ops.audit_trail("m") if entry.action.startswith("rollout")]
    assert told == ["rollout rolled_back", "rollout live", "rollout shadow", "rollout live"]


def test_a_change_decided_on_an_older_state_is_refused_and_changes_nothing(ops: OpsStore):
    rollouts = RolloutStore(ops)
    change = first(rollouts)
    state = propose("r2", "m", "2", "1", "canary", NOW, needs_approval=False)
    rollouts.change(change, state, PLAN, actor="a", now=NOW)
    before = len(ops.audit_trail("m"))
    with pytest.raises(BusyError, match="changed by somebody else"):
        rollouts.change(change, promote(state, NOW, "now"), PLAN, actor="b", now=NOW)
    assert len(ops.audit_trail("m")) == before
    assert ops.aliases("m") == {Alias.CHAMPION: "1"}


def race(ops: OpsStore, rounds: int) -> None:
    """Two deployers at once, again and again: exactly one wins, one audit row."""
    rollouts = RolloutStore(ops)
    change = first(rollouts)
    for turn in range(rounds):
        start, ends = threading.Barrier(2), []

        def deploy(version: str, change=change, start=start, ends=ends, turn=turn) -> None:
            state = RolloutState(f"r{turn}-{version}", "m", version, "1", "canary", Stage.SHADOW, 0, NOW)
            start.wait()
            try:
                ends.append(rollouts.change(change, state, PLAN, actor=version, now=NOW))
            except BusyError:
                ends.append(None)

        both = [threading.Thread(target=deploy, args=(version,)) for version in "23"]
        for one in both:
            one.start()
        for one in both:
            one.join()
        won = [one for one in ends if one is not None]
        assert len(ends) == 2
        assert len(won) == 1
        change = won[0]
        told = [
            entry for entry in ops.audit_trail("m", limit=10) if entry.detail.get("generation") == change.generation
        ]
        assert len(told) == 1


def test_of_two_deployers_exactly_one_wins(ops: OpsStore):
    race(ops, 20)


@pytest.mark.slow
def test_of_two_deployers_exactly_one_wins_two_hundred_times(ops: OpsStore):
    race(ops, 200)


def race_to_deploy(ops: OpsStore, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two deployers at once, as the deploy pipeline begins a rollout: one run, one rollout, and an answer for the other."""
    from steps import start_rollout as step

    for name in ("SOURCE", "OPS", "TUNING", "REGISTRY"):
        monkeypatch.setenv(f"PRODECKS_{name}_URL", ops._engine.url.render_as_string(hide_password=False))
    monkeypatch.setattr(step, "log_metadata", lambda **_: None)  # it belongs to a run of ZenML's
    monkeypatch.setattr(step, "substance_of", lambda _registry, _spec, version: version)
    spec = load_model("flight_delay", load_environment("development"), CONFIGS / "models").model_copy(
        update={"name": "m"}
    )
    rollouts = RolloutStore(ops)
    change = first(rollouts)
    for turn in range(rounds):
        start, answers = threading.Barrier(2), []

        def deploy(version: str, start=start, answers=answers) -> None:
            start.wait()
            try:
                run = ops.start_run(
                    pipeline="deploy", model="m", stack="local", trigger_kind="manual", reason="r", requested_by=version,
                    as_of=NOW, now=NOW, lease=timedelta(minutes=1),
                )  # fmt: skip
                facts = {"requested_by": version, "reason": "r"}
                try:
                    told = step.start_rollout.entrypoint(
                        spec, version, POLICY, "canary", "development", {}, run.run_id, facts
                    )
                finally:
                    ops.finish_run(run.run_id, "succeeded", "done", NOW)
                answers.append(told["generation"])
            except BusyError as error:
                answers.append(str(error))

        both = [threading.Thread(target=deploy, args=(version,)) for version in "23"]
        for one in both:
            one.start()
        for one in both:
            one.join()
        won = [one for one in answers if isinstance(one, int)]
        (lost,) = [one for one in answers if isinstance(one, str)]
        assert won == [change.generation + 1], answers
        assert "accepted: " in lost, turn
        assert "locked" not in lost
        now = rollouts.current("m")
        assert now is not None
        assert now.generation == change.generation + 1
        trail = [one for one in ops.audit_trail("m", limit=20) if one.action.startswith("rollout")]
        assert [one.detail["generation"] for one in trail].count(now.generation) == 1
        change = rollouts.change(now, withdraw(now.state, NOW, "again"), PLAN, actor="t", now=NOW)


def test_of_two_who_deploy_at_once_one_begins_and_the_other_is_told(ops: OpsStore, monkeypatch: pytest.MonkeyPatch):
    race_to_deploy(ops, 5, monkeypatch)


@pytest.mark.slow
def test_of_two_who_deploy_at_once_two_hundred_times_one_begins(ops: OpsStore, monkeypatch: pytest.MonkeyPatch):
    race_to_deploy(ops, 200, monkeypatch)


def test_a_change_is_returned_as_it_was_made_whoever_made_the_next(ops: OpsStore, monkeypatch: pytest.MonkeyPatch):
    rollouts = RolloutStore(ops)
    change = first(rollouts)
    monkeypatch.setattr(rollouts, "current", lambda model: pytest.fail("read again after it was made"))
    state = propose("r2", "m", "2", "1", "canary", NOW, needs_approval=False)
    made = rollouts.change(change, state, PLAN, actor="t", now=NOW)
    assert made == rollouts.history("m", limit=1)[0]


def test_when_a_version_went_live_is_found_the_last_time_it_did(ops: OpsStore):
    rollouts = RolloutStore(ops)
    change = first(rollouts)
    assert rollouts.went_live("m", "2") is None
    found = rollouts.went_live("m", "1")
    assert found == change
    state = propose("r2", "m", "2", "1", "canary", NOW, needs_approval=False)
    rollouts.change(change, state, PLAN, actor="t", now=NOW)
    assert rollouts.went_live("m", "2") is None
    assert rollouts.went_live("m", "1") == change


def test_what_nobody_registered_or_answers_for_is_refused(ops: OpsStore):
    rollouts = RolloutStore(ops)
    state = propose("r", "m", "9", None, "canary", NOW, needs_approval=False)
    with pytest.raises(ConfigError, match="no version '9'"):
        rollouts.change(None, state, PLAN, actor="t", now=NOW)
    with pytest.raises(ConfigError, match="nobody is named"):
        rollouts.change(None, state, PLAN, actor=" ", now=NOW)
    for person, reason, version in (("", "r", "1"), ("p", " ", "1"), ("p", "r", "9")):
        with pytest.raises(ConfigError):
            rollouts.approve("m", version, person, True, reason, NOW)


@pytest.mark.requirement("R4.4")
def test_each_environment_has_rollouts_aliases_blocks_and_words_of_its_own(ops: OpsStore):
    development, staging = RolloutStore(ops), RolloutStore(ops, "staging")
    change = first(development)
    state = propose("r2", "m", "2", "1", "canary", NOW, needs_approval=False)
    change = development.change(change, state, PLAN, actor="t", now=NOW)
    development.change(change, roll_back(state, NOW, "bad"), PLAN, actor="t", now=NOW)
    assert staging.current("m") is None
    assert (staging.models(), staging.blocked("m"), development.blocked("m")) == ([], (), ("2",))
    begun = staging.change(
        None, propose("r3", "m", "3", None, "canary", NOW, needs_approval=False), PLAN, actor="t", now=NOW
    )
    assert (begun.environment, begun.generation) == ("staging", 1)
    assert ops.aliases("m", "staging") == {Alias.CHAMPION: "3"}
    assert ops.aliases("m") == {Alias.CHAMPION: "1"}
    staging.approve("m", "3", "Mina", True, "ok", NOW, "abc")
    assert [(one.person, one.substance) for one in staging.approvals("m", "3")] == [("Mina", "abc")]
    assert development.approvals("m", "3") == []
    told = {
        entry.detail["environment"] for entry in ops.audit_trail("m") if entry.action.startswith(("rollout", "alias"))
    }
    assert told == {"development", "staging"}


@pytest.mark.requirement("R4.4", "R10.3")
def test_what_a_rollout_began_on_is_kept_through_all_its_changes_and_no_further(ops: OpsStore):
    rollouts = RolloutStore(ops)
    change = first(rollouts)
    assert (change.evidence, change.findings) == ({}, ())
    measured = Finding("error_rate", "all rows", 0.01, 0.1, Direction.AT_MOST, "since", Verdict.PASS, "fine", 100)
    state = propose("r2", "m", "2", "1", "canary", NOW, needs_approval=False)
    change = rollouts.change(change, state, PLAN, actor="t", now=NOW, evidence={"change": {"size": "small"}})
    change = rollouts.change(
        change, promote(state, NOW, "good"), PLAN, actor="t", now=NOW, evidence={"change": "other"}, findings=[measured]
    )
    assert change.evidence == {"change": {"size": "small"}}
    assert change.findings == change.lived.findings == (measured,)
    told = [entry.detail.get("evidence") for entry in ops.audit_trail("m") if entry.action.startswith("rollout")]
    assert told == [None, {"change": {"size": "small"}}, {}]
    third = propose("r3", "m", "3", "2", "canary", NOW, needs_approval=False)
    assert rollouts.change(change, third, PLAN, actor="t", now=NOW).evidence == {}


def test_what_people_said_is_kept_in_order(ops: OpsStore):
    rollouts = RolloutStore(ops)
    rollouts.approve("m", "1", "Mina", False, "not yet", NOW)
    rollouts.approve("m", "1", "Mina", True, "now", NOW + timedelta(hours=1))
    assert [(one.person, one.approved, one.reason) for one in rollouts.approvals("m", "1")] == [
        ("Mina", False, "not yet"),
        ("Mina", True, "now"),
    ]
    assert rollouts.approvals("m", "2") == []
