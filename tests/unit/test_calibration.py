"""Calibration makes probabilities mean what they say and never changes who comes before whom."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from lifecycle.calibration import MAX_SLOPE, MIN_SLOPE, Calibration, fit_calibration
from lifecycle.errors import DataError
from lifecycle.metrics import expected_calibration_error

pytestmark = pytest.mark.requirement("R3.6")


def drawn(slope, intercept, rows=20_000, seed=0):
    """Logits whose true probability is a known logistic function of them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, rows)
    return logits, (rng.random(rows) < expit(slope * logits + intercept)).astype(int)


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.4, -1.0), (2.5, 0.5)])
def test_the_true_slope_and_intercept_are_found(slope, intercept):
    fitted = fit_calibration(*drawn(slope, intercept))
    assert fitted.slope == pytest.approx(slope, rel=0.08)
    assert fitted.intercept == pytest.approx(intercept, abs=0.08)


def test_an_overconfident_network_is_tempered():
    logits, labels = drawn(0.3, -0.5)
    before = expected_calibration_error(labels, expit(logits))
    after = expected_calibration_error(labels, fit_calibration(logits, labels).apply(logits))
    assert after < 0.02 < before


@given(st.floats(MIN_SLOPE, MAX_SLOPE), st.floats(-5, 5), st.lists(st.floats(-30, 30), min_size=2))
def test_the_ranking_is_kept(slope, intercept, logits):
    ordered = np.sort(logits)
    scores = Calibration(slope, intercept).apply(ordered)
    assert (np.diff(scores) >= 0).all()
    assert ((scores >= 0) & (scores <= 1)).all()


def test_a_ranking_the_wrong_way_round_is_flattened_and_not_turned():
    logits, labels = drawn(-1.0, 0.0)
    assert fit_calibration(logits, labels).slope == MIN_SLOPE


def test_separable_scores_end_at_a_finite_slope():
    fitted = fit_calibration([-1.0, -1.0, 1.0, 1.0], [0, 0, 1, 1])
    assert MIN_SLOPE <= fitted.slope <= MAX_SLOPE
    assert math.isfinite(fitted.intercept)


def test_a_missing_logit_has_a_missing_probability():
    scores = Calibration(1.0, 0.0).apply([0.0, float("nan"), float("inf")])
    assert scores[0] == 0.5
    assert np.isnan(scores[1])
    assert scores[2] == 1.0


@pytest.mark.parametrize(
    ("logits", "labels"),
    [([], []), ([0.1, 0.2], [1, 1]), ([0.1, float("nan")], [0, 1]), ([0.1, float("inf")], [0, 1])],
)
def test_scores_that_cannot_be_calibrated_are_refused(logits, labels):
    with pytest.raises(DataError, match="accepted: finite ones, of both classes"):
        fit_calibration(logits, labels)
