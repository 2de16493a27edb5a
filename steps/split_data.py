"""Take the hold-out and the folds (R3.5)."""

from __future__ import annotations

from typing import Annotated

from zenml import step
from zenml.config.cache_policy import CachePolicy

from lifecycle.snapshot import Snapshot
from lifecycle.spec import ModelSpec
from lifecycle.splitting import Split, split
from materializers.split import SplitMaterializer
from steps.progress import tell


@step(
    output_materializers=SplitMaterializer,
    cache_policy=CachePolicy(ignored_inputs=["spec"], file_dependencies=["lifecycle/splitting.py"]),
)
def split_data(snapshot: Snapshot, spec: ModelSpec, split_key: str) -> Annotated[Split, "split"]:
    """Split the snapshot's rows.

    Parameters
    ----------
    snapshot
        The fetched rows.
    spec
        The model file.
    split_key
        Fingerprint of what this step reads of the model file: the cache's key.
    """
    parts = split(snapshot.frame, spec, spec.training.seed)
    tell("split", f"{len(parts.train):,} rows to train, {len(parts.holdout):,} held out", 1, 1)
    return parts
