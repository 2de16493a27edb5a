"""The folder a gateway serves from: verified versions, and the routing table of each model (R2.3).

A version's folder appears whole or not at all, and is never changed. A routing table names each of its versions by the
digest of its manifest, so that what serves is what was decided on, byte for byte.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from adapters import durable
from lifecycle.errors import ConfigError, UnavailableError
from lifecycle.manifest import MODEL_NAME, Manifest, check_names
from lifecycle.traffic import Routing

MANIFEST = "manifest.json"
TWIN = "twin.onnx"
SAVED_MODEL = "saved_model"


@dataclass(frozen=True, slots=True)
class Table:
    """A routing table with the digest of each version it names.

    Parameters
    ----------
    routing
        Who gets what.
    digests
        Version: `Manifest.digest`.
    """

    routing: Routing
    digests: dict[str, str]

    def to_json(self) -> bytes:
        """JSON, as it lies in the store."""
        return json.dumps({"routing": self.routing.to_dict(), "digests": self.digests}, indent=1).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Table:
        """Inverse of `to_json`; ConfigError for anything else."""
        try:
            values = json.loads(text)
            return cls(Routing.from_dict(values["routing"]), {str(k): str(v) for k, v in values["digests"].items()})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(f"not a routing table: {type(error).__name__}: {str(error)[:200]}") from None


class ModelStore:
    """Versions and routing tables below one folder.

    Parameters
    ----------
    folder
        Made when something is placed in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def place(self, manifest: Manifest, sources: Mapping[str, Path | bytes]) -> str:
        """Put a version's files into the store; one that is there and whole already is left alone.

        Parameters
        ----------
        manifest
            Its `files` name every source by its digest.
        sources
            Path below the version's folder: content, or the file to copy.

        Returns
        -------
        str
            The manifest's digest.

        Raises
        ------
        ConfigError
            A file differs from its digest, or another version lies there under the same number.
        UnavailableError
            The disk does not take it; nothing half-written is left in the version's place.
        """
        place = self._version(manifest.model, manifest.version)
        if self.holds(manifest.model, manifest.version, manifest.digest):
            return manifest.digest  # else what lies there is damaged, and replaced below by what the registry holds
        staged = self.folder / "staging" / uuid.uuid4().hex
        with self._answering(f"version {manifest.version} of {manifest.model}"):
            try:
                for name, source in {**sources, MANIFEST: manifest.to_json()}.items():
                    target = staged / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    durable.write(target, source if isinstance(source, bytes) else source.read_bytes())
                _verify(staged, manifest)
                place.parent.mkdir(parents=True, exist_ok=True)
                if place.exists():
                    place.rename(staged.with_suffix(".damaged"))
                staged.rename(place)
                durable.sync(place.parent)
            finally:
                for leftover in (staged, staged.with_suffix(".damaged")):
                    shutil.rmtree(leftover, ignore_errors=True)
        return manifest.digest

    def manifest(self, model: str, version: str) -> Manifest:
        """Read a version's manifest.

        Raises
        ------
        ConfigError
            No such version here, or its manifest is damaged or another version's.
        """
        path = self._version(model, version) / MANIFEST
        try:
            content = path.read_bytes()
            found = Manifest.from_json(content)
        except FileNotFoundError:
            raise ConfigError(f"{model} has no version {version} to serve; accepted: one that was deployed") from None
        except OSError as error:
            raise UnavailableError(f"{path}: {error.strerror}") from None
        if (found.model, found.version) != (model, version):
            raise ConfigError(f"{path} is of {found.model} version {found.version}; accepted: its own")
        if content != found.to_json():
            raise ConfigError(f"{path} is not as it was written; accepted: its bytes unchanged")
        return found

    def verify(self, manifest: Manifest) -> None:
        """Compare every file of a version with its digest; ConfigError names the one that differs or is missing."""
        _verify(self._version(manifest.model, manifest.version), manifest)

    def holds(self, model: str, version: str, digest: str) -> bool:
        """Whether a version lies here, whole, under the manifest of this digest."""
        try:
            manifest = self.manifest(model, version)
            if manifest.digest != digest:
                return False
            self.verify(manifest)
        except (ConfigError, UnavailableError):
            return False
        return True

    def read(self, manifest: Manifest, name: str) -> bytes:
        """One file of a version, equal to its digest; ConfigError when it is not."""
        content = _content(self._version(manifest.model, manifest.version) / name)
        _compare(name, content, manifest)
        return content

    def path(self, manifest: Manifest, name: str) -> Path:
        """Where a file or folder of a version lies, for libraries that read it themselves."""
        return self._version(manifest.model, manifest.version) / name

    def models(self) -> list[str]:
        """Models that have a routing table."""
        return sorted(path.stem for path in (self.folder / "routing").glob("*.json") if MODEL_NAME.fullmatch(path.stem))

    def stamp(self, model: str) -> tuple[int, int] | None:
        """What changes when the routing table is written anew; None without one."""
        try:
            status = self._table(model).stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_ino

    def table(self, model: str) -> Table | None:
        """Routing table of a model, None before its first deployment; ConfigError when it is damaged."""
        try:
            table = Table.from_json(self._table(model).read_bytes())
        except FileNotFoundError:
            return None
        if table.routing.model != model:
            raise ConfigError(f"routing table of {model} is {table.routing.model}'s; accepted: its own")
        return table

    def write_table(self, table: Table) -> None:
        """Put a routing table in force, whole or not at all; one of an older generation changes nothing.

        Raises
        ------
        UnavailableError
            The disk does not take it; the one before stays.
        """
        target = self._table(table.routing.model)
        with self._answering(f"routing table of {table.routing.model}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            with _alone(target.parent):  # between the look at the table before and its replacement
                with contextlib.suppress(ConfigError):
                    before = self.table(table.routing.model)
                    if before is not None and before.routing.generation > table.routing.generation:
                        return
                durable.replace(target, table.to_json())

    def _version(self, model: str, version: str) -> Path:
        check_names(model, version)
        return self.folder / "models" / model / version

    def _table(self, model: str) -> Path:
        check_names(model)
        return self.folder / "routing" / f"{model}.json"

    @contextlib.contextmanager
    def _answering(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UnavailableError(f"{what} cannot be written below {self.folder}: {error.strerror}") from None


def digests(sources: Mapping[str, Path | bytes]) -> dict[str, str]:
    """sha256 of each source in hex, for `Manifest.files`."""
    return {
        name: hashlib.sha256(source if isinstance(source, bytes) else source.read_bytes()).hexdigest()
        for name, source in sources.items()
    }


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes out; the system lets go of it for a process that died."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def _verify(folder: Path, manifest: Manifest) -> None:
    for name in manifest.files:
        _compare(name, _content(folder / name), manifest)
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    strangers = sorted(present - set(manifest.files) - {MANIFEST})
    if strangers:
        raise ConfigError(
            f"{manifest.model} version {manifest.version} holds {strangers[0]}, which its manifest does not name"
        )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path.name} of the version cannot be read: {error.strerror}") from None


def _compare(name: str, content: bytes, manifest: Manifest) -> None:
    wanted = manifest.files.get(name)
    if wanted is None or hashlib.sha256(content).hexdigest() != wanted:
        raise ConfigError(
            f"{manifest.model} version {manifest.version}: {name} is not what was registered; accepted: sha256 {wanted}"
        )
