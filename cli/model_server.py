"""The cluster's model servers follow the routing tables: versions where they look for them, then config and labels (R4.1)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from adapters.model_store import ModelStore
from adapters.registry import Registry
from adapters.tf_serving import ModelServer, export_version
from lifecycle.errors import ConfigError, ProDecksError
from lifecycle.model_server import Seen, next_config
from lifecycle.traffic import Routing


class ModelServers:
    """TensorFlow Serving, kept in agreement with the routing tables.

    Parameters
    ----------
    registry, store
        Where versions come from, and the routing tables.
    address
        ``host:port``; where the name stands for several servers, each is kept in agreement.
    base
        Folder that they read versions from; the same path here and there.

    Raises
    ------
    ConfigError
        No address, or no folder.
    """

    def __init__(self, registry: Registry, store: ModelStore, address: str, base: Path) -> None:
        if not base.is_dir():
            raise ConfigError(f"--tf-serving-models {base}; accepted: a folder that TensorFlow Serving reads too")
        self._registry, self._store = registry, store
        self._server, self._base = ModelServer(address), base.resolve()
        self._known: set[str] = set()

    def follow(self) -> list[str]:
        """Set right what disagrees; what was done, and each problem once, in words.

        Raises
        ------
        ConfigError
            A routing table is damaged: a config without its model would unload it.
        """
        tables = [self._store.table(model) for model in self._store.models()]
        routings = [table.routing for table in tables if table is not None]
        told, problems = self._export(routings)
        # A new model without any version would keep the server waiting for one.
        present = [one for one in routings if any((self._base / one.model / version).is_dir() for version in one.warm)]
        try:
            replicas = self._server.replicas()
        except ProDecksError as error:
            replicas = []
            problems.append(str(error))
        for replica in replicas:
            try:
                seen = {one.model: self._server.seen(replica, one.model) for one in present}
                problems += _failures(replica, present, seen)
                config = next_config(present, seen)
                if config:
                    self._server.configure(replica, config, self._base)
                    told += [
                        f"TensorFlow Serving {replica}: {one.model} holds versions {', '.join(one.versions)}; "
                        + (
                            ", ".join(f"{label} is {version}" for label, version in one.labels.items())
                            or "no label yet"
                        )
                        for one in config
                    ]
            except ProDecksError as error:
                problems.append(str(error))
        fresh = [one for one in problems if one not in self._known]
        self._known = set(problems)
        return told + fresh

    def _export(self, routings: Iterable[Routing]) -> tuple[list[str], list[str]]:
        told, problems = [], []
        for routing in routings:
            for version in routing.warm:
                if (self._base / routing.model / version).is_dir():
                    continue
                try:
                    with tempfile.TemporaryDirectory() as folder:
                        saved = self._registry.download(routing.model, version, Path(folder))
                        export_version(saved, self._base, routing.model, version)
                    told.append(f"{routing.model} version {version}: put below {self._base}")
                except ProDecksError as error:
                    # One version's trouble keeps no other from being served.
                    problems.append(str(error))
        return told, problems


def _failures(replica: str, routings: Iterable[Routing], seen: Mapping[str, Seen]) -> list[str]:
    return [
        f"TensorFlow Serving {replica} could not load {one.model} version {version}: {why}"
        for one in routings
        for version, why in seen[one.model].failures.items()
        if version in one.warm
    ]
