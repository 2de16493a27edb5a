"""Fetch the training window as an immutable snapshot (R3.4)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from zenml import log_metadata, step

from adapters.services import Services
from adapters.source import fetch
from lifecycle.snapshot import Snapshot
from lifecycle.spec import ModelSpec
from materializers.snapshot import SnapshotMaterializer
from steps.progress import tell


@step(enable_cache=False, output_materializers=SnapshotMaterializer)
def fetch_data(spec: ModelSpec, as_of: str) -> Annotated[Snapshot, "snapshot"]:
    """Read the rows of the window from the source.

    Parameters
    ----------
    spec
        The model file.
    as_of
        ISO 8601 moment, with offset: the end of the window, and what is known counts up to it.
    """
    tell("fetch", f"reading {spec.source.window} of {spec.source.table} before {as_of[:16]}")
    snapshot = fetch(spec, Services.from_environment().source, datetime.fromisoformat(as_of), spec.training.seed)
    log_metadata(metadata={"snapshot": snapshot.name, "rows": snapshot.counts.rows})
    tell("fetch", f"{snapshot.counts.rows:,} rows, snapshot {snapshot.name}", 1, 1)
    return snapshot
