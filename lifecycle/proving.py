"""Every gate of a model made to fire, to pass and to have no data, on hold-outs made for it (R7.3).

A gate that cannot fire protects nobody, and one that cannot pass blocks everybody; both look like a gate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm

from lifecycle.evaluation import BaselineScores, Evaluation, evaluate, prior_threshold
from lifecycle.findings import Direction, Finding, Severity, Verdict
from lifecycle.gates import State, decide, judge_gates
from lifecycle.spec import Gate, ModelSpec

Floats = NDArray[np.float64]

FIRST_VERSION = "first version"
_ALL_ROWS = "all rows"
_THRESHOLD = 0.5
# Business value depends on how many positives there are: its extremes are reached where nearly all or nearly none are.
_PREVALENCES = (0.05, 0.95, 0.005, 0.995)
_LEAST_BLOCK = 400
_RESAMPLES = 100
# Nothing is overridden while gates are proven: any moment will do.
_NO_MOMENT = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class GateProof:
    """What a gate was seen to do.

    Parameters
    ----------
    gate, subject
        Name of the gate, and the attribute it judges, ``all rows``, or ``first version`` for a champion gate
        while there is no champion.
    direction, threshold
        What it asks for.
    fires, passes, lacks_data
        A hold-out in words on which it does so; None when none was found.
    findings
        What it found there, by ``fires``, ``passes`` and ``lacks_data``.
    problems
        What is wrong, a sentence each; empty for a gate that is proven.
    """

    gate: str
    subject: str
    direction: Direction
    threshold: float
    fires: str | None
    passes: str | None
    lacks_data: str | None
    findings: dict[str, Finding]
    problems: tuple[str, ...]

    @property
    def proven(self) -> bool:
        """Whether it was seen to fire, to pass and to lack data, each where it should."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return {
            "gate": self.gate,
            "subject": self.subject,
            "direction": self.direction.value,
            "threshold": self.threshold,
            "proven": self.proven,
            "fires": self.fires,
            "passes": self.passes,
            "lacks_data": self.lacks_data,
            "findings": {name: finding.to_dict() for name, finding in self.findings.items()},
            "problems": list(self.problems),
        }


@dataclass(frozen=True, slots=True)
class _Case:
    """A hold-out made by hand; `blind` says which gates must not be able to judge it.

    `opponent` is how the baselines score, None when they could not; `prior` is the share of positives in the
    training rows, None when it is the hold-out's own.
    """

    name: str
    labels: NDArray[np.int8]
    scores: Floats
    groups: NDArray[np.object_]
    opponent: Floats | None
    blind: frozenset[str] = frozenset()
    prior: float | None = None


_EVERY_KIND = frozenset({"bound", "fairness", "baseline"})


def _kind(gate: Gate) -> str:
    return "fairness" if gate.over is not None else "baseline" if gate.against is not None else "bound"


@dataclass(slots=True)
class _Seen:
    """What one gate did on one subject so far."""

    gate: Gate
    subject: str
    cases: dict[str, str] = field(default_factory=dict)
    findings: dict[str, Finding] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return {"fires", "passes"} <= self.cases.keys()

    def show(self, deed: str, case: str, finding: Finding) -> None:
        """Keep the first hold-out on which the gate did so."""
        if deed not in self.cases:
            self.cases[deed], self.findings[deed] = case, finding


def prove(spec: ModelSpec) -> list[GateProof]:
    """Make every gate of a model file fire, pass and have no data, by the functions that judge real candidates.

    The hold-outs range from perfect to inverted scores, biased groups, baselines better and worse, too few
    rows, one label, a NaN among the scores; as large as the file's own limits ask for. Nothing is random.

    Returns
    -------
    One proof for each gate and subject, in the file's order; a champion gate has a second one for the first
    version, which has no champion.
    """
    quick = spec.evaluation.model_copy(update={"bootstrap": min(spec.evaluation.bootstrap, _RESAMPLES), "slices": []})
    model = spec.model_copy(update={"evaluation": quick})
    seen = [
        _Seen(gate, subject)
        for gate in spec.evaluation.gates
        for subject in gate.over or ([_ALL_ROWS, FIRST_VERSION] if gate.against == "champion" else [_ALL_ROWS])
    ]
    for case in _cases(model):
        _look(model, case, seen)
    for case in _extreme_cases(model):
        if all(one.complete for one in seen):
            break
        _look(model, case, seen)
    return [_proof(one) for one in seen]


