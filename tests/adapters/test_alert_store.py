"""Alerts in the ops store: one transaction a step, an outbox that loses nothing, timelines, silences, incidents."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from adapters.alert_store import AlertStore, Gathered
from adapters.model_files import load_file
from adapters.ops_store import OpsStore
from lifecycle.alerting import AlertingPolicy, Channel
from lifecycle.alerts import AlertState, Step, Target, World, decide
from lifecycle.delivery import Delivered, delivered, failed
from lifecycle.errors import ConfigError
from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.oncall import OnCall

pytestmark = pytest.mark.requirement("R6.1", "R6.5", "R6.6")
NOW = datetime(2026, 3, 2, 8, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
POLICIES = Path(__file__).resolve().parents[2] / "configs" / "policies"
WORLD = World(
    load_file(POLICIES / "alerting.yaml", AlertingPolicy, {}),
    load_file(POLICIES / "oncall.yaml", OnCall, {}),
    frozenset({Channel.PAGERDUTY, Channel.SLACK, Channel.EMAIL}),
)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def ops(request: pytest.FixtureRequest, tmp_path: Path) -> OpsStore:
    url = f"sqlite:///{tmp_path / 'ops.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    return OpsStore.open(url)


@pytest.fixture
def store(ops: OpsStore) -> AlertStore:
    return AlertStore(ops)


def find(ops: OpsStore, value: float, at: datetime = NOW, measure: str = "degradation", model: str = "m") -> None:
    run = ops.start_run(
        pipeline="monitor", model=model, stack="local", trigger_kind="schedule", reason="r", requested_by="t", as_of=at,
        now=at, lease=HOUR,
    )  # fmt: skip
    finding = Finding(measure, "all rows", value, 0.1, Direction.AT_MOST, "7 days", Verdict.PASS, f"it is {value}")
    ops.record_findings(run.run_id, "watch", [finding], at, model)
    ops.finish_run(run.run_id, "succeeded", "done", at)


def step(store: AlertStore, now: datetime = NOW) -> Step:
    def decided(gathered: Gathered) -> Step:
        world = replace(WORLD, silences=gathered.silences, unheard=gathered.unheard)
        return decide(gathered.alerts, gathered.findings, world, now)

    return store.step(decided, ["monitor"], HOUR, now)


def test_a_step_is_kept_with_its_timeline_its_audit_and_what_has_to_be_told(ops: OpsStore, store: AlertStore):
    find(ops, 0.06)
    step(store)
    (alert,) = store.alerts()
    assert (alert.model, alert.rule, alert.state, alert.priority) == ("m", "performance_degraded", "open", "P0")
    assert store.alert(alert.alert_id[:4]) == alert
    assert [(event.event, event.actor) for event in store.timeline(alert.alert_id)] == [
        ("open", "alerts"), ("notice", "alerts"),
    ]  # fmt: skip
    assert [row.action for row in ops.audit_trail("m")][:2] == ["alert notice", "alert open"]
    ways = {one.notification.target.channel for one in store.outbox([alert.alert_id])}
    assert ways == {Channel.PAGERDUTY, Channel.SLACK, Channel.EMAIL}
    assert step(store) == Step((), ())


def test_a_step_that_breaks_off_leaves_nothing(ops: OpsStore, store: AlertStore, monkeypatch: pytest.MonkeyPatch):
    find(ops, 0.06)

    def breaks(*arguments: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(store, "_enqueue", breaks)
        with pytest.raises(RuntimeError):
            step(store)
    assert store.alerts(over=True) == []
    assert len(step(store).notices) == 1


def test_findings_are_read_once_and_those_written_late_are_not_missed(ops: OpsStore, store: AlertStore):
    find(ops, 0.001)
    seen: list[int] = []

    def look(gathered: Gathered) -> Step:
        seen.append(len(gathered.findings))
        return Step((), ())

    store.step(look, ["monitor"], HOUR, NOW)
    find(ops, 0.06, NOW - 5 * MINUTE, model="late")
    store.step(look, ["monitor"], HOUR, NOW)
    find(ops, 0.06, NOW + HOUR)
    store.step(look, ["monitor"], HOUR, NOW + HOUR)
    store.step(look, ["monitor"], HOUR, NOW + HOUR)
    store.step(look, ["train"], HOUR, NOW + HOUR)
    assert seen == [1, 2, 3, 1, 0]


def test_two_who_look_at_once_open_one_alert_and_tell_once(ops: OpsStore):
    find(ops, 0.06)
    steps: list[Step] = []
    threads = [threading.Thread(target=lambda: steps.append(step(AlertStore(ops)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(one.notices) for one in steps) == [0, 0, 0, 1]
    assert len(AlertStore(ops).alerts()) == 1


def test_a_notification_is_claimed_by_one_and_again_when_its_sender_is_silent(ops: OpsStore, store: AlertStore):
    find(ops, 0.06)
    step(store)
    taken = [store.claim(NOW, MINUTE) for _ in range(4)]
    assert [one is None for one in taken] == [False, False, False, True]
    assert len({one.number for one in taken if one}) == 3
    again = store.claim(NOW + MINUTE, MINUTE)
    assert again is not None
    assert again.alert == taken[0].alert
    store.settle(again, delivered(again.notification, "taken"), lambda *_: None, NOW + MINUTE)
    states = [one.notification.state for one in store.outbox([again.alert.alert_id])]
    assert states == [Delivered.DELIVERED, Delivered.PENDING, Delivered.PENDING]


def test_what_failed_for_good_is_stood_in_for_in_the_same_transaction(ops: OpsStore, store: AlertStore):
    find(ops, 0.06)
    step(store)
    one = store.claim(NOW, MINUTE)
    assert one is not None
    lost = replace(failed(one.notification, "down", WORLD.policy.delivery, NOW), state=Delivered.FAILED)
    target = Target(Channel.WEBHOOK, "engineer_a", one.notification.target.channel)
    siblings: list[int] = []

    def stand_in(_: object, others: list[object]) -> Target:
        siblings.append(len(others))
        return target

    assert store.settle(one, lost, stand_in, NOW) == target
    assert siblings == [3]
    assert [other.notification.target for other in store.outbox([one.alert.alert_id])][-1] == target


def test_people_take_and_end_alerts_on_record(ops: OpsStore, store: AlertStore):
    find(ops, 0.06)
    step(store)
    alert_id = store.alerts()[0].alert_id
    taken = store.acknowledge(alert_id[:5], "Mina", "looking at password=hunter2", NOW + MINUTE)
    assert (taken.state, taken.person) == (AlertState.ACKNOWLEDGED, "Mina")
    assert "hunter2" not in str(store.alert(alert_id)) + str(store.timeline(alert_id)) + str(ops.audit_trail("m"))
    with pytest.raises(ConfigError, match="is acknowledged by Mina; accepted: one that is open"):
        store.acknowledge(alert_id, "Ali", "me too", NOW + MINUTE)
    store.resolve(alert_id, "Ali", "rolled back", NOW + HOUR)
    with pytest.raises(ConfigError, match="accepted: one that is open or acknowledged"):
        store.resolve(alert_id, "Ali", "again", NOW + HOUR)
    assert store.alerts() == []
    assert [event.event for event in store.timeline(alert_id)][-2:] == ["acknowledged", "resolved"]
    (incident,) = store.incidents(NOW)
    assert (incident.told_at, incident.acknowledged_at, incident.resolved_at) == (NOW, NOW + MINUTE, NOW + HOUR)


@pytest.mark.parametrize(
    ("alert", "answer"), [("", "no alert begins with ''"), ("%", "no alert begins"), ("zz", "no alert")]
)
def test_an_alert_that_is_not_there_is_an_error(store: AlertStore, alert: str, answer: str):
    with pytest.raises(ConfigError, match=answer):
        store.alert(alert)


def test_a_name_that_means_two_alerts_is_an_error(ops: OpsStore, store: AlertStore):
    find(ops, 0.06)
    step(store)
    (alert,) = store.alerts()
    with ops.writing() as connection:
        store._put(connection, None, replace(alert, alert_id=f"{alert.alert_id}x", model="other"), NOW)
    with pytest.raises(ConfigError, match="several alerts begin with"):
        store.alert(alert.alert_id[:4])
    assert len(store.alerts("other")) == 1


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ((None, None, "Mina", "why", NOW, NOW + HOUR), "a silence of everything"),
        (("m", None, " ", "why", NOW, NOW + HOUR), "accepted: both given"),
        (("m", None, "Mina", "", NOW, NOW + HOUR), "accepted: both given"),
        (("m", None, "Mina", "why", NOW, NOW), "still to come"),
    ],
)
def test_a_silence_that_nobody_answers_for_or_never_was_is_refused(store: AlertStore, arguments: tuple, answer: str):
    with pytest.raises(ConfigError, match=answer):
        store.silence(*arguments)


def test_a_silence_is_kept_holds_and_ends(ops: OpsStore, store: AlertStore):
    made = store.silence("m", "data_drift", "Mina", "summer", NOW, NOW + HOUR)
    assert store.silences(NOW) == [made]
    assert store.silences(NOW + HOUR) == []
    assert ops.audit_trail("m")[0].action == "alerts silenced"
    find(ops, 0.2, measure="psi")
    seen: list[Gathered] = []
    store.step(lambda gathered: seen.append(gathered) or Step((), ()), ["monitor"], HOUR, NOW)
    assert seen[0].silences == (made,)
    assert seen[0].last_seen == {"m": NOW}


def test_what_comes_back_soon_goes_on_as_the_same_alert(ops: OpsStore, store: AlertStore):
    find(ops, 0.06)
    step(store)
    for minutes in (10, 20):
        find(ops, 0.001, NOW + minutes * MINUTE)
        step(store, NOW + minutes * MINUTE)
    assert store.alerts() == []
    find(ops, 0.06, NOW + 30 * MINUTE)
    step(store, NOW + 30 * MINUTE)
    (alert,) = store.alerts(over=True)
    events = [event.event for event in store.timeline(alert.alert_id)]
    assert events == ["open", "notice", "resolved", "notice", "reopened", "notice"]


def test_folding_and_priority_stand_in_the_timeline(ops: OpsStore, store: AlertStore):
    find(ops, 0.015)
    step(store)
    effect = store.alerts()[0].alert_id
    find(ops, 0.03, NOW + MINUTE)
    step(store, NOW + MINUTE)
    find(ops, 0.2, NOW + 2 * MINUTE, measure="schema")
    store.step(lambda gathered: decide(gathered.alerts, [replace(one, finding=replace(one.finding, verdict=Verdict.FAIL)) for one in gathered.findings], WORLD, NOW + 2 * MINUTE), ["monitor"], HOUR, NOW + 2 * MINUTE)  # fmt: skip
    events = [event.event for event in store.timeline(effect)]
    assert events == ["open", "notice", "priority", "notice", "folded"]
    store.resolve(
        next(alert.alert_id for alert in store.alerts() if alert.rule == "data_quality"), "M", "ok", NOW + HOUR
    )
    step(store, NOW + HOUR)
    assert "on its own" in [event.event for event in store.timeline(effect)]


def test_the_last_values_of_a_measure_and_what_was_done_are_found(ops: OpsStore, store: AlertStore):
    for hour in range(5):
        find(ops, hour / 1000, NOW + hour * HOUR)
    values = store.values("m", "degradation", "all rows", NOW + 3 * HOUR, limit=3)
    assert values == [0.001, 0.002, 0.003]
    ops.start_run(
        pipeline="train", model="m", stack="local", trigger_kind="event", reason="drift", requested_by="trigger",
        as_of=NOW, now=NOW, lease=HOUR,
    )  # fmt: skip
    (done,) = store.done_since("m", NOW - MINUTE)
    assert done.event.startswith("run started train-m-")
    assert store.done_since("m", NOW + MINUTE) == []


def test_the_database_itself_holds_to_one_live_alert_of_a_cause(ops: OpsStore, store: AlertStore):
    find(ops, 0.06)
    step(store)
    (alert,) = store.alerts()
    with pytest.raises(sa.exc.IntegrityError), ops.writing() as connection:
        store._put(connection, None, replace(alert, alert_id="another"), NOW)
