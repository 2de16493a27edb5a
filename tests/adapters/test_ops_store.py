"""One record of operations: what it promises, on SQLite and on a real PostgreSQL alike."""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from adapters import ops_store
from adapters.ops_store import MIGRATIONS, VERSION_TABLE, OpsStore
from adapters.ops_tables import metadata
from adapters.processes import this_process
from lifecycle.aliases import Alias
from lifecycle.errors import BusyError, ConfigError, UnavailableError
from lifecycle.findings import Direction, Finding, Verdict, judge
from lifecycle.records import RunRecord, RunState, TriggerKind, VersionState

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
TEHRAN = timezone(timedelta(hours=3, minutes=30))


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "ops.db"


@pytest.fixture
def sqlite_url(sqlite_path: Path) -> str:
    return f"sqlite:///{sqlite_path}"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def store(url: str) -> OpsStore:
    return OpsStore.open(url)


def start(store: OpsStore, **changes: Any) -> RunRecord:
    usual: dict[str, Any] = {
        "pipeline": "train",
        "model": "flight_delay",
        "stack": "local",
        "trigger_kind": "manual",
        "reason": "a new feature",
        "requested_by": "Sara",
        "as_of": NOW - timedelta(days=1),
        "now": NOW,
        "lease": 5 * MINUTE,
    }
    return store.start_run(**{**usual, **changes})


def actions(store: OpsStore, model: str | None = None) -> list[str]:
    return [row.action for row in reversed(store.audit_trail(model, limit=1000))]


@contextlib.contextmanager
def raw(url: str) -> Iterator[sa.Connection]:
    """A connection that knows nothing of the store's rules."""
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with engine.connect() as connection, connection.begin():
        yield connection


def finding(value: float | None = 0.71, **changes: Any) -> Finding:
    return judge("roc_auc", value, 0.62, Direction.AT_LEAST, window="hold-out", count=1000, **changes)


# Runs


@pytest.mark.requirement("R3.3")
def test_a_run_is_kept_with_what_started_it(store: OpsStore) -> None:
    run = start(store)
    assert run == store.run(run.run_id) == store.runs()[0]
    assert (run.pipeline, run.model, run.stack, run.state) == ("train", "flight_delay", "local", RunState.RUNNING)
    assert (run.trigger_kind, run.reason, run.requested_by) == (TriggerKind.MANUAL, "a new feature", "Sara")
    assert (run.as_of, run.started_at, run.lease_until) == (NOW - timedelta(days=1), NOW, NOW + 5 * MINUTE)
    assert (run.finished_at, run.detail, run.facts) == (None, "", {})
    assert run.owner == str(this_process())


