"""An evaluation holds what was measured, paired with its baselines, and says where there was nothing to measure."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference

from lifecycle.errors import DataError
from lifecycle.evaluation import (
    ALWAYS,
    CURVE_POINTS,
    NEVER,
    BaselineScores,
    Estimate,
    Evaluation,
    evaluate,
    prior_threshold,
)
from lifecycle.findings import Verdict
from lifecycle.measures import PERFORMANCE
from lifecycle.metrics import NAMES, ScoredRows, bootstrap, interval, performance
from lifecycle.spec import Business, ModelSpec
from tests.minimal_spec import minimal_spec

pytestmark = pytest.mark.requirement("R3.7", "R5.2")


def model(**rules: Any) -> ModelSpec:
    return minimal_spec(
        sensitivity="sensitive",
        features=[
            {"name": "x", "type": "numeric"},
            {"name": "c", "type": "categorical", "labels": {"u": "upper"}},
        ],
        sensitive=[{"name": "gender", "column": "g", "labels": {"f": "female"}}],
        evaluation={
            "gates": [{"metric": "roc_auc", "min": 0.6}, {"metric": "brier", "max": 0.24}],
            "slices": ["c"],
            "bootstrap": 100,
            "min_group_rows": 50,
            "min_group_class_rows": 10,
            "min_rows": 100,
            **rules,
        },
        business={
            "currency": "EUR",
            "decision": "call",
            "true_positive": 12,
            "false_positive": -3,
            "true_negative": 0.5,
            "false_negative": -1,
        },
    )


def holdout(rows: int = 1_000, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, np.ndarray]:
    """Frame, labels, good scores, worse scores."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(size=rows) * 2
    labels = (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.int8)
    frame = pd.DataFrame(
        {
            "c": rng.choice(np.array(["u", "v", "w", None], dtype=object), rows, p=[0.5, 0.3, 0.19, 0.01]),
            "g": rng.choice(["f", "m"], rows),
        },
        index=np.arange(rows) + 77,  # a hold-out keeps the snapshot's row numbers
    )
    return frame, labels, 1 / (1 + np.exp(-odds)), 1 / (1 + np.exp(-odds - 2 * rng.normal(size=rows)))


