"""What a team could do about a gap between groups, with its effect in figures (R5.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lifecycle.fairness import RATES, attribute_fairness
from lifecycle.findings import Finding, Verdict
from lifecycle.metrics import NAMES, ScoredRows
from lifecycle.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Outcome:
    """What decisions come to on a hold-out.

    Parameters
    ----------
    gaps
        Each fairness measure over the groups of the attribute, 0..1; None where fewer than two groups can be judged.
    accuracy
        Share of right decisions.
    business_value_per_1000
        In the model file's currency.
    intervals
        Bootstrap interval of each gap that has one.
    """

    gaps: dict[str, float | None]
    accuracy: float
    business_value_per_1000: float
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Outcome:
        """Inverse of `dataclasses.asdict`, also after a round through JSON."""
        intervals = {measure: (low, high) for measure, (low, high) in values["intervals"].items()}
        return cls(**{**values, "intervals": intervals})


@dataclass(frozen=True, slots=True)
class Remedy:
    """One thing to do next about one attribute, fitted on validation rows, measured on the hold-out.

    Parameters
    ----------
    attribute
        Name of the sensitive attribute.
    method, constraint
        What is done, and the equality it aims for.
    answers
        The fairness measure whose gate did not pass that this remedy aims at.
    before, after
        The hold-out's decisions without and with it.
    currency
        Of the business values, ISO 4217.
    left_out
        Groups whose decisions were left as they are, because they were too small to fit.
    note
        What a reader has to know before choosing it.
    """

    attribute: str
    method: str
    constraint: str
    answers: str
    before: Outcome
    after: Outcome
    currency: str
    left_out: tuple[str, ...] = ()
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Remedy:
        """Inverse of `to_dict`, also after a round through JSON."""
        return cls(
            **{
                **values,
                "before": Outcome.from_dict(values["before"]),
                "after": Outcome.from_dict(values["after"]),
                "left_out": tuple(values["left_out"]),
            }
        )


def missed_fairness(spec: ModelSpec, findings: list[Finding]) -> list[tuple[str, str]]:
    """Attribute and measure of each fairness gate that was missed (FAIL or WARN), in the order of the findings."""
    attributes = {attribute.name for attribute in spec.sensitive}
    return [
        (finding.subject, finding.measure)
        for finding in findings
        if finding.measure in RATES
        and finding.subject in attributes
        and finding.verdict in (Verdict.FAIL, Verdict.WARN)
    ]


def outcome(spec: ModelSpec, attribute: str, groups: ArrayLike, labels: ArrayLike, decisions: ArrayLike) -> Outcome:
    """Measure decisions (0 or 1, shape (rows,)) by gap, accuracy and business value."""
    decided = np.asarray(decisions).astype(np.float64)
    table = attribute_fairness(attribute, groups, labels, decided, spec.evaluation)
    # A decision is a score of 0 or 1 cut in the middle.
    measured = dict(zip(NAMES, ScoredRows(labels, decided, 0.5, spec.business).measure().tolist(), strict=True))
    return Outcome(
        {measure: disparity.difference for measure, disparity in table.disparities.items()},
        measured["accuracy"],
        measured["business_value_per_1000"],
        {
            measure: (disparity.low, disparity.high)
            for measure, disparity in table.disparities.items()
            if disparity.low is not None and disparity.high is not None
        },
    )
