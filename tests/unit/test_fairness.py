"""Differences between groups agree with fairlearn, and a group too small to judge is told, not judged."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.fairness import MISSING_GROUP, RATES, AttributeFairness, attribute_fairness, group_names
from lifecycle.spec import Evaluation

pytestmark = pytest.mark.requirement("R5.6")


def rules(rows: int = 1, class_rows: int = 1, **more: Any) -> Evaluation:
    return Evaluation.model_validate(
        {
            "gates": [{"metric": "roc_auc", "min": 0.6}],
            "min_group_rows": rows,
            "min_group_class_rows": class_rows,
            "bootstrap": 100,
            **more,
        }
    )


def cells(**groups: tuple[int, int, int, int]) -> tuple[list[str], list[int], list[int]]:
    """Rows of each group: right positives, wrong positives, right negatives, missed positives."""
    names: list[str] = []
    labels: list[int] = []
    decisions: list[int] = []
    for name, counts in groups.items():
        for count, (label, decision) in zip(counts, ((1, 1), (0, 1), (0, 0), (1, 0)), strict=True):
            names += [name] * count
            labels += [label] * count
            decisions += [decision] * count
    return names, labels, decisions


def test_differences_and_groups_agree_with_fairlearn():
    from fairlearn import metrics as fairlearn
    from sklearn.metrics import precision_score

    rng = np.random.default_rng(0)
    groups = rng.choice(["a", "b", "c", "d"], 3_000)
    labels = (rng.random(3_000) < 0.4).astype(int)
    decisions = (rng.random(3_000) < 0.2 + 0.4 * labels + 0.1 * (groups == "b")).astype(int)
    table = attribute_fairness("who", groups, labels, decisions, rules())
    frame = fairlearn.MetricFrame(
        metrics={
            "selection_rate": fairlearn.selection_rate,
            "true_positive_rate": fairlearn.true_positive_rate,
            "precision": precision_score,
            "rows": fairlearn.count,
        },
        y_true=labels,
        y_pred=decisions,
        sensitive_features=groups,
    )
    for figures in table.groups:
        for name in ("selection_rate", "true_positive_rate", "precision", "rows"):
            assert getattr(figures, name) == pytest.approx(frame.by_group.loc[figures.group, name], abs=1e-12)
    difference = {name: disparity.difference for name, disparity in table.disparities.items()}
    assert difference["demographic_parity_difference"] == pytest.approx(
        fairlearn.demographic_parity_difference(labels, decisions, sensitive_features=groups), abs=1e-12
    )
    assert difference["equal_opportunity_difference"] == pytest.approx(
        fairlearn.equal_opportunity_difference(labels, decisions, sensitive_features=groups), abs=1e-12
    )
    assert difference["predictive_parity_difference"] == pytest.approx(
        frame.difference(method="between_groups")["precision"], abs=1e-12
    )


def test_every_figure_of_a_group_by_hand():
    names, labels, decisions = cells(x=(30, 10, 40, 20), y=(10, 10, 60, 20))
    table = attribute_fairness("who", names, labels, decisions, rules(), {"x": "the x"})
    first, second = table.groups
    assert (first.group, first.label, first.rows, first.positives, first.selected, first.true_positives) == (
        "x",
        "the x",
        100,
        50,
        40,
        30,
    )
    assert (first.selection_rate, first.true_positive_rate, first.precision) == (0.4, 0.6, 0.75)
    assert (second.label, second.selection_rate, second.true_positive_rate, second.precision) == ("y", 0.2, 1 / 3, 0.5)
    parity = table.disparities["demographic_parity_difference"]
    assert (parity.measure, parity.highest, parity.lowest) == ("demographic_parity_difference", "the x", "y")
    assert (parity.highest_value, parity.lowest_value, parity.difference) == (0.4, 0.2, 0.2)
    assert (parity.judged, parity.no_data, parity.smallest) == (("the x", "y"), {}, 100)
    assert table.disparities["equal_opportunity_difference"].difference == pytest.approx(0.6 - 1 / 3)
    assert table.disparities["predictive_parity_difference"].difference == 0.25


def test_groups_one_row_short_are_listed_and_not_judged():
    names, labels, decisions = cells(a=(10, 5, 5, 5), b=(10, 5, 5, 5), c=(8, 8, 8, 0))
    at_limit = attribute_fairness("who", names, labels, decisions, rules(rows=24))
    short = attribute_fairness("who", names, labels, decisions, rules(rows=25))
    for measure in RATES:
        assert at_limit.disparities[measure].judged == ("a", "b", "c")
        assert at_limit.disparities[measure].smallest == 24
        assert short.disparities[measure].judged == ("a", "b")
        assert short.disparities[measure].no_data == {"c": "24 rows, 25 needed"}
        assert short.disparities[measure].difference == 0
        assert short.disparities[measure].smallest == 25


def test_recall_needs_positives_and_precision_needs_positive_decisions():
    names, labels, decisions = cells(a=(20, 20, 20, 20), b=(9, 31, 40, 0), c=(9, 0, 40, 31))
    table = attribute_fairness("who", names, labels, decisions, rules(class_rows=10))
    parity, opportunity, predictive = (table.disparities[measure] for measure in RATES)
    assert parity.judged == ("a", "b", "c")
    assert opportunity.no_data == {"b": "9 positives, 10 needed"}
    assert predictive.no_data == {"c": "9 positive decisions, 10 needed"}
    exact = attribute_fairness("who", names, labels, decisions, rules(class_rows=9))
    assert all(not disparity.no_data for disparity in exact.disparities.values())


def test_all_that_is_lacking_is_named():
    names, labels, decisions = cells(a=(20, 20, 20, 20), b=(1, 0, 2, 0))
    table = attribute_fairness("who", names, labels, decisions, rules(rows=10, class_rows=5))
    assert table.disparities["equal_opportunity_difference"].no_data == {
        "b": "3 rows, 10 needed; 1 positives, 5 needed"
    }


@pytest.mark.parametrize("groups", [{}, {"a": (9, 9, 9, 9)}, {"a": (9, 9, 9, 9), "b": (1, 1, 1, 1)}])
def test_fewer_than_two_judged_groups_give_no_difference(groups):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = attribute_fairness("who", *cells(**groups), rules(rows=10, class_rows=5))
    for measure, disparity in table.disparities.items():
        assert disparity.measure == measure
        assert disparity.difference is None
        assert (disparity.low, disparity.high, disparity.highest, disparity.lowest) == (None,) * 4
        assert (disparity.highest_value, disparity.lowest_value) == (None, None)
        assert disparity.smallest == (36 if groups else 0)
        assert disparity.judged == (("a",) if groups else ())


def test_a_group_without_a_base_has_no_figure():
    table = attribute_fairness("who", *cells(a=(0, 0, 5, 0)), rules())
    (figures,) = table.groups
    assert (figures.selection_rate, figures.true_positive_rate, figures.precision) == (0, None, None)


def test_missing_values_are_a_group_of_their_own():
    assert group_names([None, math.nan, "x"]).tolist() == [MISSING_GROUP, MISSING_GROUP, "x"]
    assert group_names([1, 2]).tolist() == ["1", "2"]
    assert group_names(np.array([], dtype=object)).tolist() == []
    names, labels, decisions = cells(a=(9, 9, 9, 9), n=(9, 9, 9, 9))
    table = attribute_fairness("who", [None if name == "n" else name for name in names], labels, decisions, rules())
    assert {figures.group: figures.rows for figures in table.groups} == {MISSING_GROUP: 36, "a": 36}


def test_the_interval_is_seeded_holds_the_difference_and_narrows_with_rows():
    small = attribute_fairness("who", *cells(a=(40, 10, 40, 10), b=(30, 10, 40, 20)), rules())
    large = attribute_fairness("who", *cells(a=(4000, 1000, 4000, 1000), b=(3000, 1000, 4000, 2000)), rules())
    again = attribute_fairness("who", *cells(a=(40, 10, 40, 10), b=(30, 10, 40, 20)), rules())
    other = attribute_fairness("who", *cells(a=(40, 10, 40, 10), b=(30, 10, 40, 20)), rules(), seed=1)
    assert small == again
    assert small != other
    for measure in RATES:
        wide, narrow = small.disparities[measure], large.disparities[measure]
        assert 0 <= wide.low <= wide.difference <= wide.high <= 1
        assert 0 <= narrow.low <= narrow.difference <= narrow.high <= 1
        assert narrow.high - narrow.low < (wide.high - wide.low) / 3
    # Standard error of a difference of two shares, by formula.
    gap = large.disparities["demographic_parity_difference"]
    error = math.sqrt(0.5 * 0.5 / 10_000 + 0.4 * 0.6 / 10_000)
    assert gap.high - gap.low == pytest.approx(2 * 1.96 * error, rel=0.35)
    assert gap.difference == pytest.approx(0.1)


def test_a_narrower_confidence_is_a_narrower_interval():
    counts = cells(a=(40, 10, 40, 10), b=(30, 10, 40, 20))
    wide, narrow = (
        attribute_fairness("who", *counts, rules(confidence=level)).disparities["demographic_parity_difference"]
        for level in (0.99, 0.5)
    )
    assert wide.low <= narrow.low < narrow.high < wide.high


def test_a_table_survives_json():
    table = attribute_fairness("who", *cells(a=(9, 9, 9, 9), b=(8, 9, 9, 9), c=(1, 0, 0, 0)), rules(rows=10))
    assert AttributeFairness.from_dict(json.loads(json.dumps(table.to_dict(), allow_nan=False))) == table


counts = st.tuples(*[st.integers(0, 30)] * 4)


@given(st.dictionaries(st.sampled_from("abcde"), counts, max_size=5), st.integers(1, 20), st.integers(1, 10))
def test_a_difference_lies_between_0_and_1_and_stands_on_judged_groups_only(groups, least: int, class_least: int):
    table = attribute_fairness("who", *cells(**groups), rules(rows=least, class_rows=class_least))
    for disparity in table.disparities.values():
        assert (disparity.difference is None) == (len(disparity.judged) < 2)
        assert set(disparity.judged).isdisjoint(disparity.no_data)
        assert {*disparity.judged, *disparity.no_data} == {figures.label for figures in table.groups}
        if disparity.difference is not None:
            assert 0 <= disparity.difference <= 1
            assert disparity.difference == disparity.highest_value - disparity.lowest_value
            assert disparity.smallest >= least


@given(counts.filter(lambda c: sum(c) > 0))
def test_equal_groups_differ_by_nothing(one):
    table = attribute_fairness("who", *cells(a=one, b=one), rules())
    assert all(disparity.difference in (0, None) for disparity in table.disparities.values())
