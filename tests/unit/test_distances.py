"""Distances agree with SciPy's and Evidently's on the same rows, and have the properties of distances."""

import math
from functools import reduce

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import distance as spatial

from lifecycle.distances import (
    category_shares,
    homogeneity_p_value,
    jensen_shannon,
    kolmogorov_smirnov,
    kullback_leibler,
    normalised_wasserstein,
    number_shares,
    population_stability,
    proportions_p_value,
    wasserstein,
)
from lifecycle.distribution import Categories, Numbers

pytestmark = pytest.mark.requirement("R5.3")

RNG = np.random.default_rng(11)
INF, NAN = math.inf, math.nan
NUMBER_CASES = {
    "normal": (RNG.normal(0, 1, 3_000), RNG.normal(0.2, 1.3, 2_345)),
    "equal lengths": (RNG.normal(0, 1, 500), RNG.normal(0, 1, 500)),
    "heavy tail": (RNG.standard_cauchy(900), RNG.standard_cauchy(1_000)),
    "ties": (RNG.integers(0, 6, 400), RNG.integers(0, 7, 301)),
    "many ties": (RNG.integers(0, 60, 4_000), RNG.integers(5, 70, 3_001)),
    "constant": (np.full(50, 3.0), np.full(40, 3.0)),
    "constant that moved": (np.full(50, 3.0), np.full(40, 3.5)),
    "constant against normal": (np.full(50, 3.0), RNG.normal(3, 1, 80)),
    "normal against constant": (RNG.normal(3, 1, 80), np.full(50, 3.0)),
    "one row each": (np.array([1.0]), np.array([2.0])),
    "one row": (RNG.normal(0, 1, 100), np.array([0.3])),
    "infinities and missing": (
        np.concatenate([RNG.normal(0, 1, 200), [INF, -INF, NAN]]),
        np.concatenate([RNG.normal(1, 1, 150), [INF, NAN, NAN]]),
    ),
    "large offset": (RNG.normal(1e9, 1, 300), RNG.normal(1e9 + 1, 1, 301)),
    "apart": (RNG.random(77), RNG.random(91) + 50),
}
CATEGORY_CASES = {
    "alike": (RNG.choice(list("abcd"), 2_000), RNG.choice(list("abcd"), 1_500)),
    "moved": (RNG.choice(list("ab"), 500, p=[0.9, 0.1]), RNG.choice(list("ab"), 400)),
    "unseen": (RNG.choice(list("abc"), 30_000), RNG.choice(list("abcdefgh"), 20_000)),
    "vanished": (RNG.choice(list("abcdefgh"), 300), RNG.choice(list("abc"), 200)),
    "rare": (np.array(["a"] * 30_000 + ["b"]), np.array(["a"] * 20_000 + ["c"])),
    "one category": (np.array(["a"] * 9), np.array(["a"] * 7)),
    "nothing in common": (np.array(["a"] * 9), np.array(["b"] * 7)),
    "one row each": (np.array(["a"]), np.array(["b"])),
    "missing": (np.array(["a", "b", None, "b"], object), np.array(["a", None], object)),
}


def finite(values):
    values = np.asarray(values, dtype=float)
    return values[np.isfinite(values)]


@pytest.fixture(scope="module")
def evidently():
    """Evidently's own functions, and how it calls them: on rows without nulls and infinities."""
    from evidently.legacy.calculations import stattests
    from evidently.legacy.core import ColumnType

    def measure(name, reference, current, *, numeric):
        old, new = (
            pd.Series(values).replace([-INF, INF], NAN).infer_objects().dropna() for values in (reference, current)
        )
        kind = ColumnType.Numerical if numeric else ColumnType.Categorical
        return float(getattr(stattests, f"{name}_stat_test").func(old, new, kind, 0.1)[0])

    return measure


