"""One machine plays four environments: a version walks from development to production with its evidence, never around one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from adapters.model_files import load_environment
from adapters.model_store import ModelStore
from adapters.ops_store import OpsStore
from adapters.registry import Registry
from adapters.rollout_store import RolloutStore
from lifecycle.aliases import Alias
from lifecycle.findings import Verdict
from lifecycle.rollout import Stage
from tests.cli.conftest import MODEL, Answer, Place
from tests.cli.test_serve import ROW, serving

pytestmark = [pytest.mark.slow, pytest.mark.requirement("R4.4", "R4.5", "R10.3")]
NAME = "walker"


class Walker:
    """A model with two approved versions, and what is asked about it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.ops = OpsStore.open(f"sqlite:///{place.var / 'ops.db'}")
        self.registry = Registry(f"sqlite:///{place.var / 'mlflow' / 'mlflow.db'}")

    def deploy(self, environment: str, *options: str) -> Answer:
        there = ("--environment", environment, "--by", "Ali", *options)
        return self.place.call("--pipeline", "deploy", "--model", NAME, *there)

    def rollout(self, verb: str, environment: str, *options: str) -> Answer:
        return self.place.call("rollout", verb, NAME, "--environment", environment, *options)

    def agree(self, environment: str, person: str) -> Answer:
        return self.rollout("approve", environment, "--by", person, "--reason", "looked at the card")

    def stage(self, environment: str) -> tuple[str, Stage]:
        change = RolloutStore(self.ops, environment).current(NAME)
        assert change is not None
        return change.state.candidate, change.state.stage

    def folder(self, environment: str) -> Path:
        return self.place.var / load_environment(environment).folder


@pytest.fixture(scope="module")
def walker(workspace: Place) -> Walker:
    place = workspace
    (place.models / f"{NAME}.yaml").write_text(MODEL.replace("name: churn", f"name: {NAME}"))
    for seed in ("0", "1"):
        answer = place.call("--pipeline", "train", "--model", NAME, "--seed", seed)
        assert answer.code == 0, answer.err
    return Walker(place)


def test_a_version_walks_to_production_with_its_evidence_and_every_environment_answers_for_itself(walker: Walker):
    around = walker.deploy("staging", "--version", "1")
    assert around.code == 3
    assert "version 1 was never deployed in development" in around.err
    assert "override grant walker --gate live_in_development" in around.err
    assert walker.deploy("staging").code == 2  # none is live in development
    found = walker.ops.findings(model=NAME, phase="promotion")[-1].finding
    assert (found.measure, found.verdict) == ("live_in_development", Verdict.FAIL)

    assert "in development is live" in walker.deploy("development", "--version", "1").out
    assert "in staging is live" in walker.deploy("staging").out
    for environment, before in (("canary", "staging"), ("production", "canary")):
        begun = walker.deploy(environment)
        assert "waits for approval by the committee" in begun.out, begun.err
        assert f"rollout approve walker --environment {environment} --by NAME" in begun.out
        told = walker.rollout("status", environment).out
        for line in ("large: the first version here", "committee", f"version 1 live in {before} for"):
            assert line in told
        assert not list(walker.folder(environment).glob("routing/walker.json"))
        assert "2 of 3 needed" in [walker.agree(environment, one) for one in ("Mina", "Sara")][-1].out
        assert walker.stage(environment) == ("1", Stage.AWAITING_APPROVAL)
        assert "3 of 3 needed" in walker.agree(environment, "Reza").out
        assert walker.stage(environment) == ("1", Stage.LIVE)
        evidence = RolloutStore(walker.ops, environment).history(NAME)[0].evidence
        assert evidence["change"]["size"] == "large"
        assert evidence["track_record"]["environment"] == before
        assert evidence["track_record"]["live_hours"] > 0
        assert evidence["track_record"]["rollouts"] == [
            one.state.rollout_id for one in RolloutStore(walker.ops, before).history(NAME, limit=1)
        ]
    trail = walker.ops.audit_trail(NAME, limit=200)
    begun = next(one for one in trail if one.action == "rollout awaiting_approval")
    assert (begun.detail["environment"], begun.detail["evidence"]["change"]["size"]) == ("production", "large")

    walk = ("development", "staging", "canary", "production")
    held = walker.registry.aliases(NAME)
    assert {f"{one}-champion": "1" for one in walk}.items() <= held.items()
    assert held["development-challenger"] == "2"
    tables = [ModelStore(walker.folder(one)).table(NAME) for one in walk]
    assert all(one is not None and one.routing.weights == {"1": 1.0} for one in tables)
    with serving(walker.place, "--environment", "production") as production:
        answer = httpx.post(f"{production.address}/models/{NAME}/predict", json={"rows": [ROW]})
        assert answer.headers["x-prodecks-version"] == "1"
    assert list((walker.folder("production") / "log").iterdir())
    looked = walker.place.call("operate", "--once", "--environment", "production")
    assert (looked.code, "0 changes" in looked.err) == (0, True)
    shown = walker.place.call("models", "versions", NAME, "--json").json
    assert set(shown[1]["aliases"]) == {f"{one}-champion" for one in walk}


