"""Rollouts in the ops store: every change is kept, the newest of a model in an environment is how it stands (R4.1, R4.4, R8.2).

A change and what follows from it (aliases, audit) are one transaction. Its number is the generation of the routing table
it asks for, so that of two who move the same rollout exactly one wins, and every table can be told from an older one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from adapters.ops_store import OpsStore, aliases_of, assign_alias, write_audit
from adapters.ops_tables import approvals, rollout_changes, versions
from lifecycle.aliases import succession
from lifecycle.errors import BusyError, ConfigError
from lifecycle.findings import Finding
from lifecycle.promotion import FIRST_TRIALS, Lived
from lifecycle.rollout import RolloutState, Stage, live_version, routing_of
from lifecycle.spec import Rollout as Plan


@dataclass(frozen=True, slots=True)
class Change:
    """A rollout as it stood from a moment on.

    Parameters
    ----------
    environment
        Where.
    generation
        Of the model's routing table there, from 1.
    state
        How it stood.
    weights
        Version: share of traffic; empty while nothing is served.
    requested_by
        Who asked for the rollout.
    actor
        Who or what made the change.
    at
        When.
    evidence
        What the rollout began on: the size of the change, the version's substance, what it showed in the environment
        before; JSON-ready.
    findings
        What was measured when the change was decided.
    """

    environment: str
    generation: int
    state: RolloutState
    weights: Mapping[str, float]
    requested_by: str
    actor: str
    at: datetime
    evidence: Mapping[str, Any]
    findings: tuple[Finding, ...]

    @property
    def lived(self) -> Lived:
        """As `lifecycle.promotion` reads it."""
        return Lived(self.at, self.state, self.findings)


@dataclass(frozen=True, slots=True)
class Approval:
    """A person's word on a version's deployment to an environment; `substance` is that of what was approved."""

    person: str
    approved: bool
    reason: str
    at: datetime
    substance: str


class RolloutStore:
    """Rollouts of all models in one environment.

    Parameters
    ----------
    ops
        The ops store they are kept in.
    environment
        Where.
    """

    def __init__(self, ops: OpsStore, environment: str = FIRST_TRIALS) -> None:
        self._ops, self.environment = ops, environment

    def current(self, model: str) -> Change | None:
        """How a model's newest rollout stands; None before its first."""
        found = self.history(model, limit=1)
        return found[0] if found else None

    def history(self, model: str, limit: int | None = 1_000, until: datetime | None = None) -> list[Change]:
        """Changes of a model, newest first; with `until`, those that had been made by that moment."""
        query = (
            sa.select(rollout_changes)
            .where(self._here, rollout_changes.c.model == model)
            .order_by(rollout_changes.c.generation.desc())
            .limit(limit)
        )
        if until is not None:
            query = query.where(rollout_changes.c.at <= until)
        with self._ops.reading() as connection:
            return [_change(row) for row in connection.execute(query)]

    def went_live(self, model: str, version: str) -> Change | None:
        """The change by which a version went live, the last time it did; None when it never did."""
        query = (
            sa.select(rollout_changes)
            .where(
                self._here,
                rollout_changes.c.model == model,
                rollout_changes.c.candidate == version,
                rollout_changes.c.stage == Stage.LIVE.value,
            )
            .order_by(rollout_changes.c.generation.desc())
            .limit(1)
        )
        with self._ops.reading() as connection:
            found = connection.execute(query).one_or_none()
        return None if found is None else _change(found)

    def models(self) -> list[str]:
        """Models that ever had a rollout here."""
        query = sa.select(rollout_changes.c.model).where(self._here).distinct()
        with self._ops.reading() as connection:
            return sorted(connection.execute(query).scalars())

    def blocked(self, model: str) -> tuple[str, ...]:
        """Versions that were rolled back after they had met users or been a shadow, oldest first."""
        query = (
            sa.select(rollout_changes.c.candidate)
            .where(self._here, rollout_changes.c.model == model, rollout_changes.c.stage == Stage.ROLLED_BACK.value)
            .order_by(rollout_changes.c.generation)
        )
        with self._ops.reading() as connection:
            return tuple(dict.fromkeys(connection.execute(query).scalars()))

    def change(
        self,
        before: Change | None,
        state: RolloutState,
        plan: Plan,
        *,
        actor: str,
        now: datetime,
        requested_by: str = "",
        evidence: Mapping[str, Any] | None = None,
        findings: Sequence[Finding] = (),
    ) -> Change:
        """Put a rollout's next state on record, with the aliases that follow from it.

        Parameters
        ----------
        before
            What the decision was made on: the model's newest change, None for its first.
        state
            What was decided.
        plan
            The model file's rollout section: which share a step has.
        actor
            Who or what decided.
        requested_by, evidence
            Who asked for a rollout that begins, and what it begins on; kept through all its changes.
        findings
            What was measured when it was decided.

        Raises
        ------
        BusyError
            Somebody else changed the model's rollout since `before`.
        ConfigError
            The version is not on record, or nobody is named.
        """
        if not actor.strip():
            raise ConfigError("nobody is named; accepted: who or what changes the rollout")
        generation = 1 if before is None else before.generation + 1
        routing = routing_of(state, plan, generation)
        asked = requested_by or (before.requested_by if before is not None else actor)
        begins = before is None or before.state.rollout_id != state.rollout_id
        basis = dict(evidence or {}) if before is None or begins else dict(before.evidence)
        row = {
            "environment": self.environment,
            "model": state.model,
            "generation": generation,
            "rollout_id": state.rollout_id,
            "candidate": state.candidate,
            "stage": state.stage.value,
            "state": state.to_dict(),
            "weights": {} if routing is None else routing.weights,
            "requested_by": asked,
            "actor": actor,
            "at": now,
            "evidence": basis,
            "findings": [one.to_dict() for one in findings],
        }
        try:
            with self._ops.writing() as connection:
                known = connection.execute(
                    sa.select(versions.c.version).where(versions.c.model == state.model).with_for_update()
                ).scalars()
                if state.candidate not in set(known):
                    raise ConfigError(
                        f"{state.model} has no version {state.candidate!r} on record; accepted: a registered one"
                    )
                connection.execute(sa.insert(rollout_changes).values(row))
                self._follow(connection, state, actor, now)
                detail = {"environment": self.environment, "rollout": state.rollout_id, "generation": generation}
                detail |= {"weights": row["weights"], "reasons": list(state.reasons)}
                detail |= {"evidence": basis} if begins else {}
                subject = f"{state.model} {state.candidate}"
                write_audit(connection, now, actor, f"rollout {state.stage.value}", subject, state.model, detail)
        except sa.exc.IntegrityError:
            raise BusyError(
                f"the rollout of {state.model} was changed by somebody else meanwhile; accepted: look at "
                f"run.py rollout status {state.model} and decide again"
            ) from None
        # Not read again: by now somebody else may have made the next change, or the database be gone.
        weights = routing.weights if routing else {}
        return Change(self.environment, generation, state, weights, asked, actor, now, basis, tuple(findings))

    def _follow(self, connection: sa.Connection, state: RolloutState, actor: str, now: datetime) -> None:
        """Aliases mirror who is live, and who was before."""
        live, held = live_version(state), aliases_of(connection, state.model, self.environment)
        if live is None:
            return
        reason = state.reasons[0] if state.reasons else state.stage.value
        changes = succession(live, held, rolled_back=state.stage is Stage.ROLLED_BACK)
        for alias, version in changes.items():
            assign_alias(connection, state.model, self.environment, alias, version, held.get(alias), actor, reason, now)

    def approve(
        self, model: str, version: str, person: str, approved: bool, reason: str, now: datetime, substance: str = ""
    ) -> None:
        """Put a person's word on record.

        Parameters
        ----------
        substance
            `Manifest.substance` of the version as it is now: what the word is about.

        Raises
        ------
        ConfigError
            Nobody is named, no reason given, or there is no such version.
        """
        if not person.strip() or not reason.strip():
            raise ConfigError(f"person {person!r}, reason {reason!r}; accepted: both given, not blank")
        row = {"model": model, "version": version, "person": person, "approved": approved, "reason": reason, "at": now}
        row |= {"environment": self.environment, "substance": substance}
        detail = {"environment": self.environment, "reason": reason, "substance": substance}
        try:
            with self._ops.writing() as connection:
                connection.execute(sa.insert(approvals).values(row))
                word = "approved" if approved else "refused"
                write_audit(connection, now, person, f"deployment {word}", f"{model} {version}", model, detail)
        except sa.exc.IntegrityError:
            raise ConfigError(f"{model} has no version {version!r} on record; accepted: a registered one") from None

    def approvals(self, model: str, version: str) -> list[Approval]:
        """What people said of a version's deployment to this environment, oldest first."""
        here = sa.and_(approvals.c.environment == self.environment, approvals.c.model == model)
        query = sa.select(approvals).where(here, approvals.c.version == version).order_by(approvals.c.id)
        with self._ops.reading() as connection:
            return [
                Approval(row.person, row.approved, row.reason, row.at, row.substance)
                for row in connection.execute(query)
            ]

    @property
    def _here(self) -> sa.ColumnElement[bool]:
        return rollout_changes.c.environment == self.environment


def _change(row: sa.Row[Any]) -> Change:
    return Change(
        row.environment,
        row.generation,
        RolloutState.from_dict(row.state),
        row.weights,
        row.requested_by,
        row.actor,
        row.at,
        row.evidence,
        tuple(Finding.from_dict(one) for one in row.findings),
    )