def evaluated(spec: ModelSpec | None = None, seed: int = 0, **changes: Any) -> Evaluation:
    frame, labels, good, worse = holdout()
    arguments: dict[str, Any] = {
        "frame": frame,
        "labels": labels,
        "scores": good,
        "threshold": 0.4,
        "baselines": {
            "prior": BaselineScores(np.full(len(labels), 0.5), ALWAYS),
            "logistic_regression": BaselineScores(worse, 0.5),
        },
        "window": "hold-out of May",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return evaluate(spec or model(), seed=seed, **{**arguments, **changes})


def test_the_facts_of_the_hold_out_stand_with_the_numbers():
    _, labels, _, _ = holdout()
    evaluation = evaluated(seed=7)
    assert (evaluation.rows, evaluation.positives, evaluation.invalid_scores) == (1_000, int(labels.sum()), 0)
    assert (evaluation.window, evaluation.threshold, evaluation.currency) == ("hold-out of May", 0.4, "EUR")
    assert (evaluation.confidence, evaluation.resamples, evaluation.seed) == (0.95, 100, 7)


def test_every_measure_has_its_value_inside_its_interval():
    _, labels, good, worse = holdout()
    spec = model()
    evaluation = evaluated(spec)
    wanted = performance(labels, good, 0.4, spec.business)
    assert list(evaluation.metrics) == list(PERFORMANCE)
    for name, estimate in evaluation.metrics.items():
        assert estimate.value == pytest.approx(wanted[name], abs=1e-12)
        assert estimate.low < estimate.value < estimate.high
        assert PERFORMANCE[name].low <= estimate.low
        assert estimate.high <= PERFORMANCE[name].high
    beside = performance(labels, worse, 0.5, spec.business)
    for name, estimate in evaluation.baselines["logistic_regression"].items():
        assert estimate.value == pytest.approx(beside[name], abs=1e-12)
    assert evaluation.baselines["prior"]["roc_auc"] == Estimate(0.5, 0.5, 0.5)


def test_intervals_are_percentiles_and_only_that_of_the_calibration_error_is_centred():
    _, labels, good, _ = holdout()
    spec = model()
    evaluation = evaluated(spec, seed=3)
    samples = bootstrap({"one": ScoredRows(labels, good, 0.4, spec.business)}, 1_000, 100, 3)["one"]
    for place, name in enumerate(NAMES):
        estimate = evaluation.metrics[name]
        centre = estimate.value if name == "expected_calibration_error" else None
        assert (estimate.low, estimate.high) == pytest.approx(interval(samples[:, place], 0.95, centre=centre))


def test_a_better_candidate_improves_on_its_baseline_also_where_lower_is_better():
    evaluation = evaluated()
    ours, theirs = evaluation.metrics, evaluation.baselines["logistic_regression"]
    for name, improvement in evaluation.comparisons["logistic_regression"].items():
        sign = 1 if PERFORMANCE[name].higher_is_better else -1
        assert improvement.value == pytest.approx(sign * (ours[name].value - theirs[name].value), abs=1e-12)
        assert improvement.low <= improvement.value <= improvement.high or name == "expected_calibration_error"
    for name in ("roc_auc", "log_loss", "brier"):
        assert evaluation.comparisons["logistic_regression"][name].low > 0


def test_against_itself_a_candidate_neither_gains_nor_loses():
    _, _, good, _ = holdout()
    evaluation = evaluated(baselines={"champion": BaselineScores(good, 0.4)})
    assert set(evaluation.comparisons["champion"].values()) == {Estimate(0.0, 0.0, 0.0)}


def test_improvement_may_be_negative_beyond_a_measures_own_range():
    _, labels, _, _ = holdout()
    evaluation = evaluated(scores=1.0 - labels, baselines={"champion": BaselineScores(labels.astype(float), 0.5)})
    assert evaluation.comparisons["champion"]["roc_auc"] == Estimate(-1.0, -1.0, -1.0)
    assert evaluation.comparisons["champion"]["brier"] == Estimate(-1.0, -1.0, -1.0)


def test_a_baseline_that_could_not_be_scored_has_no_values_and_is_still_there():
    evaluation = evaluated(baselines={"champion": None, "prior": BaselineScores(np.full(1_000, math.nan), 0.5)})
    for name in ("champion", "prior"):
        assert evaluation.baselines[name] == dict.fromkeys(NAMES, Estimate(None))
        assert evaluation.comparisons[name] == dict.fromkeys(NAMES, Estimate(None))


def test_the_same_seed_gives_the_same_evaluation_and_another_seed_other_intervals():
    first, again, other = evaluated(seed=1), evaluated(seed=1), evaluated(seed=2)
    assert first == again
    assert first.metrics["roc_auc"].value == other.metrics["roc_auc"].value
    assert first.metrics["roc_auc"].low != other.metrics["roc_auc"].low
    assert first.fairness != other.fairness


@pytest.mark.parametrize("broken", [math.nan, math.inf, -0.1, 1.1])
def test_one_score_that_is_no_probability_leaves_nothing_measured(broken: float):
    _, _, good, _ = holdout()
    good[3] = broken
    evaluation = evaluated(scores=good)
    assert evaluation.invalid_scores == 1
    assert set(evaluation.metrics.values()) == {Estimate(None)}
    assert set(evaluation.comparisons["logistic_regression"].values()) == {Estimate(None)}
    assert evaluation.baselines["logistic_regression"]["roc_auc"].value is not None
    assert (evaluation.confusion, evaluation.roc.x, evaluation.calibration) == (None, (), ())
    assert (evaluation.fairness, evaluation.slices) == ({}, ())


def test_no_rows_leave_nothing_measured():
    frame, _, _, _ = holdout()
    evaluation = evaluated(
        frame=frame[:0], labels=[], scores=[], baselines={"prior": BaselineScores(np.array([]), ALWAYS)}
    )
    assert (evaluation.rows, evaluation.positives) == (0, 0)
    assert set(evaluation.metrics.values()) == {Estimate(None)}


def test_one_class_only_has_no_curves_over_classes():
    evaluation = evaluated(labels=np.ones(1_000, dtype=np.int8))
    assert evaluation.metrics["roc_auc"] == Estimate(None)
    assert evaluation.roc.x == evaluation.precision_recall.x == ()
    assert evaluation.confusion.true_negative == evaluation.confusion.false_positive == 0


def test_an_evaluation_survives_json_without_nan():
    for evaluation in (
        evaluated(),
        evaluated(labels=np.zeros(1_000, dtype=np.int8)),
        evaluated(scores=np.full(1_000, math.nan)),
    ):
        text = json.dumps(evaluation.to_dict(), allow_nan=False)
        assert Evaluation.from_dict(json.loads(text)) == evaluation


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 1, math.nan], [0, 1, -1]])
def test_labels_other_than_0_and_1_are_refused(labels):
    frame, _, _, _ = holdout(3)
    with pytest.raises(DataError, match="accepted: 0 and 1 only"):
        evaluate(model(), frame, labels, [0.1, 0.2, 0.3], 0.5, {}, 0, "w")


