"""Measures agree with scikit-learn where it defines them, and have no value where the rows cannot give one."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn import metrics as reference

from lifecycle.measures import PERFORMANCE
from lifecycle.metrics import (
    NAMES,
    ScoredRows,
    Scratch,
    bootstrap,
    calibration_segments,
    expected_calibration_error,
    interval,
    invalid_scores,
    performance,
    roc_auc,
)
from lifecycle.spec import Business

pytestmark = pytest.mark.requirement("R5.2")

WORTH = Business(
    currency="EUR", decision="call", true_positive=12, false_positive=-3, true_negative=0.5, false_negative=-1
)
AUC = NAMES.index("roc_auc")


def sample(rows: int, seed: int, decimals: int = 12) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Useful scores, with many ties when they have few decimals."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(size=rows) * 1.5
    labels = (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.int8)
    return labels, np.round(1 / (1 + np.exp(-odds + rng.normal(size=rows))), decimals)


def expected(labels, scores, threshold, weights=None) -> dict[str, float]:
    decided = scores >= threshold
    matrix = reference.confusion_matrix(labels, decided, sample_weight=weights, labels=[0, 1])
    (tn, fp), (fn, tp) = matrix
    total = matrix.sum()
    return {
        "roc_auc": reference.roc_auc_score(labels, scores, sample_weight=weights),
        "average_precision": reference.average_precision_score(labels, scores, sample_weight=weights),
        "accuracy": reference.accuracy_score(labels, decided, sample_weight=weights),
        "precision": reference.precision_score(labels, decided, sample_weight=weights, zero_division=math.nan),
        "recall": reference.recall_score(labels, decided, sample_weight=weights),
        "f1": reference.f1_score(labels, decided, sample_weight=weights),
        "log_loss": reference.log_loss(labels, scores, sample_weight=weights),
        "brier": reference.brier_score_loss(labels, scores, sample_weight=weights),
        "business_value_per_1000": 1_000 * (12 * tp - 3 * fp + 0.5 * tn - fn) / total,
    }


@pytest.mark.parametrize("decimals", [12, 2, 1])
@pytest.mark.parametrize("weighting", ["none", "shares", "counts"])
@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_measures_agree_with_scikit_learn(decimals: int, weighting: str, threshold: float):
    labels, scores = sample(700, seed=decimals, decimals=decimals)
    rng = np.random.default_rng(1)
    weights = {"none": None, "shares": rng.random(700), "counts": rng.poisson(1.0, 700).astype(np.int32)}[weighting]
    measured = performance(labels, scores, threshold, WORTH, weights)
    assert tuple(measured) == tuple(PERFORMANCE)
    for name, value in expected(labels, scores, threshold, weights).items():
        assert measured[name] == pytest.approx(value, abs=1e-9), name


def test_a_score_at_the_threshold_is_a_positive_decision():
    measured = performance([0, 1], [0.2, 0.5], 0.5, WORTH)
    assert (measured["recall"], measured["precision"], measured["accuracy"]) == (1, 1, 1)


def test_scores_in_single_precision_lose_nothing_more():
    labels, scores = sample(300, seed=5)
    single = scores.astype(np.float32)
    assert performance(labels, single, 0.5, WORTH) == performance(labels, single.astype(np.float64), 0.5, WORTH)


def test_weighting_a_row_twice_is_repeating_it():
    labels, scores = sample(60, seed=2, decimals=1)
    counts = np.random.default_rng(0).integers(0, 4, 60).astype(np.int32)
    repeated = performance(np.repeat(labels, counts), np.repeat(scores, counts), 0.4, WORTH)
    weighted = performance(labels, scores, 0.4, WORTH, counts)
    for name in set(NAMES) - {"expected_calibration_error"}:  # its bins are those of the rows given
        assert weighted[name] == pytest.approx(repeated[name], abs=1e-12), name


def test_many_weightings_at_once_are_each_alone():
    labels, scores = sample(80, seed=3, decimals=1)
    view = ScoredRows(labels, scores, 0.5, WORTH)
    table = np.random.default_rng(0).poisson(1.0, (5, 80)).astype(np.int32)
    together = view.measure(table)
    assert together.shape == (5, len(NAMES))
    for one, weights in zip(together, table, strict=True):
        np.testing.assert_allclose(one, view.measure(weights), rtol=1e-12)
        np.testing.assert_allclose(one, view.measure(weights.astype(np.float64)), rtol=1e-12)
        np.testing.assert_allclose(one, view.measure(weights.astype(np.int64)), rtol=1e-12)


def test_a_view_of_some_rows_reads_their_weights_only():
    labels, scores = sample(50, seed=4, decimals=1)
    rows = np.arange(10, 35)
    weights = np.random.default_rng(0).poisson(1.0, 50).astype(np.int32)
    view = ScoredRows(labels[rows], scores[rows], 0.5, WORTH, rows=rows)
    alone = ScoredRows(labels[rows], scores[rows], 0.5, WORTH)
    np.testing.assert_array_equal(view.measure(weights), alone.measure(weights[rows]))
    np.testing.assert_array_equal(view.measure(), alone.measure())


def test_scratch_changes_no_figure_and_keeps_no_trace():
    labels, scores = sample(90, seed=6, decimals=1)
    view, scratch = ScoredRows(labels, scores, 0.5, WORTH), Scratch()
    table = np.random.default_rng(0).poisson(1.0, (4, 90)).astype(np.int32)
    first = view.measure(table, scratch)
    smaller = ScoredRows(labels[:20], scores[:20], 0.5, WORTH)
    np.testing.assert_array_equal(smaller.measure(table[:, :20], scratch), smaller.measure(table[:, :20]))
    np.testing.assert_array_equal(view.measure(table, scratch), first)
    np.testing.assert_array_equal(view.measure(table), first)


def test_scratch_gives_the_shape_asked_for_and_keeps_the_largest():
    scratch = Scratch()
    large = scratch.array("w", (3, 4), np.float64)
    small = scratch.array("w", (2, 2), np.float64)
    assert (large.shape, small.shape, small.dtype) == ((3, 4), (2, 2), np.float64)
    assert np.shares_memory(large, small)
    assert not np.shares_memory(large, scratch.array("other", (3, 4), np.float64))
    assert scratch.array("w", (3, 4), np.int32).dtype == np.int32
    assert scratch.array("w", (5, 4), np.float64).shape == (5, 4)


NO_VALUE = {
    "all positive": ([1, 1], [0.2, 0.9], {"roc_auc", "average_precision"}),
    "all negative": ([0, 0], [0.2, 0.9], {"roc_auc", "average_precision", "recall", "f1"}),
    "no positive decision": ([0, 1], [0.1, 0.2], {"precision"}),
    "no rows": ([], [], set(NAMES)),
    "a NaN score": ([0, 1], [0.1, math.nan], set(NAMES)),
    "an infinite score": ([0, 1], [0.1, math.inf], set(NAMES)),
    "a score above 1": ([0, 1], [0.1, 1.01], set(NAMES)),
    "a score below 0": ([0, 1], [-0.01, 0.9], set(NAMES)),
}


@pytest.mark.parametrize("case", NO_VALUE)
def test_what_rows_cannot_give_is_nan_and_nothing_else_is(case: str):
    labels, scores, undefined = NO_VALUE[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measured = performance(labels, scores, 0.5, WORTH)
    assert {name for name, value in measured.items() if math.isnan(value)} == undefined


def test_a_weighting_of_nothing_has_no_value_at_all():
    values = ScoredRows([0, 1], [0.1, 0.9], 0.5, WORTH).measure(np.zeros(2, dtype=np.int32))
    named = dict(zip(NAMES, values, strict=True))
    assert all(math.isnan(named[name]) for name in NAMES)


def test_a_weighting_that_leaves_out_one_class_has_no_auc():
    values = ScoredRows([0, 1, 1], [0.1, 0.9, 0.8], 0.5, WORTH).measure(np.array([0, 1, 1], dtype=np.int32))
    assert math.isnan(values[AUC])
    assert values[NAMES.index("accuracy")] == 1


def test_f1_without_a_right_decision_is_zero_as_the_formula_says():
    assert performance([0, 1], [0.9, 0.1], 0.5, WORTH)["f1"] == 0


def test_certain_and_wrong_costs_a_finite_log_loss():
    loss = performance([0, 1], [1.0, 0.0], 0.5, WORTH)["log_loss"]
    assert loss == pytest.approx(-math.log(np.finfo(np.float64).eps))
    assert loss == pytest.approx(reference.log_loss([0, 1], [1.0, 0.0]))


@pytest.mark.parametrize(("labels", "scores"), [([0, 1], [0.5]), ([[0, 1]], [[0.5, 0.5]])])
def test_labels_and_scores_that_do_not_match_are_an_error(labels, scores):
    with pytest.raises(ValueError, match="one score for each label"):
        ScoredRows(labels, scores, 0.5, WORTH)


def test_invalid_scores_are_counted():
    assert invalid_scores([0.0, 1.0, 0.5]) == 0
    assert invalid_scores([math.nan, math.inf, -math.inf, -1e-9, 1 + 1e-9, 0.5]) == 5
    assert invalid_scores([]) == 0


# Calibration error


def by_hand(labels, scores, edges) -> float:
    bins = np.searchsorted(edges, scores, side="left")
    gaps = [abs((labels[bins == b] - scores[bins == b]).sum()) for b in np.unique(bins)]
    return float(sum(gaps) / len(labels))


def test_calibration_error_is_the_mean_gap_over_equal_width_bins():
    labels, scores = sample(500, seed=8)
    wanted = by_hand(labels, scores, np.arange(1, 10) / 10)
    assert expected_calibration_error(labels, scores, 10, "width") == pytest.approx(wanted, abs=1e-12)


def test_calibration_error_is_the_mean_gap_over_equal_mass_bins_by_default():
    labels, scores = sample(500, seed=8)
    wanted = by_hand(labels, scores, np.quantile(scores, np.arange(1, 15) / 15))
    assert expected_calibration_error(labels, scores) == pytest.approx(wanted, abs=1e-12)
    assert performance(labels, scores, 0.5, WORTH)["expected_calibration_error"] == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(
    ("labels", "scores", "error"),
    [
        ([0, 1], [0.0, 1.0], 0.0),
        ([0, 1], [1.0, 0.0], 1.0),
        ([0, 1, 1, 1], [0.75] * 4, 0.0),
        ([0, 0, 0, 1], [0.75] * 4, 0.5),
    ],
)
@pytest.mark.parametrize("binning", ["mass", "width"])
def test_calibration_error_of_known_rows(labels, scores, error: float, binning):
    assert expected_calibration_error(labels, scores, binning=binning) == pytest.approx(error)


@pytest.mark.parametrize("scores", [[], [0.5, math.nan], [0.5, 2.0]])
def test_calibration_error_without_usable_scores_is_nan(scores):
    assert math.isnan(expected_calibration_error([0] * len(scores), scores))


def test_equal_scores_share_a_calibration_bin():
    scores = np.array([0.9] * 50 + [0.4] * 3 + [0.1] * 47)
    starts = calibration_segments(scores, 10, "mass")
    assert set(starts.tolist()) <= {0, 50, 53}
    assert calibration_segments(np.array([0.5]), 15).tolist() == [0]
    assert calibration_segments(np.array([0.95, 0.55, 0.05]), 10, "width").tolist() == [0, 1, 2]


def test_equal_mass_bins_hold_about_equally_many_rows():
    scores = np.sort(np.random.default_rng(0).random(1_500) ** 4)[::-1]
    sizes = np.diff(np.append(calibration_segments(scores), 1_500))
    assert len(sizes) == 15
    assert sizes.min() >= 99
    assert sizes.max() <= 101


# Rules that hold for all rows

rows_of_both_classes = st.lists(st.tuples(st.booleans(), st.integers(0, 100)), min_size=2, max_size=60).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


def split(rows) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    return np.array([label for label, _ in rows], dtype=np.int8), np.array([score for _, score in rows]) / 100


@given(rows_of_both_classes)
def test_auc_is_the_share_of_pairs_ranked_right_ties_half(rows):
    labels, scores = split(rows)
    pairs = np.sign(scores[labels == 1][:, None] - scores[labels == 0][None, :])
    measured = performance(labels, scores, 0.5, WORTH)["roc_auc"]
    assert measured == pytest.approx((pairs.mean() + 1) / 2, abs=1e-12)


@given(rows_of_both_classes)
def test_auc_is_unmoved_by_what_keeps_the_order(rows):
    labels, scores = split(rows)
    assert performance(labels, scores**3 / 2, 0.5, WORTH)["roc_auc"] == pytest.approx(
        performance(labels, scores, 0.5, WORTH)["roc_auc"], abs=1e-12
    )


@given(rows_of_both_classes)
def test_auc_of_turned_scores_is_one_less_it(rows):
    labels, scores = split(rows)
    turned = performance(labels, 1 - scores, 0.5, WORTH)["roc_auc"]
    assert turned == pytest.approx(1 - performance(labels, scores, 0.5, WORTH)["roc_auc"], abs=1e-12)


@given(rows_of_both_classes, st.floats(0, 1))
def test_every_measure_stays_in_its_range(rows, threshold: float):
    labels, scores = split(rows)
    for name, value in performance(labels, scores, threshold, WORTH).items():
        assert math.isnan(value) or PERFORMANCE[name].low - 1e-12 <= value <= PERFORMANCE[name].high + 1e-12


@given(rows_of_both_classes, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows, shuffle):
    shuffled = list(rows)
    shuffle.shuffle(shuffled)
    first, second = (performance(*split(order), 0.5, WORTH) for order in (rows, shuffled))
    for name in NAMES:
        assert second[name] == pytest.approx(first[name], abs=1e-9, nan_ok=True)


@given(rows_of_both_classes)
def test_auc_by_ranks_is_the_same_auc_for_any_scale(rows):
    labels, scores = split(rows)
    wanted = performance(labels, scores, 0.5, WORTH)["roc_auc"]
    assert roc_auc(labels, scores * 1_000 - 7) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(("labels", "scores"), [([], []), ([1, 1], [0, 1]), ([0, 0], [0, 1]), ([0, 1], [0, math.nan])])
def test_auc_by_ranks_needs_both_classes_and_every_score(labels, scores):
    assert math.isnan(roc_auc(labels, scores))


# Bootstrap


def test_the_bootstrap_is_decided_by_its_seed():
    labels, scores = sample(200, seed=9)
    views = {"one": ScoredRows(labels, scores, 0.5, WORTH)}
    first, again, other = (bootstrap(views, 200, 40, seed)["one"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == (40, len(NAMES))


def test_batches_fill_every_resample(monkeypatch):
    labels, scores = sample(64, seed=9)
    views = {"one": ScoredRows(labels, scores, 0.5, WORTH)}
    whole = bootstrap(views, 64, 50, 3)["one"]
    monkeypatch.setattr("lifecycle.metrics._BATCH_CELLS", 64 * 7)
    np.testing.assert_allclose(bootstrap(views, 64, 50, 3)["one"], whole, rtol=1e-12)
    monkeypatch.setattr("lifecycle.metrics._BATCH_CELLS", 1)
    assert np.isfinite(bootstrap(views, 64, 50, 3)["one"][:, AUC]).all()


def test_weights_are_poisson_of_mean_one():
    labels, scores = sample(20_000, seed=1)
    accuracy = bootstrap({"one": ScoredRows(labels, scores, 0.5, WORTH)}, 20_000, 300, 0)["one"][
        :, NAMES.index("accuracy")
    ]
    share = performance(labels, scores, 0.5, WORTH)["accuracy"]
    assert accuracy.mean() == pytest.approx(share, abs=5e-4)
    # The standard error of a share, by formula.
    assert accuracy.std() == pytest.approx(math.sqrt(share * (1 - share) / 20_000), rel=0.12)


def test_the_interval_of_auc_agrees_with_delong():
    labels, scores = sample(2_000, seed=11)
    positives, negatives = scores[labels == 1], scores[labels == 0]
    wins = (positives[:, None] > negatives[None, :]).astype(float)
    error = math.sqrt(wins.mean(axis=1).var(ddof=1) / len(positives) + wins.mean(axis=0).var(ddof=1) / len(negatives))
    resampled = bootstrap({"one": ScoredRows(labels, scores, 0.5, WORTH)}, 2_000, 1_000, 0)["one"][:, AUC]
    low, high = interval(resampled, 0.95)
    centre, half = wins.mean(), norm.ppf(0.975) * error
    assert low == pytest.approx(centre - half, abs=0.15 * half)
    assert high == pytest.approx(centre + half, abs=0.15 * half)


def test_the_paired_interval_agrees_with_delong_and_is_narrower_than_an_unpaired_one():
    labels, scores = sample(2_000, seed=12)
    rng = np.random.default_rng(0)
    close = np.clip(scores + rng.normal(scale=0.05, size=2_000), 0, 1)

    def placements(values):
        wins = np.sign(values[labels == 1][:, None] - values[labels == 0][None, :]) / 2 + 0.5
        return wins.mean(axis=1), wins.mean(axis=0), wins.mean()

    (over1, under1, auc1), (over2, under2, auc2) = placements(scores), placements(close)
    error = math.sqrt(
        (over1 - over2).var(ddof=1) / np.count_nonzero(labels == 1)
        + (under1 - under2).var(ddof=1) / np.count_nonzero(labels == 0)
    )
    views = {"a": ScoredRows(labels, scores, 0.5, WORTH), "b": ScoredRows(labels, close, 0.5, WORTH)}
    resampled = bootstrap(views, 2_000, 1_000, 0)
    low, high = interval(resampled["a"][:, AUC] - resampled["b"][:, AUC], 0.95)
    half = norm.ppf(0.975) * error
    assert low == pytest.approx(auc1 - auc2 - half, abs=0.2 * half)
    assert high == pytest.approx(auc1 - auc2 + half, abs=0.2 * half)
    single = np.subtract(*interval(resampled["a"][:, AUC], 0.95)[::-1])
    assert high - low < single / 3


def test_identical_scores_differ_by_exactly_nothing_in_every_resample():
    labels, scores = sample(300, seed=13)
    views = {name: ScoredRows(labels, scores, 0.5, WORTH) for name in "ab"}
    resampled = bootstrap(views, 300, 50, 0)
    np.testing.assert_array_equal(resampled["a"], resampled["b"])


def test_a_bootstrap_of_no_rows_has_no_values():
    views = {"none": ScoredRows([], [], 0.5, WORTH)}
    assert np.isnan(bootstrap(views, 0, 10, 0)["none"]).all()


def test_the_interval_is_the_percentiles_of_what_is_finite():
    samples = np.arange(101, dtype=float)
    assert interval(samples, 0.9) == pytest.approx((5, 95))
    assert interval(samples, 0.5) == pytest.approx((25, 75))
    assert interval(np.append(samples, [math.nan] * 10), 0.9) == pytest.approx((5, 95))


def test_an_interval_of_which_a_tenth_is_missing_is_none():
    assert not any(map(math.isnan, interval(np.array([1.0] * 9 + [math.nan]), 0.9)))
    assert all(map(math.isnan, interval(np.array([1.0] * 89 + [math.nan] * 11), 0.9)))
    assert all(map(math.isnan, interval(np.array([math.inf] * 3), 0.9)))
    assert all(map(math.isnan, interval(np.array([]), 0.9)))


def test_a_centred_interval_lies_about_its_value_within_the_measure_range():
    samples = np.arange(101, dtype=float)
    assert interval(samples, 0.9, centre=40) == pytest.approx((-5, 85))
    assert interval(samples, 0.9, centre=40, low=0) == pytest.approx((0, 85))
    assert interval(samples, 0.9, centre=40, low=0, high=80) == pytest.approx((0, 80))
    assert interval(samples, 0.9, centre=-100, low=0) == (0, 0)
    assert interval(samples, 0.9, centre=200, high=100) == (100, 100)
