"""What was measured, against what, and what follows: the one value that gates, rollouts and alerts all read."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


class Verdict(enum.IntEnum):
    """Ordered best to worst, so that the verdict of many findings is their maximum."""

    PASS = 0
    WARN = 1
    NO_DATA = 2
    FAIL = 3

    @property
    def label(self) -> str:
        """The word people read, for example ``no data``."""
        return self.name.lower().replace("_", " ")

    @property
    def mark(self) -> str:
        """The sign that stands before the word: both carry the verdict, colour only helps."""
        return "✓!?✗"[self]


class Direction(enum.StrEnum):
    """Which side of the threshold is accepted; the threshold itself always is."""

    AT_LEAST = "at_least"
    AT_MOST = "at_most"

    @property
    def sign(self) -> str:
        """The comparison as a sign, for tables."""
        return "≥" if self is Direction.AT_LEAST else "≤"

    def accepts(self, value: float, threshold: float) -> bool:
        """Whether a value (not NaN) is on the accepted side of the threshold."""
        return value >= threshold if self is Direction.AT_LEAST else value <= threshold


class Severity(enum.StrEnum):
    """What a missed threshold means: an error blocks, a warning is told."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One measurement and its verdict.

    Parameters
    ----------
    measure
        Name of what was measured, for example ``roc_auc``.
    subject
        Whom or what it was measured on: ``all rows``, ``gender``, ``carrier=AA``, a feature, a baseline.
    value
        The measurement in the measure's own unit; None when it could not be taken.
    threshold
        What it was compared with, in the same unit; None where nothing was asked.
    direction
        The accepted side of the threshold.
    window
        The data behind the value, in words a reader can look up.
    verdict
        What follows.
    reason
        One sentence for people; it names the missing count when the verdict is NO_DATA.
    count
        Rows behind the value.
    interval
        Confidence interval of the value, lower and upper bound, when one was computed.
    """

    measure: str
    subject: str
    value: float | None
    threshold: float | None
    direction: Direction
    window: str
    verdict: Verdict
    reason: str
    count: int | None = None
    interval: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values; the verdict is its name."""
        return {**asdict(self), "verdict": self.verdict.name, "direction": self.direction.value}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Finding:
        """Inverse of `to_dict`."""
        interval = values.get("interval")
        return cls(
            **{
                **values,
                "verdict": Verdict[values["verdict"]],
                "direction": Direction(values["direction"]),
                "interval": None if interval is None else (interval[0], interval[1]),
            }
        )


def judge(
    measure: str,
    value: float | None,
    threshold: float,
    direction: Direction,
    *,
    window: str,
    subject: str = "all rows",
    count: int | None = None,
    min_count: int = 1,
    severity: Severity = Severity.ERROR,
    interval: tuple[float, float] | None = None,
    missing: str | None = None,
) -> Finding:
    """Compare one measurement with its threshold.

    A value that is None, NaN or infinite, or that rests on fewer than `min_count` rows, is NO_DATA: it
    neither passes nor fails, because ``nan < 0.8`` being false would otherwise let it through.

    Parameters
    ----------
    measure, subject, value, threshold, direction, window, count, interval
        As in `Finding`.
    min_count
        Rows below which the value is not judged.
    severity
        ERROR turns a missed threshold into FAIL, WARNING into WARN.
    missing
        Why there is no value, when the caller knows.
    """

    def found(verdict: Verdict, reason: str) -> Finding:
        return Finding(measure, subject, value, threshold, direction, window, verdict, reason, count, interval)

    if count is not None and count < min_count:
        return found(Verdict.NO_DATA, f"{measure} on {subject}: {count} rows, {min_count} needed to judge")
    if value is None or not math.isfinite(value):
        return found(Verdict.NO_DATA, f"{measure} on {subject}: {missing or 'no finite value'}")
    if direction.accepts(value, threshold):
        return found(Verdict.PASS, f"{measure} on {subject} is {value:.4g}, {direction.sign} {threshold:.4g} as asked")
    verdict = Verdict.FAIL if severity is Severity.ERROR else Verdict.WARN
    return found(verdict, f"{measure} on {subject} is {value:.4g}; accepted: {direction.sign} {threshold:.4g}")


def worst(findings: Iterable[Finding]) -> Verdict:
    """The verdict of many findings: their worst; no finding at all is NO_DATA."""
    return max((finding.verdict for finding in findings), default=Verdict.NO_DATA)
