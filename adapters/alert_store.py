"""Alerts in the ops store: state, timeline, silences, and the outbox of what has to be told (R6.1 to R6.6).

A step of the state machine, what it tells and its audit are one transaction: whoever is killed afterwards leaves the
notifications to be sent by the next. A sender claims each for a while; it is sent at least once, and its key lets
PagerDuty know it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from adapters.ops_store import OpsStore, finding_record, write_audit
from adapters.ops_tables import alert_cursor, alert_events, alerts, audit, findings, notifications, runs, silences
from lifecycle.alerting import Channel, Priority
from lifecycle.alerts import Alert, AlertState, Kind, Notice, Silence, Step, Target, acknowledge, resolve
from lifecycle.delivery import Delivered, Notification, unheard
from lifecycle.errors import ConfigError
from lifecycle.incidents import Incident
from lifecycle.records import FindingRecord, RunState

ACTOR = "alerts"
FIRST_LOOK = timedelta(days=1)
"""How far back the very first look reads."""
OVERLAP = timedelta(minutes=10)
"""Findings that were written in parallel may be seen late by so much; read again, they change nothing."""
_STEPPING = 0x616C65727473  # any constant number; held on PostgreSQL while a step is taken


@dataclass(frozen=True, slots=True)
class Event:
    """One line of an alert's timeline."""

    at: datetime
    event: str
    actor: str
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A notification in the outbox, with the alert it tells of as it was then."""

    number: int
    notification: Notification
    alert: Alert


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a step is decided on.

    Parameters
    ----------
    alerts
        Those that are not over, or not for long.
    findings
        Of the watched pipelines, since the last look and a little before.
    silences
        Those that have not ended.
    unheard
        Keys of notices that reached nobody.
    last_seen
        Model: when a watched pipeline last succeeded.
    """

    alerts: tuple[Alert, ...]
    findings: tuple[FindingRecord, ...]
    silences: tuple[Silence, ...]
    unheard: frozenset[str]
    last_seen: Mapping[str, datetime]


