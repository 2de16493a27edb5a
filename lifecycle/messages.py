"""What is told of an alert, as a value that any channel can take its part of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Message:
    """One alert in one person's language and clock.

    Parameters
    ----------
    title
        One line.
    text
        All of it, as plain lines.
    html
        The same for e-mail.
    short
        At most 160 characters, for SMS.
    speech
        What is read out on the phone; English, the language that every voice speaks.
    facts
        The same for machines; JSON-ready.
    picture
        PNG of the measure's last values, where there are some.
    """

    title: str
    text: str
    html: str
    short: str
    speech: str
    facts: dict[str, Any]
    picture: bytes | None = None


def sparkline(values: Sequence[float]) -> str:
    """Values as a line of blocks, lowest to highest; empty for none.

    >>> sparkline([1, 2, 3, 8])
    '▁▂▃█'
    >>> sparkline([5, 5])
    '▁▁'
    """
    numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return ""
    low, high = numbers.min(), numbers.max()
    # Halved first: the span of very large numbers of both signs is not finite.
    span = high / 2 - low / 2
    steps = np.zeros(len(numbers)) if span == 0 else (numbers / 2 - low / 2) / span * (len(BLOCKS) - 1)
    return "".join(BLOCKS[int(step)] for step in steps)
