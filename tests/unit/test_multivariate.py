"""Rows that differ as wholes are found though no column does; chance, trifles and usual weeks are not."""

from functools import reduce

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lifecycle.distribution import WindowState
from lifecycle.drift import compare_windows, judge_columns
from lifecycle.findings import Verdict
from lifecycle.multivariate import Embedding, Kernel, discrepancy, discrepancy_p_value, judge_multivariate

pytestmark = pytest.mark.requirement("R5.3")

NUMBERS, CATEGORIES = ["a", "b", "c", "d"], ["k", "l"]


def rows(count, seed, *, together=0.0, mean=0.0, missing=0.1):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(mean, 1, (count, 4)), columns=NUMBERS)
    frame["b"] = together * frame["a"] + np.sqrt(1 - together**2) * frame["b"]
    frame.loc[rng.random(count) < missing, "c"] = np.nan
    for name in CATEGORIES:
        frame[name] = np.array(["x", "y", "z", None], object)[rng.integers(0, 4, count)]
    return frame


REFERENCE = rows(10_000, 0)
STATE = WindowState.of(REFERENCE, NUMBERS, CATEGORIES)
KERNEL = Kernel.of(STATE, 0)
EMBEDDED = KERNEL.embed(REFERENCE)


def test_columns_that_come_to_hang_together_are_found_where_each_alone_is_as_it_was():
    changed = rows(4_000, 1, together=0.9)
    each = judge_columns(compare_windows(STATE, WindowState.of(changed, NUMBERS, CATEGORIES)), 0.1, window="w")
    assert {finding.verdict for finding in each} == {Verdict.PASS}
    found = judge_multivariate(KERNEL, EMBEDDED, KERNEL.embed(changed), 0.1, window="w")
    assert (found.measure, found.verdict) == ("multivariate_shift", Verdict.WARN)


def test_the_value_is_how_far_one_number_would_have_to_move():
    """A shift of 0.1 in each of four columns is one of 0.2 in their common direction."""
    found = judge_multivariate(KERNEL, EMBEDDED, KERNEL.embed(REFERENCE.assign(a=REFERENCE.a + 0.3)), 0.1, window="w")
    assert found.value == pytest.approx(0.3, rel=0.2)
    found = judge_multivariate(KERNEL, EMBEDDED, KERNEL.embed(rows(10_000, 3, mean=0.1)), 0.1, window="w")
    assert found.value == pytest.approx(0.2, rel=0.2)


def test_categories_and_missing_values_take_part():
    swapped = REFERENCE.assign(k=REFERENCE.k.replace("x", "never seen"))
    gone = REFERENCE.assign(a=REFERENCE.a.where(REFERENCE.index % 2 == 0))
    for changed in (swapped, gone):
        assert judge_multivariate(KERNEL, EMBEDDED, KERNEL.embed(changed), 0.1, window="w").verdict is Verdict.WARN


def test_partitions_add_up_and_a_part_can_be_taken_out_again():
    parts = [REFERENCE.iloc[:9], REFERENCE.iloc[9:5_000], REFERENCE.iloc[5_000:]]
    together = reduce(Embedding.merge, [KERNEL.embed(part) for part in parts])
    np.testing.assert_allclose(together.mean, EMBEDDED.mean, atol=1e-12)
    np.testing.assert_allclose(together.covariance, EMBEDDED.covariance, atol=1e-12)
    rest = together.without(KERNEL.embed(parts[2]))
    np.testing.assert_allclose(rest.mean, KERNEL.embed(REFERENCE.iloc[:5_000]).mean, atol=1e-10)
    assert discrepancy(together, together) == 0


def test_a_large_window_does_not_make_a_trifle_a_drift():
    current = KERNEL.embed(rows(40_000, 5, mean=0.03))
    assert discrepancy_p_value(EMBEDDED, current) < 0.01
    assert judge_multivariate(KERNEL, EMBEDDED, current, 0.1, window="w").verdict is Verdict.PASS


def test_quiet_windows_have_small_p_values_no_more_often_than_stated():
    kernel = Kernel.of(STATE, 1, frequencies=32)
    reference = kernel.embed(REFERENCE)
    p_values = np.array([discrepancy_p_value(reference, kernel.embed(rows(200, 100 + n))) for n in range(150)])
    for level in (0.2, 0.05, 0.01):
        assert np.count_nonzero(p_values <= level) <= stats.binom.isf(0.001, 150, level)


def test_weeks_that_wander_are_the_measure_of_a_further_week():
    rng = np.random.default_rng(8)
    weeks = [KERNEL.embed(rows(800, 200 + n, mean=0.3 * rng.normal())) for n in range(12)]
    reference = reduce(Embedding.merge, weeks)
    usual, far = KERNEL.embed(rows(800, 300, mean=0.35)), KERNEL.embed(rows(800, 301, mean=3.0))
    assert judge_multivariate(KERNEL, reference, usual, 0.1, window="w").verdict is Verdict.WARN
    assert judge_multivariate(KERNEL, reference, usual, 0.1, weeks, window="w").verdict is Verdict.PASS
    assert judge_multivariate(KERNEL, reference, far, 0.1, weeks, window="w").verdict is Verdict.WARN


def test_too_few_rows_are_no_data_and_rows_that_are_all_alike_are_no_error():
    few = KERNEL.embed(rows(50, 1))
    assert judge_multivariate(KERNEL, EMBEDDED, few, 0.1, window="w").verdict is Verdict.NO_DATA
    empty = KERNEL.embed(rows(0, 1))
    assert judge_multivariate(KERNEL, EMBEDDED, empty, 0.1, window="w").verdict is Verdict.NO_DATA
    constant = pd.DataFrame({"v": np.ones(200)})
    kernel = Kernel.of(WindowState.of(constant, ["v"], []), 0)
    same, other = kernel.embed(constant), kernel.embed(constant + 2)
    assert judge_multivariate(kernel, same, same, 0.1, window="w").verdict is Verdict.PASS
    assert judge_multivariate(kernel, same, other, 0.1, window="w").verdict is Verdict.WARN
