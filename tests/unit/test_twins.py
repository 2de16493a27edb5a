"""A twin is served only when it was shown to answer as the model does, on real and on odd rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.findings import Verdict, worst
from lifecycle.twins import ODD_NUMBERS, ODD_TEXTS, SCORE_TOLERANCE, judge_twin, probing_rows, raw_columns
from tests.minimal_spec import minimal_spec

pytestmark = pytest.mark.requirement("R2.3")

SPEC = minimal_spec(
    source={"table": "t", "timestamp": "at", "entity_key": "id"},
    features=[
        {"name": "x", "type": "numeric"},
        {"name": "kind", "type": "categorical"},
        {"name": "z", "type": "numeric"},
    ],
)
FRAME = pd.DataFrame({"x": [1.5, 2.0], "kind": ["a", "b"], "z": [7, 8], "y": [0, 1]})


def found(truth: list[float], twin: list[float], threshold: float = 0.5) -> dict[str, Verdict]:
    told = judge_twin(np.array(truth), np.array(twin), threshold, subject="s", window="w")
    return {one.measure: one.verdict for one in told}


def test_equal_scores_pass():
    assert set(found([0.1, 0.9], [0.1, 0.9]).values()) == {Verdict.PASS}


@pytest.mark.parametrize(
    ("truth", "twin", "verdict"),
    [
        ([0.1], [0.1 + 2 * SCORE_TOLERANCE], Verdict.FAIL),
        ([0.1], [0.1 + SCORE_TOLERANCE / 2], Verdict.PASS),
        ([float("nan")], [0.1], Verdict.NO_DATA),
        ([0.1], [float("nan")], Verdict.NO_DATA),
        ([float("nan")], [float("nan")], Verdict.NO_DATA),
        ([], [], Verdict.NO_DATA),
    ],
)
def test_the_distance_decides_and_no_number_is_no_pass(truth: list[float], twin: list[float], verdict: Verdict):
    assert found(truth, twin)["twin_score_difference"] is verdict


def test_a_decision_that_changes_away_from_the_threshold_fails():
    told = found([0.6, 0.4], [0.4, 0.4])
    assert told["twin_decision_changes"] is Verdict.FAIL


def test_a_score_on_the_threshold_may_fall_either_way():
    told = found([0.5], [0.5 - SCORE_TOLERANCE / 10])
    assert worst(judge_twin(np.array([0.5]), np.array([0.4999999]), 0.5, subject="s", window="w")) is Verdict.PASS
    assert told["twin_decision_changes"] is Verdict.PASS


def test_rows_of_another_number_are_refused():
    with pytest.raises(ValueError, match="one for each row"):
        judge_twin(np.array([0.1, 0.2]), np.array([0.1]), 0.5, subject="s", window="w")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0, 1))
def test_a_model_is_its_own_twin(scores: list[float], threshold: float):
    assert set(found(scores, scores, threshold).values()) == {Verdict.PASS}


def test_every_odd_value_of_every_feature_is_tried_alone_and_with_others():
    made = probing_rows(SPEC, FRAME)
    assert list(made.columns) == ["x", "kind", "z"]
    assert len(made) == 2 * len(ODD_NUMBERS) + len(ODD_TEXTS) + max(len(ODD_NUMBERS), len(ODD_TEXTS))
    assert made["x"].dtype == np.float64
    alone = made.iloc[: len(ODD_NUMBERS)]
    assert np.array_equal(alone["x"].to_numpy(), np.array(ODD_NUMBERS), equal_nan=True)
    assert set(alone["kind"]) == {"a"}
    assert set(alone["z"]) == {7.0}


def test_columns_are_what_a_request_brings():
    columns = raw_columns(SPEC, pd.DataFrame({"kind": ["a", None, np.nan], "z": [1, 2, 3], "x": [1.0, None, 2.0]}))
    assert list(columns) == ["x", "kind", "z"]
    assert columns["kind"].tolist() == ["a", "", ""]
    assert np.isnan(columns["x"]).tolist() == [False, True, False]
    assert columns["z"].dtype == np.float64