def test_a_hold_out_without_a_group_or_slice_column_is_refused_by_name():
    with pytest.raises(DataError, match="hold-out without c, g; accepted"):
        evaluated(frame=holdout()[0][[]])


def test_rows_and_labels_of_different_number_are_refused():
    with pytest.raises(ValueError, match="999 rows and 1000 labels"):
        evaluated(frame=holdout()[0][1:])
    with pytest.raises(ValueError, match="one score for each label"):
        evaluated(scores=[0.5])


# What is drawn


def test_confusion_agrees_with_scikit_learn():
    _, labels, good, _ = holdout()
    confusion = evaluated().confusion
    (tn, fp), (fn, tp) = reference.confusion_matrix(labels, good >= 0.4)
    assert (confusion.true_positive, confusion.false_positive) == (tp, fp)
    assert (confusion.true_negative, confusion.false_negative) == (tn, fn)


def test_curves_run_from_corner_to_corner_through_points_that_exist():
    _, labels, good, _ = holdout()
    evaluation = evaluated()
    roc = evaluation.roc
    assert len(roc.x) == len(roc.y) <= CURVE_POINTS
    assert (roc.x[0], roc.y[0], roc.x[-1], roc.y[-1]) == (0, 0, 1, 1)
    fpr, tpr, _ = reference.roc_curve(labels, good, drop_intermediate=False)
    assert set(zip(roc.x, roc.y, strict=True)) <= set(zip(fpr.tolist(), tpr.tolist(), strict=True))
    assert np.trapezoid(roc.y, roc.x) == pytest.approx(evaluation.metrics["roc_auc"].value, abs=2e-3)
    curve = evaluation.precision_recall
    precision, recall, _ = reference.precision_recall_curve(labels, good)
    assert set(zip(curve.x, curve.y, strict=True)) <= set(zip(recall.tolist(), precision.tolist(), strict=True))
    assert curve.x[-1] == 1
    assert curve.y[-1] == pytest.approx(labels.mean())
    assert len(curve.x) <= CURVE_POINTS


def test_tied_scores_make_one_point_of_the_curves():
    labels = np.array([0, 1] * 500, dtype=np.int8)
    scores = np.where(np.arange(1_000) < 400, 0.2, 0.7)
    roc = evaluated(labels=labels, scores=scores).roc
    assert (roc.x, roc.y) == ((0.0, 0.6, 1.0), (0.0, 0.6, 1.0))


def test_calibration_bins_hold_every_row_once_in_rising_order():
    _, labels, good, _ = holdout()
    evaluation = evaluated()
    bins = evaluation.calibration
    assert sum(one.rows for one in bins) == 1_000
    assert [one.low for one in bins] == sorted(one.low for one in bins)
    assert (bins[0].low, bins[-1].high) == (good.min(), good.max())
    error = sum(one.rows * abs(one.mean_score - one.positive_share) for one in bins) / 1_000
    assert error == pytest.approx(evaluation.metrics["expected_calibration_error"].value, abs=1e-12)
    inside = (good >= bins[3].low) & (good <= bins[3].high)
    assert bins[3].rows == inside.sum()
    assert bins[3].mean_score == pytest.approx(good[inside].mean())
    assert bins[3].positive_share == pytest.approx(labels[inside].mean())


def test_the_histogram_counts_each_class():
    _, labels, good, _ = holdout()
    histogram = evaluated().histogram
    assert len(histogram.edges) == 51
    assert (histogram.edges[0], histogram.edges[-1]) == (0, 1)
    assert histogram.positives == tuple(np.histogram(good[labels == 1], 50, (0, 1))[0].tolist())
    assert histogram.negatives == tuple(np.histogram(good[labels == 0], 50, (0, 1))[0].tolist())


def test_the_value_of_every_threshold_is_the_business_value_at_it():
    _, labels, good, _ = holdout()
    spec = model()
    curve = evaluated(spec).value_by_threshold
    assert len(curve.x) == 101
    for place in (0, 25, 40, 100):
        assert curve.x[place] == place / 100
        wanted = performance(labels, good, place / 100, spec.business)["business_value_per_1000"]
        assert curve.y[place] == pytest.approx(wanted)


# Slices and groups


