"""The alerting policy as shipped: R6's tables, closed files, clocks on the wall."""

from __future__ import annotations

from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.model_files import load_file
from lifecycle.alerting import AlertingPolicy, Channel, Level, Maintenance, Priority, QuietHours, Route, Told, inside
from lifecycle.errors import ConfigError
from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.oncall import OnCall, Person

ROOT = Path(__file__).resolve().parents[2]
POLICIES = ROOT / "configs" / "policies"
POLICY = load_file(POLICIES / "alerting.yaml", AlertingPolicy, {})
ONCALL = load_file(POLICIES / "oncall.yaml", OnCall, {})
P0, P1, P2, P3 = Priority


def finding(measure: str, value: float | None, verdict: Verdict = Verdict.FAIL, **changes: Any) -> Finding:
    usual: dict[str, Any] = {
        "measure": measure, "subject": "all rows", "value": value, "threshold": 0.1, "direction": Direction.AT_MOST,
        "window": "last 7 days", "verdict": verdict, "reason": "because",
    }  # fmt: skip
    return Finding(**{**usual, **changes})


def urgency(one: Finding) -> tuple[str, Priority | None]:
    rule = POLICY.rules_of(one)[0]
    return rule.name, rule.priority_of(one)


# R6.1 to R6.4


@pytest.mark.requirement("R6.1", "R6.2", "R6.3", "R6.4")
@pytest.mark.parametrize(
    ("measure", "value", "verdict", "rule", "priority"),
    [
        ("availability", 0.0, Verdict.FAIL, "model_down", P0),
        ("availability", 0.5, Verdict.FAIL, "model_down", None),
        ("degradation", 0.0501, Verdict.PASS, "performance_degraded", P0),
        ("degradation", 0.05, Verdict.PASS, "performance_degraded", P1),
        ("roc_auc_degradation", 0.0201, Verdict.PASS, "performance_degraded", P1),
        ("degradation", 0.02, Verdict.PASS, "performance_degraded", P2),
        ("degradation", 0.0101, Verdict.PASS, "performance_degraded", P2),
        ("degradation", 0.01, Verdict.PASS, "performance_degraded", None),
        ("degradation", float("nan"), Verdict.PASS, "performance_degraded", None),
        ("degradation", None, Verdict.FAIL, "performance_degraded", None),
        ("unauthorized_access", 40.0, Verdict.FAIL, "security_breach", P0),
        ("model_extraction", 0.4, Verdict.WARN, "security_breach", P2),
        ("wasserstein_distance", 0.11, Verdict.WARN, "data_drift", P1),
        ("kl_divergence", 0.09, Verdict.PASS, "data_drift", None),
        ("bias_change", 0.0101, Verdict.PASS, "bias_up", P1),
        ("bias_change", 0.01, Verdict.PASS, "bias_up", None),
        ("cpu_share", 0.81, Verdict.WARN, "resource_use", P2),
        ("memory_share", 0.80, Verdict.PASS, "resource_use", None),
        ("latency_p99_ms", 900.0, Verdict.WARN, "warning_signs", P2),
        ("score_trend", 0.2, Verdict.WARN, "information", P3),
        ("roc_auc", 0.8, Verdict.PASS, "warning_signs", None),
    ],
)
def test_a_finding_is_as_urgent_as_the_plan_says(measure, value, verdict, rule, priority):
    assert urgency(finding(measure, value, verdict)) == (rule, priority)


@pytest.mark.requirement("R6.1", "R6.2", "R6.3", "R6.4", "R6.5")
@pytest.mark.parametrize(
    ("priority", "span", "channels"),
    [
        (P0, "15m", {"phone", "sms", "pagerduty"}),
        (P1, "1h", {"sms", "email", "slack"}),
        (P2, "4h", {"email", "slack"}),
        (P3, "1d", {"slack"}),
    ],
)
def test_each_priority_has_the_plans_response_time_and_channels(priority, span, channels):
    response = POLICY.priorities[priority]
    assert (response.respond_within, set(response.channels)) == (span, channels)


@pytest.mark.requirement("R6.6")
def test_four_levels_hear_in_the_plans_order():
    roles = [level.role for level in ONCALL.teams["models"].levels]
    assert roles == ["ML engineer on call", "senior ML engineer", "head of AI", "CTO"]


