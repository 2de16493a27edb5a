"""The decision threshold is the cut that is worth most, whatever the values of the outcomes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.errors import DataError
from lifecycle.spec import Business
from lifecycle.thresholds import best_threshold

pytestmark = pytest.mark.requirement("R3.7")


def business(true_positive=1.0, false_positive=-1.0, true_negative=0.0, false_negative=0.0):
    return Business(
        currency="EUR",
        decision="call",
        true_positive=true_positive,
        false_positive=false_positive,
        true_negative=true_negative,
        false_negative=false_negative,
    )


def worth(labels, scores, threshold, values):
    positive = np.asarray(scores) >= threshold
    outcome = np.asarray(labels) == 1
    return float(
        (positive & outcome).sum() * values.true_positive
        + (positive & ~outcome).sum() * values.false_positive
        + (~positive & ~outcome).sum() * values.true_negative
        + (~positive & outcome).sum() * values.false_negative
    )


# Being right is always worth more than being wrong: the model file's schema sees to it.
VALUES = st.tuples(st.integers(-5, 5), st.integers(1, 5), st.integers(-5, 5), st.integers(1, 5))


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 10)), min_size=1, max_size=40), VALUES)
def test_no_other_threshold_is_worth_more(rows, drawn):
    labels, scores = [row[0] for row in rows], [row[1] / 10 for row in rows]
    missed, gain, alarm, saving = drawn
    values = business(missed + gain, alarm, alarm + saving, missed)
    chosen = best_threshold(labels, scores, values)
    rivals = [*sorted(set(scores)), 1.1]
    most = max(worth(labels, scores, rival, values) for rival in rivals)
    assert worth(labels, scores, chosen, values) == most
    # Of equals the fewest positive decisions.
    fewest = min(
        (np.asarray(scores) >= rival).sum() for rival in rivals if worth(labels, scores, rival, values) == most
    )
    assert (np.asarray(scores) >= chosen).sum() == fewest


@pytest.mark.parametrize(
    ("labels", "values", "decided"),
    [
        ([0, 1, 1], business(1, -1), [False, True, True]),
        ([0, 1, 1], business(1, -1, true_negative=5), [False, True, True]),
        ([0, 1, 1], business(0, -1, false_negative=-5), [False, True, True]),
        ([0, 0, 0], business(1, -1), [False, False, False]),
        ([1, 0, 0], business(1, -0.5), [False, False, False]),
        ([1, 0, 0], business(1, -0.4), [True, True, True]),
        ([1, 1, 1], business(1, -1), [True, True, True]),
    ],
)
def test_it_stands_between_the_scores_it_parts(labels, values, decided):
    scores = np.array([0.2, 0.6, 0.9])
    threshold = best_threshold(labels, scores, values)
    assert (scores >= threshold).tolist() == decided
    if 0 < sum(decided) < 3:
        assert threshold == pytest.approx(0.4)


def test_rows_of_one_score_are_never_parted():
    threshold = best_threshold([1, 0, 1, 0], [0.5, 0.5, 0.5, 0.1], business(1, -1.5))
    assert (np.array([0.5, 0.1]) >= threshold).tolist() == [True, False]


@pytest.mark.parametrize(("labels", "scores"), [([], []), ([1, 0], [0.4, float("nan")])])
def test_without_scores_there_is_no_threshold(labels, scores):
    with pytest.raises(DataError, match="accepted: some, none of them NaN"):
        best_threshold(labels, scores, business())