def test_slices_come_largest_first_with_their_own_figures():
    frame, labels, good, _ = holdout()
    spec = model()
    slices = evaluated(spec).slices
    assert [(one.column, one.value, one.label) for one in slices] == [
        ("c", "u", "upper"),
        ("c", "v", "v"),
        ("c", "w", "w"),
        ("c", "(missing)", "(missing)"),
    ]
    for one in slices[:3]:
        rows = (frame["c"] == one.value).to_numpy()
        assert (one.rows, one.positives) == (rows.sum(), labels[rows].sum())
        wanted = performance(labels[rows], good[rows], 0.4, spec.business)
        for name, estimate in one.metrics.items():
            assert estimate.value == pytest.approx(wanted[name], abs=1e-12)
        assert one.metrics["roc_auc"].low < wanted["roc_auc"] < one.metrics["roc_auc"].high
        assert (one.verdict, one.reason) == (Verdict.PASS, "within the model's own bounds")


def test_a_slice_too_small_is_no_data_and_says_how_many_rows_it_lacks():
    frame, _, _, _ = holdout()
    missing = int(frame["c"].isna().sum())
    small = evaluated().slices[-1]
    assert (small.verdict, small.metrics) == (Verdict.NO_DATA, {})
    assert small.reason == f"{missing} rows, 50 needed to judge"
    assert evaluated(model(min_group_rows=missing)).slices[-1].metrics != {}
    assert evaluated(model(min_group_rows=missing + 1)).slices[-1].metrics == {}


def test_a_slice_wholly_beyond_the_models_own_bound_warns_with_both_numbers():
    frame, _, good, _ = holdout()
    turned = np.where(frame["c"] == "v", 1 - good, good)
    warned = {one.value: one for one in evaluated(scores=turned).slices}
    assert warned["v"].verdict is Verdict.WARN
    best = warned["v"].metrics["roc_auc"].high
    assert f"roc_auc at best {best:.4g}, asked of the model: ≥ 0.6" in warned["v"].reason
    lowest = warned["v"].metrics["brier"].low
    assert f"; brier at best {lowest:.4g}, asked of the model: ≤ 0.24" in warned["v"].reason
    assert warned["u"].verdict is Verdict.PASS


def test_a_slice_whose_interval_reaches_the_bound_does_not_warn():
    bound = evaluated().slices[0].metrics["roc_auc"].value + 1e-6
    one = evaluated(model(gates=[{"metric": "roc_auc", "min": bound}])).slices[0]
    assert one.verdict is Verdict.PASS


def test_a_slice_of_one_class_is_no_data():
    frame, labels, _, _ = holdout()
    labels[(frame["c"] == "w").to_numpy()] = 0
    spec = model(gates=[{"metric": "roc_auc", "min": 0.6}])
    one = next(one for one in evaluated(spec, labels=labels).slices if one.value == "w")
    assert (one.verdict, one.positives) == (Verdict.NO_DATA, 0)
    assert one.reason == "no value or no interval of roc_auc"


def test_slices_are_judged_by_bounds_only():
    gates = [
        {"metric": "roc_auc", "min": 0.6},
        {"metric": "roc_auc", "against": "prior", "min_difference": 0.45},
        {"metric": "demographic_parity_difference", "over": ["gender"], "max": 0.0},
    ]
    assert evaluated(model(gates=gates)).slices[0].verdict is Verdict.PASS


@pytest.mark.requirement("R5.6")
def test_groups_are_compared_at_the_models_threshold():
    frame, labels, good, _ = holdout()
    table = evaluated().fairness["gender"]
    female = next(figures for figures in table.groups if figures.group == "f")
    rows = (frame["g"] == "f").to_numpy()
    assert (female.label, female.rows) == ("female", rows.sum())
    assert female.selected == (good[rows] >= 0.4).sum()
    assert female.true_positives == ((good[rows] >= 0.4) & (labels[rows] == 1)).sum()


# The prior's decision


@pytest.mark.parametrize(("rate", "threshold"), [(0.0, NEVER), (0.2, NEVER), (0.5, ALWAYS), (1.0, ALWAYS)])
def test_the_prior_decides_whatever_is_worth_more(rate: float, threshold: float):
    worth = Business(currency="EUR", decision="x", true_positive=2, false_positive=-1)
    assert prior_threshold(rate, worth) == threshold


def test_the_priors_decision_counts_the_worth_of_negatives():
    worth = Business(
        currency="EUR", decision="x", true_positive=1, false_positive=0, true_negative=3, false_negative=-5
    )
    # At r: always r; never -5 r + 3 (1 - r); equal at one third, where nothing is done.
    assert prior_threshold(1 / 3 + 1e-9, worth) == ALWAYS
    assert prior_threshold(1 / 3 - 1e-9, worth) == NEVER
    equal = Business(currency="EUR", decision="x", true_positive=1, false_positive=-1)
    assert prior_threshold(0.5, equal) == NEVER
