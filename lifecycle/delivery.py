"""What follows when a notification was delivered or not: another try, another channel, or a cry (R6.5)."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from lifecycle.alerting import Delivery, Priority
from lifecycle.alerts import Kind, Target, World, next_target


class Delivered(enum.StrEnum):
    """Where a notification stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Notification:
    """One way of telling one notice.

    Parameters
    ----------
    notice
        Key of the notice it tells of.
    kind, priority, level
        Of that notice.
    target
        To whom, and how.
    state
        Where it stands.
    attempts
        Made so far.
    due
        When the next is.
    detail
        What the last one answered.
    """

    notice: str
    kind: Kind
    priority: Priority
    level: int
    target: Target
    state: Delivered
    attempts: int
    due: datetime
    detail: str = ""


def delivered(one: Notification, detail: str) -> Notification:
    """It was taken by the other side."""
    return replace(one, state=Delivered.DELIVERED, attempts=one.attempts + 1, detail=detail)


def failed(one: Notification, detail: str, policy: Delivery, now: datetime) -> Notification:
    """It was not: tried again after a wait that doubles, until the attempts are used up."""
    attempts = one.attempts + 1
    if attempts >= policy.attempts:
        return replace(one, state=Delivered.FAILED, attempts=attempts, detail=detail)
    wait = min(policy.first_wait * 2.0 ** (attempts - 1), policy.longest_wait)
    return replace(one, attempts=attempts, due=now + timedelta(seconds=wait), detail=detail)


def stand_in(one: Notification, siblings: Sequence[Notification], world: World) -> Target | None:
    """The channel that takes a failed notification's place: one that its notice has not used yet.

    Parameters
    ----------
    siblings
        All notifications of the same notice.
    """
    used = {sibling.target.channel for sibling in siblings}
    return next_target(
        one.target.channel, one.target.person, world.oncall, world.policy.delivery.fallback, world.available - used
    )


def unheard(notifications: Iterable[Notification]) -> frozenset[str]:
    """Keys of notices that reached nobody: every way was tried to its end. An all-clear may be missed."""
    states: dict[str, set[Delivered]] = {}
    for one in notifications:
        if one.kind is not Kind.RESOLVED:
            states.setdefault(one.notice, set()).add(one.state)
    return frozenset(key for key, found in states.items() if found == {Delivered.FAILED})
