import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.findings import Direction, Finding, Severity, Verdict, judge, worst

NUMBERS = st.floats(-1e6, 1e6)
DIRECTIONS = st.sampled_from(Direction)


def judged(value, threshold=0.5, direction=Direction.AT_LEAST, **more):
    return judge("roc_auc", value, threshold, direction, window="hold-out", **more)


@pytest.mark.requirement("R7.3")
@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("direction", list(Direction))
def test_a_value_that_is_no_number_neither_passes_nor_fails(value, direction):
    finding = judged(value, direction=direction)
    assert finding.verdict is Verdict.NO_DATA
    assert finding.reason == "roc_auc on all rows: no finite value"


def test_the_reason_of_a_missing_value_is_told_when_it_is_known():
    assert judged(None, missing="one class only").reason == "roc_auc on all rows: one class only"


@pytest.mark.parametrize(
    ("value", "direction", "verdict"),
    [
        (0.5, Direction.AT_LEAST, Verdict.PASS),
        (0.4999, Direction.AT_LEAST, Verdict.FAIL),
        (0.5, Direction.AT_MOST, Verdict.PASS),
        (0.5001, Direction.AT_MOST, Verdict.FAIL),
    ],
)
def test_the_threshold_itself_is_accepted(value, direction, verdict):
    assert judged(value, direction=direction).verdict is verdict


def test_too_few_rows_are_no_data_however_good_the_value():
    finding = judged(0.99, count=9, min_count=10)
    assert finding.verdict is Verdict.NO_DATA
    assert finding.reason == "roc_auc on all rows: 9 rows, 10 needed to judge"
    assert judged(0.99, count=10, min_count=10).verdict is Verdict.PASS


def test_a_missed_threshold_of_severity_warning_warns():
    assert judged(0.1, severity=Severity.WARNING).verdict is Verdict.WARN


def test_reasons_name_value_and_what_is_accepted():
    assert judged(0.25).reason == "roc_auc on all rows is 0.25; accepted: ≥ 0.5"
    assert judged(0.75, direction=Direction.AT_MOST).reason == "roc_auc on all rows is 0.75; accepted: ≤ 0.5"
    assert judged(0.75, subject="gender").reason == "roc_auc on gender is 0.75, ≥ 0.5 as asked"


@given(NUMBERS, NUMBERS, DIRECTIONS)
def test_a_value_passes_one_direction_or_the_other(value, threshold, direction):
    verdicts = {judged(value, threshold, d).verdict for d in Direction}
    assert verdicts == ({Verdict.PASS} if value == threshold else {Verdict.PASS, Verdict.FAIL})
    assert judged(value, threshold, direction).verdict in verdicts


@given(
    st.none() | NUMBERS,
    st.none() | st.tuples(NUMBERS, NUMBERS),
    st.sampled_from(Verdict),
    DIRECTIONS,
    st.none() | st.integers(),
)
def test_a_finding_survives_the_way_through_plain_values(value, interval, verdict, direction, count):
    finding = Finding("f1", "gender", value, 0.5, direction, "hold-out", verdict, "why", count, interval)
    assert Finding.from_dict(finding.to_dict()) == finding


@given(st.lists(st.sampled_from(Verdict), min_size=1))
def test_the_verdict_of_many_is_their_worst(verdicts):
    findings = [Finding("f1", "s", 1.0, 1.0, Direction.AT_LEAST, "w", verdict, "why") for verdict in verdicts]
    assert worst(findings) is max(verdicts)


def test_no_finding_at_all_is_no_data():
    assert worst([]) is Verdict.NO_DATA


def test_verdicts_are_ordered_best_to_worst():
    assert Verdict.PASS < Verdict.WARN < Verdict.NO_DATA < Verdict.FAIL
    assert Verdict.NO_DATA.label == "no data"
