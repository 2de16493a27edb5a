"""The alerting policy compiled for the cluster: Prometheus rules and Alertmanager routes, as plain values (R6.1 to R6.5).

Prometheus watches what has to be noticed also while our own processes are dead. Alertmanager cannot call or text people:
what the policy sends by phone and SMS goes to PagerDuty, which does, and has the four levels.
"""

from __future__ import annotations

import re
from datetime import datetime, time
from string import Template
from typing import Any

from lifecycle.alerting import WEEKDAYS, AlertingPolicy, Channel, Maintenance, Priority, QuietHours, Route
from lifecycle.oncall import OnCall

SECRETS = "/etc/alertmanager/secrets"
"""Folder of the files that hold addresses and keys; none of them stands in the configuration."""
THROUGH_PAGERDUTY = frozenset({Channel.PHONE, Channel.SMS, Channel.PAGERDUTY})
SEVERITY = {Priority.P0: "critical", Priority.P1: "error", Priority.P2: "warning", Priority.P3: "info"}
_MODEL = "{{ with $labels.model }}{{ . }}{{ else }}every model{{ end }}"
_SUMMARY = "[{{ .CommonLabels.priority }}] {{ range .Alerts }}{{ .Annotations.summary }} {{ end }}"


def prometheus_rules(policy: AlertingPolicy) -> dict[str, Any]:
    """Prometheus' rule file.

    Every alert is named as its rule and labelled with its priority; a rule's queries are its alerts.
    """
    runbooks = policy.runbooks.rstrip("/")
    rules = [
        {
            "alert": rule.name,
            "expr": query.expr,
            "for": str(query.held_for),
            "labels": {"priority": query.priority.value, "severity": SEVERITY[query.priority], "query": query.name},
            "annotations": {
                "summary": _filled(rule.title.en, rule.name),
                "description": _filled(rule.likely.en, rule.name),
                "runbook": f"{runbooks}/{rule.name}.md",
            },
        }
        for rule in policy.rules
        for query in rule.prometheus
    ]
    return {"groups": [{"name": "prodecks", "rules": rules}]}


def alertmanager_config(policy: AlertingPolicy, oncall: OnCall) -> dict[str, Any]:
    """Alertmanager's configuration: the policy's tree of routes, its channels, quiet hours, weekly maintenance and folding.

    A one-off maintenance is left to a silence. What is folded is inhibited only by a cause that is told at least as urgently.
    """
    teams = list(dict.fromkeys(_teams(policy.route)))
    intervals = {f"quiet-{number}": _quiet(one) for number, one in enumerate(policy.quiet_hours, 1)}
    weekly = {f"maintenance-{number}": one for number, one in enumerate(policy.maintenance, 1) if one.days is not None}
    intervals |= {name: _weekly(one) for name, one in weekly.items()}
    made: dict[str, Any] = {
        "global": {
            "slack_api_url_file": f"{SECRETS}/slack-url",
            "smtp_smarthost": "smtp:587",
            "smtp_from": "alerts@example.com",
            "smtp_auth_username": "alerts@example.com",
            "smtp_auth_password_file": f"{SECRETS}/smtp-password",
        },
        "route": {
            "group_by": ["alertname", "model"],
            "group_wait": "10s",
            "group_interval": "1m",
            **_route(policy, policy.route, weekly),
        },
        "inhibit_rules": _inhibitions(policy),
        "receivers": [_receiver(policy, oncall, team, priority) for team in teams for priority in Priority],
        "time_intervals": [{"name": name, "time_intervals": spans} for name, spans in intervals.items()],
    }
    return made


def receiver_of(team: str, priority: Priority) -> str:
    """Name of the receiver that stands for a team and a priority."""
    return f"{team}-{priority}"


def _filled(text: str, rule: str) -> str:
    facts = {"model": _MODEL, "value": "{{ $value | humanize }}", "measure": rule, "subjects": rule}
    return Template(text).safe_substitute(facts)


def _teams(route: Route) -> list[str]:
    return [route.team, *(team for inner in route.routes for team in _teams(inner))]


