"""How far two distributions lie apart, from their states: the field's distances, as Evidently and SciPy define them (R5.3).

Only finite numbers and known categories take part; a distance that the rows cannot give is NaN, never 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import rel_entr

from lifecycle.distribution import Categories, Numbers

Floats = NDArray[np.float64]

# A constant reference has no spread to measure by: its distances stand in thousandths of the unit, as Evidently's.
_LEAST_DEVIATION = 0.001
# Spread below this share of the largest value is rounding.
_ROUNDING = 1e-12
# Numbers with at most this many distinct values are compared value by value, as Evidently does.
_FEW = 20
# Shares of 0 are replaced by the first, or by the second part of the smallest share when that is below it.
_EMPTY, _EMPTY_PART = 1e-4, 1e-6
# Rows of a block of the exact Wasserstein distance: four times quicker than 2**14, whose arrays come from the system anew.
_BLOCK = 2**13
# Stretches searched together for the largest difference of two distribution functions.
_STRETCHES = 256


def wasserstein(reference: Numbers, current: Numbers) -> float:
    """First Wasserstein distance: the area between the two distribution functions.

    Exact when both states are. Otherwise off by at most the sum of the two rank errors times the span of the values.

    Returns
    -------
    float
        In the column's unit, 0 or above; NaN unless both have a known value.
    """
    if not reference.known or not current.known:
        return math.nan
    if reference.is_exact and current.is_exact:
        return _exact_wasserstein(reference.runs[0].values, current.runs[0].values)
    (a, weight_a), (b, weight_b) = reference.weighted(), current.weighted()
    return float(stats.wasserstein_distance(a, b, weight_a, weight_b))


def normalised_wasserstein(reference: Numbers, current: Numbers) -> float:
    """Wasserstein distance in standard deviations of the reference.

    A reference of one value has none; its distance is then in thousandths of the unit. Evidently takes 0.001 for any
    deviation below it, which hides drift in features measured in small numbers; here only a constant one gets it.
    NaN where the deviation is beyond floats: a sentinel near the largest one would hide every drift.
    """
    deviation = reference.deviation
    if reference.known and not math.isfinite(deviation):
        return math.nan
    if not deviation > _ROUNDING * max(abs(reference.low), abs(reference.high)):
        deviation = _LEAST_DEVIATION
    return wasserstein(reference, current) / deviation


@dataclass(frozen=True, slots=True)
class KolmogorovSmirnov:
    """Largest difference of two distribution functions, 0..1, and the chance of one as large without a difference."""

    statistic: float
    p_value: float


def kolmogorov_smirnov(reference: Numbers, current: Numbers) -> KolmogorovSmirnov:
    """Two-sample Kolmogorov-Smirnov test, two-sided, with the limiting distribution (as SciPy's ``method="asymp"``).

    Conservative where values are tied. Of sketches the statistic is off by at most the sum of the two rank errors, and
    the p-value is that of the smallest statistic it may be.
    """
    if not reference.known or not current.known:
        return KolmogorovSmirnov(math.nan, math.nan)
    few, many = (reference, current) if reference.known <= current.known else (current, reference)
    if few.is_exact and many.is_exact:
        statistic = _exact_statistic(few.runs[0].values, many.runs[0].values)
    else:
        points = np.concatenate([few.weighted()[0], many.weighted()[0]])
        statistic = float(np.abs(few.share_at(points) - many.share_at(points)).max())
    sure = max(0.0, statistic - few.rank_error - many.rank_error)
    effective = few.known * many.known / (few.known + many.known)
    return KolmogorovSmirnov(statistic, _p_value(sure, effective))


@dataclass(frozen=True, slots=True)
class Shares:
    """Both windows' shares over the same cells, each adding to 1."""

    reference: Floats
    current: Floats


def category_shares(reference: Categories, current: Categories) -> Shares | None:
    """Shares of each category known to either window; None unless both have a known value."""
    if not reference.known or not current.known:
        return None
    names = list(reference.counts | current.counts)
    return Shares(
        np.array([reference.counts.get(name, 0) for name in names]) / reference.known,
        np.array([current.counts.get(name, 0) for name in names]) / current.known,
    )


def number_shares(reference: Numbers, current: Numbers) -> Shares | None:
    """Shares of a number's values, or of bins of it; None unless both have a known value.

    As Evidently: values one by one where the reference has at most 20 of them, else bins of equal width by Sturges's
    rule over both windows. Of sketches, each bin's share is off by at most twice the rank error.
    """
    if not reference.known or not current.known:
        return None
    values = reference.distinct(_FEW)
    if values is not None:
        values = np.union1d(values, np.concatenate([run.values for run in current.runs]))
        return Shares(*(_jumps(state, values) for state in (reference, current)))
    low, high = min(reference.low, current.low), max(reference.high, current.high)
    width = (high - low) / (math.log2(reference.known + current.known) + 1)
    # A width of 0 by underflow, or a span beyond the largest float, leaves one bin.
    bins = math.ceil((high - low) / width) if 0 < width < math.inf else 1
    edges = np.linspace(low, high, bins + 1) if bins > 1 else np.array([low, high])
    return Shares(*(np.diff(_cumulative(state, edges)) for state in (reference, current)))


def kullback_leibler(shares: Shares | None) -> float:
    """Kullback-Leibler divergence of the current window from the reference, in nats, 0 or above.

    Empty cells get a small share first, as in Evidently: what only one window has stays finite.
    """
    if shares is None:
        return math.nan
    p, q = _filled(shares.reference), _filled(shares.current)
    return max(0.0, float(rel_entr(p / p.sum(), q / q.sum()).sum()))


def jensen_shannon(shares: Shares | None) -> float:
    """Jensen-Shannon distance (the root of the divergence in nats): symmetric, 0 to sqrt(ln 2) = 0.833 (Lin, 1991)."""
    if shares is None:
        return math.nan
    p, q = shares.reference / shares.reference.sum(), shares.current / shares.current.sum()
    middle = (p + q) / 2
    return math.sqrt(max(0.0, float(rel_entr(p, middle).sum() + rel_entr(q, middle).sum()) / 2))


def population_stability(shares: Shares | None) -> float:
    """Population stability index: the symmetric Kullback-Leibler divergence, with empty cells filled as above."""
    if shares is None:
        return math.nan
    p, q = _filled(shares.reference), _filled(shares.current)
    return float(((p - q) * np.log(p / q)).sum())


def homogeneity_p_value(reference: Categories, current: Categories) -> float:
    """Chance of shares as different as these without a difference: Pearson's chi-square test of homogeneity.

    Categories that either window can expect fewer than five rows of are counted together (Cochran, 1954). 1 when all
    rows are of one category; NaN unless both windows have a known value.
    """
    if not reference.known or not current.known:
        return math.nan
    names = list(reference.counts | current.counts)
    table = np.array(
        [[state.counts.get(name, 0) for name in names] for state in (reference, current)], dtype=np.float64
    )
    share = min(reference.known, current.known) / table.sum()
    rare = table.sum(axis=0) * share < 5
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 1.0
    return float(stats.chi2_contingency(table, correction=False).pvalue)


def proportions_p_value(events: tuple[int, int], trials: tuple[int, int]) -> float:
    """Chance of two shares as different as these without a difference: the pooled z-test; NaN without trials."""
    if not all(trials):
        return math.nan
    pooled = sum(events) / sum(trials)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / trials[0] + 1 / trials[1]))
    if spread == 0:
        return 1.0
    return float(2 * stats.norm.sf(abs(events[0] / trials[0] - events[1] / trials[1]) / spread))


