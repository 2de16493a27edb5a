"""Reweighing makes group and label independent, and changes nothing where they are already."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.mitigation import reweighing

pytestmark = pytest.mark.requirement("R5.6")

ROWS = st.lists(st.tuples(st.sampled_from(["a", "b", None, 3]), st.integers(0, 1)), min_size=1, max_size=60)


@given(ROWS)
def test_every_group_ends_with_the_base_rate_it_can_reach(rows):
    groups, labels = np.array([row[0] for row in rows], dtype=object), np.array([row[1] for row in rows])
    weights = reweighing(groups, labels)
    assert weights.shape == labels.shape
    assert (weights > 0).all()
    for group in {str(one) for one in groups}:
        inside = np.array([str(one) == group for one in groups])
        for label in (0, 1):
            cell = inside & (labels == label)
            if cell.any():
                # The cell's weighted share is what independence of group and label would make it.
                assert weights[cell].sum() == pytest.approx(inside.mean() * (labels == label).mean() * len(labels))


def test_independent_groups_are_left_alone():
    assert reweighing(["a", "a", "b", "b"], [0, 1, 0, 1]).tolist() == [1, 1, 1, 1]


def test_the_favoured_are_made_lighter():
    weights = reweighing(["m", "m", "m", "f", "f", "f"], [1, 1, 0, 1, 0, 0])
    assert weights.tolist() == pytest.approx([0.75, 0.75, 1.5, 1.5, 0.75, 0.75])
    assert weights.mean() == pytest.approx(1)


def test_a_missing_group_is_a_group_of_its_own():
    weights = reweighing([None, None, "a", "a"], [1, 1, 0, 1])
    assert weights[0] == weights[1] == pytest.approx(0.75)


def test_no_rows_have_no_weights():
    assert reweighing([], []).shape == (0,)
