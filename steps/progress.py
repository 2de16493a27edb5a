"""What long steps tell while they run; whoever shows it listens, and nobody has to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened inside a step.

    Parameters
    ----------
    phase
        Name of the step.
    text
        What people read.
    done, total
        How far the phase is, in its own units; total is None where nobody can tell.
    """

    phase: str
    text: str
    done: int = 0
    total: int | None = None


_listeners: list[Callable[[Event], None]] = []


def tell(phase: str, text: str, done: int = 0, total: int | None = None) -> None:
    """Tell every listener of this process."""
    for listener in _listeners:
        listener(Event(phase, text, done, total))


@contextlib.contextmanager
def listening(listener: Callable[[Event], None]) -> Iterator[None]:
    """Hear the events of steps that run in this process."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