def _exact_wasserstein(a: Floats, b: Floats) -> float:
    """Area between two sorted samples' quantile functions.

    The functions are steps: a's at multiples of 1/n, b's at multiples of 1/m. Between two neighbouring steps both are
    constant. In units of 1/(n m) the steps are whole numbers, so that which values meet, and how long, is arithmetic.
    """
    n, m = len(a), len(b)
    if n == m:
        return float(np.abs(a - b).sum()) / n
    return (_stretches(a, b, own=True) + _stretches(b, a, own=False)) / (n * m)


def _stretches(a: Floats, b: Floats, *, own: bool) -> float:
    """Area of the stretches that begin at a step of `a`; where b steps too they are counted only if `own`."""
    n, m = len(a), len(b)
    area = 0.0
    for first in range(0, n, _BLOCK):
        steps = np.arange(first, min(first + _BLOCK, n), dtype=np.int64)
        begin = steps * m
        other = begin // n
        length = np.minimum(begin + m, (other + 1) * n) - begin
        if not own:
            length[begin == other * n] = 0
        area += float(np.abs(a[first : first + _BLOCK] - b[other]) @ length)
    return area


def _exact_statistic(a: Floats, b: Floats) -> float:
    """Largest difference of two sorted samples' distribution functions; both differences are largest at a's values."""
    n, m = len(a), len(b)
    # Coarse places first: between two of them both functions rise by known amounts, so that few stretches can hold
    # the largest difference.
    step = max(1, n // 2**14)
    coarse = np.append(np.arange(0, n, step), n)
    inner = a[coarse[:-1]]
    at_left = np.append(np.searchsorted(b, inner, side="left"), m) / m
    at_right = np.searchsorted(b, inner, side="right") / m
    best = float(max((at_left - coarse / n).max(), ((coarse[:-1] + 1) / n - at_right).max()))
    # A difference within a stretch is at most that of one function at its end and of the other at its beginning.
    reach = np.maximum(coarse[1:] / n - at_left[:-1], at_left[1:] - coarse[:-1] / n)
    candidates = np.flatnonzero(reach > best)
    candidates = candidates[np.argsort(-reach[candidates])]
    for first in range(0, len(candidates), _STRETCHES):
        some = candidates[first : first + _STRETCHES]
        some = some[reach[some] > best]
        if not len(some):
            break
        ranks = (coarse[some][:, np.newaxis] + np.arange(step)).ravel()
        ranks = ranks[ranks < n]
        values = a[ranks]
        above = ((ranks + 1) / n - np.searchsorted(b, values, side="right") / m).max()
        below = (np.searchsorted(b, values, side="left") / m - ranks / n).max()
        best = max(best, float(above), float(below))
    return best


def _p_value(statistic: float, effective: float) -> float:
    """Chance of as large a statistic; `effective` is n m / (n + m)."""
    if effective <= 0.5:
        return 1.0  # one row against one proves nothing, and has no limiting distribution
    exponent = effective * statistic * statistic
    if exponent > 18:
        return 2 * math.exp(-2 * exponent)  # below 1e-15, where SciPy sums as many terms as there are rows
    return float(np.clip(stats.kstwo.sf(statistic, np.round(effective)), 0, 1))


def _jumps(state: Numbers, values: Floats) -> Floats:
    """Share of each value itself."""
    return state.share_at(values) - state.share_at(values, strictly_below=True)


def _cumulative(state: Numbers, edges: Floats) -> Floats:
    """Share below each edge, of bins closed on the left and the last one on both sides, as numpy's histogram."""
    shares = state.share_at(edges, strictly_below=True)
    shares[0], shares[-1] = 0.0, 1.0
    return shares


def _filled(shares: Floats) -> Floats:
    smallest = float(shares[shares > 0].min())
    return np.where(shares > 0, shares, smallest * _EMPTY_PART if smallest <= _EMPTY else _EMPTY)
