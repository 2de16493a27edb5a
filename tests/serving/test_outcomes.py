"""The index of predictions that may get a label: what is new is found, and it never grows beyond its bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.outcomes import GENERATIONS, MOST_OF_ENTITY, OutcomeIndex, OutcomeRow

pytestmark = pytest.mark.requirement("R5.2")


def held(index: OutcomeIndex) -> int:
    return sum(len(one.at) for one in index._generations)


def label(index: OutcomeIndex, now: float = 0.0, **of: object) -> tuple[str, str]:
    return index.place(OutcomeRow(model="m", label=1, **of), 10.0, now)


@given(st.integers(GENERATIONS, 200), st.integers(1, 600))
def test_the_newest_predictions_are_found_and_no_more_than_the_bound_is_held(most: int, asked: int):
    index = OutcomeIndex(most)
    for number in range(asked):
        index.predicted("m", f"r{number}", f"e{number}", float(number))
    assert held(index) <= most
    sure = min(asked, most - 2 * (most // GENERATIONS) + 1 - most % GENERATIONS)
    for number in range(asked - sure, asked):
        assert label(index, request_id=f"r{number}") == ("recorded", f"r{number}")
        assert label(index, entity=f"e{number}") == ("recorded", f"r{number}")
    if asked > most:
        assert label(index, request_id="r0") == ("unknown", "r0")
        assert label(index, entity="e0") == ("unknown", "")


@given(st.integers(1, 500))
def test_one_entity_that_is_asked_about_again_and_again_stays_within_its_bound(asked: int):
    index = OutcomeIndex(160)
    for number in range(asked):
        index.predicted("m", f"r{number}", "e", float(number))
        assert all(
            len(of) <= MOST_OF_ENTITY
            for one in index._generations
            for of in one.newest.values()
            if isinstance(of, tuple)
        )
    assert label(index, entity="e") == ("recorded", f"r{asked - 1}")
    if asked > 2:
        assert label(index, entity="e", at=asked - 2.5) == ("recorded", f"r{asked - 3}")


def test_a_label_is_late_double_or_otherwise_as_long_as_its_prediction_is_known():
    index = OutcomeIndex(16)
    index.predicted("m", "r", "r", 0.0)
    assert label(index, 10.0, request_id="r")[0] == "recorded"
    assert label(index, 10.1, request_id="r")[0] == "late"
    index.labelled("m", "r", 1)
    assert label(index, request_id="r")[0] == "duplicate"
    index.labelled("m", "r", 0)
    assert label(index, request_id="r")[0] == "contradicts"
    assert label(index, entity="r") == ("unknown", "")
    index.labelled("m", "never", 1)
    assert label(index, request_id="never") == ("unknown", "never")


def test_models_do_not_see_each_others_predictions():
    index = OutcomeIndex()
    index.predicted("m", "r", "e", 0.0)
    index.predicted("other", "r2", "e", 1.0)
    assert label(index, entity="e") == ("recorded", "r")
    assert label(index, request_id="r2") == ("unknown", "r2")
