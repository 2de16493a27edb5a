"""Differences between the groups of a sensitive attribute, by fairlearn's definitions (R5.6)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lifecycle.measures import FAIRNESS

Floats = NDArray[np.float64]

MISSING_GROUP = "(missing)"

# What each difference compares, and what a group must have enough of before its figure is judged.
RATES: dict[str, tuple[str, str]] = {
    "demographic_parity_difference": ("selection_rate", "rows"),
    "equal_opportunity_difference": ("true_positive_rate", "positives"),
    "predictive_parity_difference": ("precision", "selected"),
}
assert RATES.keys() == FAIRNESS.keys()

_NEEDED_WORDS = {"rows": "rows", "positives": "positives", "selected": "positive decisions"}


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """One group of a sensitive attribute.

    Parameters
    ----------
    group, label
        Its value in the data and what people read.
    rows, positives, selected, true_positives
        Rows, rows of the positive class, positive decisions, and right positive decisions.
    selection_rate, true_positive_rate, precision
        Shares in 0..1; None where the group has no row, no positive or no positive decision.
    """

    group: str
    label: str
    rows: int
    positives: int
    selected: int
    true_positives: int
    selection_rate: float | None
    true_positive_rate: float | None
    precision: float | None


@dataclass(frozen=True, slots=True)
class Disparity:
    """One fairness measure over the groups of one attribute.

    Parameters
    ----------
    measure
        A name of `lifecycle.measures.FAIRNESS`.
    difference
        Largest minus smallest figure over the judged groups, 0..1; None with fewer than two judged groups.
    low, high
        Bootstrap interval of the difference.
    highest, lowest
        Labels of the two groups that make the difference.
    highest_value, lowest_value
        Their figures.
    judged
        Labels of the groups judged.
    no_data
        Label of each group too small to judge: why.
    smallest
        Rows of the smallest judged group; 0 when none is judged.
    """

    measure: str
    difference: float | None
    low: float | None
    high: float | None
    highest: str | None
    lowest: str | None
    highest_value: float | None
    lowest_value: float | None
    judged: tuple[str, ...]
    no_data: dict[str, str]
    smallest: int


@dataclass(frozen=True, slots=True)
class AttributeFairness:
    """All groups and measures of one sensitive attribute."""

    attribute: str
    groups: tuple[GroupFigures, ...]
    disparities: dict[str, Disparity]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AttributeFairness:
        """Inverse of `to_dict`, also after a round through JSON."""
        return cls(
            attribute=values["attribute"],
            groups=tuple(GroupFigures(**group) for group in values["groups"]),
            disparities={
                name: Disparity(**{**disparity, "judged": tuple(disparity["judged"])})
                for name, disparity in values["disparities"].items()
            },
        )
