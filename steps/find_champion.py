"""Find the version that a candidate has to stand up to."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from adapters.ops_store import OpsStore
from adapters.services import Services
from lifecycle.aliases import Alias
from lifecycle.spec import ModelSpec

NONE = ""


@step(enable_cache=False)
def find_champion(spec: ModelSpec, environment: str) -> Annotated[str, "champion"]:
    """Read the champion's version number; empty when there is none yet.

    Parameters
    ----------
    spec
        The model file.
    environment
        Where it is champion.
    """
    return OpsStore.open(Services.from_environment().ops).aliases(spec.name, environment).get(Alias.CHAMPION, NONE)