@pytest.mark.parametrize("case", NUMBER_CASES)
def test_distances_of_numbers_are_scipys_and_evidentlys(case, evidently):
    reference, current = NUMBER_CASES[case]
    old, new = Numbers.of(reference), Numbers.of(current)
    a, b = finite(reference), finite(current)
    assert wasserstein(old, new) == pytest.approx(stats.wasserstein_distance(a, b), rel=1e-6, abs=1e-9)
    assert normalised_wasserstein(old, new) == pytest.approx(
        evidently("wasserstein", reference, current, numeric=True), rel=1e-6, abs=1e-6
    )
    theirs, ours = stats.ks_2samp(a, b, method="asymp"), kolmogorov_smirnov(old, new)
    expected = (theirs.statistic, 1.0 if math.isnan(theirs.pvalue) else theirs.pvalue)  # one row against one
    assert (ours.statistic, ours.p_value) == pytest.approx(expected, rel=1e-6, abs=1e-12)
    shares = number_shares(old, new)
    for name, value in (
        ("kl_div", kullback_leibler(shares)),
        ("psi", population_stability(shares)),
        ("jensenshannon", jensen_shannon(shares)),
    ):
        assert value == pytest.approx(evidently(name, reference, current, numeric=True), rel=1e-6, abs=1e-6), name


@pytest.mark.parametrize("case", CATEGORY_CASES)
def test_distances_of_categories_are_evidentlys(case, evidently):
    reference, current = CATEGORY_CASES[case]
    shares = category_shares(Categories.of(reference), Categories.of(current))
    for name, value in (
        ("kl_div", kullback_leibler(shares)),
        ("psi", population_stability(shares)),
        ("jensenshannon", jensen_shannon(shares)),
    ):
        assert value == pytest.approx(evidently(name, reference, current, numeric=False), rel=1e-6, abs=1e-6), name


def test_a_feature_in_small_units_drifts_like_any_other():
    """Evidently divides by 0.001 at least; this is where we differ from it."""
    a, b = RNG.normal(0, 1, 400), RNG.normal(1, 1, 400)
    plain = normalised_wasserstein(Numbers.of(a), Numbers.of(b))
    assert normalised_wasserstein(Numbers.of(a * 1e-5), Numbers.of(b * 1e-5)) == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize("values", [[], [NAN], [INF, -INF]])
def test_without_a_known_value_there_is_no_distance(values):
    nothing, some = Numbers.of(values), Numbers.of([1.0, 2.0])
    for pair in ((nothing, some), (some, nothing), (nothing, nothing)):
        assert math.isnan(normalised_wasserstein(*pair))
        assert math.isnan(kolmogorov_smirnov(*pair).p_value)
        shares = number_shares(*pair)
        assert shares is None
        assert all(math.isnan(f(shares)) for f in (kullback_leibler, jensen_shannon, population_stability))
    none = Categories.of([None])
    assert category_shares(none, Categories.of(["a"])) is None
    assert math.isnan(homogeneity_p_value(none, Categories.of(["a"])))


samples = st.lists(st.one_of(st.integers(-4, 4).map(float), st.floats(-1e3, 1e3)), min_size=1, max_size=50)


@given(samples, samples, samples)
@settings(deadline=None)
def test_wasserstein_is_a_metric_and_exact_for_every_pair_of_lengths(a, b, c):
    one, two, three = Numbers.of(a), Numbers.of(b), Numbers.of(c)
    assert wasserstein(one, two) == pytest.approx(stats.wasserstein_distance(a, b), abs=1e-9)
    assert wasserstein(one, one) == 0
    assert wasserstein(one, two) == pytest.approx(wasserstein(two, one), abs=1e-9)
    assert wasserstein(one, three) <= wasserstein(one, two) + wasserstein(two, three) + 1e-9
    assert wasserstein(one, two) >= abs(np.mean(a) - np.mean(b)) - 1e-9


@given(samples, samples, st.floats(0.1, 10), st.floats(-100, 100))
@settings(deadline=None)
def test_scale_and_origin_of_a_number_do_not_matter(a, b, scale, origin):
    assume(np.std(a) > 1e-3)
    moved = [[origin + scale * value for value in values] for values in (a, b)]
    plain = normalised_wasserstein(Numbers.of(a), Numbers.of(b))
    assert normalised_wasserstein(*map(Numbers.of, moved)) == pytest.approx(plain, rel=1e-6, abs=1e-6)


@given(samples, samples)
@settings(deadline=None)
def test_kolmogorov_smirnov_is_scipys_for_every_pair(a, b):
    ours = kolmogorov_smirnov(Numbers.of(a), Numbers.of(b))
    assert ours.statistic == pytest.approx(stats.ks_2samp(a, b, method="asymp").statistic, abs=1e-12)


