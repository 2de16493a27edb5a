"""A lane of its own for each version that is slow, or asked over the network: it holds up nobody but itself (R4.3)."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

CALLS = 4
"""Calls of one version over the network at a time; what comes meanwhile waits, and goes together in the next one."""
ROWS_A_CALL = 4_096
MOST_WAITING_ROWS = 20_000
ROWS_IN_LOOP = 256
"""More rows than this are scored in a thread, so that other requests are read meanwhile."""
DEADLINE_S = 5.0
"""Rows of a version in this process fail after so long a wait in its lane."""
SLOW_S = 0.02
"""A version whose calls take longer, smoothed, holds the others up: its rows go by the lane."""
WEIGHT = 0.25
"""Of the newest call in what is smoothed: four times `SLOW_S` show at once, a short stall of the machine does not."""
QUICK_CALLS = 8
MOST_QUICK_CALLS = 4_096

Scores = npt.NDArray[np.float64]
Waiting = tuple[Sequence[Any], asyncio.Future[Scores]]


class LaneFullError(Exception):
    """More rows wait for a version than it will answer in good time."""


@dataclass(slots=True)
class Pace:
    """How quick a version is, and whether its rows are kept apart from the others' for it.

    It begins apart, and joins the others after `QUICK_CALLS` quick calls in a row. Each time it turns slow again it needs
    twice as many, so that one that is slow now and then stalls the others a few times in all.

    Parameters
    ----------
    apart
        Whether its rows go by its lane.
    smoothed
        Seconds a call has taken lately.
    quick, needed
        Quick calls in a row while apart, and how many let it join.

    Examples
    --------
    >>> pace = Pace()
    >>> for _ in range(8): pace.took(0.001, 1)
    >>> pace.apart
    False
    >>> pace.took(0.2, 1)
    >>> pace.apart, pace.needed
    (True, 16)
    """

    apart: bool = True
    smoothed: float = 0.0
    quick: int = 0
    needed: int = QUICK_CALLS

    def took(self, seconds: float, rows: int) -> None:
        """Take note of a call; of one with more rows than are scored in the loop, the part that so many took."""
        seconds /= max(1.0, rows / ROWS_IN_LOOP)
        if self.apart:
            self.quick = self.quick + 1 if seconds <= SLOW_S else 0
            if self.quick >= self.needed:
                self.apart, self.smoothed = False, 0.0
            return
        self.smoothed += WEIGHT * (seconds - self.smoothed)
        if self.smoothed > SLOW_S:
            self.apart, self.quick, self.needed = True, 0, min(2 * self.needed, MOST_QUICK_CALLS)


class Lane:
    """Scores rows of one version in threads of its own.

    Parameters
    ----------
    score
        Scores rows, in a thread; called by up to `calls` at once.
    calls
        Calls at a time.
    deadline
        Seconds after which rows that wait fail; None when `score` has a deadline itself.
    """

    def __init__(self, score: Callable[[Sequence[Any]], Scores], calls: int, deadline: float | None = None) -> None:
        self._score, self._calls, self._deadline = score, calls, deadline
        self._waiting: deque[Waiting] = deque()
        self._rows = 0
        self._busy = 0

    async def score(self, rows: Sequence[Any]) -> Scores:
        """Scores of rows, together with what else waits; whatever the version raises, LaneFullError, and TimeoutError."""
        if self._rows + len(rows) > MOST_WAITING_ROWS:
            raise LaneFullError(f"{self._rows:,} rows wait already; accepted: at most {MOST_WAITING_ROWS:,}")
        done: asyncio.Future[Scores] = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, done))
        self._rows += len(rows)
        self._fill()
        try:
            ended, _ = await asyncio.wait({done}, timeout=self._deadline)
            if not ended:
                raise TimeoutError(f"no score within {self._deadline:g} s")
            return done.result()
        finally:
            done.cancel()

    def _fill(self) -> None:
        while self._waiting and self._busy < self._calls:
            together: list[Waiting] = []
            count = 0
            while self._waiting and (not together or count + len(self._waiting[0][0]) <= ROWS_A_CALL):
                some, done = self._waiting.popleft()
                if done.done():  # nobody waits any more
                    self._rows -= len(some)
                else:
                    together.append((some, done))
                    count += len(some)
            if together:
                self._busy += 1
                # A daemon: a version that never returns keeps no gateway from ending.
                loop = asyncio.get_running_loop()
                threading.Thread(target=self._call, args=(loop, together), name="lane", daemon=True).start()

    def _call(self, loop: asyncio.AbstractEventLoop, together: list[Waiting]) -> None:
        scores, failed = np.empty(0), None
        try:
            scores = self._score([row for some, _ in together for row in some])
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits for it is told
            failed = error
        with contextlib.suppress(RuntimeError):  # the gateway has ended meanwhile
            loop.call_soon_threadsafe(self._end, together, scores, failed)

    def _end(self, together: list[Waiting], scores: Scores, failed: Exception | None) -> None:
        self._busy -= 1
        start = 0
        for some, done in together:
            self._rows -= len(some)
            if done.done():  # nobody waits any more
                pass
            elif failed is not None:
                done.set_exception(failed)
            else:
                done.set_result(scores[start : start + len(some)])
            start += len(some)
        self._fill()
