"""A window is measured on the labels it has, and worse than its reference only beyond chance."""

import math

import numpy as np
import pytest

from lifecycle.errors import DataError
from lifecycle.evaluation import Estimate
from lifecycle.findings import Verdict
from lifecycle.metrics import NAMES, ScoredRows, bootstrap, interval, performance
from lifecycle.performance import (
    judge_degradation,
    judge_labelled,
    measure_performance,
    relative_loss,
    score_groups,
)
from lifecycle.spec import Business

pytestmark = pytest.mark.requirement("R5.2", "R5.4")

BUSINESS = Business(currency="EUR", decision="call", true_positive=5, false_positive=-1)


def scored(rows, seed=0, slope=2.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, rows)
    labels = (rng.random(rows) < 1 / (1 + np.exp(-slope * x))).astype(float)
    return labels, 1 / (1 + np.exp(-2 * x))


def test_measures_are_those_of_the_labelled_rows_and_the_share_is_told():
    labels, scores = scored(4_000)
    late = labels.copy()
    late[::3] = np.nan
    found = measure_performance(late, scores, 0.5, BUSINESS)
    known = ~np.isnan(late)
    expected = performance(labels[known], scores[known], 0.5, BUSINESS)
    assert {name: estimate.value for name, estimate in found.metrics.items()} == pytest.approx(expected)
    assert (found.rows, found.labelled, found.positives) == (4_000, known.sum(), labels[known].sum())
    assert found.labelled_share == pytest.approx(2 / 3, abs=0.001)


def test_intervals_of_groups_are_those_of_single_rows():
    labels, scores = scored(3_000, 3)
    grouped = measure_performance(labels, scores, 0.4, BUSINESS, resamples=2_000).metrics
    view = ScoredRows(labels, scores, 0.4, BUSINESS)
    samples = bootstrap({"all": view}, 3_000, 2_000, 1)["all"]
    for place, name in enumerate(NAMES):
        if name == "expected_calibration_error":
            continue
        low, high = interval(samples[:, place], 0.95)
        width = high - low
        assert (grouped[name].low, grouped[name].high) == pytest.approx((low, high), abs=0.12 * width), name
        assert grouped[name].low <= grouped[name].value <= grouped[name].high


def test_groups_never_straddle_the_threshold():
    rng = np.random.default_rng(0)
    for threshold in (0.0, 0.3, 0.5, 1.0):
        scores = np.concatenate([rng.random(50_000), [threshold] * 5, [np.nextafter(threshold, -1).clip(0)] * 5])
        middles, group = score_groups(scores, threshold)
        assert len(middles) <= 2_001
        np.testing.assert_array_equal(middles[group] >= threshold, scores >= threshold)
        assert (np.diff(middles) > 0).all()


@pytest.mark.parametrize("labels", [[], [math.nan, math.nan], [1.0, math.nan], [0.0, 0.0]])
def test_labels_that_cannot_give_a_measure_give_none(labels):
    found = measure_performance(labels, [0.5] * len(labels), 0.5, BUSINESS)
    assert found.metrics["roc_auc"] == Estimate(None)
    (finding,) = judge_degradation({"roc_auc": Estimate(0.8)}, found, 0.1, window="w")
    assert finding.verdict is Verdict.NO_DATA


def test_an_invalid_score_leaves_no_measure_and_an_odd_label_is_refused():
    found = measure_performance([1, 0], [math.nan, 0.5], 0.5, BUSINESS)
    assert found.invalid_scores == 1
    assert {estimate.value for estimate in found.metrics.values()} == {None}
    with pytest.raises(DataError, match="accepted: 0, 1, or NaN"):
        measure_performance([2.0], [0.5], 0.5, BUSINESS)


@pytest.mark.parametrize(
    ("slope", "rows", "verdict"),
    [
        (2.0, 5_000, Verdict.PASS),
        (0.5, 5_000, Verdict.FAIL),
        (0.5, 150, Verdict.NO_DATA),
    ],
)
def test_a_tenth_worse_than_the_reference_fails_on_enough_labels(slope, rows, verdict):
    reference = measure_performance(*scored(20_000), 0.5, BUSINESS).metrics
    current = measure_performance(*scored(rows, 5, slope), 0.5, BUSINESS)
    (finding,) = judge_degradation(reference, current, 0.1, window="w")
    assert finding.verdict is verdict
    assert f"labels of {rows:,} of {rows:,} predictions" in finding.reason
    assert finding.measure == "roc_auc_loss"


def test_a_loss_that_the_labels_cannot_tell_from_none_is_no_data():
    reference = {"precision": Estimate(0.9)}
    labels = [1.0] * 3 + [0.0] + [0.0] * 400
    current = measure_performance(labels, [0.9] * 4 + [0.1] * 400, 0.5, BUSINESS)
    (finding,) = judge_degradation(reference, current, 0.1, window="w", measures=["precision"])
    assert finding.value == pytest.approx(1 / 6)
    assert finding.verdict is Verdict.NO_DATA
    assert "too few to tell" in finding.reason


def test_relative_loss_is_above_zero_when_worse_whichever_way_the_measure_goes():
    assert relative_loss("roc_auc", 0.8, 0.72) == pytest.approx(0.1)
    assert relative_loss("brier", 0.1, 0.12) == pytest.approx(0.2)
    assert relative_loss("roc_auc", None, 0.7) is None
    assert relative_loss("business_value_per_1000", -5.0, -6.0) is None


def test_the_share_of_labels_that_came_is_a_finding():
    half = measure_performance([1.0, math.nan], [0.5, 0.5], 0.5, BUSINESS)
    assert judge_labelled(half, 0.6, window="w").verdict is Verdict.WARN
    assert judge_labelled(half, 0.5, window="w").verdict is Verdict.PASS
    nothing = measure_performance([], [], 0.5, BUSINESS)
    assert judge_labelled(nothing, 0.5, window="w").verdict is Verdict.NO_DATA
