"""A version meets its users step by step and leaves them by itself when it fails: on real processes, from train to rollback."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from adapters.model_store import TWIN, ModelStore, Table, digests
from adapters.ops_store import OpsStore
from adapters.registry import Registry
from adapters.rollout_store import RolloutStore
from lifecycle.rollout import Stage
from tests.cli.conftest import MODEL, Place, members
from tests.cli.test_serve import PREDICT, ROW, Running, serving

pytestmark = pytest.mark.requirement("R4.1", "R8.1", "R8.2")
QUICK = MODEL + "rollout: {hold: 0m, min_requests: 100, steps: [0.5, 1.0], rollback: {score_shift: 0.9}}\n"


@dataclass
class World:
    """A place with two approved versions of its model."""

    place: Place

    @property
    def rollouts(self) -> RolloutStore:
        return RolloutStore(OpsStore.open(f"sqlite:///{self.place.var / 'ops.db'}"))

    def stage(self) -> tuple[str, Stage]:
        change = self.rollouts.current("churn")
        assert change is not None
        return change.state.candidate, change.state.stage

    def wait(self, version: str, stage: Stage, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while self.stage() != (version, stage):
            assert time.monotonic() < until, self.rollouts.history("churn")
            time.sleep(0.1)


@pytest.fixture(scope="module")
def twice_trained(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Two trainings with other seeds: versions 1 and 2."""
    place = Place.make(tmp_path_factory.mktemp("world"), members(), QUICK)
    for seed in ("0", "1"):
        answer = place.run("--pipeline", "train", "--model", "churn", "--seed", seed)
        assert answer.code == 0, answer.err
    return place


