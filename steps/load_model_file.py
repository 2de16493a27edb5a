"""Put the model file in force on record as the run's first artifact."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from lifecycle.spec import ModelSpec


@step(enable_cache=False)
def load_model_file(spec: ModelSpec) -> Annotated[ModelSpec, "model_file"]:
    """Hand the validated model file to the later steps.

    Parameters
    ----------
    spec
        The model file, environment and command-line differences laid over it.
    """
    return spec