class AlertStore:
    """Alerts of all models.

    Parameters
    ----------
    ops
        The ops store they are kept in.
    """

    def __init__(self, ops: OpsStore) -> None:
        self._ops = ops

    def step(
        self, decide: Callable[[Gathered], Step], pipelines: Sequence[str], reopen_within: timedelta, now: datetime
    ) -> Step:
        """Take a step: gather, decide, put what changed and what has to be told on record; all or nothing.

        Parameters
        ----------
        decide
            A pure function.
        pipelines
            Whose findings count.
        reopen_within
            How long an alert that is over may still be needed.
        """
        with self._stepping() as connection:
            cursor = connection.execute(sa.select(alert_cursor.c.at)).scalar_one_or_none()
            since = (now - FIRST_LOOK if cursor is None else cursor) - OVERLAP
            gathered = self._gather(connection, pipelines, since, min(since, now - reopen_within), now)
            step = decide(gathered)
            before = {alert.alert_id: alert for alert in gathered.alerts}
            for alert in step.changed:
                self._put(connection, before.get(alert.alert_id), alert, now)
            for notice in step.notices:
                self._enqueue(connection, notice, now)
            newest = max((record.at for record in gathered.findings), default=None)
            if newest is not None and (cursor is None or newest > cursor):
                connection.execute(sa.delete(alert_cursor))
                connection.execute(sa.insert(alert_cursor).values(id=1, at=newest))
            return step

    def _gather(
        self, connection: sa.Connection, pipelines: Sequence[str], since: datetime, over_since: datetime, now: datetime
    ) -> Gathered:
        mine = runs.c.pipeline.in_(pipelines)
        joined = sa.select(findings).join_from(findings, runs)
        records = connection.execute(joined.where(mine, findings.c.at >= since).order_by(findings.c.at, findings.c.id))
        kept = connection.execute(
            sa.select(alerts.c.body)
            .where(sa.or_(alerts.c.state != AlertState.RESOLVED.value, alerts.c.resolved_at >= over_since))
            .order_by(alerts.c.opened_at, alerts.c.id)
        ).scalars()
        found = tuple(map(Alert.from_dict, kept))
        held = connection.execute(sa.select(silences).where(silences.c.until > now).order_by(silences.c.id))
        ended = sa.and_(runs.c.pipeline.in_(pipelines), runs.c.state == RunState.SUCCEEDED.value)
        last = connection.execute(
            sa.select(runs.c.model, sa.func.max(runs.c.finished_at).label("at")).where(ended).group_by(runs.c.model)
        )
        return Gathered(
            found,
            tuple(finding_record(row._asdict()) for row in records),
            tuple(Silence(*row) for row in held),
            unheard(one.notification for one in self._of(connection, [alert.alert_id for alert in found])),
            {row.model: row.at for row in last},
        )

    def _of(self, connection: sa.Connection, alert_ids: Sequence[str]) -> list[Outgoing]:
        if not alert_ids:
            return []
        query = sa.select(notifications).where(notifications.c.alert_id.in_(alert_ids)).order_by(notifications.c.id)
        return [_outgoing(row) for row in connection.execute(query)]

    def _put(
        self, connection: sa.Connection, before: Alert | None, alert: Alert, now: datetime, actor: str = ACTOR
    ) -> None:
        row = {
            "model": alert.model,
            "rule": alert.rule,
            "state": alert.state.value,
            "priority": alert.priority.value,
            "opened_at": alert.opened_at,
            "resolved_at": alert.resolved_at,
            "body": alert.to_dict(),
        }
        if before is None:
            connection.execute(sa.insert(alerts).values(id=alert.alert_id, **row))
        else:
            connection.execute(sa.update(alerts).where(alerts.c.id == alert.alert_id).values(**row))
        for event, detail in _happened(before, alert):
            _note(connection, alert, now, event, actor, detail)

    def _enqueue(self, connection: sa.Connection, notice: Notice, now: datetime) -> None:
        detail = {"kind": notice.kind, "priority": notice.priority, "level": notice.level}
        ways = [f"{target.channel} to {target.person}" for target in notice.targets]
        _note(connection, notice.alert, now, "notice", ACTOR, detail | {"ways": ways})
        for target in notice.targets:
            made = Notification(
                notice.key, notice.kind, notice.priority, notice.level, target, Delivered.PENDING, 0, now
            )
            self._insert(connection, made, notice.alert, now)

    def _insert(self, connection: sa.Connection, one: Notification, alert: Alert, now: datetime) -> None:
        connection.execute(
            sa.insert(notifications).values(
                notice=one.notice,
                alert_id=alert.alert_id,
                kind=one.kind.value,
                priority=one.priority.value,
                level=one.level,
                channel=one.target.channel.value,
                person=one.target.person,
                instead_of=None if one.target.instead_of is None else one.target.instead_of.value,
                state=one.state.value,
                attempts=one.attempts,
                due=one.due,
                detail=one.detail,
                told=alert.to_dict(),
                at=now,
            )
        )

    # Sending

    def claim(self, now: datetime, span: timedelta) -> Outgoing | None:
        """Take the most urgent notification that is due and that nobody is sending; None when there is none."""
        free = sa.and_(
            notifications.c.state == Delivered.PENDING.value,
            notifications.c.due <= now,
            sa.or_(notifications.c.claimed_until.is_(None), notifications.c.claimed_until <= now),
        )
        query = sa.select(notifications).where(free).order_by(notifications.c.priority, notifications.c.id).limit(1)
        with self._ops.writing() as connection:
            row = connection.execute(query.with_for_update(skip_locked=True)).one_or_none()
            if row is None:
                return None
            taken = sa.update(notifications).where(notifications.c.id == row.id)
            connection.execute(taken.values(claimed_until=now + span))
            return _outgoing(row)

    def settle(
        self,
        one: Outgoing,
        result: Notification,
        stand_in: Callable[[Notification, Sequence[Notification]], Target | None],
        now: datetime,
    ) -> Target | None:
        """Put on record how sending ended, with the channel that takes a failed one's place; that channel, or None."""
        with self._ops.writing() as connection:
            connection.execute(
                sa.update(notifications)
                .where(notifications.c.id == one.number)
                .values(
                    state=result.state.value,
                    attempts=result.attempts,
                    due=result.due,
                    detail=result.detail,
                    claimed_until=None,
                )
            )
            told = {"channel": result.target.channel, "person": result.target.person, "attempt": result.attempts}
            event = {Delivered.PENDING: "to be sent again"}.get(result.state, result.state.value)
            _note(connection, one.alert, now, event, ACTOR, told | {"kind": result.kind, "answer": result.detail})
            if result.state is not Delivered.FAILED:
                return None
            siblings = [
                other.notification
                for other in self._of(connection, [one.alert.alert_id])
                if other.notification.notice == result.notice
            ]
            target = stand_in(result, siblings)
            if target is not None:
                following = Notification(
                    result.notice, result.kind, result.priority, result.level, target, Delivered.PENDING, 0, now
                )
                self._insert(connection, following, one.alert, now)
            return target

    # What people do and ask

    def alert(self, alert_id: str) -> Alert:
        """One alert by its id or the beginning of it; ConfigError when that is none or several."""
        query = sa.select(alerts.c.body).where(alerts.c.id.startswith(alert_id, autoescape=True)).limit(2)
        with self._ops.reading() as connection:
            found = connection.execute(query).scalars().all() if alert_id else []
        if len(found) != 1:
            raise ConfigError(
                f"{'several alerts begin' if found else 'no alert begins'} with {alert_id!r}; "
                "accepted: an id as run.py alerts list shows it"
            )
        return Alert.from_dict(found[0])

    def alerts(self, model: str | None = None, *, over: bool = False, limit: int = 100) -> list[Alert]:
        """Alerts, most urgent first, then newest; with `over` also those that ended, and those that wait to open."""
        query = sa.select(alerts.c.body).order_by(alerts.c.priority, alerts.c.opened_at.desc()).limit(limit)
        if over:
            query = sa.select(alerts.c.body).order_by(alerts.c.opened_at.desc(), alerts.c.id).limit(limit)
        else:
            query = query.where(alerts.c.state.in_([AlertState.OPEN.value, AlertState.ACKNOWLEDGED.value]))
        if model is not None:
            query = query.where(alerts.c.model == model)
        with self._ops.reading() as connection:
            return [Alert.from_dict(body) for body in connection.execute(query).scalars()]

    def acknowledge(self, alert_id: str, person: str, reason: str, now: datetime) -> Alert:
        """Stop an alert's escalation; ConfigError when it is not open, or nobody is named."""
        accepted = (AlertState.OPEN,)
        return self._say(alert_id, person, reason, now, acknowledge, accepted)

    def resolve(self, alert_id: str, person: str, reason: str, now: datetime) -> Alert:
        """End an alert on a person's word; ConfigError when it is over already, or nobody is named."""
        accepted = (AlertState.OPEN, AlertState.ACKNOWLEDGED)
        return self._say(alert_id, person, reason, now, resolve, accepted)

    def _say(
        self,
        alert_id: str,
        person: str,
        reason: str,
        now: datetime,
        change: Callable[[Alert, str, str, datetime], Alert],
        accepted: tuple[AlertState, ...],
    ) -> Alert:
        _named(person, reason)
        alert_id = self.alert(alert_id).alert_id
        with self._stepping() as connection:
            body = connection.execute(sa.select(alerts.c.body).where(alerts.c.id == alert_id)).scalar_one()
            before = Alert.from_dict(body)
            if before.state not in accepted:
                raise ConfigError(
                    f"alert {alert_id} is {before.state.value}{f' by {before.person}' if before.person else ''}; "
                    f"accepted: one that is {' or '.join(accepted)}"
                )
            after = change(before, person, reason, now)
            self._put(connection, before, after, now, person)
            return after

    def silence(
        self, model: str | None, rule: str | None, person: str, reason: str, now: datetime, until: datetime
    ) -> Silence:
        """Let nobody be told of a model, a rule or both for a while; ConfigError without a name, a reason, or an end ahead."""
        _named(person, reason)
        if model is None and rule is None:
            raise ConfigError("a silence of everything; accepted: a model, a rule, or both")
        if until <= now:
            raise ConfigError(f"a silence until {until:%Y-%m-%d %H:%M} UTC; accepted: a moment that is still to come")
        row = {"model": model, "rule": rule, "person": person, "reason": reason, "start": now, "until": until}
        with self._ops.writing() as connection:
            made = connection.execute(sa.insert(silences).values(row).returning(silences)).one()
            subject = f"{model or 'every model'}, {rule or 'every rule'}"
            write_audit(connection, now, person, "alerts silenced", subject, model, {"reason": reason, "until": until})
        return Silence(*made)

    def silences(self, now: datetime) -> list[Silence]:
        """Those in force."""
        query = sa.select(silences).where(silences.c.until > now, silences.c.start <= now).order_by(silences.c.id)
        with self._ops.reading() as connection:
            return [Silence(*row) for row in connection.execute(query)]

    def timeline(self, alert_id: str) -> list[Event]:
        """What happened to an alert, oldest first."""
        query = sa.select(alert_events).where(alert_events.c.alert_id == alert_id).order_by(alert_events.c.id)
        with self._ops.reading() as connection:
            return [Event(row.at, row.event, row.actor, row.detail) for row in connection.execute(query)]

    def outbox(self, alert_ids: Sequence[str]) -> list[Outgoing]:
        """Everything that was to be told of some alerts, oldest first."""
        with self._ops.reading() as connection:
            return self._of(connection, alert_ids)

    def incidents(self, since: datetime) -> list[Incident]:
        """Alerts that somebody was told of from a moment on, oldest first."""
        told = (
            sa.select(notifications.c.alert_id, sa.func.min(notifications.c.at).label("told_at"),
                      sa.func.min(notifications.c.priority).label("priority"))
            .where(notifications.c.kind != Kind.RESOLVED.value).group_by(notifications.c.alert_id).subquery()
        )  # fmt: skip
        taken = (
            sa.select(alert_events.c.alert_id, sa.func.min(alert_events.c.at).label("at"))
            .where(alert_events.c.event == AlertState.ACKNOWLEDGED.value).group_by(alert_events.c.alert_id).subquery()
        )  # fmt: skip
        query = (
            sa.select(alerts, told.c.told_at, told.c.priority.label("told_priority"), taken.c.at.label("taken_at"))
            .join(told, told.c.alert_id == alerts.c.id)
            .outerjoin(taken, taken.c.alert_id == alerts.c.id)
            .where(told.c.told_at >= since)
            .order_by(told.c.told_at, alerts.c.id)
        )
        with self._ops.reading() as connection:
            return [
                Incident(
                    row.id, row.model, row.rule, Priority(row.told_priority), row.opened_at, row.told_at, row.taken_at,
                    row.resolved_at,
                )
                for row in connection.execute(query)
            ]  # fmt: skip

    def values(self, model: str, measure: str, subject: str, until: datetime, limit: int = 24) -> list[float]:
        """The newest values of a measure on a subject up to a moment, oldest first; what has none is left out."""
        query = (
            sa.select(findings.c.value)
            .where(
                findings.c.model == model,
                findings.c.measure == measure,
                findings.c.subject == subject,
                findings.c.at <= until,
                findings.c.value.is_not(None),
            )
            .order_by(findings.c.at.desc(), findings.c.id.desc())
            .limit(limit)
        )
        with self._ops.reading() as connection:
            return list(reversed(connection.execute(query).scalars().all()))

    def done_since(self, model: str, since: datetime, limit: int = 5) -> list[Event]:
        """What the system or people did to a model since a moment, oldest first: rollouts, trainings, new parts."""
        does = sa.or_(
            audit.c.action.startswith("rollout "), audit.c.action.startswith("alias "),
            sa.and_(audit.c.action == "run started", audit.c.subject.startswith("train-")),
        )  # fmt: skip
        query = sa.select(audit).where(audit.c.model == model, audit.c.at >= since, does).order_by(audit.c.id.desc())
        with self._ops.reading() as connection:
            rows = connection.execute(query.limit(limit)).all()
        return [Event(row.at, f"{row.action} {row.subject}", row.actor, row.detail) for row in reversed(rows)]

    @contextmanager
    def _stepping(self) -> Iterator[sa.Connection]:
        """A transaction in which nobody else changes alerts; SQLite has one writer anyway."""
        with self._ops.writing() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_STEPPING)))
            yield connection


