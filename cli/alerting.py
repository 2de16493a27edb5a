"""One look at alerts: new findings in, decisions on record, people told (R6.1 to R6.6); for the verb and for `operate`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from adapters.alert_store import AlertStore, Gathered, Outgoing
from adapters.alert_text import Story, rendered
from adapters.model_files import check_models, load_file
from adapters.notifiers import Notifiers, Sent
from adapters.ops_store import OpsStore
from adapters.services import models_folder, policies_folder, var_folder
from lifecycle.alerting import PERSONAL, AlertingPolicy, Channel, Priority
from lifecycle.alerts import AlertState, Step, World, decide, heard_of
from lifecycle.delivery import Delivered, delivered, failed, stand_in, unheard
from lifecycle.errors import ConfigError, ProDecksError, UnheardError
from lifecycle.messages import Message
from lifecycle.oncall import OnCall, Person
from lifecycle.redaction import redacted
from lifecycle.spec import GATEWAY, Duration

EVERY_S = 10.0
"""Seconds from the end of one look beside `operate` to the next."""
STOP_S = 2.0
"""So long is a look under way waited for at the end; what it was sending is sent by the next who looks."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Look:
    """What one look did.

    Parameters
    ----------
    changed, notices
        Alerts that changed, and notices that became due.
    sent, failed
        Notifications that were taken, and attempts that were not.
    unheard
        P0 alerts that are open and that nobody could be told of, in words.
    """

    changed: int
    notices: int
    sent: int
    failed: int
    unheard: tuple[str, ...]


def load_policies(folder: Path | None = None) -> tuple[AlertingPolicy, OnCall]:
    """Both policies; ConfigError when one is wrong, or a route names a team that does not exist."""
    place = folder or policies_folder()
    policy = load_file(place / "alerting.yaml", AlertingPolicy, {})
    oncall = load_file(place / "oncall.yaml", OnCall, {})
    routes = [policy.route]
    for route in routes:
        if route.team not in oncall.teams:
            raise ConfigError(f"alerting.yaml: route to team {route.team!r}; accepted: {', '.join(oncall.teams)}")
        routes += route.routes
    return policy, oncall


def no_data_limits(warn: Callable[[str], None]) -> dict[str, Duration]:
    """Model: how long it may be without data. A file that is wrong is told, and keeps nobody from watching the others."""
    specs, problems = check_models(models_folder())
    for problem in problems:
        warn(problem)
    limits = {spec.name: spec.monitoring.no_data_limit for spec in specs}
    if limits:  # the gateway's is that of whoever waits least
        limits[GATEWAY] = min(limits.values(), key=lambda limit: limit.after(datetime(2000, 1, 1)))
    return limits


