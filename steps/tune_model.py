"""Search the hyper-parameters, each trial a nested MLflow run (R2.2, R3.6)."""

from __future__ import annotations

from typing import Annotated, Any

from zenml import step
from zenml.config.cache_policy import CachePolicy

from adapters.services import Services
from adapters.tuning import TrialProgress, tune
from lifecycle.snapshot import Snapshot
from lifecycle.spec import ModelSpec
from lifecycle.splitting import Split
from lifecycle.training import TuningResult
from materializers.tuning_result import TuningResultMaterializer
from steps.progress import tell
from steps.sample_weights import sample_weights

CODE = [
    "adapters/fitting.py",
    "adapters/network.py",
    "adapters/tuning.py",
    "lifecycle/calibration.py",
    "lifecycle/encoding.py",
    "lifecycle/mitigation.py",
    "lifecycle/thresholds.py",
]


@step(
    experiment_tracker=True,
    output_materializers=TuningResultMaterializer,
    cache_policy=CachePolicy(ignored_inputs=["spec"], file_dependencies=CODE),
)
def tune_model(
    snapshot: Snapshot, split: Split, spec: ModelSpec, training_key: str
) -> Annotated[TuningResult, "tuning"]:
    """Tune on the folds; an interrupted search goes on where it stopped.

    Parameters
    ----------
    snapshot, split
        The rows and which of them train and validate.
    spec
        The model file.
    training_key
        Fingerprint of what training reads of the model file: the cache's key and part of the study's name.
    """
    import mlflow

    def show(progress: TrialProgress) -> None:
        tell("tune", progress.text, progress.done, progress.total)

    def log(trial: Any) -> None:
        with mlflow.start_run(run_name=f"trial {trial.number}", nested=True):
            mlflow.log_params(trial.params)
            mlflow.set_tag("state", trial.state.name.lower())
            for fold, auc in sorted(trial.intermediate_values.items()):
                mlflow.log_metric("roc_auc", auc, step=fold)

    tell("tune", "TensorFlow starts", 0, spec.training.trials)
    result = tune(
        snapshot.frame,
        split.train,
        split.folds,
        spec,
        storage=Services.from_environment().tuning,
        study_name=f"{spec.name} {snapshot.name} {training_key}",
        seed=spec.training.seed,
        weights=sample_weights(spec, snapshot.frame),
        on_progress=show,
        on_trial=log,
    )
    mlflow.log_params(result.best.to_dict())
    tell("tune", f"best AUC {max(result.trials['roc_auc']):.4f}", spec.training.trials, spec.training.trials)
    return result
