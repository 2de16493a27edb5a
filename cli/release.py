"""From what is on record to what is served: versions placed and verified, then the routing table, then the aliases (R4.2).

The ops store decides. Everything here may be done again at any time, also after a crash in the middle: what is so
already is left alone.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from adapters.model_store import ModelStore, Table
from adapters.ops_store import OpsStore
from adapters.registry import Registry
from adapters.rollout_store import Change
from lifecycle.errors import ConfigError
from lifecycle.rollout import routing_of
from lifecycle.spec import ModelSpec
from steps.mirror_aliases import mirror_aliases
from steps.version_files import gather_version


def carry_out(spec: ModelSpec, change: Change, ops: OpsStore, registry: Registry, store: ModelStore) -> list[str]:
    """Make the gateway's store and the registry agree with a change; what had to be done, in words.

    Raises
    ------
    ConfigError
        A version is not what was registered or what the rollout began with, or its twin holds what is not allowed.
    UnavailableError
        The registry does not answer, or the disk does not take it.
    """
    routing = routing_of(change.state, spec.rollout, change.generation)
    done = []
    if routing is not None:
        before = store.table(spec.name)
        if before is None or before.routing != routing:
            decided = {change.state.candidate: change.evidence.get("substance")}
            placed = {
                version: place_version(registry, store, spec, version, decided.get(version)) for version in routing.warm
            }
            store.write_table(Table(routing, placed))
            done.append(f"routing table {change.generation} written")
    return done + mirror_aliases(ops, registry, spec.name, change.environment, datetime.now(UTC))


def place_version(
    registry: Registry, store: ModelStore, spec: ModelSpec, version: str, decided: str | None = None
) -> str:
    """Copy a registered version into the gateway's store; its manifest's digest.

    Parameters
    ----------
    decided
        `Manifest.substance` of what its rollout began with; None where that is not on record.
    """
    with tempfile.TemporaryDirectory() as folder:
        manifest, sources = gather_version(registry, spec, version, Path(folder))
        if decided is not None and manifest.substance != decided:
            raise ConfigError(
                f"{spec.name} version {version} in the registry is not what its rollout began with; "
                "accepted: that very content, or another version"
            )
        return store.place(manifest, sources)
