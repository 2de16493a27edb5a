"""Suspected leaks: a single feature that ranks the label too well to have been known before it (R3.5, R5.5)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lifecycle.findings import Direction, Finding, Severity, judge
from lifecycle.spec import ModelSpec

MEASURE = "single_feature_auc"


def suspected_leaks(frame: pd.DataFrame, spec: ModelSpec, window: str) -> list[Finding]:
    """Judge every feature by how well it ranks the label alone.

    Parameters
    ----------
    frame
        A snapshot's rows.
    spec
        Names the features, the label, and ``quality.leak_auc``, above which a feature is reported.
    window
        The window in words, for the findings.

    Returns
    -------
    list of Finding
        One for each feature in the file's order: PASS, WARN (suspected leak), or NO_DATA when a class has fewer than
        ``evaluation.min_group_class_rows`` rows or the feature has no value.
    """
    label = frame[spec.label.column].to_numpy() == 1
    rarer = int(min(label.sum(), len(label) - label.sum()))
    needed = spec.evaluation.min_group_class_rows
    findings = []
    for feature in spec.features:
        auc, missing = None, f"{rarer} rows of the rarer class, {needed} needed to judge"
        if rarer >= needed:
            if feature.type == "numeric":
                auc = numeric_auc(frame[feature.name].to_numpy(dtype=np.float64), label)
            else:
                auc = categorical_auc(frame[feature.name], label, spec.training.seed)
            missing = "every value is missing"
        findings.append(
            judge(
                MEASURE,
                auc,
                spec.quality.leak_auc,
                Direction.AT_MOST,
                window=window,
                subject=feature.name,
                count=len(frame),
                severity=Severity.WARNING,
                missing=missing,
            )
        )
    return findings


def numeric_auc(values: npt.NDArray[np.float64], label: npt.NDArray[np.bool_]) -> float | None:
    """ROC AUC of a number as a score for the label, in the better direction.

    Missing values count as one tie below, or above, all others, whichever ranks better: that a value is missing can
    give the label away as well. The area is the Mann-Whitney statistic (Hanley and McNeil, 1982).

    Parameters
    ----------
    values
        Shape (rows,); NaN is missing, infinities are ordinary.
    label
        Shape (rows,); True is the positive class.

    Returns
    -------
    float or None
        Between 0.5 and 1; None when a class or every value is missing.

    Examples
    --------
    >>> numeric_auc(np.array([1.0, 2.0, 3.0, 4.0]), np.array([True, True, False, False]))
    1.0
    """
    present = ~np.isnan(values)
    positives, negatives = int(label.sum()), int((~label).sum())
    if not positives or not negatives or not present.any():
        return None
    order = np.argsort(values[present])
    ranked, known = values[present][order], label[present][order]
    level = np.cumsum(np.concatenate([[False], ranked[1:] != ranked[:-1]]))
    with_value, without = int(known.sum()), int((~known).sum())
    above = _pairs_won(np.bincount(level, weights=known), np.bincount(level, weights=~known))
    missing_positive, missing_negative = positives - with_value, negatives - without
    tied = missing_positive * missing_negative / 2
    pairs = positives * negatives
    areas = (
        (above + with_value * missing_negative + tied) / pairs,  # missing is lowest
        (above + missing_positive * without + tied) / pairs,  # missing is highest
    )
    return max(max(area, 1 - area) for area in areas)


def categorical_auc(values: pd.Series[str], label: npt.NDArray[np.bool_], seed: int) -> float | None:
    """ROC AUC of a category's positive rate, learned on one half of the rows and measured on the other.

    Rates are learned out of sample so that an identifier, which has one row for each value, is worth nothing here.
    Missing is a category. Two seeded divisions in halves are averaged over both directions.

    Parameters
    ----------
    values
        Length rows; None or NaN is missing.
    label
        Shape (rows,); True is the positive class.
    seed
        Of the divisions.

    Returns
    -------
    float or None
        Between 0 and 1, about 0.5 for a feature that says nothing; None when a class or every value is missing, or no
        half has both classes.
    """
    codes, _ = pd.factorize(values, use_na_sentinel=True)
    if (codes < 0).all() or label.all() or not label.any():
        return None
    codes = codes + 1
    size = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    areas = []
    for _ in range(2):
        first = rng.random(len(codes)) < 0.5
        counts = [
            (np.bincount(codes[half & label], minlength=size), np.bincount(codes[half & ~label], minlength=size))
            for half in (first, ~first)
        ]
        for learned, measured in (counts, counts[::-1]):
            positive, negative = learned
            prior = (positive.sum() + 1) / (positive.sum() + negative.sum() + 2)
            rate = (positive + prior) / (positive + negative + 1)  # shrunk by one row of the prior
            area = _area(rate, measured[0], measured[1])
            if area is not None:
                areas.append(area)
    return float(np.mean(areas)) if areas else None


def _area(
    score: npt.NDArray[np.float64], positive: npt.NDArray[np.intp], negative: npt.NDArray[np.intp]
) -> float | None:
    """Area under the ROC curve of groups with a score each."""
    pairs = float(positive.sum()) * float(negative.sum())
    if pairs == 0:
        return None
    _, level = np.unique(score, return_inverse=True)
    return _pairs_won(np.bincount(level, weights=positive), np.bincount(level, weights=negative)) / pairs


def _pairs_won(positive: npt.NDArray[Any], negative: npt.NDArray[Any]) -> float:
    """Pairs whose positive stands on the higher level, a tie counting half; counts by level, in rising order."""
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum())
