"""What operate does at a look: judges by the log alone, tells once, and lets neither a clock, a registry nor a restart decide."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine

import cli.operate
from adapters.prediction_log import segments
from cli.operate import pause
from cli.rollouts import act
from lifecycle.errors import BusyError, UnavailableError
from lifecycle.rollout import Stage
from tests.cli.operating import MODEL, Here, StandInRegistry, folder_in_memory

pytestmark = pytest.mark.requirement("R4.1", "R8.1")
HELD = "rollout: {hold: 1h, min_requests: 100, steps: [0.5, 1.0]}\n"


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_in_memory() as name:
        yield Path(name)


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    """Version 1 live on a gateway that follows."""
    made = Here(folder, monkeypatch)
    made.deploy("1")
    made.ticks()
    yield made
    made.close()


@pytest.fixture
def held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    """Likewise, with a hold time of an hour and version 2 as a shadow."""
    made = Here(folder, monkeypatch, MODEL + HELD)
    made.deploy("1")
    made.deploy("2")
    made.ticks()
    yield made
    made.close()


def lines(here: Here, *words: str) -> list[str]:
    return [line for line in here.told if all(word in line for word in words)]


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let a span of real time pass, whatever clocks show."""
    monotonic = time.monotonic
    monkeypatch.setattr(cli.operate.time, "monotonic", lambda: monotonic() + seconds)


def test_a_good_version_goes_all_the_way_and_each_step_is_told_as_read_back(here: Here):
    here.deploy("2")
    for _ in range(4):
        here.operator.tick()
        here.traffic(1_500)
    assert (here.state.candidate, here.state.stage) == ("2", Stage.LIVE)
    assert [line.split(" (")[0] for line in lines(here, "churn version 2", "read back")] == [
        "churn version 2: shadow", "churn version 2: canary", "churn version 2: canary", "churn version 2: live",
    ]  # fmt: skip


def test_without_traffic_nothing_moves_and_the_owner_is_reminded_once(held: Here):
    before = held.current()
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=2)):
        held.restarted().tick()
        assert held.current() == before
    with time_machine.travel(datetime.now(UTC) + timedelta(days=3)):
        held.restarted()
        assert held.ticks() == 2
        assert held.ticks() == 1
    change = held.current()
    assert (change.state.stage, change.weights, change.generation) == (Stage.SHADOW, {"1": 1.0}, before.generation + 1)
    (line,) = lines(held, "its owner is reminded")
    assert "Members, #members" in line
    audited = [one for one in held.ops.audit_trail("churn") if "is reminded" in str(one.detail.get("reasons"))]
    assert [one.actor for one in audited] == ["operate"]


def test_a_first_version_that_fails_stays_and_its_owner_is_told_once(here: Here):
    for _ in range(3):
        here.traffic(200, bad={"1"})
        here.operator.tick()
    assert (here.state.stage, here.current().weights, here.current().generation) == (Stage.LIVE, {"1": 1.0}, 2)
    (line,) = lines(here, "nothing to go back to: a person has to decide")
    assert "Members, #members" in line
    assert len([one for one in here.ops.audit_trail("churn") if "has to decide" in str(one.detail)]) == 1


def test_a_rollback_is_told_as_such_only_once_the_gateway_follows_it(here: Here):
    here.deploy("2", live=True)
    here.ticks()
    here.follows = False
    here.traffic(300, bad={"2"})
    assert here.operator.tick() == 1
    here.operator.tick()
    assert here.state.stage is Stage.ROLLED_BACK
    assert lines(here, "version 2: rolled_back") == []
    (line,) = lines(here, "rolled_back on record, not yet in force")
    assert "not followed by the gateway" in line
    here.follows = True
    here.operator.tick()
    (line,) = lines(here, "version 2: rolled_back (read back from the gateway)")
    assert "error_rate" in line
    assert lines(here, "gateway of churn: well again")
    asked = here.asked
    here.operator.tick()
    assert here.asked == asked  # what was read back once is not asked for at each look


