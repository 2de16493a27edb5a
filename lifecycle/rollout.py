"""A rollout as a state machine: findings and the time go in, the next state and its reasons come out (R4.1 to R4.3, R8.1).

Everything that moves traffic is decided here, in the gateway of one machine, in a cluster and in simulation alike.
Nothing is ever decided by a bare comparison of two noisy numbers: what condemns a version is evidence that may be
looked at any time (`lifecycle.rollout_judge`), what promotes it is enough traffic without such evidence. No data neither
promotes nor rolls back.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, Self

from lifecycle.errors import ConfigError
from lifecycle.findings import Finding, Verdict
from lifecycle.spec import Rollout as Plan
from lifecycle.traffic import Routing

REMIND_HOLDS = 24
"""After so many hold times without enough data to judge, the owner is reminded; `REMIND_LEAST` at the soonest."""
REMIND_LEAST = timedelta(hours=1)

Strategy = Literal["canary", "blue_green", "shadow"]


class Stage(enum.StrEnum):
    """Where a rollout stands."""

    AWAITING_APPROVAL = "awaiting_approval"
    SHADOW = "shadow"
    CANARY = "canary"
    LIVE = "live"
    ROLLED_BACK = "rolled_back"
    WITHDRAWN = "withdrawn"
    SUPERSEDED = "superseded"


OPEN = frozenset({Stage.AWAITING_APPROVAL, Stage.SHADOW, Stage.CANARY, Stage.LIVE})
"""Stages that still look at findings: a guard does not end with the rollout."""
OVER = frozenset(Stage) - OPEN


@dataclass(frozen=True, slots=True)
class RolloutState:
    """One version's way to its users.

    Parameters
    ----------
    rollout_id
        Its name, unique in the ops store.
    model, candidate
        What is rolled out.
    baseline
        The version that was live before; None for a model's very first.
    strategy
        How.
    stage, step
        Where it stands; the step counts through the plan's shares while it is a canary.
    since
        When it came there.
    paused
        Whether a person keeps it from going on; what condemns it still rolls it back.
    blocked
        Versions that were rolled back: never gone back to.
    reasons
        Why it stands there.
    """

    rollout_id: str
    model: str
    candidate: str
    baseline: str | None
    strategy: Strategy
    stage: Stage
    step: int
    since: datetime
    paused: bool = False
    blocked: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return {**asdict(self), "stage": self.stage.value, "since": self.since.isoformat()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Inverse of `to_dict`."""
        return cls(
            **{
                **values,
                "stage": Stage(values["stage"]),
                "since": datetime.fromisoformat(values["since"]),
                "blocked": tuple(values["blocked"]),
                "reasons": tuple(values["reasons"]),
            }
        )


def propose(
    rollout_id: str,
    model: str,
    candidate: str,
    baseline: str | None,
    strategy: Strategy,
    now: datetime,
    *,
    needs_approval: bool,
    blocked: Sequence[str] = (),
) -> RolloutState:
    """Begin a rollout.

    Raises
    ------
    ConfigError
        The version is live already, was rolled back before, or has nothing to be a shadow of.
    """
    problems = []
    if candidate == baseline:
        problems.append("is live already; accepted: another version")
    if candidate in blocked:
        problems.append("was rolled back before; accepted: a version that was not, or a new one")
    if strategy == "shadow" and baseline is None:
        problems.append("has no live version beside which to be a shadow; accepted: canary or blue_green")
    if problems:
        raise ConfigError("; ".join(f"{model} version {candidate} {problem}" for problem in problems))
    state = RolloutState(
        rollout_id, model, candidate, baseline, strategy, Stage.AWAITING_APPROVAL, 0, now, blocked=tuple(blocked)
    )
    return state if needs_approval else approve(state, now, "the policy asks for nobody's approval")


def approve(state: RolloutState, now: datetime, reason: str) -> RolloutState:
    """Let a rollout begin; the first version of a model has nobody to be compared with and answers everybody at once.

    Raises
    ------
    ConfigError
        It does not wait for approval.
    """
    _require(state, {Stage.AWAITING_APPROVAL}, "approved")
    if state.baseline is None:
        return _to(state, Stage.LIVE, now, reason, "first version: nothing to compare it with or to go back to")
    return _to(state, Stage.SHADOW, now, reason)


