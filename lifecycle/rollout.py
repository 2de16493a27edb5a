"""A rollout as a state machine: findings and the time go in, the next state and its reasons come out (R4.1 to R4.3, R8.1).

Everything that moves traffic is decided here, in the gateway of one machine, in a cluster and in simulation alike.
Nothing is ever decided by a bare comparison of two noisy numbers: what condemns a version is evidence that may be
looked at any time (`lifecycle.sequential`), what promotes it is enough traffic without such evidence. No data neither
promotes nor rolls back.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, Self

from lifecycle.errors import ConfigError
from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.sequential import log_e_above, log_e_ratio
from lifecycle.spec import Rollout as Plan
from lifecycle.traffic import Routing

ALPHA = 0.01
"""Chance that a version within every bound is ever rolled back, over its whole rollout."""
SLOW_SHARE = 0.05
"""What of a version's answers may be slower than the limit: the limit is a multiple of the baseline's P95."""
WORSE_ERRORS = 1.25
"""How many times the live version's error rate a candidate's may be, beside the bound on the rate itself."""
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
class Counts:
    """What was seen of one version since its step began.

    Parameters
    ----------
    requests, errors
        Rows asked of it, and rows it could not answer.
    slow
        Answers slower than the limit, `Plan.rollback.latency_ratio` times the baseline's P95.
    labelled, right
        Answers whose label came, and those of them that were decided rightly.
    compared, agreed
        Rows that both versions scored, and those decided alike (shadow).
    """

    requests: int = 0
    errors: int = 0
    slow: int = 0
    labelled: int = 0
    right: int = 0
    compared: int = 0
    agreed: int = 0

    def __post_init__(self) -> None:
        """Refuse counts that cannot be; ValueError."""
        pairs = (
            (self.errors, self.requests),
            (self.slow, self.requests),
            (self.right, self.labelled),
            (self.agreed, self.compared),
        )
        if any(not 0 <= part <= whole for part, whole in pairs):
            raise ValueError(f"{self}; accepted: no part above its whole, none negative")


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


def judge(plan: Plan, candidate: Counts, baseline: Counts | None, *, alpha: float = ALPHA) -> list[Finding]:
    """Compare a version with the bounds of R8.1 and with the version it would replace.

    Parameters
    ----------
    plan
        The model file's rollout section.
    candidate
        Counts of the version that is judged, since its step began.
    baseline
        Counts of the version beside it over the same time, or over its own last time when it stands alone; None
        without one.
    alpha
        Chance of a FAIL, at any look, for a version within every bound; shared evenly by what is measured.

    Returns
    -------
    list of Finding
        ``error_rate``, ``error_ratio``, ``slow_share``, ``performance_drop``: FAIL where the evidence is enough, WARN
        where the value lies beyond the bound and the evidence is not, PASS after `Plan.min_requests`, else NO_DATA.
        ``shadow_agreement`` only tells.
    """
    other = baseline or Counts()
    limit = math.log(4 / alpha)
    bounds = plan.rollback
    found = [
        _found(
            "error_rate", candidate.errors, candidate.requests, bounds.error_rate, plan.min_requests,
            log_e_above(candidate.errors, candidate.requests, bounds.error_rate) >= limit,
        ),
        _found(
            "slow_share", candidate.slow, candidate.requests, SLOW_SHARE, plan.min_requests,
            log_e_above(candidate.slow, candidate.requests, SLOW_SHARE) >= limit,
        ),
    ]  # fmt: skip
    if baseline is not None:
        found.append(_error_ratio(candidate, other, plan.min_requests, limit))
        found.append(_performance(candidate, other, bounds.performance_drop, plan.min_requests, limit))
    if candidate.compared:
        share = candidate.agreed / candidate.compared
        found.append(
            Finding(
                "shadow_agreement", "all rows", share, None, Direction.AT_LEAST, f"{candidate.compared} rows", Verdict.PASS,
                f"decided {share:.1%} of {candidate.compared} rows as the live version did", candidate.compared,
            )
        )  # fmt: skip
    return found


def advance(state: RolloutState, plan: Plan, findings: Sequence[Finding], now: datetime) -> RolloutState:
    """Decide what follows; the very same state when nothing does.

    Parameters
    ----------
    state
        Where the rollout stands.
    plan
        The model file's rollout section.
    findings
        From `judge`, of this step.
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
    service = [one for one in findings if one.measure in SERVICE]
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
        reason = f"within every bound at {plan.steps[state.step]:.0%}: {plan.steps[following]:.0%} of traffic"
        return replace(_to(state, Stage.CANARY, now, reason), step=following)
    return _to(state, Stage.LIVE, now, f"within every bound at {plan.steps[state.step]:.0%}: all traffic")


SERVICE = ("error_rate", "slow_share", "error_ratio")
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
            return Routing(state.model, generation, before, state.candidate, plan.steps[state.step])
        case Stage.LIVE | Stage.SUPERSEDED:
            kept = None if before in state.blocked else before
            return Routing(state.model, generation, state.candidate, previous=kept)
        case _:
            return None if before is None else Routing(state.model, generation, before)