@pytest.mark.requirement("R3.1", "R3.2", "R3.3")
@pytest.mark.parametrize("kind", list(TriggerKind))
def test_every_kind_of_trigger_is_kept(store: OpsStore, kind: TriggerKind) -> None:
    assert start(store, trigger_kind=kind).trigger_kind is kind


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reason": " "}, "reason is empty"),
        ({"requested_by": ""}, "requested_by is empty"),
        ({"trigger_kind": "whim"}, "trigger kind is 'whim'; accepted: schedule, event, manual"),
        ({"lease": timedelta(0)}, "lease of 0 s"),
    ],
)
def test_a_start_without_reason_or_lease_is_refused_and_leaves_nothing(
    store: OpsStore, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        start(store, **changes)
    assert store.runs() == []
    assert actions(store) == []


def test_a_second_start_is_told_who_runs_since_when_and_what_to_do(store: OpsStore) -> None:
    first = start(store, owner="build7:4242")
    with pytest.raises(BusyError) as refused:
        start(store, now=NOW + MINUTE)
    message = str(refused.value)
    for part in (first.run_id, "build7:4242", "2026-03-01 12:30:15 UTC", "a new feature", "accepted: wait"):
        assert part in message
    assert store.runs() == [first]
    assert actions(store) == ["run started"]


def test_other_models_and_pipelines_run_beside_it(store: OpsStore) -> None:
    start(store)
    start(store, model="employment")
    start(store, pipeline="monitor")
    assert len(store.runs()) == 3
    assert len(store.runs(model="flight_delay")) == 2
    assert len(store.runs(limit=1)) == 1


def test_the_database_itself_holds_to_one_live_run(store: OpsStore, url: str) -> None:
    run = start(store)
    with pytest.raises(sa.exc.IntegrityError), raw(url) as connection:
        connection.execute(
            sa.text(
                "INSERT INTO runs SELECT 'another', trigger_id, pipeline, model, stack, state, as_of, owner,"
                " started_at, finished_at, lease, lease_until, detail, facts FROM runs"
            )
        )
    assert store.runs() == [run]


def test_a_finished_run_makes_room_for_the_next(store: OpsStore) -> None:
    first = start(store)
    done = store.finish_run(first.run_id, RunState.SUCCEEDED, "version 3", NOW + MINUTE)
    assert (done.state, done.detail, done.finished_at) == (RunState.SUCCEEDED, "version 3", NOW + MINUTE)
    second = start(store, now=NOW + 2 * MINUTE)
    assert [run.run_id for run in store.runs()] == [second.run_id, first.run_id]
    assert actions(store) == ["run started", "run succeeded", "run started"]


@pytest.mark.parametrize("state", ["succeeded", "rejected", "failed", "interrupted"])
def test_a_run_ends_once(store: OpsStore, state: str) -> None:
    run = start(store)
    ended = store.finish_run(run.run_id, state, "so", NOW + MINUTE)
    assert store.finish_run(run.run_id, state, "again", NOW + 2 * MINUTE) == ended
    with pytest.raises(ConfigError, match=f"already ended as {state}"):
        store.finish_run(run.run_id, "failed" if state != "failed" else "succeeded", "no", NOW + 2 * MINUTE)
    assert actions(store) == ["run started", f"run {state}"]


@pytest.mark.parametrize("state", ["running", "abandoned", "done"])
def test_a_run_ends_only_as_what_is_an_end(store: OpsStore, state: str) -> None:
    run = start(store)
    with pytest.raises(ConfigError, match="accepted: "):
        store.finish_run(run.run_id, state, "", NOW)
    assert store.run(run.run_id).state is RunState.RUNNING


def test_an_unknown_run_is_an_error_everywhere(store: OpsStore) -> None:
    for act in (
        lambda: store.run("train-x-1"),
        lambda: store.heartbeat("train-x-1", NOW),
        lambda: store.finish_run("train-x-1", "failed", "", NOW),
        lambda: store.set_run_facts("train-x-1", {}, NOW),
        lambda: store.record_findings("train-x-1", "quality", [], NOW, "x"),
        lambda: store.record_version("x", "1", "train-x-1", "s", "c", "candidate", [], NOW),
    ):
        with pytest.raises(ConfigError, match="no run 'train-x-1'"):
            act()


def test_the_database_itself_refuses_what_points_nowhere(store: OpsStore) -> None:
    start(store)
    approval = {"model": "x", "version": "1", "person": "Sara", "approved": True, "reason": "r", "at": NOW}
    with pytest.raises(sa.exc.IntegrityError), store._engine.begin() as connection:
        connection.execute(sa.insert(metadata.tables["approvals"]).values(approval))


# Leases


def test_a_heartbeat_extends_the_lease_and_never_shortens_it(store: OpsStore) -> None:
    run = start(store, owner="build7:4242")
    assert store.heartbeat(run.run_id, NOW + 4 * MINUTE) == NOW + 9 * MINUTE
    assert store.heartbeat(run.run_id, NOW) == NOW + 9 * MINUTE
    assert store.run(run.run_id).lease_until == NOW + 9 * MINUTE
    with pytest.raises(BusyError):
        start(store, now=NOW + 8 * MINUTE)


def test_a_heartbeat_after_the_end_changes_nothing(store: OpsStore) -> None:
    run = start(store)
    ended = store.finish_run(run.run_id, "failed", "so", NOW + MINUTE)
    store.heartbeat(run.run_id, NOW + 2 * MINUTE)
    assert store.run(run.run_id) == ended


def test_a_run_whose_lease_ended_is_taken_over_with_its_reason(store: OpsStore) -> None:
    first = start(store, owner="build7:4242")
    second = start(store, now=first.lease_until)
    left = store.run(first.run_id)
    assert (left.state, left.finished_at) == (RunState.ABANDONED, first.lease_until)
    assert left.detail == "its lease ended at 2026-03-01 12:35:15 UTC without a sign of build7:4242"
    assert second.state is RunState.RUNNING
    taken = store.audit_trail()[1]
    assert (taken.action, taken.subject, taken.actor) == ("run abandoned", first.run_id, f"run {second.run_id}")
    assert taken.detail == {"reason": left.detail, "taken over by": second.run_id}


def test_a_late_owner_that_nobody_followed_carries_on(store: OpsStore) -> None:
    run = start(store)
    assert store.heartbeat(run.run_id, NOW + timedelta(hours=1)) == NOW + timedelta(hours=1) + 5 * MINUTE


def test_nothing_is_accepted_from_a_run_that_was_taken_over(store: OpsStore) -> None:
    first = start(store, owner="build7:4242")
    start(store, now=first.lease_until)
    later = first.lease_until + MINUTE
    before = actions(store)
    for act in (
        lambda: store.heartbeat(first.run_id, later),
        lambda: store.set_run_facts(first.run_id, {"snapshot": "abc"}, later),
        lambda: store.record_findings(first.run_id, "gates", [finding()], later, "flight_delay"),
        lambda: store.record_version("flight_delay", "1", first.run_id, "s", "c", "candidate", [], later),
        lambda: store.finish_run(first.run_id, "succeeded", "", later),
    ):
        with pytest.raises(BusyError, match="taken over at 2026-03-01 12:35:15 UTC"):
            act()
    assert actions(store) == before
    assert store.findings() == []
    assert store.versions("flight_delay") == []


def test_a_finished_run_learns_nothing_more(store: OpsStore) -> None:
    run = start(store)
    store.finish_run(run.run_id, "succeeded", "", NOW)
    for act in (
        lambda: store.set_run_facts(run.run_id, {"a": 1}, NOW),
        lambda: store.record_findings(run.run_id, "gates", [finding()], NOW, "flight_delay"),
        lambda: store.record_version("flight_delay", "1", run.run_id, "s", "c", "candidate", [], NOW),
    ):
        with pytest.raises(ConfigError, match="already ended as succeeded"):
            act()


WORKER = """
import json, sys
from datetime import datetime, timedelta
from adapters.ops_store import OpsStore
from lifecycle.errors import BusyError
url, now = sys.argv[1], datetime.fromisoformat(sys.argv[2])
print("ready", flush=True)
store = None
for line in sys.stdin:
    try:
        store = store or OpsStore.open(url)
        run = store.start_run(pipeline="train", model=line.strip(), stack="local", trigger_kind="schedule",
            reason="weekly", requested_by="scheduler", as_of=now, now=now, lease=timedelta(minutes=5))
        print(run.run_id, flush=True)
    except BusyError as error:
        print("busy", flush=True)
"""


@contextlib.contextmanager
def workers(url: str, number: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that start a run of each model they are told."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, url, NOW.isoformat()],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(number)
    ]  # fmt: skip
    try:
        for worker in started:
            assert answer(worker) == "ready"
        yield started
    finally:
        for worker in started:
            worker.kill()
            worker.communicate()


def tell(worker: subprocess.Popen[str], line: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(f"{line}\n")
    worker.stdin.flush()


def answer(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


@pytest.mark.parametrize("left_behind", [False, True], ids=["nobody before", "an ended lease before"])
def test_of_two_processes_that_start_at_once_exactly_one_wins(url: str, left_behind: bool) -> None:
    models = [f"model_{number}" for number in range(25)]
    if left_behind:
        store = OpsStore.open(url)
        for model in models:
            start(store, model=model, owner="build7:4242", now=NOW - timedelta(hours=1))
    with workers(url, 2) as racers:  # without anybody before, they race to make the schema too
        for model in models:
            for racer in racers:
                tell(racer, model)
            answers = sorted(answer(racer) for racer in racers)
            assert answers[0] == "busy"
            assert answers[1].startswith(f"train-{model}-")
    store = OpsStore.open(url)
    for model in models:
        states = sorted(run.state for run in store.runs(model))
        assert states == (["abandoned", "running"] if left_behind else ["running"])
        before = ["run started", "run abandoned"] if left_behind else []
        assert actions(store, model) == [*before, "run started"]


@pytest.mark.skipif(sys.platform != "linux", reason="another process is looked into by /proc, which is Linux's")
def test_the_run_of_a_process_killed_on_this_host_is_taken_over_at_once(store: OpsStore, url: str) -> None:
    with workers(url, 1) as (worker,):
        tell(worker, "flight_delay")
        killed = answer(worker)
        with pytest.raises(BusyError, match=killed):
            start(store)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        run = start(store, now=NOW + MINUTE)  # well within the lease
    left = store.run(killed)
    assert left.state is RunState.ABANDONED
    assert left.detail.endswith(" is gone")
    assert "#" not in left.detail
    assert run.state is RunState.RUNNING
    assert actions(store) == ["run started", "run abandoned", "run started"]


def test_processes_that_open_a_new_store_at_once_make_one_schema(url: str) -> None:
    with workers(url, 3) as racers:
        for number, racer in enumerate(racers):
            tell(racer, f"model_{number}")
        for number, racer in enumerate(racers):
            assert answer(racer).startswith(f"train-model_{number}-")
    with raw(url) as connection:
        assert connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalars().all() == [
            ops_store._head()
        ]


def test_threads_share_a_store_and_lose_nothing(store: OpsStore) -> None:
    run = start(store)

    def work(number: int) -> None:
        store.heartbeat(run.run_id, NOW + number * MINUTE)
        store.set_run_facts(run.run_id, {f"fact {number}": number}, NOW)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(24)))
    assert store.run(run.run_id).facts == {f"fact {number}": number for number in range(24)}
    assert store.run(run.run_id).lease_until == NOW + 28 * MINUTE
    assert len(store.audit_trail()) == 25


# Facts, findings, versions


def test_facts_add_up_and_are_audited_only_when_they_change(store: OpsStore) -> None:
    run = start(store)
    store.set_run_facts(run.run_id, {"snapshot": "abc", "rows": np.int64(7)}, NOW)
    store.set_run_facts(run.run_id, {"snapshot": "abc"}, NOW)
    assert store.set_run_facts(run.run_id, {"version": "3"}, NOW).facts == {
        "snapshot": "abc",
        "rows": 7,
        "version": "3",
    }
    assert actions(store) == ["run started", "run facts set", "run facts set"]


FINDINGS = [
    finding(interval=(0.69, 0.73)),
    finding(None, subject="gender=2", missing="no positives"),
    finding(0.5, subject="carrier=«ایر»"),
    finding(np.float64(0.9), subject="numpy", interval=(np.float64(0.8), np.float64(0.95))),
    Finding("business_value_per_1000", "all", math.inf, -math.inf, Direction.AT_MOST, "w", Verdict.WARN, "r"),
    Finding("row_count", "all", 3e9, None, Direction.AT_LEAST, "w", Verdict.PASS, "r", count=3_000_000_000),
]


def test_findings_read_back_equal_and_in_order(store: OpsStore) -> None:
    run = start(store)
    store.record_findings(run.run_id, "gates", FINDINGS, NOW, "flight_delay", "3")
    kept = store.findings(run_id=run.run_id)
    assert [record.finding for record in kept] == FINDINGS
    assert {(record.phase, record.model, record.version, record.at) for record in kept} == {
        ("gates", "flight_delay", "3", NOW)
    }
    detail = store.audit_trail()[0].detail
    assert detail == {"phase": "gates", "version": "3", "pass": 3, "warn": 1, "no data": 1, "fail": 1}


def test_a_value_that_is_not_a_number_is_kept_as_none(store: OpsStore) -> None:
    run = start(store)
    store.record_findings(run.run_id, "gates", [finding(math.nan, interval=(0.1, math.nan))], NOW, "flight_delay")
    (record,) = store.findings()
    assert (record.finding.value, record.finding.interval, record.finding.verdict) == (None, None, Verdict.NO_DATA)


def test_findings_written_twice_double_nothing(store: OpsStore) -> None:
    run = start(store)
    for _ in range(2):
        store.record_findings(run.run_id, "quality", FINDINGS, NOW, "flight_delay")
    assert [record.finding for record in store.findings()] == FINDINGS
    assert actions(store) == ["run started", "findings recorded"]


def test_findings_of_a_repeated_phase_replace_those_of_the_first_and_say_so(store: OpsStore) -> None:
    run = start(store)
    store.record_findings(run.run_id, "quality", FINDINGS, NOW, "flight_delay")
    store.record_findings(run.run_id, "gates", FINDINGS[:1], NOW, "flight_delay")
    store.record_findings(run.run_id, "quality", FINDINGS[1:2], NOW + MINUTE, "flight_delay")
    assert [record.finding for record in store.findings(phase="quality")] == FINDINGS[1:2]
    assert [record.finding for record in store.findings(phase="gates")] == FINDINGS[:1]
    assert actions(store)[1:] == ["findings recorded", "findings recorded", "findings replaced"]


def test_findings_are_found_by_model_run_and_phase(store: OpsStore) -> None:
    flights, people = start(store), start(store, model="employment")
    store.record_findings(flights.run_id, "gates", FINDINGS[:2], NOW, "flight_delay")
    store.record_findings(people.run_id, "gates", FINDINGS[2:3], NOW, "employment")
    assert len(store.findings()) == 3
    assert len(store.findings(model="employment")) == 1
    assert len(store.findings(run_id=flights.run_id, phase="gates")) == 2
    assert store.findings(phase="quality") == []
    with pytest.raises(ConfigError, match="accepted: its own model, employment"):
        store.record_findings(people.run_id, "gates", [], NOW, "flight_delay")


@pytest.mark.requirement("R3.8")
@pytest.mark.parametrize("state", list(VersionState))
def test_a_version_is_kept_with_its_verdict_and_reasons(store: OpsStore, state: VersionState) -> None:
    run = start(store)
    kept = store.record_version("flight_delay", "3", run.run_id, "snap", "conf", state, ["too unfair"], NOW)
    assert store.versions("flight_delay") == [kept]
    assert (kept.version, kept.state, kept.reasons, kept.at) == ("3", state, ("too unfair",), NOW)
    row = store.audit_trail()[0]
    assert (row.action, row.subject) == (f"version {state.value}", "flight_delay 3")
    assert row.detail == {"run": run.run_id, "snapshot": "snap", "config_hash": "conf", "reasons": ["too unfair"]}


def test_a_version_said_twice_is_kept_once_and_never_changes(store: OpsStore) -> None:
    run = start(store)
    first = store.record_version("flight_delay", "3", run.run_id, "snap", "conf", "rejected", ["r"], NOW)
    again = store.record_version("flight_delay", "3", run.run_id, "snap", "conf", "rejected", ["r"], NOW + MINUTE)
    assert again == first
    with pytest.raises(ConfigError, match="already on record, rejected"):
        store.record_version("flight_delay", "3", run.run_id, "snap", "conf", "approved", [], NOW)
    assert store.versions("flight_delay") == [first]
    assert actions(store) == ["run started", "version rejected"]


def test_versions_come_newest_first_and_by_model(store: OpsStore) -> None:
    run, other = start(store), start(store, model="employment")
    for version in ("9", "10"):
        store.record_version("flight_delay", version, run.run_id, "s", "c", "candidate", [], NOW)
    store.record_version("employment", "9", other.run_id, "s", "c", "candidate", [], NOW)
    assert [record.version for record in store.versions("flight_delay")] == ["10", "9"]
    with pytest.raises(ConfigError, match="version state is 'live'"):
        store.record_version("employment", "10", other.run_id, "s", "c", "live", [], NOW)
    with pytest.raises(ConfigError, match="its own model, employment"):
        store.record_version("flight_delay", "11", other.run_id, "s", "c", "candidate", [], NOW)


# Aliases


def with_versions(store: OpsStore, *numbers: str) -> OpsStore:
    run = start(store)
    for number in numbers:
        store.record_version("flight_delay", number, run.run_id, "s", "c", "approved", [], NOW)
    return store


def assign(store: OpsStore, changes: Mapping[Alias, str | None], **others: Any) -> dict[Alias, str]:
    usual: dict[str, Any] = {"actor": "Sara", "reason": "best so far", "now": NOW}
    return store.assign_aliases("flight_delay", lambda _: changes, **{**usual, **others})


@pytest.mark.requirement("R3.8", "R2.2")
def test_the_newest_assignment_of_a_part_holds_and_each_is_audited(store: OpsStore) -> None:
    with_versions(store, "1", "2")
    assert store.aliases("flight_delay") == {}
    assert assign(store, {Alias.CHAMPION: "1"}) == {Alias.CHAMPION: "1"}
    after = assign(store, {Alias.CHAMPION: "2", Alias.PREVIOUS: "1"}, reason="better on the hold-out")
    assert after == store.aliases("flight_delay") == {Alias.CHAMPION: "2", Alias.PREVIOUS: "1"}
    assert assign(store, {Alias.PREVIOUS: None}) == {Alias.CHAMPION: "2"}
    assert store.aliases("employment") == {}
    told = [row for row in store.audit_trail("flight_delay") if row.action == "alias champion"]
    assert [row.detail for row in told] == [
        {"environment": "development", "before": "1", "version": "2", "reason": "better on the hold-out"},
        {"environment": "development", "before": None, "version": "1", "reason": "best so far"},
    ]
    assert {row.actor for row in told} == {"Sara"}


def test_what_holds_already_is_not_assigned_again(store: OpsStore) -> None:
    with_versions(store, "1")
    assign(store, {Alias.CHAMPION: "1", Alias.PREVIOUS: None})
    assign(store, {Alias.CHAMPION: "1"}, now=NOW + MINUTE)
    assert actions(store).count("alias champion") == 1
    assert "alias previous" not in actions(store)


@pytest.mark.parametrize(
    ("changes", "others", "answer"),
    [
        ({Alias.CHAMPION: "9"}, {}, "no version '9' on record"),
        ({Alias.CHAMPION: "1"}, {"actor": " "}, "accepted: both given"),
        ({Alias.CHAMPION: "1"}, {"reason": ""}, "accepted: both given"),
    ],
)
def test_a_refused_assignment_changes_nothing(store: OpsStore, changes: Any, others: Any, answer: str) -> None:
    with_versions(store, "1")
    with pytest.raises(ConfigError, match=answer):
        assign(store, {Alias.PREVIOUS: "1", **changes}, **others)
    assert store.aliases("flight_delay") == {}
    assert "alias previous" not in actions(store)


def test_of_two_who_promote_at_once_the_second_sees_what_the_first_did(url: str) -> None:
    with_versions(OpsStore.open(url), "1", "2", "3", "4")
    seen: list[str | None] = []

    def promote(version: str) -> None:
        def decide(current: Mapping[Alias, str]) -> dict[Alias, str | None]:
            seen.append(current.get(Alias.CHAMPION))
            return {Alias.CHAMPION: version, Alias.PREVIOUS: current.get(Alias.CHAMPION)}

        OpsStore.open(url).assign_aliases("flight_delay", decide, actor="Sara", reason="r", now=NOW)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(promote, "1234"))
    after = OpsStore.open(url).aliases("flight_delay")
    assert sorted([*(one for one in seen if one), after[Alias.CHAMPION]]) == ["1", "2", "3", "4"]
    assert after[Alias.PREVIOUS] == seen[-1]


