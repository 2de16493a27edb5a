"""Over a real socket a prediction is answered the same whole or in pieces, alone or in a row, and whoever leaves or does not read harms nobody."""

from __future__ import annotations

import contextlib
import functools
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn

from adapters.prediction_log import PredictionLog, read
from serving import dialects
from serving.access import Access, Principal, Role, hashed
from serving.gateway import Gateway, Options
from serving.protocol import GatewayProtocol
from tests.serving.conftest import Place

pytestmark = pytest.mark.requirement("R2.3", "R5.1")
OWN = "/models/churn/predict"
BODY = json.dumps({"rows": [{"x": 1.0, "kind": "a"}]}).encode()
CLIENT = Principal("app", frozenset({Role.PREDICT}))


@dataclass
class Wire:
    """A gateway behind uvicorn, and raw connections to it."""

    gateway: Gateway
    server: uvicorn.Server
    port: int

    @contextlib.contextmanager
    def connection(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as made:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield made

    def settled(self) -> None:
        """Wait until nothing is being answered."""
        until = time.monotonic() + 10
        while self.gateway.measures.in_flight:
            assert time.monotonic() < until
            time.sleep(0.01)


@pytest.fixture
def wire(place: Place) -> Iterator[Wire]:
    access = Access({hashed("key"): CLIENT}, None, None, None, 1, time.monotonic)
    gateway = Gateway(place.store, PredictionLog.open(place.folder / "log"), access, Options(most_bytes=200_000))
    made = functools.partial(GatewayProtocol, gateway=gateway)
    config = uvicorn.Config(gateway, http=made, loop="uvloop", log_level="critical", lifespan="on")  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            until = time.monotonic() + 20
            while not server.started:
                assert time.monotonic() < until
                assert thread.is_alive()
                time.sleep(0.01)
            yield Wire(gateway, server, listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(20)
    assert not thread.is_alive()


def request(path: str = OWN, body: bytes = BODY, key: str = "key", more: str = "", version: str = "1.1") -> bytes:
    head = (
        f"POST {path} HTTP/{version}\r\nHost: gateway\r\nX-API-Key: {key}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    )
    return head.encode() + body


def answer(connection: socket.socket, rest: bytearray | None = None) -> tuple[int, dict[str, str], Any]:
    """The next answer: status, headers, body."""
    got = bytearray() if rest is None else rest
    while (end := got.find(b"\r\n\r\n")) < 0:
        part = connection.recv(65_536)
        assert part, bytes(got)
        got += part
    first, *lines = got[:end].decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    size = int(headers["content-length"])
    while len(got) < end + 4 + size:
        got += connection.recv(65_536)
    body = json.loads(got[end + 4 : end + 4 + size])
    del got[: end + 4 + size]
    return int(first.split(" ")[1]), headers, body


def ask(wire: Wire, **how: Any) -> tuple[int, dict[str, str], Any]:
    with wire.connection() as connection:
        connection.sendall(request(**how))
        return answer(connection)


def test_a_whole_prediction_never_becomes_an_asgi_cycle_and_one_in_pieces_gets_the_same_answer(wire: Wire, monkeypatch):
    cycles: list[str] = []
    plain = Gateway.__call__

    async def counted(self: Gateway, scope: Any, receive: Any, send: Any) -> None:
        cycles.append(scope["path"])
        await plain(self, scope, receive, send)

    monkeypatch.setattr(Gateway, "__call__", counted)
    status, headers, whole = ask(wire)
    assert (status, cycles) == (200, [])
    assert headers["x-request-id"] == whole["predictions"][0]["request_id"]
    assert headers["x-prodecks-version"] == "1"
    assert "date" in headers
    with wire.connection() as connection:
        for part in (request()[:40], request()[40:-20], request()[-20:]):
            connection.sendall(part)
            time.sleep(0.05)
        status, pieces, told = answer(connection)
    assert (status, cycles, set(pieces)) == (200, [OWN], set(headers))
    assert told["predictions"][0]["score"] == whole["predictions"][0]["score"]
    assert len(list(read(wire.gateway.models.store.folder / "log"))) == 2


@pytest.mark.parametrize(
    ("how", "status", "problem"),
    [
        ({"body": b"{"}, 400, "not JSON"),
        ({"body": b'{"rows": [{"x": "1", "kind": "a"}]}'}, 400, "rows[0].x"),
        ({"body": b'{"rows": []}'}, 400, "no rows"),
        ({"path": "/models/nobody/predict"}, 404, "not served"),
        ({"path": f"/models/{'n' * 70}/predict{'e' * 200}"}, 403, "lacks the role"),
        ({"key": "other"}, 401, "unknown key"),
        ({"more": "Content-Type: text/csv\r\n"}, 415, "application/json"),
        ({"more": "X-Request-Id: a b\r\n"}, 400, "request id"),
        ({"body": b" " * 200_001}, 413, "accepted: at most 200,000"),
    ],
)
def test_what_is_refused_is_refused_on_both_ways_alike(wire: Wire, how: dict[str, Any], status: int, problem: str):
    told, _, body = ask(wire, **how)
    assert (told, problem in body["error"]) == (status, True), body
    with wire.connection() as connection:
        sent = request(**how)
        connection.sendall(sent[:30])
        time.sleep(0.05)
        connection.sendall(sent[30:-1])
        time.sleep(0.05)
        with contextlib.suppress(ConnectionError):  # refused before it was whole
            connection.sendall(sent[-1:])
        assert answer(connection)[::2] == (status, body)
    wire.settled()


def test_pipelined_requests_are_answered_in_their_order(wire: Wire):
    with wire.connection() as connection:
        ids = [f"r{number}" for number in range(50)]
        sent = [request(more=f"X-Request-Id: {one}\r\n") for one in ids]
        sent[20] = request(body=b"{", more="X-Request-Id: r20\r\n")
        connection.sendall(b"".join(sent))
        rest = bytearray()
        told = [answer(connection, rest) for _ in ids]
    assert [status for status, _, _ in told] == [400 if one == "r20" else 200 for one in ids]
    assert [headers.get("x-request-id", "r20") for _, headers, _ in told] == ids


def test_a_client_that_does_not_read_is_not_answered_into_memory_and_gets_all_in_the_end(wire: Wire):
    count = 3_000
    with wire.connection() as connection:
        sender = threading.Thread(
            target=lambda: [connection.sendall(request(more=f"X-Request-Id: r{n}\r\n")) for n in range(count)]
        )
        sender.start()
        time.sleep(0.5)
        assert ask(wire)[0] == 200  # nobody else waits for it
        rest = bytearray()
        told = [answer(connection, rest)[1]["x-request-id"] for _ in range(count)]
        sender.join()
    assert told == [f"r{n}" for n in range(count)]


@pytest.mark.parametrize("how", [{"more": "Connection: close\r\n"}, {"version": "1.0"}])
def test_a_connection_that_is_not_to_be_kept_is_closed_after_its_answer(wire: Wire, how: dict[str, str]):
    with wire.connection() as connection:
        connection.sendall(request(**how))
        status, headers, _ = answer(connection)
        assert (status, headers["connection"], connection.recv(1)) == (200, "close", b"")


def test_a_client_that_waits_to_be_told_to_go_on_is_told(wire: Wire):
    with wire.connection() as connection:
        sent = request(more="Expect: 100-continue\r\n")
        connection.sendall(sent[: -len(BODY)])
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        assert answer(connection)[0] == 200


def test_who_leaves_before_the_answer_is_on_record_all_the_same(wire: Wire):
    for number in range(20):
        with wire.connection() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset, not closed
            connection.sendall(request(more=f"X-Request-Id: gone{number}\r\n"))
    assert ask(wire, more="X-Request-Id: here\r\n")[0] == 200
    wire.settled()
    kept = {entry.record.request_id for entry in read(wire.gateway.models.store.folder / "log")}
    assert "here" in kept
    assert kept <= {"here", *(f"gone{number}" for number in range(20))}


def test_a_failure_inside_tells_nothing_of_it_and_the_next_request_is_answered(wire: Wire, monkeypatch):
    def broken(*_: Any) -> Any:
        raise KeyError("secret inside")

    for place in ("read", "encoded"):  # before the row is queued, and when its answer is drawn
        with monkeypatch.context() as patch:
            patch.setattr(dialects, place, broken)
            status, _, body = ask(wire)
            assert (status, "secret" in json.dumps(body)) == (500, False)
        assert ask(wire)[0] == 200
    wire.settled()


def test_a_gateway_of_twins_loads_no_library_that_it_does_without():
    asked = (
        "import sys, serving.gateway, serving.protocol; print(*sorted(name for name in sys.modules if '.' not in name))"
    )
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=120)
    heavy = {
        "grpc",
        "matplotlib",
        "mlflow",
        "pandas",
        "polars",
        "pyarrow",
        "scipy",
        "sqlalchemy",
        "tensorflow",
        "zenml",
    }
    assert heavy & set(told.stdout.split()) == set()
