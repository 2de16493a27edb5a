"""Whether the copy of a model that is served answers as the model itself does: shown on rows, never assumed (R2.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from lifecycle.findings import Direction, Finding, judge
from lifecycle.spec import ModelSpec, NumericFeature

SCORE_TOLERANCE = 1e-5
"""Largest accepted difference of two scores: float32 arithmetic in another order of additions."""
ODD_NUMBERS = (np.nan, 0.0, -0.0, 1e-300, -1e30, 1e30, 1e299, -1e299, 1e301, np.inf, -np.inf)
ODD_TEXTS = (None, "", " ", "never seen", "Köln\u2003東京", "x" * 300, "nan", "None", "0")

Floats = npt.NDArray[np.float64]


def probing_rows(spec: ModelSpec, frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that real data seldom holds: each feature odd in every way, one at a time and all at once.

    Parameters
    ----------
    spec
        The model file.
    frame
        Real rows; the first one is what stays the same around the odd value. At least one row.

    Returns
    -------
    pandas.DataFrame
        The features as raw columns: float64 numbers with NaN for missing, objects with None for missing.
    """
    base: dict[str, object] = {}
    odd: dict[str, Sequence[object]] = {}
    for feature in spec.features:
        number = isinstance(feature, NumericFeature)
        first = frame[feature.name].iloc[0]
        base[feature.name] = float(first) if number else None if pd.isna(first) else str(first)
        odd[feature.name] = ODD_NUMBERS if number else ODD_TEXTS
    rows = [base | {name: value} for name, values in odd.items() for value in values]
    most = max(map(len, odd.values()))
    rows += [{name: values[place % len(values)] for name, values in odd.items()} for place in range(most)]
    made = pd.DataFrame(rows, columns=spec.feature_names)
    kinds = {feature.name: "float64" if isinstance(feature, NumericFeature) else "object" for feature in spec.features}
    return made.astype(kinds)


def judge_twin(truth: Floats, twin: Floats, threshold: float, *, subject: str, window: str) -> list[Finding]:
    """Compare a twin's scores with the model's own, row by row.

    Parameters
    ----------
    truth, twin
        Shape (rows,): scores of the model and of its twin on the same rows.
    threshold
        Score from which a row is decided positive.
    subject, window
        Which rows, in words.

    Returns
    -------
    list of Finding
        ``twin_score_difference``, the largest distance of two scores (0 is equality; a score that is no number on
        either side makes it NO_DATA, which is no pass), and ``twin_decision_changes``, the count of rows decided
        otherwise although their score is not within `SCORE_TOLERANCE` of the threshold.
    """
    if truth.shape != twin.shape:
        raise ValueError(f"{truth.shape} scores and {twin.shape} of the twin; accepted: one for each row")
    difference = np.abs(truth - twin)
    apart = float(difference.max()) if difference.size else float("nan")
    close = np.abs(truth - threshold) <= SCORE_TOLERANCE
    changed = int(np.count_nonzero(((truth >= threshold) != (twin >= threshold)) & ~close))
    return [
        judge(
            measure,
            value,
            threshold=accepted,
            direction=Direction.AT_MOST,
            window=window,
            subject=subject,
            count=int(truth.size),
            missing="a score is no number",
        )
        for measure, value, accepted in (
            ("twin_score_difference", apart, SCORE_TOLERANCE),
            ("twin_decision_changes", float(changed), 0.0),
        )
    ]


def raw_columns(spec: ModelSpec, frame: pd.DataFrame) -> dict[str, npt.NDArray[np.generic]]:
    """Columns as a served request brings them: float64 with NaN, and texts with "" for missing.

    Parameters
    ----------
    spec
        The model file.
    frame
        Raw feature columns, in any order, among others.
    """
    columns: dict[str, npt.NDArray[np.generic]] = {}
    for feature in spec.features:
        values = frame[feature.name]
        if isinstance(feature, NumericFeature):
            columns[feature.name] = pd.to_numeric(values).to_numpy(dtype=np.float64, na_value=np.nan)
        else:
            texts = ["" if missing else str(value) for value, missing in zip(values, values.isna(), strict=True)]
            columns[feature.name] = np.array(texts, dtype=object)
    return columns
