"""MLflow's aliases follow the ops store; one moved by hand is on record once and set right, and a lag is no hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import mlflow
import pytest

from adapters.ops_store import OpsStore
from adapters.registry import Registry
from lifecycle.aliases import Alias
from lifecycle.errors import UnavailableError
from lifecycle.findings import Verdict
from lifecycle.records import RunState
from steps.mirror_aliases import mirror_aliases

pytestmark = pytest.mark.requirement("R2.2", "R4.4")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class ReadOnly(Registry):
    """A registry that may be read and takes nothing."""

    def mirror_aliases(self, model: str, aliases: object) -> None:
        raise UnavailableError("the model registry could not set the aliases: permission denied")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db", f"sqlite:///{folder}/mlflow.db")
    client.create_registered_model("m")
    for _ in range(3):
        client.create_model_version("m", str(folder))
    return f"sqlite:///{folder}/mlflow.db"


@pytest.fixture
def registry(url: str) -> Registry:
    made = Registry(url)
    made.mirror_aliases("m", dict.fromkeys(made.aliases("m")))
    return made


@pytest.fixture
def ops(tmp_path: Path) -> OpsStore:
    store = OpsStore.open(f"sqlite:///{tmp_path / 'ops.db'}")
    run = store.start_run(
        pipeline="train", model="m", stack="local", trigger_kind="manual", reason="r", requested_by="t", as_of=NOW,
        now=NOW, lease=MINUTE,
    )  # fmt: skip
    for version in ("1", "2", "3"):
        store.record_version("m", version, run.run_id, "s", "c", "approved", ["ok"], NOW)
    store.finish_run(run.run_id, "succeeded", "", NOW)
    return store


def assign(ops: OpsStore, version: str | None, environment: str = "staging") -> None:
    ops.assign_aliases(
        "m", lambda _: {Alias.CHAMPION: version}, actor="t", reason="r", now=NOW, environment=environment
    )


def mirror(ops: OpsStore, registry: Registry, environment: str = "staging") -> list[str]:
    return mirror_aliases(ops, registry, "m", environment, NOW + MINUTE)


def by_hand(ops: OpsStore) -> list[str]:
    return [entry.subject for entry in ops.audit_trail("m") if entry.action == "alias moved by hand"]


def test_each_environment_has_aliases_of_its_own_and_following_is_nobodys_hand(ops: OpsStore, registry: Registry):
    assign(ops, "1")
    assign(ops, "2", "production")
    assert mirror(ops, registry) == []
    assert registry.aliases("m") == {"staging-champion": "1"}
    assert mirror(ops, registry, "production") == []
    assign(ops, "3")
    assign(ops, None, "production")
    assert mirror(ops, registry) == mirror(ops, registry, "production") == []
    assert registry.aliases("m") == {"staging-champion": "3"}
    assert ops.findings(model="m") == []


@pytest.mark.parametrize(("moved", "told"), [("2", "version 2"), (None, "no version")])
def test_an_alias_moved_by_hand_is_on_record_once_and_set_right(
    ops: OpsStore, registry: Registry, moved: str | None, told: str
):
    assign(ops, "1")
    mirror(ops, registry)
    registry.mirror_aliases("m", {"staging-champion": moved})
    reason = f"alias staging-champion was moved by hand in the registry from version 1 to {told}: set right again"
    assert mirror(ops, registry) == [reason]
    assert registry.aliases("m") == {"staging-champion": "1"}
    assert mirror(ops, registry) == []
    (kept,) = ops.findings(model="m", phase="aliases")
    assert (kept.finding.verdict, kept.finding.subject) == (Verdict.FAIL, "staging-champion")
    assert (kept.finding.reason, kept.finding.window) == (reason, "found at 2026-01-01 00:01:00 UTC")
    assert by_hand(ops) == ["m staging-champion"]
    entry = next(one for one in ops.audit_trail("m") if one.action == "alias moved by hand")
    assert (entry.actor, entry.detail["found"]) == ("unknown", "2026-01-01T00:01:00+00:00")
    run = ops.run(kept.run_id)
    assert (run.pipeline, run.state, run.stack) == ("reconcile", RunState.SUCCEEDED, "local")


def test_the_same_hand_later_is_told_again(ops: OpsStore, registry: Registry):
    assign(ops, "1")
    for times in (1, 2):
        mirror(ops, registry)
        registry.mirror_aliases("m", {"staging-champion": "2"})
        mirror(ops, registry)
        assert len(by_hand(ops)) == times


def test_an_alias_nobody_was_given_is_taken_away_again(ops: OpsStore, registry: Registry):
    registry.mirror_aliases("m", {"staging-previous": "2"})
    assert len(mirror(ops, registry)) == 1
    assert registry.aliases("m") == {}


def test_one_that_cannot_be_set_right_is_told_once_and_set_right_when_it_can_be(ops: OpsStore, registry: Registry):
    assign(ops, "1")
    mirror(ops, registry)
    registry.mirror_aliases("m", {"staging-champion": "2"})
    for _ in range(3):
        with pytest.raises(UnavailableError, match="permission denied"):
            mirror(ops, ReadOnly(registry.url))
    assert len(by_hand(ops)) == 1
    mirror(ops, registry)
    assert registry.aliases("m") == {"staging-champion": "1"}
    assert len(by_hand(ops)) == 1


def test_a_promotion_that_was_cut_short_before_the_registry_followed_is_no_hand(ops: OpsStore, registry: Registry):
    assign(ops, "1")
    mirror(ops, registry)
    assign(ops, "2")
    registry.mirror_aliases("m", {"staging-champion": "2"})  # and killed before it was marked
    assign(ops, "3")
    assert mirror(ops, registry) == []
    assert registry.aliases("m") == {"staging-champion": "3"}
    assert by_hand(ops) == []


def test_what_changes_while_the_registry_is_read_is_read_again(ops: OpsStore, url: str, registry: Registry):
    class Slow(Registry):
        """Answers what held before somebody else's promotion, the first time."""

        asked = 0

        def aliases(self, model: str) -> dict[str, str]:
            held = super().aliases(model)
            self.asked += 1
            if self.asked == 1:
                assign(ops, "2")
                mirror(ops, Registry(url))
            return held

    assign(ops, "1")
    mirror(ops, registry)
    assert mirror(ops, Slow(url)) == []
    assert registry.aliases("m") == {"staging-champion": "2"}
    assert by_hand(ops) == []
