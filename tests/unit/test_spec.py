from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from lifecycle.findings import Direction
from lifecycle.spec import Duration, Environment, Gate, ModelSpec

MINIMAL = {
    "name": "churn",
    "description": "who leaves",
    "owner": {"team": "ML", "contact": "#ml"},
    "tier": "main",
    "sensitivity": "sensitive",
    "source": {"table": "members", "timestamp": "at", "entity_key": "id"},
    "label": {"column": "churned", "meaning": "leaves"},
    "features": [
        {"name": "age", "type": "numeric", "min": 0, "max": 120},
        {"name": "plan", "type": "categorical"},
    ],
    "sensitive": [{"name": "gender", "column": "sex"}],
    "evaluation": {"gates": [{"metric": "roc_auc", "min": 0.6}]},
    "business": {"currency": "EUR", "decision": "call", "true_positive": 5, "false_positive": -1},
}


def spec(**changes):
    return ModelSpec.model_validate({**MINIMAL, **changes})


def refusal(**changes):
    with pytest.raises(ValidationError) as error:
        spec(**changes)
    return str(error.value)


@pytest.mark.requirement("R3.4", "R8.1", "R5.3", "R5.4", "R5.6", "R4.1", "R6.3")
def test_defaults_are_the_plans_numbers():
    model = spec()
    assert (model.source.window, model.source.max_rows) == ("6mo", 1_000_000)
    assert model.rollout.steps[0] == 0.10
    rollback = model.rollout.rollback
    assert (rollback.performance_drop, rollback.error_rate, rollback.latency_ratio) == (0.20, 0.10, 2.0)
    monitoring = model.monitoring
    assert (monitoring.drift, monitoring.concept_drift, monitoring.bias, monitoring.resource_use) == (
        0.1,
        0.1,
        0.05,
        0.8,
    )


@pytest.mark.requirement("R3.1")
@pytest.mark.parametrize(
    ("tier", "schedule", "expected"),
    [("main", "by_tier", "weekly"), ("secondary", "by_tier", "monthly"), ("secondary", "weekly", "weekly")],
)
def test_main_models_are_retrained_weekly_and_secondary_ones_monthly(tier, schedule, expected):
    assert spec(tier=tier, retraining={"schedule": schedule}).schedule == expected


@pytest.mark.parametrize("key", ["colour", "Name"])
def test_an_unknown_key_is_refused(key):
    assert "Extra inputs are not permitted" in refusal(**{key: 1})


@pytest.mark.parametrize(
    ("text", "moment", "earlier"),
    [
        ("15m", datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 2, 29, 23, 45, tzinfo=UTC)),
        ("24h", datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 2, 29, tzinfo=UTC)),
        ("2w", datetime(2024, 3, 15, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
        ("6mo", datetime(2024, 8, 31, tzinfo=UTC), datetime(2024, 2, 29, tzinfo=UTC)),
        ("1y", datetime(2024, 2, 29, tzinfo=UTC), datetime(2023, 2, 28, tzinfo=UTC)),
        ("3d", datetime(2024, 3, 4, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
    ],
)
def test_a_duration_counts_by_the_calendar(text, moment, earlier):
    assert Duration(text).before(moment) == earlier


def test_a_duration_goes_forward_as_well():
    assert Duration("1mo").after(datetime(2024, 1, 31, tzinfo=UTC)) == datetime(2024, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "6", "mo", "-1d", "1.5h", "6 mo", "6months", "1D"])
def test_what_is_no_duration_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"is not a duration; accepted: .* as in 6mo"):
        Duration(text)


@pytest.mark.requirement("R3.4")
@pytest.mark.parametrize(
    ("feature", "why"),
    [
        ("churned", "the label"),
        ("id", "the entity key"),
        ("at", "the timestamp"),
        ("paid_later", "known only after the event"),
    ],
)
def test_what_is_not_known_at_prediction_time_is_no_feature(feature, why):
    features = [*MINIMAL["features"], {"name": feature, "type": "numeric"}]
    assert why in refusal(features=features, after_event=["paid_later"])


def test_a_feature_stands_once():
    assert "features: plan stands twice" in refusal(features=[*MINIMAL["features"], MINIMAL["features"][1]])


@pytest.mark.requirement("R5.6")
def test_a_gate_over_an_undeclared_attribute_is_refused():
    gate = {"metric": "demographic_parity_difference", "over": ["gender", "region"], "max": 0.05}
    assert "'region' is not a sensitive attribute; accepted: gender" in refusal(evaluation={"gates": [gate]})
    assert "'region'" in refusal(training={"mitigation": {"method": "reweighing", "attribute": "region"}})


def test_slices_are_categorical_features():
    assert "evaluation.slices: age is not a categorical feature" in refusal(
        evaluation={"gates": MINIMAL["evaluation"]["gates"], "slices": ["age"]}
    )


@pytest.mark.requirement("R7.3")
@pytest.mark.parametrize(
    "gate",
    [
        {"metric": "roc_auc", "min": 0.0},  # met by everything
        {"metric": "roc_auc", "min": 1.2},  # met by nothing
        {"metric": "brier", "max": 1.0},
        {"metric": "log_loss", "max": -0.1},
        {"metric": "roc_auc", "against": "prior", "min_difference": -1.0},
        {"metric": "demographic_parity_difference", "over": ["gender"], "max": 1.0},
    ],
)
def test_a_threshold_that_cannot_be_crossed_is_refused(gate):
    with pytest.raises(ValidationError, match="can never"):
        Gate.model_validate(gate)


