"""HTTP connections that are slow on purpose are closed, before they take what others need (R5.7)."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 10.0
REQUEST_SECONDS = 60.0
READ_SECONDS = 60.0
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with an end to each wait on its client.

    uvicorn waits for ever on a request line, on headers, on a body, and on a client that does not read its answer; and
    it takes headers of any size.
    """

    head_seconds = HEAD_SECONDS
    """From the connection, or a request's first byte, to the end of its headers."""
    request_seconds = REQUEST_SECONDS
    """From the end of the headers to the last byte of the body, also of a body that was refused unread."""
    read_seconds = READ_SECONDS
    """Time in which a client must go on reading an answer that is too large for the buffers between."""

    _at = "idle"
    _moved = False
    _head_bytes = 0
    _arriving: asyncio.TimerHandle | None = None
    _leaving: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start to wait for the first request."""
        super().connection_made(transport)
        self._wait(self.head_seconds)

    def data_received(self, data: bytes) -> None:
        """Take bytes. A request that comes in one piece costs no timer."""
        self._moved = False
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._moved:
            self._arrived()
            self._head_bytes = 0
        elif self._at != "body":
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self.transport.write(_TOO_LARGE)
                self.transport.close()
                return
        if self._at == "body":
            self._wait(self.request_seconds)
        elif self._at == "head" or not self._moved:  # bytes that begin no request are waited for as little
            self._wait(self.head_seconds)

    def on_message_begin(self) -> None:
        """Note it."""
        self._at, self._moved = "head", True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note it."""
        self._at, self._moved = "body", True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note it."""
        self._at, self._moved = "idle", True
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Give the client its time to read."""
        super().pause_writing()
        self._leaving = self.loop.call_later(self.read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: it reads."""
        super().resume_writing()
        if self._leaving is not None:
            self._leaving.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._arrived()
        if self._leaving is not None:
            self._leaving.cancel()
        super().connection_lost(exc)

    def _wait(self, seconds: float) -> None:
        if self._arriving is None:
            self._arriving = self.loop.call_later(seconds, self.transport.abort)

    def _arrived(self) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None
