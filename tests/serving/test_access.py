"""Deny by default: every route has a role in the matrix, every role is tried on every route, no secret leaves."""

from __future__ import annotations

import asyncio
import datetime
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from lifecycle.errors import ConfigError
from serving.access import MATRIX, Access, Denied, Principal, Role, Tokens, checked_rate, dump_keys, hashed, load_keys
from serving.dialects import target
from serving.pages import pages, routes_of
from tests.serving.conftest import EVERYBODY, Opened, Place

pytestmark = [pytest.mark.anyio, pytest.mark.requirement("R5.7")]
KEYS = {role: f"key-of-{role.value}" for role in Role}
OPEN = {("GET", "/healthz"), ("GET", "/v2/health/live"), ("GET", "/v2/health/ready")}
OUTSIDE = [("DELETE", "/models"), ("POST", "/operate/state"), ("PUT", "/outcomes"), ("GET", "/"), ("GET", "/admin")]
OUTSIDE += [("GET", "/docs/oauth2-redirect"), ("PATCH", "/v1/models/{model}"), ("POST", "/v1/models/{model}:classify")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def access(rate: float | None = None, clock: Callable[[], float] = time.monotonic, **other: Any) -> Access:
    keys = {hashed(key): Principal(role.value, frozenset({role})) for role, key in KEYS.items()}
    return Access(**{"keys": keys, "tokens": None, "open_as": None, "rate": rate, "burst": 2, "clock": clock, **other})


def filled(route: str) -> str:
    return route.replace("{model}", "churn").replace("{version}", "1").replace("{label}", "live")


async def test_a_route_is_in_the_application_the_matrix_and_the_document_or_in_none_of_them(opened: Opened):
    async with opened() as (gateway, client):
        document = (await client.get("/openapi.json")).json()
        described = {(method.upper(), path) for path, told in document["paths"].items() for method in told}
        assert {(method, filled(path)) for method, path in described} == {(m, filled(r)) for m, r in MATRIX}
        assert routes_of(pages(gateway)) == {one for one in MATRIX if one[0] == "GET"}
        predicted = {one for one in MATRIX if one[0] == "POST" and target(filled(one[1])) is not None}
        assert {one for one in MATRIX if one[0] == "POST"} - predicted == {("POST", "/outcomes")}
    assert {one for one, role in MATRIX.items() if role is None} == OPEN
    assert {
        (method.upper(), path)
        for path, told in document["paths"].items()
        for method in told
        if "security" in told[method]
    } == OPEN


@pytest.mark.parametrize("asked", [*MATRIX, *OUTSIDE])
async def test_each_role_enters_where_the_matrix_says_and_nowhere_else(opened: Opened, asked: tuple[str, str]):
    method, route = asked
    wanted = MATRIX.get(asked, Role.ADMIN)
    async with opened(access()) as (_, client):
        for role in (None, *Role):
            headers = {} if role is None else {"x-api-key": KEYS[role]}
            told = await client.request(method, filled(route), headers=headers, json={})
            allowed = wanted is None or (role is not None and role in (wanted, Role.ADMIN))
            assert (told.status_code not in (401, 403)) == allowed, (role, told.status_code, told.text)
            if wanted is not None and role is None:
                assert told.status_code == 401
                assert told.headers["www-authenticate"] == "Bearer"
            if asked in OUTSIDE and allowed:
                assert told.status_code in (404, 405)
                assert (told.status_code == 405) == ("allow" in told.headers)
            elif allowed and method == "GET":
                assert told.status_code == 200
                assert (await client.head(filled(route), headers=headers)).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"x-api-key": "wrong"}, {"x-api-key": KEYS[Role.LABEL]}])
async def test_an_attempt_that_is_not_let_in_is_on_record_without_what_was_sent(
    opened: Opened, caplog: pytest.LogCaptureFixture, headers: dict[str, str]
):
    async with opened(access()) as (_, client):
        refused = await client.post("/v1/models/secret-name:predict?token=in-the-query", headers=headers, json={})
        assert (await client.get("/secret-name", headers=headers)).status_code == refused.status_code
    first, second = (json.loads(one.message) for one in caplog.records if one.name == "prodecks.security")
    assert first | {"at": 0, "reason": ""} == {
        "at": 0, "reason": "", "status": refused.status_code, "method": "POST",
        "route": "/v1/models/{model}:predict", "address": "127.0.0.1",
    }  # fmt: skip
    assert second["route"] == "none of the gateway's"
    ours = [
        one.getMessage() for one in caplog.records if one.name.startswith("prodecks")
    ]  # the client logs what it asks
    for secret in ("wrong", KEYS[Role.LABEL], "in-the-query", "secret-name"):
        assert secret not in "".join(ours)


@pytest.mark.parametrize("key", ["", "wrong", "key-of-predict ", "key-of-predic", "Köln", "x" * 100_000])
async def test_a_wrong_key_is_no_key_and_is_not_repeated(opened: Opened, key: str):
    async with opened(access()) as (_, client):
        told = await client.get("/models", headers={"x-api-key": key.encode()})
        assert told.status_code == 401
        assert not key or key not in told.text


