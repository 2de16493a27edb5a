"""Fetch, validate, split, tune, fit, evaluate, make its serving twin, judge, register: a candidate and its evidence (R1.1, R3.4 to R3.8)."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from zenml import pipeline

from lifecycle.spec import ModelSpec
from steps.check_drift import check_drift
from steps.evaluate_model import evaluate_model
from steps.fetch_data import fetch_data
from steps.find_champion import find_champion
from steps.fit_model import fit_model
from steps.judge_candidate import judge_candidate
from steps.load_model_file import load_model_file
from steps.make_twin import make_twin
from steps.register_version import register_version
from steps.require_quality import require_quality
from steps.split_data import split_data
from steps.tune_model import tune_model
from steps.validate_data import validate_data


@pipeline(name="train")
def train(spec: ModelSpec, as_of: str, run_id: str, facts: dict[str, str]) -> None:
    """Make one candidate version of a model.

    Parameters
    ----------
    spec
        The model file, with the environment's and the command line's differences laid over it.
    as_of
        ISO 8601 moment the window ends at.
    run_id
        The ops store's run.
    facts
        What is recorded with the version: environment, reason, who asked, code revision, lock hash.
    """
    # The fingerprints are what a step reads of the model file: with equal inputs, an earlier result is reused, so a
    # new gate threshold judges anew and does not train anew.
    training = spec.fingerprint("features", "label", "sensitive", "training", "business", "source")
    model_file = load_model_file(spec=spec)
    snapshot = fetch_data(spec=model_file, as_of=as_of)
    quality = validate_data(
        snapshot=snapshot,
        spec=model_file,
        quality_key=f"{as_of} {spec.fingerprint('source', 'label', 'features', 'sensitive', 'quality')}",
    )
    require_quality(report=quality, spec=model_file, run_id=run_id)
    split = split_data(
        snapshot=snapshot,
        spec=model_file,
        split_key=spec.fingerprint("label", "source", "training"),
        after="require_quality",
    )
    _page, drift = check_drift(
        snapshot=snapshot,
        split=split,
        spec=model_file,
        drift_key=f"{spec.training.seed} {spec.fingerprint('features', 'monitoring')}",
    )
    tuning = tune_model(snapshot=snapshot, split=split, spec=model_file, training_key=training)
    model = fit_model(snapshot=snapshot, split=split, tuning=tuning, spec=model_file, training_key=training)
    evaluation, remedies = evaluate_model(
        snapshot=snapshot,
        split=split,
        tuning=tuning,
        model=model,
        champion=find_champion(spec=model_file, environment=facts["environment"]),
        spec=model_file,
        evaluation_key=spec.fingerprint("features", "label", "sensitive", "evaluation", "business"),
    )
    twin, twin_findings, no_twin = make_twin(
        snapshot=snapshot,
        split=split,
        tuning=tuning,
        model=model,
        spec=model_file,
        twin_key=spec.fingerprint("features"),
    )
    judgement = judge_candidate(evaluation=evaluation, drift=drift, spec=model_file, run_id=run_id)
    register_version(
        snapshot=snapshot,
        quality=quality,
        split=split,
        tuning=tuning,
        model=model,
        twin=twin,
        twin_findings=twin_findings,
        no_twin=no_twin,
        evaluation=evaluation,
        remedies=remedies,
        judgement=judgement,
        spec=model_file,
        run_id=run_id,
        facts=facts,
    )


def run_train_pipeline(
    spec: ModelSpec, *, as_of: datetime, run_id: str, facts: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """Run the pipeline on the active stack and wait for its end.

    Returns
    -------
    dict
        Step: ``seconds`` it took, and whether its earlier result was ``reused``.
    """
    from zenml.client import Client
    from zenml.enums import ExecutionMode

    settings = (
        {"experiment_tracker": {"experiment_name": spec.name}} if Client().active_stack.experiment_tracker else {}
    )
    configured = train.with_options(
        run_name=f"train {spec.name} {as_of:%Y-%m-%d} {run_id.rsplit('-', 1)[-1] or uuid.uuid4().hex}",
        settings=settings,
        tags=[spec.name],
        enable_step_logs=False,
        # The first failure ends the run with its own error, which holds the answer for the operator.
        execution_mode=ExecutionMode.FAIL_FAST,
    )
    run = configured(spec=spec, as_of=as_of.isoformat(), run_id=run_id, facts=facts)
    if run is None:
        return {}
    phases = {}
    for name, step in Client().get_pipeline_run(run.id).steps.items():
        reused = step.status.value == "cached"
        spent = (step.end_time - step.start_time).total_seconds() if step.end_time and step.start_time else 0.0
        phases[name] = {"seconds": 0.0 if reused else round(spent, 2), "reused": reused}
    return phases