def _condemned(state: RolloutState, now: datetime, failed: Sequence[str]) -> RolloutState:
    if state.baseline is None:
        nowhere = "nothing to go back to: a person has to decide"
    elif state.baseline in state.blocked:
        nowhere = f"version {state.baseline} was rolled back itself: a person has to decide"
    else:
        return _to(state, Stage.ROLLED_BACK, now, *failed)
    reasons = (nowhere, *failed)
    # The numbers in the reasons change with every look; being told once is enough.
    return state if state.reasons[:1] == reasons[:1] else replace(state, reasons=reasons)


def _reminded(state: RolloutState, plan: Plan, service: Sequence[Finding], now: datetime) -> RolloutState:
    late = state.since
    for _ in range(REMIND_HOLDS):
        late = plan.hold.after(late)
    if now < max(late, state.since + REMIND_LEAST):
        return state
    missing = [one.reason for one in service if one.verdict is Verdict.NO_DATA] or ["no findings at all"]
    reasons = (f"waiting for evidence since {state.since:%Y-%m-%d %H:%M} UTC: its owner is reminded", *missing)
    return state if state.reasons[:1] == reasons[:1] else replace(state, reasons=reasons)


def _to(state: RolloutState, stage: Stage, now: datetime, *reasons: str) -> RolloutState:
    return replace(state, stage=stage, since=now, paused=False, reasons=reasons)


def _require(state: RolloutState, stages: set[Stage] | frozenset[Stage], what: str) -> None:
    if state.stage not in stages:
        accepted = ", ".join(sorted(stage.value for stage in stages))
        raise ConfigError(
            f"rollout {state.rollout_id} of {state.model} version {state.candidate} is {state.stage.value} and cannot be "
            f"{what}; accepted: one that is {accepted}"
        )


def _found(measure: str, events: int, trials: int, bound: float, least: int, certain: bool) -> Finding:
    value = events / trials if trials else None
    return _verdict(measure, value, bound, trials, least, certain, f"{events} of {trials}")


def _error_ratio(candidate: Counts, baseline: Counts, least: int, limit: float) -> Finding:
    log_e = log_e_ratio(candidate.errors, candidate.requests, baseline.errors, baseline.requests, WORSE_ERRORS)
    mine = candidate.errors / candidate.requests if candidate.requests else None
    its = baseline.errors / baseline.requests if baseline.requests else None
    # Without an error on either side the ratio is no number, and as good as equal.
    value = None if mine is None or its is None else mine / its if its else 1.0 if not mine else math.inf
    seen = f"{candidate.errors} of {candidate.requests} against {baseline.errors} of {baseline.requests}"
    few = min(candidate.requests, baseline.requests)
    if value == math.inf:
        # One error against none is beyond any ratio, and no evidence yet.
        value = (candidate.errors + 1) / (candidate.requests + 1) * (baseline.requests + 1)
    return _verdict("error_ratio", value, WORSE_ERRORS, few, least, log_e >= limit, seen)


def _performance(candidate: Counts, baseline: Counts, drop: float, least: int, limit: float) -> Finding:
    # Right decisions: the baseline's rate may be 1 / (1 - drop) times the candidate's.
    log_e = log_e_ratio(baseline.right, baseline.labelled, candidate.right, candidate.labelled, 1 / (1 - drop))
    mine = candidate.right / candidate.labelled if candidate.labelled else None
    its = baseline.right / baseline.labelled if baseline.labelled else None
    value = None if mine is None or not its else 1 - mine / its
    seen = f"{candidate.right} of {candidate.labelled} right against {baseline.right} of {baseline.labelled}"
    few = min(candidate.labelled, baseline.labelled)
    return _verdict("performance_drop", value, drop, few, least, log_e >= limit, seen)


def _verdict(
    measure: str, value: float | None, bound: float, count: int, least: int, certain: bool, seen: str
) -> Finding:
    if certain:
        verdict, reason = Verdict.FAIL, f"{measure} is above {bound:g} beyond doubt: {seen}"
    elif value is None or count < least:
        verdict, reason = Verdict.NO_DATA, f"{measure}: {count} rows, {least} needed to judge"
    elif value > bound:
        verdict, reason = Verdict.WARN, f"{measure} is {value:.3g}, above {bound:g}, and may be so by chance: {seen}"
    else:
        verdict, reason = Verdict.PASS, f"{measure} is {value:.3g}, at most {bound:g} as asked: {seen}"
    return Finding(measure, "all rows", value, bound, Direction.AT_MOST, "since the step began", verdict, reason, count)


def live_version(state: RolloutState) -> str | None:
    """Which version whoever is not on trial meets; None before a first version is approved."""
    return state.candidate if state.stage in (Stage.LIVE, Stage.SUPERSEDED) else state.baseline
