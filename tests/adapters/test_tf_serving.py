"""TensorFlow Serving scores as the SavedModel does; deadlines, retries, circuit breaker, labels, restarts (R2.3, R4.1)."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pandas as pd
import pytest

from adapters import tf_serving
from adapters.fitting import export, fit
from adapters.saved_model import SavedModel
from adapters.tf_serving import ModelServer, RemoteVersion, export_version
from lifecycle.errors import ConfigError, UnavailableError
from lifecycle.model_server import ServedModel, next_config
from lifecycle.traffic import Routing
from tests.adapters.small_training import found, rows, spec
from tests.adapters.test_saved_model import ODD
from tests.tf_serving import Answer, Refused, TensorFlowServing, tensorflow_serving

pytestmark = pytest.mark.requirement("R2.3", "R4.1")

COLUMNS = {"x": np.array([0.5, np.nan])}


def columns(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """As the gateway's rows make them: a missing text is empty."""
    return {"x": frame["x"].to_numpy(np.float64), "kind": frame["kind"].where(frame["kind"].notna(), "").to_numpy()}


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def hold(server: TensorFlowServing, base: Path, *versions: str, model: str = "m") -> ModelServer:
    """Let a server hold versions of one model, and wait for them."""
    client = ModelServer(server.address)
    for version in versions:
        (base / model / version).mkdir(parents=True, exist_ok=True)
    client.configure(server.address, [ServedModel(model, versions, {})], base)
    until(lambda: all(server.state(model, int(one)) == "AVAILABLE" for one in versions))
    return client


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "saved_model"
    export(fit(rows(), np.arange(480), spec(), found(), 1), folder)
    return folder


@pytest.mark.parametrize("frame", [ODD, rows()], ids=["odd values", "training rows"])
def test_a_real_saved_model_scores_over_the_network_as_in_this_process(
    saved: Path, frame: pd.DataFrame, tmp_path: Path
):
    assert export_version(saved, tmp_path, "m", "7")
    with tensorflow_serving() as server:
        version = hold(server, tmp_path, "7").version("m", "7")
        told = version.score(columns(frame))
    assert np.isfinite(told).all()
    assert told == pytest.approx(SavedModel(saved).predict(frame)["score"].to_numpy(), abs=1e-12)


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Callable[[Answer], tuple[TensorFlowServing, RemoteVersion]]]:
    """A version that answers by a function, and its server."""
    answers: list[Answer] = []
    with tensorflow_serving(lambda _: lambda inputs: answers[0](inputs)) as server:

        def made(answer: Answer) -> tuple[TensorFlowServing, RemoteVersion]:
            answers[:] = [answer]
            return server, hold(server, tmp_path, "1").version("m", "1")

        yield made


def half(inputs) -> dict[str, np.ndarray]:
    return {"score": np.full(len(inputs["x"]), 0.5), "decision": np.ones(len(inputs["x"]), np.int64)}


def failing(*codes: grpc.StatusCode) -> Answer:
    """Fails with each code in turn, then answers."""
    left = list(codes)

    def answer(inputs):
        if left:
            raise Refused(left.pop(0))
        return half(inputs)

    return answer


def test_a_call_the_server_did_not_take_is_tried_again(answering):
    server, version = answering(failing(grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE))
    assert version.score(COLUMNS).tolist() == [0.5, 0.5]
    assert server.asked == [("m", "1")] * 3


@pytest.mark.parametrize("code", ["INTERNAL", "UNKNOWN", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "ABORTED"])
def test_no_other_code_is_tried_again(answering, code: str):
    server, version = answering(failing(grpc.StatusCode[code]))
    with pytest.raises(UnavailableError, match=rf"m version 1: {code}"):
        version.score(COLUMNS)
    assert len(server.asked) == 1
    assert version.score(COLUMNS).tolist() == [0.5, 0.5]


def test_an_answer_that_does_not_come_in_time_is_not_waited_for(answering):
    def slowly(inputs):
        time.sleep(1.5)
        return half(inputs)

    server, _ = answering(slowly)
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="DEADLINE_EXCEEDED"):
        ModelServer(server.address, deadline=0.1).version("m", "1").score(COLUMNS)
    assert time.monotonic() - started < 1.2


def test_a_version_that_fails_again_and_again_is_not_asked_for_a_while(answering, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tf_serving, "OPEN_S", 0.3)
    overwhelmed = grpc.StatusCode.RESOURCE_EXHAUSTED
    server, version = answering(failing(*[overwhelmed] * (tf_serving.FAILURES_TO_OPEN + 1)))
    for _ in range(tf_serving.FAILURES_TO_OPEN + 3):
        with pytest.raises(UnavailableError):
            version.score(COLUMNS)
    assert len(server.asked) == tf_serving.FAILURES_TO_OPEN
    time.sleep(0.35)
    with pytest.raises(UnavailableError, match="RESOURCE_EXHAUSTED"):  # one trial
        version.score(COLUMNS)
    with pytest.raises(UnavailableError, match="not asked"):
        version.score(COLUMNS)
    assert len(server.asked) == tf_serving.FAILURES_TO_OPEN + 1
    time.sleep(0.35)
    assert version.score(COLUMNS).tolist() == [0.5, 0.5]
    assert version.score(COLUMNS).tolist() == [0.5, 0.5]


