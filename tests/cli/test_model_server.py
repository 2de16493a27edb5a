"""Model servers follow the routing tables: what is missing is put there, and one version's trouble stays its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from adapters.model_store import ModelStore, Table
from cli.model_server import ModelServers
from lifecycle.errors import ConfigError, UnavailableError
from lifecycle.traffic import Routing
from tests.tf_serving import Answer, TensorFlowServing, tensorflow_serving

pytestmark = pytest.mark.requirement("R4.1")


@dataclass
class Versions:
    """A registry that gives SavedModels away, as far as they are in order."""

    broken: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def download(self, model: str, version: str, destination: Path) -> Path:
        self.asked.append((model, version))
        if version in self.broken:
            raise UnavailableError(f"the model registry could not download version {version}")
        (destination / "saved_model").mkdir()
        (destination / "saved_model" / "saved_model.pb").write_text(version)
        return destination / "saved_model"


@dataclass
class World:
    store: ModelStore
    server: TensorFlowServing
    base: Path
    registry: Versions
    servers: ModelServers
    told: list[str] = field(default_factory=list)

    def route(self, routing: Routing) -> None:
        self.store.write_table(Table(routing, dict.fromkeys(routing.warm, "digest")))

    def follow_until(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not true():
            assert time.monotonic() < end, self.told
            self.told += self.servers.follow()
            time.sleep(0.02)


def load(folder: Path) -> Answer:
    if (folder / "saved_model.pb").read_text() == "13":
        raise ValueError("an operation it does not know")
    return lambda inputs: {"score": np.full(len(inputs["x"]), 0.5)}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("PRODECKS_VAR", str(tmp_path / "var"))
    (tmp_path / "base").mkdir()
    registry, store = Versions(), ModelStore(tmp_path / "var" / "serving")
    with tensorflow_serving(load) as server:
        servers = ModelServers(registry, store, server.address, tmp_path / "base")  # type: ignore[arg-type]
        yield World(store, server, tmp_path / "base", registry, servers)


def test_versions_are_put_there_loaded_and_labelled_and_then_left_alone(world: World):
    assert world.servers.follow() == []  # nothing deployed yet
    world.route(Routing("churn", 1, "1", shadow="2"))
    world.route(Routing("delay", 1, "3"))
    world.follow_until(lambda: world.server.label("delay", "live") == 3 and world.server.label("churn", "shadow") == 2)
    assert world.server.label("churn", "live") == 1
    assert sorted(world.registry.asked) == [("churn", "1"), ("churn", "2"), ("delay", "3")]
    assert f"churn version 1: put below {world.base}" in world.told
    assert any(line.endswith("churn holds versions 1, 2; live is 1, shadow is 2") for line in world.told)
    sent = world.server.configs
    assert world.servers.follow() == []
    assert world.server.configs == sent
    world.route(Routing("churn", 2, "1"))
    world.follow_until(lambda: world.server.state("churn", 2) == "END")
    assert (world.server.label("churn", "shadow"), world.server.label("delay", "live")) == (None, 3)


def test_a_version_that_is_not_to_be_had_keeps_no_other_from_being_served_and_is_told_once(world: World):
    world.registry.broken.add("2")
    world.route(Routing("churn", 1, "1"))
    world.route(Routing("delay", 1, "2"))
    world.follow_until(lambda: world.server.label("churn", "live") == 1)
    assert [line for line in world.told if "could not download" in line] == [
        "the model registry could not download version 2"
    ]
    assert world.server.state("delay", 2) is None
    world.registry.broken.clear()
    world.follow_until(lambda: world.server.label("delay", "live") == 2)


def test_why_a_version_is_not_loaded_is_told_once(world: World):
    world.route(Routing("churn", 1, "1", shadow="13"))
    world.follow_until(lambda: world.server.label("churn", "live") == 1 and world.server.state("churn", 13) == "END")
    world.told += world.servers.follow() + world.servers.follow()
    failures = [line for line in world.told if "could not load" in line]
    address = world.server.address
    assert failures == [f"TensorFlow Serving {address} could not load churn version 13: an operation it does not know"]
    assert world.server.label("churn", "shadow") is None


def test_a_damaged_table_unloads_nothing(world: World):
    world.route(Routing("churn", 1, "1"))
    world.route(Routing("delay", 1, "3"))
    world.follow_until(lambda: world.server.label("churn", "live") == 1 and world.server.label("delay", "live") == 3)
    (world.store.folder / "routing" / "churn.json").write_text("{")
    with pytest.raises(ConfigError, match="not a routing table"):
        world.servers.follow()
    assert world.server.state("churn", 1) == "AVAILABLE"


def test_a_server_that_is_away_is_told_once_and_found_again(world: World):
    world.route(Routing("churn", 1, "1"))
    world.follow_until(lambda: world.server.label("churn", "live") == 1)
    world.server.close()
    (problem,) = world.servers.follow()
    assert "UNAVAILABLE" in problem
    assert len(world.servers.follow()) <= 1  # its words may change once
    world.server.open()
    world.follow_until(lambda: world.server.label("churn", "live") == 1)


def test_a_name_that_stands_for_no_server_is_told_once(world: World):
    servers = ModelServers(world.registry, world.store, "name.invalid:8500", world.base)  # type: ignore[arg-type]
    (problem,) = servers.follow()
    assert "TensorFlow Serving at name.invalid:8500" in problem
    assert servers.follow() == []
