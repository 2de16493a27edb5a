"""Verbs over alerts: list, show, ack, resolve, silence, incidents, check, tick (R6.1 to R6.6)."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from adapters.alert_store import AlertStore
from adapters.model_files import model_names, nearest
from adapters.notifiers import ACCOUNTS, Notifiers
from adapters.ops_store import OpsStore
from adapters.services import models_folder, var_folder
from cli.alerting import Alerting, load_policies, require_heard
from cli.show import console, findings_table, moment, print_json, table
from cli.workspace import Workspace
from lifecycle.alerting import LEVELS
from lifecycle.alerts import Alert
from lifecycle.errors import ConfigError
from lifecycle.incidents import share_in_time
from lifecycle.messages import sparkline
from lifecycle.spec import Duration


def list_alerts(model: str | None, stack: str, *, over: bool, as_json: bool) -> None:
    """Print alerts, and the silences in force."""
    store, now = _store(stack), datetime.now(UTC)
    found, held = store.alerts(model, over=over), store.silences(now)
    if as_json:
        print_json([_told(alert, found) for alert in found])
        return
    rows = [
        (
            alert.alert_id,
            alert.priority,
            alert.state + (f" by {alert.person}" if alert.person else ""),
            alert.model,
            alert.rule,
            alert.opened_at,
            f"under {alert.under}"
            if alert.under
            else f"level {min(alert.step, LEVELS)}"
            if alert.step
            else "nobody told",
            alert.members[0].finding.reason if alert.members else "",
        )
        for alert in found
    ]
    columns = ("alert", "", "state", "model", "rule", "since (UTC)", "told", "worst finding")
    console().print(table("alerts", columns, rows))
    if held:
        shown = [(one.silence_id, one.model or "any", one.rule or "any", one.person, one.reason, one.until) for one in held]  # fmt: skip
        console().print(table("silences", ("#", "model", "rule", "by", "why", "until (UTC)"), shown))


def show_alert(alert_id: str, stack: str, *, as_json: bool) -> None:
    """Print one alert with its findings, its notifications and its timeline."""
    store = _store(stack)
    alert = store.alert(alert_id)
    outbox, timeline = store.outbox([alert.alert_id]), store.timeline(alert.alert_id)
    done = store.done_since(alert.model, alert.opened_at)
    if as_json:
        sent = [asdict(one.notification) for one in outbox]
        print_json({**alert.to_dict(), "notifications": sent, "timeline": [asdict(event) for event in timeline]})
        return
    policy, _ = load_policies()
    out = console()
    head: dict[str, Any] = {
        "model": alert.model, "rule": alert.rule, "priority": alert.priority, "state": alert.state,
        "since (UTC)": moment(alert.opened_at), "folded under": alert.under, "taken by": alert.person,
        "because": alert.reason, "runbook": f"{policy.runbooks}/{alert.rule}.md",
    }  # fmt: skip
    for member in alert.members[:3]:
        finding = member.finding
        line = sparkline(store.values(alert.model, finding.measure, finding.subject, member.at))
        head[f"{finding.measure} ({finding.subject})"] = line
    out.print(table(alert.alert_id, ("what", "value"), ((name, value) for name, value in head.items() if value)))
    out.print()
    out.print(findings_table("findings", (member.finding for member in alert.members)))
    out.print()
    ways = [(one.notification, one.notification.target) for one in outbox]
    rows = [(one.kind, one.level, way.channel + (f" instead of {way.instead_of}" if way.instead_of else ""), way.person, one.state, one.attempts, one.detail) for one, way in ways]  # fmt: skip
    out.print(table("told", ("why", "level#", "how", "whom", "state", "attempts#", "answer"), rows))
    if done:
        out.print()
        out.print(table("done meanwhile", ("at (UTC)", "what", "by"), ((one.at, one.event, one.actor) for one in done)))
    out.print()
    out.print(table("timeline", ("at (UTC)", "what", "by", "more"), ((one.at, one.event, one.actor, ", ".join(f"{name}: {value}" for name, value in one.detail.items())) for one in timeline)))  # fmt: skip


def say(action: str, alert_id: str, by: str, reason: str, stack: str, *, as_json: bool) -> None:
    """Acknowledge or resolve an alert.

    Raises
    ------
    ConfigError
        No such alert, nobody named, no reason, or a state in which that cannot be.
    """
    store, now = _store(stack), datetime.now(UTC)
    change = store.acknowledge if action == "ack" else store.resolve
    alert = change(alert_id, by, reason, now)
    if as_json:
        print_json(alert.to_dict())
        return
    console().print(f"{alert.alert_id} {alert.model} {alert.rule}: {alert.state} by {alert.person}", markup=False)


def silence(model: str | None, rule: str | None, by: str, reason: str, span: str, stack: str, *, as_json: bool) -> None:
    """Let nobody be told of something for a while.

    Raises
    ------
    ConfigError
        An unknown model or rule, neither of them, no span, nobody named, or no reason.
    """
    policy, _ = load_policies()
    rules = [one.name for one in policy.rules]
    for name, known, what in ((model, model_names(models_folder()), "model"), (rule, rules, "rule")):
        if name is not None and name not in known:
            raise ConfigError(f"unknown {what} {name!r}; {nearest(name, known)}")
    now = datetime.now(UTC)
    made = _store(stack).silence(model, rule, by, reason, now, _span(span, "--for").after(now))
    if as_json:
        print_json(asdict(made))
        return
    console().print(
        f"silence {made.silence_id}: {made.model or 'any model'}, {made.rule or 'any rule'}, until {moment(made.until)} UTC",
        markup=False,
    )


def incidents(span: str, stack: str, *, as_json: bool) -> None:
    """Print what people were told of, and how soon they answered."""
    now = datetime.now(UTC)
    policy, _ = load_policies()
    found = _store(stack).incidents(_span(span, "--last").before(now))
    share = share_in_time(found, policy, now)
    if as_json:
        rows = [
            {**asdict(one), "answered_after_s": None if one.answered_after is None else one.answered_after.total_seconds(),
             "in_time": one.in_time(policy, now)}
            for one in found
        ]  # fmt: skip
        print_json({"incidents": rows, "share_in_time": share})
        return
    answers = {True: "yes", False: "no", None: "still time"}
    shown = [
        (one.alert_id, one.priority, one.model, one.rule, one.told_at,
         "–" if one.answered_after is None else str(one.answered_after).split(".")[0], answers[one.in_time(policy, now)])
        for one in found
    ]  # fmt: skip
    console().print(
        table(
            f"incidents of the last {span}",
            ("alert", "", "model", "rule", "told (UTC)", "answered after", "in time"),
            shown,
        )
    )
    if share is not None:
        console().print(f"{share:.1%} answered in time")


def check(*, as_json: bool) -> None:
    """Check policies and accounts; say who is on call now.

    Raises
    ------
    ConfigError
        What is wrong, with file, line and key.
    """
    policy, oncall = load_policies()
    available = Notifiers.from_environment(var_folder() / "alerts.log").available
    now = datetime.now(UTC)
    people = {
        team: [oncall.on_duty(team, level, now)[1] for level in range(1, len(one.levels) + 1)]
        for team, one in oncall.teams.items()
    }
    if as_json:
        print_json({"rules": [rule.name for rule in policy.rules], "accounts": sorted(available), "on_call": people})
        return
    accounts = [(channel, "set up" if channel in available else f"no account: {variable}") for channel, (variable, _, _) in ACCOUNTS.items()]  # fmt: skip
    out = console()
    out.print(f"{len(policy.rules)} rules, {len(policy.priorities)} priorities", markup=False)
    out.print(table("channels", ("channel", "account"), accounts))
    out.print(
        table("on call now", ("team", "level 1", "2", "3", "4"), ((team, *names) for team, names in people.items()))
    )


def tick(stack: str, *, as_json: bool) -> None:
    """Look once.

    Raises
    ------
    UnheardError
        A P0 alert reached nobody.
    """
    look = Alerting.open(OpsStore.open(Workspace.open(stack).services.ops)).tick()
    if as_json:
        print_json(asdict(look))
    else:
        console().print(
            f"{look.changed} alerts changed, {look.notices} notices, {look.sent} sent, {look.failed} failed",
            markup=False,
        )
    require_heard(look.unheard)


def _store(stack: str) -> AlertStore:
    return AlertStore(OpsStore.open(Workspace.open(stack).services.ops))


def _span(text: str, option: str) -> Duration:
    try:
        return Duration(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None


def _told(alert: Alert, alerts: list[Alert]) -> dict[str, Any]:
    return {**alert.to_dict(), "folded": [other.alert_id for other in alerts if other.under == alert.alert_id]}
