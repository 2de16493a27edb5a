"""Partitions merge to the whole: counts exactly, numbers exactly or within the bound that the sketch tells."""

import math
from datetime import date
from functools import reduce

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.distribution import Categories, Numbers, WindowState, merged
from lifecycle.errors import DataError

pytestmark = pytest.mark.requirement("R5.3")

INF = math.inf
columns = st.lists(
    st.one_of(st.floats(-1e6, 1e6), st.integers(-3, 3).map(float), st.sampled_from([math.nan, INF, -INF])), max_size=60
)
texts = st.lists(st.sampled_from(["a", "b", "ü", "", None]), max_size=60)


def same(one: Numbers, other: Numbers) -> None:
    assert (one.rows, one.missing, one.below, one.above) == (other.rows, other.missing, other.below, other.above)
    assert one.mean == pytest.approx(other.mean, rel=1e-9, abs=1e-6)
    assert one.squares == pytest.approx(other.squares, rel=1e-9, abs=1e-2)
    np.testing.assert_array_equal([one.low, one.high], [other.low, other.high])
    np.testing.assert_array_equal(one.weighted()[0], other.weighted()[0])


@given(columns, columns)
def test_merged_partitions_are_the_whole_column(a, b):
    whole = Numbers.of(a + b)
    same(Numbers.of(a).merge(Numbers.of(b)), whole)
    same(Numbers.of(b).merge(Numbers.of(a)), whole)
    assert whole.is_exact


@given(texts, texts)
def test_merged_categories_are_the_whole_column_and_a_part_can_be_taken_out_again(a, b):
    whole, part = Categories.of(a + b), Categories.of(b)
    together = Categories.of(a).merge(part)
    assert together == whole
    assert whole.without(part) == Categories.of(a)
    assert whole.known + whole.missing == whole.rows == len(a + b)


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 700), min_size=1, max_size=12),
    st.sampled_from([2, 7, 32]),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_a_sketch_keeps_its_word_about_every_rank(seed, lengths, size, tied):
    rng = np.random.default_rng(seed)
    parts = [rng.integers(0, 40, n).astype(float) if tied else rng.standard_cauchy(n) for n in lengths]
    values = np.concatenate(parts)
    sketch = reduce(Numbers.merge, [Numbers.of(part, size) for part in parts])
    assert sketch.known == len(values)
    if not len(values):
        assert math.isnan(sketch.share_at(0.0))
        return
    points = np.concatenate([values, values + 1e-9, [-INF, INF]])
    true = np.searchsorted(np.sort(values), points, side="right") / len(values)
    assert np.abs(sketch.share_at(points) - true).max() <= sketch.rank_error + 1e-12
    # A priori: half a kept value for each doubling of the rows, and for the first thinning.
    assert sketch.rank_error <= (math.log2(max(2, len(values) / size)) + 2) / (2 * size)
    assert (sketch.low, sketch.high) == (values.min(), values.max())
    assert sum(len(run.values) for run in sketch.runs) <= 2 * size * (len(sketch.runs) + 1)


def test_quantiles_of_a_sketch_are_within_its_bound_and_those_of_all_values_are_exact():
    rng = np.random.default_rng(3)
    values = rng.lognormal(0, 1.5, 200_000)
    asked = (np.arange(101) + 0.5) / 101  # no multiple of a row's share, where rounding would decide
    whole = Numbers.of(values)
    np.testing.assert_array_equal(whole.quantile(asked), np.quantile(values, asked, method="inverted_cdf"))
    sketch = reduce(Numbers.merge, [Numbers.of(part, 512) for part in np.array_split(values, 37)])
    reached = whole.share_at(sketch.quantile(asked))
    assert np.abs(reached - asked).max() <= sketch.rank_error + 1 / 512
    assert not sketch.is_exact
    assert np.isnan(Numbers.of([math.nan]).quantile([0.5])).all()


def test_a_small_window_is_kept_whole_whatever_the_sketch():
    sketch = Numbers.of(np.arange(10.0), 8).merge(Numbers.of([4.0], 8))
    assert sketch.rank_error == 0
    assert sketch.is_exact


