"""Bias of a window: the groups' differences on the labels there are, over intersections too, and what has changed (R5.6)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from lifecycle.drift import Evidence, judge_distance
from lifecycle.fairness import RATES, AttributeFairness, Disparity, attribute_fairness, group_names
from lifecycle.findings import Direction, Finding, Severity, Verdict, judge
from lifecycle.spec import Evaluation as Rules

ALPHA = 0.01
CHANGE = 0.01
"""Largest accepted rise of a difference over the reference's (R6.2)."""
BETWEEN = " × "

# What each measure is the rate of, and of which rows: fields of a group's figures.
_EVENTS = {
    "demographic_parity_difference": ("selected", "rows"),
    "equal_opportunity_difference": ("true_positives", "positives"),
    "predictive_parity_difference": ("true_positives", "selected"),
}
assert _EVENTS.keys() == RATES.keys()


def intersections(attributes: Mapping[str, ArrayLike]) -> dict[str, NDArray[np.object_]]:
    """Each attribute's groups, and those of every combination of attributes.

    Parameters
    ----------
    attributes
        Attribute: each row's group, shape (rows,).

    Returns
    -------
    dict
        ``gender``, ``region``, ``gender × region`` and so on: each row's group.
    """
    names = {name: group_names(values) for name, values in attributes.items()}
    found = dict(names)
    coded = {name: pd.factorize(groups) for name, groups in names.items()}
    for size in range(2, len(names) + 1):
        for chosen in combinations(names, size):
            codes, groups = coded[chosen[0]]
            for name in chosen[1:]:
                more, others = coded[name]
                there, codes = np.unique(codes * len(others) + more, return_inverse=True)
                pairs = zip(groups[there // len(others)], others[there % len(others)], strict=True)
                groups = np.array([BETWEEN.join(pair) for pair in pairs], dtype=object)
            found[BETWEEN.join(chosen)] = groups[codes]
    return found


@dataclass(frozen=True, slots=True)
class WindowFairness:
    """The groups of one attribute: on all rows, for what needs no label, and on the rows whose label has arrived."""

    everyone: AttributeFairness
    labelled: AttributeFairness

    def table(self, measure: str) -> AttributeFairness:
        """The rows that a measure is taken on."""
        return self.everyone if measure == "demographic_parity_difference" else self.labelled


def window_fairness(
    attribute: str,
    groups: ArrayLike,
    labels: ArrayLike,
    decisions: ArrayLike,
    rules: Rules,
    names: Mapping[str, str] | None = None,
    seed: int = 0,
) -> WindowFairness:
    """Compare groups while labels are still arriving.

    Parameters
    ----------
    attribute, groups, decisions, rules, names, seed
        As in `lifecycle.fairness.attribute_fairness`.
    labels
        Shape (rows,): 0 or 1, NaN where the label has not arrived.
    """
    outcome = np.asarray(labels, dtype=np.float64)
    known = ~np.isnan(outcome)
    group_of, decided = group_names(groups), np.asarray(decisions)
    return WindowFairness(
        attribute_fairness(attribute, group_of, outcome, decided, rules, names, seed),
        attribute_fairness(attribute, group_of[known], outcome[known], decided[known], rules, names, seed),
    )


def judge_bias(
    current: WindowFairness,
    reference: WindowFairness | None,
    limit: float,
    rules: Rules,
    *,
    window: str,
    change: float = CHANGE,
    alpha: float = ALPHA,
) -> list[Finding]:
    """Judge one attribute's differences, and their rise over the reference's.

    Parameters
    ----------
    current
        The window.
    reference
        The reference window; None leaves the rise out.
    limit
        ``monitoring.bias`` of the model file.
    rules
        Level of the intervals.
    window
        In words.
    change
        Largest accepted rise.
    alpha
        Chance of any false finding on this attribute; shared out over its tests.

    Returns
    -------
    list of Finding
        For each measure the difference, a failure above the limit unless chance makes as large a one of groups that
        are treated alike; then ``<measure>_rise``, a warning above `change` unless the two windows' intervals explain
        it. Fewer than two groups large enough are NO_DATA.
    """
    each = alpha / (2 * len(RATES))
    findings: list[Finding] = []
    for measure in RATES:
        table = current.table(measure)
        attribute, disparity = table.attribute, table.disparities[measure]
        if disparity.difference is None:
            why = "; ".join(f"{group}: {reason}" for group, reason in disparity.no_data.items())
            missing = f"two groups large enough are needed; {why or 'no row has what it takes'}"
            findings.append(
                judge(measure, None, limit, Direction.AT_MOST, window=window, subject=attribute, missing=missing)
            )
            continue
        found = judge_distance(
            attribute,
            measure,
            disparity.difference,
            limit,
            disparity.smallest,
            window,
            Evidence(_alike_p_value(measure, table, disparity)),
            each,
            min_rows=0,
            severity=Severity.ERROR,
        )
        told = f"{disparity.highest} {disparity.highest_value:.4g}, {disparity.lowest} {disparity.lowest_value:.4g}"
        bounds = None if disparity.low is None or disparity.high is None else (disparity.low, disparity.high)
        findings.append(replace(found, reason=f"{found.reason}: {told}", interval=bounds))
        before = reference.table(measure).disparities[measure] if reference is not None else None
        if before is not None and before.difference is not None:
            findings.append(
                judge_distance(
                    attribute,
                    f"{measure}_rise",
                    disparity.difference - before.difference,
                    change,
                    disparity.smallest,
                    window,
                    Evidence(_rise_p_value(before, disparity, rules.confidence)),
                    each,
                    min_rows=0,
                )
            )
    return findings


def told_apart(findings: list[Finding]) -> list[Finding]:
    """Findings of an intersection without those that say only that its groups are too small: they always are."""
    return [finding for finding in findings if finding.verdict is not Verdict.NO_DATA]


def _alike_p_value(measure: str, table: AttributeFairness, disparity: Disparity) -> float:
    """Chance of rates as different as these if all judged groups had one: the chi-square test of homogeneity."""
    events, base = _EVENTS[measure]
    judged = [figures for figures in table.groups if figures.label in disparity.judged]
    yes = np.array([getattr(figures, events) for figures in judged], dtype=np.float64)
    cells = np.array([yes, np.array([getattr(figures, base) for figures in judged]) - yes])
    if (cells.sum(axis=1) == 0).any():
        return 1.0
    return float(stats.chi2_contingency(cells, correction=False).pvalue)


def _rise_p_value(before: Disparity, now: Disparity, confidence: float) -> float:
    """Chance of as large a rise of a difference that did not rise, by the width of the two intervals; one-sided."""
    ends = (before.low, before.high, now.low, now.high)
    if any(end is None for end in ends) or before.difference is None or now.difference is None:
        return math.nan
    usual = float(stats.norm.isf((1 - confidence) / 2))
    low_before, high_before, low_now, high_now = (float(end) for end in ends if end is not None)
    spread = math.hypot(high_before - low_before, high_now - low_now) / (2 * usual)
    rise = now.difference - before.difference
    return float(stats.norm.sf(rise / spread)) if spread > 0 else float(rise <= 0)
