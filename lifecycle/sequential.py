"""Tests that may be looked at any time: evidence against a bound, valid however often and whenever somebody looks (R8.1).

An e-value is the factor by which a bet against a hypothesis has multiplied its stake. While the hypothesis holds, the
chance that it ever reaches 1/alpha is at most alpha (Ville 1939), so that a rollout may be judged at every tick and
stopped at any of them.
"""

from __future__ import annotations

import math

from scipy.special import betainc, betaln

_LEAST = 1e-300
TUNED_FOR = 2_000
"""Values at which `mean_margin` is narrowest."""


def log_e_above(events: float, trials: float, bound: float) -> float:
    """Evidence that a rate lies above a bound.

    The bet mixes all rates above the bound, uniformly (Robbins 1970; Howard, Ramdas, McAuliffe and Sekhon 2021, beta-
    binomial mixture, one-sided): the mean over rates p in (bound, 1] of the likelihood ratio of p to the bound. For
    rates below the bound each ratio is a supermartingale, so the mean is one for the whole hypothesis.

    Parameters
    ----------
    events
        How often it happened; 0 to trials. A fraction counts as such: of all values from 0 to 1 with the same mean, those
        that are 0 or 1 multiply a bet the most (its logarithm is linear in the value), so that the evidence stays valid.
    trials
        How often it could have.
    bound
        Largest rate that is accepted, above 0 and below 1.

    Returns
    -------
    float
        Natural logarithm of the e-value: 0 without data, negative while the data speak for the hypothesis.

    Raises
    ------
    ValueError
        Counts that cannot be, or a bound that nothing could cross.

    Examples
    --------
    >>> log_e_above(0, 0, 0.1)
    0.0
    >>> log_e_above(40, 100, 0.1) > math.log(1 / 0.01)
    True
    >>> log_e_above(10, 100, 0.1) < 0
    True
    """
    if not 0 <= events <= trials:
        raise ValueError(f"{events} events of {trials}; accepted: 0 to the number of trials")
    if not 0 < bound < 1:
        raise ValueError(f"bound {bound}; accepted: above 0 and below 1")
    if trials == 0:
        return 0.0
    a, b = events + 1.0, trials - events + 1.0
    # Mean over (bound, 1] of p^events (1-p)^rest is B(a, b) (1 - I_bound(a, b)) / (1 - bound).
    tail = float(betainc(b, a, 1 - bound))
    if tail < _LEAST:
        # So far below the bound that the mixture's mass above it underflows: its largest term stands for it.
        mixed = events * math.log(bound) + (trials - events) * math.log1p(-bound) - math.log(trials + 1)
    else:
        mixed = float(betaln(a, b)) + math.log(tail) - math.log1p(-bound)
    return mixed - events * math.log(bound) - (trials - events) * math.log1p(-bound)


def log_e_ratio(bad: float, rows: int, bad_baseline: float, rows_baseline: int, ratio: float) -> float:
    """Evidence that one version's rate is more than `ratio` times another's.

    Of all bad answers, a share falls on the candidate. Rows come to either version by the toss of an entity's hash, so
    while the candidate's rate is at most `ratio` times the baseline's that share is at most
    ``ratio * s / (ratio * s + 1 - s)``, with s the candidate's share of rows: a bound on one rate, whatever the rates
    themselves are (the conditional test of two binomials, made sequential; compare Turner, Ly and Gruenwald 2024).
    Valid while s is constant; the counts of a step with another share are judged for themselves and their logarithms
    added.

    Parameters
    ----------
    bad, rows
        The candidate's bad answers, and all of its answers.
    bad_baseline, rows_baseline
        Likewise, of the version it is compared with.
    ratio
        Largest accepted ratio of the two rates, above 0.

    Returns
    -------
    float
        Natural logarithm of the e-value; 0 while either side has no rows.
    """
    if not (ratio > 0 and math.isfinite(ratio)):
        raise ValueError(f"ratio {ratio}; accepted: above 0")
    if not (0 <= bad <= rows and 0 <= bad_baseline <= rows_baseline):
        raise ValueError(f"{bad} of {rows} and {bad_baseline} of {rows_baseline}; accepted: 0 to the number of rows")
    if rows == 0 or rows_baseline == 0:
        return 0.0
    weighted = ratio * rows
    return log_e_above(bad, bad + bad_baseline, weighted / (weighted + rows_baseline))


def least_rate(events: float, trials: int, alpha: float) -> float:
    """Lower end of an anytime-valid confidence interval of a rate: the largest bound that is rejected at level alpha.

    Parameters
    ----------
    events, trials
        Counts.
    alpha
        Chance that the rate ever lies below, at most; above 0 and below 1.

    Returns
    -------
    float
        0 to 1; 0 without data.
    """
    low, high = 0.0, events / trials if trials else 0.0
    limit = -math.log(alpha)
    for _ in range(50):
        middle = (low + high) / 2
        if not 0 < middle < 1:
            break
        low, high = (middle, high) if log_e_above(events, trials, middle) >= limit else (low, middle)
    return low


def mean_margin(count: int, alpha: float) -> float:
    """How far a mean of values from 0 to 1 may lie from what was seen, at any look.

    The boundary of the two-sided normal mixture for sums whose terms are sub-Gaussian with variance 1/4, as every value from
    0 to 1 is (Robbins 1970; Howard, Ramdas, McAuliffe and Sekhon 2021, section 3.2); narrowest around `TUNED_FOR` values.

    Parameters
    ----------
    count
        Values seen, independent of each other.
    alpha
        Chance that the mean ever lies farther off, at most; above 0 and below 1.

    Returns
    -------
    float
        0 to 1: 1, which says nothing, without values.

    Examples
    --------
    >>> mean_margin(0, 0.01)
    1.0
    >>> mean_margin(10_000, 0.01) < mean_margin(1_000, 0.01) < 0.1
    True
    """
    if count < 0 or not 0 < alpha < 1:
        raise ValueError(f"{count} values, alpha {alpha}; accepted: none or more, above 0 and below 1")
    if count == 0:
        return 1.0
    certainty = 2 * math.log(1 / alpha)
    mixed = TUNED_FOR / 4 / (certainty + math.log1p(certainty))
    variance = count / 4 + mixed
    return min(1.0, math.sqrt(variance * (math.log(variance / mixed) + certainty)) / count)
