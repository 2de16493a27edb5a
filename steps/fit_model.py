"""Fit the final ensemble and write it as a SavedModel that takes raw features (R3.6)."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

from zenml import step
from zenml.config.cache_policy import CachePolicy

from adapters.fitting import export, fit
from lifecycle.snapshot import Snapshot
from lifecycle.spec import ModelSpec
from lifecycle.splitting import Split
from lifecycle.trained_model import TrainedModel
from lifecycle.training import TuningResult
from materializers.saved_model import SavedModelMaterializer
from steps.progress import tell
from steps.sample_weights import sample_weights
from steps.tune_model import CODE


@step(
    experiment_tracker=True,
    output_materializers=SavedModelMaterializer,
    cache_policy=CachePolicy(ignored_inputs=["spec"], file_dependencies=CODE),
)
def fit_model(
    snapshot: Snapshot, split: Split, tuning: TuningResult, spec: ModelSpec, training_key: str
) -> Annotated[TrainedModel, "model"]:
    """Fit on all training rows.

    Parameters
    ----------
    snapshot, split, tuning
        Rows, which of them train, and how.
    spec
        The model file.
    training_key
        Fingerprint of what training reads of the model file: the cache's key.
    """
    import mlflow

    def show(done: int, total: int) -> None:
        tell("fit", f"epoch {done} of {total}", done, total)

    weights = sample_weights(spec, snapshot.frame)
    fitted = fit(snapshot.frame, split.train, spec, tuning, spec.training.seed, weights, show)
    # The materializer copies it into the artifact store after this step and before the process ends.
    scratch = tempfile.mkdtemp(prefix="prodecks-model-")
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    folder = Path(scratch) / "saved_model"
    export(fitted, folder)
    run = mlflow.active_run()
    return TrainedModel(
        folder=folder,
        content=fitted.content,
        facts={
            "threshold": tuning.threshold,
            "epochs": tuning.epochs,
            "ensemble": spec.training.ensemble,
            "calibration_slope": tuning.calibration.slope,
            "calibration_intercept": tuning.calibration.intercept,
            "mlflow_run": run.info.run_id if run else None,
            **tuning.best.to_dict(),
        },
    )
