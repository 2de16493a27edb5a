"""A feature that drifted is a warning, and one that nobody could measure is no data."""

import math

import pytest

from lifecycle.drift import MIN_ROWS, judge_drift
from lifecycle.findings import Verdict
from lifecycle.spec import ModelSpec

pytestmark = pytest.mark.requirement("R5.3")


def spec(**monitoring):
    return ModelSpec.model_validate(
        {
            "name": "m",
            "description": "d",
            "owner": {"team": "t", "contact": "c"},
            "tier": "main",
            "sensitivity": "non_sensitive",
            "source": {"table": "t", "timestamp": "ts", "entity_key": "id"},
            "label": {"column": "y", "meaning": "yes"},
            "features": [{"name": "x", "type": "numeric"}, {"name": "c", "type": "categorical"}],
            "evaluation": {"gates": [{"metric": "roc_auc", "min": 0.6}]},
            "business": {"currency": "EUR", "decision": "call", "true_positive": 1, "false_positive": -1},
            "monitoring": monitoring,
        }
    )


@pytest.mark.parametrize(
    ("distance", "rows", "verdict"),
    [
        (0.0, MIN_ROWS, Verdict.PASS),
        (0.1, MIN_ROWS, Verdict.PASS),
        (0.1001, MIN_ROWS, Verdict.WARN),
        (0.0, MIN_ROWS - 1, Verdict.NO_DATA),
        (9.0, MIN_ROWS - 1, Verdict.NO_DATA),
        (None, 10_000, Verdict.NO_DATA),
        (math.nan, 10_000, Verdict.NO_DATA),
        (math.inf, 10_000, Verdict.NO_DATA),
    ],
)
def test_a_distance_above_the_threshold_warns_and_a_missing_one_is_no_data(distance, rows, verdict):
    found = judge_drift(spec(), {"x": distance, "c": 0.0}, {"x": rows, "c": 10_000}, window="w")
    assert [finding.verdict for finding in found] == [verdict, Verdict.PASS]
    assert (found[0].measure, found[1].measure) == ("wasserstein_distance", "kl_divergence")
    assert (found[0].subject, found[0].threshold, found[0].window, found[0].count) == ("x", 0.1, "w", rows)


def test_the_threshold_is_the_model_files():
    found = judge_drift(spec(drift=0.5), {"x": 0.4, "c": 0.6}, {"x": 500, "c": 500}, window="w")
    assert [finding.verdict for finding in found] == [Verdict.PASS, Verdict.WARN]


def test_a_feature_that_was_not_measured_is_not_left_out():
    found = judge_drift(spec(), {}, {}, window="w")
    assert [(finding.subject, finding.verdict) for finding in found] == [("x", Verdict.NO_DATA), ("c", Verdict.NO_DATA)]
