"""What tuning found: the hyper-parameters, how far they carry, and what validation says (R3.6)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lifecycle.calibration import Calibration


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """What a trial varies; see `lifecycle.spec.Search`."""

    learning_rate: float
    weight_decay: float
    dropout: float
    units: int
    layers: int
    bins: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True)
class TuningResult:
    """The best trial and what the final model takes from it.

    Parameters
    ----------
    best
        Its hyper-parameters.
    epochs
        Epochs of the final fit: the median over the best trial's folds.
    trials
        One row a trial: number, state, ROC AUC (mean over its folds), seconds, and its parameters.
    out_of_fold
        Shape (training rows,): logit from a fold that did not see the row; NaN where none validated it.
    calibration
        Fitted on `out_of_fold`.
    threshold
        Decision threshold on calibrated probabilities, worth most on the same rows.
    fold_aucs
        ROC AUC of the best trial on each fold.
    plots
        Name: HTML of Optuna's plots.
    study
        Name of the study in its storage.
    """

    best: Hyperparameters
    epochs: int
    trials: pd.DataFrame
    out_of_fold: NDArray[np.float64]
    calibration: Calibration
    threshold: float
    fold_aucs: tuple[float, ...]
    plots: dict[str, str]
    study: str

    @property
    def validated_rows(self) -> NDArray[np.bool_]:
        """Which training rows were validated, shape (training rows,)."""
        return ~np.isnan(self.out_of_fold)

    @property
    def calibrated(self) -> NDArray[np.float64]:
        """Out-of-fold probability of each training row; NaN where none validated it."""
        return self.calibration.apply(self.out_of_fold)
