"""A lane of its own for each version that is asked over the network: a slow one holds up nobody but itself (R4.3)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

CALLS = 4
"""Calls of one version at a time; what comes meanwhile waits, and goes together in the next one."""
ROWS_A_CALL = 4_096
MOST_WAITING_ROWS = 20_000

Scores = npt.NDArray[np.float64]


class LaneFullError(Exception):
    """More rows wait for a version than it will answer in good time."""


class Lane:
    """Scores rows of one version in threads of its own.

    Parameters
    ----------
    score
        Scores rows, in a thread; called by up to `CALLS` at once.
    """

    def __init__(self, score: Callable[[Sequence[Any]], Scores]) -> None:
        self._score = score
        self._threads = ThreadPoolExecutor(CALLS, "lane")
        self._waiting: deque[tuple[Sequence[Any], asyncio.Future[Scores]]] = deque()
        self._rows = 0
        self._calls: set[asyncio.Task[None]] = set()

    async def score(self, rows: Sequence[Any]) -> Scores:
        """Scores of rows, together with what else waits; whatever the version raises, and LaneFullError."""
        if self._rows + len(rows) > MOST_WAITING_ROWS:
            raise LaneFullError(f"{self._rows:,} rows wait already; accepted: at most {MOST_WAITING_ROWS:,}")
        done: asyncio.Future[Scores] = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, done))
        self._rows += len(rows)
        self._fill()
        return await done

    def _fill(self) -> None:
        while self._waiting and len(self._calls) < CALLS:
            together = [self._waiting.popleft()]
            count = len(together[0][0])
            while self._waiting and count + len(self._waiting[0][0]) <= ROWS_A_CALL:
                together.append(self._waiting.popleft())
                count += len(together[-1][0])
            call = asyncio.get_running_loop().create_task(self._call(together, count))
            self._calls.add(call)
            call.add_done_callback(self._ended)

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._fill()

    async def _call(self, together: list[tuple[Sequence[Any], asyncio.Future[Scores]]], count: int) -> None:
        rows = [row for some, _ in together for row in some]
        scores, failed = np.empty(0), None
        try:
            scores = await asyncio.get_running_loop().run_in_executor(self._threads, self._score, rows)
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits for it is told
            failed = error
        finally:
            self._rows -= count
        start = 0
        for some, done in together:
            if done.done():  # nobody waits any more
                pass
            elif failed is not None:
                done.set_exception(failed)
            else:
                done.set_result(scores[start : start + len(some)])
            start += len(some)
