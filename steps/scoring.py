"""Scores of a registered version on rows that others are scored on too; shared by the steps that compare versions."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd

from adapters.registry import Registry
from adapters.saved_model import score
from lifecycle.evaluation import BaselineScores


def score_version(registry: Registry, model: str, version: str, frame: pd.DataFrame) -> BaselineScores | None:
    """Score rows with the version's SavedModel at its own threshold; None when it asks for features that are not there."""
    threshold = float(registry.tags(model, version)["threshold"])
    with tempfile.TemporaryDirectory() as folder:
        saved = registry.download(model, version, Path(folder))
        try:
            return BaselineScores(score(saved, frame), threshold)
        except KeyError:
            return None
