"""Alerts as a state machine: opened once, updated, folded under their cause, told, escalated, over (R6.1 to R6.6).

`decide` is the whole of it: alerts so far, new findings, policy and time give the next alerts and the notices to send.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any

from lifecycle.alerting import LOCAL, PERSONAL, AlertingPolicy, Channel, Priority, Rule
from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.oncall import OnCall
from lifecycle.records import FindingRecord
from lifecycle.spec import Duration


class AlertState(enum.StrEnum):
    """Where an alert stands; pending is not told yet, resolved is over."""

    PENDING = "pending"
    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class Kind(enum.StrEnum):
    """Why somebody is told."""

    OPENED = "opened"
    RAISED = "raised"
    REOPENED = "reopened"
    ESCALATED = "escalated"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Member:
    """One measure on one subject that belongs to an alert.

    Parameters
    ----------
    finding
        The newest.
    at
        When it was made.
    since, last_bad
        When the first and the newest bad one were.
    priority
        How urgent it is, or was while it is recovering.
    good
        Good findings in a row; 0 while it is bad.
    """

    finding: Finding
    at: datetime
    since: datetime
    last_bad: datetime
    priority: Priority
    good: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """Measure and subject."""
        return self.finding.measure, self.finding.subject


@dataclass(frozen=True, slots=True)
class Alert:
    """What is wrong with one model by one rule.

    Parameters
    ----------
    alert_id
        Short, the same for the same beginning.
    model, rule
        Whose, and which.
    state
        Where it stands.
    priority
        The worst of its members; what is folded under it counts where people are told.
    opened_at, updated_at
        When it began and last changed.
    members
        What was found, worst first; those that have recovered are kept, so that an old finding is known as such.
    round
        Counts the times its escalation began anew: opened, raised, reopened.
    step, stepped_at
        Steps of escalation taken in this round, 0 before anybody was told; and when the last was.
    told_priority
        The most urgent it was told as.
    told
        Everybody who was told, for the all-clear.
    under
        Alert that explains it.
    person, reason
        Who acknowledged or resolved it, and what they said.
    acknowledged_at, resolved_at
        When.
    reopened
        When it came back soon after it was over.
    """

    alert_id: str
    model: str
    rule: str
    state: AlertState
    priority: Priority
    opened_at: datetime
    updated_at: datetime
    members: tuple[Member, ...] = ()
    round: int = 0
    step: int = 0
    stepped_at: datetime | None = None
    told_priority: Priority | None = None
    told: tuple[str, ...] = ()
    under: str | None = None
    person: str = ""
    reason: str = ""
    acknowledged_at: datetime | None = None
    resolved_at: datetime | None = None
    reopened: tuple[datetime, ...] = ()

    @property
    def live(self) -> bool:
        """Whether it is neither pending nor over."""
        return self.state in (AlertState.OPEN, AlertState.ACKNOWLEDGED)

    def wrong(self, policy: AlertingPolicy) -> tuple[Member, ...]:
        """Members that have not recovered, worst first; while pending one good finding is enough."""
        needed = 1 if self.state is AlertState.PENDING else policy.recovery.good_looks
        return tuple(member for member in self.members if member.good < needed)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        told = {one.name: _plain(getattr(self, one.name)) for one in fields(self) if one.name != "members"}
        members = [
            {one.name: _plain(getattr(member, one.name)) for one in fields(member) if one.name != "finding"}
            | {"finding": member.finding.to_dict()}
            for member in self.members
        ]
        return {**told, "members": members}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Alert:
        """Inverse of `to_dict`."""
        members = tuple(
            Member(
                Finding.from_dict(one["finding"]),
                datetime.fromisoformat(one["at"]),
                datetime.fromisoformat(one["since"]),
                datetime.fromisoformat(one["last_bad"]),
                Priority(one["priority"]),
                one["good"],
            )
            for one in values["members"]
        )
        moments = {
            name: None if values[name] is None else datetime.fromisoformat(values[name])
            for name in ("opened_at", "updated_at", "stepped_at", "acknowledged_at", "resolved_at")
        }
        told = values["told_priority"]
        return cls(
            **{
                **values,
                **moments,
                "members": members,
                "state": AlertState(values["state"]),
                "priority": Priority(values["priority"]),
                "told_priority": None if told is None else Priority(told),
                "told": tuple(values["told"]),
                "reopened": tuple(map(datetime.fromisoformat, values["reopened"])),
            }
        )


@dataclass(frozen=True, slots=True)
class Silence:
    """A person's wish not to hear of something for a while; it stays on record.

    Parameters
    ----------
    silence_id
        Its number.
    model, rule
        What; None for any.
    person, reason
        Who asked, and why.
    start, until
        From when, until when (not included).
    """

    silence_id: int
    model: str | None
    rule: str | None
    person: str
    reason: str
    start: datetime
    until: datetime

    def covers(self, alert: Alert, now: datetime) -> bool:
        """Whether an alert is silenced now."""
        return self.start <= now < self.until and self.model in (None, alert.model) and self.rule in (None, alert.rule)


@dataclass(frozen=True, slots=True)
class Target:
    """One way to tell: a channel, the person who is meant (also where it reaches a room), the channel it stands in for."""

    channel: Channel
    person: str
    instead_of: Channel | None = None

    @property
    def reaches(self) -> tuple[Channel, str | None]:
        """What is told: a person's number or address, or a room, which need not hear twice."""
        return self.channel, self.person if self.channel in PERSONAL else None


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell.

    Parameters
    ----------
    kind
        Why.
    alert
        As it stands now.
    priority
        As it is told: that of the worst alert folded under it.
    level
        Level of escalation that hears, 1 to 4; the highest so far for an all-clear.
    targets
        To whom, and how.
    """

    kind: Kind
    alert: Alert
    priority: Priority
    level: int
    targets: tuple[Target, ...]

    @property
    def key(self) -> str:
        """The same for the same notice, whoever decides it again."""
        return f"{self.alert.alert_id}:{self.alert.round}:{self.kind}:{self.alert.step}"


@dataclass(frozen=True, slots=True)
class World:
    """What decisions depend on beside alerts and findings.

    Parameters
    ----------
    policy, oncall
        The two files.
    available
        Channels with an account.
    silences
        All that may hold now.
    limits
        Model: how long it may be without data.
    unheard
        Keys of notices that reached nobody, every way to tell having failed.
    """

    policy: AlertingPolicy
    oncall: OnCall
    available: frozenset[Channel] = frozenset()
    silences: tuple[Silence, ...] = ()
    limits: Mapping[str, Duration] = field(default_factory=dict)
    unheard: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Step:
    """What follows: alerts that changed, and what to tell."""

    changed: tuple[Alert, ...]
    notices: tuple[Notice, ...]


def decide(alerts: Iterable[Alert], findings: Iterable[FindingRecord], world: World, now: datetime) -> Step:
    """Take one step.

    Parameters
    ----------
    alerts
        Those that are not over, and those that ended within the policy's ``reopen_within``.
    findings
        New ones; one that was seen before changes nothing.
    now
        Timezone-aware.
    """
    before = {alert.alert_id: alert for alert in alerts}
    # The newest alert of a model and rule is the one that goes on.
    current = {(alert.model, alert.rule): alert for alert in sorted(before.values(), key=lambda one: one.opened_at)}
    for record in sorted(findings, key=lambda one: one.at):
        for rule in world.policy.rules_of(record.finding):
            key = (record.model, rule.name)
            seen = _seen(current.get(key), record, rule, world.policy)
            if seen is not None:
                current[key] = seen
    current = {key: _matured(_ended(alert, world.policy), world, now) for key, alert in current.items()}
    current = _folded(current, world.policy)
    notices: list[Notice] = []
    for key, alert in current.items():
        told, notice = _told(alert, current, world, now)
        current[key] = told
        if notice is not None:
            notices.append(notice)
    changed = tuple(replace(alert, updated_at=now) for alert in current.values() if alert != before.get(alert.alert_id))
    return Step(changed, tuple(sorted(notices, key=lambda notice: (notice.priority, notice.alert.opened_at))))


def acknowledge(alert: Alert, person: str, reason: str, now: datetime) -> Alert:
    """Stop an alert's escalation: somebody is on it."""
    return replace(
        alert, state=AlertState.ACKNOWLEDGED, person=person, reason=reason, acknowledged_at=now, updated_at=now
    )


