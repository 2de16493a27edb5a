"""Whether features have drifted: distances between two windows of rows, as findings (R5.3)."""

from __future__ import annotations

from collections.abc import Mapping

from lifecycle.findings import Direction, Finding, Severity, judge
from lifecycle.spec import ModelSpec

MEASURES = {"numeric": "wasserstein_distance", "categorical": "kl_divergence"}
MIN_ROWS = 100


def judge_drift(
    spec: ModelSpec, distances: Mapping[str, float | None], rows: Mapping[str, int], *, window: str
) -> list[Finding]:
    """Compare each feature's distance with the model file's ``monitoring.drift``.

    Parameters
    ----------
    spec
        The model file.
    distances
        Feature: Wasserstein distance in standard deviations of the reference for numbers, Kullback-Leibler
        divergence in nats for categories; None or absent where it could not be taken.
    rows
        Feature: known values in the smaller of the two windows.
    window
        The two windows, in words.

    Returns
    -------
    list of Finding
        One for each feature, in the model file's order. Drift warns: it is a reason to look or to train, and no
        fault of the candidate. Fewer than `MIN_ROWS` values on a side are NO_DATA.
    """
    return [
        judge(
            MEASURES[feature.type],
            distances.get(feature.name),
            spec.monitoring.drift,
            Direction.AT_MOST,
            window=window,
            subject=feature.name,
            count=rows.get(feature.name, 0),
            min_count=MIN_ROWS,
            severity=Severity.WARNING,
        )
        for feature in spec.features
    ]
