"""Any registered version on any labelled window, judged by the gates that hold there (R3.7, R5.2)."""

from __future__ import annotations

from datetime import datetime

from zenml import pipeline
from zenml.client import Client
from zenml.enums import ExecutionMode

from lifecycle.errors import ConfigError
from lifecycle.spec import ModelSpec
from steps.evaluate_version import evaluate_version
from steps.fetch_window import fetch_window
from steps.load_model_file import load_model_file


@pipeline(name="evaluate")
def evaluate(
    spec: ModelSpec, version: str, window: dict[str, str], snapshot: str, environment: str, run_id: str
) -> None:
    """Evaluate one version.

    Parameters
    ----------
    spec
        The model file.
    version
        Its number in the registry.
    window
        ``start``, ``end``, ``as_of``: ISO 8601 moments; empty when a snapshot is given.
    snapshot
        Id of a snapshot that was kept; empty to fetch the window.
    environment
        Whose live version it is measured beside.
    run_id
        The ops store's run.
    """
    model_file = load_model_file(spec=spec)
    rows = Client().get_artifact_version(snapshot) if snapshot else fetch_window(spec=model_file, **window)
    evaluate_version(snapshot=rows, version=version, spec=model_file, environment=environment, run_id=run_id)


def find_snapshot(name: str) -> str:
    """Id of the newest kept snapshot of this name; ConfigError when there is none."""
    found = Client().list_artifact_versions(artifact="snapshot", run_metadata=[f"snapshot:{name}"], size=1)
    if not found.items:
        raise ConfigError(
            f"no snapshot {name!r} is kept; accepted: one that run.py runs show names, or --from and --to"
        )
    return str(found.items[0].id)


def run_evaluate_pipeline(
    spec: ModelSpec,
    version: str,
    *,
    data: str | None,
    window: tuple[datetime, datetime],
    environment: str,
    as_of: datetime,
    run_id: str,
) -> None:
    """Run the pipeline on the active stack and wait for its end.

    Parameters
    ----------
    data
        Name of a snapshot; None to fetch `window` as it was known at `as_of`.
    """
    configured = evaluate.with_options(
        run_name=f"evaluate {spec.name} {version} {run_id.rsplit('-', 1)[-1]}",
        tags=[spec.name],
        enable_step_logs=False,
        execution_mode=ExecutionMode.FAIL_FAST,
    )
    moments = {"start": window[0].isoformat(), "end": window[1].isoformat(), "as_of": as_of.isoformat()}
    configured(
        spec=spec,
        version=version,
        window={} if data else moments,
        snapshot=find_snapshot(data) if data else "",
        environment=environment,
        run_id=run_id,
    )
