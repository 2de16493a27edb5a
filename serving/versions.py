"""Versions in memory, and the routing tables the gateway follows: what is damaged never becomes live (R4.1, R4.2)."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from adapters.model_store import SAVED_MODEL, TWIN, ModelStore, Table
from adapters.onnx_model import OnnxModel, refuse_hostile
from adapters.tf_serving import ModelServer
from lifecycle.errors import ConfigError, ProDecksError, UnavailableError
from lifecycle.manifest import Manifest
from lifecycle.traffic import Routing
from serving.lanes import CALLS, DEADLINE_S, Lane, Pace
from serving.rows import RowReader

AGAIN_S = 0.5
"""After so long a routing table is tried again whose versions could not be reached."""

TRIAL_S = 30.0
"""A version that has not answered its first row by then is not put live, and other routing tables are followed again."""

Columns = Mapping[str, npt.NDArray[Any]]

log = logging.getLogger("prodecks.gateway")


class Backend(Protocol):
    """Scores columns of raw features; any error it raises is the version's, not the client's."""

    def score(self, columns: Columns) -> npt.NDArray[np.float64]:
        """Probability of the positive class, shape (rows,)."""
        ...


class SavedModelBackend:
    """TensorFlow in this process: what serves a version that has no twin.

    Parameters
    ----------
    folder
        Folder that holds ``saved_model.pb``.
    """

    def __init__(self, folder: str) -> None:
        from adapters.saved_model import SavedModel
        from adapters.saved_model_check import refuse_hostile_saved_model

        refuse_hostile_saved_model(Path(folder))
        self._model = SavedModel(folder)

    def score(self, columns: Columns) -> npt.NDArray[np.float64]:
        """Probability of the positive class, shape (rows,)."""
        import pandas as pd

        scores: npt.NDArray[np.float64] = self._model.predict(pd.DataFrame(dict(columns)))["score"].to_numpy()
        return scores


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version that answers.

    Parameters
    ----------
    manifest
        What is known of it.
    backend
        What scores.
    rows
        Reads its requests.
    seconds
        Time it took to load, in s.
    remote
        Whether its backend is over the network.
    lane
        Where it is asked when it is shadow, slow or remote.
    pace
        How quick it is.
    """

    manifest: Manifest
    backend: Backend
    rows: RowReader
    seconds: float
    remote: bool = False
    lane: Lane = field(init=False)
    pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        # One call at a time in this process: a slow version takes one core, not all.
        object.__setattr__(self, "lane", Lane(self.score, CALLS) if self.remote else Lane(self.score, 1, DEADLINE_S))

    @property
    def apart(self) -> bool:
        """Whether it may hold up others, and its rows are therefore kept apart."""
        return self.remote or self.pace.apart

    def score(self, rows: Sequence[Any]) -> npt.NDArray[np.float64]:
        """Scores of typed rows, shape (rows,); whatever the backend raises, and ValueError for fewer or more than asked."""
        began = time.perf_counter()
        try:
            scores = self.backend.score(self.rows.columns(rows))
        finally:
            self.pace.took(time.perf_counter() - began, len(rows))
        if scores.shape != (len(rows),):
            raise ValueError(f"{scores.shape} scores for {len(rows)} rows")
        return scores


