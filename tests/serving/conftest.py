"""A store with two small versions of one model, and gateways over it that are called without a network."""

from __future__ import annotations

import functools
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest
import uvicorn
from onnx import TensorProto, helper, numpy_helper

from adapters.model_store import TWIN, ModelStore, Table, digests
from adapters.prediction_log import PredictionLog
from lifecycle.manifest import InputFeature, Manifest
from lifecycle.traffic import Routing
from serving.access import Access, Principal, Role
from serving.gateway import Gateway, Options, running
from serving.protocol import GatewayProtocol

FEATURES = (
    InputFeature("x", "numeric", -10.0, 10.0, (), "a number"),
    InputFeature("kind", "categorical", None, None, ("a", "b"), "a kind"),
)
EVERYBODY = Principal("local", frozenset({Role.PREDICT, Role.LABEL, Role.OPERATE}))


def twin(shift: float = 0.0) -> bytes:
    """sigmoid(x + shift + (kind == "a")), a missing x counts as 0: quick to make and easy to check by hand."""
    nodes = [
        helper.make_node("IsNaN", ["x"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "x"], ["known"]),
        helper.make_node(
            "CategoryMapper",
            ["kind"],
            ["code"],
            domain="ai.onnx.ml",
            cats_strings=["a"],
            cats_int64s=[1],
            default_int64=0,
        ),
        helper.make_node("Cast", ["code"], ["worth"], to=TensorProto.DOUBLE),
        helper.make_node("Add", ["known", "worth"], ["sum"]),
        helper.make_node("Add", ["sum", "shift"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["score"]),
    ]
    import numpy as np

    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None]),
            helper.make_tensor_value_info("kind", TensorProto.STRING, [None]),
        ],
        [helper.make_tensor_value_info("score", TensorProto.DOUBLE, [None])],
        [numpy_helper.from_array(np.array(0.0), "zero"), numpy_helper.from_array(np.array(shift), "shift")],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 2)]
    model = helper.make_model(graph, opset_imports=imports)
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model.SerializeToString()


def manifest(version: str, content: bytes, **other: Any) -> Manifest:
    values = {
        "model": "churn",
        "version": version,
        "content": f"content{version}",
        "backend": "onnx",
        "threshold": 0.5,
        "features": FEATURES,
        "entity_key": "member",
        "description": "Probability that a member leaves.",
        "meaning": "leaves",
        "late_after": 3600.0,
        "files": digests({TWIN: content}),
    }
    return Manifest(**{**values, **other})


@dataclass
class Place:
    """A serving folder."""

    folder: Path
    digests: dict[str, str] = field(default_factory=dict)
    generation: int = 0

    @property
    def store(self) -> ModelStore:
        return ModelStore(self.folder)

    def add(self, version: str, shift: float = 0.0, content: bytes | None = None) -> None:
        content = twin(shift) if content is None else content
        self.digests[version] = self.store.place(manifest(version, content), {TWIN: content})

    def route(self, **routing: Any) -> Routing:
        self.generation += 1
        made = Routing(**{"model": "churn", "generation": self.generation, **routing})
        self.store.write_table(Table(made, {version: self.digests[version] for version in made.warm}))
        return made


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Version 1 live, version 2 in the store."""
    made = Place(tmp_path / "serving")
    made.add("1")
    made.add("2", shift=2.0)
    made.route(live="1")
    return made


Opened = Callable[..., AbstractAsyncContextManager[tuple[Gateway, httpx.AsyncClient]]]


@pytest.fixture
def opened(place: Place) -> Opened:
    """A gateway that is open to everybody, and a client of it."""

    @asynccontextmanager
    async def made(access: Access | None = None, **options: Any) -> AsyncIterator[tuple[Gateway, httpx.AsyncClient]]:
        chosen = access or Access({}, None, EVERYBODY, None, 1, time.monotonic)
        gateway = Gateway(place.store, PredictionLog.open(place.folder / "log"), chosen, Options(**options))
        async with (
            running(gateway),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(gateway, raise_app_exceptions=False),
                base_url="http://gateway",
                timeout=30,
            ) as client,
        ):
            yield gateway, client

    return made


@contextmanager
def listening(
    place: Place, access: Access | None = None, connection: type[GatewayProtocol] = GatewayProtocol
) -> Iterator[tuple[str, int]]:
    """A gateway behind a real server on a free port of the loopback, in a thread."""
    chosen = access or Access({}, None, EVERYBODY, None, 1, time.monotonic)
    gateway = Gateway(place.store, PredictionLog.open(place.folder / "log"), chosen, Options())
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        http: Any = functools.partial(connection, gateway=gateway)
        server = uvicorn.Server(uvicorn.Config(gateway, http=http, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            until = time.monotonic() + 30
            while not server.started:
                assert time.monotonic() < until
                assert thread.is_alive()
                time.sleep(0.01)
            yield listener.getsockname()
        finally:
            server.should_exit = True
            thread.join(30)
