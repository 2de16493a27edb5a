"""Evidently: how far two windows of rows lie apart, feature by feature, and the pages to look at (R2.4, R5.3, RO.3)."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lifecycle.reference import LABEL, SCORE

if TYPE_CHECKING:
    import pandas as pd
    from evidently.presets import DataDriftPreset

    from lifecycle.spec import ModelSpec

MOST_ROWS = 10_000
PAGE_ROWS = 5_000
"""Rows of each window that the pages of traffic are drawn from."""


@dataclass(frozen=True, slots=True)
class DriftReport:
    """What Evidently measured.

    Parameters
    ----------
    distances
        Feature: its distance, as in `lifecycle.drift.judge_drift`; a feature without a known value on one side
        is absent.
    rows
        Feature: known values in the smaller window.
    page
        One HTML page that needs nothing from elsewhere.
    """

    distances: dict[str, float]
    rows: dict[str, int]
    page: str


def compare(reference: pd.DataFrame, current: pd.DataFrame, spec: ModelSpec, seed: int) -> DriftReport:
    """Compare the features of two windows on at most `MOST_ROWS` rows of each, drawn at random.

    Parameters
    ----------
    reference, current
        Rows with the model's features.
    spec
        The model file: which features are numbers and which are categories, and the threshold the page shows.
    seed
        Of the sample.
    """
    # Evidently reports its use over the network and keeps an id in the user's home unless told not to.
    os.environ["DO_NOT_TRACK"] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently import DataDefinition, Dataset, Report

        rows = {
            name: int(min(reference[name].notna().sum(), current[name].notna().sum())) for name in spec.feature_names
        }
        known = [name for name in spec.feature_names if rows[name]]
        if not known:
            return DriftReport({}, rows, "<p>No feature has a value in both windows.</p>")
        numeric = {feature.name for feature in spec.numeric}
        definition = DataDefinition(
            numerical_columns=[name for name in known if name in numeric],
            categorical_columns=[name for name in known if name not in numeric],
        )
        report = Report([_drift_preset(spec, known)])
        old, new = (_sample(window[known], seed) for window in (reference, current))
        measured = report.run(Dataset.from_pandas(new, definition), Dataset.from_pandas(old, definition))
        distances = {
            metric["config"]["column"]: float(metric["value"])
            for metric in measured.dict()["metrics"]
            if "column" in metric["config"]
        }
        return DriftReport(distances, rows, str(measured.get_html_str(as_iframe=False)))


def pages(reference: pd.DataFrame | None, current: pd.DataFrame, spec: ModelSpec, threshold: float) -> dict[str, str]:
    """Draw Evidently's reports of a window of traffic on at most `PAGE_ROWS` rows.

    Parameters
    ----------
    reference
        As `lifecycle.reference.reference_rows` gives it; None without one.
    current
        Features, ``score``, ``label`` (NaN until it comes).
    spec
        The model file.
    threshold
        A score at or above it is a positive decision.

    Returns
    -------
    dict
        ``summary``; ``drift`` with a reference; ``classification`` where labels of both classes are there.
    """
    os.environ["DO_NOT_TRACK"] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently import BinaryClassification, DataDefinition, Dataset, Report
        from evidently.presets import ClassificationPreset, DataSummaryPreset

        seed = spec.training.seed
        now = _sample(current.rename(columns={"score": SCORE, "label": LABEL}), seed, PAGE_ROWS)
        before = None if reference is None else _sample(reference, seed, PAGE_ROWS)
        sides = [now] if before is None else [now, before]
        known = [
            name
            for name in [*spec.feature_names, SCORE]
            if all(name in side and side[name].notna().any() for side in sides)
        ]
        numbers = {*(feature.name for feature in spec.numeric), SCORE}
        numeric, texts = [name for name in known if name in numbers], [name for name in known if name not in numbers]

        def drawn(report: Report, definition: DataDefinition, columns: list[str], rows: list[pd.DataFrame]) -> str:
            sets = [Dataset.from_pandas(one[columns].reset_index(drop=True), definition) for one in rows]
            return str(report.run(*sets).get_html_str(as_iframe=False))

        plain = DataDefinition(numerical_columns=numeric, categorical_columns=texts)
        found = {"summary": drawn(Report([DataSummaryPreset()]), plain, known, sides)}
        if before is not None:
            found["drift"] = drawn(Report([_drift_preset(spec, known)]), plain, known, sides)
        labelled = [
            side[side[LABEL].notna() & side[SCORE].notna()].assign(
                **{LABEL: lambda rows: rows[LABEL].astype(int), "decision": lambda rows: (rows[SCORE] >= threshold) * 1}
            )
            for side in sides
        ]
        if all(side[LABEL].nunique() == 2 for side in labelled):
            binary = BinaryClassification(target=LABEL, prediction_labels="decision", prediction_probas=SCORE)
            columns = [LABEL, "decision", SCORE]
            definition = DataDefinition(
                classification=[binary], categorical_columns=columns[:2], numerical_columns=[SCORE]
            )
            found["classification"] = drawn(Report([ClassificationPreset()]), definition, columns, labelled)
        return found


def _drift_preset(spec: ModelSpec, columns: list[str]) -> DataDriftPreset:
    """Evidently's drift with the distances and the threshold of the model file."""
    from evidently.presets import DataDriftPreset

    limit = spec.monitoring.drift
    return DataDriftPreset(
        columns=columns, num_method="wasserstein", cat_method="kl_div", num_threshold=limit, cat_threshold=limit
    )


def _sample(frame: pd.DataFrame, seed: int, most: int = MOST_ROWS) -> pd.DataFrame:
    return frame.sample(min(most, len(frame)), random_state=seed)
