"""The threshold optimiser closes the gap it is meant to close, and what that costs is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from adapters.remedies import Scored, propose_remedies
from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.spec import ModelSpec
from tests.minimal_spec import minimal_spec

pytestmark = pytest.mark.requirement("R5.6")

PARITY, OPPORTUNITY, PREDICTIVE = (
    "demographic_parity_difference",
    "equal_opportunity_difference",
    "predictive_parity_difference",
)


def model() -> ModelSpec:
    return minimal_spec(
        sensitivity="sensitive",
        sensitive=[{"name": "gender", "column": "g", "labels": {"f": "female"}}],
        evaluation={"gates": [{"metric": "roc_auc", "min": 0.6}], "bootstrap": 100},
        business={"currency": "EUR", "decision": "call", "true_positive": 10, "false_positive": -10},
    )


def scored(rows: int, seed: int, groups: tuple[Any, ...] = ("f", "m")) -> Scored:
    """Scores that are right, on groups whose base rates differ; a few rows have no group."""
    rng = np.random.default_rng(seed)
    group = rng.choice(np.array([*groups, None], dtype=object), rows, p=[0.99 / len(groups)] * len(groups) + [0.01])
    odds = rng.normal(size=rows) * 1.5 + 1.2 * (group == "m")
    labels = (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.int8)
    return Scored(pd.DataFrame({"g": group}), labels, 1 / (1 + np.exp(-odds)))


def missed(*measures: str) -> list[Finding]:
    return [Finding(name, "gender", 0.3, 0.05, Direction.AT_MOST, "w", Verdict.FAIL, "r") for name in measures]


def test_each_constraint_closes_its_own_gap_and_costs_accuracy_and_value():
    remedies = propose_remedies(model(), missed(PARITY, OPPORTUNITY), scored(6_000, 0), scored(6_000, 1), 0.5, 0)
    assert [(one.attribute, one.constraint, one.answers) for one in remedies] == [
        ("gender", "demographic_parity", PARITY),
        ("gender", "true_positive_rate_parity", OPPORTUNITY),
    ]
    for one in remedies:
        assert one.before.gaps[one.answers] > 0.1
        assert one.after.gaps[one.answers] < 0.05
        assert one.after.accuracy < one.before.accuracy
        assert one.after.business_value_per_1000 < one.before.business_value_per_1000
        assert (one.currency, one.left_out, one.method) == ("EUR", ("(missing)",), "threshold optimiser")
        assert "depends on the group itself" in one.note


def test_what_the_model_decides_today_is_the_figure_before():
    holdout = scored(3_000, 1)
    (one,) = propose_remedies(model(), missed(PARITY), scored(3_000, 0), holdout, 0.7, 0)
    decided = np.asarray(holdout.scores) >= 0.7
    shares = [decided[(holdout.frame["g"] == group).to_numpy()].mean() for group in ("f", "m")]
    assert one.before.gaps[PARITY] == pytest.approx(max(shares) - min(shares))
    assert one.before.accuracy == pytest.approx((decided == (holdout.labels == 1)).mean())


def test_the_seed_decides():
    first, again, other = (
        propose_remedies(model(), missed(PARITY), scored(3_000, 0), scored(3_000, 1), 0.5, seed) for seed in (0, 0, 1)
    )
    assert first == again
    assert first[0].after != other[0].after


def test_two_missed_gates_with_one_answer_give_one_remedy():
    remedies = propose_remedies(model(), missed(PREDICTIVE, OPPORTUNITY), scored(3_000, 0), scored(3_000, 1), 0.5, 0)
    assert [one.answers for one in remedies] == [PREDICTIVE]


def test_nothing_missed_needs_no_remedy():
    assert propose_remedies(model(), [], scored(3_000, 0), scored(3_000, 1), 0.5, 0) == []


def test_one_group_large_enough_cannot_be_levelled_with_another():
    assert propose_remedies(model(), missed(PARITY), scored(3_000, 0, ("f",)), scored(3_000, 1), 0.5, 0) == []


def test_groups_never_fitted_keep_their_decisions():
    holdout = scored(3_000, 1, ("x", "z"))
    (one,) = propose_remedies(model(), missed(PARITY), scored(3_000, 0), holdout, 0.5, 0)
    assert one.after == one.before
    assert one.left_out == ("(missing)", "x", "z")