def advance(state: RolloutState, plan: Plan, findings: Sequence[Finding], now: datetime) -> RolloutState:
    """Decide what follows; the very same state when nothing does.

    Parameters
    ----------
    state
        Where the rollout stands.
    plan
        The model file's rollout section.
    findings
        From `lifecycle.rollout_judge`, of this step.
    now
        The moment; a clock that went back waits.
    """
    if state.stage not in (Stage.SHADOW, Stage.CANARY, Stage.LIVE):
        return state
    failed = [one.reason for one in findings if one.verdict is Verdict.FAIL]
    if failed:
        return _condemned(state, now, failed)
    if state.paused or now < plan.hold.after(state.since):
        return state
    # Nobody waits for a shadow: how long it takes is not measured.
    asked = set(SERVICE) - ({"slow_share"} if state.stage is Stage.SHADOW else set())
    service = [one for one in findings if one.measure in asked]
    verdict = max((one.verdict for one in service), default=Verdict.NO_DATA)
    if state.stage is Stage.LIVE:
        return state
    if verdict is not Verdict.PASS:
        return _reminded(state, plan, service, now)
    if state.stage is Stage.SHADOW:
        if state.strategy == "shadow":
            return state
        if state.strategy == "blue_green":
            return _to(
                state, Stage.LIVE, now, "answered beside the live version within every bound: all traffic at once"
            )
        return replace(
            _to(state, Stage.CANARY, now, f"within every bound as a shadow: {plan.steps[0]:.0%} of traffic"), step=0
        )
    following = state.step + 1
    if following < len(plan.steps) and plan.steps[following] < 1:
        reason = f"within every bound at {_share(plan, state.step):.0%}: {plan.steps[following]:.0%} of traffic"
        return replace(_to(state, Stage.CANARY, now, reason), step=following)
    return _to(state, Stage.LIVE, now, f"within every bound at {_share(plan, state.step):.0%}: all traffic")


SERVICE = ("error_rate", "slow_share", "error_ratio", "score_shift")
"""What has to be good before a version goes on. Labels may come weeks later: performance condemns, and is not waited for."""


def roll_back(state: RolloutState, now: datetime, reason: str) -> RolloutState:
    """Take a version back on a person's word, in any stage that is not over (R8.2).

    Raises
    ------
    ConfigError
        It is over already, or there is no version to go back to.
    """
    _require(state, OPEN, "rolled back")
    if state.stage is Stage.AWAITING_APPROVAL:
        return _to(state, Stage.WITHDRAWN, now, reason)
    if state.baseline is None or state.baseline in state.blocked:
        raise ConfigError(
            f"{state.model} version {state.candidate} has no good version before it; accepted: deploy another one"
        )
    return _to(state, Stage.ROLLED_BACK, now, reason)


def promote(state: RolloutState, now: datetime, reason: str) -> RolloutState:
    """Give a version all traffic on a person's word; ConfigError when it is not on its way."""
    _require(state, {Stage.SHADOW, Stage.CANARY}, "promoted")
    return _to(state, Stage.LIVE, now, reason)


def pause(state: RolloutState, reason: str) -> RolloutState:
    """Keep a version where it is; what condemns it still rolls it back. ConfigError when it is not on its way."""
    _require(state, {Stage.SHADOW, Stage.CANARY}, "paused")
    return replace(state, paused=True, reasons=(reason,))


def resume(state: RolloutState, now: datetime, reason: str) -> RolloutState:
    """Let it go on, its hold time anew; ConfigError when it is not paused."""
    if not state.paused:
        raise ConfigError(f"rollout {state.rollout_id} is not paused; accepted: one that is")
    return replace(state, paused=False, since=now, reasons=(reason,))


def withdraw(state: RolloutState, now: datetime, reason: str) -> RolloutState:
    """End a rollout that nothing is held against; its version may be deployed again. ConfigError when it is not on its way."""
    _require(state, OPEN - {Stage.LIVE}, "withdrawn")
    return _to(state, Stage.WITHDRAWN, now, reason)


def guarded(state: RolloutState, went_live: RolloutState, blocked: Sequence[str]) -> RolloutState:
    """The live version as it has to be guarded while the newest rollout is another version's.

    Parameters
    ----------
    state
        The newest rollout.
    went_live
        The live version's own rollout, as it stood when it went live.
    blocked
        Every version that was rolled back since as well.
    """
    return state if state.stage is Stage.LIVE else replace(went_live, blocked=tuple(blocked), reasons=())