# Overrides


def grant(store: OpsStore, **changes: Any) -> Any:
    usual: dict[str, Any] = {
        "model": "employment",
        "gate": "demographic_parity_difference",
        "person": "Sara",
        "reason": "pilot with consent",
        "until": NOW + timedelta(days=3),
        "now": NOW,
        "max_days": 30,
    }
    return store.grant_override(**{**usual, **changes})


@pytest.mark.requirement("R7.3")
def test_an_override_holds_for_its_model_until_its_end(store: OpsStore) -> None:
    override = grant(store)
    other = grant(store, gate="roc_auc", until=NOW + timedelta(days=1))
    assert store.overrides("employment") == [other, override]
    assert store.overrides_in_force("employment", NOW) == [other, override]
    assert store.overrides_in_force("employment", NOW + timedelta(days=1)) == [override]
    assert store.overrides_in_force("employment", NOW + timedelta(days=3)) == []
    assert store.overrides_in_force("flight_delay", NOW) == []
    row = store.audit_trail("employment")[1]
    assert (row.actor, row.action, row.at) == ("Sara", "override granted", NOW)
    assert row.subject == "employment gate demographic_parity_difference"
    assert row.detail["reason"] == "pilot with consent"


@pytest.mark.parametrize(
    "changes", [{"person": ""}, {"reason": " "}, {"until": NOW}, {"until": NOW + timedelta(days=31)}, {"max_days": 2}]
)
def test_an_override_that_nobody_answers_for_or_never_ends_is_refused(store: OpsStore, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="override: "):
        grant(store, **changes)
    assert store.overrides("employment") == []
    assert actions(store) == []


