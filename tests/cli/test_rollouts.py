"""A version meets its users step by step and leaves them by itself when it fails: gateway and operate are processes here."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from adapters.model_store import ModelStore
from lifecycle.rollout import Stage
from tests.cli.conftest import Place
from tests.cli.hand_made import FAILING, GOOD, PREDICT, World, operating, register, row
from tests.cli.test_serve import serving

pytestmark = pytest.mark.requirement("R4.1", "R8.1", "R8.2")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return register(tmp_path_factory.mktemp("registry") / "mlflow")


@pytest.fixture
def world(tmp_path: Path, database: Path, workspace: Place) -> World:
    """Approved versions, none of them deployed; pipelines run in the store of this process's workspace."""
    return World.make(tmp_path / "world", database)


@pytest.fixture
def asked(world: World) -> Iterator[tuple[World, httpx.Client]]:
    """A version live on a gateway, and somebody who operates."""
    first = world.begin(GOOD)
    assert first.code == 0, first.err
    assert "is live, as the model's first" in first.out
    with (
        serving(world.place) as gateway,
        operating(world, gateway.address),
        httpx.Client(base_url=gateway.address) as client,
    ):
        yield world, client


def ask(client: httpx.Client, number: int, *, bad: bool = False) -> httpx.Response:
    return client.post(PREDICT, json={"rows": [row(number, bad=bad)]})


def until(world: World, client: httpx.Client, version: str, stage: Stage, *, bad: bool = False) -> int:
    """Ask until a rollout stands there; how many requests failed."""
    end, failed = time.monotonic() + 60, 0
    for number in itertools.count(1):
        failed += ask(client, number, bad=bad).status_code != 200
        if number % 50 == 0 and world.stage() == (version, stage):
            return failed
        assert time.monotonic() < end, (world.rollouts.history("churn"), world.told)
    raise AssertionError


def test_a_good_version_goes_live_by_itself_and_one_that_fails_leaves_by_itself(asked):
    world, client = asked
    again = world.begin(GOOD)
    assert (again.code, "is live already" in again.err) == (2, True)
    told = world.begin(FAILING, "--json")
    assert told.code == 0, told.err
    assert told.json["stage"] == "shadow"
    assert world.begin(FAILING).code == 6
    assert until(world, client, FAILING, Stage.LIVE) == 0
    stages = [change.state.stage for change in reversed(world.rollouts.history("churn"))]
    assert stages == [Stage.LIVE, Stage.SHADOW, Stage.CANARY, Stage.LIVE]
    for number in range(200):  # what does well stays
        assert ask(client, number).status_code == 200
        time.sleep(0.005)
    assert world.stage() == (FAILING, Stage.LIVE)
    started = time.monotonic()
    assert until(world, client, FAILING, Stage.ROLLED_BACK, bad=True) > 0
    assert time.monotonic() - started < 30
    world.wait_told("rolled_back (read back from the gateway)")
    assert {ask(client, number).headers["x-prodecks-version"] for number in range(20)} == {GOOD}
    story = world.place.call("rollout", "history", "churn").out
    for word in ("rolled_back", "error_rate", "operate", "canary", f"{FAILING}: 50%"):
        assert word in story
    blocked = world.begin(FAILING)
    assert blocked.code == 2
    assert "was rolled back before" in blocked.err


def test_a_person_can_stop_it_at_any_time_and_history_tells_who(asked):
    world, client = asked
    assert world.begin(FAILING).code == 0
    until(world, client, FAILING, Stage.CANARY)
    wrong = world.place.call("rollout", "rollback", "churn", "--by", "Mina", "--reason", " ")
    assert wrong.code == 2
    done = world.place.call("rollout", "rollback", "churn", "--by", "Mina", "--reason", "customers complain")
    assert done.code == 0, done.err
    assert "traffic 1: 100%" in done.out
    told = world.place.call("history", "churn", "--json").json
    assert (told[0]["stage"], told[0]["actor"], told[0]["reasons"]) == ("rolled_back", "Mina", ["customers complain"])
    early = world.place.call("history", "churn", "--at", "2020-01-01")
    assert early.code == 2
    assert "was not deployed" in early.err


def test_what_was_moved_by_hand_is_set_right_at_the_next_look(world: World):
    place = world.place
    assert world.begin("1").code == 0
    registry = world.registry
    registry.mirror_aliases("churn", {"development-champion": "2", "development-previous": "1"})
    (place.var / "serving" / "routing" / "churn.json").unlink()
    shutil.rmtree(place.var / "serving" / "models" / "churn" / "1")
    looked = place.call("operate", "--once")
    assert looked.code == 0, looked.err
    assert "churn: routing table 1 written" in looked.err
    assert "alias development-champion was moved by hand in the registry from version 1 to version 2" in looked.err
    assert registry.aliases("churn") == {"development-champion": "1"}
    store = ModelStore(place.var / "serving")
    table = store.table("churn")
    assert table is not None
    store.verify(store.manifest("churn", "1"))
    assert table.routing.weights == {"1": 1.0}
    again = place.call("operate", "--once").err
    assert "written" not in again
    assert "by hand" not in again


def test_a_sensitive_model_waits_for_somebody_else(world: World):
    place = world.place
    file = place.models / "churn.yaml"
    file.write_text(file.read_text().replace("sensitivity: non_sensitive", "sensitivity: sensitive"))
    begun = world.begin("1")
    assert "waits for approval" in begun.out
    assert ModelStore(place.var / "serving").table("churn") is None
    own = place.call("rollout", "approve", "churn", "--by", "ali", "--reason", "mine")
    assert own.code == 2
    assert "somebody else's approval" in own.err
    assert "0 of 1 needed" in place.call("rollout", "status", "churn").out
    done = place.call("rollout", "approve", "churn", "--by", "Mina", "--reason", "looked at the card")
    assert "approved by Mina, 1 of 1 needed" in done.out
    assert world.stage() == ("1", Stage.LIVE)
    late = place.call("rollout", "refuse", "churn", "--by", "Mina", "--reason", "no")
    assert late.code == 2


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
    answer = world.place.call(*arguments)
    assert answer.code == 2, answer
    assert problem in answer.err
