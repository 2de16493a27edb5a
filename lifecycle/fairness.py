"""Differences between the groups of a sensitive attribute, by fairlearn's definitions (R5.6)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lifecycle.measures import FAIRNESS
from lifecycle.metrics import interval
from lifecycle.spec import Evaluation as Rules

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


def group_names(values: ArrayLike) -> NDArray[np.object_]:
    """Each row's group as text; null is a group of its own, `MISSING_GROUP`."""
    codes, found = pd.factorize(pd.Series(values).astype(object))
    # The last name is where code -1, of a null, points.
    return np.array([*(str(value) for value in found), MISSING_GROUP], dtype=object)[codes]


def attribute_fairness(
    attribute: str,
    groups: ArrayLike,
    labels: ArrayLike,
    decisions: ArrayLike,
    rules: Rules,
    names: Mapping[str, str] | None = None,
    seed: int = 0,
) -> AttributeFairness:
    """Compare the groups of one attribute by demographic parity, equal opportunity and predictive parity.

    A difference is the largest less the smallest figure over the groups large enough to judge, as fairlearn
    defines it (Agarwal et al., 2018; Hardt et al., 2016; Chouldechova, 2017).

    Parameters
    ----------
    attribute
        Name of the attribute.
    groups
        Shape (rows,): each row's group, null allowed.
    labels, decisions
        Shape (rows,): outcome and decision, 0 or 1.
    rules
        Says how large a group has to be, and level and number of the bootstrap.
    names
        Group: what people read.
    seed
        Of the bootstrap.
    """
    group_of = group_names(groups)
    positive = np.asarray(labels) == 1
    selected = np.asarray(decisions) == 1
    # Not numpy's unique: as fixed-width text, one long value would widen every row.
    index, found = pd.factorize(group_of, sort=True)
    # Rows by group, outcome, decision: all that the three measures, and every resample of them, depend on.
    cells = np.zeros((len(found), 2, 2), dtype=np.int64)
    np.add.at(cells, (index, positive.astype(np.intp), selected.astype(np.intp)), 1)

    table = tuple(
        _figures(group, (names or {}).get(group, group), cell)
        for group, cell in zip(found.tolist(), cells, strict=True)
    )
    rng = np.random.default_rng(seed)
    total = int(cells.sum())
    resampled = (
        rng.multinomial(total, cells.ravel() / total, size=rules.bootstrap).reshape(-1, *cells.shape)
        if total
        else np.zeros((0, *cells.shape), dtype=np.int64)
    )
    return AttributeFairness(
        attribute, table, {measure: _disparity(measure, table, resampled, rules) for measure in RATES}
    )


def _figures(group: str, label: str, cell: NDArray[np.int64]) -> GroupFigures:
    rows, positives = int(cell.sum()), int(cell[1].sum())
    selected, right = int(cell[:, 1].sum()), int(cell[1, 1])
    return GroupFigures(
        group,
        label,
        rows,
        positives,
        selected,
        right,
        selection_rate=selected / rows if rows else None,
        true_positive_rate=right / positives if positives else None,
        precision=right / selected if selected else None,
    )


def _rates(measure: str, cells: NDArray[np.int64]) -> Floats:
    """Figure of each group; shape (..., groups, outcome, decision) gives (..., groups), NaN without a base."""
    right, selected, positives = cells[..., 1, 1], cells[..., 1].sum(axis=-1), cells[..., 1, :].sum(axis=-1)
    part, base = {
        "rows": (selected, cells.sum(axis=(-1, -2))),
        "positives": (right, positives),
        "selected": (right, selected),
    }[RATES[measure][1]]
    rates: Floats = np.full(part.shape, math.nan)
    np.divide(part, base, out=rates, where=base > 0)
    return rates


def _too_small(measure: str, group: GroupFigures, rules: Rules) -> str | None:
    """Why a group cannot be judged by a measure; None when it can."""
    needs = [("rows", rules.min_group_rows)]
    if RATES[measure][1] != "rows":
        needs.append((RATES[measure][1], rules.min_group_class_rows))
    lacking = [
        f"{getattr(group, what)} {_NEEDED_WORDS[what]}, {least} needed"
        for what, least in needs
        if getattr(group, what) < least
    ]
    return "; ".join(lacking) or None


def _disparity(measure: str, table: tuple[GroupFigures, ...], resampled: NDArray[np.int64], rules: Rules) -> Disparity:
    figure = RATES[measure][0]
    reasons = [_too_small(measure, group, rules) for group in table]
    no_data = {group.label: reason for group, reason in zip(table, reasons, strict=True) if reason is not None}
    judged = [place for place, reason in enumerate(reasons) if reason is None]
    labels = tuple(table[place].label for place in judged)
    smallest = min((table[place].rows for place in judged), default=0)
    if len(judged) < 2:
        return Disparity(measure, None, None, None, None, None, None, None, labels, no_data, smallest)
    values = {place: float(getattr(table[place], figure)) for place in judged}
    highest, lowest = max(values, key=values.__getitem__), min(values, key=values.__getitem__)
    difference = values[highest] - values[lowest]
    rates = _rates(measure, resampled[:, judged])
    spread = rates.max(axis=1) - rates.min(axis=1)
    low, high = interval(spread, rules.confidence, centre=difference, low=0.0, high=1.0)
    return Disparity(
        measure,
        difference,
        low if math.isfinite(low) else None,
        high if math.isfinite(high) else None,
        table[highest].label,
        table[lowest].label,
        values[highest],
        values[lowest],
        labels,
        no_data,
        smallest,
    )
