"""Rules of a snapshot's name: equal content, equal name, and no other content has it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.snapshot import FetchCounts, content_name

pytestmark = pytest.mark.requirement("R3.4")

texts = st.none() | st.text(max_size=4)
numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)
rows = st.lists(st.tuples(texts, numbers, st.integers(-3, 3)), min_size=1, max_size=12)


def frame_of(values: list[tuple[str | None, float, int]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "key": pd.Series([f"k{i:03d}" for i in range(len(values))], dtype=object),
            "text": pd.Series([text for text, _, _ in values], dtype=object),
            "number": np.array([number for _, number, _ in values], dtype=np.float64),
            "label": np.array([label for _, _, label in values], dtype=np.int8),
        }
    )


@given(rows, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_order_rows_arrive_in_does_not_matter_once_they_are_sorted(values, random):
    frame = frame_of(values)
    order = list(range(len(frame)))
    random.shuffle(order)
    shuffled = frame.iloc[order].sort_values("key", kind="stable").reset_index(drop=True)
    assert content_name(shuffled) == content_name(frame)


@given(rows, st.data())
@settings(max_examples=100, deadline=None)
def test_any_changed_cell_changes_the_name(values, data):
    frame = frame_of(values)
    row = data.draw(st.integers(0, len(frame) - 1))
    column = data.draw(st.sampled_from(["text", "number", "label"]))
    new = data.draw({"text": texts, "number": numbers, "label": st.integers(-3, 3)}[column])
    old = frame.at[row, column]
    same = new == old or (pd.isna(new) and pd.isna(old))
    changed = frame.copy()
    changed[column] = pd.Series(
        [new if position == row else value for position, value in enumerate(frame[column])], dtype=frame[column].dtype
    )
    assert (content_name(changed) == content_name(frame)) == same


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (pd.Series([1, 2], dtype="int8"), pd.Series([1, 2], dtype="int64")),
        (pd.Series([1.0, 2.0]), pd.Series([1, 2])),
        (pd.Series(["1", "2"], dtype=object), pd.Series([1, 2])),
        (pd.Series([True, False], dtype=object), pd.Series(["True", "False"], dtype=object)),
        (pd.Series(["ab", "c"], dtype=object), pd.Series(["a", "bc"], dtype=object)),
        (pd.Series([None, "a"], dtype=object), pd.Series(["", "a"], dtype=object)),
        (pd.Series([None, "a"], dtype=object), pd.Series(["None", "a"], dtype=object)),
        (
            pd.Series(pd.to_datetime([1, 2], utc=True)).astype("datetime64[us, UTC]"),
            pd.Series(pd.to_datetime([1, 2], utc=True)).astype("datetime64[ns, UTC]"),
        ),
    ],
)
def test_types_and_borders_between_values_count(left, right):
    assert content_name(pd.DataFrame({"a": left})) != content_name(pd.DataFrame({"a": right}))


def test_names_and_order_of_columns_and_where_a_column_ends_count():
    one = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
    assert content_name(one) != content_name(one.rename(columns={"b": "c"}))
    assert content_name(one) != content_name(one[["b", "a"]])
    assert content_name(pd.DataFrame({"a": [1, 2, 3, 4]})) != content_name(one)


def test_missing_values_are_equal_however_they_are_written_and_zero_has_no_sign():
    quiet, payload = np.array([0x7FF8000000000000, 0xFFF8000000000001], dtype=np.uint64).view(np.float64)
    assert content_name(pd.DataFrame({"a": [quiet]})) == content_name(pd.DataFrame({"a": [payload]}))
    assert content_name(pd.DataFrame({"a": [0.0]})) == content_name(pd.DataFrame({"a": [-0.0]}))
    none, nan = (pd.DataFrame({"a": pd.Series(["x", gap], dtype=object)}) for gap in (None, float("nan")))
    assert content_name(none) == content_name(nan)


def test_naming_a_frame_leaves_it_as_it_was():
    frame = pd.DataFrame({"a": [-0.0, np.nan]})
    before = frame["a"].to_numpy().tobytes()
    content_name(frame)
    assert frame["a"].to_numpy().tobytes() == before


def test_what_has_no_plain_value_is_refused_by_name():
    with pytest.raises(TypeError, match="'a' holds a tuple; accepted: text"):
        content_name(pd.DataFrame({"a": pd.Series([(1,), (2,)], dtype=object)}))
    with pytest.raises(TypeError, match="'a' is category; accepted: numbers"):
        content_name(pd.DataFrame({"a": pd.Series(["x"], dtype="category")}))


def test_a_snapshot_is_a_sample_exactly_when_it_has_fewer_rows_than_were_eligible():
    assert FetchCounts(10, 1, 1, 8, 5).sampled
    assert not FetchCounts(10, 1, 1, 8, 8).sampled
    assert FetchCounts(10, 1, 1, 8, 8).to_dict()["eligible"] == 8
