"""Rules of suspected leaks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.findings import Verdict
from lifecycle.leaks import categorical_auc, numeric_auc, suspected_leaks
from lifecycle.spec import ModelSpec
from tests.minimal_spec import minimal_spec

pytestmark = pytest.mark.requirement("R3.5", "R5.5")


def spec_of(leak_auc: float = 0.95, min_class: int = 50) -> ModelSpec:
    return minimal_spec(
        source={"table": "t", "timestamp": "at", "entity_key": "id"},
        label={"column": "y", "meaning": "m"},
        features=[{"name": "x", "type": "numeric"}, {"name": "k", "type": "categorical"}],
        quality={"leak_auc": leak_auc},
        evaluation={"gates": [{"metric": "roc_auc", "min": 0.6}], "min_group_class_rows": min_class},
        business={"currency": "USD", "decision": "d", "true_positive": 1, "false_positive": -1},
    )


def frame_of(y, x=None, k=None) -> pd.DataFrame:
    y = np.asarray(y, dtype=np.int8)
    return pd.DataFrame(
        {
            "x": np.zeros(len(y)) if x is None else np.asarray(x, dtype=float),
            "k": pd.Series(["a"] * len(y) if k is None else k, dtype=object),
            "y": y,
        }
    )


def verdicts(frame, spec=None):
    return {f.subject: f.verdict for f in suspected_leaks(frame, spec or spec_of(), "w")}


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 1.0, 2.5, np.inf, -np.inf]), st.booleans()), min_size=2, max_size=40
    ).filter(lambda rows: len({label for _, label in rows}) == 2)
)
@settings(deadline=None)
def test_the_area_is_the_share_of_pairs_ranked_right_in_the_better_direction(rows):
    values, label = np.array([v for v, _ in rows]), np.array([y for _, y in rows])
    pairs = [(a > b) + 0.5 * (a == b) for a in values[label] for b in values[~label]]
    expected = max(np.mean(pairs), 1 - np.mean(pairs))
    assert numeric_auc(values, label) == pytest.approx(expected)


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1.0, 2.0, np.nan]), st.booleans()), min_size=2, max_size=40).filter(
        lambda rows: len({y for _, y in rows}) == 2 and not all(np.isnan(v) for v, _ in rows)
    )
)
@settings(deadline=None)
def test_missing_values_rank_below_or_above_all_others(rows):
    values, label = np.array([v for v, _ in rows]), np.array([y for _, y in rows])
    filled = [numeric_auc(np.where(np.isnan(values), end, values), label) for end in (-9.0, 9.0)]
    assert numeric_auc(values, label) == pytest.approx(max(filled))


def test_a_number_that_is_missing_exactly_for_one_class_is_a_suspected_leak():
    y = np.arange(400) % 2
    assert verdicts(frame_of(y, x=np.where(y == 1, 5.0, np.nan)))["x"] is Verdict.WARN


@pytest.mark.parametrize("sign", [1, -1])
def test_both_directions_of_a_number_are_looked_at(sign):
    y = np.arange(400) % 2
    assert verdicts(frame_of(y, x=sign * (y + np.linspace(0, 0.5, 400))))["x"] is Verdict.WARN


def test_a_category_that_tells_the_label_is_a_suspected_leak():
    y = np.arange(400) % 2
    assert verdicts(frame_of(y, k=np.where(y == 1, "closed", "open")))["k"] is Verdict.WARN


def test_an_identifier_with_unique_values_does_not_look_like_a_leak():
    y = np.arange(2_000) % 2
    assert verdicts(frame_of(y, k=[f"id{i}" for i in range(2_000)]))["k"] is Verdict.PASS
    label = y == 1
    assert categorical_auc(pd.Series([f"id{i}" for i in range(2_000)]), label, 0) == pytest.approx(0.5)


def test_the_threshold_itself_is_accepted_and_what_is_above_warns_without_failing():
    label = np.array([1] * 50 + [0] * 50)
    x = np.concatenate([np.ones(50), np.zeros(45), np.ones(5)])  # 45 of 50 pairs won, 5 tied: 0.95
    assert verdicts(frame_of(label, x=x), spec_of(0.95))["x"] is Verdict.PASS
    assert verdicts(frame_of(label, x=x), spec_of(0.94))["x"] is Verdict.WARN


@pytest.mark.parametrize("y", [[0] * 200, [1] * 200, [], [1] * 49 + [0] * 151])
def test_a_missing_or_rare_class_is_no_data(y):
    assert set(verdicts(frame_of(y)).values()) == {Verdict.NO_DATA}


def test_a_feature_without_any_value_is_no_data():
    y = np.arange(400) % 2
    found = suspected_leaks(frame_of(y, x=[np.nan] * 400, k=[None] * 400), spec_of(), "w")
    assert [f.verdict for f in found] == [Verdict.NO_DATA] * 2
    assert all("every value is missing" in f.reason for f in found)


def test_the_same_seed_gives_the_same_area_and_noise_gives_about_a_half():
    rng = np.random.default_rng(1)
    values, label = pd.Series(rng.integers(0, 40, 4_000).astype(str)), rng.random(4_000) < 0.3
    first = categorical_auc(values, label, 7)
    assert first == categorical_auc(values, label, 7)
    assert first == pytest.approx(0.5, abs=0.03)


def test_every_feature_has_one_finding_with_its_rows_and_window():
    y = np.arange(400) % 2
    found = suspected_leaks(frame_of(y), spec_of(), "2013-01-01 to 2013-07-01")
    assert [f.subject for f in found] == ["x", "k"]
    assert {(f.count, f.window, f.measure) for f in found} == {(400, "2013-01-01 to 2013-07-01", "single_feature_auc")}