def test_who_was_killed_before_telling_tells_when_started_again(here: Here):
    here.deploy("2", live=True)
    here.ticks()
    here.told.clear()
    act("rollback", "churn", "Mina", "complaints", "local", None)
    here.restarted().tick()
    assert lines(here, "version 2: rolled_back (read back from the gateway): complaints")


def test_a_rollback_waits_for_no_registry(here: Here):
    here.deploy("2", live=True)
    here.ticks()
    StandInRegistry.gone = True
    here.traffic(300, bad={"2"})
    here.operator.tick()
    here.operator.tick()
    assert here.state.stage is Stage.ROLLED_BACK
    table = here.store.table("churn")
    assert table is not None
    assert table.routing.weights == {"1": 1.0}
    assert len(lines(here, "aliases of churn: the model registry could not be reached")) == 1
    assert StandInRegistry.held == {"development-champion": "2", "development-previous": "1"}
    StandInRegistry.gone = False
    here.restarted().tick()
    assert StandInRegistry.held == {"development-champion": "1"}


def test_a_rollback_waits_for_nobody_who_sets_the_aliases_right(here: Here, monkeypatch: pytest.MonkeyPatch):
    here.deploy("2", live=True)
    here.ticks()

    def busy(self: cli.rollouts.Deployment) -> list[str]:
        raise BusyError("another process is putting the same on record")

    monkeypatch.setattr(cli.rollouts.Deployment, "mirror", busy)
    here.traffic(300, bad={"2"})
    assert here.operator.tick() == 1
    assert lines(here, "version 2: rolled_back (read back from the gateway)")


def test_a_registry_that_does_not_answer_is_not_asked_at_each_look(here: Here, monkeypatch: pytest.MonkeyPatch):
    asked = []
    StandInRegistry.gone = True
    monkeypatch.setattr(
        StandInRegistry, "_answer", lambda self: asked.append(1) or (_ for _ in ()).throw(UnavailableError("gone"))
    )
    for _ in range(5):
        here.operator.tick()
    assert len(asked) == 1
    later(monkeypatch, 31)
    here.operator.tick()
    assert len(asked) == 2


def test_a_person_who_promotes_while_the_registry_is_gone_is_told_what_stands(here: Here):
    here.deploy("2")
    StandInRegistry.gone = True
    with pytest.raises(UnavailableError, match=r"version 2 of churn is live on record.*run.py operate"):
        act("promote", "churn", "Mina", "sure", "local", None)
    StandInRegistry.gone = False
    here.restarted().tick()
    assert StandInRegistry.held == {"development-champion": "2", "development-previous": "1"}


# The live version, whatever else goes on


@pytest.mark.parametrize("stage", [Stage.AWAITING_APPROVAL, Stage.SHADOW, Stage.CANARY])
def test_a_live_version_that_fails_beside_its_successors_rollout_is_rolled_back_and_the_rollout_ends(
    folder: Path, monkeypatch: pytest.MonkeyPatch, stage: Stage
):
    here = Here(folder, monkeypatch, MODEL.replace("non_sensitive", "sensitive") + HELD)
    here.deploy("1")
    here.deploy("2", live=True)
    here.deploy("3", needs_approval=stage is Stage.AWAITING_APPROVAL)
    here.ticks()
    if stage is Stage.CANARY:
        here.traffic(300)
        with monkeypatch.context() as later:
            later.setattr(cli.operate.Reading, "held", lambda self, now: now + timedelta(hours=2))
            here.ticks()
    assert here.state.stage is stage
    here.traffic(400, bad={"2"})
    assert here.operator.tick() == 2
    rolled_back, ended, *_ = here.rollouts.history("churn")
    assert (ended.state.candidate, ended.state.stage) == ("3", Stage.WITHDRAWN)
    assert (rolled_back.state.candidate, rolled_back.state.stage, rolled_back.weights) == (
        "2",
        Stage.ROLLED_BACK,
        {"1": 1.0},
    )
    assert here.rollouts.blocked("churn") == ("2",)
    here.deploy("3")  # nothing is held against it
    here.close()