def _look(model: ModelSpec, case: _Case, seen: Sequence[_Seen]) -> None:
    """Judge a case as a later version and as a first one, and note what each gate did."""
    champion = judge_gates(model, _evaluate(model, case, champion=True))
    first: list[Finding] = []
    if any(one.subject == FIRST_VERSION for one in seen):
        first = judge_gates(model, _evaluate(model, case, champion=False))
    for one in seen:
        findings = first if one.subject == FIRST_VERSION else champion
        subject = _ALL_ROWS if one.subject == FIRST_VERSION else one.subject
        finding = next((f for f in findings if (f.measure, f.subject) == (one.gate.name, subject)), None)
        if finding is None:
            one.problems.append(f"has no finding on {case.name!r}")
            continue
        _note(model, case, one, finding, findings)


def _note(model: ModelSpec, case: _Case, one: _Seen, finding: Finding, findings: Sequence[Finding]) -> None:
    blind = _kind(one.gate) in case.blind
    if blind and finding.verdict is not Verdict.NO_DATA:
        one.problems.append(f"is {finding.verdict.label} on {case.name!r}, where it can have no data")
        return
    fired = Verdict.FAIL if one.gate.severity is Severity.ERROR else Verdict.WARN
    if finding.verdict is Verdict.PASS:
        one.show("passes", case.name, finding)
    elif finding.verdict is fired:
        one.show("fires", case.name, finding)
    elif finding.verdict is Verdict.NO_DATA:
        one.show("lacks_data", case.name, finding)
    else:
        one.problems.append(f"is {finding.verdict.label} on {case.name!r}, its severity is {one.gate.severity.value}")
    # The other gates are taken as passed: the decision then rests on this one alone.
    alone = [other if other is finding else replace(other, verdict=Verdict.PASS) for other in findings]
    wanted = State.APPROVED
    if one.gate.severity is Severity.ERROR and finding.verdict is not Verdict.PASS:
        wanted = State.REJECTED
    if decide(model, alone, [], _NO_MOMENT).state is not wanted:
        one.problems.append(f"is {finding.verdict.label} on {case.name!r}, but the candidate is not {wanted.value}")


def _evaluate(model: ModelSpec, case: _Case, *, champion: bool) -> Evaluation:
    """Evaluate a case as a candidate with or without a champion before it."""
    rows = len(case.labels)
    rate = case.prior
    if rate is None:
        rate = float(case.labels.mean()) if rows else 0.0
    opponent = None if case.opponent is None else BaselineScores(case.opponent, _THRESHOLD)
    prior = BaselineScores(np.full(rows, rate), prior_threshold(rate, model.business))
    baselines: dict[str, BaselineScores | None] = {
        "prior": None if case.opponent is None else prior,
        "logistic_regression": opponent,
    }
    if champion:
        baselines["champion"] = opponent
    frame = pd.DataFrame({attribute.column: case.groups for attribute in model.sensitive}, index=range(rows))
    return evaluate(model, frame, case.labels, case.scores, _THRESHOLD, baselines, 0, f"made: {case.name}")


def _proof(one: _Seen) -> GateProof:
    problems = list(one.problems)
    limit = f"{one.gate.direction.sign} {one.gate.threshold:g}"
    for deed, missing in (
        ("fires", f"asks for {limit} and no hold-out makes it fire"),
        ("passes", f"asks for {limit} and no hold-out lets it pass"),
        ("lacks_data", "is never without data"),
    ):
        if deed not in one.cases:
            problems.append(missing)
    return GateProof(
        gate=one.gate.name,
        subject=one.subject,
        direction=one.gate.direction,
        threshold=one.gate.threshold,
        fires=one.cases.get("fires"),
        passes=one.cases.get("passes"),
        lacks_data=one.cases.get("lacks_data"),
        findings=one.findings,
        problems=tuple(dict.fromkeys(problems)),
    )


