"""A promoted version answers over the network, every answer is on record, and a killed gateway loses none of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from adapters.prediction_log import Outcome, Prediction, read
from tests.cli.conftest import Place

ROW = {"activity": 0.5, "visits": 3, "plan": "pro", "member_id": "M1"}
PREDICT = "/models/churn/predict"


@dataclass
class Running:
    """A gateway in a process of its own."""

    process: subprocess.Popen[str]
    address: str

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def serving(place: Place, *options: str) -> Iterator[Running]:
    """Start `run.py serve` on a free port and wait until it answers."""
    process = place.start("serve", "--port", "0", *options)
    assert process.stderr is not None
    told = process.stderr.readline()
    found = re.search(r"gateway at (http://\S+?),", told)
    assert found, told + process.stderr.read()
    drain = threading.Thread(target=process.stderr.read, daemon=True)
    drain.start()
    running = Running(process, found[1])
    try:
        until = time.monotonic() + 30
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{running.address}/healthz").status_code == 200:
                    break
            assert time.monotonic() < until
            time.sleep(0.05)
        yield running
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.requirement("R2.3")
def test_a_promoted_version_is_served_and_what_it_answers_is_on_record(promoted: Place):
    before = len(list(read(promoted.var / "serving" / "log")))
    with serving(promoted) as gateway, httpx.Client(base_url=gateway.address) as client:
        told = client.post(PREDICT, json={"rows": [ROW]}, headers={"x-request-id": "one"})
        assert told.status_code == 200, told.text
        assert 0 < told.json()["predictions"][0]["score"] < 1
        instances = client.post("/v1/models/churn:predict", json={"instances": [ROW]}).json()
        assert instances["predictions"][0]["score"] == told.json()["predictions"][0]["score"]
        document = client.get("/openapi.json").json()
        assert set(
            document["paths"][PREDICT]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
        ) == {"rows"}
        labelled = client.post("/outcomes", json={"outcomes": [{"model": "churn", "label": 1, "request_id": "one"}]})
        assert labelled.json()["outcomes"][0]["status"] == "recorded"
    assert gateway.process.returncode == 0
    kept = [entry.record for entry in read(promoted.var / "serving" / "log", after=before)]
    assert [type(one) for one in kept] == [Prediction, Prediction, Outcome]
    assert isinstance(kept[0], Prediction)
    assert (kept[0].request_id, kept[0].version, kept[0].entity) == ("one", "1", "M1")
    assert all(entry.confirmed for entry in read(promoted.var / "serving" / "log", after=before))


def ask_until_dead(gateway: Running, name: str, acknowledged: list[str]) -> None:
    with httpx.Client(base_url=gateway.address) as client, contextlib.suppress(httpx.HTTPError):
        for number in range(1_000_000):
            told = client.post(PREDICT, json={"rows": [ROW]}, headers={"x-request-id": f"{name}-{number}"})
            if told.status_code == 200:
                acknowledged.append(told.headers["x-request-id"])


def kill_under_load(place: Place, times: int) -> None:
    """Kill the gateway again and again while four clients ask; every acknowledged id is found once."""
    before = max((entry.sequence for entry in read(place.var / "serving" / "log")), default=0)
    acknowledged: list[str] = []
    for turn in range(times):
        with serving(place) as gateway:
            askers = [
                threading.Thread(
                    target=ask_until_dead, args=(gateway, f"{os.getpid()}-{times}-{turn}-{one}", acknowledged)
                )
                for one in range(4)
            ]
            for asker in askers:
                asker.start()
            until = time.monotonic() + 30
            while len(acknowledged) <= 20 * (turn + 1):
                assert time.monotonic() < until
                time.sleep(0.01)
            time.sleep(0.02 * (turn % 10))
            gateway.kill()
            for asker in askers:
                asker.join()
    entries = list(read(place.var / "serving" / "log", after=before))
    found = [entry.record.request_id for entry in entries]
    assert len(found) == len(set(found))
    assert set(acknowledged) <= set(found)
    assert len(acknowledged) > 20 * times
    # What was not acknowledged is not there or marked; what is not marked was.
    assert {entry.record.request_id for entry in entries if entry.confirmed} <= set(acknowledged)


def test_a_gateway_killed_under_load_loses_no_acknowledged_prediction(promoted: Place):
    kill_under_load(promoted, 3)


@pytest.mark.slow
def test_a_gateway_killed_fifty_times_loses_no_acknowledged_prediction(promoted: Place):
    kill_under_load(promoted, 50)


def test_two_gateways_on_one_port_or_one_log_are_told_apart(promoted: Place):
    with serving(promoted) as gateway:
        taken = promoted.run("serve", "--port", gateway.address.rsplit(":", 1)[1])
        assert taken.code == 6
        assert "cannot be listened on" in taken.err
        second = promoted.run("serve", "--port", "0")
        assert second.code == 6
        assert "held by another process" in second.err


@pytest.mark.requirement("R5.7")
def test_keys_close_the_gateway_and_others_are_let_in_only_with_them(place: Place):
    refused = place.run("serve", "--host", "0.0.0.0", "--port", "0")
    assert refused.code == 2
    assert "nobody has a key" in refused.err
    made = place.run("keys", "add", "app", "--role", "predict")
    key = made.out.strip()
    path = place.var / "serving" / "keys.json"
    assert path.stat().st_mode & 0o077 == 0
    assert key not in path.read_text()
    assert json.loads(path.read_text())["keys"][0]["client"] == "app"
    with serving(place, "--host", "0.0.0.0") as gateway:
        address = gateway.address.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{address}/models").status_code == 401
        assert httpx.get(f"{address}/models", headers={"x-api-key": key}).status_code == 200
        assert httpx.get(f"{address}/metrics", headers={"x-api-key": key}).status_code == 403
    refusals = [json.loads(line) for line in (place.var / "serving" / "security.log").read_text().splitlines()]
    assert [one["status"] for one in refusals] == [401, 403]
    assert key not in (place.var / "serving" / "security.log").read_text()
    assert "app" in place.call("keys", "list").out
    assert place.call("keys", "remove", "app").code == 0
    assert place.call("keys", "remove", "app").code == 2


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("serve", "--fsync", "sometimes"), "every_group, interval, never"),
        (("serve", "--port", "0", "--rate", "0"), "above 0"),
        (("serve", "--tf-serving", "models"), "HOST:PORT"),
        (("serve", "--tf-serving", "models:8500", "--deadline", "0"), "above 0"),
        (("operate", "--once", "--tf-serving", "models:8500"), "both or neither"),
        (("operate", "--once", "--tf-serving", "models:8500", "--tf-serving-models", "not there"), "a folder"),
        (("keys", "add", "app", "--role", "king"), "predict, label, operate, admin"),
        (("keys", "add", " ", "--role", "predict"), "accepted: a name"),
    ],
)
def test_a_wrong_option_is_an_answer(place: Place, arguments: tuple[str, ...], problem: str):
    answer = place.call(*arguments)
    assert answer.code == 2
    assert problem in answer.err


def test_a_port_that_is_taken_by_somebody_else_is_an_answer(place: Place):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        answer = place.call("serve", "--port", str(other.getsockname()[1]))
    assert answer.code == 6
    assert "accepted: a free --port" in answer.err