def test_who_came_back_by_a_rollback_and_fails_as_well_is_left_to_a_person_who_may_go_further_back(here: Here):
    here.deploy("2", live=True)
    here.deploy("3", live=True)
    here.ticks()
    here.traffic(400, bad={"2", "3"})
    here.ticks()
    assert here.current().weights == {"2": 1.0}
    here.traffic(400, bad={"2", "3"})
    here.ticks()
    here.traffic(400, bad={"2", "3"})
    here.ticks()
    assert here.current().weights == {"2": 1.0}
    assert (
        len(lines(here, "version 2 came back by a rollback and fails as well: a person has to decide", "#members")) == 1
    )
    act("rollback", "churn", "Mina", "further back", "local", None)
    here.ticks()
    assert here.current().weights == {"1": 1.0}
    assert here.rollouts.blocked("churn") == ("3", "2")


def test_after_a_withdrawal_the_live_version_is_guarded_on(here: Here):
    here.deploy("2", live=True)
    here.deploy("3", needs_approval=True)
    act("rollback", "churn", "Mina", "not now", "local", None)
    assert here.state.stage is Stage.WITHDRAWN
    here.traffic(400, bad={"2"})
    here.ticks()
    assert (here.state.candidate, here.state.stage, here.current().weights) == ("2", Stage.ROLLED_BACK, {"1": 1.0})


# Restarts and long logs


def test_the_guard_of_a_live_version_holds_after_a_restart_and_reads_no_old_log(
    here: Here, monkeypatch: pytest.MonkeyPatch
):
    long_ago = time.time() - 30 * 86_400
    here.deploy("2")
    with time_machine.travel(long_ago, tick=False):
        here.traffic(1_000, latency_ms=4.0, at=long_ago - 60)
        act("promote", "churn", "Mina", "sure", "local", None)
    here.operator.tick()
    for day in range(29, 1, -1):
        # Bad in between, and judged at its time; good before and after.
        here.traffic(300, bad={"2"} if 9 < day < 27 else (), at=time.time() - day * 86_400)
    monkeypatch.setattr(cli.operate, "MOST_RECORDS", 3_000)
    read: list[float] = []
    count = cli.operate.Reading.count
    monkeypatch.setattr(
        cli.operate.Reading, "count", lambda self, record: read.append(record.at) or count(self, record)
    )
    here.restarted()
    assert here.operator.tick() == 0
    assert 1_000 < len(read) < 4_000  # of more than ten thousand
    here.traffic(300, latency_ms=5.0)
    assert here.operator.tick() == 0
    here.traffic(300, latency_ms=60.0)  # slow beside what version 1 was a month ago
    assert here.operator.tick() == 1
    assert here.state.stage is Stage.ROLLED_BACK
    assert "slow_share" in here.state.reasons[0]


def test_a_step_goes_on_after_a_restart_where_it_was(held: Here):
    held.traffic(90)
    held.operator.tick()
    held.restarted().tick()
    held.traffic(200, bad={"2"})
    held.restarted().tick()
    assert held.state.stage is Stage.ROLLED_BACK
    assert "200 of 290" in held.state.reasons[0]


def test_a_log_that_cannot_be_read_is_told_once_and_watched_on_when_it_can(here: Here):
    here.deploy("2", live=True)
    here.traffic(10)
    here.close()
    path = segments(here.folder / "var" / "serving" / "log")[0]
    sound = path.read_bytes()
    path.write_bytes(b"nonsense" + sound)
    for _ in range(3):
        here.operator.tick()
    assert len(lines(here, "no segment of a prediction log")) == 1
    path.write_bytes(sound)
    here._log = None
    here.traffic(400, bad={"2"})
    here.operator.tick()
    assert here.state.stage is Stage.ROLLED_BACK
    assert lines(here, "churn: well again")


# Clocks


def test_a_clock_that_jumps_ahead_lets_no_hold_time_pass_and_one_that_goes_back_hides_nothing(
    held: Here, monkeypatch: pytest.MonkeyPatch
):
    held.traffic(300)
    held.operator.tick()
    with time_machine.travel(datetime.now(UTC) + timedelta(days=365)):
        assert held.operator.tick() == 0
    assert held.state.stage is Stage.SHADOW
    later(monkeypatch, 3_601)
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=3_601)):
        assert held.operator.tick() == 1
        held.traffic(10)
    assert held.state.stage is Stage.CANARY
    with time_machine.travel(datetime.now(UTC) - timedelta(days=365)):
        assert held.operator.tick() == 0
        held.traffic(400, bad={"2"})
        assert held.operator.tick() == 1
    assert held.state.stage is Stage.ROLLED_BACK


