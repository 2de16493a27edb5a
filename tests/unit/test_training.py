"""A tuning result knows which rows were validated, and what their probability is."""

import numpy as np
import pandas as pd

from lifecycle.calibration import Calibration
from lifecycle.training import Hyperparameters, TuningResult


def test_rows_that_no_fold_validated_have_no_probability():
    result = TuningResult(
        best=Hyperparameters(0.01, 0.0, 0.1, 64, 2, 16),
        epochs=3,
        trials=pd.DataFrame(),
        out_of_fold=np.array([np.nan, 0.0, 2.0]),
        calibration=Calibration(1.0, 0.0),
        threshold=0.4,
        fold_aucs=(0.7,),
        plots={},
        study="s",
    )
    assert result.validated_rows.tolist() == [False, True, True]
    assert np.isnan(result.calibrated[0])
    assert result.calibrated[1:].tolist() == [0.5, 1 / (1 + np.exp(-2.0))]


def test_hyperparameters_are_plain_values():
    assert Hyperparameters(0.01, 0.0, 0.1, 64, 2, 16).to_dict() == {
        "learning_rate": 0.01,
        "weight_decay": 0.0,
        "dropout": 0.1,
        "units": 64,
        "layers": 2,
        "bins": 16,
    }