def test_the_coarse_search_of_the_largest_difference_misses_nothing():
    rng = np.random.default_rng(5)
    for _ in range(5):
        a, b = rng.normal(0, 1, 70_000), rng.normal(0.001, 1, 90_001).round(rng.integers(1, 6))
        ours = kolmogorov_smirnov(Numbers.of(a), Numbers.of(b))
        assert ours.statistic == pytest.approx(stats.ks_2samp(a, b, method="asymp").statistic, abs=1e-12)


texts = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=60)


@given(texts, texts)
@settings(deadline=None)
def test_divergences_are_zero_on_equal_shares_never_negative_and_symmetric_where_they_say_so(a, b):
    one, two = Categories.of(a), Categories.of(b)
    there, back = category_shares(one, two), category_shares(two, one)
    for measure in (kullback_leibler, jensen_shannon, population_stability):
        assert measure(category_shares(one, one)) == pytest.approx(0, abs=1e-9)
        assert measure(there) >= 0
    for measure in (jensen_shannon, population_stability):
        assert measure(there) == pytest.approx(measure(back), abs=1e-9)
    assert jensen_shannon(there) <= math.sqrt(math.log(2)) + 1e-9
    names = sorted(set(a) | set(b))
    shares = [[values.count(name) / len(values) for name in names] for values in (a, b)]
    assert jensen_shannon(there) == pytest.approx(float(spatial.jensenshannon(*shares)), abs=1e-7)


def test_distances_of_sketches_are_within_their_stated_error():
    rng = np.random.default_rng(2)
    a, b = rng.gamma(2, 1, 150_000), rng.gamma(2, 1.05, 120_000)
    whole = Numbers.of(a), Numbers.of(b)
    small = [reduce(Numbers.merge, [Numbers.of(part, 1_024) for part in np.array_split(v, 13)]) for v in (a, b)]
    error = small[0].rank_error + small[1].rank_error
    span = max(a.max(), b.max()) - min(a.min(), b.min())
    for pair in ((small[0], small[1]), (whole[0], small[1])):
        assert abs(wasserstein(*pair) - wasserstein(*whole)) <= error * span
        assert wasserstein(*pair) == pytest.approx(wasserstein(*whole), abs=0.005 * a.std())
        sketched, exact = kolmogorov_smirnov(*pair), kolmogorov_smirnov(*whole)
        assert abs(sketched.statistic - exact.statistic) <= error
        assert sketched.p_value >= exact.p_value
        assert np.abs(number_shares(*pair).current - number_shares(*whole).current).max() <= 2 * error


def test_shares_of_a_number_survive_a_span_beyond_floats():
    shares = number_shares(Numbers.of(np.linspace(-1.7e308, 1.7e308, 30)), Numbers.of([0.0]))
    assert shares.reference.sum() == pytest.approx(1)
    tiny = number_shares(Numbers.of(np.arange(30) * 5e-324), Numbers.of([0.0]))
    assert tiny.current.sum() == pytest.approx(1)


def test_a_sentinel_near_the_largest_float_leaves_no_distance_rather_than_none_at_all():
    broken = Numbers.of([1e308, 0.0, 1.0])
    assert math.isnan(normalised_wasserstein(broken, Numbers.of([5.0, 6.0])))


def test_p_values_of_categories_are_scipys_and_rare_ones_are_counted_together():
    a, b = Categories.of(["a"] * 60 + ["b"] * 40), Categories.of(["a"] * 30 + ["b"] * 50)
    assert homogeneity_p_value(a, b) == pytest.approx(
        stats.chi2_contingency([[60, 40], [30, 50]], correction=False).pvalue
    )
    many = Categories.of(["a"] * 500 + [f"only {n}" for n in range(100)])
    others = Categories.of(["a"] * 500 + [f"other {n}" for n in range(100)])
    assert homogeneity_p_value(many, others) == 1.0
    assert homogeneity_p_value(a, a) == pytest.approx(1.0)
    assert homogeneity_p_value(Categories.of(["a"] * 9), Categories.of(["a"])) == 1.0


def test_p_value_of_two_shares_is_the_pooled_z_test():
    table = [[30, 70], [60, 40]]
    expected = stats.chi2_contingency(table, correction=False).pvalue
    assert proportions_p_value((30, 60), (100, 100)) == pytest.approx(expected)
    assert proportions_p_value((0, 0), (10, 10)) == 1.0
    assert math.isnan(proportions_p_value((0, 0), (10, 0)))
