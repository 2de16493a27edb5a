"""A place whose model was not trained: twins made by hand, in a real registry and a real ops store, ready to be rolled out."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from adapters.model_files import load_environment, load_model
from adapters.model_store import ModelStore
from adapters.ops_store import OpsStore
from adapters.registry import TWIN, Registry
from adapters.rollout_store import Change, RolloutStore
from cli.release import route
from lifecycle.rollout import RolloutState, Stage, Strategy, live_version, promote, propose
from lifecycle.spec import ModelSpec
from steps.mirror_aliases import mirror_aliases
from tests.cli.conftest import MODEL, Answer, Place, members, write_table

# The floor: a machine that stalls for a moment condemns nobody here.
QUICK = MODEL + "rollout: {hold: 0m, min_requests: 100, steps: [0.5, 1.0], rollback: {latency_floor_ms: 500}}\n"
TURNS_BAD = 90.0
"""A row with as many visits meets the fault of the versions that have one."""
GOOD, ALSO_GOOD, FAILING, SLOW = "1", "2", "3", "4"
PREDICT = "/models/churn/predict"


def twin(shift: float = 0.0, *, fails: bool = False, slow: int = 0) -> bytes:
    """sigmoid(activity + shift); on rows of `TURNS_BAD` visits no probability, or late by as many million additions."""
    make = helper.make_node
    nodes = [
        make("IsNaN", ["activity"], ["missing"]),
        make("Where", ["missing", "zero", "activity"], ["known"]),
        make("CategoryMapper", ["plan"], ["code"], domain="ai.onnx.ml", cats_strings=["pro"], cats_int64s=[1], default_int64=0),
        make("Cast", ["code"], ["worth"], to=TensorProto.DOUBLE),
        make("Add", ["known", "worth"], ["sum"]),
        make("Add", ["sum", "shift"], ["logit"]),
        make("Sigmoid", ["logit"], ["sound"]),
        make("GreaterOrEqual", ["visits", "turn"], ["turned"]),
        make("Cast", ["turned"], ["bad"], to=TensorProto.DOUBLE),
        make("Mul", ["bad", "fault"], ["wrong"]),
        make("Add", ["sound", "wrong"], ["answer"]),
        make("ReduceMax", ["bad"], ["any"], keepdims=0),
        make("Mul", ["any", "work"], ["end"]),
        make("Range", ["zero", "end", "one"], ["busy"]),
        make("ReduceSum", ["busy"], ["total"], keepdims=0),
        make("Mul", ["total", "zero"], ["nothing"]),
        make("Add", ["answer", "nothing"], ["score"]),
    ]  # fmt: skip
    constants = {"zero": 0.0, "one": 1.0, "shift": shift, "turn": TURNS_BAD, "fault": 5.0 * fails, "work": 1e6 * slow}
    graph = helper.make_graph(
        nodes,
        "g",
        [
            *(helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None]) for name in ("activity", "visits")),
            helper.make_tensor_value_info("plan", TensorProto.STRING, [None]),
        ],
        [helper.make_tensor_value_info("score", TensorProto.DOUBLE, [None])],
        [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 2)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model.SerializeToString()


TWINS = {
    GOOD: twin(),
    ALSO_GOOD: twin(0.1),
    FAILING: twin(0.1, fails=True),
    SLOW: twin(0.1, slow=4),
}


def register(folder: Path, twins: Mapping[str, bytes] = TWINS) -> Path:
    """Register the twins in an MLflow registry of their own; its database, which finds its files wherever it is copied."""
    import mlflow

    folder.mkdir(parents=True)
    database = folder / "mlflow.db"
    registry = Registry(f"sqlite:///{database}")
    experiment = registry.ensure_experiment("churn")
    client = mlflow.MlflowClient(tracking_uri=registry.url, registry_uri=registry.url)
    client.create_registered_model("churn")
    for version, content in twins.items():
        run = client.create_run(experiment).info.run_id
        registry.attach(run, {TWIN: content})
        # Up to after the newest row: no time has passed since.
        tags = {"content": f"content{version}", "threshold": "0.5", "as_of": "2024-03-16T00:00:00+00:00"}
        client.create_model_version("churn", f"runs:/{run}/serving", run_id=run, tags=tags)
    return database


def record_versions(ops: OpsStore, versions: Iterable[str] = TWINS) -> None:
    """Put the versions on record as approved."""
    now = datetime.now(UTC)
    run = ops.start_run(
        pipeline="train", model="churn", stack="local", trigger_kind="manual", reason="r", requested_by="Ali", as_of=now,
        now=now, lease=timedelta(minutes=1),
    )  # fmt: skip
    for version in versions:
        ops.record_version("churn", version, run.run_id, "s", "c", "approved", ["ok"], now)


@dataclass
class World:
    """A place with approved versions; `database` is the registry they are in."""

    place: Place
    ops_url: str = ""
    told: list[str] = field(default_factory=list)

    @classmethod
    def make(
        cls, folder: Path, database: Path, model: str = QUICK, ops_url: str = "", versions: Iterable[str] = TWINS
    ) -> World:
        place = Place(folder)
        for name in ("models", "home", "var/mlflow", "var/serving"):
            (folder / name).mkdir(parents=True)
        (place.models / "churn.yaml").write_text(model)
        write_table(folder / "source.duckdb", members())
        shutil.copy(database, place.var / "mlflow" / "mlflow.db")
        if ops_url:
            place.extra["PRODECKS_OPS_URL"] = ops_url
        world = cls(place, ops_url or f"sqlite:///{place.var / 'ops.db'}")
        record_versions(world.ops, versions)
        return world

    @property
    def ops(self) -> OpsStore:
        return OpsStore.open(self.ops_url)

    @property
    def rollouts(self) -> RolloutStore:
        return RolloutStore(self.ops)

    @property
    def registry(self) -> Registry:
        return Registry(f"sqlite:///{self.place.var / 'mlflow' / 'mlflow.db'}")

    @property
    def spec(self) -> ModelSpec:
        return load_model("churn", load_environment("development"), self.place.models)

    def current(self) -> Change:
        found = self.rollouts.current("churn")
        assert found is not None
        return found

    def stage(self) -> tuple[str, Stage]:
        state = self.current().state
        return state.candidate, state.stage

    def change(self, state: RolloutState, actor: str = "Mina") -> Change:
        """Put a change on record; whoever operates carries it out."""
        rollouts = self.rollouts
        return rollouts.change(
            rollouts.current("churn"), state, self.spec.rollout, actor=actor, now=datetime.now(UTC), requested_by="Ali"
        )

    def deploy(self, version: str, strategy: Strategy = "canary", *, live: bool = False) -> Change:
        """Begin a rollout as the deploy pipeline does; with `live`, promoted at once by a person."""
        before = self.rollouts.current("churn")
        baseline = None if before is None else live_version(before.state)
        name = f"deploy-{version}-{0 if before is None else before.generation}"
        state = propose(
            name, "churn", version, baseline, strategy, datetime.now(UTC), needs_approval=False,
            blocked=self.rollouts.blocked("churn"),
        )  # fmt: skip
        change = self.change(state)
        if live and change.state.stage is not Stage.LIVE:
            change = self.change(promote(change.state, datetime.now(UTC), "sure"))
        return change

    def begin(self, version: str, *options: str) -> Answer:
        """Begin a rollout by the deploy pipeline, in this process."""
        return self.place.call(
            "--pipeline", "deploy", "--model", "churn", "--version", version, "--by", "Ali", *options
        )

    def carry_out(self) -> None:
        """Put what is on record in force, as operate does."""
        change, store = self.current(), ModelStore(self.place.var / "serving")
        route(self.spec, change, self.ops, self.registry, store)
        mirror_aliases(self.ops, self.registry, "churn", change.environment, datetime.now(UTC))

    def wait(self, version: str, stage: Stage, seconds: float = 120) -> None:
        until = time.monotonic() + seconds
        while self.stage() != (version, stage):
            assert time.monotonic() < until, (self.rollouts.history("churn"), self.told)
            time.sleep(0.05)

    def wait_told(self, words: str, seconds: float = 120) -> str:
        """Wait for a line of `operating`."""
        until = time.monotonic() + seconds
        while True:
            for line in list(self.told):
                if words in line:
                    return line
            assert time.monotonic() < until, self.told
            time.sleep(0.02)


@contextmanager
def operating(world: World, gateway: str, every: float = 0.2) -> Iterator[subprocess.Popen[str]]:
    """`run.py operate` in a process of its own; what it tells is in `world.told`."""
    process = world.place.start("operate", "--every", f"{every:g}", "--gateway", gateway)
    assert process.stderr is not None

    def listen(lines: Iterator[str]) -> None:
        world.told.extend(lines)

    listener = threading.Thread(target=listen, args=(process.stderr,), daemon=True)
    listener.start()
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)
        listener.join(5)


def row(number: int, *, bad: bool = False) -> dict[str, object]:
    return {
        "activity": number % 7 - 3.0,
        "visits": TURNS_BAD + 1 if bad else 3.0,
        "plan": "pro",
        "member_id": f"M{number}",
    }


@dataclass
class Load:
    """Requests from a few threads, each one after the other, until told to stop."""

    address: str
    threads: int = 2
    pause: float = 0.01
    bad: bool = False
    answered: list[tuple[str, int, float]] = field(default_factory=list)
    """Request id (empty when there is none), status (0 when nobody answered), and seconds it took."""

    @contextmanager
    def running(self) -> Iterator[Load]:
        stop = threading.Event()
        name = f"{os.getpid()}-{time.monotonic_ns()}"

        def ask(thread: int) -> None:
            with httpx.Client(base_url=self.address, timeout=30) as client:
                number = 0
                while not stop.is_set():
                    number += 1
                    asked = f"{name}-{thread}-{number}"
                    began = time.monotonic()
                    try:
                        told = client.post(
                            PREDICT, json={"rows": [row(number, bad=self.bad)]}, headers={"x-request-id": asked}
                        )
                        status = told.status_code
                    except httpx.HTTPError:
                        status = 0
                    self.answered.append((asked, status, time.monotonic() - began))
                    time.sleep(self.pause)

        askers = [threading.Thread(target=ask, args=(one,)) for one in range(self.threads)]
        for asker in askers:
            asker.start()
        try:
            yield self
        finally:
            stop.set()
            for asker in askers:
                asker.join()

    def statuses(self) -> set[int]:
        return {status for _, status, _ in self.answered}

    @property
    def acknowledged(self) -> set[str]:
        return {name for name, status, _ in self.answered if status == 200}
