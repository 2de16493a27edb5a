"""Evidence may be looked at any time: a hypothesis that holds is rarely ever rejected, one that does not soon is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.sequential import least_rate, log_e_above, log_e_ratio, mean_margin

pytestmark = pytest.mark.requirement("R8.1")
ALPHA = 0.05
LOOKS = np.unique(np.geomspace(1, 20_000, 120).astype(int))


def ever(rate: float, bound: float, paths: int = 600, seed: int = 0) -> float:
    """Share of paths on which some look rejects."""
    rng = np.random.default_rng(seed)
    crossed = 0
    for _ in range(paths):
        total = np.cumsum(rng.random(LOOKS[-1]) < rate)
        crossed += any(log_e_above(int(total[n - 1]), int(n), bound) >= -math.log(ALPHA) for n in LOOKS)
    return crossed / paths


@pytest.mark.parametrize("rate", [0.1, 0.05])
def test_a_rate_within_its_bound_is_rarely_ever_rejected(rate: float):
    assert ever(rate, 0.1) <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / 600)


def test_a_rate_above_its_bound_is_found():
    assert ever(0.15, 0.1, 100) == 1.0


@given(st.integers(0, 1_000), st.integers(0, 1_000), st.floats(0.001, 0.999))
def test_it_is_a_number_and_grows_with_events(events: int, others: int, bound: float):
    trials = events + others
    value = log_e_above(events, trials, bound)
    assert math.isfinite(value)
    if others:
        assert log_e_above(events + 1, trials, bound) >= value - 1e-9


@pytest.mark.parametrize("bound", [0.01, 0.1, 0.5, 0.9])
def test_the_next_row_neither_adds_nor_takes_on_average_at_the_bound(bound: float):
    for events, trials in ((0, 0), (3, 10), (10, 10), (0, 40)):
        now = math.exp(log_e_above(events, trials, bound))
        then = bound * math.exp(log_e_above(events + 1, trials + 1, bound))
        then += (1 - bound) * math.exp(log_e_above(events, trials + 1, bound))
        assert then == pytest.approx(now)


@pytest.mark.parametrize("trials", [10**4, 10**6, 10**9])
def test_it_stays_a_number_for_very_many_rows(trials: int):
    for share in (0.0, 0.0001, 0.1, 0.5, 1.0):
        assert math.isfinite(log_e_above(int(trials * share), trials, 0.1))
    assert log_e_above(trials // 100, trials, 0.1) < 0 < log_e_above(trials // 5, trials, 0.1)


def test_no_data_is_no_evidence():
    assert log_e_above(0, 0, 0.1) == 0
    assert log_e_ratio(5, 10, 0, 0, 1.0) == 0
    assert log_e_ratio(0, 0, 5, 10, 1.0) == 0
    assert log_e_ratio(0, 10, 0, 10, 1.0) == 0
    assert least_rate(0, 0, 0.05) == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: log_e_above(2, 1, 0.1),
        lambda: log_e_above(-1, 1, 0.1),
        lambda: log_e_above(1, 1, 0.0),
        lambda: log_e_above(1, 1, 1.0),
        lambda: log_e_above(1, 1, math.nan),
        lambda: log_e_ratio(1, 1, 1, 1, 0.0),
        lambda: log_e_ratio(1, 1, 1, 1, math.inf),
        lambda: log_e_ratio(2, 1, 1, 1, 1.0),
        lambda: log_e_ratio(1, 1, 2, 1, 1.0),
    ],
)
def test_what_cannot_be_is_refused(call):
    with pytest.raises(ValueError, match="accepted"):
        call()


def rejections(rate: float, baseline: float, ratio: float, share: float, paths: int = 400) -> float:
    rng = np.random.default_rng(1)
    crossed = 0
    for _ in range(paths):
        mine = rng.random(LOOKS[-1]) < share
        bad = rng.random(LOOKS[-1]) < np.where(mine, rate, baseline)
        rows, hits, hits_baseline = np.cumsum(mine), np.cumsum(bad & mine), np.cumsum(bad & ~mine)
        crossed += any(
            log_e_ratio(int(hits[n - 1]), int(rows[n - 1]), int(hits_baseline[n - 1]), int(n - rows[n - 1]), ratio)
            >= -math.log(ALPHA)
            for n in LOOKS
        )
    return crossed / paths


@pytest.mark.parametrize("rate", [0.01, 0.2])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_two_equal_versions_are_rarely_ever_told_apart(rate: float, share: float):
    assert rejections(rate, rate, 1.0, share) <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / 400)


def test_a_ratio_at_its_bound_is_rarely_ever_rejected_and_a_worse_one_is():
    assert rejections(0.24, 0.2, 1.2, 0.1) <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / 400)
    assert rejections(0.4, 0.2, 1.2, 0.1, 50) == 1.0


@given(st.integers(0, 300), st.integers(1, 300))
def test_the_least_rate_is_below_the_observed_one_and_just_not_rejected(events: int, others: int):
    trials = events + others
    low = least_rate(events, trials, 0.05)
    assert 0 <= low <= events / trials
    if low > 0:
        assert log_e_above(events, trials, low * 0.99) >= -math.log(0.05)
        assert log_e_above(events, trials, min(low * 1.01 + 1e-9, 0.999)) < -math.log(0.05) + 0.2


@pytest.mark.parametrize("draw", ["coin", "beta", "always"])
def test_a_mean_lies_within_its_margin_at_every_look(draw: str):
    rng = np.random.default_rng(3)
    drawn = {
        "coin": lambda: rng.integers(0, 2, 3_000).astype(float),
        "beta": lambda: rng.beta(0.2, 0.2, 3_000),
        "always": lambda: np.full(3_000, 0.5),
    }[draw]
    looks = np.arange(1, 3_001)
    margins = np.array([mean_margin(int(look), 0.05) for look in looks])
    outside = sum(bool((np.abs(drawn().cumsum() / looks - 0.5) > margins).any()) for _ in range(400))
    assert outside / 400 <= 0.05


@pytest.mark.parametrize(("count", "alpha"), [(-1, 0.1), (10, 0.0), (10, 1.0), (10, float("nan"))])
def test_a_margin_of_what_cannot_be_is_refused(count: int, alpha: float):
    with pytest.raises(ValueError, match="accepted"):
        mean_margin(count, alpha)
