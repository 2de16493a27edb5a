"""Bias is judged on the labels there are, over intersections, beside chance and beside the reference."""

import math

import numpy as np
import pytest
from fairlearn import metrics as fairlearn
from scipy import stats
from sklearn.metrics import precision_score

from lifecycle.bias import intersections, judge_bias, told_apart, window_fairness
from lifecycle.findings import Verdict
from lifecycle.spec import Evaluation

pytestmark = pytest.mark.requirement("R5.6")

RULES = Evaluation.model_validate({"gates": [{"metric": "roc_auc", "min": 0.6}], "bootstrap": 200})
PARITY, OPPORTUNITY, PREDICTIVE = (
    "demographic_parity_difference",
    "equal_opportunity_difference",
    "predictive_parity_difference",
)


def window(rows, seed, *, gap=0.0, labelled=1.0):
    """Two groups; group b is selected less often by `gap`."""
    rng = np.random.default_rng(seed)
    groups = rng.choice(["a", "b"], rows)
    labels = (rng.random(rows) < 0.4).astype(float)
    decisions = (rng.random(rows) < 0.2 + 0.5 * labels - gap * (groups == "b")).astype(int)
    labels[rng.random(rows) >= labelled] = math.nan
    return groups, labels, decisions


def judged(rows, seed, reference=None, **more):
    current = window_fairness("who", *window(rows, seed, **more), RULES)
    return {f.measure: f for f in judge_bias(current, reference, 0.05, RULES, window="w")}


def test_differences_are_fairlearns_each_on_the_rows_it_needs():
    groups, labels, decisions = window(6_000, 1, gap=0.1, labelled=0.5)
    found = judged(6_000, 1, gap=0.1, labelled=0.5)
    known = ~np.isnan(labels)
    assert found[PARITY].value == pytest.approx(
        fairlearn.demographic_parity_difference(decisions, decisions, sensitive_features=groups), abs=1e-6
    )
    on_labelled = labels[known], decisions[known]
    assert found[OPPORTUNITY].value == pytest.approx(
        fairlearn.equal_opportunity_difference(*on_labelled, sensitive_features=groups[known]),
        abs=1e-6,
    )
    frame = fairlearn.MetricFrame(
        metrics=precision_score, y_true=on_labelled[0], y_pred=on_labelled[1], sensitive_features=groups[known]
    )
    assert found[PREDICTIVE].value == pytest.approx(frame.difference(), abs=1e-6)
    assert found[PARITY].count > found[OPPORTUNITY].count


def test_before_any_label_only_demographic_parity_has_a_value():
    found = judged(4_000, 2, gap=0.15, labelled=0.0)
    assert found[PARITY].verdict is Verdict.FAIL
    assert {found[OPPORTUNITY].verdict, found[PREDICTIVE].verdict} == {Verdict.NO_DATA}
    assert "a 0." in found[PARITY].reason


def test_small_groups_do_not_make_chance_a_bias():
    found = [judged(500, seed)[PARITY] for seed in range(40)]
    assert any(one.value > 0.05 for one in found)
    assert {one.verdict for one in found} == {Verdict.PASS}


def test_a_rise_of_more_than_a_point_over_the_reference_warns_below_the_limit_too():
    reference = window_fairness("who", *window(60_000, 3), RULES)
    found = judged(60_000, 4, reference, gap=0.04)
    assert found[PARITY].verdict is Verdict.PASS
    assert found[f"{PARITY}_rise"].verdict is Verdict.WARN
    assert found[f"{PARITY}_rise"].threshold == 0.01
    quiet = judged(3_000, 5, reference)
    assert quiet[f"{PARITY}_rise"].verdict is Verdict.PASS


def test_quiet_windows_are_told_as_biased_no_more_often_than_stated():
    reference = window_fairness("who", *window(20_000, 3), RULES)
    alarms = sum(
        any(f.verdict in (Verdict.WARN, Verdict.FAIL) for f in judged(1_500, 100 + seed, reference).values())
        for seed in range(200)
    )
    assert alarms <= stats.binom.isf(0.001, 200, 0.01)


def test_groups_of_one_outcome_are_alike():
    groups = np.repeat(["a", "b"], 400)
    current = window_fairness("who", groups, np.ones(800), np.ones(800), RULES)
    assert {f.verdict for f in judge_bias(current, current, 0.05, RULES, window="w")} == {Verdict.PASS}


def test_intersections_are_every_combination_and_small_ones_are_left_unsaid():
    found = intersections({"g": ["m", "f", None], "r": ["x", "x", "y"], "e": [1, 2, 3]})
    assert list(found) == ["g", "r", "e", "g × r", "g × e", "r × e", "g × r × e"]
    assert found["g × r"].tolist() == ["m × x", "f × x", "(missing) × y"]
    current = window_fairness("g × r", found["g × r"], [1, 0, 1], [1, 0, 1], RULES)
    findings = judge_bias(current, None, 0.05, RULES, window="w")
    assert {finding.verdict for finding in findings} == {Verdict.NO_DATA}
    assert told_apart(findings) == []


def test_bias_that_only_an_intersection_shows_is_found_there():
    rng = np.random.default_rng(6)
    gender, region = rng.choice(["m", "f"], 8_000), rng.choice(["x", "y"], 8_000)
    odd = (gender == "m") == (region == "x")
    decisions = (rng.random(8_000) < np.where(odd, 0.5, 0.3)).astype(int)
    found = {}
    for name, groups in intersections({"gender": gender, "region": region}).items():
        current = window_fairness(name, groups, np.full(8_000, math.nan), decisions, RULES)
        found[name] = judge_bias(current, None, 0.05, RULES, window="w")[0].verdict
    assert found == {"gender": Verdict.PASS, "region": Verdict.PASS, "gender × region": Verdict.FAIL}