def guard(
    state: RolloutState, live: RolloutState, plan: Plan, findings: Sequence[Finding], now: datetime
) -> RolloutState:
    """Decide what follows for a live version while the newest rollout is another version's.

    Parameters
    ----------
    state
        The newest rollout, not live.
    live
        The live version, from `guarded`.
    plan
        The model file's rollout section.
    findings
        From `judge`, of the live version.
    now
        The moment.

    Returns
    -------
    RolloutState
        `state` itself when nothing follows; the live version rolled back; or `state` with the reasons why a person has
        to decide. Who came back by a rollback is not rolled back in its turn: what fails two versions in a row is
        seldom the versions, and each would be blocked for it.
    """
    following = advance(live, plan, findings, now)
    if following is live:
        return state
    if following.stage is not Stage.ROLLED_BACK:
        return _told(state, *following.reasons)
    if state.stage is Stage.ROLLED_BACK:
        again = f"version {live.candidate} came back by a rollback and fails as well: a person has to decide"
        return _told(state, again, *following.reasons)
    return following


def supersede(state: RolloutState, now: datetime, by: str) -> RolloutState:
    """End the guard of a live version whose successor is live; ConfigError when it is not live."""
    _require(state, {Stage.LIVE}, "superseded")
    return _to(state, Stage.SUPERSEDED, now, f"version {by} is live")


def routing_of(state: RolloutState, plan: Plan, generation: int) -> Routing | None:
    """The routing table a state asks for; None before there is anything to serve.

    A version that is live keeps the one before it in memory, unless that one was rolled back itself.
    """
    before = state.baseline
    match state.stage:
        case Stage.SHADOW:
            return Routing(state.model, generation, before, shadow=state.candidate)
        case Stage.CANARY:
            return Routing(state.model, generation, before, state.candidate, _share(plan, state.step))
        case Stage.LIVE | Stage.SUPERSEDED:
            kept = None if before in state.blocked else before
            return Routing(state.model, generation, state.candidate, previous=kept)
        case _:
            return None if before is None else Routing(state.model, generation, before)


def _share(plan: Plan, step: int) -> float:
    """Share of a step; the last one where the model file has fewer steps by now."""
    return plan.steps[min(step, len(plan.steps) - 1)]


def _condemned(state: RolloutState, now: datetime, failed: Sequence[str]) -> RolloutState:
    if state.baseline is None:
        nowhere = "nothing to go back to: a person has to decide"
    elif state.baseline in state.blocked:
        nowhere = f"version {state.baseline} was rolled back itself: a person has to decide"
    else:
        return _to(state, Stage.ROLLED_BACK, now, *failed)
    return _told(state, nowhere, *failed)


def _reminded(state: RolloutState, plan: Plan, service: Sequence[Finding], now: datetime) -> RolloutState:
    late = state.since
    for _ in range(REMIND_HOLDS):
        late = plan.hold.after(late)
    if now < max(late, state.since + REMIND_LEAST):
        return state
    missing = [one.reason for one in service if one.verdict is Verdict.NO_DATA] or ["no findings at all"]
    return _told(state, f"waiting for evidence since {state.since:%Y-%m-%d %H:%M} UTC: its owner is reminded", *missing)


def _told(state: RolloutState, *reasons: str) -> RolloutState:
    """The state with further reasons, once: the numbers in them change with every look, the first of them does not."""
    return state if reasons[0] in state.reasons else replace(state, reasons=(*reasons, *state.reasons))


def _to(state: RolloutState, stage: Stage, now: datetime, *reasons: str) -> RolloutState:
    return replace(state, stage=stage, since=now, paused=False, reasons=reasons)


def _require(state: RolloutState, stages: set[Stage] | frozenset[Stage], what: str) -> None:
    if state.stage not in stages:
        accepted = ", ".join(sorted(stage.value for stage in stages))
        raise ConfigError(
            f"rollout {state.rollout_id} of {state.model} version {state.candidate} is {state.stage.value} and cannot be "
            f"{what}; accepted: one that is {accepted}"
        )


def live_version(state: RolloutState) -> str | None:
    """Which version whoever is not on trial meets; None before a first version is approved."""
    return state.candidate if state.stage in (Stage.LIVE, Stage.SUPERSEDED) else state.baseline
