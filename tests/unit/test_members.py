"""The generated table does what its plan declares, no more and no less: otherwise it cannot judge a monitor."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.errors import ConfigError
from lifecycle.members import (
    CATEGORICAL,
    EFFECTIVE,
    FEATURES,
    NUMERIC,
    Bias,
    BreakKind,
    Categorical,
    ConceptDrift,
    Drift,
    MemberPlan,
    Members,
    Planted,
    QualityBreak,
    drift_distance,
    expected_auc,
    generate,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
MIDDLE = datetime(2026, 4, 1, tzinfo=UTC)
END = datetime(2026, 7, 1, tzinfo=UTC)
ROWS = 16_384
GOLDEN = {
    "numbers": 39.155950393947435,
    "probability": 0.2377038030045615,
    "probability_squared": 0.12271055206101056,
    "bayes_auc": 0.867841243137405,
    "churned": 3850,
}


NOTHING = MemberPlan()


def table(plan: MemberPlan = NOTHING, rows: int = ROWS, seed: int = 7, first: int = 0) -> Members:
    return generate(plan, rows, seed, START, END, first=first)


def days_since(frame: pd.DataFrame, moment: datetime) -> np.ndarray:
    return ((frame["observed_at"] - pd.Timestamp(moment)) / pd.Timedelta("1D")).to_numpy()


@pytest.fixture(scope="module")
def plain() -> Members:
    return table()


def test_the_table_has_the_declared_columns_types_and_times(plain: Members) -> None:
    frame = plain.frame
    assert list(frame.columns) == ["member_id", "observed_at", *FEATURES, "outcome"]
    assert (len(NUMERIC), len(CATEGORICAL)) == (20, 10)
    assert frame["member_id"].iloc[0] == "m0000000000"
    assert frame["member_id"].is_unique
    assert str(frame["observed_at"].dtype) == "datetime64[us, UTC]"
    assert frame["observed_at"].between(START, END, inclusive="left").all()
    assert all(frame[feature.name].dtype == np.float64 for feature in NUMERIC)
    assert all(set(frame[feature.name].dropna()) == set(feature.categories) for feature in CATEGORICAL)
    assert set(frame["outcome"]) == {"retained", "churned"}
    assert len(plain.truth.probability) == len(plain.truth.flipped) == ROWS


def test_rows_are_spread_evenly_over_the_time_asked_for(plain: Members) -> None:
    share = (days_since(plain.frame, START) / ((END - START) / timedelta(days=1))).mean()
    assert abs(share - 0.5) < 4 * math.sqrt(1 / 12 / ROWS)


def test_a_zone_other_than_utc_names_the_same_instants(plain: Members) -> None:
    east = timezone(timedelta(hours=5))
    moved = generate(MemberPlan(), 100, 7, START.astimezone(east), END.astimezone(east))
    pd.testing.assert_frame_equal(moved.frame, plain.frame.iloc[:100])


@pytest.mark.parametrize("feature", NUMERIC, ids=lambda feature: feature.name)
def test_numbers_follow_their_declared_distribution(plain: Members, feature: object) -> None:
    values = plain.frame[feature.name].dropna()
    assert values.between(feature.low, feature.high).all()
    expected = feature.values(np.random.default_rng(0).standard_normal(200_000))
    assert abs(values.mean() - expected.mean()) < 5 * expected.std() / math.sqrt(len(values))
    assert abs((values <= np.median(expected)).mean() - (expected <= np.median(expected)).mean()) < 0.02


@pytest.mark.parametrize("feature", CATEGORICAL, ids=lambda feature: feature.name)
def test_categories_have_their_declared_shares(plain: Members, feature: Categorical) -> None:
    shares = plain.frame[feature.name].value_counts(normalize=True)
    for category, weight in feature.weights.items():
        assert abs(shares[category] - weight) < 5 * math.sqrt(weight / ROWS)


def test_nulls_have_their_declared_share_and_stand_nowhere_else(plain: Members) -> None:
    missing = plain.frame.isna().mean()
    by_device = plain.frame["satisfaction_score"].isna().groupby(plain.frame["device"]).mean()
    for device, share in {"desktop": 0.10, "mixed": 0.15, "mobile": 0.45}.items():
        assert abs(by_device[device] - share) < 0.03
    for name, feature in FEATURES.items():
        if name != "satisfaction_score":
            assert abs(missing[name] - feature.missing) <= 5 * math.sqrt(feature.missing / ROWS)
    assert missing[["member_id", "observed_at", "outcome"]].sum() == 0


def test_features_of_one_member_belong_together(plain: Members) -> None:
    ranks = plain.frame[["sessions_30d", "decks_created_90d", "days_since_last_session", "days_to_renewal"]].rank()
    correlation = ranks.corr()["sessions_30d"]
    assert correlation["decks_created_90d"] > 0.45
    assert correlation["days_since_last_session"] < -0.45
    assert abs(correlation["days_to_renewal"]) < 0.05


def test_the_outcome_follows_the_declared_probability(plain: Members) -> None:
    churned = (plain.frame["outcome"] == "churned").to_numpy()
    probability = plain.truth.probability
    for low in np.arange(0.0, 1.0, 0.2):
        inside = (probability >= low) & (probability < low + 0.2)
        error = math.sqrt(probability[inside].mean() / inside.sum())
        assert abs(churned[inside].mean() - probability[inside].mean()) < 4 * error
    assert not plain.truth.flipped.any()


def test_the_table_of_a_seed_never_changes(plain: Members) -> None:
    """Figures of an earlier run stay comparable only as long as these sums stand."""
    numbers = plain.frame.select_dtypes("number").mean()
    assert float(np.log1p(numbers.abs()).sum()) == pytest.approx(GOLDEN["numbers"], rel=1e-9)
    assert float(plain.truth.probability.mean()) == pytest.approx(GOLDEN["probability"], rel=1e-9)
    assert float((plain.truth.probability**2).mean()) == pytest.approx(GOLDEN["probability_squared"], rel=1e-9)
    assert plain.truth.bayes_auc == pytest.approx(GOLDEN["bayes_auc"], rel=1e-9)
    assert int((plain.frame["outcome"] == "churned").sum()) == GOLDEN["churned"]


def test_the_same_seed_gives_the_same_table_and_another_seed_another(plain: Members) -> None:
    pd.testing.assert_frame_equal(table(rows=500).frame, plain.frame.iloc[:500])
    assert not table(rows=500, seed=8).frame["storage_mb"].equals(plain.frame["storage_mb"].iloc[:500])


@settings(max_examples=20)
@given(first=st.integers(0, 2 * ROWS), rows=st.integers(1, 600))
def test_a_part_equals_the_same_rows_of_the_whole(first: int, rows: int) -> None:
    whole = _whole()
    part = table(rows=rows, first=first)
    pd.testing.assert_frame_equal(
        part.frame, whole.frame.iloc[first : first + rows].reset_index(drop=True), check_index_type=False
    )
    assert np.array_equal(part.truth.probability, whole.truth.probability[first : first + rows])
    assert len(part.truth.flipped) == rows


def _whole(cache: dict[str, Members] = {}) -> Members:  # noqa: B006  one table for all examples
    if not cache:
        cache["whole"] = table(rows=2 * ROWS + 600)
    return cache["whole"]


@pytest.mark.requirement("R5.3")
@pytest.mark.parametrize("feature", [feature.name for feature in NUMERIC])
def test_no_drift_is_there_when_none_is_declared(plain: Members, feature: str) -> None:
    late = days_since(plain.frame, MIDDLE) >= 0
    values = plain.frame[feature].to_numpy()
    before, after = np.log1p(np.abs(values[~late])), np.log1p(np.abs(values[late]))
    error = math.sqrt(np.nanvar(before) / (~late).sum() + np.nanvar(after) / late.sum())
    assert abs(np.nanmean(after) - np.nanmean(before)) < 4.5 * error


@pytest.mark.requirement("R5.3")
def test_numeric_drift_starts_at_its_onset_with_its_declared_distance(plain: Members) -> None:
    drift = Drift("age_years", MIDDLE, shift=0.5)
    drifted = table(MemberPlan(drifts=(drift,)))
    late = days_since(plain.frame, MIDDLE) >= 0
    change = (drifted.frame["age_years"] - plain.frame["age_years"]).to_numpy()
    assert np.nanmax(np.abs(change[~late])) == 0.0
    assert abs(np.nanmean(change[late]) / plain.frame["age_years"].std() - drift_distance(drift)) < 0.01
    assert drifted.truth.planted == (Planted("drift", "age_years", MIDDLE, None, drift_distance(drift)),)
    others = [name for name in FEATURES if name != "age_years"]
    pd.testing.assert_frame_equal(drifted.frame[others], plain.frame[others])


@pytest.mark.requirement("R5.3")
def test_a_ramp_grows_evenly_and_a_drift_that_is_over_leaves_nothing() -> None:
    ramp = timedelta(days=40)
    until = MIDDLE + timedelta(days=60)
    plan = MemberPlan(drifts=(Drift("sessions_trend", MIDDLE, shift=1.0, ramp=ramp, until=until),))
    plain, drifted = table().frame, table(plan).frame
    days = days_since(plain, MIDDLE)
    change = (drifted["sessions_trend"] - plain["sessions_trend"]).to_numpy() / 0.35
    expected = np.where(days < 60, np.clip(days / 40, 0, 1), 0)
    unclipped = drifted["sessions_trend"].abs() < 2
    np.testing.assert_allclose(change[unclipped], expected[unclipped], atol=1e-9)


def test_two_drifts_of_one_feature_add_up_and_a_scale_widens() -> None:
    frame = table(MemberPlan(drifts=(Drift("age_years", START, scale=2.0), Drift("age_years", START, shift=1.0)))).frame
    plain = table().frame
    inside = frame["age_years"].between(16.5, 89.5) & plain["age_years"].between(16.5, 89.5)
    expected = 38.0 + 11.0 * (2.0 * (plain["age_years"] - 38.0) / 11.0 + 1.0)
    np.testing.assert_allclose(frame["age_years"][inside], expected[inside], atol=1e-9)


@pytest.mark.requirement("R5.3")
@pytest.mark.parametrize("category", ["mobile", "television"])
def test_categorical_drift_moves_the_declared_share_of_rows(plain: Members, category: str) -> None:
    drift = Drift("device", MIDDLE, towards=category, share=0.3)
    frame = table(MemberPlan(drifts=(drift,))).frame
    late = days_since(frame, MIDDLE) >= 0
    moved = (frame["device"] != plain.frame["device"]).to_numpy()
    assert not moved[~late].any()
    assert abs(moved[late].mean() - drift_distance(drift)) < 0.02
    assert set(frame["device"][moved]) == {category}
    shares = frame["device"][late].value_counts(normalize=True)
    was = {"desktop": 0.5, "mixed": 0.3, "mobile": 0.2, "television": 0.0}
    now = {name: 0.7 * share + 0.3 * (name == category) for name, share in was.items()}
    assert all(abs(shares.get(name, 0.0) - share) < 0.02 for name, share in now.items())


@pytest.mark.parametrize(
    ("drift", "distance", "tolerance"),
    [
        (Drift("age_years", START), 0.0, 0.0),
        (Drift("sessions_trend", START, shift=0.25), 0.25, 1e-3),
        (Drift("sessions_trend", START, shift=-0.25), 0.25, 1e-3),
        (Drift("age_years", START, shift=100.0), (90.0 - 38.1) / 10.8, 0.02),
        (Drift("gender", START, towards="other", share=0.5), 0.48, 1e-12),
        (Drift("gender", START, towards="not asked", share=0.5), 0.5, 1e-12),
    ],
)
def test_the_distance_of_a_drift_is_the_one_worked_out_by_hand(drift: Drift, distance: float, tolerance: float) -> None:
    assert drift_distance(drift) == pytest.approx(distance, abs=tolerance)


@pytest.mark.requirement("R5.4")
def test_concept_drift_changes_the_outcome_and_no_feature(plain: Members) -> None:
    plan = MemberPlan(concept_drifts=(ConceptDrift("tenure_months", MIDDLE, factor=-1.0),))
    drifted = table(plan)
    pd.testing.assert_frame_equal(drifted.frame[list(FEATURES)], plain.frame[list(FEATURES)])
    late = days_since(plain.frame, MIDDLE) >= 0
    odds = [np.log(m.truth.probability / (1 - m.truth.probability)) for m in (plain, drifted)]
    term = -0.7 * np.tanh((plain.frame["tenure_months"].to_numpy() - 18.0) / 18.0)
    np.testing.assert_allclose(odds[1] - odds[0], np.where(late, -2.0 * term, 0.0), atol=1e-9)
    assert drifted.truth.planted == (Planted("concept drift", "tenure_months", MIDDLE, None, -1.0),)


@pytest.mark.parametrize("feature", EFFECTIVE)
def test_every_effective_feature_moves_the_outcome(plain: Members, feature: str) -> None:
    without = table(MemberPlan(concept_drifts=(ConceptDrift(feature, START, factor=0.0),)), rows=2_000)
    assert np.abs(without.truth.probability - plain.truth.probability[:2_000]).max() > 0.01


@pytest.mark.requirement("R5.6")
@pytest.mark.parametrize(("attribute", "group"), [("gender", "female"), ("experience", "0-1"), ("region", "west")])
def test_bias_adds_its_log_odds_to_its_group_alone(plain: Members, attribute: str, group: str) -> None:
    biased = table(MemberPlan(biases=(Bias(attribute, group, 0.8),)))
    odds = [np.log(m.truth.probability / (1 - m.truth.probability)) for m in (plain, biased)]
    member = (plain.frame[attribute] == group).to_numpy()
    np.testing.assert_allclose(odds[1] - odds[0], 0.8 * member, atol=1e-9)
    churned = (biased.frame["outcome"] == "churned").to_numpy()
    expected = biased.truth.probability[member].mean()
    assert abs(churned[member].mean() - expected) < 4 * math.sqrt(expected / member.sum())
    assert biased.truth.planted == (Planted("bias", f"{attribute}={group}", None, None, 0.8),)


@pytest.mark.requirement("R5.6")
@pytest.mark.parametrize("attribute", ["gender", "region"])
def test_groups_have_equal_outcomes_when_no_bias_is_declared(plain: Members, attribute: str) -> None:
    churned = plain.frame["outcome"] == "churned"
    for _, group in churned.groupby(plain.frame[attribute]):
        assert abs(group.mean() - churned.mean()) < 4 * math.sqrt(0.25 * 0.75 / len(group))


def test_a_bias_can_begin_and_end() -> None:
    plan = MemberPlan(biases=(Bias("gender", "female", 3.0, onset=MIDDLE, until=MIDDLE + timedelta(days=30)),))
    plain, biased = table(), table(plan)
    changed = biased.truth.probability != plain.truth.probability
    days = days_since(plain.frame, MIDDLE)
    assert (changed == ((plain.frame["gender"] == "female") & (days >= 0) & (days < 30)).to_numpy()).all()


def test_label_noise_turns_the_declared_share_of_outcomes_round(plain: Members) -> None:
    noisy = table(MemberPlan(label_noise=0.2))
    differs = (noisy.frame["outcome"] != plain.frame["outcome"]).to_numpy()
    assert np.array_equal(differs, noisy.truth.flipped)
    assert abs(differs.mean() - 0.2) < 4 * math.sqrt(0.2 * 0.8 / ROWS)
    assert np.array_equal(noisy.truth.probability, plain.truth.probability)
    churned = (noisy.frame["outcome"] == "churned").mean()
    assert abs(churned - noisy.truth.recorded_probability.mean()) < 4 * math.sqrt(0.25 / ROWS)
    np.testing.assert_allclose(noisy.truth.recorded_probability, 0.2 + 0.6 * plain.truth.probability)
    assert noisy.truth.bayes_auc < plain.truth.bayes_auc - 0.05


def test_without_signal_nothing_can_be_learnt() -> None:
    chance = table(MemberPlan(signal=0.0, base_log_odds=0.0), rows=100)
    assert np.array_equal(chance.truth.probability, np.full(100, 0.5))
    assert chance.truth.bayes_auc == 0.5


@pytest.mark.requirement("R5.5")
@pytest.mark.parametrize(
    ("feature", "kind", "broken"),
    [
        ("age_years", BreakKind.MISSING, lambda now, was: now.isna()),
        ("age_years", BreakKind.CONSTANT, lambda now, was: now == 16.0),
        ("age_years", BreakKind.UNIT, lambda now, was: np.isclose(now, was * 1000.0) | was.isna()),
        ("age_years", BreakKind.OUTLIERS, lambda now, was: now == 9000.0),
        ("plan", BreakKind.MISSING, lambda now, was: now.isna()),
        ("plan", BreakKind.CONSTANT, lambda now, was: now == "free"),
        ("plan", BreakKind.NEW_CATEGORY, lambda now, was: now == "#REF!"),
    ],
)
def test_a_break_spoils_its_column_in_its_time_and_not_the_outcome(
    plain: Members, feature: str, kind: BreakKind, broken: object
) -> None:
    until = MIDDLE + timedelta(days=10)
    spoilt = table(MemberPlan(breaks=(QualityBreak(feature, kind, MIDDLE, until),)))
    days = days_since(plain.frame, MIDDLE)
    inside = (days >= 0) & (days < 10)
    now, was = spoilt.frame[feature], plain.frame[feature]
    assert broken(now[inside], was[inside]).all()
    pd.testing.assert_series_equal(now[~inside], was[~inside])
    pd.testing.assert_frame_equal(spoilt.frame.drop(columns=feature), plain.frame.drop(columns=feature))
    assert np.array_equal(spoilt.truth.probability, plain.truth.probability)
    assert spoilt.truth.planted == (Planted("break", feature, MIDDLE, until, 1.0, kind.value),)


def test_a_break_of_a_share_hits_that_share() -> None:
    spoilt = table(MemberPlan(breaks=(QualityBreak("storage_mb", BreakKind.MISSING, START, share=0.4),)))
    assert abs(spoilt.frame["storage_mb"].isna().mean() - 0.4) < 4 * math.sqrt(0.24 / ROWS)


def test_two_breaks_of_one_column_hit_rows_of_their_own() -> None:
    twice = tuple(QualityBreak("plan", BreakKind.NEW_CATEGORY, START, share=0.5) for _ in range(2))
    spoilt = table(MemberPlan(breaks=twice))
    assert abs((spoilt.frame["plan"] == "#REF!").mean() - 0.75) < 0.02


@pytest.mark.parametrize(
    ("plan", "named"),
    [
        ({"drifts": (Drift("shoe_size", START),)}, "shoe_size.*accepted: tenure_months"),
        ({"drifts": (Drift("age_years", START, towards="old", share=0.5),)}, "age_years by towards.*shift and scale"),
        ({"drifts": (Drift("age_years", START, share=0.5),)}, "age_years by towards"),
        ({"drifts": (Drift("age_years", START, scale=0.0),)}, "scale 0.*above 0"),
        ({"drifts": (Drift("age_years", START, scale=math.nan),)}, "scale nan"),
        ({"drifts": (Drift("age_years", START, shift=math.inf),)}, "shift inf"),
        ({"drifts": (Drift("gender", START, share=0.5),)}, "gender.*towards and a share"),
        ({"drifts": (Drift("gender", START, towards="male", share=0.0),)}, "gender"),
        ({"drifts": (Drift("gender", START, towards="male", share=1.1),)}, "gender"),
        ({"drifts": (Drift("gender", START, towards="male", share=0.5, shift=1.0),)}, "no shift"),
        ({"drifts": (Drift("gender", START, towards="male", share=0.5, scale=2.0),)}, "no shift"),
        ({"concept_drifts": (ConceptDrift("gender", START, 2.0),)}, "concept drift of 'gender'; accepted: tenure"),
        ({"biases": (Bias("plan", "free", 1.0),)}, "'plan'; accepted: gender, experience, region"),
        ({"biases": (Bias("gender", "none", 1.0),)}, "'none'; accepted: female, male, other"),
        ({"biases": (Bias("gender", "male", math.nan),)}, "finite"),
        ({"breaks": (QualityBreak("x", BreakKind.MISSING, START),)}, "break of 'x'"),
        ({"breaks": (QualityBreak("plan", BreakKind.UNIT, START),)}, "plan broken by unit; accepted: constant, mis"),
        ({"breaks": (QualityBreak("age_years", BreakKind.NEW_CATEGORY, START),)}, "age_years broken by new_category"),
        ({"breaks": (QualityBreak("plan", BreakKind.MISSING, START, share=0.0),)}, "share 0"),
        ({"breaks": (QualityBreak("plan", BreakKind.MISSING, START, share=1.01),)}, "share 1.01"),
        ({"label_noise": 0.5}, "label_noise is 0.5"),
        ({"label_noise": -0.1}, "label_noise is -0.1"),
        ({"label_noise": math.nan}, "label_noise is nan"),
        ({"signal": math.nan}, "finite"),
        ({"base_log_odds": math.inf}, "finite"),
    ],
)
def test_an_impossible_plan_is_refused_with_what_is_accepted(plan: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=f"^member plan: .*{named}"):
        MemberPlan(**plan)


def test_all_errors_of_a_plan_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"'a'.*; .*'b'.*label_noise"):
        MemberPlan(drifts=(Drift("a", START),), breaks=(QualityBreak("b", BreakKind.UNIT, START),), label_noise=1.0)


@pytest.mark.parametrize(
    "asked",
    [
        {"rows": 0},
        {"first": -1},
        {"seed": -1},
        {"end": START},
        {"start": START.replace(tzinfo=None)},
        {"end": END.replace(tzinfo=None)},
    ],
)
def test_an_impossible_table_is_refused(asked: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="accepted"):
        generate(MemberPlan(), **{"rows": 1, "seed": 0, "start": START, "end": END, **asked})


@pytest.mark.parametrize(
    ("probability", "auc"),
    [
        ([0.0, 1.0], 1.0),
        ([0.5, 0.5], 0.5),
        ([0.3], 0.5),
        ([0.0, 0.0], math.nan),
        ([1.0, 1.0], math.nan),
        ([0.25, 0.75], (0.75 * 0.75 + (0.25 * 0.75 + 0.75 * 0.25) / 2) / 1.0),
    ],
)
def test_expected_auc_by_hand(probability: list[float], auc: float) -> None:
    assert expected_auc(np.array(probability)) == pytest.approx(auc, nan_ok=True)


def test_the_best_auc_is_what_the_true_probability_reaches(plain: Members) -> None:
    churned = (plain.frame["outcome"] == "churned").to_numpy()
    ranks = pd.Series(plain.truth.probability).rank().to_numpy()
    positives = churned.sum()
    auc = (ranks[churned].sum() - positives * (positives + 1) / 2) / (positives * (ROWS - positives))
    assert abs(auc - plain.truth.bayes_auc) < 0.015
