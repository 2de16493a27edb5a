"""Tuning results: trials as a table, out-of-fold scores, and Optuna's plots."""

from __future__ import annotations

import io
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from zenml.enums import ArtifactType, VisualizationType

from lifecycle.calibration import Calibration
from lifecycle.training import Hyperparameters, TuningResult
from materializers.files import FileMaterializer


class TuningResultMaterializer(FileMaterializer):
    """Keeps a `TuningResult`."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (TuningResult,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA_ANALYSIS

    def save(self, data: TuningResult) -> None:
        """Write table, scores and facts."""
        trials, scores = io.BytesIO(), io.BytesIO()
        data.trials.to_parquet(trials, index=False)
        np.save(scores, data.out_of_fold, allow_pickle=False)
        self.write_bytes("trials.parquet", trials.getvalue())
        self.write_bytes("out_of_fold.npy", scores.getvalue())
        self.write_json(
            "tuning.json",
            {
                "best": data.best.to_dict(),
                "epochs": data.epochs,
                "calibration": [data.calibration.slope, data.calibration.intercept],
                "threshold": data.threshold,
                "fold_aucs": list(data.fold_aucs),
                "plots": data.plots,
                "study": data.study,
            },
        )

    def load(self, data_type: type[Any]) -> TuningResult:  # noqa: ARG002 - one type
        """Read it back."""
        facts = self.read_json("tuning.json")
        return TuningResult(
            best=Hyperparameters(**facts["best"]),
            epochs=facts["epochs"],
            trials=pd.read_parquet(io.BytesIO(self.read_bytes("trials.parquet"))),
            out_of_fold=np.load(io.BytesIO(self.read_bytes("out_of_fold.npy")), allow_pickle=False),
            calibration=Calibration(*facts["calibration"]),
            threshold=facts["threshold"],
            fold_aucs=tuple(facts["fold_aucs"]),
            plots=facts["plots"],
            study=facts["study"],
        )

    def extract_metadata(self, data: TuningResult) -> dict[str, Any]:
        """Tell the best trial."""
        return {"trials": len(data.trials), "epochs": data.epochs, "threshold": data.threshold, **data.best.to_dict()}

    def save_visualizations(self, data: TuningResult) -> dict[str, VisualizationType]:
        """Show Optuna's plots and the table of trials."""
        pages = {**data.plots, "trials": data.trials.to_html(index=False, border=0, float_format="{:.4g}".format)}
        return {self.write_text(f"{name}.html", page): VisualizationType.HTML for name, page in pages.items()}
