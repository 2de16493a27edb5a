"""What is known about a candidate after its hold-out: measures with intervals, baselines, slices, groups (R3.7, R5.2, R5.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lifecycle.fairness import AttributeFairness
from lifecycle.findings import Verdict


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measurement and its bootstrap confidence interval, in the measure's own unit; None is "no data"."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class BaselineScores:
    """What is compared with the candidate, on the same rows.

    Parameters
    ----------
    scores
        Shape (rows,): probability of the positive class.
    threshold
        A score at or above it is a positive decision.
    """

    scores: NDArray[np.float64]
    threshold: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """Rows by decision and outcome at the model's threshold."""

    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int


@dataclass(frozen=True, slots=True)
class Curve:
    """At most 200 points of a curve; what x and y are stands with the field that holds it."""

    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Rows whose score lies in one bin: their mean score beside the share that was positive."""

    low: float
    high: float
    rows: int
    mean_score: float
    positive_share: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Rows of each class by score; `edges` has one more entry than the counts."""

    edges: tuple[float, ...]
    negatives: tuple[int, ...]
    positives: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SliceFigures:
    """The candidate on the rows with one value of one feature.

    Parameters
    ----------
    column, value, label
        Feature, its value ("(missing)" for null), and what people read.
    rows, positives
        Size of the slice.
    metrics
        Measure: estimate; empty when the slice is too small to judge.
    verdict
        NO_DATA when too small; WARN when the slice's interval lies wholly on the wrong side of the bound
        of one of the model's own gates; else PASS. A slice never decides, it is told.
    reason
        One sentence.
    """

    column: str
    value: str
    label: str
    rows: int
    positives: int
    metrics: dict[str, Estimate]
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A candidate on its hold-out.

    Parameters
    ----------
    rows, positives
        Size of the hold-out and of its positive class.
    invalid_scores
        Scores that are NaN, infinite or outside 0..1; with any of them no measure has a value.
    window
        The hold-out in words a reader can look up.
    threshold
        Decision threshold: a score at or above it is a positive decision.
    confidence, resamples, seed
        Level, number and seed of the bootstrap behind the intervals.
    currency
        Of the business value, ISO 4217.
    metrics
        Every measure of `lifecycle.measures.PERFORMANCE`.
    baselines
        The same for ``prior``, ``logistic_regression`` and ``champion``, as far as they were given. A
        baseline that exists but could not be scored has estimates without values.
    comparisons
        Baseline: measure: improvement of the candidate over it with its paired interval. Always
        oriented so that above 0 means the candidate is better, also for measures where lower is better.
    confusion
        Counts at `threshold`; None when scores are invalid (so are the curves empty).
    roc
        x: false positive rate, y: true positive rate.
    precision_recall
        x: recall, y: precision.
    calibration
        Equal-mass bins of the score that hold rows.
    histogram
        Scores by class.
    value_by_threshold
        x: threshold, y: business value per 1,000 predictions.
    slices
        By column of `spec.evaluation.slices`, then by value, largest first.
    fairness
        One for each sensitive attribute.
    """

    rows: int
    positives: int
    invalid_scores: int
    window: str
    threshold: float
    confidence: float
    resamples: int
    seed: int
    currency: str
    metrics: dict[str, Estimate]
    baselines: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    comparisons: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    confusion: Confusion | None = None
    roc: Curve = Curve((), ())
    precision_recall: Curve = Curve((), ())
    calibration: tuple[CalibrationBin, ...] = ()
    histogram: Histogram = Histogram((), (), ())
    value_by_threshold: Curve = Curve((), ())
    slices: tuple[SliceFigures, ...] = ()
    fairness: dict[str, AttributeFairness] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values: no NaN (None instead), verdicts by name."""
        values = asdict(self)
        for row in values["slices"]:
            row["verdict"] = row["verdict"].name
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """Inverse of `to_dict`, also after a round through JSON."""

        def estimates(table: Mapping[str, Any]) -> dict[str, Estimate]:
            return {name: Estimate(**estimate) for name, estimate in table.items()}

        def curve(points: Mapping[str, Any]) -> Curve:
            return Curve(tuple(points["x"]), tuple(points["y"]))

        return cls(
            **{
                **values,
                "metrics": estimates(values["metrics"]),
                "baselines": {name: estimates(table) for name, table in values["baselines"].items()},
                "comparisons": {name: estimates(table) for name, table in values["comparisons"].items()},
                "confusion": None if values["confusion"] is None else Confusion(**values["confusion"]),
                "roc": curve(values["roc"]),
                "precision_recall": curve(values["precision_recall"]),
                "calibration": tuple(CalibrationBin(**one) for one in values["calibration"]),
                "histogram": Histogram(**{name: tuple(counts) for name, counts in values["histogram"].items()}),
                "value_by_threshold": curve(values["value_by_threshold"]),
                "slices": tuple(
                    SliceFigures(
                        **{**row, "metrics": estimates(row["metrics"]), "verdict": Verdict[row["verdict"]]}
                    )
                    for row in values["slices"]
                ),
                "fairness": {
                    name: AttributeFairness.from_dict(attribute) for name, attribute in values["fairness"].items()
                },
            }
        )
