"""A year of real flights through real processes: trained, served, replaced by a better version, and rid of three bad ones."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mlflow
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from adapters.model_files import load_environment, load_model
from adapters.model_store import TWIN, ModelStore, Table, digests
from adapters.ops_store import OpsStore
from adapters.registry import TWIN as REGISTERED_TWIN
from adapters.registry import Registry
from adapters.rollout_store import RolloutStore
from lifecycle.records import VersionState
from lifecycle.rollout import Stage, live_version, propose
from tests.cli.conftest import ROOT, Place
from tests.cli.test_serve import Running, serving

pytestmark = [pytest.mark.slow, pytest.mark.requirement("R4.1", "R4.3", "R5.2", "R8.1", "R8.2")]
MODEL = "flight_delay"
SMALL = {"trials: 8": "trials: 2", "folds: 3": "folds: 2"}
# On a quick machine the slow version is quicker than the default floor.
ROLLOUT = "rollout: {hold: 0m, min_requests: 200, steps: [0.2, 1.0], rollback: {latency_floor_ms: 10}}\n"
LONG_HAUL = 1_500.0
"""Miles from which a broken version shows its fault: loading it and short flights do not tell."""


@dataclass
class Airport:
    """A place that trains and serves flights."""

    place: Place

    @property
    def ops(self) -> OpsStore:
        return OpsStore.open(f"sqlite:///{self.place.var / 'ops.db'}")

    @property
    def registry(self) -> Registry:
        return Registry(f"sqlite:///{self.place.var / 'mlflow' / 'mlflow.db'}")

    @property
    def store(self) -> ModelStore:
        return ModelStore(self.place.var / "serving")

    def stage(self) -> tuple[str, Stage]:
        change = RolloutStore(self.ops).current(MODEL)
        assert change is not None
        return change.state.candidate, change.state.stage

    def train(self, as_of: str) -> None:
        told = self.place.run("--pipeline", "train", "--model", MODEL, "--as-of", as_of)
        assert told.code == 0, told.err

    def deploy(self, version: str) -> None:
        told = self.place.run("--pipeline", "deploy", "--model", MODEL, "--version", version, "--by", "Ali")
        assert told.code == 0, told.err

    def fly(self, gateway: Running, start: str, end: str, most: int = 1_500) -> dict[str, int]:
        """A window's flights as they would come, with how each ended; how many each version answered."""
        told = self.place.run(
            "traffic", MODEL, "--from", start, "--to", end, "--most", str(most), "--rate", "300",
            "--gateway", gateway.address, "--json",
        )  # fmt: skip
        assert told.code == 0, told.err
        return told.json["versions"]

    def fly_until(self, gateway: Running, version: str, stage: Stage, month: int) -> None:
        """Fly day after day until the rollout stands there."""
        for day in range(1, 28, 2):
            self.fly(gateway, f"2013-{month:02}-{day:02}", f"2013-{month:02}-{day + 2:02}")
            until = time.monotonic() + 5
            while time.monotonic() < until:
                if self.stage() == (version, stage):
                    return
                time.sleep(0.1)
        raise AssertionError(RolloutStore(self.ops).history(MODEL))

    def register_broken(self, version: str, break_it: Callable[[onnx.ModelProto], None]) -> None:
        """Register what a bad build of version 2 would be, and begin its rollout."""
        with tempfile.TemporaryDirectory() as folder:
            sound = self.registry.twin(MODEL, "2", Path(folder))
            assert sound is not None
            broken = onnx.load_model_from_string(sound.read_bytes())
        break_it(broken)
        client = mlflow.MlflowClient(tracking_uri=self.registry.url, registry_uri=self.registry.url)
        place = client.create_run(self.registry.ensure_experiment(MODEL)).info.run_id
        self.registry.attach(place, {REGISTERED_TWIN: broken.SerializeToString()})
        tags = self.registry.tags(MODEL, "2") | {"content": f"broken{version}"}
        made = client.create_model_version(MODEL, f"runs:/{place}/serving", run_id=place, tags=tags)
        assert str(made.version) == version
        now = datetime.now(UTC)
        first = self.ops.versions(MODEL)[0]
        run = self.ops.start_run(
            pipeline="train", model=MODEL, stack="local", trigger_kind="manual", reason="a bad build", requested_by="Ali",
            as_of=now, now=now, lease=timedelta(minutes=1),
        ).run_id  # fmt: skip
        self.ops.record_version(MODEL, version, run, first.snapshot, first.config_hash, VersionState.APPROVED, (), now)
        self.ops.finish_run(run, "succeeded", "registered", now)
        rollouts = RolloutStore(self.ops)
        before = rollouts.current(MODEL)
        assert before is not None
        spec = load_model(MODEL, load_environment("development"), self.place.models)
        state = propose(
            f"broken {version}", MODEL, version, live_version(before.state), "canary", now,
            needs_approval=False, blocked=rollouts.blocked(MODEL),
        )  # fmt: skip
        rollouts.change(before, state, spec.rollout, actor="Ali", now=now, requested_by="Ali")


