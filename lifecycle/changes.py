"""How big a change a version is to the one that is live: from what both were made of, with the reasons (R10.3)."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

FIRST = "the first version here: nothing live to compare it with"
UNKNOWN = "what it or the live version was made from is not on record"
SAME = "the live version's settings on other data"

LARGE = frozenset(
    {
        "features",
        "label",
        "sensitivity",
        "sensitive",
        "after_event",
        "source.table",
        "source.timestamp",
        "source.entity_key",
        "source.derived",
        "source.joins",
        "source.where",
    }
)
"""What the model sees, predicts, or may do harm with."""
MEDIUM = frozenset(
    {
        "training",
        "evaluation",
        "business",
        "rollout",
        "quality",
        "monitoring",
        "retraining",
        "tier",
        "source.window",
        "source.max_rows",
    }
)
"""How it is made, judged and watched."""
TOLD = frozenset({"name", "description", "owner", "retention", "label.meaning", "training.seed"})
"""Words, and what changes no more than a training on other data does."""
_WORDS = frozenset({"meaning", "labels"})


class ChangeSize(enum.StrEnum):
    """How much of a model a new version changes."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


@dataclass(frozen=True, slots=True)
class Sized:
    """A size with its reasons, the weightiest first."""

    size: ChangeSize
    reasons: tuple[str, ...]


def size_of_change(live: str | None, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Sized:
    """Compare what two versions were made from.

    Parameters
    ----------
    live
        The version that is live; None before the first.
    before, after
        Model files of the live version and of the candidate as they were trained, as plain values
        (``ModelSpec.model_dump(mode="json")``); None when not on record.

    Returns
    -------
    Sized
        LARGE: the first version, or other features, label, sensitivity or source, or not to be told. MEDIUM: other
        settings of training, evaluation or operation. SMALL: nothing but data, seed and words.
    """
    if live is None:
        return Sized(ChangeSize.LARGE, (FIRST,))
    if before is None or after is None:
        return Sized(ChangeSize.LARGE, (UNKNOWN,))
    found = [(_size(path), f"{path}: {told}") for path, told in _differences(before, after)]
    order = list(ChangeSize)
    found.sort(key=lambda one: -order.index(one[0]))
    if not found or found[0][0] is ChangeSize.SMALL:
        return Sized(ChangeSize.SMALL, (SAME, *(reason for _, reason in found)))
    return Sized(found[0][0], tuple(reason for _, reason in found))


def _size(path: str) -> ChangeSize:
    parts = path.split(".")
    prefixes = {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
    # A feature's name may be anything: its words are known by their place below it.
    if prefixes & TOLD or (parts[0] in ("features", "sensitive") and len(parts) > 2 and parts[2] in _WORDS):
        return ChangeSize.SMALL
    return ChangeSize.LARGE if prefixes & LARGE else ChangeSize.MEDIUM


def _differences(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Dotted path and what differs there; rows of named things are compared by name."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys((*before, *after)):
            below = f"{path}.{key}" if path else str(key)
            if key not in after:
                yield below, "left out"
            elif key not in before:
                yield below, "new"
            else:
                yield from _differences(before[key], after[key], below)
    elif (mine := _named(before)) is not None and (its := _named(after)) is not None:
        yield from _differences(mine, its, path)
        if mine.keys() == its.keys() and list(mine) != list(its):
            yield path, "in another order"
    elif before != after:
        yield path, f"{_short(before)} before, {_short(after)} now"


def _named(rows: Any) -> dict[str, Any] | None:
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) and "name" in row for row in rows):
        return None
    return {str(row["name"]): row for row in rows}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