def resolve(alert: Alert, person: str, reason: str, now: datetime) -> Alert:
    """End an alert on a person's word; a bad finding made after it opens it again."""
    return replace(
        alert, state=AlertState.RESOLVED, person=person, reason=reason, resolved_at=now, updated_at=now, under=None
    )


def heard_of(last_seen: Mapping[str, datetime], limits: Mapping[str, Duration], now: datetime) -> list[FindingRecord]:
    """Whether monitoring itself still works: for each model a finding, NO_DATA when none came within its limit.

    Parameters
    ----------
    last_seen
        Model: when its last finding was made.
    limits
        Model: how long it may be without data; others are not looked at.
    """
    found = []
    for model, at in last_seen.items():
        if model in limits:
            told = f"last finding at {at:%Y-%m-%d %H:%M} UTC"
            verdict = Verdict.NO_DATA if now >= limits[model].after(at) else Verdict.PASS
            finding = Finding("findings", "monitoring", None, None, Direction.AT_LEAST, told, verdict, told)
            found.append(FindingRecord("", "alerts", model, None, at, finding))
    return found


def targets_of(
    channels: Sequence[Channel], person: str, oncall: OnCall, fallback: Sequence[Channel], available: frozenset[Channel]
) -> tuple[Target, ...]:
    """The ways to tell one person: the channels asked for, others in place of those that do not reach them.

    Where no account is set up at all, the terminal and the file; never nothing.
    """
    found: list[Target] = []
    for channel in channels:
        target = _target(channel, person, oncall, available)
        if target is not None and target not in found:
            found.append(target)
    taken = {target.channel for target in found}
    for channel in channels:
        if channel not in taken:
            stand_in = next_target(channel, person, oncall, fallback, available - taken)
            if stand_in is not None:
                found.append(stand_in)
                taken.add(stand_in.channel)
    return tuple(found) or tuple(Target(channel, person) for channel in LOCAL)