def fault(model: onnx.ModelProto, nodes: list[onnx.NodeProto], **constants: float) -> None:
    """Let a version's own score be `sound`, `long` tell long flights, and nodes make the score of both."""
    for node in model.graph.node:
        node.output[:] = ["sound" if name == "score" else name for name in node.output]
        node.input[:] = ["sound" if name == "score" else name for name in node.input]
    values = {"long_haul": LONG_HAUL, "nought": 0.0, "one_more": 1.0, **constants}
    model.graph.initializer.extend(numpy_helper.from_array(np.array(value), name) for name, value in values.items())
    make = helper.make_node
    shape = make("Shape", ["sound"], ["its_shape"])
    flat = make("Reshape", ["distance", "its_shape"], ["miles"])
    tell = make("GreaterOrEqual", ["miles", "long_haul"], ["is_long"])
    number = make("Cast", ["is_long"], ["long"], to=TensorProto.DOUBLE)
    model.graph.node.extend([shape, flat, tell, number, *nodes])


def failing(model: onnx.ModelProto) -> None:
    make = helper.make_node
    fault(model, [make("Mul", ["long", "five"], ["off"]), make("Add", ["sound", "off"], ["score"])], five=5.0)


def slow(model: onnx.ModelProto) -> None:
    make = helper.make_node
    fault(
        model,
        [
            make("ReduceMax", ["long"], ["any_long"], keepdims=0),
            make("Mul", ["any_long", "work"], ["end"]),
            make("Range", ["nought", "end", "one_more"], ["busy"]),
            make("ReduceSum", ["busy"], ["total"], keepdims=0),
            make("Mul", ["total", "nought"], ["nothing"]),
            make("Add", ["sound", "nothing"], ["score"]),
        ],
        work=2e7,
    )


def wrong(model: onnx.ModelProto) -> None:
    make = helper.make_node
    fault(model, [make("Sub", ["one_more", "sound"], ["score"])])


def turn_wrong(airport: Airport, version: str) -> None:
    """Let the gateway serve the opposite of what a version says, as a feed that changed its sign would make it."""
    manifest = airport.store.manifest(MODEL, version)
    model = onnx.load_model_from_string(airport.store.read(manifest, TWIN))
    wrong(model)
    content = model.SerializeToString()
    shutil.rmtree(airport.place.var / "serving" / "models" / MODEL / version)
    changed = dataclasses.replace(manifest, files=digests({TWIN: content}))
    airport.store.place(changed, {TWIN: content})
    table = airport.store.table(MODEL)
    assert table is not None
    airport.store.write_table(Table(table.routing, {**table.digests, version: changed.digest}))


@pytest.fixture(scope="module")
def airport(tmp_path_factory: pytest.TempPathFactory) -> Airport:
    """Versions 1 and 2, trained on what was known in July and in September."""
    folder = tmp_path_factory.mktemp("airport")
    place = Place(folder, {"PRODECKS_SOURCE_URL": f"duckdb:///{folder / 'var' / 'source.duckdb'}"})
    for name in ("models", "home"):
        (folder / name).mkdir()
    text = (ROOT / "configs" / "models" / f"{MODEL}.yaml").read_text()
    for before, after in SMALL.items():
        assert before in text
        text = text.replace(before, after)
    (place.models / f"{MODEL}.yaml").write_text(text + "\n" + ROLLOUT)
    made = Airport(place)
    made.train("2013-07-01")
    made.train("2013-09-01")
    return made


@pytest.fixture
def operator(airport: Airport) -> Iterator[Callable[[Running], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(gateway: Running) -> subprocess.Popen[str]:
        with (airport.place.folder / "operate.log").open("w") as told:
            started.append(airport.place.start("operate", "--every", "0.2", "--gateway", gateway.address, stderr=told))
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        process.wait(30)


def test_a_better_version_takes_over_and_a_wrong_a_failing_and_a_slow_one_leave_by_themselves(airport, operator):
    airport.deploy("1")
    with serving(airport.place) as gateway:
        operator(gateway)
        assert set(airport.fly(gateway, "2013-09-01", "2013-09-02")) == {"1"}
        airport.deploy("2")
        airport.fly_until(gateway, "2", Stage.LIVE, 9)
        airport.fly(gateway, "2013-10-01", "2013-10-05", 2_000)  # the first labels of its life as the live version
        turn_wrong(airport, "2")
        airport.fly_until(gateway, "2", Stage.ROLLED_BACK, 10)
        story = airport.place.run("rollout", "history", MODEL).out
        assert "drop is above" in story
        for version, broken, measure in (("3", failing, "error_"), ("4", slow, "slow_share"), ("5", wrong, "")):
            airport.register_broken(version, broken)
            airport.fly_until(gateway, version, Stage.ROLLED_BACK, 11)
            assert measure in "; ".join(RolloutStore(airport.ops).current(MODEL).state.reasons)
        assert airport.fly(gateway, "2013-12-01", "2013-12-02", 300) == {"1": 300}
    story = airport.place.run("rollout", "history", MODEL)
    for word in ("rolled_back", "operate", "canary", "shadow", "live", "error_", "slow_share"):
        assert word in story.out
    told = (airport.place.folder / "operate.log").read_text()
    assert told.count("rolled_back (read back from the gateway)") == 4