@pytest.mark.requirement("RA.3", "R11.1")
@pytest.mark.parametrize("rule", [rule.name for rule in POLICY.rules])
def test_every_rule_has_its_runbook(rule):
    text = (ROOT / POLICY.runbooks / f"{rule}.md").read_text(encoding="utf-8")
    assert text.startswith("# ")
    for part in ("What it means", "Look first", "Do", "Over when"):
        assert f"## {part}" in text


def test_every_runbook_has_its_rule():
    rules = {rule.name for rule in POLICY.rules}
    assert {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")} == rules


@given(st.floats(allow_nan=True), st.sampled_from(list(Verdict)), st.text(max_size=20))
def test_every_finding_has_a_rule_that_takes_it(value, verdict, measure):
    rules = POLICY.rules_of(finding(measure, value, verdict))
    assert [rule.waits for rule in rules] == [False, True]


# Hysteresis


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        (P0, 0.046, P0),  # inside the margin below 5 %: as bad as before
        (P0, 0.044, P1),
        (P2, 0.046, P1),  # on its way up the margin says nothing
        (P2, 0.0095, P2),
        (P2, 0.0085, None),
        (None, 0.0095, None),
    ],
)
def test_it_gets_less_urgent_only_by_more_than_the_margin(before, value, after):
    rule = POLICY.rule("performance_degraded")
    assert rule is not None
    assert rule.priority_of(finding("degradation", value, Verdict.PASS), before, 0.1) is after


@pytest.mark.parametrize(
    ("verdict", "value", "direction", "met"),
    [
        (Verdict.PASS, 0.095, Direction.AT_MOST, True),
        (Verdict.PASS, 0.085, Direction.AT_MOST, False),
        (Verdict.PASS, 0.095, Direction.AT_LEAST, False),  # a lower bound has no such scale
        (Verdict.PASS, None, Direction.AT_MOST, False),
        (Verdict.FAIL, None, Direction.AT_MOST, True),
    ],
)
def test_a_verdict_recovers_by_more_than_the_margin_of_an_upper_bound(verdict, value, direction, met):
    level = Level(priority=P1, verdicts=["fail"])
    assert level.met_by(finding("drift", value, verdict, direction=direction), 0.1) is met


def test_a_value_below_its_bound_recovers_by_more_than_the_margin():
    level = Level(priority=P0, below=0.5)
    bad = [level.met_by(finding("availability", value), margin) for value, margin in [(0.4, 0), (0.5, 0), (0.54, 0.1), (0.56, 0.1)]]  # fmt: skip
    assert bad == [True, False, True, False]


# What is refused


def changed(**changes: Any) -> dict[str, Any]:
    return {**POLICY.model_dump(mode="json"), **changes}


def rule_with(**changes: Any) -> list[dict[str, Any]]:
    return [{**POLICY.rules[0].model_dump(mode="json"), **changes}]


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"priorities": {"P0": POLICY.priorities[P0].model_dump(mode="json")}}, "priorities lacks P1, P2, P3"),
        ({"route": {"team": "models", "models": ["a"]}}, "root of route"),
        ({"rules": rule_with(under=["model_down"])}, "accepted: rules that stand before it"),
        ({"rules": rule_with() * 2}, "accepted: each name once"),
        ({"rules": rule_with(levels=[{"priority": "P0"}])}, "no condition; accepted: one of above, below, verdicts"),
        ({"rules": rule_with(levels=[{"priority": "P0", "above": 1, "below": 2}])}, "above and below"),
        ({"rules": rule_with(waits=True)}, "waits is true"),
        ({"rules": rule_with(levels=[{"priority": "P0", "verdicts": ["no_data"]}])}, "waits is false"),
        ({"rules": rule_with(levels=[{"priority": "P2", "above": 1}, {"priority": "P0", "above": 2}])}, "most urgent first"),
        ({"rules": rule_with(title={"en": "$modle", "fa": "x"})}, "names modle"),
        ({"rules": rule_with(title={"en": "100 $", "fa": "x"})}, "names a stray"),
        ({"quiet_hours": [{"start": "22:00", "end": "07:00", "timezone": "Asia/Tehrn", "holds": ["P3"]}]}, "Asia/Tehrn"),
        ({"unknown": 1}, "unknown"),
    ],
)  # fmt: skip
def test_a_policy_that_says_something_impossible_is_refused(changes, answer):
    with pytest.raises(ValueError, match=answer):
        AlertingPolicy.model_validate(changed(**changes))


