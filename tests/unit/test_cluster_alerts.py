"""The policy as Prometheus and Alertmanager read it: every query, every route, and nothing secret."""

from __future__ import annotations

from datetime import time
from pathlib import Path

import pytest

from adapters.model_files import load_file
from lifecycle.alerting import AlertingPolicy, Maintenance, Priority, Query
from lifecycle.cluster_alerts import _pattern, _spans, _weekly, alertmanager_config, prometheus_rules
from lifecycle.oncall import OnCall

POLICIES = Path(__file__).resolve().parents[2] / "configs" / "policies"
POLICY = load_file(POLICIES / "alerting.yaml", AlertingPolicy, {})
ONCALL = load_file(POLICIES / "oncall.yaml", OnCall, {})


@pytest.mark.requirement("R6.1", "R6.3")
def test_every_query_is_a_rule_with_its_priority_and_runbook():
    rules = prometheus_rules(POLICY)["groups"][0]["rules"]
    told = [(rule["alert"], rule["labels"]["query"], rule["labels"]["priority"]) for rule in rules]
    assert told == [(rule.name, query.name, query.priority) for rule in POLICY.rules for query in rule.prometheus]
    for rule in rules:
        assert rule["annotations"]["runbook"] == f"docs/runbooks/{rule['alert']}.md"
        assert "$model" not in rule["annotations"]["summary"]


@pytest.mark.requirement("R6.5")
def test_each_priority_has_a_receiver_with_the_channels_of_the_policy():
    receivers = {one["name"]: set(one) - {"name"} for one in alertmanager_config(POLICY, ONCALL)["receivers"]}
    assert receivers == {
        "models-P0": {"pagerduty_configs"},  # which calls and texts people
        "models-P1": {"pagerduty_configs", "email_configs", "slack_configs"},
        "models-P2": {"email_configs", "slack_configs"},
        "models-P3": {"slack_configs"},
    }


def test_addresses_of_nobody_are_left_out():
    people = {name: person.model_copy(update={"email": None}) for name, person in ONCALL.people.items()}
    made = alertmanager_config(POLICY, ONCALL.model_copy(update={"people": people}))
    assert [one["email_configs"] for one in made["receivers"] if "email_configs" in one] == [[], []]


def test_quiet_hours_mute_what_they_hold_and_nothing_else():
    routes = alertmanager_config(POLICY, ONCALL)["route"]["routes"]
    muted = {route["matchers"][0]: route.get("mute_time_intervals", []) for route in routes}
    assert muted == {
        'priority="P0"': [], 'priority="P1"': [], 'priority="P2"': ["quiet-1"], 'priority="P3"': ["quiet-1"],
    }  # fmt: skip


def test_what_is_folded_is_inhibited_by_a_cause_as_urgent_alone():
    down = POLICY.rules[0].model_copy(update={"prometheus": [Query(name="slow", priority=Priority.P2, expr="up == 0")]})
    last = POLICY.rules[-1].model_copy(
        update={"prometheus": [Query(name=name, priority=priority, expr="up == 0") for name, priority in (("a", Priority.P0), ("b", Priority.P3))]}
    )  # fmt: skip
    changed = POLICY.model_copy(update={"rules": [down, last]})
    (only,) = alertmanager_config(changed, ONCALL)["inhibit_rules"]
    assert only["source_matchers"] == ['alertname=~"model_down"', 'priority=~"P0|P1|P2|P3"']
    assert only["target_matchers"] == ['alertname="warning_signs"', 'priority="P3"']


@pytest.mark.parametrize(
    ("start", "end", "spans"),
    [
        ("02:00", "04:00", [("02:00", "04:00")]),
        ("22:00", "07:00", [("22:00", "24:00"), ("00:00", "07:00")]),
        ("22:00", "00:00", [("22:00", "24:00")]),
    ],
)
def test_a_span_is_cut_at_midnight(start, end, spans):
    found = [(one["start_time"], one["end_time"]) for one in _spans(time.fromisoformat(start), time.fromisoformat(end))]
    assert found == spans


def test_the_part_of_maintenance_after_midnight_is_on_the_day_after():
    work = Maintenance(name="w", holds=[Priority.P1], days=["sunday"], start=time(22), end=time(2))
    assert [one["weekdays"] for one in _weekly(work)] == [["sunday"], ["monday"]]


def test_a_glob_matches_as_a_regular_expression_what_it_matches_as_a_glob():
    assert _pattern(["flight_*", "a.b"]) == r"flight_.*|a\\.b"


def test_a_wait_in_months_is_not_prometheus():
    with pytest.raises(ValueError, match="accepted: m, h, d, w or y"):
        Query(name="x", priority=Priority.P0, expr="up == 0", held_for="1mo")