# The audit trail


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit"])
def test_the_audit_trail_can_only_grow(store: OpsStore, url: str, statement: str) -> None:
    start(store)
    before = store.audit_trail()
    with pytest.raises(sa.exc.DBAPIError, match="audit is append-only"), raw(url) as connection:
        connection.execute(sa.text(statement))
    assert store.audit_trail() == before != []


def test_sqlite_does_not_replace_an_audit_row(sqlite_url: str) -> None:
    start(OpsStore.open(sqlite_url))
    with pytest.raises(sa.exc.IntegrityError, match="REPLACE refused"), raw(sqlite_url) as connection:
        connection.execute(sa.text("INSERT OR REPLACE INTO audit SELECT * FROM audit"))


@pytest.mark.postgres
def test_postgresql_does_not_truncate_the_audit_trail(postgres_url: str) -> None:
    start(OpsStore.open(postgres_url))
    with pytest.raises(sa.exc.DBAPIError, match="TRUNCATE refused"), raw(postgres_url) as connection:
        connection.execute(sa.text("TRUNCATE audit"))


def test_a_change_whose_audit_row_cannot_be_written_does_not_happen(
    store: OpsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("no ink")

    run = start(store)
    monkeypatch.setattr(ops_store, "write_audit", refuse)
    for act in (
        lambda: start(store, model="employment"),
        lambda: store.set_run_facts(run.run_id, {"a": 1}, NOW),
        lambda: store.record_findings(run.run_id, "gates", [finding()], NOW, "flight_delay"),
        lambda: store.record_version("flight_delay", "1", run.run_id, "s", "c", "candidate", [], NOW),
        lambda: grant(store),
        lambda: start(store, now=NOW + timedelta(days=1)),
        lambda: store.finish_run(run.run_id, "succeeded", "", NOW),
    ):
        with pytest.raises(RuntimeError, match="no ink"):
            act()
    assert store.runs() == [run]
    assert store.findings() == []
    assert store.versions("flight_delay") == []
    assert store.overrides("employment") == []


def test_the_trail_is_read_by_model_and_limit_newest_first(store: OpsStore) -> None:
    for model in ("a", "b", "c"):
        start(store, model=model)
    assert [row.model for row in store.audit_trail(limit=2)] == ["c", "b"]
    assert [row.model for row in store.audit_trail("a")] == ["a"]


def test_no_secret_reaches_the_store(store: OpsStore, url: str) -> None:
    secret = "s3cretS3cret"
    leak = f"cannot reach postgresql://ops:{secret}@db/x; password={secret}"
    run = start(store, reason=leak, requested_by=leak)
    store.set_run_facts(run.run_id, {"source_password": secret, "url": leak, "deep": [{"note": leak}]}, NOW)
    store.record_findings(run.run_id, "gates", [finding(subject=leak)], NOW, "flight_delay")
    store.record_version("flight_delay", "1", run.run_id, "s", "c", "rejected", [leak], NOW)
    grant(store, reason=leak)
    with pytest.raises(BusyError) as busy:
        start(store)
    assert secret not in str(busy.value)
    store.finish_run(run.run_id, "failed", leak, NOW)
    with raw(url) as connection:
        for table in metadata.tables.values():
            for row in connection.execute(sa.text(f"SELECT * FROM {table.name}")):
                assert secret not in str(row)


# Time and text


@pytest.mark.parametrize("zone", [UTC, TEHRAN], ids=["UTC", "Tehran"])
def test_moments_come_back_equal_and_in_utc(store: OpsStore, zone: timezone) -> None:
    run = store.run(start(store, now=NOW.astimezone(zone), as_of=NOW.astimezone(zone)).run_id)
    assert run.started_at == NOW
    for moment in (run.started_at, run.as_of, run.lease_until, store.audit_trail()[0].at):
        assert moment.utcoffset() == timedelta(0)
        assert moment.tzinfo is UTC


def test_a_moment_without_zone_is_refused(store: OpsStore) -> None:
    with pytest.raises(sa.exc.StatementError, match="has no time zone"):
        start(store, as_of=datetime(2026, 3, 1))
    assert store.runs() == []


def test_any_text_is_kept_as_far_as_a_database_can(store: OpsStore) -> None:
    run = start(store, reason="nul \0, half \ud800, مدل, '; DROP TABLE runs; --, %s %(x)s :y")
    assert run.reason == "nul \ufffd, half ?, مدل, '; DROP TABLE runs; --, %s %(x)s :y"
    ended = store.finish_run(run.run_id, "failed", "x" * 10_000_000, NOW)
    assert ended.detail.endswith("… (10,000,000 characters)")


# The schema


def test_migrations_build_exactly_what_the_code_expects(store: OpsStore, url: str) -> None:
    with raw(url) as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == ops_store._head()
        inspector = sa.inspect(connection)
        for table in metadata.tables.values():
            expected = {str(check.name) for check in table.constraints if isinstance(check, sa.CheckConstraint)}
            assert {str(check["name"]) for check in inspector.get_check_constraints(table.name)} == expected
            keys = {key.name for key in table.foreign_key_constraints}
            assert {key["name"] for key in inspector.get_foreign_keys(table.name)} == keys


def test_migrations_are_one_line_numbered_in_their_file_names() -> None:
    script = ScriptDirectory(str(MIGRATIONS))
    assert script.get_heads() == [ops_store._head()]
    for revision in script.walk_revisions():
        assert Path(revision.path).name.startswith(f"{revision.revision}_")


def test_opening_again_keeps_what_is_there(store: OpsStore, url: str) -> None:
    run = start(store)
    assert OpsStore.open(url).runs() == [run]


def test_what_was_on_record_before_environments_belongs_to_development(url: str, sqlite_path: Path) -> None:
    from alembic import command
    from alembic.config import Config

    sqlite_path.parent.mkdir()
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    at = "'2026-03-01 00:00:00'"
    with raw(url) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        for statement in (
            f"INSERT INTO triggers VALUES (1, 'manual', 'train', 'm', 'r', 't', {at})",
            "INSERT INTO runs VALUES "
            f"('run', 1, 'train', 'm', 'local', 'succeeded', {at}, 't', {at}, {at}, 1, {at}, '', '{{}}')",
            f"INSERT INTO versions VALUES (1, 'm', '1', 'run', 's', 'c', 'approved', '[]', {at})",
            f"INSERT INTO approvals VALUES (1, 'm', '1', 'Mina', true, 'ok', {at})",
            f"INSERT INTO aliases VALUES (1, 'm', 'champion', '1', 't', 'r', {at})",
            "INSERT INTO rollout_changes VALUES "
            f"(1, 'm', 1, 'r1', '1', 'live', '{{}}', '{{\"1\": 1.0}}', 't', 't', {at})",
        ):
            connection.execute(sa.text(statement.replace(":", r"\:")))
    store = OpsStore.open(url)
    assert (store.aliases("m"), store.aliases("m", "staging")) == ({Alias.CHAMPION: "1"}, {})
    assert store.config("m", "1") is None
    with raw(url) as connection:
        row = connection.execute(sa.select(metadata.tables["rollout_changes"])).one()
        assert (row.environment, row.weights, row.evidence, row.findings) == ("development", {"1": 1.0}, {}, [])
        word = connection.execute(sa.select(metadata.tables["approvals"])).one()
        assert (word.environment, word.person, word.substance) == ("development", "Mina", "")


def test_a_migration_that_breaks_off_leaves_nothing_and_the_next_open_works(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic import op

    def break_off(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(op, "execute", break_off)  # the last thing the migration does
        with pytest.raises(KeyboardInterrupt):
            OpsStore.open(url)
    with raw(url) as connection:
        assert sa.inspect(connection).get_table_names() == []
    assert OpsStore.open(url).runs() == []


def test_a_store_newer_than_the_code_is_refused(store: OpsStore, url: str) -> None:
    with raw(url) as connection:
        connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(ConfigError, match=r"is at schema '9999', newer than this code.*'000\d'; accepted: a newer"):
        OpsStore.open(url)


def test_a_database_that_other_tables_live_in_is_refused(url: str, sqlite_path: Path) -> None:
    sqlite_path.parent.mkdir()
    with raw(url) as connection:
        connection.execute(sa.text("CREATE TABLE runs (run_uuid text)"))
    with pytest.raises(ConfigError, match=r"holds tables of something else \(runs\); accepted: a database of its own"):
        OpsStore.open(url)


def test_another_alembic_in_the_same_database_is_left_alone(url: str, sqlite_path: Path) -> None:
    sqlite_path.parent.mkdir()
    with raw(url) as connection:
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num text)"))
        connection.execute(sa.text("INSERT INTO alembic_version VALUES ('theirs')"))
    OpsStore.open(url)
    with raw(url) as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one() == "theirs"


# What can go wrong outside


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ops.db",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///x.db?mode=ro",
        "mysql://u:s3cret@h/d",
        "postgresql://u:s3cret@h:port/d",
        "postgresql://u:s3cret@h",
        "postgresql+asyncpg://u:s3cret@h/d",
        "nonsense://u:s3cret@h/d",
    ],
)
def test_a_url_that_names_no_store_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="accepted: sqlite:///") as refused:
        OpsStore.open(url)
    assert "s3cret" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("host", ["127.0.0.1:1", "host.invalid:5432"])
