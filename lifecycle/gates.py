"""The gates a candidate must pass, and what follows from their findings and from recorded overrides (R3.7, R7.3)."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from lifecycle.evaluation import Estimate, Evaluation
from lifecycle.findings import Direction, Finding, Severity, Verdict, judge
from lifecycle.spec import Gate, ModelSpec


class Override(Protocol):
    """A person's recorded decision to let one gate pass for a while; `lifecycle.records.OverrideRecord` is one."""

    @property
    def gate(self) -> str:
        """Name of the gate, as `Gate.name` gives it."""

    @property
    def person(self) -> str:
        """Who answers for it."""

    @property
    def reason(self) -> str:
        """Why the gate may be passed."""

    @property
    def until(self) -> datetime:
        """First moment it no longer holds."""

    def in_force(self, now: datetime) -> bool:
        """Whether it holds now."""


class State(enum.StrEnum):
    """What becomes of a candidate."""

    APPROVED = "approved"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a candidate, and why.

    Parameters
    ----------
    state
        Approved or rejected.
    reasons
        Why: one sentence for each finding that speaks against it, or that it passed.
    overridden
        Findings that would have rejected it, each with who lets it pass, why and until when.
    """

    state: State
    reasons: tuple[str, ...]
    overridden: tuple[str, ...] = ()

    @property
    def approved(self) -> bool:
        """Whether the candidate may be deployed as far as gates are concerned."""
        return self.state is State.APPROVED

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return {**asdict(self), "state": self.state.value}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Decision:
        """Inverse of `to_dict`."""
        return cls(State(values["state"]), tuple(values["reasons"]), tuple(values["overridden"]))


def judge_gates(spec: ModelSpec, evaluation: Evaluation) -> list[Finding]:
    """Judge every gate of the model file on an evaluation.

    Each finding's `measure` is the name of its gate; a fairness gate has one finding for each of its
    attributes, named by `subject`. A hold-out that is too small, of one class only, or with scores that are
    no probabilities judges nothing: every gate is NO_DATA.
    """
    useless = _useless(spec, evaluation)
    findings: list[Finding] = []
    for gate in spec.evaluation.gates:
        if gate.over is not None:
            findings += [_judge_attribute(gate, attribute, evaluation, useless) for attribute in gate.over]
        elif gate.against is not None:
            findings.append(_judge_improvement(spec, gate, gate.against, evaluation, useless))
        else:
            findings.append(_judge_bound(gate, evaluation, useless))
    return findings


def _useless(spec: ModelSpec, evaluation: Evaluation) -> str | None:
    """Why a hold-out can judge nothing at all; None when it can."""
    if evaluation.rows < spec.evaluation.min_rows:
        return f"{evaluation.rows} rows in the hold-out, {spec.evaluation.min_rows} needed to judge"
    if evaluation.invalid_scores:
        return f"{evaluation.invalid_scores} of {evaluation.rows} scores are no probabilities (NaN or outside 0..1)"
    if evaluation.positives in (0, evaluation.rows):
        return f"all {evaluation.rows} rows of the hold-out have one label; both are needed to judge"
    return None


def _interval(estimate: Estimate) -> tuple[float, float] | None:
    return None if estimate.low is None or estimate.high is None else (estimate.low, estimate.high)


def _judge_bound(gate: Gate, evaluation: Evaluation, useless: str | None) -> Finding:
    estimate = evaluation.metrics.get(gate.metric, Estimate(None))
    return judge(
        gate.name,
        None if useless else estimate.value,
        gate.threshold,
        gate.direction,
        window=evaluation.window,
        count=evaluation.rows,
        min_count=0,
        severity=gate.severity,
        interval=_interval(estimate),
        missing=useless or f"{gate.metric} is not defined on these rows and decisions",
    )


def _judge_improvement(
    spec: ModelSpec, gate: Gate, against: str, evaluation: Evaluation, useless: str | None
) -> Finding:
    """Non-inferiority: the lower end of the paired interval of the improvement has to reach the threshold."""
    note = ""
    if against == "champion" and "champion" not in evaluation.comparisons:
        against = spec.evaluation.first_version.against
        note = f" (first version, no champion yet: compared with {against})"
    estimate = evaluation.comparisons.get(against, {}).get(gate.metric, Estimate(None))
    missing = f"no paired comparison with {against}"
    finding = judge(
        gate.name,
        None if useless else estimate.low,
        gate.threshold,
        Direction.AT_LEAST,
        window=evaluation.window,
        count=evaluation.rows,
        min_count=0,
        severity=gate.severity,
        interval=_interval(estimate),
        missing=useless or missing,
    )
    if finding.verdict is Verdict.NO_DATA or estimate.value is None:
        return replace(finding, reason=finding.reason + note)
    verb = "as asked" if finding.verdict is Verdict.PASS else "not accepted"
    reason = (
        f"{gate.metric} improves on {against} by {estimate.value:.4g}, at worst {estimate.low:.4g} "
        f"({evaluation.confidence:.0%} interval); asked: {Direction.AT_LEAST.sign} {gate.threshold:.4g}, {verb}{note}"
    )
    return replace(finding, reason=reason)


def _judge_attribute(gate: Gate, attribute: str, evaluation: Evaluation, useless: str | None) -> Finding:
    table = evaluation.fairness.get(attribute)
    disparity = None if table is None else table.disparities.get(gate.metric)
    unjudged = "" if disparity is None else "; ".join(f"{group}: {why}" for group, why in disparity.no_data.items())
    missing = "no groups were compared"
    if disparity is not None:
        judged = ", ".join(disparity.judged) or "none"
        missing = f"two groups large enough are needed, judged: {judged}; too small: {unjudged or 'none'}"
    finding = judge(
        gate.name,
        None if useless or disparity is None else disparity.difference,
        gate.threshold,
        gate.direction,
        window=evaluation.window,
        subject=attribute,
        count=0 if disparity is None else disparity.smallest,
        min_count=0,
        severity=gate.severity,
        interval=None if disparity is None else _interval(Estimate(None, disparity.low, disparity.high)),
        missing=useless or missing,
    )
    if finding.verdict is Verdict.NO_DATA or disparity is None:
        return finding
    reason = (
        f"{finding.reason}: {disparity.highest} {disparity.highest_value:.4g}, "
        f"{disparity.lowest} {disparity.lowest_value:.4g}"
    )
    return replace(finding, reason=f"{reason}; no data: {unjudged}" if unjudged else reason)


def decide(spec: ModelSpec, findings: Sequence[Finding], overrides: Sequence[Override], now: datetime) -> Decision:
    """Decide about a candidate from the findings of its gates.

    A FAIL rejects, and so does NO_DATA at a gate of severity error, and so does a gate of severity error for
    which there is no finding: what was skipped has not passed. Only an override in force that names exactly
    that gate lets it through, and the finding keeps its verdict.

    Parameters
    ----------
    spec
        The model file, whose gates are to be passed.
    findings
        As `judge_gates` gives them. Others (a gate that is not in the file) count as severity error.
    overrides
        Recorded overrides of this model, expired ones included.
    now
        The moment of the decision, timezone-aware.
    """
    warnings = {gate.name for gate in spec.evaluation.gates if gate.severity is Severity.WARNING}
    against = [
        (finding.measure, finding.reason)
        for finding in findings
        if finding.verdict is Verdict.FAIL or (finding.verdict is Verdict.NO_DATA and finding.measure not in warnings)
    ]
    judged = {(finding.measure, finding.subject) for finding in findings}
    against += [
        (gate.name, f"{gate.name} on {subject}: was not judged")
        for gate in spec.evaluation.gates
        for subject in gate.over or ["all rows"]
        if gate.severity is Severity.ERROR and (gate.name, subject) not in judged
    ]
    in_force = {override.gate: override for override in overrides if override.in_force(now)}
    reasons = tuple(reason for gate, reason in against if gate not in in_force)
    overridden = tuple(
        f"{reason}; let pass by {in_force[gate].person} until {in_force[gate].until:%Y-%m-%d %H:%M %Z}: "
        f"{in_force[gate].reason}"
        for gate, reason in against
        if gate in in_force
    )
    if not findings:
        return Decision(State.REJECTED, ("no gate was judged", *reasons), overridden)
    if reasons:
        return Decision(State.REJECTED, reasons, overridden)
    return Decision(State.APPROVED, (f"{len(findings)} findings, none speaks against it",), overridden)
