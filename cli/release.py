"""From the registry to the gateway's store: versions placed and verified, the routing table written last (R2.3, R4.2)."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from adapters.model_store import SAVED_MODEL, TWIN, ModelStore, Table, digests
from adapters.onnx_model import refuse_hostile
from adapters.registry import Registry
from cli.serve import serving_folder
from cli.workspace import Workspace
from lifecycle.aliases import Alias
from lifecycle.manifest import describe
from lifecycle.spec import ModelSpec
from lifecycle.traffic import Routing


def release(workspace: Workspace, spec: ModelSpec, aliases: Mapping[Alias, str]) -> str:
    """Let the gateway serve the champion, with the champion before it kept in memory; what was done, in words.

    A gateway that runs follows within a second and drops no request. Nothing is written when it is so already.

    Raises
    ------
    ConfigError
        A version is not what was registered, or its twin holds what is not allowed.
    UnavailableError
        The registry does not answer, or the disk does not take it.
    """
    store = ModelStore(serving_folder())
    registry = Registry(workspace.services.registry)
    champion, previous = aliases[Alias.CHAMPION], aliases.get(Alias.PREVIOUS)
    placed = {version: place_version(registry, store, spec, version) for version in (champion, previous) if version}
    before = store.table(spec.name)
    generation = 1 if before is None else before.routing.generation + 1
    table = Table(Routing(spec.name, generation, champion, previous=previous), placed)
    if before is not None and Table(_as_generation(before.routing, generation), before.digests) == table:
        return f"the gateway's store holds {spec.name} version {champion} already"
    store.write_table(table)
    backend = store.manifest(spec.name, champion).backend
    return f"{spec.name} version {champion} is what a gateway serves, by {'its twin' if backend == 'onnx' else 'TensorFlow'}"


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
            sources = {
                f"{SAVED_MODEL}/{path.relative_to(saved).as_posix()}": path
                for path in sorted(saved.rglob("*"))
                if path.is_file()
            }
            manifest = describe(spec, version, tags, "tensorflow", digests(sources))
        return store.place(manifest, sources)


def _as_generation(routing: Routing, generation: int) -> Routing:
    return Routing.from_dict({**routing.to_dict(), "generation": generation})