def _named(person: str, reason: str) -> None:
    if not person.strip() or not reason.strip():
        raise ConfigError(f"person {person!r}, reason {reason!r}; accepted: both given, not blank")


def _note(
    connection: sa.Connection, alert: Alert, now: datetime, event: str, actor: str, detail: Mapping[str, Any]
) -> None:
    connection.execute(
        sa.insert(alert_events).values(alert_id=alert.alert_id, at=now, event=event, actor=actor, detail=dict(detail))
    )
    told = {"rule": alert.rule, **detail}
    write_audit(connection, now, actor, f"alert {event}", alert.alert_id, alert.model, told)


def _happened(before: Alert | None, after: Alert) -> Iterable[tuple[str, dict[str, Any]]]:
    """What a change of an alert is called in its timeline."""
    worst = after.members[0].finding.reason if after.members else ""
    if before is None or before.state is not after.state:
        event = after.state.value
        if before is not None and before.state is AlertState.RESOLVED:
            event = "reopened"
        said = {"reason": after.reason} if after.person else {"finding": worst}
        yield event, {"priority": after.priority, **said}
    elif before.priority is not after.priority:
        yield "priority", {"before": before.priority, "priority": after.priority, "finding": worst}
    if (before.under if before else None) != after.under:
        yield ("folded", {"under": after.under}) if after.under else ("on its own", {"before": before and before.under})


def _outgoing(row: sa.Row[Any]) -> Outgoing:
    instead = None if row.instead_of is None else Channel(row.instead_of)
    target = Target(Channel(row.channel), row.person, instead)
    made = Notification(
        row.notice, Kind(row.kind), Priority(row.priority), row.level, target, Delivered(row.state), row.attempts,
        row.due, row.detail,
    )  # fmt: skip
    return Outgoing(row.id, made, Alert.from_dict(row.told))
