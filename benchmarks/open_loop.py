"""An open loop of requests over plain asyncio streams: each is sent when its time has come, whatever became of those before.

A client of a few lines, because it shares the machine with what it measures.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from tests.cli.hand_made import PREDICT


class OpenLoop:
    """Sends rows to one gateway at a rate.

    Parameters
    ----------
    address
        The gateway's.
    rate
        Requests/s.
    rows
        The row of each request, by its number.
    """

    def __init__(self, address: str, rate: float, rows: Callable[[int], dict[str, object]]) -> None:
        found = urlsplit(address)
        self._host, self._port = found.hostname, found.port
        self._rate, self._rows = rate, rows
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self.answered: list[tuple[int, float]] = []
        """Status, and seconds from when it was due."""
        self.sent_rate = 0.0
        """Requests/s that this machine really sent."""

    async def run(self, seconds: float, stop: asyncio.Event | None = None) -> None:
        """Send for so long, or until told to stop, then wait for what is under way."""
        began, number = time.monotonic(), 0
        while number < seconds * self._rate and not (stop is not None and stop.is_set()):
            due = began + number / self._rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(self._ask(self._rows(number), due))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            number += 1
        self.sent_rate = number / max(time.monotonic() - began, 1e-9)
        await asyncio.gather(*self._under_way)

    def close(self) -> None:
        """Let go of the connections."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()

    async def _ask(self, row: dict[str, object], due: float) -> None:
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self._port)
        body = json.dumps({"rows": [row]}).encode()
        head = f"POST {PREDICT} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        told = await reader.readuntil(b"\r\n\r\n")
        length = int(told.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        self.answered.append((int(told.split()[1]), time.monotonic() - due))
        self._idle.append((reader, writer))