def test_a_priority_that_leaves_no_time_is_refused():
    with pytest.raises(ValueError, match="no time at all"):
        AlertingPolicy.model_validate(
            changed(priorities={**changed()["priorities"], "P0": {"respond_within": "0m", "channels": ["sms"]}})
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"days": ["friday"], "start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"},
        {"start": "02:00", "end": "04:00"},
        {"start": "02:00", "end": "2026-01-02T00:00:00Z"},
        {"start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"},
        {"days": ["friday"], "start": "02:00", "end": "04:00", "timezone": "nowhere"},
    ],
)
def test_maintenance_is_weekly_or_once(changes):
    with pytest.raises(ValueError, match=r"accepted|not after"):
        Maintenance.model_validate({"name": "work", "holds": ["P2"], **changes})


def test_an_unknown_key_in_the_file_is_told_with_its_line(tmp_path):
    path = tmp_path / "alerting.yaml"
    path.write_text((POLICIES / "alerting.yaml").read_text().replace("recovery: {margin", "recovery: {margn"))
    with pytest.raises(ConfigError, match=r"alerting.yaml:\d+: recovery.margn: unknown key; did you mean 'margin'"):
        load_file(path, AlertingPolicy, {})


def test_a_text_fills_its_placeholders():
    assert Told(en="$model, $$5", fa="x").en == "$model, $$5"


# Time


@pytest.mark.parametrize(
    ("moment", "zone", "quiet"),
    [
        ("2026-01-10T18:29Z", "Asia/Tehran", False),  # 21:59 there
        ("2026-01-10T18:30Z", "Asia/Tehran", True),
        ("2026-01-11T03:29Z", "Asia/Tehran", True),
        ("2026-01-11T03:30Z", "Asia/Tehran", False),
        ("2026-03-29T04:59Z", "Europe/Berlin", True),  # the night summer time began: 06:59 at UTC+2
        ("2026-03-29T05:00Z", "Europe/Berlin", False),
        ("2026-03-28T05:30Z", "Europe/Berlin", True),  # the day before: 06:30 at UTC+1
        ("2026-10-25T05:30Z", "Europe/Berlin", True),  # the night it ended: 06:30 at UTC+1 again
    ],
)
def test_quiet_hours_follow_the_clock_on_the_wall(moment, zone, quiet):
    hours = QuietHours(start=time(22), end=time(7), timezone=zone, holds=[P2])
    assert hours.cover(datetime.fromisoformat(moment)) is quiet


@pytest.mark.parametrize(
    ("moment", "held"),
    [
        ("2026-01-09T22:30Z", True),  # Friday
        ("2026-01-10T01:30Z", True),  # the part after midnight is Friday's
        ("2026-01-10T02:00Z", False),
        ("2026-01-10T22:30Z", False),
        ("2026-01-09T01:30Z", False),
    ],
)
def test_weekly_maintenance_goes_on_past_midnight(moment, held):
    work = Maintenance(name="upgrade", holds=[P1], days=["friday"], start=time(22), end=time(2), timezone="UTC")
    assert work.cover("m", datetime.fromisoformat(moment)) is held


def test_maintenance_holds_its_models_and_priorities_alone():
    at = datetime(2026, 1, 9, 12, tzinfo=UTC)
    work = {"name": "move", "models": ["fl*"], "holds": ["P0", "P1"], "start": "2026-01-09T11:00Z", "end": "2026-01-09T13:00Z"}  # fmt: skip
    policy = AlertingPolicy.model_validate(changed(maintenance=[work]))
    assert policy.held("flight_delay", P0, at) == "maintenance: move"
    assert policy.held("flight_delay", P2, at) is None
    assert policy.held("churn", P0, at) is None
    assert policy.held("flight_delay", P0, at.replace(hour=13)) is None
    assert policy.held("churn", P3, at.replace(hour=20)) == "quiet hours"


@given(st.times(), st.times(), st.times())
def test_a_time_is_inside_a_span_or_inside_the_rest_of_the_day(moment, start, end):
    assert start == end or inside(moment, start, end) != inside(moment, end, start)


# Who hears


