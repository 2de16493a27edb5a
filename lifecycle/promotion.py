"""From one environment to the next: a version goes on with what it showed in the one before, and is not trained anew (R4.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from pydantic import Field, model_validator

from lifecycle.errors import ConfigError
from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.rollout import RolloutState, Stage, live_version
from lifecycle.spec import Name, Section

FIRST_TRIALS = "development"
"""Where nothing depends on a version: what a caller who names no environment means, so that forgetting it moves no user."""


class PromotionPolicy(Section):
    """The way of a version to its users."""

    order: list[Name] = Field(
        min_length=1, description="Environments; each but the first takes what was live in the one before it."
    )

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        doubled = sorted({name for name in self.order if self.order.count(name) > 1})
        if doubled:
            raise ValueError(f"order holds {doubled[0]} twice; accepted: each environment once")
        return self

    def before(self, environment: str) -> str | None:
        """The environment a version comes from; None for the first; ConfigError when it is not on the way."""
        if environment not in self.order:
            raise ConfigError(
                f"environment {environment!r} is not in the order of promotion; accepted: {', '.join(self.order)}"
            )
        place = self.order.index(environment)
        return self.order[place - 1] if place else None

    @property
    def gates(self) -> list[str]:
        """Names under which an override lets a version skip an environment."""
        return [gate_of(environment) for environment in self.order[:-1]]


def gate_of(environment: str) -> str:
    """Name of the gate that asks for a life in an environment."""
    return f"live_in_{environment}"


@dataclass(frozen=True, slots=True)
class Lived:
    """A moment from which a model's rollout stood otherwise, and what was measured then."""

    at: datetime
    state: RolloutState
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class TrackRecord:
    """What a version brings from the environment before.

    Parameters
    ----------
    environment
        That environment.
    finding
        PASS when it was live there and never rolled back; its value is the hours it was live.
    rollouts
        Rollouts of the version there, oldest first.
    live_since
        When it first was live there.
    findings
        What it was judged by there, the newest of each measure.
    """

    environment: str
    finding: Finding
    rollouts: tuple[str, ...]
    live_since: datetime | None
    findings: tuple[Finding, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return {
            "environment": self.environment,
            "finding": self.finding.to_dict(),
            "rollouts": list(self.rollouts),
            "live_since": None if self.live_since is None else self.live_since.isoformat(),
            "live_hours": self.finding.value,
            "findings": [one.to_dict() for one in self.findings],
        }


def track_record(version: str, environment: str, history: Sequence[Lived], now: datetime) -> TrackRecord:
    """Gather what a version showed in an environment.

    Parameters
    ----------
    version
        Which.
    environment
        The one before.
    history
        All changes of the model's rollouts there, oldest first.
    now
        The moment; what is live lasts up to it.
    """
    mine = [one for one in history if one.state.candidate == version]
    lived = next((one.at for one in mine if one.state.stage is Stage.LIVE), None)
    ends = [one.at for one in history[1:]] + [now]
    spans = (end - one.at for one, end in zip(history, ends, strict=False) if live_version(one.state) == version)
    hours = sum((max(span, timedelta()) for span in spans), timedelta()) / timedelta(hours=1)
    taken_back = next((one for one in reversed(mine) if one.state.stage is Stage.ROLLED_BACK), None)
    verdict = Verdict.FAIL
    if taken_back is not None:
        why = f"was rolled back in {environment} at {taken_back.at:%Y-%m-%d %H:%M} UTC: {'; '.join(taken_back.state.reasons)}"
    elif lived is None:
        stands = f"is {mine[-1].state.stage.value}" if mine else "was never deployed"
        why = f"{stands} in {environment} and was never live there"
    else:
        verdict, why = Verdict.PASS, f"live in {environment} for {hours:.3g} h since {lived:%Y-%m-%d %H:%M} UTC"
    finding = Finding(
        gate_of(environment), f"version {version}", hours if lived else None, None, Direction.AT_LEAST,
        f"{environment}, up to {now:%Y-%m-%d %H:%M} UTC", verdict, f"version {version} {why}",
    )  # fmt: skip
    measured = {one.measure: one for change in mine for one in change.findings}
    rollouts = tuple(dict.fromkeys(one.state.rollout_id for one in mine))
    return TrackRecord(environment, finding, rollouts, lived, tuple(measured.values()))
