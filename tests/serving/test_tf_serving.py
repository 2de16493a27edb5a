"""The gateway in front of TensorFlow Serving: the same answers, and a version that is slow or fails holds up no other."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from adapters.prediction_log import Prediction, read
from adapters.tf_serving import ModelServer
from lifecycle.errors import UnavailableError
from lifecycle.model_server import ServedModel
from lifecycle.traffic import point
from serving import lanes
from tests.serving.conftest import Opened, Place
from tests.tf_serving import Answer, Refused, TensorFlowServing, tensorflow_serving

pytestmark = [pytest.mark.anyio, pytest.mark.requirement("R2.3", "R4.3")]

URL = "/models/churn/predict"
ROWS = [{"x": 0.3, "kind": "a"}, {"x": None, "kind": None}, {"x": 1e12, "kind": "never met 🛫"}, {"x": -2, "kind": ""}]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Cluster:
    """TensorFlow Serving with the versions of `Place`, each of which can be made to wait or to fail."""

    server: TensorFlowServing
    base: Path
    delays: dict[str, float] = field(default_factory=dict)
    failures: dict[str, grpc.StatusCode] = field(default_factory=dict)
    shifts: dict[str, float] = field(default_factory=lambda: {"1": 0.0, "2": 2.0})

    def load(self, folder: Path) -> Answer:
        version = folder.name

        def answer(inputs: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
            time.sleep(self.delays.get(version, 0))
            if version in self.failures and np.isfinite(inputs["x"]).all():  # loading tries a row of nothing known
                raise Refused(self.failures[version])
            logit = np.nan_to_num(inputs["x"]) + (inputs["kind"] == b"a") + self.shifts[version]
            return {"score": 1 / (1 + np.exp(-logit))}

        return answer

    def hold(self, *versions: str) -> None:
        for version in versions:
            (self.base / "churn" / version).mkdir(parents=True, exist_ok=True)
        client = ModelServer(self.server.address)
        client.configure(self.server.address, [ServedModel("churn", versions, {})], self.base)
        end = time.monotonic() + 20
        while any(self.server.state("churn", int(one)) != "AVAILABLE" for one in versions):
            assert time.monotonic() < end
            time.sleep(0.02)

    def client(self, deadline: float = 5) -> ModelServer:
        return ModelServer(self.server.address, deadline)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made: list[Cluster] = []
    with tensorflow_serving(lambda folder: made[0].load(folder)) as server:
        made.append(Cluster(server, tmp_path / "base"))
        made[0].hold("1", "2")
        yield made[0]


def entities(version: str, count: int) -> list[str]:
    """Members that meet a version while the candidate, version 2, has half."""
    meets = [f"M{n}" for n in range(count * 4) if (point("churn", "2", f"M{n}") < 0.5) == (version == "2")]
    return meets[:count]


async def ask(client: httpx.AsyncClient, member: str) -> tuple[float, httpx.Response]:
    started = time.monotonic()
    answer = await client.post(URL, json={"rows": [{"x": 0.3, "kind": "a", "member": member}]})
    return time.monotonic() - started, answer


async def test_it_answers_as_the_embedded_backend_does_and_each_answer_is_on_record(
    opened: Opened, place: Place, cluster: Cluster
):
    place.route(live="1", candidate="2", share=0.5)
    rows = [{**row, "member": member} for row in ROWS for member in (*entities("1", 2), *entities("2", 2))]
    async with opened() as (_, client):
        embedded = (await client.post(URL, json={"rows": rows})).json()["predictions"]
    async with opened(server=cluster.client()) as (gateway, client):
        remote = (await client.post(URL, json={"rows": rows})).json()["predictions"]
        assert gateway.state()["models"]["churn"]["versions"]["1"]["backend"] == "tensorflow serving"
    assert [one["version"] for one in remote] == [one["version"] for one in embedded]
    assert [one["score"] for one in remote] == pytest.approx([one["score"] for one in embedded], abs=1e-12)
    assert {version for _, version in cluster.server.asked} == {"1", "2"}
    assert len(list(read(place.folder / "log"))) == 2 * len(rows)


async def test_a_slow_candidate_does_not_delay_the_live_versions_answers(
    opened: Opened, place: Place, cluster: Cluster
):
    place.route(live="1", candidate="2", share=0.5)
    async with opened(server=cluster.client()) as (_, client):
        cluster.delays["2"] = 0.7
        slow = [asyncio.create_task(ask(client, member)) for member in entities("2", 40)]
        await asyncio.sleep(0.1)
        quick = [await ask(client, member) for member in entities("1", 20)]
        assert not any(one.done() for one in slow)
        assert {answer.headers["x-prodecks-version"] for _, answer in quick} == {"1"}
        assert statistics.median(seconds for seconds, _ in quick) < 0.3
        answered = [await one for one in slow]
    assert [answer.status_code for _, answer in answered] == [200] * 40
    # What came while the first calls were out went together: 40 requests took two rounds, not ten.
    assert max(seconds for seconds, _ in answered) < 4 * 0.7
    assert len([one for one in cluster.server.asked if one[1] == "2"]) < 10


async def test_a_candidate_that_fails_is_on_record_as_its_error_and_touches_nobody_else(
    opened: Opened, place: Place, cluster: Cluster
):
    place.route(live="1", candidate="2", share=0.5)
    async with opened(server=cluster.client()) as (_, client):
        cluster.failures["2"] = grpc.StatusCode.INTERNAL
        bad = [(await ask(client, member))[1] for member in entities("2", 5)]
        good = [(await ask(client, member))[1] for member in entities("1", 5)]
    assert [one.status_code for one in bad] == [500] * 5
    assert "INTERNAL" not in bad[0].text  # what went wrong inside is for the record
    assert [one.status_code for one in good] == [200] * 5
    records = [entry.record for entry in read(place.folder / "log")]
    failed = [one for one in records if isinstance(one, Prediction) and one.error]
    assert {(one.version, one.role, one.score) for one in failed} == {("2", "candidate", None)}
    assert len(failed) == 5
    assert "INTERNAL" in failed[0].error


async def test_a_shadow_that_is_slow_or_fails_changes_no_users_answer(
    opened: Opened, place: Place, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lanes, "MOST_WAITING_ROWS", 8)
    place.route(live="1", shadow="2")
    async with opened(server=cluster.client()) as (gateway, client):
        cluster.delays["2"] = 0.6
        answers = [await ask(client, f"M{number}") for number in range(20)]
        assert statistics.median(seconds for seconds, _ in answers) < 0.3
        cluster.delays["2"] = 0
        await asyncio.sleep(1)
        cluster.failures["2"] = grpc.StatusCode.UNAVAILABLE
        answers += [await ask(client, "M99")]
        dropped = gateway.measures.shadow_dropped.labels("churn")._value.get()
    assert {answer.status_code for _, answer in answers} == {200}
    records = [entry.record for entry in read(place.folder / "log")]
    shadows = [one for one in records if isinstance(one, Prediction) and one.role == "shadow"]
    assert len([one for one in shadows if one.score is not None]) == 20 - dropped == 8
    assert [one.request_id for one in shadows if one.error] == [answers[-1][1].headers["x-request-id"]]


async def test_a_version_is_followed_only_once_the_server_says_it_is_available(
    opened: Opened, place: Place, cluster: Cluster
):
    cluster.hold("1")
    async with opened(server=cluster.client()) as (gateway, client):
        place.route(live="2", previous="1")

        async def wait(true: Any) -> None:
            async with asyncio.timeout(20):
                while not true():
                    await asyncio.sleep(0.02)

        await wait(lambda: gateway.models.problems)
        assert "churn version 2 is" in gateway.models.problems["churn"]
        assert (await ask(client, "M1"))[1].headers["x-prodecks-version"] == "1"
        await asyncio.get_running_loop().run_in_executor(None, cluster.hold, "1", "2")
        # The table is the same: it is tried again because what it waits for may come.
        await wait(lambda: not gateway.models.problems)
        assert (await ask(client, "M1"))[1].headers["x-prodecks-version"] == "2"


async def test_another_model_under_a_versions_number_is_not_served(opened: Opened, place: Place, cluster: Cluster):
    cluster.shifts["1"] = 0.001
    async with opened(server=cluster.client()) as (gateway, client):
        assert "accepted: the same model under the number" in gateway.models.problems["churn"]
        assert (await ask(client, "M1"))[1].status_code == 404


async def test_a_gateway_that_stops_answers_what_it_asked(opened: Opened, place: Place, cluster: Cluster):
    async with opened(server=cluster.client()) as (_, client):
        cluster.delays["1"] = 0.5
        asked = asyncio.create_task(ask(client, "M1"))
        await asyncio.sleep(0.2)
    assert (await asked)[1].status_code == 200
    assert len(list(read(place.folder / "log"))) == 1


async def test_what_comes_faster_than_a_version_answers_is_refused_as_its_error(
    opened: Opened, place: Place, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lanes, "MOST_WAITING_ROWS", 6)
    async with opened(server=cluster.client()) as (_, client):
        cluster.delays["1"] = 0.5
        answers = await asyncio.gather(*(ask(client, f"M{number}") for number in range(10)))
    assert sorted(answer.status_code for _, answer in answers) == [200] * 6 + [500] * 4
    errors = [entry.record.error for entry in read(place.folder / "log") if entry.record.error]
    assert errors == ["LaneFullError: 6 rows wait already; accepted: at most 6"] * 4


async def test_rows_of_another_batch_are_told_apart_and_large_ones_go_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lanes, "ROWS_A_CALL", 5)
    calls: list[list[int]] = []
    release = threading.Event()

    def score(rows: Any) -> np.ndarray:
        calls.append(list(rows))
        release.wait(20)
        if 13 in rows:
            raise UnavailableError("thirteen")
        return np.array(rows, float)

    lane = lanes.Lane(score, calls=1)
    given = [[1], [2, 3], [4, 5, 6], [7], list(range(20, 28)), [13]]
    tasks = [asyncio.create_task(lane.score(rows)) for rows in given]
    await asyncio.sleep(0.05)
    tasks[3].cancel()  # a client that has gone
    release.set()
    told = await asyncio.gather(*tasks, return_exceptions=True)
    assert calls == [[1], [2, 3, 4, 5, 6], list(range(20, 28)), [13]]
    assert [one.tolist() for one in told[:3]] == given[:3]
    assert isinstance(told[3], asyncio.CancelledError)
    assert told[4].tolist() == given[4]
    assert isinstance(told[5], UnavailableError)


def test_the_embedded_gateway_does_not_load_the_client(place: Place):
    program = f"""
import sys
from pathlib import Path
from adapters.model_store import ModelStore
from serving.versions import Models
models = Models(ModelStore(Path({str(place.folder)!r})))
models.refresh("churn")
assert models.served, models.problems
strangers = {{"grpc", "tensorflow", "tensorflow_serving", "pybreaker", "zenml", "mlflow"}} & set(sys.modules)
assert not strangers, strangers
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