def _block(model: ModelSpec) -> int:
    """Rows of each of two groups: as many as the file's limits ask for, and some more."""
    rules = model.evaluation
    return max(_LEAST_BLOCK, -(-rules.min_rows // 2), rules.min_group_rows, 4 * rules.min_group_class_rows)


def _labels(rows: int, prevalence: float) -> NDArray[np.int8]:
    """Labels of one block, both present: the negatives first."""
    positives = min(max(round(rows * prevalence), 1), rows - 1)
    return np.repeat(np.array([0, 1], dtype=np.int8), [rows - positives, positives])


def _useful(labels: NDArray[np.int8], strength: float = 2.0) -> Floats:
    """Calibrated scores of a useful model: two normal distributions `strength` apart, at their quantiles."""
    scores = np.empty(len(labels))
    for label, centre in ((0, -strength / 2), (1, strength / 2)):
        count = int(np.count_nonzero(labels == label))
        places = norm.ppf((np.arange(count) + 0.5) / count) + centre
        odds = np.log(np.count_nonzero(labels == 1) / np.count_nonzero(labels == 0))
        scores[labels == label] = expit(strength * places + odds)
    return scores


def _cases(model: ModelSpec) -> Iterator[_Case]:
    rules = model.evaluation
    rows = _block(model)
    one = _labels(rows, 0.5)
    labels = np.tile(one, 2)
    groups = np.repeat(np.array(["A", "B"], dtype=object), rows)
    perfect, useful = labels.astype(np.float64), np.tile(_useful(one), 2)
    inverted: Floats = 1.0 - perfect
    # Every other row of each class alike: the score knows nothing of the label.
    random = np.where(np.arange(2 * rows) % 2 == 0, 0.25, 0.75)
    first = groups == "A"

    yield _Case("perfect scores, inverted baselines", labels, perfect, groups, inverted)
    yield _Case("inverted scores, perfect baselines", labels, inverted, groups, perfect)
    yield _Case("perfect scores, a prior of other times", labels, perfect, groups, inverted, prior=0.05)
    yield _Case("useful scores, random baselines", labels, useful, groups, random)
    yield _Case("useful scores, baselines alike", labels, useful, groups, useful)
    yield _Case("random scores, useful baselines", labels, random, groups, useful)
    yield _Case("useful but miscalibrated scores", labels, useful**4, groups, useful)
    yield _Case(
        "perfect in one group, inverted in the other", labels, np.where(first, perfect, inverted), groups, useful
    )
    yield _Case("one group always positive, the other never", labels, first.astype(np.float64), groups, useful)

    few = np.arange(rules.min_rows - 1)
    yield _Case("too few rows", labels[few], useful[few], groups[few], useful[few], _EVERY_KIND)
    yield _Case("one label only", np.ones_like(labels), useful, groups, useful, _EVERY_KIND)
    broken = useful.copy()
    broken[0] = np.nan
    yield _Case("a NaN among the scores", labels, broken, groups, useful, _EVERY_KIND)
    small = np.where(np.arange(2 * rows) < rules.min_group_rows - 1, "B", "A").astype(object)
    yield _Case("one group only is large enough", labels, useful, small, useful, frozenset({"fairness"}))
    yield _Case("baselines that could not be scored", labels, useful, groups, None, frozenset({"baseline"}))


def _extreme_cases(model: ModelSpec) -> Iterator[_Case]:
    """Hold-outs that only bounds in currency need: nearly all rows positive, or nearly none."""
    rows = _block(model)
    groups = np.repeat(np.array(["A", "B"], dtype=object), rows)
    for prevalence in _PREVALENCES:
        labels = np.tile(_labels(rows, prevalence), 2)
        perfect = labels.astype(np.float64)
        share = f"{prevalence:.1%} positives"
        yield _Case(f"perfect scores, inverted baselines, {share}", labels, perfect, groups, 1 - perfect)
        yield _Case(f"inverted scores, perfect baselines, {share}", labels, 1 - perfect, groups, perfect)
