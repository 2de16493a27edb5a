"""A cluster in small: gateway, Envoy, model server and `operate` as processes; a candidate with faults leaves by itself."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import mlflow
import numpy as np
import psutil
import pytest

from adapters.fitting import export, fit
from adapters.model_files import load_model
from adapters.ops_store import OpsStore
from adapters.registry import Registry
from adapters.rollout_store import RolloutStore
from lifecycle.rollout import RolloutState, Stage, propose
from lifecycle.spec import ModelSpec
from lifecycle.traffic import point
from tests.adapters.small_training import found
from tests.cli.conftest import MODEL, Place, members
from tests.cli.test_serve import PREDICT, ROW, serving
from tests.envoy import Envoy, envoy
from tests.tf_serving import TensorFlowServing, tensorflow_serving

pytestmark = [pytest.mark.slow, pytest.mark.requirement("R4.1", "R8.1")]

SHARE = 0.5
PLAN = f"rollout: {{hold: 0m, min_requests: 400, steps: [{SHARE}, 1.0]}}\n"
DELAY_S = 0.4


@dataclass(frozen=True)
class Asked:
    """One request, and how it went."""

    at: float
    seconds: float
    status: int
    candidates: bool
    """Whether the entity is one of those that a candidate answers."""
    version: str | None


@dataclass
class Cluster:
    """Everything that runs."""

    place: Place
    server: TensorFlowServing
    proxy: Envoy
    gateway: str
    process: int
    spec: ModelSpec
    asked: list[Asked] = field(default_factory=list)

    @property
    def rollouts(self) -> RolloutStore:
        return RolloutStore(OpsStore.open(f"sqlite:///{self.place.var / 'ops.db'}"))

    def begin(self, version: str) -> None:
        """Put a rollout's beginning on record, as the deploy pipeline does; `operate` carries it out."""
        before = self.rollouts.current("churn")
        live = None if before is None else before.state.candidate
        now = datetime.now(UTC)
        state: RolloutState = propose(f"r{version}", "churn", version, live, "canary", now, needs_approval=False)
        self.rollouts.change(before, state, self.spec.rollout, actor="Ali", now=now)

    def stage(self) -> Stage:
        change = self.rollouts.current("churn")
        assert change is not None
        return change.state.stage

    def wait(self, true: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, (self.place.folder / "operate.log").read_text()
            time.sleep(0.05)

    def serves(self) -> set[str]:
        state = httpx.get(f"{self.gateway}/operate/state").json()
        return set(state["models"].get("churn", {}).get("versions", {}))

    @contextmanager
    def traffic(self) -> Iterator[None]:
        """Four clients that ask all the while."""
        ended = threading.Event()
        numbers = itertools.count()

        def ask() -> None:
            with httpx.Client(base_url=self.gateway, timeout=20) as client:
                while not ended.is_set():
                    number = next(numbers)
                    row = {**ROW, "activity": number % 7 - 3.0, "member_id": f"M{number}"}
                    begun = time.monotonic()
                    answer = client.post(PREDICT, json={"rows": [row]})
                    mine = point("churn", "2", f"M{number}") < SHARE
                    version = answer.headers.get("x-prodecks-version")
                    self.asked.append(Asked(begun, time.monotonic() - begun, answer.status_code, mine, version))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for one in threads:
            one.start()
        try:
            yield
        finally:
            ended.set()
            for one in threads:
                one.join(30)


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Versions 1 and 2 of a model in the registry and on record, as a training leaves them, without its search."""
    place = Place.make(tmp_path_factory.mktemp("cluster"), members(), MODEL + PLAN)
    spec = load_model("churn", folder=place.models)
    (place.var / "mlflow").mkdir(parents=True)
    registry = Registry(f"sqlite:///{place.var / 'mlflow' / 'mlflow.db'}")
    ops = OpsStore.open(f"sqlite:///{place.var / 'ops.db'}")
    now, frame = datetime.now(UTC), members()
    example = frame[[feature.name for feature in spec.features]].head(3).astype({"visits": float})
    run = ops.start_run(
        pipeline="train", model="churn", stack="local", trigger_kind="manual", reason="r", requested_by="Ali",
        as_of=now, now=now, lease=timedelta(minutes=1),
    )  # fmt: skip
    for version in ("1", "2"):
        folder = place.folder / f"exported{version}" / "saved_model"
        export(fit(frame, np.arange(480), spec, found(), int(version)), folder)
        logged = mlflow.MlflowClient(registry.url).create_run(registry.ensure_experiment("churn")).info.run_id
        tags = {"content": f"c{version}", "threshold": "0.5"}
        assert registry.register("churn", logged, folder, example, {}, tags).version == version
        ops.record_version("churn", version, run.run_id, "s", "c", "approved", ["ok"], now)
    return place


@pytest.fixture
def cluster(registered: Place, tmp_path: Path) -> Iterator[Cluster]:
    """Version 1 live, scored by a model server that had never heard of it."""
    place = registered
    with sqlite3.connect(place.var / "ops.db") as connection:
        connection.execute("DELETE FROM rollout_changes")
        connection.execute("DELETE FROM aliases")
    connection.close()
    shutil.rmtree(place.var / "serving", ignore_errors=True)
    base = tmp_path / "base"
    base.mkdir()
    spec = load_model("churn", folder=place.models)
    with (
        tensorflow_serving() as server,
        envoy(server.address, "2", DELAY_S, tmp_path / "envoy") as proxy,
        serving(place, "--tf-serving", proxy.address, "--deadline", "10") as gateway,
        (place.folder / "operate.log").open("w") as told,
    ):
        made = Cluster(place, server, proxy, gateway.address, gateway.process.pid, spec)
        made.begin("1")
        command = ("operate", "--every", "0.2", "--gateway", gateway.address, "--tf-serving", server.address)
        operator = place.start(*command, "--tf-serving-models", str(base), stderr=told)
        try:
            made.wait(lambda: made.serves() == {"1"})
            made.wait(lambda: server.label("churn", "live") == 1)
            yield made
        finally:
            operator.terminate()
            operator.wait(20)


def median(asked: list[Asked]) -> float:
    """Typical time of an answer: were users held up by the candidate's delay, most would be, and a busy machine's stalls
    would not tell."""
    return float(np.median([one.seconds for one in asked]))


def p95(asked: list[Asked]) -> float:
    return float(np.quantile([one.seconds for one in asked], 0.95))


@pytest.mark.parametrize(
    ("fault", "measure"), [({"abort": 100}, "error"), ({"delay": 100}, "slow_share")], ids=["failing", "slow"]
)
def test_a_canary_behind_a_bad_backend_is_rolled_back_and_the_live_version_is_not_touched(
    cluster: Cluster, fault: dict[str, int], measure: str
):
    cluster.begin("2")
    with cluster.traffic():
        cluster.wait(lambda: cluster.stage() is Stage.CANARY)
        cluster.wait(lambda: cluster.server.label("churn", "candidate") == 2)
        canary = time.monotonic()
        time.sleep(1)
        cluster.proxy.fault(**fault)
        began = time.monotonic()
        cluster.wait(lambda: cluster.stage() is Stage.ROLLED_BACK, 30)
        cluster.wait(lambda: cluster.serves() == {"1"})
        ended = time.monotonic()
        time.sleep(1)
    change = cluster.rollouts.current("churn")
    assert change is not None
    assert (change.actor, change.weights) == ("operate", {"1": 1.0})
    assert any(reason.startswith(measure) for reason in change.state.reasons), change.state.reasons
    live = [one for one in cluster.asked if not one.candidates]
    assert {one.status for one in live} == {200}
    assert {one.version for one in live} == {"1"}
    before = [one for one in live if canary <= one.at < began]
    during = [one for one in live if began <= one.at < ended]
    assert len(before) > 20
    assert len(during) > 20
    assert median(during) < max(3 * median(before), DELAY_S / 2)
    hit = [one for one in cluster.asked if one.candidates and began <= one.at < ended]
    assert any(one.status != 200 if "abort" in fault else one.seconds >= DELAY_S for one in hit)
    after = [one for one in cluster.asked if one.at > ended + 0.5]
    assert {(one.status, one.version) for one in after} == {(200, "1")}
    memory = psutil.Process(cluster.process).memory_info().rss
    assert memory < 250e6
    print(
        f"\n{measure}: rolled back {ended - began:.1f} s after the fault, {len(hit)} requests of the candidate's; the live "
        f"version's median {median(before) * 1e3:.0f} ms before, {median(during) * 1e3:.0f} ms during, "
        f"P95 {p95(before) * 1e3:.0f} and {p95(during) * 1e3:.0f} ms; {memory / 1e6:.0f} MB"
    )
    # The model server lets the version go, and the label with it; a restart is set right.
    cluster.wait(lambda: cluster.server.state("churn", 2) == "END")
    assert cluster.server.label("churn", "candidate") is None
    cluster.server.restart()
    cluster.wait(lambda: cluster.server.label("churn", "live") == 1)


def test_a_shadow_behind_a_bad_backend_changes_no_users_answer(cluster: Cluster):
    with cluster.traffic():
        time.sleep(2)
        began = time.monotonic()
        cluster.proxy.fault(abort=50, delay=50)
        cluster.begin("2")
        cluster.wait(lambda: cluster.stage() is Stage.ROLLED_BACK)
        ended = time.monotonic()
    assert {(one.status, one.version) for one in cluster.asked} == {(200, "1")}
    before = [one for one in cluster.asked if one.at < began]
    during = [one for one in cluster.asked if began <= one.at < ended]
    assert len(before) > 20
    assert len(during) > 20
    assert median(during) < max(3 * median(before), DELAY_S / 2)
    stages = [one.state.stage for one in cluster.rollouts.history("churn")]
    assert stages == [Stage.ROLLED_BACK, Stage.SHADOW, Stage.LIVE]
