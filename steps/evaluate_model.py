"""Measure the candidate on the hold-out, beside its baselines and the live champion (R3.7, R5.6)."""

from __future__ import annotations

from typing import Annotated, Any

from zenml import step
from zenml.config.cache_policy import CachePolicy

from adapters.baselines import fit_baselines, score_baselines
from adapters.registry import Registry
from adapters.remedies import Scored, propose_remedies
from adapters.saved_model import score
from adapters.services import Services
from lifecycle.evaluation import BaselineScores, Evaluation, evaluate
from lifecycle.gates import judge_gates
from lifecycle.snapshot import Snapshot
from lifecycle.spec import ModelSpec
from lifecycle.splitting import Split
from lifecycle.thresholds import best_threshold
from lifecycle.trained_model import TrainedModel
from lifecycle.training import TuningResult
from materializers.evaluation import EvaluationMaterializer
from steps.progress import tell
from steps.scoring import score_version


@step(
    output_materializers={"evaluation": EvaluationMaterializer},
    cache_policy=CachePolicy(
        ignored_inputs=["spec"],
        file_dependencies=[
            "adapters/baselines.py",
            "adapters/remedies.py",
            "adapters/saved_model.py",
            "lifecycle/evaluation.py",
            "lifecycle/fairness.py",
            "lifecycle/metrics.py",
            "lifecycle/remedies.py",
            "steps/scoring.py",
        ],
    ),
)
def evaluate_model(
    snapshot: Snapshot,
    split: Split,
    tuning: TuningResult,
    model: TrainedModel,
    champion: str,
    spec: ModelSpec,
    evaluation_key: str,
) -> tuple[Annotated[Evaluation, "evaluation"], Annotated[list[dict[str, Any]], "remedies"]]:
    """Score every contender on the same rows; the SavedModel that will serve is what is measured.

    Parameters
    ----------
    snapshot, split, tuning, model
        What was trained on what.
    champion
        Version of the champion; empty when there is none.
    spec
        The model file.
    evaluation_key
        Fingerprint of what this step reads of the model file: the cache's key.
    """
    frame, label = snapshot.frame, spec.label.column
    holdout = frame.iloc[split.holdout]
    threshold = float(model.facts["threshold"])
    tell("evaluate", f"candidate on {len(holdout):,} held-out rows", 0, 4)
    scores = score(model.folder, holdout)
    tell("evaluate", "baselines", 1, 4)
    fitted = fit_baselines(spec, frame, split.train, split.folds, best_threshold, spec.training.seed)
    baselines: dict[str, BaselineScores | None] = dict(score_baselines(fitted, holdout))
    if champion:
        tell("evaluate", f"champion, version {champion}", 2, 4)
        registry = Registry(Services.from_environment().registry)
        baselines["champion"] = score_version(registry, spec.name, champion, holdout)
    tell("evaluate", f"{spec.evaluation.bootstrap} bootstrap resamples", 3, 4)
    when = holdout[spec.source.timestamp]
    window = f"hold-out {when.min():%Y-%m-%d} to {when.max():%Y-%m-%d}"
    evaluation = evaluate(
        spec, holdout, holdout[label].to_numpy(), scores, threshold, baselines, spec.training.seed, window
    )
    validated = tuning.validated_rows
    validation = frame.iloc[split.train[validated]]
    remedies = propose_remedies(
        spec,
        judge_gates(spec, evaluation),
        Scored(validation, validation[label].to_numpy(), tuning.calibrated[validated]),
        Scored(holdout, holdout[label].to_numpy(), scores),
        threshold,
        spec.training.seed,
    )
    tell("evaluate", "done", 4, 4)
    return evaluation, [remedy.to_dict() for remedy in remedies]
