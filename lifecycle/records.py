"""What the ops store keeps, as values: runs and what started them (R3.1, R3.2, R3.3), versions (R3.8), audit."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lifecycle.findings import Finding


class TriggerKind(enum.StrEnum):
    """What asked for a run (R3.1, R3.2, R3.3)."""

    SCHEDULE = "schedule"
    EVENT = "event"
    MANUAL = "manual"


class RunState(enum.StrEnum):
    """Where a run stands; everything but running is final."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    ABANDONED = "abandoned"


class VersionState(enum.StrEnum):
    """What was decided about a registered version."""

    CANDIDATE = "candidate"
    APPROVED = "approved"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of a pipeline for a model.

    Parameters
    ----------
    run_id
        Its name, unique in the store.
    pipeline, model, stack
        What ran, for which model, where.
    state
        Where it stands.
    trigger_kind, reason, requested_by
        What asked for it, why, and who.
    as_of
        The moment whose knowledge it works with.
    owner
        The process that holds it, as `lifecycle.leases.Owner` reads it.
    started_at, finished_at
        Finished is None while it runs.
    lease, lease_until
        Its length in seconds; past `lease_until` another run may take over.
    detail
        How it ended, in a sentence; empty while it runs.
    facts
        What it learned on its way: snapshot, version, and so on; JSON-ready.
    """

    run_id: str
    pipeline: str
    model: str
    stack: str
    state: RunState
    trigger_kind: TriggerKind
    reason: str
    requested_by: str
    as_of: datetime
    owner: str
    started_at: datetime
    finished_at: datetime | None
    lease: float
    lease_until: datetime
    detail: str
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class FindingRecord:
    """A finding with the run and phase that made it."""

    run_id: str
    phase: str
    model: str
    version: str | None
    at: datetime
    finding: Finding


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """A registered version and what was decided about it, with the reasons."""

    model: str
    version: str
    run_id: str
    snapshot: str
    config_hash: str
    state: VersionState
    reasons: tuple[str, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class OverrideRecord:
    """A person's decision to let one gate of one model pass until a date."""

    override_id: int
    model: str
    gate: str
    person: str
    reason: str
    granted_at: datetime
    until: datetime

    def in_force(self, now: datetime) -> bool:
        """Whether it holds now: from the moment it was granted, up to but not at its end."""
        return self.granted_at <= now < self.until


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """Who or what did what, to which subject, when."""

    audit_id: int
    at: datetime
    actor: str
    action: str
    subject: str
    model: str | None
    detail: dict[str, Any]
