"""Evidently: how far two windows of rows lie apart, feature by feature, and the page to look at (R2.4, R5.3, RO.3)."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from lifecycle.spec import ModelSpec

MOST_ROWS = 10_000


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
        from evidently.presets import DataDriftPreset

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
        report = Report(
            [
                DataDriftPreset(
                    columns=known,
                    num_method="wasserstein",
                    cat_method="kl_div",
                    num_threshold=spec.monitoring.drift,
                    cat_threshold=spec.monitoring.drift,
                )
            ]
        )
        old, new = (_sample(window[known], seed) for window in (reference, current))
        measured = report.run(Dataset.from_pandas(new, definition), Dataset.from_pandas(old, definition))
        distances = {
            metric["config"]["column"]: float(metric["value"])
            for metric in measured.dict()["metrics"]
            if "column" in metric["config"]
        }
        return DriftReport(distances, rows, str(measured.get_html_str(as_iframe=False)))


def _sample(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    return frame.sample(min(MOST_ROWS, len(frame)), random_state=seed)