def test_a_server_that_says_what_is_wrong_with_a_request_is_asked_again(answering):
    server, version = answering(failing(*[grpc.StatusCode.INVALID_ARGUMENT] * (tf_serving.FAILURES_TO_OPEN + 2)))
    for _ in range(tf_serving.FAILURES_TO_OPEN + 2):
        with pytest.raises(UnavailableError, match="INVALID_ARGUMENT"):
            version.score(COLUMNS)
    assert len(server.asked) == tf_serving.FAILURES_TO_OPEN + 2
    assert version.score(COLUMNS).tolist() == [0.5, 0.5]


def test_several_threads_ask_at_once(answering):
    together = threading.Barrier(4, timeout=20)

    def meeting(inputs):
        together.wait()  # answers when four are asked at the same time
        return half(inputs)

    server, _ = answering(meeting)
    version = ModelServer(server.address, deadline=20).version("m", "1")
    threads = [threading.Thread(target=version.score, args=(COLUMNS,)) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(20)
    assert not together.broken


@pytest.mark.parametrize(
    ("score", "problem"),
    [
        (np.array([0.5]), "2 rows with 1 scores"),
        (np.array([1, 0]), "data type 9; accepted: DT_FLOAT, DT_DOUBLE"),
    ],
)
def test_an_answer_that_is_none_is_the_versions_error(answering, score: np.ndarray, problem: str):
    _, version = answering(lambda inputs: {"score": score})
    with pytest.raises(UnavailableError, match=problem):
        version.score(COLUMNS)


def test_scores_of_single_precision_are_read_too(answering):
    _, version = answering(lambda inputs: {"score": np.array([[0.25], [0.75]], np.float32)})
    assert version.score(COLUMNS).tolist() == [0.25, 0.75]


def test_only_an_available_version_can_be_had(tmp_path: Path):
    with tensorflow_serving(lambda folder: half) as server:
        client = hold(server, tmp_path, "1")
        with pytest.raises(UnavailableError, match="m version 2 is not known there"):
            client.version("m", "2")
        with pytest.raises(UnavailableError, match="other version 1 is not known there"):
            client.version("other", "1")
        server.loads.clear()
        (tmp_path / "m" / "2").mkdir()
        client.configure(server.address, [ServedModel("m", ("1", "2"), {})], tmp_path)
        until(lambda: server.state("m", 2) == "LOADING")
        with pytest.raises(UnavailableError, match=r"m version 2 is LOADING .*accepted: AVAILABLE"):
            client.version("m", "2")
        server.loads.set()
        until(lambda: server.state("m", 2) == "AVAILABLE")
        assert client.version("m", "2").score(COLUMNS).tolist() == [0.5, 0.5]


def test_why_a_version_could_not_be_loaded_is_told(tmp_path: Path):
    def load(folder: Path) -> Answer:
        if folder.name == "2":
            raise ValueError("no saved_model.pb")
        return half

    with tensorflow_serving(load) as server:
        client = hold(server, tmp_path, "1")
        (tmp_path / "m" / "2").mkdir()
        client.configure(server.address, [ServedModel("m", ("1", "2"), {})], tmp_path)
        until(lambda: server.state("m", 2) == "END")
        with pytest.raises(UnavailableError, match=r"m version 2 is END \(no saved_model.pb\)"):
            client.version("m", "2")


def test_labels_follow_the_routing_table_also_after_a_restart(tmp_path: Path):
    for version in ("1", "2"):
        (tmp_path / "m" / version).mkdir(parents=True)
    with tensorflow_serving(lambda folder: half) as server:
        client = ModelServer(server.address)

        def look(routing: Routing) -> bool:
            config = next_config([routing], {"m": client.seen(server.address, "m")})
            if config is not None:
                client.configure(server.address, config, tmp_path)
            return config is not None

        def settle(routing: Routing) -> None:
            # Looked at again once it answers: its label moves only then.
            until(
                lambda: (
                    not look(routing) and server.state("m", int(routing.live or 0)) == "AVAILABLE" and not look(routing)
                )
            )

        settle(Routing("m", 1, "1"))
        assert server.label("m", "live") == 1
        server.loads.clear()
        promoted = Routing("m", 2, "2", previous="1")
        look(promoted)
        until(lambda: server.state("m", 2) == "LOADING")
        assert not look(promoted)
        assert server.label("m", "live") == 1  # until the new one answers
        server.loads.set()
        settle(promoted)
        assert (server.label("m", "live"), server.label("m", "previous")) == (2, 1)
        server.restart()
        assert server.label("m", "live") is None
        until(lambda: knows_nothing(client))
        settle(promoted)
        assert (server.label("m", "live"), server.label("m", "previous")) == (2, 1)
        refused = [ServedModel("m", ("1", "2", "3"), {"live": "3"})]
        with pytest.raises(UnavailableError, match="FAILED_PRECONDITION: Request to assign label to version 3"):
            client.configure(server.address, refused, tmp_path)
        assert server.label("m", "live") == 2
        settle(Routing("m", 3, "2"))
        assert (server.state("m", 1), server.label("m", "previous")) == ("END", None)


def test_a_server_that_was_away_answers_again_soon(tmp_path: Path):
    with tensorflow_serving(lambda folder: half) as server:
        client = hold(server, tmp_path, "1")
        version = client.version("m", "1")
        assert version.score(COLUMNS).tolist() == [0.5, 0.5]
        server.close()
        with pytest.raises(UnavailableError):
            version.score(COLUMNS)
        with pytest.raises(UnavailableError, match="UNAVAILABLE"):
            client.seen(server.address, "m")
        server.open()
        until(lambda: knows_nothing(client))
        hold(server, tmp_path, "1")
        until(lambda: scores(version))


def knows_nothing(client: ModelServer) -> bool:
    try:
        return client.seen(client.address, "m").states == {}
    except UnavailableError:
        return False


def scores(version: RemoteVersion) -> bool:
    try:
        return version.score(COLUMNS).tolist() == [0.5, 0.5]
    except UnavailableError:
        return False


def test_a_version_appears_whole_where_the_server_looks(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[list[str]] = []
    rename = Path.rename
    monkeypatch.setattr(
        Path,
        "rename",
        lambda self, to: (seen.append([one.name for one in Path(to).parent.iterdir()]), rename(self, to)),
    )
    assert export_version(saved, tmp_path, "m", "1")
    assert seen == [[]]  # nothing lay there until the folder was whole
    assert {one.name for one in saved.rglob("*")} == {one.name for one in (tmp_path / "m" / "1").rglob("*")}
    assert not export_version(saved, tmp_path, "m", "1")
    assert list((tmp_path / ".staging").iterdir()) == []
    with pytest.raises(UnavailableError, match="m version 2 cannot be put below"):
        export_version(saved / "not there", tmp_path, "m", "2")
    assert not (tmp_path / "m" / "2").exists()


@pytest.mark.parametrize(
    "address", ["", "localhost", "localhost:", ":8500", "localhost:http", "localhost:0", "h:70000"]
)
def test_an_address_that_is_none_is_an_answer(address: str):
    with pytest.raises(ConfigError, match="accepted: HOST:PORT"):
        ModelServer(address)


@pytest.mark.parametrize("deadline", [0, -1, float("nan"), 61])
def test_a_deadline_that_is_none_is_an_answer(deadline: float):
    with pytest.raises(ConfigError, match="accepted: above 0"):
        ModelServer("localhost:1", deadline)


def test_a_name_stands_for_all_of_its_servers(monkeypatch: pytest.MonkeyPatch):
    def resolved(*addresses: tuple[socket.AddressFamily, str]):
        return lambda *_, **__: [(family, socket.SOCK_STREAM, 6, "", (one, 80)) for family, one in addresses]

    server = ModelServer("models:80")
    two = [(socket.AF_INET6, "fd00::1"), (socket.AF_INET, "10.0.0.2"), (socket.AF_INET, "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", resolved(*two))
    assert server.replicas() == ["10.0.0.1:80", "10.0.0.2:80"]
    monkeypatch.setattr(socket, "getaddrinfo", resolved(two[0]))
    assert server.replicas() == ["[fd00::1]:80"]
    monkeypatch.undo()
    with pytest.raises(UnavailableError, match=r"name\.invalid:80"):
        ModelServer("name.invalid:80").replicas()


def alone(program: str) -> list[object]:
    """What a Python of its own prints as its last line."""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    told: list[object] = json.loads(ended.stdout.splitlines()[-1])
    return told


def test_the_client_is_small_without_tensorflow():
    program = """
import json, sys
import psutil
from adapters.tf_serving import ModelServer
ModelServer("127.0.0.1:1")
print(json.dumps([psutil.Process().memory_info().rss, "tensorflow" in sys.modules]))
"""
    memory, imported = alone(program)
    assert not imported
    assert memory < 150e6


@pytest.mark.slow
def test_the_client_leaves_tensorflow_to_whoever_wants_it():
    program = """
from adapters.tf_serving import ModelServer
ModelServer("127.0.0.1:1")
import tensorflow as tf
print([tf.reduce_sum(tf.constant([1.0, 2.0])).numpy().item()])
"""
    assert alone(program) == [3.0]


def test_without_its_library_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis.predict_pb2", None)
    with pytest.raises(ConfigError, match="accepted: tensorflow-serving-api installed"):
        ModelServer("localhost:1")
