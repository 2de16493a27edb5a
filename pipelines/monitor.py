"""Every served model's traffic, judged, put on record, and drawn where something is wrong (R2.4, R5.1 to R5.7)."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from zenml import pipeline

from steps.report_models import report_models
from steps.watch_models import watch_models


@pipeline(name="monitor")
def monitor(models: list[str], window: str, as_of: str, place: dict[str, str], asked: dict[str, str]) -> None:
    """Monitor models.

    Parameters
    ----------
    models, window, as_of, place, asked
        As in `steps.watch_models.watch_models`.
    """
    monitored = watch_models(models=models, window=window, as_of=as_of, place=place, asked=asked)
    report_models(monitored=monitored, place=place)


def run_monitor_pipeline(
    models: list[str], *, window: str, as_of: datetime, place: dict[str, str], asked: dict[str, str]
) -> list[dict[str, Any]]:
    """Run the pipeline on the active stack and wait for its end; what it says of each model."""
    from zenml.client import Client
    from zenml.enums import ExecutionMode

    configured = monitor.with_options(
        run_name=f"monitor {as_of:%Y-%m-%d %H:%M} {uuid.uuid4().hex[:12]}",
        tags=models[:20],
        enable_step_logs=False,
        execution_mode=ExecutionMode.FAIL_FAST,
    )
    run = configured(models=models, window=window, as_of=as_of.isoformat(), place=place, asked=asked)
    if run is None:
        return []
    (found,) = Client().get_pipeline_run(run.id).steps["watch_models"].outputs["monitored"]
    results: list[dict[str, Any]] = found.load()
    return results