def test_only_an_override_on_record_lets_a_version_skip_an_environment(walker: Walker):
    walker.deploy("development", "--version", "1")  # where the walk was not asked for first
    walker.deploy("staging")
    refused = walker.deploy("staging", "--version", "2")
    assert refused.code == 3
    day = f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%d}"
    word = ("--by", "Mina", "--reason", "a holiday", "--until", day)
    assert walker.place.call("override", "grant", NAME, "--gate", "live_in_staging", *word).code == 0
    assert walker.deploy("staging", "--version", "2").code == 3  # of another environment
    assert walker.place.call("override", "grant", NAME, "--gate", "live_in_development", *word).code == 0
    begun = walker.deploy("staging", "--version", "2", "--json")
    assert begun.code == 0, begun.err
    told = begun.json["evidence"]
    assert (begun.json["stage"], told["track_record"]["override"]["person"]) == ("shadow", "Mina")
    assert told["change"] == {"size": "small", "reasons": told["change"]["reasons"]}
    assert "training.seed: 0 before, 1 now" in told["change"]["reasons"]
    status = walker.rollout("status", "staging").out
    assert "Mina: a holiday" in status
    # Elsewhere nothing moved.
    assert walker.stage("development") == ("1", Stage.LIVE)
    assert walker.rollout("rollback", "staging", "--by", "Mina", "--reason", "not now").code == 0
    assert walker.ops.aliases(NAME, "staging") == {Alias.CHAMPION: "1"}


@pytest.fixture
def critical(walker: Walker) -> Iterator[Walker]:
    """The model's file says critical by now: the committee decides, however small the change."""
    file = walker.place.models / f"{NAME}.yaml"
    before = file.read_text()
    file.write_text(before.replace("sensitivity: non_sensitive", "sensitivity: critical"))
    yield walker
    file.write_text(before)


def test_approvals_are_of_the_very_content_that_was_asked_about(critical: Walker):
    walker = critical
    day = f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%d}"
    word = ("--by", "Mina", "--reason", "to be seen", "--until", day)
    for gate in ("live_in_development", "live_in_staging"):
        assert walker.place.call("override", "grant", NAME, "--gate", gate, *word).code == 0
    assert walker.deploy("canary", "--version", "2").code == 0
    own = walker.agree("canary", "ali")
    assert (own.code, "somebody else's approval" in own.err) == (2, True)
    for person in ("Mina", "Sara"):
        assert walker.agree("canary", person).code == 0
    threshold = walker.registry.tags(NAME, "2")["threshold"]
    walker.registry.tag(NAME, "2", {"threshold": "0.987"})
    swapped = walker.agree("canary", "Reza")
    assert (swapped.code, "is not what was asked about" in swapped.err) == (2, True)
    change = RolloutStore(walker.ops, "canary").current(NAME)
    assert change is not None
    words = RolloutStore(walker.ops, "canary")
    words.approve(NAME, "2", "Reza", True, "past the command", datetime.now(UTC), str(change.evidence["substance"]))
    assert walker.place.call("operate", "--once", "--environment", "canary").code == 0
    assert walker.stage("canary") == ("2", Stage.AWAITING_APPROVAL)
    assert "is not what was asked about" in walker.rollout("status", "canary", "--json").json["approval"]
    walker.registry.tag(NAME, "2", {"threshold": threshold})
    assert walker.place.call("operate", "--once", "--environment", "canary").code == 0
    assert walker.stage("canary")[1] is not Stage.AWAITING_APPROVAL


def test_history_is_of_one_environment_and_exact_at_its_boundaries(walker: Walker):
    walker.deploy("development", "--version", "1")
    assert walker.deploy("development", "--version", "2").code == 0
    assert walker.rollout("promote", "development", "--by", "Mina", "--reason", "sure of it").code == 0
    changes = RolloutStore(walker.ops, "development").history(NAME)
    live, shadow, first = changes[:3]
    assert [one.weights for one in (live, shadow, first)] == [{"2": 1.0}, {"1": 1.0}, {"1": 1.0}]
    tick = timedelta(microseconds=1)

    def at(moment: datetime, environment: str = "development") -> Answer:
        return walker.place.call("history", NAME, "--at", moment.isoformat(), "--environment", environment, "--json")

    assert at(live.at).json[0]["weights"] == {"2": 1.0}
    before = at(live.at - tick).json
    assert [(one["generation"], one["weights"]) for one in before] == [
        (shadow.generation, {"1": 1.0}),
        (first.generation, {"1": 1.0}),  # who gave these shares
    ]
    assert at(first.at - tick).code == 2
    assert at(live.at, "staging").json[0]["environment"] == "staging"
    text = walker.place.call("history", NAME, "--at", live.at.isoformat()).out
    assert f"2: 100% since {live.at:%Y-%m-%d %H:%M:%S} UTC, by Mina" in text
    assert "was not deployed in development at" in at(first.at - timedelta(days=1)).err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--pipeline", "deploy", "--model", NAME, "--environment", "prod"), "did you mean 'production'"),
        (("--pipeline", "train", "--model", NAME, "--environment", "staging"), "--environment does not belong to"),
        (("serve", "--environment", "canry"), "did you mean 'canary'"),
        (("operate", "--once", "--environment", "moon"), "unknown environment 'moon'"),
        (("override", "grant", NAME, "--gate", "live_in_production", "--by", "M", "--reason", "r", "--until", "2030-01-01"), "did you mean 'live_in_"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_an_answer(walker: Walker, arguments: tuple[str, ...], problem: str):
    answer = walker.place.call(*arguments)
    assert answer.code == 2, answer
    assert problem in answer.err
