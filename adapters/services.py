"""Where the outside world is: addresses from the environment, which the stack file fills (R2.1, RO.3)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from adapters.model_files import ROOT, load_file
from lifecycle.errors import ConfigError
from lifecycle.serving_policy import ServingPolicy

VAR = "PRODECKS_VAR"
SOURCE = "PRODECKS_SOURCE_URL"
OPS = "PRODECKS_OPS_URL"
TUNING = "PRODECKS_TUNING_URL"
REGISTRY = "PRODECKS_REGISTRY_URL"
MODELS_FOLDER = "PRODECKS_MODELS"
SERVING = "PRODECKS_SERVING"
POLICIES_FOLDER = "PRODECKS_POLICIES"


@dataclass(frozen=True, slots=True)
class Services:
    """Addresses of the services a step talks to.

    Parameters
    ----------
    source
        Database that training data comes from: ``duckdb:///file`` or ``postgresql://...``.
    ops
        Ops store: ``sqlite:///file`` or ``postgresql://...``.
    tuning
        Optuna's storage, likewise.
    registry
        MLflow tracking and registry URI.
    """

    source: str
    ops: str
    tuning: str
    registry: str

    @classmethod
    def from_environment(cls) -> Services:
        """Read the addresses; ConfigError names the variable that is missing."""
        missing = [name for name in (SOURCE, OPS, TUNING, REGISTRY) if not os.environ.get(name)]
        if missing:
            raise ConfigError(f"{', '.join(missing)} not set; accepted: an address, usually from the stack file")
        return cls(os.environ[SOURCE], os.environ[OPS], os.environ[TUNING], os.environ[REGISTRY])


def var_folder() -> Path:
    """Folder of all local state: ``var/`` in the project, or where PRODECKS_VAR points."""
    return Path(os.environ.get(VAR) or ROOT / "var").resolve()


def models_folder() -> Path:
    """Folder of the model files: ``configs/models``, or where PRODECKS_MODELS points."""
    return Path(os.environ.get(MODELS_FOLDER) or ROOT / "configs" / "models").resolve()


def policies_folder() -> Path:
    """Folder of the policies: ``configs/policies``, or where PRODECKS_POLICIES points."""
    return Path(os.environ.get(POLICIES_FOLDER) or ROOT / "configs" / "policies").resolve()


def serving_policy() -> ServingPolicy:
    """How the gateway behaves: ``configs/policies/serving.yaml``, or the file PRODECKS_SERVING names.

    ConfigError with everything wrong in the file.
    """
    return load_file(Path(os.environ.get(SERVING) or ROOT / "configs" / "policies" / "serving.yaml"), ServingPolicy, {})