@pytest.mark.parametrize("days", [-365, -1, 1, 365])
def test_no_clock_takes_a_good_version_back(here: Here, days: int):
    here.deploy("2", live=True)
    here.ticks()
    here.traffic(500)
    with time_machine.travel(datetime.now(UTC) + timedelta(days=days)):
        here.traffic(500)
        assert here.operator.tick() == 0
        here.restarted().tick()
    here.traffic(500)
    here.operator.tick()
    assert (here.state.candidate, here.state.stage) == ("2", Stage.LIVE)


# Others at work


def test_two_who_operate_do_no_harm(here: Here):
    other = cli.operate.Operator(here.workspace, here.told.append, "http://127.0.0.1:1")
    here.deploy("2")
    for _ in range(4):
        here.traffic(1_500)
        here.operator.tick()
        other.tick()
    assert (here.state.candidate, here.state.stage) == ("2", Stage.LIVE)
    here.traffic(500, bad={"2"})
    assert here.operator.tick() + other.tick() == 1
    assert here.current().weights == {"1": 1.0}
    audited = [one for one in here.ops.audit_trail("churn") if one.action == "rollout rolled_back"]
    assert len(audited) == 1


def test_whoever_was_quicker_is_seen_at_the_next_look(here: Here, monkeypatch: pytest.MonkeyPatch):
    here.deploy("2", live=True)
    here.traffic(500, bad={"2"})
    change = cli.rollouts.RolloutStore.change

    def beaten(self, *arguments, **options):
        monkeypatch.setattr(cli.rollouts.RolloutStore, "change", change)
        act("rollback", "churn", "Mina", "complaints", "local", None)
        return change(self, *arguments, **options)

    monkeypatch.setattr(cli.rollouts.RolloutStore, "change", beaten)
    assert here.operator.tick() == 0
    assert here.operator.tick() == 0
    assert (here.state.reasons, here.current().actor) == (("complaints",), "Mina")


def test_the_shares_that_were_decided_hold_when_the_model_file_is_edited(here: Here):
    here.deploy("2")
    here.traffic(400)
    here.operator.tick()
    here.traffic(3_000)
    here.operator.tick()
    assert here.current().weights == {"1": 0.5, "2": 0.5}
    file = here.folder / "models" / "churn.yaml"
    file.write_text(file.read_text().replace("[0.1, 0.5, 1.0]", "[1.0]"))
    here.restarted().tick()
    table = here.store.table("churn")
    assert table is not None
    assert table.routing.weights == {"1": 0.5, "2": 0.5}
    here.traffic(400)
    here.operator.tick()
    assert (here.state.candidate, here.state.stage) == ("2", Stage.LIVE)


def test_a_table_later_than_anything_on_record_stays_and_is_told(here: Here):
    table = here.store.table("churn")
    assert table is not None
    path = here.store.folder / "routing" / "churn.json"
    path.write_bytes(table.to_json().replace(b'"generation": 1', b'"generation": 9'))
    here.operator.tick()
    here.operator.tick()
    assert len(lines(here, "routing table 9 of churn is later than anything on record")) == 1
    path.unlink()
    here.operator.tick()
    assert here.store.table("churn") == table


def test_an_ops_store_that_is_gone_is_the_callers_to_answer(here: Here):
    (here.folder / "var" / "ops.db").rename(here.folder / "away.db")
    with pytest.raises(UnavailableError, match="ops store"):
        here.operator.tick()
    (here.folder / "away.db").rename(here.folder / "var" / "ops.db")
    assert here.operator.tick() == 0


def test_tries_that_fail_come_ever_slower_and_never_slower_than_allowed():
    waits = [pause(0.5, failed) for failed in range(40)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (0.5, cli.operate.MOST_PAUSE_S)
    assert pause(60.0, 3) == 60.0
