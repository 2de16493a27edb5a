"""A trained model as later steps hand it on: a SavedModel folder and the facts of its making (R3.6)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A SavedModel that takes raw features.

    Parameters
    ----------
    folder
        Folder that holds ``saved_model.pb``.
    content
        First 16 hex digits of a sha256 over what decides its answers: weights, encoding, calibration, threshold.
        Two trainings that agree in it made the same model.
    facts
        JSON-ready facts for cards and metadata: hyper-parameters, epochs, threshold, MLflow run.
    """

    folder: Path
    content: str
    facts: dict[str, Any] = field(default_factory=dict)
