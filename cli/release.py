"""From what is on record to what is served: versions placed and verified, then the routing table, then the aliases (R4.2).

The ops store decides. Everything here may be done again at any time, also after a crash in the middle: what is so
already is left alone.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from adapters.model_store import ModelStore, Table
from adapters.ops_store import OpsStore
from adapters.registry import Registry
from adapters.rollout_store import Change, RolloutStore
from lifecycle.errors import ConfigError
from lifecycle.rollout import routing_of
from lifecycle.spec import ModelSpec
from steps.version_files import gather_version


def route(spec: ModelSpec, change: Change, ops: OpsStore, registry: Registry, store: ModelStore) -> bool:
    """Put a change's routing table in force where another one is; whether it had to be written.

    A version that the table before names and that lies whole in the store is what was registered: it is not asked for
    again, so that a rollback needs no registry.

    Raises
    ------
    ConfigError
        A version is not what was registered or what the rollout began with, or holds what is not allowed; or the table is
        of a later generation than anything on record.
    UnavailableError
        The registry does not answer, or the disk does not take it.
    """
    routing = routing_of(change.state, spec.rollout, change.generation)
    if routing is None:
        return False
    if routing.candidate is not None:
        # What was decided counts, also after the model file's steps were edited.
        routing = replace(routing, share=change.weights.get(routing.candidate, 0.0))
    try:
        before = store.table(spec.name)
    except ConfigError:
        before = None  # damaged: written anew
    if before is not None and before.routing == routing:
        return False
    if before is not None and before.routing.generation > change.generation:
        newest = RolloutStore(ops, change.environment).current(spec.name)
        if newest is not None and newest.generation >= before.routing.generation:
            return False  # another process is further than we are
        raise ConfigError(
            f"routing table {before.routing.generation} of {spec.name} is later than anything on record, so the ops store "
            f"was restored from an older copy or the table written by hand; it stays in force. Accepted: the newer ops "
            f"store, or to delete {store.folder / 'routing' / spec.name}.json, and change {change.generation} is put in force"
        )
    known = {} if before is None else before.digests
    decided = {change.state.candidate: change.evidence.get("substance")}
    placed = {
        version: known[version]
        if version in known and store.holds(spec.name, version, known[version])
        else place_version(registry, store, spec, version, decided.get(version))
        for version in routing.warm
    }
    store.write_table(Table(routing, placed))
    return True


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
