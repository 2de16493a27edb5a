"""The measures a gate, a rollout or an alert may name, with their range and which way is better."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measure:
    """A named measure.

    Parameters
    ----------
    name
        The field's standard name.
    low, high
        Smallest and largest value it can take; a threshold outside can never be crossed.
    higher_is_better
        Direction of improvement.
    unit
        ``share`` (0 to 1), ``currency`` (of the model file) or the like.
    meaning
        One line for the reference page.
    """

    name: str
    low: float
    high: float
    higher_is_better: bool
    unit: str
    meaning: str


PERFORMANCE: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("roc_auc", 0, 1, True, "share", "area under the ROC curve: ranking quality, 0.5 is chance"),
        Measure("average_precision", 0, 1, True, "share", "area under the precision-recall curve, step-wise"),
        Measure("accuracy", 0, 1, True, "share", "share of right decisions at the model's threshold"),
        Measure("precision", 0, 1, True, "share", "share of positive decisions that were right"),
        Measure("recall", 0, 1, True, "share", "share of positives that were decided positive"),
        Measure("f1", 0, 1, True, "share", "harmonic mean of precision and recall"),
        Measure("log_loss", 0, math.inf, False, "nats", "mean negative log-likelihood of the labels"),
        Measure("brier", 0, 1, False, "share", "mean squared error of the probabilities"),
        Measure("expected_calibration_error", 0, 1, False, "share", "mean gap of probability and outcome, equal bins"),
        Measure(
            "business_value_per_1000",
            -math.inf,
            math.inf,
            True,
            "currency per 1,000 predictions",
            "benefits less costs of the decisions, by the model file's values",
        ),
    )
}

FAIRNESS: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("demographic_parity_difference", 0, 1, False, "share", "largest gap in the share decided positive"),
        Measure("equal_opportunity_difference", 0, 1, False, "share", "largest gap in recall"),
        Measure("predictive_parity_difference", 0, 1, False, "share", "largest gap in precision"),
    )
}

MEASURES: dict[str, Measure] = PERFORMANCE | FAIRNESS