@pytest.mark.parametrize("secret", ["s3cret", "s3cret%40%2F:x"])
def test_a_server_that_does_not_answer_is_unavailable_and_the_password_stays_hidden(host: str, secret: str) -> None:
    with pytest.raises(UnavailableError, match=f"ops store postgresql://{host}/ops: ") as refused:
        OpsStore.open(f"postgresql://ops:{secret}@{host}/ops")
    assert refused.value.exit_code == 5
    assert "s3cret" not in "".join(traceback.format_exception(refused.value))


def test_a_relative_path_stays_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = OpsStore.open("sqlite:///var/ops.db")
    monkeypatch.chdir("/")
    assert store.runs() == []
    assert (tmp_path / "var" / "ops.db").exists()


def test_a_driver_that_repeats_the_password_is_not_passed_on() -> None:
    store = OpsStore(ops_store._engine("postgresql://ops:s3cret@db/ops"))
    assert store._without_password(RuntimeError("login of ops\n with s3cret  failed")) == "login of ops with *** failed"


@pytest.mark.postgres
def test_a_missing_database_is_unavailable(postgres_url: str) -> None:
    with pytest.raises(UnavailableError, match="does not exist"):
        OpsStore.open(f"{postgres_url}_no")


@pytest.mark.postgres
def test_the_old_spelling_of_a_postgresql_url_is_understood(postgres_url: str) -> None:
    OpsStore.open(postgres_url.replace("postgresql://", "postgres://"))
    assert OpsStore.open(postgres_url).runs() == []


