"""What is wrong with a window of traffic is found, and an empty or usual one is not taken for a bad one."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from lifecycle.distribution import SKETCH, WindowState
from lifecycle.findings import Verdict
from lifecycle.window_quality import judge_duplicates, judge_freshness, judge_schema, judge_values, judge_volume
from tests.minimal_spec import minimal_spec

pytestmark = pytest.mark.requirement("R5.5")

SPEC = minimal_spec(
    features=[
        {"name": "x", "type": "numeric", "min": 0, "max": 10},
        {"name": "free", "type": "numeric"},
        {"name": "c", "type": "categorical", "values": ["a", "b"]},
        {"name": "open", "type": "categorical"},
    ],
    quality={"range_mostly": 0.99},
)
NUMERIC, CATEGORICAL = ["x", "free"], ["c", "open"]


def frame(rows, seed=0, **changed):
    rng = np.random.default_rng(seed)
    columns = {
        "x": rng.uniform(0, 10, rows),
        "free": rng.normal(0, 1, rows),
        "c": rng.choice(["a", "b"], rows),
        "open": rng.choice(["p", "q"], rows),
    }
    return pd.DataFrame(columns | changed)


def judged(rows, size=None, reference=True, **changed):
    state = WindowState.of(frame(rows, 1, **changed), NUMERIC, CATEGORICAL, size=size)
    usual = WindowState.of(frame(5_000), NUMERIC, CATEGORICAL, size=size) if reference else None
    return {(f.subject, f.measure): f for f in judge_values(SPEC, state, usual, window="w")}


@pytest.mark.parametrize("size", [None, SKETCH])
def test_a_usual_window_passes(size):
    found = judged(2_000, size)
    assert {f.verdict for f in found.values()} == {Verdict.PASS}
    assert ("open", "out_of_range_share") not in found
    assert ("free", "out_of_range_share") not in found


def test_missing_values_ranges_lists_and_outliers_are_found():
    x = np.full(1_000, 5.0)
    x[:40], x[40:50], x[50:200] = -1, 11, math.nan
    x[200] = math.inf
    free = np.random.default_rng(0).normal(0, 1, 1_000)
    free[:30] = 50
    found = judged(1_000, x=x, free=free, c=["z"] * 100 + ["a"] * 900)
    assert found["x", "missing_share"].value == pytest.approx(0.15)
    assert found["x", "missing_share"].verdict is Verdict.WARN
    assert found["x", "out_of_range_share"].value == pytest.approx(51 / 850)
    assert found["x", "out_of_range_share"].verdict is Verdict.FAIL
    assert found["c", "out_of_range_share"].value == pytest.approx(0.1)
    assert found["free", "outlier_share_rise"].verdict is Verdict.WARN
    assert found["free", "outlier_share_rise"].value == pytest.approx(0.03, abs=0.001)


def test_an_empty_window_is_no_data_and_a_reference_is_not_needed():
    found = judged(0)
    assert {f.verdict for f in found.values()} == {Verdict.NO_DATA}
    assert ("x", "outlier_share_rise") not in judged(10, reference=False)


def test_columns_that_are_gone_and_numbers_that_are_none_are_found():
    found = {
        (f.subject, f.measure): f
        for f in judge_schema(
            SPEC, frame(4, x=["1", "two", None, 3], free=[math.nan] * 4).drop(columns="open"), window="w"
        )
    }
    assert found["open", "column_present"].verdict is Verdict.FAIL
    assert found["c", "column_present"].verdict is Verdict.PASS
    assert found["x", "type_mismatch_share"].value == pytest.approx(1 / 3)
    assert found["x", "type_mismatch_share"].verdict is Verdict.FAIL
    assert found["free", "type_mismatch_share"].verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("rows", "past", "verdict"),
    [
        (1_000, [1_000, 980, 1_030, 1_010, 990, 1_005], Verdict.PASS),
        (400, [1_000, 980, 1_030, 1_010, 990, 1_005], Verdict.WARN),
        (2_500, [1_000, 980, 1_030, 1_010, 990, 1_005], Verdict.WARN),
        (0, [1_000, 980, 1_030, 1_010, 990, 1_005], Verdict.WARN),
        (400, [1_000, 300, 2_000, 500, 1_500, 4_000], Verdict.PASS),
        (2, [5, 4, 6], Verdict.PASS),
        (0, [1_000], Verdict.WARN),
        (10, [], Verdict.NO_DATA),
        (10, [0, 0, 0], Verdict.NO_DATA),
    ],
)
def test_volume_is_judged_by_what_earlier_windows_had(rows, past, verdict):
    assert judge_volume(rows, past, window="w").verdict is verdict


def test_a_row_too_old_or_from_the_future_is_found_and_none_is_no_data():
    now = datetime(2025, 3, 30, 12, tzinfo=UTC)
    day = timedelta(days=1)
    assert judge_freshness(now - day, now, 2 * day, window="w").verdict is Verdict.PASS
    assert judge_freshness(now - 3 * day, now, 2 * day, window="w").verdict is Verdict.FAIL
    assert judge_freshness(now + day, now, 2 * day, window="w").verdict is Verdict.FAIL
    assert judge_freshness(None, now, day, window="w").verdict is Verdict.NO_DATA


def test_repeated_keys_are_counted():
    found = judge_duplicates(pd.Series(["a", "b", "a", "a"]), window="w")
    assert (found.value, found.verdict) == (0.5, Verdict.WARN)
    assert judge_duplicates(pd.Series(["a"]), window="w").verdict is Verdict.PASS
    assert judge_duplicates(pd.Series([], dtype=object), window="w").verdict is Verdict.NO_DATA


@pytest.mark.parametrize(
    ("changed", "stuck"),
    [
        ({"x": np.full(500, 5.0)}, "x"),
        ({"open": ["p"] * 500}, "open"),
        ({"open": ["new"] * 500}, "open"),
    ],
)
def test_a_column_that_is_stuck_at_one_value_is_found(changed, stuck):
    found = judged(500, **changed)
    assert [name for (name, measure), f in found.items() if measure == "constant" and f.verdict is Verdict.WARN] == [
        stuck
    ]


def test_a_column_that_hardly_varies_may_be_constant_by_chance():
    usual = pd.DataFrame({"x": [1.0] * 5 + [0.0] * 995, "free": 0.0, "c": "a", "open": "p"})
    now = pd.DataFrame({"x": [0.0] * 500, "free": 0.0, "c": "a", "open": "p"})
    states = [WindowState.of(rows, NUMERIC, CATEGORICAL) for rows in (now, usual)]
    found = [f for f in judge_values(SPEC, *states, window="w") if f.measure == "constant"]
    assert [(f.subject, f.value, f.verdict) for f in found] == [
        (name, 1.0, Verdict.PASS) for name in ("x", "free", "c", "open")
    ]


@pytest.mark.parametrize(("new", "verdict"), [(0, Verdict.PASS), (8, Verdict.PASS), (40, Verdict.WARN)])
def test_values_that_the_reference_has_never_had_are_found_where_no_list_is_declared(new, verdict):
    found = judged(1_000, open=["#REF!"] * new + ["p"] * (1_000 - new))
    assert found["open", "unseen_share"].verdict is verdict
    assert found["open", "unseen_share"].value == pytest.approx(new / 1_000)
    assert ("c", "unseen_share") not in found


def test_values_that_are_always_new_are_no_finding():
    usual, now = (
        WindowState.of(frame(rows, open=[f"{rows}-{row}" for row in range(rows)]), NUMERIC, CATEGORICAL)
        for rows in (5_000, 1_000)
    )
    (found,) = (f for f in judge_values(SPEC, now, usual, window="w") if f.measure == "unseen_share")
    assert (found.value, found.verdict) == (1.0, Verdict.PASS)


def test_a_few_outliers_more_than_usual_are_tested_exactly():
    """17 of 1,000 beside 45 of 8,000: the normal approximation takes them for no chance (p 1e-5), and they are (6e-4)."""
    usual, now = (
        WindowState.of(
            frame(rows, free=np.append(np.full(odd, 99.0), np.linspace(-1, 1, rows - odd))), NUMERIC, CATEGORICAL
        )
        for rows, odd in ((8_000, 45), (1_000, 17))
    )
    (found,) = (
        f for f in judge_values(SPEC, now, usual, window="w", alpha=0.001)
        if (f.subject, f.measure) == ("free", "outlier_share_rise")
    )  # fmt: skip
    assert found.verdict is Verdict.PASS
    assert found.value == pytest.approx(17 / 1_000 - 45 / 8_000)
