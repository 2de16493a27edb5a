"""`operate` in this process: the real ops store, serving folder and prediction log; a registry and a gateway that stand in."""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
import time
from collections.abc import Collection
from contextlib import closing
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest

import cli.operate
import cli.rollouts
from adapters.model_store import ModelStore
from adapters.ops_store import OpsStore
from adapters.prediction_log import Fsync, Outcome, Prediction, PredictionLog, encode
from adapters.rollout_store import Change, RolloutStore
from cli.operate import Operator
from cli.workspace import Workspace
from lifecycle.errors import ConfigError, UnavailableError
from lifecycle.rollout import RolloutState, Stage, Strategy, live_version, promote, propose
from lifecycle.traffic import assign
from tests.cli.hand_made import MODEL, record_versions, twin

VERSIONS = {str(number): twin(number / 10) for number in range(1, 10)}
QUICK = "rollout: {hold: 0m, min_requests: 100, steps: [0.1, 0.5, 1.0]}\n"
GATEWAY = "http://127.0.0.1:1"


def folder_in_memory() -> tempfile.TemporaryDirectory[str]:
    """A folder whose writes are quick, where the system has one: what a power cut leaves is not what is tried here."""
    return tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)


@cache
def recorded_versions() -> bytes:
    """An ops store with every version on record, made once: its copies stand in for as many migrations."""
    with folder_in_memory() as name:
        made, copy = Path(name) / "ops.db", Path(name) / "copy.db"
        record_versions(OpsStore.open(f"sqlite:///{made}"), VERSIONS)
        with closing(sqlite3.connect(made)) as connection:
            connection.execute("VACUUM INTO ?", (str(copy),))
        return copy.read_bytes()


class StandInRegistry:
    """Registry's interface over a dictionary; aliases are set one by one, as MLflow's are."""

    held: ClassVar[dict[str, str]] = {}
    gone: ClassVar[bool] = False

    def __init__(self, url: str) -> None:
        self.url = url

    def _answer(self) -> None:
        if StandInRegistry.gone:
            raise UnavailableError("the model registry could not be reached")

    def tags(self, model: str, version: str) -> dict[str, str]:
        self._answer()
        if version not in VERSIONS:
            raise ConfigError(f"{model} has no version {version!r} in the registry")
        return {"content": f"content{version}", "threshold": "0.5"}

    def twin(self, model: str, version: str, destination: Path) -> Path | None:
        self._answer()
        path = destination / "twin.onnx"
        path.write_bytes(VERSIONS[version])
        return path

    def aliases(self, model: str) -> dict[str, str]:
        self._answer()
        return dict(self.held)

    def mirror_aliases(self, model: str, aliases: dict[str, str | None]) -> None:
        self._answer()
        for alias, version in aliases.items():
            self.set_alias(alias, version)

    def set_alias(self, alias: str, version: str | None) -> None:
        if version is None:
            self.held.pop(alias, None)
        else:
            self.held[alias] = version


class Here:
    """A model's rollouts, operated in this process."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, model: str = MODEL + QUICK) -> None:
        (folder / "models").mkdir()
        (folder / "models" / "churn.yaml").write_text(model)
        (folder / "var").mkdir()
        (folder / "var" / "ops.db").write_bytes(recorded_versions())
        patch.setenv("PRODECKS_VAR", str(folder / "var"))
        patch.setenv("PRODECKS_MODELS", str(folder / "models"))
        for name in ("SOURCE", "OPS", "TUNING", "REGISTRY"):
            patch.setenv(f"PRODECKS_{name}_URL", f"sqlite:///{folder / 'var' / 'ops.db'}")
        patch.setattr(StandInRegistry, "held", {})
        patch.setattr(StandInRegistry, "gone", False)
        patch.setattr(cli.rollouts, "Registry", StandInRegistry)
        patch.setattr(cli.operate, "gateway_state", self.gateway_state)
        patch.setattr(cli.operate, "READ_BACK_S", 0.2)
        self.folder = folder
        self.workspace = Workspace.open("local")
        self.ops = OpsStore.open(self.workspace.services.ops)
        self.rollouts = RolloutStore(self.ops)
        self.store = ModelStore(folder / "var" / "serving")
        self.follows, self.asked = True, 0
        self.told: list[str] = []
        self.numbers = itertools.count()
        self._log: PredictionLog | None = None
        self.operator = self.restarted()

    def restarted(self) -> Operator:
        self.operator = Operator(self.workspace, self.told.append, GATEWAY)
        return self.operator

    def gateway_state(self, address: str) -> dict[str, Any]:
        """A gateway that follows every table at once; or, with `follows` False, none of them."""
        self.asked += 1
        tables = [self.store.table(model) for model in self.store.models()] if self.follows else []
        return {
            "models": {one.routing.model: {"routing": one.routing.to_dict()} for one in tables if one},
            "problems": {},
        }

    @property
    def log(self) -> PredictionLog:
        if self._log is None:
            self._log = PredictionLog.open(self.folder / "var" / "serving" / "log", Fsync.NEVER, segment_bytes=30_000)
        return self._log

    def close(self) -> None:
        if self._log is not None:
            self._log.close()

    def current(self) -> Change:
        found = self.rollouts.current("churn")
        assert found is not None
        return found

    @property
    def state(self) -> RolloutState:
        return self.current().state

    def deploy(
        self, version: str, strategy: Strategy = "canary", *, needs_approval: bool = False, live: bool = False
    ) -> None:
        """As the deploy pipeline's last step does, `live` by a person's word at once."""
        before = self.rollouts.current("churn")
        baseline = None if before is None else live_version(before.state)
        state = propose(
            f"r{next(self.numbers)}", "churn", version, baseline, strategy, datetime.now(UTC),
            needs_approval=needs_approval, blocked=self.rollouts.blocked("churn"),
        )  # fmt: skip
        self.put(state)
        if live and state.stage is not Stage.LIVE:
            self.put(promote(state, datetime.now(UTC), "sure"))

    def put(self, state: RolloutState) -> Change:
        deployment = cli.rollouts.Deployment(self.workspace, "churn")
        before, plan = self.rollouts.current("churn"), deployment.spec.rollout
        change = self.rollouts.change(before, state, plan, actor="Mina", now=datetime.now(UTC), requested_by="Ali")
        deployment.carry_out(change)
        return change

    def traffic(
        self,
        rows: int = 300,
        bad: Collection[str] = (),
        *,
        at: float | None = None,
        latency_ms: float = 5.0,
        labels: bool = False,
    ) -> None:
        """Requests as the routing table in force assigns them; those on a bad version fail."""
        table = self.store.table("churn")
        assert table is not None
        records = []
        for _ in range(rows):
            name = f"q{next(self.numbers)}"
            version, role = assign(table.routing, name)
            answering = [(version, role.value)]
            if table.routing.shadow is not None:
                answering.append((table.routing.shadow, "shadow"))
            for answers, part in answering:
                score = None if answers in bad else 0.7
                records.append(
                    encode(
                        Prediction(
                            name, time.time() if at is None else at, "churn", answers, part, "c", name, {}, score,
                            None if score is None else 1, latency_ms, "" if score else "failed",
                        )
                    )
                )  # fmt: skip
            if labels:
                records.append(encode(Outcome(name, "", "churn", 1, 0.0, 0.0, "c")))
        self.log.append(records, 0)

    def ticks(self, most: int = 8) -> int:
        """Look until nothing changes any more; how many looks that took."""
        for number in range(1, most + 1):
            if self.operator.tick() == 0:
                return number
        raise AssertionError(f"still moving after {most} looks: {self.told}")