def next_target(
    failed: Channel, person: str, oncall: OnCall, fallback: Sequence[Channel], available: frozenset[Channel]
) -> Target | None:
    """What stands in for a channel: the first of the fallback that is available and reaches; None when all are used up."""
    for channel in fallback:
        target = None if channel is failed else _target(channel, person, oncall, available)
        if target is not None:
            return replace(target, instead_of=failed)
    return None


def _target(channel: Channel, person: str, oncall: OnCall, available: frozenset[Channel]) -> Target | None:
    if channel not in available:
        return None
    known = oncall.people.get(person)
    reached = channel not in PERSONAL or (known is not None and known.contact(channel))
    return Target(channel, person) if reached else None


def _seen(alert: Alert | None, record: FindingRecord, rule: Rule, policy: AlertingPolicy) -> Alert | None:
    """An alert after one more finding; None while there is none."""
    finding, recovery = record.finding, policy.recovery
    if finding.verdict is Verdict.NO_DATA and not rule.waits:
        return alert  # what is not known neither opens nor ends anything
    member = None if alert is None else next((one for one in alert.members if one.key == _key(finding)), None)
    # Read again: it is in here, or in an alert that was over before this one began.
    if member is not None and record.at <= member.at:
        return alert
    if member is None and alert is not None and record.at < alert.opened_at:
        return alert
    priority = rule.priority_of(finding, member.priority if member else None, recovery.margin)
    if priority is None:
        if alert is None or member is None:
            return alert
        return _with(alert, replace(member, finding=finding, at=record.at, good=member.good + 1), policy)
    going_on = alert is not None and alert.state is not AlertState.RESOLVED and member in alert.wrong(policy)
    fresh = Member(finding, record.at, member.since if member and going_on else record.at, record.at, priority)
    if alert is None or alert.state is AlertState.RESOLVED:
        resolved = None if alert is None else alert.resolved_at
        if resolved is not None and record.at <= resolved:
            return alert  # found before somebody said that it is over
        if alert is None or resolved is None or record.at > recovery.reopen_within.after(resolved):
            return _opened(record, rule, fresh)
        again = replace(
            alert,
            state=AlertState.PENDING if rule.waits else AlertState.OPEN,
            round=alert.round + 1,
            step=0,
            told_priority=None,
            acknowledged_at=None,
            resolved_at=None,
            person="",
            reason="",
            reopened=(*alert.reopened, record.at),
        )
        return _with(again, fresh, policy)
    return _with(alert, fresh, policy)


