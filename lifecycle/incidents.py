"""Incidents: how soon people answered what they were told of, against the priority's response time (R6.1 to R6.4, R13.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lifecycle.alerting import AlertingPolicy, Priority


@dataclass(frozen=True, slots=True)
class Incident:
    """An alert that somebody was told of.

    Parameters
    ----------
    alert_id, model, rule
        Which.
    priority
        The most urgent it was told as.
    opened_at, told_at
        When it began, and when the first person was told.
    acknowledged_at, resolved_at
        When somebody first took it up, and when it was over; None while not.
    """

    alert_id: str
    model: str
    rule: str
    priority: Priority
    opened_at: datetime
    told_at: datetime
    acknowledged_at: datetime | None
    resolved_at: datetime | None

    @property
    def answered_after(self) -> timedelta | None:
        """From being told to the first answer, an end by itself included; None while there is none."""
        answers = [moment for moment in (self.acknowledged_at, self.resolved_at) if moment is not None]
        return min(answers) - self.told_at if answers else None

    def in_time(self, policy: AlertingPolicy, now: datetime) -> bool | None:
        """Whether it was answered within its priority's response time; None while that still runs."""
        until = policy.priorities[self.priority].respond_within.after(self.told_at)
        if self.answered_after is not None:
            return self.told_at + self.answered_after <= until
        return None if now <= until else False


def share_in_time(incidents: Sequence[Incident], policy: AlertingPolicy, now: datetime) -> float | None:
    """Share of decided incidents that were answered in time, from 0 to 1; None without one."""
    decided = [answer for one in incidents if (answer := one.in_time(policy, now)) is not None]
    return sum(decided) / len(decided) if decided else None
