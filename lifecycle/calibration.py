"""Probabilities that mean what they say: a logistic recalibration of the network's logits (R3.6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit

from lifecycle.errors import DataError

MIN_SLOPE, MAX_SLOPE = 0.05, 20.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """``p = 1 / (1 + exp(-(slope * logit + intercept)))``; rising, so that the ranking is kept.

    Parameters
    ----------
    slope
        Above 0; below 1 tempers an overconfident network.
    intercept
        Shifts the base rate, in logits.
    """

    slope: float
    intercept: float

    def apply(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Probability for each logit; NaN stays NaN."""
        return np.asarray(expit(self.slope * np.asarray(logits, dtype=np.float64) + self.intercept))


def fit_calibration(logits: ArrayLike, labels: ArrayLike) -> Calibration:
    """Fit slope and intercept by maximum likelihood (Platt, 1999), without his smoothing of the targets.

    Parameters
    ----------
    logits
        Shape (rows,): of rows that the network was not fitted on.
    labels
        Shape (rows,): 0 or 1, both present.

    Raises
    ------
    DataError
        One class only, or a logit that is no finite number.
    """
    x, y = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if len(np.unique(y)) < 2 or not np.isfinite(x).all():
        raise DataError(f"{len(x)} validation scores cannot be calibrated; accepted: finite ones, of both classes")

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = parameters[0] * x + parameters[1]
        error = expit(z) - y
        return float(np.mean(np.logaddexp(0, z) - y * z)), np.array([np.mean(error * x), np.mean(error)])

    fitted = minimize(
        loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(MIN_SLOPE, MAX_SLOPE), (None, None)]
    )
    return Calibration(float(fitted.x[0]), float(fitted.x[1]))
