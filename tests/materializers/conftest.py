"""A real local artifact store in a temporary folder, and values like those a training makes."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.minimal_spec import grouped_spec


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[type[Any]], Any]:
    """Make a materializer of a class whose artifact lies in a fresh folder of a local ZenML store."""
    from zenml.artifact_stores.local_artifact_store import LocalArtifactStore, LocalArtifactStoreConfig
    from zenml.enums import StackComponentType

    root, now = tmp_path / "store", datetime(2026, 1, 1, tzinfo=UTC)
    root.mkdir()
    store = LocalArtifactStore(
        name="store",
        id=uuid.uuid4(),
        config=LocalArtifactStoreConfig(path=str(root)),
        flavor="local",
        type=StackComponentType.ARTIFACT_STORE,
        user=uuid.uuid4(),
        created=now,
        updated=now,
    )

    def make(materializer: type[Any]) -> Any:
        folder = root / materializer.__name__
        folder.mkdir(exist_ok=True)
        return materializer(uri=str(folder), artifact_store=store)

    return make


@pytest.fixture(scope="session")
def evaluation() -> Any:
    """A small evaluation with a slice and a group too small to judge, and a baseline."""
    import numpy as np
    import pandas as pd

    from lifecycle.evaluation import BaselineScores, evaluate

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    frame = pd.DataFrame({"c": ["u"] * 380 + ["w"] * 20, "g": ["f"] * 200 + ["m"] * 180 + ["x"] * 20})
    scores = np.clip(labels * 0.3 + rng.uniform(0, 0.7, 400), 0, 1)
    baselines = {"prior": BaselineScores(np.full(400, 0.5), 0.5)}
    return evaluate(grouped_spec(), frame, labels, scores, 0.5, baselines, 0, "hold-out")
