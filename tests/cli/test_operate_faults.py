"""Whatever happens in whatever order, killed at whatever write: what is on record, what is served and what is mirrored agree soon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from adapters import processes
from adapters.model_store import ModelStore, Table
from adapters.rollout_store import RolloutStore
from cli.rollouts import act, say
from lifecycle.aliases import Alias, registry_name
from lifecycle.errors import ConfigError
from lifecycle.rollout import OVER, Stage, live_version
from lifecycle.traffic import Routing
from tests.cli.operating import MODEL, QUICK, VERSIONS, Here, StandInRegistry, folder_in_memory

pytestmark = pytest.mark.requirement("R4.1", "R4.2", "R8.1", "R8.2")
SENSITIVE = MODEL.replace("non_sensitive", "sensitive") + QUICK
WRITES = ("ops store", "place", "routing table", "alias")
kills = st.one_of(st.none(), st.tuples(st.sampled_from(WRITES), st.sampled_from(["before", "after"])))


class Killed(BaseException):
    """The process ends here: nothing of the code that is running catches it."""


class Faults(RuleBasedStateMachine):
    """Rollouts of five versions by people and by operate, over whatever breaks."""

    @initialize()
    def begin(self) -> None:
        self.home = folder_in_memory()
        self.patch = pytest.MonkeyPatch()
        self.here = Here(Path(self.home.name), self.patch, SENSITIVE)
        self.kill: tuple[str, str] | None = None
        self.killable(RolloutStore, "change", "ops store")
        self.killable(ModelStore, "place", "place")
        self.killable(ModelStore, "write_table", "routing table")
        self.killable(StandInRegistry, "set_alias", "alias")
        # One process at a time: whoever has a run on record that is not finished was killed over it.
        self.patch.setattr(processes, "has_died", lambda owner: True)
        self.settled = False
        self.here.deploy("1")
        self.settle()

    def killable(self, owner: type, name: str, write: str) -> None:
        """Let a write be the last thing a process does, or the last thing it does not do."""
        real = getattr(owner, name)

        def around(*arguments: Any, **options: Any) -> Any:
            if self.kill == (write, "before"):
                raise Killed
            done = real(*arguments, **options)
            if self.kill == (write, "after"):
                raise Killed
            return done

        self.patch.setattr(owner, name, around)

    def teardown(self) -> None:
        if hasattr(self, "here"):
            self.here.close()
            self.patch.undo()
            self.home.cleanup()

    def killed_at(self, kill: tuple[str, str] | None, doing: Callable[[], object]) -> None:
        """Do something that may be killed at a write, and begin a new process where it was."""
        self.kill, self.settled = kill, False
        try:
            doing()
        except Killed:
            self.here.restarted()
        finally:
            self.kill = None

    @property
    def stage(self) -> Stage:
        return self.here.state.stage

    @precondition(lambda self: self.stage in OVER | {Stage.LIVE})
    @rule(version=st.sampled_from(sorted(VERSIONS)), strategy=st.sampled_from(["canary", "canary", "blue_green", "shadow"]),
          needs_approval=st.sampled_from([False, False, True]), kill=kills)  # fmt: skip
    def deploy(self, version: str, strategy: Any, needs_approval: bool, kill: Any) -> None:
        refused = {live_version(self.here.state), *self.here.rollouts.blocked("churn")}

        def begin() -> None:
            if version in refused:
                with pytest.raises(ConfigError):
                    self.here.deploy(version, strategy, needs_approval=needs_approval)
            else:
                self.here.deploy(version, strategy, needs_approval=needs_approval)

        self.killed_at(kill, begin)

    @precondition(lambda self: self.stage is Stage.AWAITING_APPROVAL)
    @rule(agreed=st.sampled_from([True, True, False]), kill=kills)
    def answer_whoever_asks(self, agreed: bool, kill: Any) -> None:
        self.killed_at(kill, lambda: say("churn", "Sara", "looked at it", "local", None, approved=agreed))

    @rule(action=st.sampled_from(["pause", "resume", "promote"]), kill=kills)
    def person(self, action: str, kill: Any) -> None:
        state = self.here.state
        on_its_way = state.stage in (Stage.SHADOW, Stage.CANARY)
        allowed = {"pause": on_its_way, "resume": state.paused, "promote": on_its_way}[action]

        def doing() -> None:
            if allowed:
                act(action, "churn", "Mina", "a reason", "local", None)
            else:
                with pytest.raises(ConfigError):
                    act(action, "churn", "Mina", "a reason", "local", None)

        self.killed_at(kill, doing)

    @rule(kill=kills)
    def abort(self, kill: Any) -> None:
        """A person's rollback is honoured wherever there is a version to go back to, and twice settled later holds."""
        change = self.here.current()
        taken_back = change.state.candidate
        possible = change.state.stage is Stage.AWAITING_APPROVAL
        if not possible:
            on_trial = change.state.stage not in OVER
            found = self.here.rollouts.went_live("churn", live_version(change.state) or "")
            acted_on = change.state if on_trial or found is None else found.state
            taken_back = acted_on.candidate
            blocked = self.here.rollouts.blocked("churn")
            possible = (on_trial or found is not None) and acted_on.baseline not in {None, *blocked}

        def doing() -> None:
            if possible:
                act("rollback", "churn", "Mina", "stop it", "local", None)
            else:
                with pytest.raises(ConfigError):
                    act("rollback", "churn", "Mina", "stop it", "local", None)

        self.killed_at(kill, doing)
        if possible and self.here.current().generation > change.generation:
            self.settle()
            table = self.here.store.table("churn")
            assert table is None or taken_back not in table.routing.weights

    @rule(bad=st.sampled_from(["nobody", "nobody", "nobody", "candidate", "live", "everybody"]),
          rows=st.sampled_from([0, 30, 600, 600, 600]), kill=kills)  # fmt: skip
    def traffic(self, bad: str, rows: int, kill: Any) -> None:
        """Users ask, some versions fail them, and somebody looks who may be killed over it."""
        self.settle()
        state = self.here.state
        failing = {"nobody": set(), "candidate": {state.candidate}, "live": {live_version(state)}}
        self.here.traffic(rows, failing.get(bad, set(VERSIONS)))
        self.tick(kill)

    @rule(kill=kills)
    def tick(self, kill: Any) -> None:
        self.killed_at(kill, lambda: self.here.operator.tick())

    @rule(alias=st.sampled_from(list(Alias)), version=st.sampled_from([None, *sorted(VERSIONS)]))
    def somebody_moves_an_alias(self, alias: Alias, version: str | None) -> None:
        StandInRegistry("").set_alias(registry_name("development", alias), version)
        self.settled = False

    @precondition(lambda self: self.here.store.models())
    @rule(how=st.sampled_from(["gone", "damaged", "moved"]))
    def somebody_touches_the_table(self, how: str) -> None:
        path = self.here.store.folder / "routing" / "churn.json"
        if how == "gone":
            path.unlink()
        elif how == "damaged":
            path.write_bytes(path.read_bytes()[:40])
        else:
            moved = Routing("churn", self.here.current().generation, "5")
            path.write_bytes(Table(moved, {"5": "0" * 64}).to_json())
        self.settled = False

    @rule()
    def settle(self) -> None:
        """Two looks that nobody interrupts."""
        for _ in range(2):
            self.here.operator.tick()
        self.settled = True

    @rule()
    def it_comes_to_rest(self) -> None:
        """Without further traffic there is an end to changes: no loop, however bad the versions were."""
        self.here.ticks()
        self.settled = True

    @invariant()
    def they_agree(self) -> None:
        if not getattr(self, "settled", False):
            return
        change, table = self.here.current(), self.here.store.table("churn")
        assert table is not None
        assert (table.routing.generation, table.routing.weights) == (change.generation, dict(change.weights))
        held = self.here.ops.aliases("churn")
        assert StandInRegistry.held == {registry_name("development", alias): version for alias, version in held.items()}
        assert held.get(Alias.CHAMPION) == live_version(change.state)
        for version in table.routing.warm:
            self.here.store.verify(self.here.store.manifest("churn", version))

    @invariant()
    def everybody_is_answered_and_nobody_by_a_version_that_was_rolled_back(self) -> None:
        if not hasattr(self, "here"):
            return
        weights = self.here.current().weights
        assert sum(weights.values()) == pytest.approx(1)
        assert not set(weights) & set(self.here.rollouts.blocked("churn"))


TestFaults = Faults.TestCase
TestFaults.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.slow
class TestFaultsForLonger(Faults.TestCase):
    settings = settings(max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
