"""Fetch the labelled rows of any window as an immutable snapshot (R3.7)."""

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
def fetch_window(spec: ModelSpec, start: str, end: str, as_of: str) -> Annotated[Snapshot, "snapshot"]:
    """Read the rows of a window from the source.

    Parameters
    ----------
    spec
        The model file.
    start, end
        ISO 8601 moments, with offset: first moment of the window, and the first one after it.
    as_of
        Likewise: what is known counts up to it.
    """
    tell("fetch", f"reading {spec.source.table} from {start[:16]} to {end[:16]}")
    between = (datetime.fromisoformat(start), datetime.fromisoformat(end))
    source = Services.from_environment().source
    snapshot = fetch(spec, source, datetime.fromisoformat(as_of), spec.training.seed, between=between)
    log_metadata(metadata={"snapshot": snapshot.name, "rows": snapshot.counts.rows})
    tell("fetch", f"{snapshot.counts.rows:,} rows, snapshot {snapshot.name}", 1, 1)
    return snapshot