async def test_a_bearer_key_is_a_key(opened: Opened):
    async with opened(access()) as (_, client):
        assert (
            await client.get("/models", headers={"authorization": f"Bearer {KEYS[Role.PREDICT]}"})
        ).status_code == 200
        assert (
            await client.get("/models", headers={"authorization": f"Basic {KEYS[Role.PREDICT]}"})
        ).status_code == 401


def test_a_client_has_its_rate_and_another_one_its_own():
    now = [0.0]
    limited = access(rate=2.0, clock=lambda: now[0])
    for _ in range(2):
        limited.admit(Role.PREDICT, KEYS[Role.PREDICT])
    with pytest.raises(Denied) as told:
        limited.admit(Role.PREDICT, KEYS[Role.PREDICT])
    assert told.value.status == 429
    limited.admit(Role.PREDICT, KEYS[Role.ADMIN])
    now[0] = 0.5
    limited.admit(Role.PREDICT, KEYS[Role.PREDICT])


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_lets_nobody_in_is_refused(rate: float):
    with pytest.raises(ConfigError, match="above 0"):
        checked_rate(rate)


def test_keys_are_kept_as_hashes(tmp_path: Path):
    path = tmp_path / "keys.json"
    keys = {hashed("secret-key"): Principal("app", frozenset({Role.PREDICT, Role.LABEL}))}
    path.write_text(dump_keys(keys))
    assert load_keys(path) == keys
    assert "secret-key" not in path.read_text()
    assert load_keys(tmp_path / "none.json") == {}


@pytest.mark.parametrize(
    "text", ["", "[]", '{"keys": [{"client": "a"}]}', '{"keys": [{"client": "a", "sha256": "b", "roles": ["king"]}]}']
)
def test_a_file_of_keys_that_is_none_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"keys\.json"):
        load_keys(path)


async def test_a_key_counts_and_ceases_to_while_the_gateway_runs(opened: Opened, place: Place):
    path = place.folder / "keys.json"

    def write(*keys: str) -> None:
        path.with_suffix(".new").write_text(
            dump_keys({hashed(key): Principal(key, frozenset({Role.PREDICT})) for key in keys})
        )
        path.with_suffix(".new").replace(path)

    following = Access({}, None, EVERYBODY, None, 1, time.monotonic, path)
    async with opened(following) as (gateway, client):

        async def told(status: int, key: str | None) -> None:
            headers = {} if key is None else {"x-api-key": key}
            for _ in range(100):
                if (await client.get("/models", headers=headers)).status_code == status:
                    return
                await asyncio.sleep(0.05)
            raise AssertionError((key, status))

        await told(200, None)
        write("first", "second")
        await told(401, None)  # nobody who came without one is let in any more
        await told(200, "first")
        write("second")
        await told(401, "first")
        await told(200, "second")
        path.write_text("{")
        for _ in range(100):
            if gateway.state()["keys_problem"]:
                break
            await asyncio.sleep(0.05)
        assert "keys.json" in gateway.state()["keys_problem"]
        await told(200, "second")
        write()
        await told(401, "second")
        await told(401, None)  # the last key's end opens nothing
        assert gateway.state()["keys_problem"] is None


class Provider:
    """An identity provider's key set, without its network."""

    def __init__(self, key: Any) -> None:
        self.key = key

    def get_signing_key_from_jwt(self, _token: str) -> Any:
        return self


PRIVATE = rsa.generate_private_key(65537, 2048)
STRANGER = rsa.generate_private_key(65537, 2048)
CLAIMS = {"iss": "https://id", "aud": "prodecks", "sub": "app", "roles": ["predict", "king"]}


def by_token() -> Access:
    made = access(tokens=Tokens("https://id", "prodecks", "https://id/keys"), keys={})
    made._provider = Provider(PRIVATE.public_key())
    return made


def token(key: Any = PRIVATE, algorithm: str = "RS256", **claims: Any) -> str:
    told = {**CLAIMS, "exp": datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=5), **claims}
    return jwt.encode({name: value for name, value in told.items() if value is not None}, key, algorithm)


def test_a_token_says_who_and_what():
    assert by_token().admit(Role.PREDICT, token()) == Principal("token:app", frozenset({Role.PREDICT}))
    with pytest.raises(Denied) as told:
        by_token().admit(Role.LABEL, token())
    assert told.value.status == 403
    assert by_token().admit(Role.LABEL, token(roles="label predict")).may(Role.LABEL)


@pytest.mark.parametrize(
    "made",
    [
        lambda: token(exp=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)),
        lambda: token(iss="https://other"),
        lambda: token(aud="other"),
        lambda: token(exp=None),
        lambda: token(sub=None),
        lambda: token(STRANGER),
        lambda: token("a shared secret of thirty-two bytes", "HS256"),
        lambda: jwt.encode({**CLAIMS, "exp": 2**31}, None, "none"),
        lambda: token()[:-4] + "AAAA",
        lambda: "a.b.c",
    ],
    ids=[
        "over",
        "issuer",
        "audience",
        "no end",
        "nobody",
        "stranger's key",
        "shared secret",
        "unsigned",
        "changed",
        "no token",
    ],
)
def test_a_token_that_is_not_the_providers_is_refused(made: Callable[[], str]):
    with pytest.raises(Denied) as told:
        by_token().admit(Role.PREDICT, made())
    assert told.value.status == 401
