"""Stop before anything is trained on data that is not what the model file says (R2.1)."""

from __future__ import annotations

from datetime import UTC, datetime

from zenml import step

from adapters.ops_store import OpsStore
from adapters.services import Services
from lifecycle.errors import DataError
from lifecycle.quality import QualityReport, stopping_message, stops
from lifecycle.spec import ModelSpec
from steps.progress import tell


@step(enable_cache=False)
def require_quality(report: QualityReport, spec: ModelSpec, run_id: str) -> None:
    """Put the findings on record, and stop at an error.

    Parameters
    ----------
    report
        What was measured on the snapshot.
    spec
        The model file.
    run_id
        The ops store's run.
    """
    ops = OpsStore.open(Services.from_environment().ops)
    ops.record_findings(run_id, "quality", report.findings, now=datetime.now(UTC), model=spec.name)
    if stops(report):
        raise DataError(stopping_message(report))
    tell("validate", f"{len(report.findings)} expectations, none stops the run", 1, 1)
