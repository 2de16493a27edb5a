"""A feature that drifted is a warning, chance and usual weeks are none, and one nobody could measure is no data."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lifecycle.distribution import Categories, Numbers, WindowState, merged
from lifecycle.drift import (
    MIN_ROWS,
    Evidence,
    compare_frames,
    compare_windows,
    judge_columns,
    judge_distance,
    judge_drift,
    own_limit,
    rank_contributions,
)
from lifecycle.findings import Verdict
from tests.minimal_spec import minimal_spec

pytestmark = pytest.mark.requirement("R5.3")


def spec(**monitoring):
    return minimal_spec(
        features=[{"name": "x", "type": "numeric"}, {"name": "c", "type": "categorical"}],
        monitoring=monitoring,
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


def window(rows, seed, *, mean=0.0, missing=0.0, share=0.5):
    rng = np.random.default_rng(seed)
    x = np.where(rng.random(rows) < missing, math.nan, rng.normal(mean, 2, rows))
    c = np.where(rng.random(rows) < share, "a", "b").astype(object)
    return WindowState.of(pd.DataFrame({"x": x, "c": c}), ["x"], ["c"])


def weeks(count, rows, seed, spread):
    """Weeks whose mean wanders by `spread` standard deviations."""
    rng = np.random.default_rng(seed)
    return [window(rows, 1_000 * seed + n, mean=2 * spread * rng.normal()) for n in range(count)]


def test_a_drift_is_found_with_its_measures_and_the_reason_says_why_it_is_none_of_chance():
    blocks = weeks(8, 1_000, 3, 0.02)
    reference = merged(blocks)
    drifts = compare_windows(reference, window(1_000, 9, mean=1.0, missing=0.2), blocks, threads=2)
    x, missing, c, c_missing = judge_columns(drifts, 0.1, window="w")
    assert [f.verdict for f in (x, missing, c, c_missing)] == [Verdict.WARN, Verdict.WARN, Verdict.PASS, Verdict.PASS]
    assert x.value == pytest.approx(0.5, abs=0.1)
    assert "the reference's own weeks go to" in x.reason
    assert (missing.measure, missing.value) == ("missing_share_change", pytest.approx(0.2, abs=0.05))
    assert set(drifts[0].others) == {"ks_statistic", "jensen_shannon_distance", "population_stability_index"}
    assert set(drifts[1].others) == {"jensen_shannon_distance", "population_stability_index"}


def test_a_small_window_does_not_make_noise_a_drift():
    reference = window(10_000, 1)
    drifts = compare_windows(reference, window(120, 4))
    found = judge_columns(drifts, 0.02, window="w")
    assert drifts[0].distance > 0.02
    assert found[0].verdict is Verdict.PASS
    assert "by chance" in found[0].reason


def test_what_the_reference_does_from_week_to_week_is_no_drift():
    blocks = weeks(12, 2_000, 5, 0.3)
    reference, current = merged(blocks), window(2_000, 77, mean=2 * 0.4)
    alone = judge_columns(compare_windows(reference, current), 0.1, window="w")[0]
    beside = judge_columns(compare_windows(reference, current, blocks), 0.1, window="w")[0]
    assert (alone.verdict, beside.verdict) == (Verdict.WARN, Verdict.PASS)
    assert "own weeks" in beside.reason


def test_a_large_window_does_not_make_a_trifle_a_drift():
    drifts = compare_windows(window(200_000, 1), window(200_000, 2, mean=0.08))
    assert drifts[0].evidence.p_value < 1e-6
    assert judge_columns(drifts, 0.1, window="w")[0].verdict is Verdict.PASS


def test_new_and_vanished_categories_are_named_with_their_shares():
    old = WindowState(4, {"c": Categories(4, 0, {"a": 2, "gone": 2})})
    new = WindowState(500, {"c": Categories(500, 100, {"a": 100, "n1": 200, "n2": 50, "n3": 40, "n4": 10})})
    (drift,) = compare_windows(old, new)
    assert drift.new == {"n1": 0.5, "n2": 0.125, "n3": 0.1, "n4": 0.025}
    assert drift.vanished == {"gone": 0.5}
    (found, missing) = judge_columns([drift], 0.1, window="w")
    assert found.verdict is Verdict.NO_DATA
    assert "new: n1 50.00%, n2 12.50%, n3 10.00% and 1 more; vanished: gone 50.00%" in found.reason
    assert missing.value == pytest.approx(0.2)


def test_an_empty_window_is_no_data_for_every_column():
    found = judge_columns(compare_windows(window(500, 1), window(0, 1)), 0.1, window="w")
    assert {finding.verdict for finding in found} == {Verdict.NO_DATA}


def test_a_column_read_as_another_type_is_an_error():
    numbers = WindowState(1, {"x": Numbers.of([1.0])})
    with pytest.raises(TypeError, match="numeric in one window"):
        compare_windows(numbers, WindowState(1, {"x": Categories.of(["1"])}))


def test_evidence_without_a_test_is_no_data_rather_than_a_pass():
    found = judge_distance("x", "wasserstein_distance", 5.0, 0.1, 500, "w", Evidence(math.nan), 0.01)
    assert found.verdict is Verdict.NO_DATA


def test_the_limit_of_own_variation_is_students_and_needs_enough_weeks():
    own = [0.1, 0.2, 0.1, 0.3, 0.1, 0.2]
    expected = stats.t.isf(0.005, 5) * math.sqrt(np.mean(np.square(own)))
    assert own_limit(own, 0.01) == pytest.approx(expected)
    assert own_limit([value**2 for value in own], 0.01, degree=0.5) == pytest.approx(expected**2)
    assert own_limit(own[:4], 0.01) is None
    assert own_limit([*own[:4], math.nan], 0.01) is None


@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_quiet_windows_are_told_as_drifted_no_more_often_than_stated(spread):
    """100 weeks of 4 numbers, without a threshold on the distance: only the tests stand in the way."""
    rng = np.random.default_rng(21)
    names, alarms, trials = [f"x{n}" for n in range(4)], 0, 100
    for _ in range(trials):
        means = spread * rng.normal(size=(11, len(names)))
        blocks = [
            WindowState.of(pd.DataFrame(rng.normal(mean, 1, (100, len(names))), columns=names), names, [])
            for mean in means
        ]
        drifts = compare_windows(merged(blocks[:10]), blocks[10], blocks[:10])
        alarms += any(f.verdict is Verdict.WARN for f in judge_columns(drifts, 1e-9, window="w", alpha=0.05))
    # Not above 5 %, at a chance of one in a thousand of this test failing by itself.
    assert alarms <= stats.binom.isf(0.001, trials, 0.05)


def many_categories(rng, shares, rows):
    counts = rng.multinomial(rows, shares)
    return WindowState(
        rows, {"c": Categories(rows, 0, {f"v{n}": int(count) for n, count in enumerate(counts) if count})}
    )


@pytest.mark.parametrize(("categories", "spread"), [(2, 0.0), (2, 0.1), (40, 0.0), (40, 0.1), (40, 0.3)])
def test_quiet_weeks_of_categories_are_told_no_more_often_than_stated(categories, spread):
    """Weeks that wander along one direction, the worst case, more and less than sampling does."""
    rng = np.random.default_rng(22)
    direction, alarms, trials = rng.permutation(np.linspace(-1, 1, categories)), 0, 300
    for _ in range(trials):
        weeks = []
        for _ in range(7):
            weights = np.exp(spread * rng.normal() * direction)
            weeks.append(many_categories(rng, weights / weights.sum(), 1_000))
        drifts = compare_windows(merged(weeks[:6]), weeks[6], weeks[:6])
        alarms += any(f.verdict is Verdict.WARN for f in judge_columns(drifts, 1e-9, window="w", alpha=0.05))
    assert alarms <= stats.binom.isf(0.001, trials, 0.05)


def test_many_categories_do_not_hide_a_drift_behind_their_sampling_noise():
    rng = np.random.default_rng(23)
    shares = np.full(40, 1 / 40)
    weeks = [many_categories(rng, shares, 1_000) for _ in range(8)]
    moved = np.append(0.75 * shares, 0.25)
    (found, _) = judge_columns(
        compare_windows(merged(weeks), many_categories(rng, moved, 1_000), weeks), 0.1, window="w", alpha=0.001
    )
    assert found.verdict is Verdict.WARN
    assert found.value > 0.2


def test_contributions_rank_drift_by_how_much_the_model_leans_on_it():
    ranked = rank_contributions(
        {"a": 0.2, "b": 0.8, "c": 0.5, "d": None, "e": math.nan}, {"a": 0.4, "b": 0.01, "c": -0.1, "d": 1.0, "e": 1.0}
    )
    assert [one.column for one in ranked] == ["a", "b", "c", "d", "e"]
    assert ranked[0].share == pytest.approx(0.08 / 0.088)
    assert sum(one.share for one in ranked) == pytest.approx(1)
    assert [one.share for one in rank_contributions({"a": 0.2, "b": 0.3}, {})] == [0.0, 0.0]


def test_rows_at_hand_give_what_their_states_give():
    rng = np.random.default_rng(0)
    old, new = (
        pd.DataFrame({"x": rng.normal(shift, 1, 400), "c": rng.choice(list("abc"), 400)}) for shift in (0.0, 0.3)
    )
    state = WindowState.of(old, ["x"], ["c"])
    expected = compare_windows(state, WindowState.of(new, ["x"], ["c"]))
    for reference in (old, state):
        assert compare_frames(reference, new, ["x"], ["c"], threads=2) == expected
