"""What a remedy would change is measured as a candidate is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.remedies import Outcome, Remedy, missed_fairness, outcome
from lifecycle.spec import ModelSpec
from tests.minimal_spec import minimal_spec

pytestmark = pytest.mark.requirement("R5.6")


def model() -> ModelSpec:
    return minimal_spec(
        sensitivity="sensitive",
        sensitive=[{"name": "gender", "column": "g"}],
        evaluation={
            "gates": [{"metric": "roc_auc", "min": 0.6}],
            "min_group_rows": 4,
            "min_group_class_rows": 1,
            "bootstrap": 100,
        },
        business={"currency": "EUR", "decision": "call", "true_positive": 12, "false_positive": -3},
    )


def found(measure: str, subject: str, verdict: Verdict) -> Finding:
    return Finding(measure, subject, 0.1, 0.05, Direction.AT_MOST, "w", verdict, "r")


def test_missed_fairness_gates_are_those_that_failed_or_warned_on_an_attribute():
    parity, opportunity = "demographic_parity_difference", "equal_opportunity_difference"
    findings = [
        found("roc_auc", "all rows", Verdict.FAIL),
        found(opportunity, "gender", Verdict.WARN),
        found(parity, "gender", Verdict.FAIL),
        found(parity, "gender", Verdict.PASS),
        found(parity, "gender", Verdict.NO_DATA),
        found(parity, "stranger", Verdict.FAIL),
        found("roc_auc", "gender", Verdict.FAIL),
    ]
    assert missed_fairness(model(), findings) == [("gender", opportunity), ("gender", parity)]


@pytest.mark.parametrize("kind", [int, bool, float])
def test_an_outcome_holds_gaps_accuracy_and_worth(kind: Any):
    groups = ["a"] * 4 + ["b"] * 4
    labels = [1, 1, 0, 0, 1, 1, 0, 0]
    decisions = [kind(one) for one in [1, 1, 1, 0, 1, 0, 0, 0]]
    measured = outcome(model(), "gender", groups, labels, decisions)
    assert measured.gaps == {
        "demographic_parity_difference": 0.5,
        "equal_opportunity_difference": 0.5,
        "predictive_parity_difference": pytest.approx(1 / 3),
    }
    assert measured.accuracy == 0.75
    assert measured.business_value_per_1000 == pytest.approx(1_000 * (3 * 12 - 3) / 8)


def test_gaps_of_groups_too_small_are_none():
    measured = outcome(model(), "gender", ["a"] * 4 + ["b"] * 3, [1, 0] * 3 + [1], [1, 0] * 3 + [1])
    assert set(measured.gaps.values()) == {None}


def test_a_remedy_survives_json():
    before, after = Outcome({"x": 0.3, "y": None}, 0.8, 4_000.0), Outcome({"x": 0.01, "y": None}, 0.7, 3_000.0)
    remedy = Remedy("gender", "threshold optimiser", "parity", "x", before, after, "EUR", ("(missing)",), "note")
    assert Remedy.from_dict(json.loads(json.dumps(remedy.to_dict(), allow_nan=False))) == remedy
