"""Performance estimated without labels is NannyML's, says that it is estimated, and is dropped when labels contradict it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.isotonic import IsotonicRegression

from lifecycle.errors import DataError
from lifecycle.estimation import (
    EstimateCheck,
    check_estimate,
    estimate_performance,
    fit_score_calibration,
    judge_estimate,
    judge_trust,
)
from lifecycle.evaluation import Estimate
from lifecycle.findings import Verdict
from lifecycle.performance import measure_performance
from lifecycle.spec import Business

pytestmark = pytest.mark.requirement("R5.4")

BUSINESS = Business(currency="EUR", decision="call", true_positive=5, false_positive=-1)
CAR_LOAN = json.loads((Path(__file__).parent / "data" / "nannyml_car_loan.json").read_text())


def rows_of(counts):
    """Labels and scores of a table {score in hundredths: [negatives, positives]}."""
    labels = np.concatenate([np.repeat([0.0, 1.0], pair) for pair in counts.values()])
    scores = np.concatenate([np.full(sum(pair), int(score) / 100) for score, pair in counts.items()])
    return labels, scores


@pytest.mark.parametrize("chunk", CAR_LOAN["chunks"], ids=range(len(CAR_LOAN["chunks"])))
def test_estimates_are_nannymls_on_its_own_published_data(chunk):
    """NannyML 0.13.1 on its synthetic car loan data (Apache-2.0), decisions at 0.5, in chunks of 5,000.

    The fixture holds the data as counts and what NannyML gave, made in an environment of its own with
    ``uv pip install nannyml==0.13.1 statsmodels`` by ``CBPE(problem_type="classification_binary",
    y_pred_proba="y_pred_proba", y_pred="y_pred", y_true="repaid", metrics=[...], chunk_size=5000).fit(reference)
    .estimate(analysis)``, once as it comes (it finds that calibration is needed) and once with ``needs_calibration``
    set to False.
    """
    calibration = fit_score_calibration(*rows_of(CAR_LOAN["reference"]))
    labels, scores = rows_of(chunk["counts"])
    for key, given in (("isotonic", calibration), ("uncalibrated", None)):
        found = estimate_performance(scores, 0.5, BUSINESS, given, resamples=0).metrics
        assert [found[name].value for name in CAR_LOAN["metrics"]] == pytest.approx(chunk[key], abs=1e-6)
    checks = check_estimate(labels, scores, 0.5, BUSINESS, calibration, window="w", measures=CAR_LOAN["metrics"])
    assert [check.measured for check in checks] == pytest.approx(chunk["realized"], abs=1e-9)


def test_calibration_is_scikit_learns_isotonic_regression():
    rng = np.random.default_rng(0)
    scores = rng.random(2_000).round(3)
    labels = rng.random(2_000) < scores**2
    points = np.concatenate([rng.random(500), [0.0, 1.0]])
    theirs = IsotonicRegression(out_of_bounds="clip").fit(scores, labels).predict(points)
    np.testing.assert_allclose(fit_score_calibration(labels, scores).apply(points), theirs, atol=1e-9)


@pytest.mark.parametrize(("labels", "scores"), [([1, 1], [0.1, 0.2]), ([], []), ([0, 1], [0.5, math.nan])])
def test_what_cannot_be_calibrated_is_refused(labels, scores):
    with pytest.raises(DataError, match="cannot be calibrated"):
        fit_score_calibration(labels, scores)


def quiet(rows, seed, *, upside_down=False):
    rng = np.random.default_rng(seed)
    scores = rng.beta(1, 2, rows)
    truth = scores[::-1] if upside_down else scores
    return (rng.random(rows) < truth).astype(float), scores


def test_intervals_hold_the_truth_as_often_as_they_say_while_scores_mean_what_they_meant():
    names = ["roc_auc", "accuracy", "precision", "recall", "f1", "brier", "business_value_per_1000"]
    checks = [
        check_estimate(*quiet(1_000, seed), 0.4, BUSINESS, None, window=str(seed), measures=names, resamples=200)
        for seed in range(80)
    ]
    for place, name in enumerate(names):
        held = sum(bool(one[place].covered) for one in checks)
        # 95 % of 80, but for a chance of one in a thousand on either side; 200 draws cost a little of the level.
        assert stats.binom.ppf(0.001, 80, 0.93) <= held <= stats.binom.ppf(0.999, 80, 0.97), name


def test_no_rows_and_invalid_scores_have_no_estimate():
    for scores in ([], [0.5, math.nan]):
        found = estimate_performance(scores, 0.5, BUSINESS, None)
        assert {estimate.value for estimate in found.metrics.values()} == {None}
        (finding,) = judge_estimate({"roc_auc": Estimate(0.8)}, found, 0.1, window="w", min_rows=0)
        assert finding.verdict is Verdict.NO_DATA


def test_an_estimate_always_says_that_it_is_one_and_only_warns():
    rng = np.random.default_rng(0)
    vague = estimate_performance(rng.uniform(0.45, 0.55, 3_000), 0.5, BUSINESS, None)
    (found,) = judge_estimate({"roc_auc": Estimate(0.8)}, vague, 0.1, window="w")
    assert (found.measure, found.verdict) == ("estimated_roc_auc_loss", Verdict.WARN)
    assert "(estimated without labels)" in found.reason
    (untrusted,) = judge_estimate({"roc_auc": Estimate(0.8)}, vague, 0.1, window="w", trusted=False)
    assert untrusted.verdict is Verdict.NO_DATA
    assert "not to be trusted" in untrusted.reason


def test_concept_drift_makes_the_estimate_untrusted_at_its_first_labels():
    sound = [
        check
        for seed in range(8)
        for check in check_estimate(*quiet(800, seed), 0.4, BUSINESS, None, window=f"w{seed}")
    ]
    assert judge_trust(sound).verdict is Verdict.PASS
    assert "newest error" in judge_trust(sound).reason
    broken = check_estimate(*quiet(800, 99, upside_down=True), 0.4, BUSINESS, None, window="w9")
    found = judge_trust([*sound, *broken])
    assert found.verdict is Verdict.FAIL
    assert "not to be trusted" in found.reason


def checks(*truths, rows=1_000):
    return [EstimateCheck("roc_auc", f"w{n}", Estimate(0.8, 0.78, 0.82), t, rows) for n, t in enumerate(truths)]


def test_many_truths_a_little_outside_contradict_as_one_far_outside_does():
    assert judge_trust(checks(*[0.8] * 9, 0.825)).verdict is Verdict.PASS
    assert judge_trust(checks(0.825, 0.825, 0.775, 0.825, 0.8)).verdict is Verdict.FAIL
    assert judge_trust(checks(0.8, 0.8, 0.86)).verdict is Verdict.FAIL
    point = EstimateCheck("roc_auc", "w", Estimate(0.8, 0.8, 0.8), 0.81, 1_000)
    assert judge_trust([*checks(*[0.8] * 60), point]).verdict is Verdict.FAIL


def test_without_enough_labels_the_estimator_has_no_record():
    assert judge_trust([]).verdict is Verdict.NO_DATA
    assert judge_trust(checks(0.5, rows=50)).verdict is Verdict.NO_DATA
    assert judge_trust(checks(None)).verdict is Verdict.NO_DATA
    assert checks(None)[0].error is None


def test_a_sound_estimator_is_told_off_no_more_often_than_stated():
    rng = np.random.default_rng(4)
    reach = 0.02
    told_off = sum(
        judge_trust(checks(*(0.8 + reach / stats.norm.isf(0.025) * rng.normal(size=12)))).verdict is Verdict.FAIL
        for _ in range(1_000)
    )
    assert told_off <= stats.binom.isf(0.001, 1_000, 0.01)


def test_many_windows_of_a_short_reference_do_not_contradict_a_sound_estimator():
    """The reference's own luck is in every estimate: 12 windows as large as it, 12 times over."""
    told_off = {"with the reference's reach": 0, "without": 0}
    for seed in range(12):
        labels, scores = quiet(2_000, 1_000 + seed)
        calibration = fit_score_calibration(labels, scores)
        known = measure_performance(labels, scores, 0.5, BUSINESS, resamples=100).metrics
        for name, reference in zip(told_off, (known, None), strict=True):
            checks = [
                one
                for window in range(12)
                for one in check_estimate(
                    *quiet(2_000, 100 * seed + window), 0.5, BUSINESS, calibration, window=str(window),
                    reference=reference, resamples=100,
                )
            ]  # fmt: skip
            told_off[name] += judge_trust(checks, alpha=0.01).verdict is Verdict.FAIL
    assert told_off["with the reference's reach"] <= 1
    assert told_off["without"] >= 2


def test_a_reference_without_an_interval_widens_nothing():
    labels, scores = quiet(500, 3)
    plain, same = (
        check_estimate(labels, scores, 0.5, BUSINESS, None, window="w", reference=reference)
        for reference in (None, {"roc_auc": Estimate(0.7)})
    )
    assert plain == same