@pytest.mark.requirement("R7.3")
@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ({"metric": "roc_auc"}, "has no bound"),
        ({"metric": "roc_auc", "min": 0.5, "max": 0.9}, "min and max"),
        ({"metric": "roc_auc", "against": "champion", "min": 0.5}, "accepted: min_difference"),
        ({"metric": "roc_auc", "min_difference": 0.1}, "accepted: min or max, and only one"),
        ({"metric": "auc", "min": 0.5}, "unknown metric 'auc'; accepted: roc_auc"),
        ({"metric": "roc_auc", "min": 0.5, "over": ["gender"]}, "over is given exactly for fairness measures"),
        ({"metric": "equal_opportunity_difference", "max": 0.05}, "over is given exactly for fairness measures"),
        ({"metric": "equal_opportunity_difference", "max": 0.05, "over": []}, "over is given exactly"),
        (
            {"metric": "equal_opportunity_difference", "over": ["g"], "against": "prior", "min_difference": 0.1},
            "not against a baseline",
        ),
    ],
)
def test_a_gate_of_no_known_form_is_refused(gate, message):
    with pytest.raises(ValidationError, match=message):
        Gate.model_validate(gate)


def test_a_gate_knows_its_name_bound_and_direction():
    bound = Gate.model_validate({"metric": "brier", "max": 0.2})
    assert (bound.name, bound.threshold, bound.direction) == ("brier", 0.2, Direction.AT_MOST)
    floor = Gate.model_validate({"metric": "roc_auc", "min": 0.6})
    assert (floor.name, floor.threshold, floor.direction) == ("roc_auc", 0.6, Direction.AT_LEAST)
    relative = Gate.model_validate({"metric": "brier", "against": "champion", "min_difference": -0.01})
    assert (relative.name, relative.threshold) == ("brier against champion", -0.01)
    assert relative.direction is Direction.AT_LEAST


def test_a_threshold_has_one_owner():
    gates = [{"metric": "roc_auc", "min": 0.6}, {"metric": "roc_auc", "min": 0.7}]
    assert "gate 'roc_auc' stands twice" in refusal(evaluation={"gates": gates})


def test_gates_are_never_absent():
    assert "at least 1 item" in refusal(evaluation={"gates": []})


@pytest.mark.parametrize("steps", [[0.1, 0.5], [0.5, 0.1, 1.0], [0.1, 0.1, 1.0]])
def test_traffic_steps_rise_to_all(steps):
    assert "rising shares of traffic that end at 1.0" in refusal(rollout={"steps": steps})


@pytest.mark.parametrize(
    "values",
    [{"true_positive": -1, "false_positive": -1}, {"true_positive": 0}, {"false_positive": 0}, {"true_negative": -2}],
)
def test_being_right_must_pay(values):
    assert "being right is worth no more than being wrong" in refusal(business={**MINIMAL["business"], **values})


@pytest.mark.parametrize(
    "join",
    [
        {"table": "t", "keys": ["k"], "columns": {"a": "b"}, "known_after": "1h"},
        {"table": "t", "keys": ["k"], "columns": {"a": "b"}, "max_age": "1h"},
    ],
)
def test_times_of_a_join_need_its_timestamp(join):
    assert "need the join's timestamp" in refusal(source={**MINIMAL["source"], "joins": [join]})


@pytest.mark.parametrize(("strategy", "group"), [("grouped", None), ("time", "plan")])
def test_a_group_goes_with_the_grouped_split(strategy, group):
    message = refusal(training={"split": {"strategy": strategy, "group": group}})
    assert "group is given exactly when strategy is grouped" in message


@pytest.mark.parametrize(
    "limits", [{"low": 2, "high": 1}, {"low": 0, "high": 1, "log": True}, {"low": -1, "high": 1, "log": True}]
)
def test_a_searched_range_is_ordered(limits):
    assert "accepted: low not above high" in refusal(training={"search": {"learning_rate": limits}})


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1)])
def test_a_features_range_is_ordered(low, high):
    assert "is not below" in refusal(features=[{"name": "age", "type": "numeric", "min": low, "max": high}])


def test_features_are_told_apart_in_the_files_order():
    model = spec()
    assert model.feature_names == ["age", "plan"]
    assert [feature.name for feature in model.numeric] == ["age"]
    assert [feature.name for feature in model.categorical] == ["plan"]


@pytest.mark.requirement("R1.2")
def test_a_fingerprint_follows_content_and_only_the_named_sections():
    assert spec().fingerprint() == spec(training={"trials": 20}).fingerprint()  # the default, written out
    other = spec(training={"trials": 21})
    assert spec().fingerprint() != other.fingerprint()
    assert spec().fingerprint("features", "label") == other.fingerprint("features", "label")
    assert len(spec().fingerprint()) == 16


def test_an_environment_is_closed_too():
    with pytest.raises(ValidationError):
        Environment.model_validate({"name": "staging", "skip_gates": True})
