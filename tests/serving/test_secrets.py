"""Secrets sent to the gateway, each in another place, stand in no answer, log line, metric or record.

What a client sends as a feature's value, an entity or a request id is what the prediction log is for: there it stands, and
nowhere else.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.prediction_log import Prediction
from adapters.prediction_log import read as read_log
from cli.serve import Redacting
from serving.access import Access, Principal, Role, Tokens, hashed
from tests.serving.conftest import Opened, Place, listening

pytestmark = [pytest.mark.anyio, pytest.mark.requirement("R5.7")]
OWN, TFS, V2 = "/models/churn/predict", "/v1/models/churn:predict", "/v2/models/churn/infer"
ROW = {"x": 1.0, "kind": "a"}
KEY = "the-key-of-the-test"
SECRET = "planted-7f3a9c"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def ask(path: str = OWN, method: str = "POST", **how: Any) -> Callable[[httpx.Client], httpx.Response]:
    headers = {"x-api-key": KEY, **how.pop("headers", {})}
    if method == "POST" and not {"json", "content"} & set(how):
        how["json"] = {"rows": [ROW]}
    return lambda client: client.request(method, path, headers={k: v for k, v in headers.items() if v}, **how)


def as_json(text: str) -> dict[str, Any]:
    return {"content": text, "headers": {"content-type": "application/json"}}


def v2(**other: Any) -> dict[str, Any]:
    inputs = [
        {"name": "x", "datatype": "FP64", "shape": [1], "data": [1.0]},
        {"name": "kind", "datatype": "BYTES", "shape": [1], "data": ["a"]},
    ]
    return {"json": {"inputs": inputs, **other}}


def outcome(**other: Any) -> dict[str, Any]:
    return {"json": {"outcomes": [{"model": "churn", "label": 1, "request_id": "r", **other}]}}


TENSOR = {"name": "x", "datatype": "FP64", "shape": [1], "data": [1.0]}
TOKEN = f"e30.{SECRET}.{SECRET}"
PLACES: dict[str, Callable[[httpx.Client], httpx.Response]] = {
    "wrong API key": ask(headers={"x-api-key": SECRET}),
    "API key in the wrong scheme": ask(headers={"x-api-key": None, "authorization": f"Basic {SECRET}"}),
    "wrong bearer key": ask(headers={"x-api-key": None, "authorization": f"Bearer {SECRET}"}),
    "bearer token of nobody": ask(headers={"x-api-key": None, "authorization": f"Bearer {TOKEN}"}),
    "cookie": ask(headers={"cookie": f"session={SECRET}"}),
    "proxy's login": ask(headers={"proxy-authorization": f"Basic {SECRET}"}),
    "user agent": ask(headers={"user-agent": SECRET}),
    "referer with a password": ask(headers={"referer": f"https://me:{SECRET}@host/"}),
    "forwarded for": ask(headers={"x-forwarded-for": SECRET}),
    "header of its own": ask(headers={"x-auth-token": SECRET}),
    "query of a prediction": ask(f"{OWN}?api_key={SECRET}"),
    "query of a page that is refused": ask(f"/metrics?token={SECRET}", "GET", headers={"x-api-key": "wrong"}),
    "path that is no route": ask(f"/{SECRET}", "GET"),
    "path below a route": ask(f"/docs/{SECRET}", "GET"),
    "model's name": ask(f"/models/{SECRET}/predict"),
    "model's name, Open Inference": ask(f"/v2/models/{SECRET}/ready", "GET"),
    "version": ask(f"/v1/models/churn/versions/{SECRET}:predict", json={"instances": [ROW]}),
    "version that is asked about": ask(f"/v1/models/churn/versions/{SECRET}", "GET"),
    "label": ask(f"/v1/models/churn/labels/{SECRET}:predict", json={"instances": [ROW]}),
    "content type": ask(headers={"content-type": f"text/{SECRET}"}),
    "request id that is none": ask(headers={"x-request-id": f"{SECRET} !"}),
    "tester's version": ask(headers={"x-prodecks-version": SECRET}),
    "key that is no feature": ask(json={"rows": [{**ROW, SECRET: 1}]}),
    "value of a key that is no feature": ask(json={"rows": [{**ROW, "password": SECRET}]}),
    "text where a number belongs": ask(json={"rows": [{**ROW, "x": SECRET}]}),
    "list where a text belongs": ask(json={"rows": [{**ROW, "kind": [SECRET]}]}),
    "row that is none": ask(json={"rows": [SECRET]}),
    "key beside the rows": ask(json={"rows": [ROW], SECRET: SECRET}),
    "broken JSON": ask(**as_json(f'{{"rows": [{{"x": "{SECRET}')),
    "text that is too long": ask(json={"rows": [{**ROW, "kind": SECRET * 1_000}]}),
    "entity that is too long": ask(json={"rows": [{**ROW, "member": SECRET * 100}]}),
    "signature": ask(TFS, json={"instances": [ROW], "signature_name": SECRET}),
    "key beside the instances": ask(TFS, json={"instances": [ROW], SECRET: 1}),
    "base64 that is none": ask(TFS, json={"instances": [{**ROW, "kind": {"b64": f"{SECRET}!"}}]}),
    "datatype": ask(V2, **v2(inputs=[{**TENSOR, "datatype": SECRET}])),
    "tensor's name": ask(V2, **v2(inputs=[{**TENSOR, "name": SECRET}])),
    "tensor's shape": ask(V2, **v2(inputs=[{**TENSOR, "shape": SECRET}])),
    "output": ask(V2, **v2(outputs=[{"name": SECRET}])),
    "parameter": ask(V2, **v2(parameters={"token": SECRET})),
    "id that is none": ask(V2, **v2(id=f"{SECRET} !")),
    "outcome's key": ask("/outcomes", **outcome(**{SECRET: 1})),
    "outcome's model": ask("/outcomes", **outcome(model=SECRET)),
    "outcome's label": ask("/outcomes", **outcome(label=SECRET)),
    "outcome's name that is too long": ask("/outcomes", **outcome(request_id=SECRET * 100)),
}


def kept_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_secret_in_any_place_is_in_no_answer_log_metric_or_record(place: Place, caplog: pytest.LogCaptureFixture):
    assert len(PLACES) >= 30
    caplog.set_level(logging.DEBUG)
    keys = {hashed(KEY): Principal("app", frozenset({Role.ADMIN}))}
    # Its keys would come from a port nobody listens on: the check itself fails, and says no more than that.
    tokens = Tokens("https://id", "prodecks", "http://127.0.0.1:9/keys")
    with (
        listening(place, Access(keys, tokens, None, None, 1, time.monotonic)) as (host, port),
        httpx.Client(base_url=f"http://{host}:{port}", timeout=30) as client,
    ):
        statuses = {}
        for name, request in PLACES.items():
            told = request(client)
            statuses[name] = told.status_code
            assert SECRET not in told.text, name
            assert SECRET not in str(told.headers), name
        headers = {"x-api-key": KEY}
        for page in ("/metrics", "/operate/state", "/models", "/openapi.json"):
            assert SECRET not in client.get(page, headers=headers).text
    # The client's own log, of which address it asks, is not the gateway's.
    lines = [one for one in caplog.records if one.name.startswith(("prodecks", "uvicorn", "fastapi", "asyncio"))]
    assert [json.loads(one.message)["status"] for one in lines if one.name == "prodecks.security"].count(401) == 5
    assert not [one for one in lines if SECRET in logging.Formatter().format(one)]
    assert SECRET.encode() not in kept_bytes(place.folder)
    # Where it is no part of the question the question is answered; everywhere else it is refused.
    answered = {name for name, status in statuses.items() if status == 200}
    assert answered == {
        "cookie", "proxy's login", "user agent", "referer with a password", "forwarded for", "header of its own",
        "query of a prediction", "parameter",
    }  # fmt: skip
    assert set(statuses.values()) <= {200, 400, 401, 403, 404, 413, 415}


async def test_a_feature_an_entity_and_a_request_id_are_in_the_prediction_log_and_nowhere_else(
    opened: Opened, place: Place, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG, "prodecks")
    row = {"x": 1.0, "kind": f"kind-{SECRET}", "member": f"member-{SECRET}"}
    async with opened() as (_, client):
        told = await client.post(OWN, json={"rows": [row]}, headers={"x-request-id": f"id-{SECRET}"})
        assert told.status_code == 200
        body = {"outcomes": [{"model": "churn", "label": 1, "entity": row["member"]}]}
        assert (await client.post("/outcomes", json=body)).json()["outcomes"][0]["status"] == "recorded"
        for page in ("/metrics", "/operate/state", "/models", "/openapi.json"):
            assert SECRET not in (await client.get(page)).text
    first = next(entry.record for entry in read_log(place.folder / "log"))
    assert isinstance(first, Prediction)
    assert (first.features["kind"], first.entity, first.request_id) == (row["kind"], row["member"], f"id-{SECRET}")
    assert SECRET not in caplog.text


class Telling:
    """A version whose failure tells what it should not."""

    def score(self, columns: Any) -> Any:
        raise RuntimeError(f"cannot reach postgresql://ops:{SECRET}@db/ops with api_key={SECRET}")


@pytest.mark.parametrize("shadow", [False, True])
async def test_what_a_failing_version_tells_is_kept_without_its_secrets(
    opened: Opened, place: Place, caplog: pytest.LogCaptureFixture, shadow: bool
):
    place.route(live="1", **({"shadow": "2"} if shadow else {}))
    async with opened() as (gateway, client):
        broken = gateway.models.served["churn"].versions["2" if shadow else "1"]
        object.__setattr__(broken, "backend", Telling())
        told = await client.post(OWN, json={"rows": [ROW]})
        assert told.status_code == (200 if shadow else 500)
        assert SECRET not in told.text
    kept = [entry.record for entry in read_log(place.folder / "log")]
    assert [one.error for one in kept if isinstance(one, Prediction) and one.error] == [
        "RuntimeError: cannot reach postgresql://ops:***@db/ops with api_key=***"
    ]
    assert SECRET not in caplog.text
    assert SECRET.encode() not in kept_bytes(place.folder)


def test_a_traceback_on_the_terminal_holds_no_password():
    try:
        Telling().score(None)
    except RuntimeError:
        record = logging.makeLogRecord({"msg": "Exception in ASGI application", "exc_info": sys.exc_info()})
    told = Redacting("%(message)s").format(record)
    assert "Traceback" in told
    assert "cannot reach" in told
    assert SECRET not in told