def test_the_deepest_branch_that_matches_decides_and_the_root_takes_the_rest():
    route = Route.model_validate(
        {"team": "models", "routes": [
            {"team": "security", "rules": ["security_*"], "routes": [{"team": "chiefs", "priorities": ["P0"]}]},
            {"team": "members", "models": ["churn"]},
        ]}
    )  # fmt: skip
    assert route.team_of("churn", "security_breach", P0) == "chiefs"
    assert route.team_of("churn", "security_breach", P2) == "security"
    assert route.team_of("churn", "no_data", P0) == "members"
    assert route.team_of("flight_delay", "no_data", P0) == "models"


def oncall(**level: Any) -> OnCall:
    first = {"role": "first", "rota": ["a", "b", "c"], **level}
    others = [{"role": role, "rota": [role]} for role in ("second", "third", "fourth")]
    people = {name: {"name": name} for name in ("a", "b", "c", "second", "third", "fourth")}
    team = {"timezone": "Europe/Berlin", "first_week": "2026-03-02T09:00:00", "levels": [first, *others]}
    return OnCall.model_validate({"people": people, "teams": {"models": team}})


@pytest.mark.requirement("R6.6")
@pytest.mark.parametrize(
    ("moment", "person"),
    [
        ("2026-03-02T08:00Z", "a"),  # Monday nine o'clock, UTC+1
        ("2026-03-09T07:59Z", "a"),
        ("2026-03-09T08:00Z", "b"),
        ("2026-03-30T06:59Z", "a"),  # summer time has begun: nine o'clock is an hour earlier
        ("2026-03-30T07:00Z", "b"),
        ("2026-02-23T08:00Z", "c"),  # before the first week the rota is carried on backwards
    ],
)
def test_the_rota_is_handed_over_on_the_clock_on_the_wall(moment, person):
    assert oncall().on_duty("models", 1, datetime.fromisoformat(moment)) == (1, person)


def test_a_swap_holds_for_its_span():
    swap = {"person": "c", "start": "2026-03-03T00:00Z", "end": "2026-03-04T00:00Z"}
    made = oncall(swaps=[swap])
    assert made.on_duty("models", 1, datetime(2026, 3, 3, tzinfo=UTC)) == (1, "c")
    assert made.on_duty("models", 1, datetime(2026, 3, 4, tzinfo=UTC)) == (1, "a")


def test_past_a_levels_hours_the_next_one_hears():
    made = oncall(hours={"start": "08:00", "end": "20:00"})
    assert made.on_duty("models", 1, datetime(2026, 3, 3, 12, tzinfo=UTC)) == (1, "a")
    assert made.on_duty("models", 1, datetime(2026, 3, 3, 22, tzinfo=UTC)) == (2, "second")
    assert made.on_duty("models", 4, datetime(2026, 3, 3, 22, tzinfo=UTC)) == (4, "fourth")


@given(st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)), st.integers(1, 4))
def test_somebody_is_always_on_call(now, level):
    number, person = ONCALL.on_duty("models", level, now)
    assert number >= level
    assert person in ONCALL.people


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        (lambda tree: tree["teams"]["models"].update(first_week="2026-01-01T00:00:00Z"), "first_week has a time zone"),
        (lambda tree: tree["teams"]["models"]["levels"][3].update(hours={"start": "08:00", "end": "20:00"}), "level 4 has hours"),
        (lambda tree: tree["teams"]["models"]["levels"][0].update(rota=["nobody"]), "nobody; accepted: engineer_a"),
        (lambda tree: tree["teams"]["models"]["levels"].pop(), "at least 4"),
        (lambda tree: tree["teams"]["models"].update(timezone="x/y"), "x/y"),
        (lambda tree: tree["people"]["cto"].update(timezone=""), "time zone"),
        (lambda tree: tree["people"]["cto"].update(phone="12"), "pattern"),
    ],
)  # fmt: skip
def test_a_rota_that_leaves_nobody_is_refused(change, answer):
    tree = ONCALL.model_dump(mode="json")
    change(tree)
    with pytest.raises(ValueError, match=answer):
        OnCall.model_validate(tree)


def test_a_person_is_reached_by_what_they_gave():
    person = Person(name="A", email="a@example.com")
    assert (person.contact(Channel.EMAIL), person.contact(Channel.SMS)) == ("a@example.com", None)
