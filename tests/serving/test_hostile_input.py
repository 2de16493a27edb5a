"""Whatever comes in, the gateway answers with a 4xx that names it, touches no file it should not, and goes on for others."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.prediction_log import Prediction
from adapters.prediction_log import read as read_log
from lifecycle.errors import ConfigError
from lifecycle.manifest import MODEL_NAME, VERSION_NAME
from serving import gateway as gateway_module
from serving.connections import MOST_HEAD_BYTES
from serving.dialects import read, target
from serving.protocol import GatewayProtocol
from serving.rows import LONGEST_ENTITY, MOST_PROBLEMS, MOST_ROWS, InvalidRequest, RowReader
from tests.serving.conftest import Opened, Place, listening

pytestmark = [pytest.mark.anyio, pytest.mark.requirement("R2.3")]
OWN, TFS, V2 = "/models/churn/predict", "/v1/models/churn:predict", "/v2/models/churn/infer"
ROW = {"x": 1.0, "kind": "a"}
JSON = {"content-type": "application/json"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def predictions(place: Place) -> list[Prediction]:
    return [entry.record for entry in read_log(place.folder / "log") if isinstance(entry.record, Prediction)]


def tensor(name: str, datatype: str, data: list[Any], shape: Any = None) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)] if shape is None else shape, "data": data}


KIND = tensor("kind", "BYTES", ["a"])
X = tensor("x", "FP64", [1.0])


# What each dialect refuses, and how.


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"instances": [ROW], "inputs": {}}, "instances or inputs"),
        ({}, "instances or inputs"),
        ({"instances": [ROW], "signature_name": "train"}, "accepted: serving_default"),
        ({"instances": [ROW], "signature_name": 7}, "accepted: serving_default"),
        ({"instances": [ROW], "more": 1}, "nothing else"),
        ({"instances": {}}, "instances: is an object"),
        ({"instances": []}, "no rows"),
        ({"instances": [1.0]}, "instances[0]: is a number; accepted: an object with every feature"),
        ({"instances": [{"x": [1.0, 2.0], "kind": "a"}]}, "instances[0].x: is a list"),
        ({"instances": [{"x": 1.0, "kind": {"b64": "%%"}}]}, "instances[0]: b64 is no base64"),
        ({"instances": [{"x": 1.0, "kind": {"b64": "/w=="}}]}, "UTF-8"),
        ({"instances": [{"x": {"b64": "MQ=="}, "kind": "a"}]}, "instances[0].x: is a text"),
        ({"inputs": {"x": [1.0, 2.0], "kind": ["a"]}}, "lists of 1 to 2 values"),
        ({"inputs": {"x": 1.0, "kind": "a"}}, "a list for every feature"),
        ({"inputs": {"x": [1.0]}}, "inputs[0].kind: is missing"),
        ({"inputs": [1.0]}, "a list for every feature"),
        ({"inputs": {}}, "no rows"),
    ],
)
async def test_tensorflow_servings_dialect_names_what_is_wrong(opened: Opened, place: Place, body: Any, problem: str):
    async with opened() as (_, client):
        told = await client.post(TFS, json=body)
    assert told.status_code == 400
    assert problem in told.json()["error"]
    assert predictions(place) == []


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({}, "inputs: accepted: a list of tensors"),
        ({"inputs": []}, "no rows"),
        ({"inputs": [X, KIND], "more": 1}, "nothing else"),
        ({"inputs": [X, KIND], "id": 7}, "id: is a number"),
        ({"inputs": [X, KIND], "parameters": []}, "parameters: accepted: an object"),
        ({"inputs": [X, KIND], "outputs": [{"name": "logit"}]}, "one of score, decision"),
        ({"inputs": [X, KIND], "outputs": ["score"]}, "one of score, decision"),
        ({"inputs": [X, KIND], "outputs": 0}, "one of score, decision"),
        ({"inputs": [X, 7]}, "inputs[1]: accepted: an object with name"),
        ({"inputs": [X, X]}, "inputs[1]: an input that stands twice"),
        ({"inputs": [X, {**KIND, "more": 1}]}, "nothing else"),
        ({"inputs": [X, {**KIND, "parameters": 1}]}, "inputs[1].parameters"),
        ({"inputs": [X, {"name": "kind", "datatype": "BYTES", "data": ["a"]}]}, "inputs[1]: accepted"),
        ({"inputs": [X, {**KIND, "data": "a"}]}, "a list as data"),
        ({"inputs": [X, {**KIND, "datatype": "STRING"}]}, "datatype: accepted: FP16"),
        ({"inputs": [X, {**KIND, "datatype": ["BYTES"]}]}, "datatype: accepted: FP16"),
        ({"inputs": [{**X, "shape": [2]}, KIND]}, "inputs[0].shape: is not that of its 1 values"),
        ({"inputs": [{**X, "shape": [True]}, KIND]}, "inputs[0].shape"),
        ({"inputs": [{**X, "shape": [1.0]}, KIND]}, "inputs[0].shape"),
        ({"inputs": [{**X, "shape": []}, KIND]}, "inputs[0].shape"),
        ({"inputs": [{**X, "shape": [1, 1, 1]}, KIND]}, "inputs[0].shape"),
        ({"inputs": [{**X, "data": [[[1.0]]]}, KIND]}, "inputs[0].data[0]: is a list that is no FP64"),
        ({"inputs": [tensor("x", "INT64", [1.5]), KIND]}, "inputs[0].data[0]: is a number that is no INT64"),
        ({"inputs": [tensor("x", "INT8", [128]), KIND]}, "no INT8"),
        ({"inputs": [tensor("x", "UINT64", [-1]), KIND]}, "no UINT64"),
        ({"inputs": [tensor("x", "FP16", [7e4]), KIND]}, "no FP16"),
        ({"inputs": [tensor("x", "FP64", [True]), KIND]}, "is true that is no FP64"),
        ({"inputs": [tensor("x", "BYTES", ["1"]), KIND]}, "inputs[0].x: is a text; accepted: a number or null"),
        ({"inputs": [X, tensor("kind", "FP32", [1])]}, "inputs[0].kind: is a number; accepted: a text or null"),
        ({"inputs": [tensor("x", "FP64", [1.0, 2.0]), KIND]}, "lists of 1 to 2 values"),
        ({"inputs": [7] * 1_000_000}, "inputs[19]: accepted"),
    ],
)
async def test_open_inference_names_what_is_wrong(opened: Opened, place: Place, body: Any, problem: str):
    async with opened() as (_, client):
        told = await client.post(V2, json=body)
    assert told.status_code == 400
    assert problem in told.json()["error"]
    assert len(told.json()["problems"]) <= MOST_PROBLEMS
    assert predictions(place) == []


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT64"])
async def test_open_inference_takes_numbers_of_each_type_and_answers_the_outputs_that_are_asked_for(
    opened: Opened, datatype: str
):
    body = {
        "id": "mine",
        "parameters": {"anything": 1},
        "inputs": [tensor("x", datatype, [[3], [None]], [2, 1]), tensor("kind", "BYTES", ["b", None])],
        "outputs": [{"name": "decision"}, {"name": "score", "parameters": {}}, {"name": "decision"}],
    }
    async with opened() as (_, client):
        told = (await client.post(V2, json=body)).json()
        only = (await client.post(V2, json={**body, "outputs": [{"name": "score"}]})).json()
    assert told["outputs"] == [
        {"name": "decision", "datatype": "INT64", "shape": [2], "data": [1, 1]},
        {"name": "score", "datatype": "FP64", "shape": [2], "data": [pytest.approx(1 / (1 + math.exp(-3))), 0.5]},
    ]
    assert (told["model_name"], told["model_version"], told["id"]) == ("churn", "1", "mine")
    assert [one["name"] for one in only["outputs"]] == ["score"]


async def test_text_that_comes_as_base64_is_the_text(opened: Opened, place: Place):
    encoded = {"b64": "S8O2bG4="}
    async with opened() as (_, client):
        rows = await client.post(TFS, json={"instances": [{"x": 1, "kind": encoded}]})
        columns = await client.post(TFS, json={"inputs": {"x": [1], "kind": [[encoded]]}})
    assert rows.json()["predictions"][0]["score"] == columns.json()["outputs"]["score"][0]
    assert [one.features["kind"] for one in predictions(place)] == ["Köln", "Köln"]


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/v1/models/churn", 200, [("1", "AVAILABLE"), ("2", "AVAILABLE")]),
        ("/v1/models/churn/versions/2", 200, [("2", "AVAILABLE")]),
        ("/v1/models/churn/labels/stable", 200, [("1", "AVAILABLE")]),
        ("/v1/models/churn/labels/canary", 200, [("2", "AVAILABLE")]),
        ("/v1/models/churn/labels/shadow", 404, "nobody's right now; accepted: live, stable, candidate"),
        ("/v1/models/churn/labels/nonsense", 404, "nobody's right now"),
        ("/v1/models/churn/versions/3", 404, "not loaded; accepted: 1, 2"),
        ("/v1/models/nobody", 404, "not served; accepted: churn"),
        ("/v1/models/churn/versions/2/metadata", 200, "2"),
        ("/v1/models/churn/labels/live/metadata", 200, "1"),
        ("/v1/models/churn/versions/9/metadata", 404, "not loaded"),
        ("/v2/models/churn/versions/2", 200, None),
        ("/v2/models/churn/versions/2/ready", 200, None),
        ("/v2/models/churn/versions/9/ready", 404, "not loaded"),
        ("/v2/models/churn/versions/9", 404, "not loaded"),
        ("/v2/models/nobody/ready", 404, "not served"),
    ],
)
async def test_a_version_or_a_label_is_asked_about(opened: Opened, place: Place, path: str, status: int, told: Any):
    place.route(live="1", candidate="2", share=0.5)
    async with opened() as (_, client):
        answer = await client.get(path)
    assert answer.status_code == status
    body = answer.json()
    if status == 404:
        assert told in body["error"]
    elif path.endswith("/metadata"):
        assert body["model_spec"] == {"name": "churn", "signature_name": "", "version": told}
        inputs = body["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
        assert {name: one["dtype"] for name, one in inputs.items()} == {"x": "DT_DOUBLE", "kind": "DT_STRING"}
    elif "/v1/" in path:
        assert [(one["version"], one["state"]) for one in body["model_version_status"]] == told
    else:
        assert body["name"] == "churn"


# Values, sizes, JSON.


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 400, "-" + "9" * 5_000])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (OWN, '{"rows": [{"x": %s, "kind": "a"}]}'),
        (TFS, '{"instances": [{"x": %s, "kind": "a"}]}'),
        (TFS, '{"inputs": {"x": [%s], "kind": ["a"]}}'),
        (V2, '{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [%s]}, ' + json.dumps(KIND) + "]}"),
    ],
)
async def test_a_number_that_is_none_or_beyond_64_bits_is_refused(
    opened: Opened, place: Place, path: str, body: str, number: str
):
    async with opened() as (_, client):
        told = await client.post(path, content=body % number, headers=JSON)
        assert told.status_code == 400
        assert "99999" not in told.text
    assert predictions(place) == []


async def test_the_largest_numbers_and_longest_names_are_answered(opened: Opened, place: Place):
    rows = [
        {"x": 1.7976931348623157e308, "kind": "k" * 10_000, "member": "m" * LONGEST_ENTITY},
        {"x": -5e-324, "kind": "\0\u202e🛫", "member": "\0"},
        {"x": 2**63, "kind": "", "member": None},
    ]
    async with opened() as (_, client):
        assert (await client.post(OWN, json={"rows": rows})).status_code == 200
        longer = [{**ROW, "member": "m" * (LONGEST_ENTITY + 1)}]
        told = await client.post(OWN, json={"rows": longer})
        assert told.status_code == 400
        assert "rows[0].member: a text of 257 characters" in told.json()["error"]
    assert [one.features["kind"] for one in predictions(place)] == [row["kind"] for row in rows]


@pytest.mark.parametrize(
    "body",
    [
        b'{"rows": [{"x": 9.0, "kind": "b", "x": 1.0, "kind": "a"}]}',
        b'{"rows": [], "rows": [{"x": 1.0, "kind": "a"}]}',
    ],
)
async def test_of_a_key_that_stands_twice_the_last_counts_for_the_score_and_the_record_alike(
    opened: Opened, place: Place, body: bytes
):
    async with opened() as (_, client):
        told = await client.post(OWN, content=body, headers=JSON)
        alone = await client.post(OWN, json={"rows": [ROW]})
    assert told.json()["predictions"][0]["score"] == alone.json()["predictions"][0]["score"]
    assert [one.features for one in predictions(place)] == [ROW, ROW]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (OWN, {"rows": [ROW] * 100_000}),
        (OWN, {"rows": [7] * 100_000}),
        (TFS, {"instances": [ROW] * 100_000}),
        (TFS, {"inputs": {"x": [1.0] * 100_000, "kind": ["a"] * 100_000}}),
        (V2, {"inputs": [tensor("x", "FP64", [1.0] * 100_000), tensor("kind", "BYTES", ["a"] * 100_000)]}),
        ("/outcomes", {"outcomes": [{"model": "churn", "label": 1, "request_id": "r"}] * 100_000}),
    ],
)
async def test_a_hundred_thousand_rows_are_too_many(opened: Opened, place: Place, path: str, body: Any):
    async with opened() as (_, client):
        told = await client.post(path, json=body)
    assert told.status_code == 413
    assert f"at most {MOST_ROWS:,}" in told.json()["error"]
    assert predictions(place) == []


async def test_a_row_of_a_hundred_thousand_strange_keys_is_not_compared_with_each_feature(opened: Opened):
    row = {f"{number}{'k' * 30}": 1 for number in range(100_000)}
    async with opened() as (_, client):
        told = await asyncio.wait_for(client.post(OWN, json={"rows": [row]}), 20)
    assert told.status_code == 400
    assert len(told.json()["problems"]) <= MOST_PROBLEMS + 3


@pytest.mark.parametrize("text", [b"[" * 50_000, b'{"a":' * 50_000, b'{"rows": [' + b'{"x":' * 50_000])
@pytest.mark.parametrize("path", [OWN, TFS, V2, "/outcomes"])
async def test_json_that_is_deeper_than_anything_needed_is_refused(opened: Opened, path: str, text: bytes):
    async with opened() as (_, client):
        assert (await client.post(path, content=text, headers=JSON)).status_code == 400


@given(body=st.binary(max_size=200) | st.text(max_size=200).map(str.encode), path=st.sampled_from([OWN, TFS, V2]))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_at_all_bring_a_dialect_down(place: Place, body: bytes, path: str):
    asked = target(path)
    assert asked is not None
    with pytest.raises(InvalidRequest):
        read(asked.dialect, body, RowReader(place.store.manifest("churn", "1")), "churn")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/xml", "multipart/form-data; boundary=x", "", "application/jsonp"]
)
async def test_what_does_not_say_it_is_json_is_refused(opened: Opened, kind: str):
    async with opened() as (_, client):
        for path in (OWN, TFS, V2, "/outcomes"):
            assert (await client.post(path, content=b"{}", headers={"content-type": kind})).status_code == 415
        told = await client.post(
            OWN, content=json.dumps({"rows": [ROW]}), headers={"content-type": "Application/JSON;q=1"}
        )
        assert told.status_code == 200


@pytest.mark.parametrize("name", ["a b", "é", "x" * 129, "a/b", "a\tb"])
async def test_a_request_id_that_is_none_is_refused(opened: Opened, place: Place, name: str):
    async with opened() as (_, client):
        assert (
            await client.post(OWN, json={"rows": [ROW]}, headers={"x-request-id": name.encode()})
        ).status_code == 400
        assert (await client.post(V2, json={"id": name, "inputs": [X, KIND]})).status_code == 400
    assert predictions(place) == []


# Names and paths.


def hostile_names(count: int) -> Iterator[str]:
    """Traversals, encodings, NUL, other alphabets, lengths: different ones, always the same."""
    import random

    rng = random.Random(7)
    parts = ["..", ".", "/", "\\", "\0", "%00", "%2e%2e", "%2f", "..%2f", "%252e", "....//", "~", "$HOME", "`id`", ";"]
    parts += [
        "C:",
        "file://",
        "\u202e",
        "ｃｈｕｒｎ",
        "churn",
        "CHURN",
        "versions",
        "1",
        "01",
        "-1",
        "routing",
        "models",
    ]
    parts += [
        "manifest.json",
        "keys.json",
        "\r\n",
        " ",
        "\t",
        "é",
        "e\u0301",
        "🛫",
        "\ud800",
        "*",
        "?",
        "#",
        "con",
        ":predict",
    ]
    seen = set()
    while len(seen) < count:
        name = "".join(rng.choices(parts, k=rng.randint(1, 6)))
        name = name * 500 if rng.random() < 0.03 else name
        if name not in seen and not (MODEL_NAME.fullmatch(name) or VERSION_NAME.fullmatch(name)):
            seen.add(name)
            yield name


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if "log" not in path.relative_to(folder).parts[:2]
    }


def test_a_thousand_hostile_names_are_refused_by_the_store_before_they_are_a_path(place: Place, tmp_path: Path):
    (tmp_path / "secret.json").write_text("{}")
    before = snapshot(tmp_path)
    for name in hostile_names(1_000):
        for call in (
            lambda name=name: place.store.manifest(name, "1"),
            lambda name=name: place.store.manifest("churn", name),
            lambda name=name: place.store.table(name),
            lambda name=name: place.store.stamp(name),
        ):
            with pytest.raises(ConfigError, match="accepted: "):
                call()
    assert snapshot(tmp_path) == before


async def test_a_thousand_hostile_names_in_paths_and_headers_touch_nothing(
    opened: Opened, place: Place, tmp_path: Path
):
    routes = [
        ("POST", "/models/{}/predict"), ("POST", "/v1/models/{}:predict"), ("POST", "/v1/models/churn/versions/{}:predict"),
        ("POST", "/v1/models/churn/labels/{}:predict"), ("POST", "/v2/models/{}/infer"), ("GET", "/v1/models/{}/metadata"),
        ("GET", "/v2/models/churn/versions/{}"), ("GET", "/v1/models/churn/labels/{}"), ("GET", "/{}"), ("GET", "/docs/{}"),
    ]  # fmt: skip
    (tmp_path / "secret.json").write_text("{}")
    async with opened() as (_, client):
        before = snapshot(tmp_path)
        for number, name in enumerate(hostile_names(1_000)):
            method, route = routes[number % len(routes)]
            path = route.format(quote(name.encode("utf-8", "surrogatepass"), safe="" if number % 2 else "/.:;$*"))
            told = await client.request(method, path, json={"rows": [ROW]})
            # GET /./docs and the like are /docs to every client.
            assert told.status_code in (403, 404) or told.url.path in ("/docs", "/models"), (path, told.status_code)
            header = name.encode("utf-8", "surrogatepass").translate(None, b"\r\n\0")[:1_000]
            told = await client.post(OWN, json={"rows": [ROW]}, headers={"x-prodecks-version": header + b"."})
            assert told.status_code == 400
        assert snapshot(tmp_path) == before
    assert predictions(place) == []


async def test_a_strange_file_among_the_routing_tables_does_not_stop_the_gateway_following_the_others(
    opened: Opened, place: Place
):
    routing = place.folder / "routing"
    async with opened() as (gateway, _):
        for name in ("Copy of churn.json", "..json", "churn.old.json", "é.json"):
            (routing / name).write_text("{")
        (routing / "broken.json").write_text("[" * 100_000)
        (routing / "folder.json").mkdir()
        generation = place.route(live="2").generation
        for _ in range(100):
            if gateway.models.served["churn"].routing.generation == generation:
                break
            await asyncio.sleep(0.05)
        assert gateway.models.served["churn"].routing.live == "2"
        assert set(gateway.models.problems) == {"broken", "folder"}


# Slow, large and half-closed, through a real server.


class Hasty(GatewayProtocol):
    """The connection of production with shorter waits."""

    head_seconds = 0.5
    request_seconds = 1.0
    read_seconds = 1.0


def head(length: int, path: str = OWN) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    ).encode()


def closed(connection: socket.socket, seconds: float = 10.0) -> bytes:
    """What the server sends until it closes the connection; it must do so within the time."""
    connection.settimeout(seconds)
    told = b""
    try:
        while part := connection.recv(65_536):
            told += part
    except ConnectionError:
        pass
    return told


def send_until_closed(connection: socket.socket, part: bytes) -> None:
    for _ in range(10_000):
        connection.sendall(part)


def test_hundreds_of_slow_clients_leave_the_others_their_answers(place: Place):
    with listening(place) as address, httpx.Client(base_url=f"http://{address[0]}:{address[1]}") as client:
        slow = []
        for number in range(400):
            connection = socket.create_connection(address)
            connection.send((b"", b"POST ", head(1_000)[:-2], head(1_000) + b"{")[number % 4])
            slow.append(connection)
        waits = []
        for turn in range(200):
            slow[turn].send(b"")  # nothing
            slow[turn + 200].send(b"x")  # a byte now and then
            started = time.monotonic()
            assert client.post(OWN, json={"rows": [ROW]}, timeout=10).status_code == 200
            waits.append(time.monotonic() - started)
        for connection in slow:
            connection.close()
        assert client.get("/healthz").status_code == 200
    assert len(predictions(place)) == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"", b"\r\n", b"GET", b"GET /healthz HTTP/1.1\r\nhost: x\r\n", b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-a: " + b"a" * 1_000,
        head(100) + b"{", b"POST /outcomes HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n\r\n", b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /",
    ],
)  # fmt: skip
def test_a_request_that_does_not_come_to_its_end_is_not_waited_for(place: Place, sent: bytes):
    with listening(place, connection=Hasty) as address, socket.create_connection(address) as connection:
        connection.sendall(sent)
        told = closed(connection)
    assert told.count(b"HTTP/1.1 200") == sent.count(b"\r\n\r\n") * (
        b"healthz" in sent and sent.endswith((b"/", b"\n\r\n\r\n"))
    )


def test_a_head_of_any_size_is_not_read(place: Place):
    with listening(place) as address, socket.create_connection(address) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: ")
        with pytest.raises(ConnectionError):
            send_until_closed(connection, b"a" * 1_024)
        with socket.create_connection(address) as many:
            many.sendall(b"GET /" + b"a" * (MOST_HEAD_BYTES + 300_000))
            assert closed(many) in (
                b"",
                b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            )


def test_a_body_of_a_hundred_megabytes_is_refused_before_it_comes_and_takes_no_memory(place: Place):
    size = 100 * 1024 * 1024
    chunk = b" " * 65_536
    with listening(place) as address, httpx.Client(base_url=f"http://{address[0]}:{address[1]}") as client:
        assert client.post(OWN, json={"rows": [ROW]}).status_code == 200
        before = psutil.Process().memory_info().rss
        with socket.create_connection(address) as declared:
            declared.sendall(head(size))
            declared.settimeout(10)
            assert declared.recv(100).startswith(b"HTTP/1.1 413")  # not a byte of the body was sent
        with socket.create_connection(address) as streamed:
            streamed.sendall(head(size).replace(f"content-length: {size}".encode(), b"transfer-encoding: chunked"))
            peak = before
            for _ in range(size // len(chunk)):
                streamed.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                peak = max(peak, psutil.Process().memory_info().rss)
            streamed.settimeout(10)
            assert streamed.recv(100).startswith(b"HTTP/1.1 413")
        assert client.post(OWN, json={"rows": [ROW]}).status_code == 200
    # Twice the largest body that is taken, for the parts and their whole.
    assert peak - before < 2 * gateway_module.MOST_BYTES + 16 * 1024 * 1024


def test_a_half_closed_client_costs_nobody_anything(place: Place):
    body = json.dumps({"rows": [ROW]}).encode()
    with listening(place) as address, httpx.Client(base_url=f"http://{address[0]}:{address[1]}") as client:
        for sent in (head(len(body)) + body, head(len(body)) + body[:-1], head(len(body)), b"GET /"):
            with socket.create_connection(address) as connection:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
                closed(connection)
        assert client.post(OWN, json={"rows": [ROW]}).status_code == 200
        page = client.get("/metrics").text
        assert "prodecks_in_flight 1.0" in page  # this very request: nobody else is waited for


def test_a_client_that_does_not_read_its_answers_is_left(place: Place):
    body = json.dumps({"rows": [ROW] * 5_000}).encode()
    with listening(place, connection=Hasty) as address, socket.create_connection(address) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        deaf.settimeout(20)
        with pytest.raises(ConnectionError):
            send_until_closed(deaf, head(len(body)) + body)
        with httpx.Client(base_url=f"http://{address[0]}:{address[1]}") as client:
            assert client.post(OWN, json={"rows": [ROW]}).status_code == 200


async def test_a_body_that_comes_in_drops_is_refused_in_the_end_and_makes_no_version_look_slow(opened: Opened):
    whole = json.dumps({"rows": [ROW]}).encode()

    async def drops(pause: float):
        for place in range(len(whole)):
            await asyncio.sleep(pause)
            yield whole[place : place + 1]

    async with opened() as (_, client):
        assert (await client.post(OWN, content=drops(0.01), headers=JSON)).status_code == 200
        told = {
            line.split(" ")[0]: float(line.split(" ")[1])
            for line in (await client.get("/metrics")).text.splitlines()
            if line.startswith("prodecks_request_seconds_sum")
        }
        assert 0 < sum(told.values()) < 0.01 * len(whole)
    async with opened(body_seconds=0.2) as (_, client):
        late = await client.post(OWN, content=drops(0.05), headers=JSON)
        assert late.status_code == 408
