"""A version goes on with what it showed in the environment before; one that was not live there, or was taken back, does not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from adapters.model_files import ROOT, environment_names, load_environment, load_file
from lifecycle.errors import ConfigError
from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.promotion import Lived, PromotionPolicy, track_record
from lifecycle.rollout import RolloutState, Stage, promote, propose, roll_back

pytestmark = pytest.mark.requirement("R4.4")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def finding(measure: str, count: int) -> Finding:
    return Finding(measure, "all rows", 0.0, 0.1, Direction.AT_MOST, "since", Verdict.PASS, f"{measure} {count}", count)


def proposed(version: str, baseline: str | None, at: datetime) -> RolloutState:
    return propose(f"r{version}", "m", version, baseline, "canary", at, needs_approval=False)


def story() -> list[Lived]:
    """Version 1 live for two hours, then 2, which had been a shadow for one of them."""
    second = proposed("2", "1", NOW + HOUR)
    return [
        Lived(NOW, proposed("1", None, NOW)),
        Lived(NOW + HOUR, second),
        Lived(NOW + 2 * HOUR, promote(second, NOW, "good"), (finding("error_rate", 100), finding("slow_share", 100))),
    ]


def test_a_version_that_was_live_goes_on_with_what_it_was_judged_by():
    found = track_record("2", "staging", story(), NOW + 5 * HOUR)
    assert (found.finding.verdict, found.finding.measure, found.finding.value) == (Verdict.PASS, "live_in_staging", 3.0)
    assert found.finding.reason == "version 2 live in staging for 3 h since 2026-01-01 02:00 UTC"
    assert (found.rollouts, found.live_since) == (("r2",), NOW + 2 * HOUR)
    told = found.to_dict()
    assert [(one["measure"], one["count"]) for one in told["findings"]] == [("error_rate", 100), ("slow_share", 100)]
    assert (told["live_hours"], told["live_since"]) == (3.0, "2026-01-01T02:00:00+00:00")


def test_one_that_was_followed_by_another_was_live_all_the_same():
    found = track_record("1", "staging", story(), NOW + 5 * HOUR)
    assert (found.finding.verdict, found.finding.value, found.findings) == (Verdict.PASS, 2.0, ())


@pytest.mark.parametrize(
    ("version", "changes", "reason"),
    [
        ("2", 0, "version 2 was never deployed in staging and was never live there"),
        ("2", 2, "version 2 is shadow in staging and was never live there"),
        ("3", 3, "version 3 was never deployed in staging"),
    ],
)
def test_one_that_was_never_live_does_not_go_on(version: str, changes: int, reason: str):
    found = track_record(version, "staging", story()[:changes], NOW + 5 * HOUR)
    assert found.finding.verdict is Verdict.FAIL
    assert reason in found.finding.reason
    assert found.finding.value is None
    assert found.to_dict()["live_since"] is None


def test_one_that_was_taken_back_does_not_go_on_also_when_it_had_been_live():
    before = story()
    taken = Lived(NOW + 4 * HOUR, roll_back(before[-1].state, NOW + 4 * HOUR, "complaints"))
    found = track_record("2", "staging", [*before, taken], NOW + 9 * HOUR)
    assert found.finding.verdict is Verdict.FAIL
    assert found.finding.reason == "version 2 was rolled back in staging at 2026-01-01 04:00 UTC: complaints"
    assert found.finding.value == 2.0
    # The version it fell back to was live before and after.
    assert track_record("1", "staging", [*before, taken], NOW + 9 * HOUR).finding.value == 2.0 + 5.0


def test_a_clock_that_went_back_takes_no_time_away():
    before = story()
    again = Lived(NOW - HOUR, replace(before[-1].state, stage=Stage.SUPERSEDED))
    assert track_record("2", "staging", [*before, again], NOW).finding.value == 1.0


def test_the_shipped_way_leads_through_every_environment_each_with_a_place_of_its_own():
    way = load_file(ROOT / "configs" / "policies" / "promotion.yaml", PromotionPolicy, {})
    assert [way.before(one) for one in way.order] == [None, "development", "staging", "canary"]
    assert way.order[-1] == "production"
    assert sorted(way.order) == environment_names()
    files = [load_environment(name) for name in way.order]
    assert len({one.port for one in files}) == len({one.folder for one in files}) == len(way.order)
    assert way.gates == ["live_in_development", "live_in_staging", "live_in_canary"]
    with pytest.raises(ConfigError, match="'moon' is not in the order of promotion; accepted: development"):
        way.before("moon")


@pytest.mark.parametrize("order", [[], ["a", "b", "a"], ["A"]])
def test_a_way_that_is_none_is_refused(order: list[str]):
    with pytest.raises(ValidationError):
        PromotionPolicy(order=order)
