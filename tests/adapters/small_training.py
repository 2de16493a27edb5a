"""A model file and rows small enough to train in a second, for the tests of tuning, fitting and the saved model."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lifecycle.calibration import Calibration
from lifecycle.spec import ModelSpec
from lifecycle.training import Hyperparameters, TuningResult
from tests.minimal_spec import minimal_spec


def spec(trials: int = 5) -> ModelSpec:
    return minimal_spec(
        source={"table": "t", "timestamp": "at", "entity_key": "id"},
        features=[{"name": "x", "type": "numeric"}, {"name": "kind", "type": "categorical"}],
        training={
            "split": {"strategy": "time", "holdout": 0.2, "folds": 2},
            "trials": trials,
            "search": {"units": [4], "layers": [1], "bins": [4]},
            "batch_size": 64,
            "max_epochs": 3,
            "patience": 1,
            "ensemble": 2,
            "min_category_count": 5,
        },
    )


def rows(count: int = 600) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x, kind = rng.normal(size=count), rng.choice(["a", "b", "c"], count).astype(object)
    x[::13] = np.nan
    kind[::17] = None
    chance = 1 / (1 + np.exp(-(np.nan_to_num(x) + (kind == "a"))))
    return pd.DataFrame(
        {
            "at": pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(count), unit="h"),
            "x": x,
            "kind": kind,
            "y": (rng.random(count) < chance).astype(np.int8),
        }
    )


def found(threshold: float = 0.5, **chosen: float) -> TuningResult:
    """What a search may have found, without the search."""
    usual = {"learning_rate": 0.02, "weight_decay": 0.0, "dropout": 0.1, "units": 8, "layers": 1, "bins": 4}
    return TuningResult(
        best=Hyperparameters(**{**usual, **chosen}),
        epochs=4,
        trials=pd.DataFrame(),
        out_of_fold=np.empty(0),
        calibration=Calibration(1.2, -0.1),
        threshold=threshold,
        fold_aucs=(),
        plots={},
        study="s",
    )