@pytest.fixture
def world(twice_trained: Place, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The two versions, and nothing deployed: the state of another test is thrown away."""
    place = twice_trained
    for leftover in (place.var / "serving",):
        shutil.rmtree(leftover, ignore_errors=True)
    import sqlite3

    with sqlite3.connect(place.var / "ops.db") as connection:
        connection.execute("DELETE FROM rollout_changes")
        connection.execute("DELETE FROM aliases")
    connection.close()
    return World(place)


def ask(client: httpx.Client, number: int) -> httpx.Response:
    return client.post(PREDICT, json={"rows": [{**ROW, "activity": number % 7 - 3.0, "member_id": f"M{number}"}]})


@pytest.fixture
def asked(world: World) -> Iterator[tuple[World, Running, httpx.Client]]:
    """Version 1 live on a gateway, and somebody who operates."""
    assert world.place.run("--pipeline", "deploy", "--model", "churn", "--version", "1", "--by", "Ali").code == 0
    with (
        serving(world.place) as gateway,
        httpx.Client(base_url=gateway.address) as client,
        (world.place.folder / "operate.log").open("w") as told,
    ):
        operator = world.place.start("operate", "--every", "0.2", "--gateway", gateway.address, stderr=told)
        try:
            yield world, gateway, client
        finally:
            operator.terminate()
            operator.wait(20)


def until(world: World, client: httpx.Client, version: str, stage: Stage) -> int:
    """Ask until a rollout stands there; how many requests failed."""
    end, number, failed = time.monotonic() + 60, 0, 0
    while world.stage() != (version, stage):
        for _ in range(50):
            number += 1
            failed += ask(client, number).status_code != 200
        assert time.monotonic() < end, world.rollouts.history("churn")
    return failed


def test_a_good_version_goes_live_by_itself_and_one_that_fails_leaves_by_itself(asked):
    world, _, client = asked
    told = world.place.run("--pipeline", "deploy", "--model", "churn", "--version", "2", "--by", "Ali", "--json")
    assert told.code == 0, told.err
    assert told.json["stage"] == "shadow"
    busy = world.place.run("--pipeline", "deploy", "--model", "churn", "--version", "2")
    assert busy.code == 6
    assert until(world, client, "2", Stage.LIVE) == 0
    stages = [change.state.stage for change in reversed(world.rollouts.history("churn"))]
    assert stages == [Stage.LIVE, Stage.SHADOW, Stage.CANARY, Stage.LIVE]
    with pytest.raises(AssertionError):
        world.wait("2", Stage.ROLLED_BACK, 2)  # good versions stay
    break_version(world, "2")
    started = time.monotonic()
    assert until(world, client, "2", Stage.ROLLED_BACK) > 0
    assert time.monotonic() - started < 30
    for _ in range(50):
        if ask(client, 1).headers.get("x-prodecks-version") == "1":
            break
        time.sleep(0.1)
    assert {ask(client, number).headers["x-prodecks-version"] for number in range(20)} == {"1"}
    story = world.place.run("rollout", "history", "churn").out
    for word in ("rolled_back", "error_rate", "operate", "canary", "2: 50%"):
        assert word in story
    assert "rolled_back (read back from the gateway)" in (world.place.folder / "operate.log").read_text()
    blocked = world.place.run("--pipeline", "deploy", "--model", "churn", "--version", "2")
    assert blocked.code == 2
    assert "was rolled back before" in blocked.err


def break_version(world: World, version: str) -> None:
    """Let the gateway serve, under the version's number, a twin that is wrong about known activity alone.

    Loading tries a row of nothing known, which it answers as before: a bug that only shows on users' rows.
    """
    store = ModelStore(world.place.var / "serving")
    manifest = store.manifest("churn", version)
    model = onnx.load_model_from_string(store.read(manifest, TWIN))
    for node in model.graph.node:
        node.output[:] = ["sound" if name == "score" else name for name in node.output]
        node.input[:] = ["sound" if name == "score" else name for name in node.input]
    model.graph.initializer.extend(
        [numpy_helper.from_array(np.array(5.0), "five"), numpy_helper.from_array(np.array(0.0), "none")]
    )
    make = onnx.helper.make_node
    model.graph.node.extend(
        [
            make("IsNaN", ["activity"], ["unknown"]),
            make("Where", ["unknown", "none", "five"], ["wrong"]),
            make("Add", ["sound", "wrong"], ["score"]),
        ]
    )
    content = model.SerializeToString()
    shutil.rmtree(world.place.var / "serving" / "models" / "churn" / version)
    broken = dataclasses.replace(manifest, files=digests({TWIN: content}))
    store.place(broken, {TWIN: content})
    table = store.table("churn")
    assert table is not None
    store.write_table(Table(table.routing, {**table.digests, version: broken.digest}))


def test_a_person_can_stop_it_at_any_time_and_history_tells_who(asked):
    world, _, client = asked
    assert world.place.run("--pipeline", "deploy", "--model", "churn", "--version", "2", "--by", "Ali").code == 0
    until(world, client, "2", Stage.CANARY)
    wrong = world.place.run("rollout", "rollback", "churn", "--by", "Mina", "--reason", " ")
    assert wrong.code == 2
    done = world.place.run("rollout", "rollback", "churn", "--by", "Mina", "--reason", "customers complain")
    assert done.code == 0, done.err
    assert "traffic 1: 100%" in done.out
    told = world.place.run("history", "churn", "--json").json
    assert (told[0]["stage"], told[0]["actor"], told[0]["reasons"]) == ("rolled_back", "Mina", ["customers complain"])
    early = world.place.run("history", "churn", "--at", "2020-01-01")
    assert early.code == 2
    assert "was not deployed" in early.err


def test_what_was_moved_by_hand_is_set_right_at_the_next_look(world: World):
    place = world.place
    assert place.run("--pipeline", "deploy", "--model", "churn", "--version", "1", "--by", "Ali").code == 0
    registry = Registry(f"sqlite:///{place.var / 'mlflow' / 'mlflow.db'}")
    registry.mirror_aliases("churn", {"development-champion": "2", "development-previous": "1"})
    (place.var / "serving" / "routing" / "churn.json").unlink()
    shutil.rmtree(place.var / "serving" / "models" / "churn" / "1")
    looked = place.run("operate", "--once")
    assert looked.code == 0, looked.err
    assert "churn: routing table 1 written" in looked.err
    assert "alias development-champion was moved by hand in the registry from version 1 to version 2" in looked.err
    assert registry.aliases("churn") == {"development-champion": "1"}
    store = ModelStore(place.var / "serving")
    table = store.table("churn")
    assert table is not None
    store.verify(store.manifest("churn", "1"))
    assert table.routing.weights == {"1": 1.0}
    again = place.run("operate", "--once").err
    assert "written" not in again
    assert "by hand" not in again


def test_a_sensitive_model_waits_for_somebody_else(twice_trained: Place, world: World):
    place = world.place
    file = place.models / "churn.yaml"
    before = file.read_text()
    file.write_text(before.replace("sensitivity: non_sensitive", "sensitivity: sensitive"))
    try:
        begun = place.run("--pipeline", "deploy", "--model", "churn", "--version", "1", "--by", "Ali")
        assert "waits for approval" in begun.out
        assert ModelStore(place.var / "serving").table("churn") is None
        own = place.run("rollout", "approve", "churn", "--by", "ali", "--reason", "mine")
        assert own.code == 2
        assert "somebody else's approval" in own.err
        assert "0 of 1 needed" in place.run("rollout", "status", "churn").out
        done = place.run("rollout", "approve", "churn", "--by", "Mina", "--reason", "looked at the card")
        assert "approved by Mina, 1 of 1 needed" in done.out
        assert world.stage() == ("1", Stage.LIVE)
        late = place.run("rollout", "refuse", "churn", "--by", "Mina", "--reason", "no")
        assert late.code == 2
    finally:
        file.write_text(before)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("rollout", "status", "churn"), "was never deployed"),
        (("rollout", "pause", "churn", "--by", "Mina", "--reason", "r"), "was never deployed"),
        (("rollout", "status", "chrun"), "did you mean 'churn'"),
        (("--pipeline", "deploy", "--model", "churn", "--version", "9"), "no version '9'"),
        (("--pipeline", "deploy", "--model", "churn", "--strategy", "canry"), "did you mean 'canary'"),
        (("--pipeline", "deploy", "--model", "churn", "--strategy", "shadow"), "no live version"),
        (
            ("--pipeline", "train", "--model", "churn", "--version", "1"),
            "--version does not belong to --pipeline train; accepted: --as-of",
        ),
        (("operate", "--once", "--gateway", "localhost"), "an http or https address"),
    ],
)
def test_what_cannot_be_done_is_an_answer(world: World, arguments: tuple[str, ...], problem: str):
    answer = world.place.run(*arguments)
    assert answer.code == 2, answer
    assert problem in answer.err