class Alerting:
    """Alerts of all models.

    Parameters
    ----------
    ops
        The ops store.
    notifiers
        How people are told.
    policy, oncall
        The two policies.
    limits
        Model: how long it may be without data.
    clock
        Now; timezone-aware.
    """

    def __init__(
        self,
        ops: OpsStore,
        notifiers: Notifiers,
        policy: AlertingPolicy,
        oncall: OnCall,
        limits: Mapping[str, Duration],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store, self._notifiers, self._clock = AlertStore(ops), notifiers, clock
        self._world = World(policy, oncall, notifiers.available, limits=limits)

    @classmethod
    def open(cls, ops: OpsStore, warn: Callable[[str], None] = log.warning) -> Alerting:
        """With the policies, model files and accounts of this project and environment; `warn` is told of what is wrong."""
        policy, oncall = load_policies()
        return cls(ops, Notifiers.from_environment(var_folder() / "alerts.log"), policy, oncall, no_data_limits(warn))

    def tick(self) -> Look:
        """Look once: decide on what is new, then send what is due. Repeating it does no harm, nor does being killed in it.

        Raises
        ------
        UnavailableError
            The ops store does not answer.
        """
        policy, now = self._world.policy, self._clock()
        reopen_within = policy.recovery.reopen_within.after(now) - now
        step = self._store.step(lambda gathered: self._decide(gathered, now), policy.pipelines, reopen_within, now)
        sent = lost = 0
        while (one := self._store.claim(self._clock(), timedelta(seconds=policy.delivery.claim))) is not None:
            if self._send(one):
                sent += 1
            else:
                lost += 1
        told = self._unheard()
        for line in told:
            log.critical("P0 ALERT THAT NOBODY WAS TOLD OF: %s", line)
        return Look(len(step.changed), len(step.notices), sent, lost, told)

    def _decide(self, gathered: Gathered, now: datetime) -> Step:
        world = replace(self._world, silences=gathered.silences, unheard=gathered.unheard)
        watched = heard_of(gathered.last_seen, world.limits, now)
        return decide(gathered.alerts, [*gathered.findings, *watched], world, now)

    def _send(self, one: Outgoing) -> bool:
        """Send one notification and put on record how it ended; whether it was taken."""
        notification, world = one.notification, self._world
        person = world.oncall.people.get(notification.target.person)
        channel = notification.target.channel
        contact = person.contact(channel) if person is not None else None
        if channel in PERSONAL and contact is None:
            result = failed(notification, f"{notification.target.person} has no {channel} any more", world.policy.delivery, self._clock())  # fmt: skip
            result = replace(result, state=Delivered.FAILED)
        else:
            answer = self._attempt(one, contact, person or Person(name=notification.target.person))
            if answer.ok:
                result = delivered(notification, answer.detail)
            else:
                log.warning("alert %s by %s: %s", one.alert.alert_id, channel, answer.detail)
                result = failed(notification, answer.detail, world.policy.delivery, self._clock())
        self._store.settle(one, result, lambda lost, siblings: stand_in(lost, siblings, world), self._clock())
        return result.state is Delivered.DELIVERED

    def _attempt(self, one: Outgoing, contact: str | None, reader: Person) -> Sent:
        channel, kind = one.notification.target.channel, one.notification.kind
        try:
            return self._notifiers.send(channel, contact, self._message(one, reader), kind)
        except ProDecksError:
            raise  # the ops store is gone: nothing could be put on record
        except Exception as error:  # noqa: BLE001 - whatever breaks in one channel, the next one has to be tried
            return Sent(False, f"{type(error).__name__} while it was written or sent")

    def _message(self, one: Outgoing, reader: Person) -> Message:
        alert, notification, world = one.alert, one.notification, self._world
        folded = [other for other in self._store.alerts(alert.model) if other.under == alert.alert_id]
        worst = alert.members[0].finding
        team = world.oncall.teams[world.policy.route.team_of(alert.model, alert.rule, notification.priority)]
        story = Story(
            notification.kind,
            notification.priority,
            notification.level,
            team.levels[notification.level - 1].role,
            folded,
            self._store.values(alert.model, worst.measure, worst.subject, alert.members[0].at),
            [(done.at, done.event) for done in self._store.done_since(alert.model, alert.opened_at)],
            picture=notification.target.channel is Channel.EMAIL,
        )
        return rendered(alert, story, world.policy, reader)

    def _unheard(self) -> tuple[str, ...]:
        waiting = {alert.alert_id: alert for alert in self._store.alerts() if alert.state is AlertState.OPEN}
        outbox = [
            one.notification
            for one in self._store.outbox(list(waiting))
            if one.notification.priority is Priority.P0
            and one.notification.notice.startswith(f"{one.alert.alert_id}:{waiting[one.alert.alert_id].round}:")
        ]
        lost = {key.split(":")[0] for key in unheard(outbox)}
        heard = {one.notice.split(":")[0] for one in outbox if one.state is Delivered.DELIVERED}
        return tuple(
            f"{alert_id} {waiting[alert_id].model} {waiting[alert_id].rule}" for alert_id in sorted(lost - heard)
        )


def require_heard(unheard: Sequence[str]) -> None:
    """UnheardError when there are P0 alerts that nobody could be told of."""
    if unheard:
        raise UnheardError(f"nobody could be told of {'; '.join(unheard)}; accepted: one working channel")


class AlertingBeside:
    """Looks at alerts in a thread of its own: a channel that is slow, or hangs, holds up nobody else.

    Parameters
    ----------
    alerting
        Opens the alerting, afresh for each look: a policy that was mended counts from the next one. Called with whom
        to tell of what is wrong and stops nothing.
    tell
        Called with what goes wrong, when it begins or changes, and when it is over.
    every
        Seconds between two looks.
    """

    def __init__(
        self, alerting: Callable[[Callable[[str], None]], Alerting], tell: Callable[[str], None], every: float = EVERY_S
    ) -> None:
        self._alerting, self._tell, self._every = alerting, tell, every
        self._trouble = ""
        self._stop = threading.Event()
        # A daemon: a channel that hangs keeps nobody from ending.
        self._thread = threading.Thread(target=self._run, name="alerting", daemon=True)

    def start(self) -> None:
        """Look now, and then again and again."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the look that is under way unless it takes long."""
        self._stop.set()
        self._thread.join(STOP_S)

    def look(self) -> tuple[str, ...]:
        """Look once; the P0 alerts that nobody could be told of. It never raises."""
        problems: list[str] = []
        unheard: tuple[str, ...] = ()
        try:
            unheard = self._alerting(problems.append).tick().unheard
        except ProDecksError as error:
            problems.append(str(error))
        except Exception as error:  # noqa: BLE001 - told, whatever it is: nobody waits for this thread's result
            problems.append(redacted(f"{type(error).__name__}: {error}"))
        trouble = "; ".join(problems)
        if trouble != self._trouble:
            self._trouble = trouble
            self._tell(f"alerting: {trouble or 'well again'}")
        return unheard

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._stop.wait(self._every)
