"""HTTP/1.1 for the gateway: uvicorn's protocol, which hands a whole prediction over without a task and an ASGI cycle (R5.1).

A prediction that came in one piece, on a connection that waits for nothing else, is read, queued and answered by plain calls,
and its answer is one write. Everything else goes uvicorn's way: other routes, bodies in pieces, pipelined requests,
clients that are not let in, and clients that do not read their answers.
"""

from __future__ import annotations

import time
from functools import lru_cache, partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from serving.connections import Connection
from serving.dialects import target

if TYPE_CHECKING:
    from serving.gateway import Gateway, Headers

LONGEST_PATH = 200
_STATUS = {one.value: f"HTTP/1.1 {one.value} {one.phrase}\r\n".encode() for one in HTTPStatus}
_target = lru_cache(1_024)(target)


class GatewayProtocol(Connection):
    """One connection; made by uvicorn.

    Parameters
    ----------
    gateway
        Who answers.
    """

    def __init__(self, *, gateway: Gateway, **given: Any) -> None:
        super().__init__(**given)
        self._gateway = gateway
        self._reading = False
        self._held: tuple[RequestResponseCycle, Any] | None = None

    def data_received(self, data: bytes) -> None:
        """Read what came; a prediction of which only a part has come is left to its ASGI cycle."""
        self._reading = True
        super().data_received(data)
        self._reading = False
        if self._held is not None:
            self._let_go()

    def on_message_complete(self) -> None:
        """Answer a prediction that is whole."""
        super().on_message_complete()
        if self._held is None:
            return
        cycle = self._held[0]
        path = cycle.scope["path"]
        asked = _target(path) if len(path) <= LONGEST_PATH else None
        reply = partial(self._reply, cycle)
        if asked is None or not self._gateway.predict(cycle.scope, asked, bytes(cycle.body), time.monotonic(), reply):
            self._let_go()
        self._held = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # Called when the headers are there; the body comes with them, as a rule.
        alone = self._reading and self._held is None and not self.flow.write_paused
        if alone and cycle.scope["method"] == "POST" and not cycle.waiting_for_100_continue:
            self._held = cycle, app
        else:
            super()._start_asgi_task(cycle, app)

    def _let_go(self) -> None:
        assert self._held is not None
        (cycle, app), self._held = self._held, None
        super()._start_asgi_task(cycle, app)

    def _reply(self, cycle: RequestResponseCycle, status: int, headers: Headers, body: bytes) -> None:
        if cycle.disconnected:
            return
        parts = [_STATUS[status]]
        for name, value in (*cycle.default_headers, *headers):
            parts += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            parts.append(b"connection: close\r\n")
        parts += (b"content-length: ", str(len(body)).encode(), b"\r\n\r\n", body)
        cycle.response_started = cycle.response_complete = True
        self.transport.write(b"".join(parts))
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()
