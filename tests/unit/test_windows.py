"""What a window without a training can judge, and whether a version had seen it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.model_files import load_model
from lifecycle.evaluation import BaselineScores, Evaluation, evaluate
from lifecycle.findings import Verdict
from lifecycle.windows import judge_window, training_overlap

START = datetime(2024, 1, 1, tzinfo=UTC)
RNG = np.random.default_rng(0)
SPEC = load_model("flight_delay")
ROWS = 2_000
LABELS = RNG.integers(0, 2, ROWS)
FRAME = pd.DataFrame(
    {name: RNG.choice(["a", "b"], ROWS) for name in [*SPEC.evaluation.slices, *(one.column for one in SPEC.sensitive)]}
    | {"x": LABELS}
)


def evaluated(scores: np.ndarray, beside: dict[str, BaselineScores | None]) -> Evaluation:
    return evaluate(SPEC, FRAME, LABELS, scores, 0.5, beside, 0, "a window")


GOOD, NOISE = np.clip(0.7 * LABELS + 0.3 * RNG.random(ROWS), 0, 1), RNG.random(ROWS)


def test_gates_against_fitted_baselines_have_no_place_and_bounds_do():
    named = {gate.name for gate in SPEC.evaluation.gates if gate.against is None}
    assert named
    assert {one.measure for one in judge_window(SPEC, evaluated(GOOD, {}))} == named


def test_the_live_version_is_compared_with_where_it_was_scored():
    against = {gate.name for gate in SPEC.evaluation.gates if gate.against == "champion"}
    assert against
    found = {one.measure: one for one in judge_window(SPEC, evaluated(NOISE, {"champion": BaselineScores(GOOD, 0.5)}))}
    assert against <= set(found)
    assert all(found[name].verdict is Verdict.FAIL for name in against)


@given(hours=st.lists(st.integers(-50, 50), min_size=1), length=st.integers(1, 40))
def test_the_overlap_is_the_share_of_rows_inside_the_training_window(hours, length):
    times = pd.Series(pd.to_datetime([START + timedelta(hours=hour) for hour in hours], utc=True))
    found = training_overlap(times, (START, START + timedelta(hours=length)), "w")
    share = sum(0 <= hour < length for hour in hours) / len(hours)
    assert found.value == pytest.approx(share)
    assert found.verdict is (Verdict.WARN if share else Verdict.PASS)


def test_no_rows_overlap_with_nothing():
    empty = pd.Series([], dtype="datetime64[us, UTC]")
    assert training_overlap(empty, (START, START + timedelta(1)), "w").verdict is Verdict.NO_DATA