def load_version(store: ModelStore, model: str, version: str, digest: str, server: ModelServer | None = None) -> Loaded:
    """Read, verify, load and try a version.

    Parameters
    ----------
    store, model, version, digest
        Where it lies, which it is, and what its manifest has to be.
    server
        TensorFlow Serving that scores; None scores in this process.

    Raises
    ------
    ConfigError
        Anything about it is not as it was registered, or it does not answer with a probability.
    UnavailableError
        TensorFlow Serving does not have it yet, or does not answer.
    """
    started = time.perf_counter()
    manifest = store.manifest(model, version)
    if manifest.digest != digest:
        raise ConfigError(f"{model} version {version}: its manifest is not the one that was deployed")
    store.verify(manifest)
    twin = None
    if manifest.backend == "onnx":
        content = store.read(manifest, TWIN)
        refuse_hostile(content)
        twin = OnnxModel(content)
    backend: Backend
    if server is not None:
        backend = server.version(model, version)
    else:
        backend = twin or SavedModelBackend(str(store.path(manifest, SAVED_MODEL)))
    rows = RowReader(manifest)
    try:
        tried = _tried(backend, rows)
    except ProDecksError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a model does when it is asked, it is not put live
        told = (str(error).splitlines() or [""])[0][:200]
        raise ConfigError(
            f"{model} version {version} does not answer a row of missing values: {type(error).__name__}: {told}"
        ) from None
    if tried.shape != (1,) or not 0 <= float(tried[0]) <= 1:
        raise ConfigError(
            f"{model} version {version} answers a row of missing values with {tried!r}; accepted: a score from 0 to 1"
        )
    if server is not None and twin is not None:
        from lifecycle.twins import SCORE_TOLERANCE  # brings pandas, which a gateway of twins does without

        # What lies in the server's folder is not compared with its digest: another version under the number shows here.
        expected = float(twin.score(rows.nothing_known())[0])
        if abs(float(tried[0]) - expected) > SCORE_TOLERANCE:
            raise ConfigError(
                f"{model} version {version}: TensorFlow Serving scores a row of missing values {float(tried[0]):.6f}, the "
                f"registered version {expected:.6f}; accepted: the same model under the number"
            )
    return Loaded(manifest, backend, rows, time.perf_counter() - started, remote=server is not None)


def _tried(backend: Backend, rows: RowReader) -> npt.NDArray[np.float64]:
    """Score of a row of missing values; whatever the backend raises, and TimeoutError."""
    answer: Future[npt.NDArray[np.float64]] = Future()

    def score() -> None:
        try:
            answer.set_result(backend.score(rows.nothing_known()))
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            answer.set_exception(error)

    threading.Thread(target=score, name="trial", daemon=True).start()
    return answer.result(TRIAL_S)


@dataclass(frozen=True, slots=True)
class Served:
    """What one model is served by right now.

    Parameters
    ----------
    routing
        The routing table in force.
    versions
        Every version the table names, loaded.
    """

    routing: Routing
    versions: Mapping[str, Loaded]


@dataclass(slots=True)
class Models:
    """All models of a gateway; `refresh` follows the store.

    Parameters
    ----------
    store
        The folder it serves from.
    server
        TensorFlow Serving that scores; None scores in this process.
    """

    store: ModelStore
    server: ModelServer | None = None
    served: dict[str, Served] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    _stamps: dict[str, tuple[int, int] | None] = field(default_factory=dict)
    _again: dict[str, float] = field(default_factory=dict)

    def changed(self) -> list[str]:
        """Models whose routing table was written since it was last read, or waits for something that did not answer."""
        now = time.monotonic()
        return [
            name
            for name in self.store.models()
            if self._stamps.get(name) != self.store.stamp(name) or self._again.get(name, math.inf) <= now
        ]

    def refresh(self, model: str) -> None:
        """Put a model's newest routing table in force; when a version of it cannot be loaded, nothing changes.

        What is wrong stands in `problems` until a table can be followed again. Safe to call in another thread: what
        answers requests is replaced in one assignment.
        """
        stamp = self.store.stamp(model)
        self._again.pop(model, None)
        try:
            table = self.store.table(model)
            if table is not None:
                self.served[model] = self._load(table)
            self.problems.pop(model, None)
        except (ProDecksError, OSError) as error:
            self.problems[model] = str(error)
            if isinstance(error, UnavailableError):
                self._again[model] = time.monotonic() + AGAIN_S
        except Exception as error:
            # Whatever a library makes of a file that is none: the next table must still be followed.
            log.exception("%s: its routing table cannot be followed", model)
            self.problems[model] = f"{type(error).__name__}; the gateway's log says more"
        # Remembered also when it failed: a table that cannot be right is not tried again and again, the next one is.
        self._stamps[model] = stamp

    def _load(self, table: Table) -> Served:
        routing = table.routing
        before = self.served.get(routing.model)
        versions: dict[str, Loaded] = {}
        for version in (routing.live, routing.candidate, routing.shadow, routing.previous):
            if version is None or version in versions:
                continue
            digest = table.digests.get(version)
            if digest is None:
                raise ConfigError(f"routing table of {routing.model} names version {version} without a digest")
            kept = None if before is None else before.versions.get(version)
            if kept is not None and kept.manifest.digest == digest:
                versions[version] = kept
            else:
                versions[version] = load_version(self.store, routing.model, version, digest, self.server)
        return Served(routing, versions)
