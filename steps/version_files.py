"""A registered version's files with the manifest that names them, as they would be served."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from adapters.model_store import SAVED_MODEL, TWIN, digests
from adapters.onnx_model import refuse_hostile
from adapters.registry import Registry
from adapters.saved_model_check import refuse_hostile_saved_model
from lifecycle.manifest import Manifest, describe
from lifecycle.spec import ModelSpec


def gather_version(
    registry: Registry, spec: ModelSpec, version: str, folder: Path
) -> tuple[Manifest, Mapping[str, Path | bytes]]:
    """Read a version from the registry: its manifest, and its files by their path in the gateway's store.

    Parameters
    ----------
    folder
        What is downloaded lies there, and is read from there.

    Raises
    ------
    ConfigError
        A version is not what was registered, or it holds what is not allowed.
    UnavailableError
        The registry does not answer.
    """
    tags = registry.tags(spec.name, version)
    sources: dict[str, Path | bytes]
    twin = registry.twin(spec.name, version, folder)
    if twin is not None:
        content = twin.read_bytes()
        refuse_hostile(content)
        sources = {TWIN: content}
        return describe(spec, version, tags, "onnx", digests(sources)), sources
    saved = registry.download(spec.name, version, folder)
    refuse_hostile_saved_model(saved)
    sources = {
        f"{SAVED_MODEL}/{path.relative_to(saved).as_posix()}": path
        for path in sorted(saved.rglob("*"))
        if path.is_file()
    }
    return describe(spec, version, tags, "tensorflow", digests(sources)), sources


def substance_of(registry: Registry, spec: ModelSpec, version: str) -> str:
    """`Manifest.substance` of a version as the registry holds it now."""
    with tempfile.TemporaryDirectory() as folder:
        return gather_version(registry, spec, version, Path(folder))[0].substance
