"""Make sure that a version can be served: approved by its gates, and its files what was registered (R4.5)."""

from __future__ import annotations

from typing import Annotated

from zenml import log_metadata, step

from adapters.ops_store import OpsStore
from adapters.registry import Registry
from adapters.services import Services
from lifecycle.errors import ConfigError
from lifecycle.records import VersionState


@step(enable_cache=False)
def check_version(model: str, version: str) -> Annotated[str, "version"]:
    """Refuse a version that the gates did not approve, or that the registry does not hold.

    Parameters
    ----------
    model, version
        Which.
    """
    services = Services.from_environment()
    record = next((one for one in OpsStore.open(services.ops).versions(model) if one.version == version), None)
    if record is None:
        raise ConfigError(f"{model} has no version {version!r} on record; accepted: a registered one")
    if record.state is not VersionState.APPROVED:
        raise ConfigError(
            f"{model} version {version} is {record.state.value} ({'; '.join(record.reasons)}); accepted: an approved version"
        )
    tags = Registry(services.registry).tags(model, version)
    log_metadata(metadata={"version": version, "decision": record.state.value, "twin": tags.get("twin", "none")})
    return version
