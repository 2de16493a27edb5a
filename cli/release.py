"""From what is on record to what is served: versions placed and verified, then the routing table, then the aliases (R4.2).

The ops store decides. Everything here may be done again at any time, also after a crash in the middle: what is so
already is left alone.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from adapters.model_store import SAVED_MODEL, TWIN, ModelStore, Table, digests
from adapters.onnx_model import refuse_hostile
from adapters.ops_store import OpsStore
from adapters.registry import Registry
from adapters.rollout_store import Change, RolloutStore
from adapters.saved_model_check import refuse_hostile_saved_model
from lifecycle.aliases import Alias
from lifecycle.errors import ConfigError
from lifecycle.manifest import describe
from lifecycle.rollout import routing_of
from lifecycle.spec import ModelSpec


def mirror(spec: ModelSpec, ops: OpsStore, registry: Registry) -> None:
    """Point the registry's aliases where the ops store says; UnavailableError when it does not answer."""
    held = ops.aliases(spec.name)
    registry.mirror_aliases(spec.name, {alias.value: held.get(alias) for alias in Alias})


def route(spec: ModelSpec, change: Change, ops: OpsStore, registry: Registry, store: ModelStore) -> bool:
    """Put a change's routing table in force where another one is; whether it had to be written.

    A version that the table before names and that lies whole in the store is what was registered: it is not asked for
    again, so that a rollback needs no registry.

    Raises
    ------
    ConfigError
        A version is not what was registered, or holds what is not allowed; or the table is of a later generation than
        anything on record.
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
        newest = RolloutStore(ops).current(spec.name)
        if newest is not None and newest.generation >= before.routing.generation:
            return False  # another process is further than we are
        raise ConfigError(
            f"routing table {before.routing.generation} of {spec.name} is later than anything on record, so the ops store "
            f"was restored from an older copy or the table written by hand; it stays in force. Accepted: the newer ops "
            f"store, or to delete {store.folder / 'routing' / spec.name}.json, and change {change.generation} is put in force"
        )
    known = {} if before is None else before.digests
    placed = {
        version: known[version]
        if version in known and store.holds(spec.name, version, known[version])
        else place_version(registry, store, spec, version)
        for version in routing.warm
    }
    store.write_table(Table(routing, placed))
    return True


def place_version(registry: Registry, store: ModelStore, spec: ModelSpec, version: str) -> str:
    """Copy a registered version into the gateway's store; its manifest's digest."""
    tags = registry.tags(spec.name, version)
    with tempfile.TemporaryDirectory() as folder:
        sources: dict[str, Path | bytes]
        twin = registry.twin(spec.name, version, Path(folder))
        if twin is not None:
            content = twin.read_bytes()
            refuse_hostile(content)
            sources = {TWIN: content}
            manifest = describe(spec, version, tags, "onnx", digests(sources))
        else:
            saved = registry.download(spec.name, version, Path(folder))
            refuse_hostile_saved_model(saved)
            sources = {
                f"{SAVED_MODEL}/{path.relative_to(saved).as_posix()}": path
                for path in sorted(saved.rglob("*"))
                if path.is_file()
            }
            manifest = describe(spec, version, tags, "tensorflow", digests(sources))
        return store.place(manifest, sources)
