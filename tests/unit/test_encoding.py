"""An encoding is learnt from training rows alone, and has an answer to every value it will ever meet."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.encoding import (
    FIRST_VALUE,
    LARGEST_ENCODED,
    LARGEST_NUMBER,
    LONGEST_VALUE,
    MISSING,
    UNSEEN,
    Encoding,
    fit_encoding,
    read_columns,
)
from lifecycle.errors import DataError
from lifecycle.spec import ModelSpec
from tests.minimal_spec import minimal_spec

pytestmark = pytest.mark.requirement("R3.5")


def spec(min_category_count: int = 2) -> ModelSpec:
    return minimal_spec(
        source={"table": "t", "timestamp": "at", "entity_key": "id"},
        features=[{"name": "x", "type": "numeric"}, {"name": "kind", "type": "categorical"}],
        training={"min_category_count": min_category_count},
    )


def frame(numbers: Any, kinds: Any) -> pd.DataFrame:
    return pd.DataFrame({"x": pd.Series(numbers, dtype=float), "kind": pd.Series(kinds, dtype=object)})


def learnt(numbers: Any, kinds: Any, min_category_count: int = 2) -> Encoding:
    asked = spec(min_category_count)
    return fit_encoding(read_columns(frame(numbers, kinds), asked), slice(None), asked)


ENCODING = learnt([1.0, 2.0, 3.0, 4.0, 5.0, np.nan], ["b", "a", "a", "b", "rare", None])


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("a", FIRST_VALUE),
        ("b", FIRST_VALUE + 1),
        ("rare", UNSEEN),
        ("never met", UNSEEN),
        ("", MISSING),
        (None, MISSING),
        (float("nan"), MISSING),
        ("Ａ", UNSEEN),
        ("x" * (LONGEST_VALUE + 1), UNSEEN),
    ],
)
def test_every_category_has_a_code(kind, code):
    encoded = ENCODING.transform(read_columns(frame([0.0], [kind]), spec()))
    assert encoded.codes.tolist() == [[code]]
    assert ENCODING.categorical[0].size == FIRST_VALUE + 2


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_every_number_is_finite_or_missing(value):
    encoded = ENCODING.transform(read_columns(frame([value], ["a"]), spec())).numbers[0, 0]
    if math.isfinite(value) and abs(value) <= LARGEST_NUMBER:
        assert abs(encoded) <= np.float32(LARGEST_ENCODED)
    else:
        assert np.isnan(encoded)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50))
def test_a_larger_number_is_never_encoded_smaller(values):
    encoded = ENCODING.transform(read_columns(frame(sorted(values), ["a"] * len(values)), spec())).numbers[:, 0]
    assert (np.diff(encoded) >= 0).all()


@given(st.lists(st.one_of(st.none(), st.floats(-1e9, 1e9)), min_size=1, max_size=60), st.sampled_from([1, 4, 16, 48]))
def test_knots_rise_and_are_no_more_than_asked_for(values, bins):
    fitted = learnt([np.nan if value is None else value for value in values], ["a"] * len(values))
    knots = fitted.numeric[0].knots(bins)
    assert 1 <= len(knots) <= bins + 1
    assert (np.diff(knots) > 0).all()
    assert fitted.numeric[0].scale > 0


@pytest.mark.parametrize("numbers", [[], [np.nan, np.nan], [7.0, 7.0, 7.0]])
def test_a_feature_that_says_nothing_has_no_bins(numbers):
    fitted = learnt(numbers, [None] * len(numbers))
    assert len(fitted.numeric[0].knots(8)) == 1
    assert fitted.numeric[0].scale == 1.0
    assert fitted.categorical[0].vocabulary == ()


def test_a_huge_offset_loses_no_digits():
    start = 1.7e9
    fitted = learnt(start + np.arange(1000), ["a"] * 1000)
    encoded = fitted.transform(read_columns(frame([start + 500, start + 501], ["a"] * 2), spec())).numbers[:, 0]
    assert encoded[1] - encoded[0] == pytest.approx(1 / fitted.numeric[0].scale, rel=1e-4)


def test_rows_outside_the_training_part_teach_nothing():
    columns = read_columns(frame([1, 2, 3, 1e6], ["a", "a", "b", "b"]), spec())
    fitted = fit_encoding(columns, np.array([0, 1, 2]), spec())
    assert fitted.categorical[0].vocabulary == ("a",)
    assert max(fitted.numeric[0].grid) < 10


@pytest.mark.parametrize("text", ["\ud800", "x" * (LONGEST_VALUE + 1)])
def test_what_no_store_can_keep_enters_no_vocabulary(text):
    assert learnt([0.0] * 6, [text] * 4 + ["ok"] * 2).categorical[0].vocabulary == ("ok",)


@pytest.mark.parametrize("others", [[], [None]], ids=["no null", "a null"])
@pytest.mark.parametrize("pair", [("a", "a\0"), ("\ud800", "\ud801")], ids=["NUL", "surrogates"])
def test_texts_that_differ_stay_apart_whatever_is_in_them(pair, others):
    columns = read_columns(frame([0.0] * (2 + len(others)), [*pair, *others]), spec())
    assert columns.categories == (tuple(sorted(pair)),)
    assert columns.codes[:2, 0].tolist() == [0, 1]


def test_the_vocabulary_does_not_depend_on_the_order_of_rows():
    assert learnt([0.0] * 4, ["b", "a", "b", "a"]) == learnt([0.0] * 4, ["a", "a", "b", "b"])


def test_a_large_table_is_sampled_evenly():
    fitted = learnt(np.arange(500_001.0), ["a"] * 500_001)
    assert fitted.numeric[0].center == pytest.approx(250_000, rel=0.01)


def test_it_survives_json():
    state = json.loads(json.dumps(ENCODING.to_dict()))
    assert Encoding.from_dict(state) == ENCODING


def test_encoded_rows_can_be_taken():
    encoded = ENCODING.transform(read_columns(frame([1, 2, 3], ["a", "b", None]), spec()))
    taken = encoded.take(np.array([2, 0]))
    assert len(taken) == 2
    assert taken.codes.tolist() == [[MISSING], [FIRST_VALUE]]


def test_columns_know_their_length():
    assert len(read_columns(frame([1, 2], ["a", None]), spec())) == 2


@pytest.mark.parametrize(
    ("rows", "answer"),
    [
        (pd.DataFrame({"x": [1.0]}), "feature 'kind' is not among the columns; accepted: all of"),
        (pd.DataFrame({"x": ["many"], "kind": ["a"]}), "feature 'x' holds .* accepted: numbers or null"),
    ],
)
def test_columns_that_cannot_be_read_are_named(rows, answer):
    with pytest.raises(DataError, match=answer):
        read_columns(rows, spec())