def _opened(record: FindingRecord, rule: Rule, member: Member) -> Alert:
    name = f"{record.model}/{rule.name}/{record.at.isoformat()}"
    return Alert(
        alert_id=hashlib.sha256(name.encode()).hexdigest()[:10],
        model=record.model,
        rule=rule.name,
        state=AlertState.PENDING if rule.waits else AlertState.OPEN,
        priority=member.priority,
        opened_at=record.at,
        updated_at=record.at,
        members=(member,),
    )


def _with(alert: Alert, member: Member, policy: AlertingPolicy) -> Alert:
    others = [one for one in alert.members if one.key != member.key]
    members = tuple(sorted([*others, member], key=lambda one: (one.good > 0, one.priority, one.key)))
    made = replace(alert, members=members)
    return replace(made, priority=min((one.priority for one in made.wrong(policy)), default=alert.priority))


def _ended(alert: Alert, policy: AlertingPolicy) -> Alert:
    """An alert whose members have all recovered is over, unless it is flapping."""
    if alert.state is AlertState.RESOLVED or alert.wrong(policy):
        return alert
    at = max(member.at for member in alert.members)
    quiet = policy.recovery.flap_quiet.after(max(member.last_bad for member in alert.members))
    if alert.state is not AlertState.PENDING and flapping(alert, policy, at) and at < quiet:
        return alert
    return replace(alert, state=AlertState.RESOLVED, resolved_at=at, under=None)


def flapping(alert: Alert, policy: AlertingPolicy, now: datetime) -> bool:
    """Whether an alert has come back so often that it is kept open until it stays quiet."""
    recent = [moment for moment in alert.reopened if policy.recovery.flap_window.after(moment) > now]
    return len(recent) >= policy.recovery.flaps


def _matured(alert: Alert, world: World, now: datetime) -> Alert:
    """A pending alert opens when its model has been without data for too long."""
    limit = world.limits.get(alert.model)
    if alert.state is not AlertState.PENDING or limit is None:
        return alert
    since = min(member.since for member in alert.wrong(world.policy))
    return replace(alert, state=AlertState.OPEN) if now >= limit.after(since) else alert


Current = dict[tuple[str, str], Alert]


def _folded(current: Current, policy: AlertingPolicy) -> Current:
    """Each live alert under the first live one of its model that explains it."""
    folded = dict(current)
    for key, alert in current.items():
        if not alert.live:
            continue
        rule = policy.rule(alert.rule)
        causes = [current.get((alert.model, name)) for name in (rule.under if rule else [])]
        cause = next((one.alert_id for one in causes if one is not None and one.live), None)
        folded[key] = replace(alert, under=cause)
    return folded