def _route(policy: AlertingPolicy, route: Route, weekly: dict[str, Maintenance]) -> dict[str, Any]:
    """One branch: its finer branches first, then each priority with its own receiver; the least urgent as the default."""
    matchers = [
        f'{label}=~"{_pattern(globs)}"'
        for label, globs in (("model", route.models), ("alertname", route.rules))
        if globs != ["*"]
    ]
    if route.priorities != list(Priority):
        matchers.append(f'priority=~"{"|".join(route.priorities)}"')
    branches = [_route(policy, inner, weekly) for inner in route.routes]
    for priority in Priority:
        mute = [f"quiet-{number}" for number, one in enumerate(policy.quiet_hours, 1) if priority in one.holds]
        # Maintenance of some models is a branch of its own: a time interval knows no model.
        held = {name: one for name, one in weekly.items() if priority in one.holds}
        mute += [name for name, one in held.items() if one.models == ["*"]]
        plain = {
            "matchers": [f'priority="{priority}"'],
            "receiver": receiver_of(route.team, priority),
            "repeat_interval": str(policy.priorities[priority].respond_within),
        }
        branches += [
            {
                **plain,
                "matchers": [*plain["matchers"], f'model=~"{_pattern(one.models)}"'],
                "mute_time_intervals": [*mute, name],
            }
            for name, one in held.items()
            if one.models != ["*"]
        ]
        branches.append(plain | ({"mute_time_intervals": mute} if mute else {}))
    made: dict[str, Any] = {"receiver": receiver_of(route.team, Priority.P3), "routes": branches}
    return ({"matchers": matchers} if matchers else {}) | made


def _receiver(policy: AlertingPolicy, oncall: OnCall, team: str, priority: Priority) -> dict[str, Any]:
    channels = set(policy.priorities[priority].channels)
    made: dict[str, Any] = {"name": receiver_of(team, priority)}
    if channels & THROUGH_PAGERDUTY:
        made["pagerduty_configs"] = [
            {
                "routing_key_file": f"{SECRETS}/pagerduty-{team}",
                "severity": SEVERITY[priority],
                "description": _SUMMARY,
                "details": {
                    "runbook": "{{ .CommonAnnotations.runbook }}",
                    "likely": "{{ .CommonAnnotations.description }}",
                },
            }
        ]
    if Channel.EMAIL in channels:
        first = oncall.teams[team].levels[0].rota
        addresses = list(dict.fromkeys(address for name in first if (address := oncall.people[name].email)))
        made["email_configs"] = [{"to": ", ".join(addresses), "send_resolved": True}] if addresses else []
    if Channel.SLACK in channels:
        made["slack_configs"] = [
            {"channel": f"#{team}-alerts", "title": _SUMMARY, "text": "{{ .CommonAnnotations.description }}\n{{ .CommonAnnotations.runbook }}",
             "send_resolved": True}
        ]  # fmt: skip
    return made


def _inhibitions(policy: AlertingPolicy) -> list[dict[str, Any]]:
    watched = {rule.name: {query.priority for query in rule.prometheus} for rule in policy.rules}
    found = []
    for rule in policy.rules:
        for priority in sorted(watched[rule.name]):
            causes = [name for name in rule.under if any(one <= priority for one in watched[name])]
            if causes:
                as_urgent = "|".join(one for one in Priority if one <= priority)
                found.append(
                    {
                        "source_matchers": [f'alertname=~"{"|".join(causes)}"', f'priority=~"{as_urgent}"'],
                        "target_matchers": [f'alertname="{rule.name}"', f'priority="{priority}"'],
                        "equal": ["model"],
                    }
                )
    return found


def _quiet(one: QuietHours) -> list[dict[str, Any]]:
    return [{"times": [span], "location": one.timezone} for span in _spans(one.start, one.end)]


def _weekly(one: Maintenance) -> list[dict[str, Any]]:
    assert isinstance(one.start, time) and not isinstance(one.start, datetime)  # noqa: PT018 - one of a kind
    assert isinstance(one.end, time)
    found = []
    for number, span in enumerate(_spans(one.start, one.end)):
        # The part after midnight is on the day after.
        days = [WEEKDAYS[(WEEKDAYS.index(day) + number) % 7] for day in one.days or ()]
        found.append({"times": [span], "weekdays": days, "location": one.timezone})
    return found


def _spans(start: time, end: time) -> list[dict[str, str]]:
    """A span of local time as Alertmanager takes it: up to midnight, then on from it."""
    midnight = time(0)
    if start < end:
        return [{"start_time": f"{start:%H:%M}", "end_time": f"{end:%H:%M}"}]
    before = {"start_time": f"{start:%H:%M}", "end_time": "24:00"}
    return [before] if end == midnight else [before, {"start_time": "00:00", "end_time": f"{end:%H:%M}"}]


def _pattern(globs: list[str]) -> str:
    """Globs as one regular expression, which Alertmanager anchors."""
    return "|".join(re.escape(glob).replace(r"\*", ".*").replace("\\", "\\\\") for glob in globs)
