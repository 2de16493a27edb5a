"""The gateway as an ASGI application: access first, then predictions on a short path, everything else by FastAPI (R2.3)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import logging
import re
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from adapters.model_store import ModelStore
from adapters.prediction_archive import PredictionArchive
from adapters.prediction_log import Outcome, PredictionLog
from adapters.tf_serving import ModelServer
from lifecycle.errors import ConfigError
from lifecycle.traffic import Role as Part
from lifecycle.traffic import assign
from serving import dialects
from serving.access import MATRIX, Access, Denied, Principal, Role, credential_of
from serving.batching import Batcher, Job, Unrecorded, VersionFailed
from serving.measures import Measures
from serving.outcomes import MOST_REMEMBERED, OutcomeIndex, read_outcomes
from serving.rows import InvalidRequest, checked
from serving.versions import Models, Served

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Reply = Callable[[int, Headers, bytes], Any]

MOST_BYTES = 16 * 1024 * 1024
BODY_SECONDS = 30.0
FOLLOW_SECONDS = 0.1
OVERRIDE = b"x-prodecks-version"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_FAILED = "the gateway failed; its log says why"
_JSON = (b"content-type", b"application/json")
_RETRY = [(b"retry-after", b"5")]

log = logging.getLogger("prodecks.gateway")
security = logging.getLogger("prodecks.security")


@dataclass(frozen=True, slots=True)
class Options:
    """How a gateway behaves.

    Parameters
    ----------
    answer_unrecorded
        While the log's disk takes nothing: answer all the same. By default it refuses with 503.
    most_bytes
        Largest body.
    body_seconds
        Longest wait for more of a body.
    follow_seconds
        Time between two looks at the routing tables.
    remembered
        Newest predictions whose outcomes are placed at once.
    server
        TensorFlow Serving that scores every version; None scores in this process.
    """

    answer_unrecorded: bool = False
    most_bytes: int = MOST_BYTES
    body_seconds: float = BODY_SECONDS
    follow_seconds: float = FOLLOW_SECONDS
    remembered: int = MOST_REMEMBERED
    server: ModelServer | None = None


class Gateway:
    """One process that serves every model of a store.

    Parameters
    ----------
    store
        Versions and routing tables.
    predictions
        The prediction log.
    access
        Who may do what.
    options
        How it behaves.
    """

    def __init__(self, store: ModelStore, predictions: PredictionLog, access: Access, options: Options) -> None:
        from serving.pages import pages

        self.models = Models(store, options.server)
        self.measures = Measures()
        self.access = access
        self.options = options
        self.outcomes = OutcomeIndex(options.remembered)
        self.started = time.time()
        self.batcher = Batcher(predictions, self.measures, options.answer_unrecorded)
        self._predictions = predictions
        self._pages = pages(self)
        self._following: asyncio.Task[None]
        # Unique because the first part is drawn anew for each process, and cheap because only it is drawn.
        self._ids = map(f"{secrets.token_hex(12)}-{{:x}}".format, itertools.count())
        self._shown: dict[tuple[str, str, str], None] = {}
        self._told: dict[str, str | None] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; ASGI 3."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return  # no websockets: the server closes them
        self.measures.in_flight += 1
        try:
            await self._answer(scope, receive, send)
        finally:
            self.measures.in_flight -= 1

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        method, path = scope["method"], scope["path"]
        try:
            asked = dialects.target(path) if method == "POST" else None
            if asked is not None:
                principal = self.access.admit(Role.PREDICT, credential_of(headers))
                await self._predict(asked, headers, principal, receive, send)
                return
            route = _route(method, path)
            principal = self.access.admit(
                MATRIX.get(route, Role.ADMIN) if route else Role.ADMIN, credential_of(headers)
            )
            if method == "POST" and path == "/outcomes":
                await self._label(headers, principal, receive, send)
            elif route is None or route[0] == "POST":
                await self._no_route(send, path, route)
            else:
                # The server leaves the body of an answer to HEAD out by itself.
                await self._pages({**scope, "method": route[0]}, receive, send)
        except Denied as denied:
            self._on_record(scope, denied)
            await self._refuse(send, denied.status, [denied.reason])
        except InvalidRequest as invalid:
            await self._refuse(send, invalid.status, invalid.problems)
        except ClientGone:
            return

    async def _no_route(self, send: Send, path: str, route: tuple[str, str] | None) -> None:
        if route is not None:  # a prediction's route, with what no model, version or label is called
            await self._refuse(send, 404, ["no such model; accepted: what /models lists"])
            return
        others = sorted({method for method, pattern in _ROUTES if pattern.fullmatch(path)})
        if others:
            told = [f"the method; accepted: {', '.join(others)}"]
            await self._refuse(send, 405, told, [(b"allow", ", ".join(others).encode())])
        else:
            await self._refuse(send, 404, ["no such route; accepted: what /openapi.json lists"])

    def predict(self, scope: Scope, asked: dialects.Target, body: bytes, received: float, reply: Reply) -> bool:
        """Answer a prediction whose body has come, without ASGI.

        Parameters
        ----------
        scope
            As of ASGI.
        asked
            What its path names.
        received
            Monotonic seconds.
        reply
            Called with status, headers and body, now or later.

        Returns
        -------
        bool
            False when the client is not let in: `__call__` tells it so, and puts it on record.
        """
        headers = dict(scope["headers"])
        try:
            principal = self.access.admit(Role.PREDICT, credential_of(headers))
        except Denied:
            return False
        self.measures.in_flight += 1

        def answered(status: int, more: Headers, content: bytes) -> None:
            self.measures.in_flight -= 1
            reply(status, more, content)

        try:
            self._acceptable(headers)
            self._ask(asked, headers, principal, body, received, answered)
        except InvalidRequest as invalid:
            answered(*self._refusal(invalid.status, invalid.problems))
        except Exception:  # told to the client, like any failure
            log.exception("a prediction was not queued")
            answered(*self._refusal(500, [_FAILED]))
        return True

    async def _predict(
        self,
        asked: dialects.Target,
        headers: dict[bytes, bytes],
        principal: Principal,
        receive: Receive,
        send: Send,
    ) -> None:
        self._fixed(asked, self._served(asked))
        body = await self._body(headers, receive)
        received = time.monotonic()  # a client that is slow to send makes no version slow
        done: asyncio.Future[tuple[int, Headers, bytes]] = asyncio.get_running_loop().create_future()
        self._ask(asked, headers, principal, body, received, lambda *told: done.done() or done.set_result(told))
        await self._send(send, *await done)

    def _served(self, asked: dialects.Target) -> Served:
        served = self.models.served.get(asked.model)
        if served is None or (served.routing.live is None and served.routing.candidate is None):
            raise InvalidRequest(
                [f"the model is not served; accepted: {', '.join(self.models.served) or 'none yet'}"], 404
            )
        return served

    def _ask(
        self,
        asked: dialects.Target,
        headers: dict[bytes, bytes],
        principal: Principal,
        body: bytes,
        received: float,
        reply: Reply,
    ) -> None:
        """Read a prediction's rows and queue them for whoever answers each; InvalidRequest when nobody is to."""
        served = self._served(asked)
        fixed = self._fixed(asked, served)
        first = served.versions[fixed or served.routing.live or next(iter(served.versions))]
        read = dialects.read(asked.dialect, body, first.rows, asked.model)
        rows = checked(read.rows)
        named = headers.get(b"x-request-id")
        if named is None and read.request_id is not None:
            named = read.request_id.encode("utf-8", "replace")
        if named is not None and not _REQUEST_ID.fullmatch(named):
            raise InvalidRequest(["request id; accepted: 1 to 128 letters, digits and . _ : -"])
        request_id = next(self._ids) if named is None else named.decode()
        override = headers[OVERRIDE].decode("latin-1") if OVERRIDE in headers else None
        ids = [request_id] if len(rows) == 1 else [f"{request_id}/{place}" for place in range(len(rows))]
        entities = [first.rows.entity(row) or name for row, name in zip(rows, ids, strict=True)]
        groups: dict[tuple[str, Part], list[int]] = {}
        try:
            for place, entity in enumerate(entities):
                groups.setdefault(assign(served.routing, entity, fixed or override), []).append(place)
        except ConfigError:
            told = f"X-Prodecks-Version names no version in memory; accepted: {', '.join(served.versions)}"
            raise InvalidRequest([told]) from None
        waiting = _Waiting(self, asked.model, request_id, entities, read.answer, reply, len(groups))
        jobs = []
        for (version, role), places in groups.items():
            loaded = served.versions[version]
            mine = rows
            if loaded.rows.names != first.rows.names:
                # Another signature reads the same body by its own features.
                mine = dialects.read(asked.dialect, body, loaded.rows, asked.model).rows
            its = (mine, entities, ids)
            if len(groups) > 1:
                its = tuple([of[place] for place in places] for of in its)
            jobs.append(Job(loaded, role, *its, principal.client, received, partial(waiting.part, places)))
        if served.routing.shadow is not None:
            self._shadow(served, asked, body, rows, entities, ids, principal, received)
        self.batcher.answer(*jobs)

    def _fixed(self, asked: dialects.Target, served: Served) -> str | None:
        if asked.version is not None:
            if asked.version not in served.versions:
                raise InvalidRequest(
                    [f"the version of {asked.model} is not loaded; accepted: {', '.join(served.versions)}"], 404
                )
            return asked.version
        if asked.label is not None:
            version = dialects.by_label(served.routing, asked.label)
            if version is None:
                told = f"the label of {asked.model} is nobody's right now; accepted: {', '.join(dialects.LABELS)}"
                raise InvalidRequest([told], 404)
            return version
        return None

    def _shadow(
        self,
        served: Served,
        asked: dialects.Target,
        body: bytes,
        rows: Any,
        entities: list[str],
        ids: list[str],
        principal: Principal,
        received: float,
    ) -> None:
        """Let the shadow score the same rows, later and without anybody waiting."""
        assert served.routing.shadow is not None
        loaded = served.versions[served.routing.shadow]
        if [type(row) for row in rows[:1]] != [loaded.rows.row_type]:
            try:
                rows = dialects.read(asked.dialect, body, loaded.rows, asked.model).rows
            except InvalidRequest:
                self.measures.shadow_dropped.labels(asked.model).inc(len(rows))
                return
        self.batcher.shadow(Job(loaded, Part.SHADOW, rows, entities, ids, principal.client, received, None))

    async def _label(self, headers: dict[bytes, bytes], principal: Principal, receive: Receive, send: Send) -> None:
        rows = read_outcomes(await self._body(headers, receive))
        if {row.model for row in rows} - set(self.models.served):
            told = f"a model that is not served; accepted: {', '.join(self.models.served) or 'none yet'}"
            raise InvalidRequest([told], 404)
        now = time.time()
        statuses: list[dict[str, str]] = []
        kept: list[Outcome] = []
        fresh: set[tuple[str, str]] = set()
        for row in rows:
            late_after = next(iter(self.models.served[row.model].versions.values())).manifest.late_after
            status, request_id = self.outcomes.place(row, late_after, now)
            if request_id and (row.model, request_id) in fresh:
                status = "duplicate"
            statuses.append({"request_id": request_id, "status": status})
            if status in ("duplicate", "contradicts"):
                continue
            if request_id:
                fresh.add((row.model, request_id))
            kept.append(
                Outcome(
                    request_id=request_id,
                    entity=row.entity or "",
                    model=row.model,
                    label=row.label,
                    observed_at=now if row.observed_at is None else row.observed_at,
                    at=now,
                    client=principal.client,
                    until=None if request_id else row.at,
                )
            )
        if kept:
            try:
                await self.batcher.record(kept)
            except Unrecorded:
                await self._refuse(send, 503, ["the outcomes cannot be put on record; try again later"], _RETRY)
                return
        for one in kept:
            self.outcomes.labelled(one.model, one.request_id, one.label)
        await self._send(send, 200, [_JSON], dialects.encoded({"outcomes": statuses}))

    def _acceptable(self, headers: dict[bytes, bytes]) -> None:
        """Refuse a body by what its headers say of it; InvalidRequest."""
        kind = headers.get(b"content-type", b"application/json")
        if kind != b"application/json" and kind.split(b";")[0].strip().lower() != b"application/json":
            raise InvalidRequest(["content type; accepted: application/json"], 415)
        most = self.options.most_bytes
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > most:
            raise InvalidRequest([f"a body of {int(declared):,} bytes; accepted: at most {most:,}"], 413)

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        self._acceptable(headers)
        most = self.options.most_bytes
        parts: list[bytes] = []
        size = 0
        try:
            # For all of it together: a byte now and then holds no place for ever.
            async with asyncio.timeout(self.options.body_seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise InvalidRequest([f"a body above {most:,} bytes; accepted: at most {most:,}"], 413)
                    more = message.get("more_body", False)
        except TimeoutError:
            raise InvalidRequest([f"the body did not come within {self.options.body_seconds:g} s"], 408) from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _send(self, send: Send, status: int, headers: Headers, body: bytes) -> None:
        headers = [*headers, (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _refuse(self, send: Send, status: int, problems: list[str], more: Headers | None = None) -> None:
        await self._send(send, *self._refusal(status, problems, more))

    def _refusal(self, status: int, problems: list[str], more: Headers | None = None) -> tuple[int, Headers, bytes]:
        self.measures.refused.labels(str(status)).inc()
        headers = [_JSON, *(more or ())]
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        # "error" is what TensorFlow Serving's clients and Open Inference's look for.
        return status, headers, json.dumps({"error": "; ".join(problems), "problems": problems}).encode()

    def _on_record(self, scope: Scope, denied: Denied) -> None:
        address = (scope.get("client") or ("unknown",))[0]
        route = _route(scope["method"], scope["path"])
        security.warning(
            json.dumps(
                {
                    "at": time.time(),
                    "status": denied.status,
                    "reason": denied.reason,
                    "method": scope["method"],
                    # The route, not what stands in it: a path may hold a key that was put there by mistake.
                    "route": route[1] if route else "none of the gateway's",
                    "address": address,
                }
            )
        )

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.start()
                except Exception as error:  # noqa: BLE001 - told to the server, which stops
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                _have_the_process()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def start(self) -> None:
        """Load what the routing tables name, and follow them."""
        loop = asyncio.get_running_loop()
        archive = PredictionArchive(self._predictions.folder.parent)
        await loop.run_in_executor(None, self.outcomes.restore, archive.recent(self.options.remembered))
        for model in self.models.changed():
            await loop.run_in_executor(None, self.models.refresh, model)
            self._show(model)
        self.batcher.start()
        self._following = loop.create_task(self._follow())

    async def stop(self) -> None:
        """Answer what waits, then close the log."""
        self._following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._following
        await self.batcher.close()

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.options.follow_seconds)
            try:
                self._follow_keys()
                for model in self.models.changed():
                    await loop.run_in_executor(None, self.models.refresh, model)
                    self._show(model)
            except Exception:
                # Whatever it is, what is in force stays, and what is put right later is followed.
                log.exception("the store cannot be followed")

    def _follow_keys(self) -> None:
        if self.access.follow() and self.access.problem is not None:
            log.error("keys not followed, those before stay in force: %s", self.access.problem)

    def _show(self, model: str) -> None:
        problem = self.models.problems.get(model)
        self.measures.problems.labels(model).set(0 if problem is None else 1)
        served = self.models.served.get(model)
        if problem is not None and self._told.get(model) != problem:
            log.error("%s: routing table not followed: %s", model, problem)
        self._told[model] = problem
        if served is None:
            return
        for key in [key for key in self._shown if key[0] == model]:
            self.measures.loaded.remove(*key)
            del self._shown[key]
        routing = served.routing
        parts = {
            Part.LIVE: routing.live,
            Part.CANDIDATE: routing.candidate,
            Part.SHADOW: routing.shadow,
            Part.PREVIOUS: routing.previous,
        }
        for part, version in parts.items():
            if version is not None:
                self._shown[model, version, part.value] = None
                self.measures.loaded.labels(model, version, part.value).set(1)

    def state(self) -> dict[str, Any]:
        """What is in force, to be read back by whoever moved traffic."""
        return {
            "started": self.started,
            "models": {
                name: {
                    "routing": served.routing.to_dict(),
                    "versions": {
                        version: {
                            "digest": one.manifest.digest,
                            "content": one.manifest.content,
                            "backend": "tensorflow serving" if one.remote else one.manifest.backend,
                            "load_seconds": round(one.seconds, 4),
                        }
                        for version, one in served.versions.items()
                    },
                }
                for name, served in self.models.served.items()
            },
            "problems": dict(self.models.problems),
            "keys_problem": self.access.problem,
        }


@dataclass(slots=True)
class _Waiting:
    """A prediction whose parts are being answered, each by one version."""

    gateway: Gateway
    model: str
    request_id: str
    entities: list[str]
    draw: Callable[[list[dialects.Scored]], bytes]
    reply: Reply
    parts: int
    scored: list[dialects.Scored | None] = field(init=False)
    failure: Exception | None = None

    def __post_init__(self) -> None:
        self.scored = [None] * len(self.entities)

    def part(self, places: list[int], told: list[dialects.Scored] | VersionFailed | Unrecorded) -> None:
        """Take the answers to some of its rows; with the last ones, reply."""
        if isinstance(told, list):
            for place, one in zip(places, told, strict=True):
                self.scored[place] = one
        else:
            self.failure = told
        self.parts -= 1
        if not self.parts:
            try:
                answer = self._answer()
            except Exception:  # told to the client, like any failure
                log.exception("a prediction was not answered")
                answer = self.gateway._refusal(500, [_FAILED])
            self.reply(*answer)

    def _answer(self) -> tuple[int, Headers, bytes]:
        refusal = self.gateway._refusal
        if isinstance(self.failure, Unrecorded):
            return refusal(503, ["the prediction cannot be put on record; try again later"], _RETRY)
        if self.failure is not None:
            return refusal(500, [str(self.failure)])
        scored: list[dialects.Scored] = self.scored  # type: ignore[assignment]
        now = time.time()
        for entity, one in zip(self.entities, scored, strict=True):
            self.gateway.outcomes.predicted(self.model, one.request_id, entity, now)
        versions = ",".join(dict.fromkeys(one.version for one in scored)).encode()
        named = [_JSON, (b"x-request-id", self.request_id.encode()), (b"x-prodecks-version", versions)]
        return 200, named, self.draw(scored)


class ClientGone(Exception):
    """The client closed its connection before its request was whole."""


def _pattern(route: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{[a-z]+\\\}", r"[^/:]{1,80}", re.escape(route)))


def _route(method: str, path: str) -> tuple[str, str] | None:
    """Route of the matrix that a request belongs to; None when there is none."""
    method = "GET" if method == "HEAD" else method
    return next(
        ((method, route) for (known, pattern), route in _ROUTES.items() if known == method and pattern.fullmatch(path)),
        None,
    )


_ROUTES: dict[tuple[str, re.Pattern[str]], str] = {(method, _pattern(route)): route for method, route in MATRIX}


def _have_the_process() -> None:
    """Set the interpreter up for answering soon; called in a process that does nothing else."""
    # What was loaded stays: it is not looked through for garbage between requests, and young objects seldom.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    # The thread that has written a group waits at most this long for the loop to let it say so.
    sys.setswitchinterval(0.0005)


@contextlib.asynccontextmanager
async def running(gateway: Gateway) -> AsyncIterator[Gateway]:
    """Run a gateway without a server, for tests and tools that call it as ASGI."""
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()