def urgency(alert: Alert, alerts: Iterable[Alert]) -> Priority:
    """How urgent an alert is with everything that is folded under it."""
    others = [one for one in alerts if one.live]
    priority = alert.priority
    for other in others:
        if other.under == alert.alert_id:
            priority = min(priority, urgency(other, others))
    return priority


def _told(alert: Alert, current: Current, world: World, now: datetime) -> tuple[Alert, Notice | None]:
    """An alert after people were told what is due, and the notice."""
    policy = world.policy
    if alert.state is AlertState.RESOLVED:
        if not alert.step or alert.told_priority is None:
            return alert, None
        notice = _notice(Kind.RESOLVED, alert, alert.told_priority, alert.step, world, now)
        return replace(alert, step=0), notice
    if not alert.live or alert.under is not None:
        return alert, None
    priority = urgency(alert, current.values())
    if policy.held(alert.model, priority, now) or any(one.covers(alert, now) for one in world.silences):
        return alert, None
    kind = _due(alert, priority, world, now)
    if kind is None:
        return alert, None
    if kind is Kind.ESCALATED:
        moved = replace(alert, step=alert.step + 1, stepped_at=now)
    else:
        # What got worse is not what was acknowledged.
        moved = replace(
            alert, state=AlertState.OPEN, round=alert.round + (kind is Kind.RAISED), step=1, stepped_at=now,
            told_priority=priority, person="", reason="", acknowledged_at=None,
        )  # fmt: skip
    notice = _notice(kind, moved, priority, moved.step, world, now)
    people = dict.fromkeys([*moved.told, *(target.person for target in notice.targets)])
    moved = replace(moved, told=tuple(people))
    return moved, replace(notice, alert=moved)


def _due(alert: Alert, priority: Priority, world: World, now: datetime) -> Kind | None:
    """What has to be told of an alert now."""
    if not alert.step:
        if alert.state is AlertState.ACKNOWLEDGED:
            return None
        return Kind.REOPENED if alert.reopened else Kind.OPENED
    if alert.told_priority is not None and priority < alert.told_priority:
        return Kind.RAISED
    if alert.state is AlertState.ACKNOWLEDGED or alert.stepped_at is None:
        return None
    response = world.policy.priorities[priority]
    if alert.step >= response.escalates_to and not response.repeats:
        return None
    # A level that nobody could be told of hears nothing: the next one does not wait, but the last is no reason to hurry.
    last = [kind for kind in Kind if f"{alert.alert_id}:{alert.round}:{kind}:{alert.step}" in world.unheard]
    hurried = bool(last) and alert.step < response.escalates_to
    return Kind.ESCALATED if hurried or now >= response.respond_within.after(alert.stepped_at) else None


def _notice(kind: Kind, alert: Alert, priority: Priority, step: int, world: World, now: datetime) -> Notice:
    policy = world.policy
    response = policy.priorities[priority]
    team = policy.route.team_of(alert.model, alert.rule, priority)
    level, person = world.oncall.on_duty(team, min(step, response.escalates_to), now)
    fallback, available = policy.delivery.fallback, world.available
    if kind is not Kind.RESOLVED:
        return Notice(
            kind, alert, priority, level, targets_of(response.channels, person, world.oncall, fallback, available)
        )
    # Nobody is called in the night to hear that all is well.
    channels = [channel for channel in response.channels if channel is not Channel.PHONE]
    found: dict[tuple[Channel, str | None], Target] = {}
    for one in alert.told:
        for target in targets_of(channels, one, world.oncall, fallback, available):
            found.setdefault(target.reaches, target)
    return Notice(kind, alert, priority, level, tuple(found.values()))


def _key(finding: Finding) -> tuple[str, str]:
    return finding.measure, finding.subject


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value.value if isinstance(value, enum.Enum) else value