@pytest.mark.postgres
def test_a_read_only_postgresql_is_unavailable_before_anything_starts(postgres_url: str) -> None:
    store = OpsStore.open(postgres_url)
    with raw(postgres_url) as connection:
        name = connection.engine.url.database
        connection.execute(sa.text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
    with pytest.raises(UnavailableError, match="read-only"):
        OpsStore.open(postgres_url)
    with pytest.raises(UnavailableError, match="read-only"):
        start(store)
    assert store.runs() == []


@pytest.mark.postgres
def test_a_full_postgresql_is_unavailable_and_the_next_run_works(postgres_url: str) -> None:
    store = OpsStore.open(postgres_url)
    with raw(postgres_url) as connection:  # the server's own error of a full disk, raised by the server
        connection.execute(
            sa.text(
                "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION "
                "'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$"
            )
        )
        connection.execute(
            sa.text("CREATE TRIGGER full_disk BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION full_disk()")
        )
    with pytest.raises(UnavailableError, match="No space left on device"):
        start(store)
    with raw(postgres_url) as connection:
        connection.execute(sa.text("DROP TRIGGER full_disk ON audit"))
    assert store.runs() == []
    start(store)


@pytest.mark.postgres
def test_an_account_without_rights_is_unavailable(postgres_url: str, postgres_server: Any) -> None:
    OpsStore.open(postgres_url)
    with raw(postgres_url) as connection:
        connection.execute(sa.text("DROP ROLE IF EXISTS guest"))
        connection.execute(sa.text("CREATE ROLE guest LOGIN"))
    with pytest.raises(UnavailableError, match="permission denied"):
        OpsStore.open(postgres_url.replace("postgres@", "guest@"))


def test_a_lock_that_is_never_let_go_is_unavailable(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(OpsStore.open(url))
    monkeypatch.setattr(ops_store, "WAIT_S", 0.2)
    with raw(url) as connection:
        connection.execute(sa.text("UPDATE runs SET stack = 'held'"))
        with pytest.raises(UnavailableError, match="lock"):
            OpsStore.open(url).heartbeat(run.run_id, NOW)


def test_a_file_that_is_no_database_is_unavailable_and_left_as_it_is(sqlite_url: str, sqlite_path: Path) -> None:
    sqlite_path.parent.mkdir()
    sqlite_path.write_text("year,month\n" * 100)
    with pytest.raises(UnavailableError, match="not a database"):
        OpsStore.open(sqlite_url)
    assert sqlite_path.read_text() == "year,month\n" * 100


def test_a_folder_in_the_place_of_the_file_is_unavailable(sqlite_url: str, sqlite_path: Path) -> None:
    sqlite_path.mkdir(parents=True)
    with pytest.raises(UnavailableError, match="unable to open"):
        OpsStore.open(sqlite_url)


def test_a_file_in_the_place_of_the_folder_is_unavailable(sqlite_url: str, sqlite_path: Path) -> None:
    sqlite_path.parent.write_text("")
    with pytest.raises(UnavailableError, match=r"ops store sqlite:///.*ops\.db: "):
        OpsStore.open(sqlite_url)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any account can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="ops-store-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Nothing is read-only to root: stop being root for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_file_is_unavailable_before_anything_starts(open_folder: Path) -> None:
    url = f"sqlite:///{open_folder}/ops.db"
    start(OpsStore.open(url))
    for file in open_folder.iterdir():
        file.chmod(0o444)
    open_folder.chmod(0o555)
    try:
        with unprivileged(), pytest.raises(UnavailableError, match=r"readonly|unable to open"):
            OpsStore.open(url)
    finally:
        open_folder.chmod(0o755)


def test_a_folder_that_may_not_be_written_is_unavailable(open_folder: Path) -> None:
    open_folder.chmod(0o555)
    try:
        with unprivileged(), pytest.raises(UnavailableError, match=r"ops\.db: "):
            OpsStore.open(f"sqlite:///{open_folder}/var/ops.db")
    finally:
        open_folder.chmod(0o755)


def fill(store: OpsStore) -> None:
    run = start(store)
    for number in range(1000):
        store.set_run_facts(run.run_id, {"note": f"{number} " + "x" * 15_000}, NOW)


def check_whole(path: Path) -> None:
    """After the disk was full: nothing damaged, nothing half done, and the next run works."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store = OpsStore.open(f"sqlite:///{path}")
    (left,) = store.runs()
    facts = [row for row in store.audit_trail(limit=2000) if row.action == "run facts set"]
    assert facts[0].detail == left.facts
    assert start(store, now=left.lease_until).state is RunState.RUNNING


def test_a_write_that_the_disk_refuses_is_unavailable_and_the_next_run_works(
    sqlite_url: str, sqlite_path: Path
) -> None:
    store = OpsStore.open(sqlite_url)
    _, hard = soft_hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(UnavailableError, match="disk"):
            fill(store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft_hard)
    check_whole(sqlite_path)


def test_a_full_disk_is_unavailable_and_the_next_run_works(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("a disk that fills up needs the right to mount one")
    try:
        with pytest.raises(UnavailableError, match=r"full|disk"):
            fill(OpsStore.open(f"sqlite:///{disk}/ops.db"))
        kept = tmp_path / "kept"
        shutil.copytree(disk, kept)
    finally:
        subprocess.run(["umount", disk], check=True)
    check_whole(kept / "ops.db")


def test_the_store_says_where_it_is_and_never_as_whom(sqlite_url: str) -> None:
    assert repr(OpsStore.open(sqlite_url)) == f"OpsStore({sqlite_url})"
    shown = ops_store._shown_url(sa.make_url("postgresql://ops:s3cret@db:5432/ops?password=s3cret"))
    assert shown == "postgresql://db:5432/ops"
    assert json.dumps(shown)
