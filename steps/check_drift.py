"""Show how far the hold-out lies from the training rows (R5.3, RO.3)."""

from __future__ import annotations

from typing import Annotated, Any

from zenml import step
from zenml.config.cache_policy import CachePolicy
from zenml.types import HTMLString

from adapters.drift_report import compare
from lifecycle.drift import judge_drift
from lifecycle.snapshot import Snapshot
from lifecycle.spec import ModelSpec
from lifecycle.splitting import Split
from steps.progress import tell


@step(
    cache_policy=CachePolicy(
        ignored_inputs=["spec"], file_dependencies=["adapters/drift_report.py", "lifecycle/drift.py"]
    )
)
def check_drift(
    snapshot: Snapshot, split: Split, spec: ModelSpec, drift_key: str
) -> tuple[Annotated[HTMLString, "drift_report"], Annotated[list[dict[str, Any]], "drift"]]:
    """Compare the hold-out's features with the training rows'.

    Parameters
    ----------
    snapshot, split
        Rows, and which of them are held out.
    spec
        The model file.
    drift_key
        Fingerprint of what this step reads of the model file: the cache's key.
    """
    tell("drift", "hold-out against training rows")
    train, holdout = snapshot.frame.iloc[split.train], snapshot.frame.iloc[split.holdout]
    report = compare(train, holdout, spec, spec.training.seed)
    findings = judge_drift(spec, report.distances, report.rows, window="hold-out against training rows")
    drifted = sum(finding.verdict.name == "WARN" for finding in findings)
    tell("drift", f"{drifted} of {len(findings)} features drifted", 1, 1)
    return HTMLString(report.page), [finding.to_dict() for finding in findings]
