"""From what is on record to what is served: versions placed and verified, then the routing table, then the aliases (R4.2).

The ops store decides. Everything here may be done again at any time, also after a crash in the middle: what is so
already is left alone.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from adapters.model_store import SAVED_MODEL, TWIN, ModelStore, Table, digests
from adapters.onnx_model import refuse_hostile
from adapters.ops_store import OpsStore
from adapters.registry import Registry
from adapters.rollout_store import Change
from adapters.saved_model_check import refuse_hostile_saved_model
from lifecycle.aliases import Alias
from lifecycle.manifest import describe
from lifecycle.rollout import routing_of
from lifecycle.spec import ModelSpec


def carry_out(spec: ModelSpec, change: Change, ops: OpsStore, registry: Registry, store: ModelStore) -> bool:
    """Make the gateway's store and the registry agree with a change; whether the routing table had to be written.

    Raises
    ------
    ConfigError
        A version is not what was registered, or it holds what is not allowed.
    UnavailableError
        The registry does not answer, or the disk does not take it.
    """
    routing = routing_of(change.state, spec.rollout, change.generation)
    written = False
    if routing is not None:
        before = store.table(spec.name)
        if before is None or before.routing != routing:
            placed = {version: place_version(registry, store, spec, version) for version in routing.warm}
            store.write_table(Table(routing, placed))
            written = True
    held = ops.aliases(spec.name)
    registry.mirror_aliases(spec.name, {alias.value: held.get(alias) for alias in Alias})
    return written


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