@pytest.mark.parametrize(
    ("values", "known", "missing", "below", "above"),
    [
        ([], 0, 0, 0, 0),
        ([math.nan, None], 0, 2, 0, 0),
        ([5.0], 1, 0, 0, 0),
        ([INF, -INF, -INF, math.nan, 1.0], 1, 1, 2, 1),
        ([True, False], 2, 0, 0, 0),
        (pd.array([1, None, 3], dtype="Int64"), 2, 1, 0, 0),
        (pd.Series([1.5, None], dtype="Float64"), 1, 1, 0, 0),
        (pd.Series([True, None], dtype="boolean"), 1, 1, 0, 0),
    ],
)
def test_what_is_no_finite_number_is_counted_apart(values, known, missing, below, above):
    state = Numbers.of(values)
    assert (state.known, state.missing, state.below, state.above) == (known, missing, below, above)
    assert math.isnan(state.low) == (known == 0)
    assert math.isnan(state.deviation) == (known == 0)


def test_moments_are_numpys():
    values = np.random.default_rng(0).normal(1e6, 1, 100_001)
    state = reduce(Numbers.merge, [Numbers.of(part) for part in np.array_split(values, 9)])
    assert state.mean == pytest.approx(values.mean(), rel=1e-14)
    assert state.deviation == pytest.approx(values.std(), rel=1e-9)


@pytest.mark.parametrize("values", [["a"], [date(2024, 1, 1)], pd.Series(["x"])])
def test_a_numeric_column_of_something_else_is_an_error(values):
    with pytest.raises(DataError, match="accepted: numbers and nulls"):
        Numbers.of(values)


def test_what_cannot_be_merged_is_refused():
    with pytest.raises(ValueError, match="accepted: the same size"):
        Numbers.of([1.0], 8).merge(Numbers.of([1.0]))
    with pytest.raises(ValueError, match="accepted: 2 or more"):
        Numbers.of([1.0], 1)
    number, category = WindowState(1, {"x": Numbers.of([1])}), WindowState(1, {"x": Categories.of(["1"])})
    with pytest.raises(ValueError, match="accepted: one type"):
        number.merge(category)
    with pytest.raises(ValueError, match="y stands in one window only"):
        number.merge(WindowState(1, {"x": Numbers.of([1]), "y": Numbers.of([1])}))
    with pytest.raises(ValueError, match="at least one"):
        merged([])


def test_categories_are_read_as_text_whatever_holds_them():
    plain = ["a", "b", "a", None]
    for values in (
        plain,
        pd.Series(plain, dtype="category"),
        pd.Series(plain, dtype="string"),
        np.array(plain, object),
    ):
        assert Categories.of(values) == Categories(4, 1, {"a": 2, "b": 1})
    assert Categories.of([1, "1", 2.5, math.nan]) == Categories(4, 1, {"1": 2, "2.5": 1})
    unused = pd.Series(pd.Categorical(["a"], categories=["a", "b"]))
    assert Categories.of(unused).counts == {"a": 1}


def frame(rows, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "x": rng.normal(size=rows),
            "n": rng.integers(0, 9, rows),
            "c": rng.choice(np.array(["a", None], object), rows),
        }
    )


@pytest.mark.parametrize("size", [None, 16])
def test_a_window_comes_back_from_bytes_as_it_was(size):
    parts = [WindowState.of(frame(rows, rows), ["x", "n"], ["c"], size=size, threads=2) for rows in (0, 100, 333)]
    state = merged(parts)
    back = WindowState.from_bytes(state.to_bytes())
    assert (back.rows, list(back.columns)) == (433, ["x", "n", "c"])
    assert back.columns["c"] == state.columns["c"]
    for name in ("x", "n"):
        same(back.columns[name], state.columns[name])
        assert [(run.count, run.error) for run in back.columns[name].runs] == [
            (run.count, run.error) for run in state.columns[name].runs
        ]
    merged([back, state])


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(DataError, match="no column y; accepted: x, n, c"):
        WindowState.of(frame(3), ["x", "y"], ["c"])
