"""Measure a registered version on labelled rows, beside the live one, on record (R3.7, R5.2)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from zenml import log_metadata, step

from adapters.ops_store import OpsStore
from adapters.registry import Registry
from adapters.services import Services
from lifecycle.aliases import Alias
from lifecycle.errors import ConfigError
from lifecycle.evaluation import BaselineScores, Evaluation, evaluate
from lifecycle.findings import Finding
from lifecycle.snapshot import Snapshot
from lifecycle.spec import ModelSpec
from lifecycle.windows import judge_window, training_overlap
from materializers.evaluation import EvaluationMaterializer
from steps.progress import tell
from steps.scoring import score_version


@step(enable_cache=False, output_materializers={"evaluation": EvaluationMaterializer})
def evaluate_version(
    snapshot: Snapshot, version: str, spec: ModelSpec, environment: str, run_id: str
) -> tuple[Annotated[Evaluation, "evaluation"], Annotated[list[dict[str, Any]], "findings"]]:
    """Score a version on every row of a snapshot and judge it by the model file's gates.

    Parameters
    ----------
    snapshot
        The rows.
    version
        Its number in the registry.
    spec
        The model file.
    environment
        Whose live version it is measured beside.
    run_id
        The ops store's run.
    """
    services = Services.from_environment()
    ops = OpsStore.open(services.ops)
    evaluation, findings = measure_version(snapshot, version, spec, Registry(services.registry), ops, environment)
    now = datetime.now(UTC)
    ops.record_findings(run_id, "evaluation", findings, now, spec.name, version)
    measured = {name: found.value for name, found in evaluation.metrics.items()}
    facts = {"version": version, "snapshot": snapshot.name, "rows": snapshot.counts.to_dict(), "metrics": measured}
    ops.set_run_facts(run_id, {**facts, "window": evaluation.window}, now)
    log_metadata(metadata={"version": version, "snapshot": snapshot.name})
    return evaluation, [one.to_dict() for one in findings]


def measure_version(
    snapshot: Snapshot, version: str, spec: ModelSpec, registry: Registry, ops: OpsStore, environment: str
) -> tuple[Evaluation, list[Finding]]:
    """Evaluate a version on a snapshot, paired with the live version where that is another one.

    Raises
    ------
    ConfigError
        No such version, or it asks for features that the rows do not have.
    """
    frame = snapshot.frame
    when = frame[spec.source.timestamp]
    window = f"{when.min():%Y-%m-%d} to {when.max():%Y-%m-%d}"
    tell("evaluate", f"version {version} on {len(frame):,} rows", 0, 3)
    tags = registry.tags(spec.name, version)
    mine = score_version(registry, spec.name, version, frame)
    if mine is None:
        raise ConfigError(
            f"{spec.name} version {version} asks for features that the model file no longer has; accepted: a version "
            "made from the features it names"
        )
    champion = ops.aliases(spec.name, environment).get(Alias.CHAMPION)
    beside: dict[str, BaselineScores | None] = {}
    if champion is not None and champion != version:
        tell("evaluate", f"live version {champion}", 1, 3)
        beside["champion"] = score_version(registry, spec.name, champion, frame)
    tell("evaluate", f"{spec.evaluation.bootstrap} bootstrap resamples", 2, 3)
    labels = frame[spec.label.column].to_numpy()
    evaluation = evaluate(spec, frame, labels, mine.scores, mine.threshold, beside, spec.training.seed, window)
    made = datetime.fromisoformat(tags["as_of"])
    seen = training_overlap(when, (spec.source.window.before(made), made), window)
    tell("evaluate", "done", 3, 3)
    return evaluation, [*judge_window(spec, evaluation), seen]
