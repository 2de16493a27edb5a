"""Check the snapshot against the model file's expectations and for suspected leaks (R2.1, R5.5)."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from zenml import step
from zenml.config.cache_policy import CachePolicy

from adapters.expectations import validate
from lifecycle.leaks import suspected_leaks
from lifecycle.quality import QualityReport
from lifecycle.snapshot import Snapshot
from lifecycle.spec import ModelSpec
from materializers.quality_report import QualityReportMaterializer
from steps.progress import tell


@step(
    output_materializers=QualityReportMaterializer,
    cache_policy=CachePolicy(
        ignored_inputs=["spec"],
        file_dependencies=["adapters/expectations.py", "lifecycle/leaks.py", "lifecycle/quality.py"],
    ),
)
def validate_data(snapshot: Snapshot, spec: ModelSpec, quality_key: str) -> Annotated[QualityReport, "quality_report"]:
    """Measure; nothing is decided here.

    Parameters
    ----------
    snapshot
        The fetched rows.
    spec
        The model file.
    quality_key
        Fingerprint of what this step reads of the model file and of the moment it is judged at: the cache's key.
    """
    tell("validate", "Great Expectations on every row")
    report = validate(snapshot, spec)
    window = f"{snapshot.window_start:%Y-%m-%d} to {snapshot.as_of:%Y-%m-%d}"
    return replace(report, findings=[*report.findings, *suspected_leaks(snapshot.frame, spec, window)])
