"""Whether columns have drifted: distances between two windows of rows, weighed, ranked, and as findings (R5.3).

A distance above the threshold is a drift only when it is neither sampling noise nor what the reference does to itself
from week to week: large samples do not make everything a drift, and small ones do not make noise one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd
from scipy import stats

from lifecycle.distances import (
    category_shares,
    homogeneity_p_value,
    jensen_shannon,
    kolmogorov_smirnov,
    kullback_leibler,
    normalised_wasserstein,
    number_shares,
    population_stability,
    proportions_p_value,
)
from lifecycle.distribution import Categories, Column, Numbers, WindowState, in_threads
from lifecycle.findings import Direction, Finding, Severity, Verdict, judge
from lifecycle.spec import ModelSpec

MEASURES = {"numeric": "wasserstein_distance", "categorical": "kl_divergence"}
MIN_ROWS = 100
ALPHA = 0.01
"""Chance that a window without any drift is told as one with: over all of its columns together."""
MIN_BLOCKS = 5
"""Weeks of the reference from which its own variation is estimated; the variance of fewer says little."""
_SURE = 0.01
"""Chance that the reference's weeks hold less sampling noise than is taken off."""
# Powers of the difference between two distributions that the distances grow with.
_DEGREE = {"wasserstein_distance": 1.0, "kl_divergence": 0.5}


@dataclass(frozen=True, slots=True)
class Sampling:
    """What chance alone makes of a distance's squared norm: a chi-square over its degrees of freedom, times a mean.

    Parameters
    ----------
    freedom
        Degrees of freedom, 1 or more.
    own, current
        Mean of it, for a week of the reference against the others, and for the window against the reference.
    """

    freedom: int
    own: float
    current: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks against a distance being chance.

    Parameters
    ----------
    p_value
        Chance of as large a difference if all rows came from one distribution, 0..1.
    own_distances
        The same distance of each of the reference's own weeks from its other weeks; empty when there are none.
    sampling
        What chance alone makes of these distances, where that is known.
    """

    p_value: float
    own_distances: tuple[float, ...] = ()
    sampling: Sampling | None = None


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """One column of two windows.

    Parameters
    ----------
    column, measure
        Which column, and the distance's name.
    distance
        As in `judge_drift`; None where a side has no known value.
    others
        Further distances of the same rows: ``ks_statistic`` for numbers, ``jensen_shannon_distance`` and
        ``population_stability_index`` for both.
    evidence
        Of the distance; None without a distance.
    rows
        Known values in the smaller window.
    missing_reference, missing_current
        Shares of rows without a value, 0..1; NaN without rows.
    missing_p_value
        Chance of as large a difference of the two shares if there was none; NaN without rows.
    new
        Categories that only the current window has: their share of its known rows.
    vanished
        Categories that only the reference has: their share of its known rows.
    """

    column: str
    measure: str
    distance: float | None
    others: dict[str, float]
    evidence: Evidence | None
    rows: int
    missing_reference: float
    missing_current: float
    missing_p_value: float
    new: dict[str, float] = field(default_factory=dict)
    vanished: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contribution:
    """How far one column's drift matters to the model.

    Parameters
    ----------
    column
        Its name.
    share
        Its part of all drift that matters, 0..1: distance times importance, over the sum of these.
    distance, importance
        What it is made from.
    """

    column: str
    share: float
    distance: float
    importance: float


def compare_windows(
    reference: WindowState, current: WindowState, blocks: Sequence[WindowState] = (), *, threads: int = 1
) -> list[ColumnDrift]:
    """Measure every column of the reference in the current window.

    Parameters
    ----------
    reference, current
        Two windows with the same columns, read as the same types.
    blocks
        The reference's weeks (or other blocks as long as the current window), which together are the reference.
    threads
        Columns compared at a time.

    Returns
    -------
    list of ColumnDrift
        In the reference's order.

    Raises
    ------
    KeyError
        A column that the current window or a block does not have.
    """

    def compare(name: str) -> ColumnDrift:
        return _compare(name, reference.columns[name], current.columns[name], [block.columns[name] for block in blocks])

    return in_threads(compare, reference.columns, threads)


def compare_frames(
    reference: WindowState | pd.DataFrame,
    current: pd.DataFrame,
    numeric: Collection[str],
    categorical: Collection[str],
    *,
    threads: int = 1,
) -> list[ColumnDrift]:
    """Measure columns of rows that are at hand, one after the other, so that no more than `threads` are held sorted.

    Parameters
    ----------
    reference
        Rows, or their state prepared once and kept.
    current
        Rows.
    numeric, categorical
        Columns read as numbers and as categories.
    threads
        Columns read and compared at a time.

    Returns
    -------
    list of ColumnDrift
        The numbers, then the categories.
    """
    numbers = set(numeric)

    def read(frame: pd.DataFrame, name: str) -> Column:
        return Numbers.of(frame[name]) if name in numbers else Categories.of(frame[name])

    def compare(name: str) -> ColumnDrift:
        before = reference.columns[name] if isinstance(reference, WindowState) else read(reference, name)
        return _compare(name, before, read(current, name), [])

    return in_threads(compare, [*numeric, *categorical], threads)


def own_limit(
    own_distances: Sequence[float], alpha: float, degree: float = 1.0, sampling: Sampling | None = None
) -> float | None:
    """How far a further week of the reference would lie from it at most, but for a chance of alpha.

    The weeks are taken as differing from their common distribution by independent Gaussian deviations. The square of
    the difference's norm is then a weighted sum of chi-squares, and of all such sums with one mean, that of a single
    chi-square has the heaviest tail (Szekely and Bakirov, 2003): the limit is Student's quantile times the root mean
    square, and holds the level whichever way the weeks differ.

    Where many categories share a window's rows, most of what its weeks differ by is sampling, whose law is known: what of
    it is surely in the weeks' mean square is taken off before Student's quantile multiplies the rest, and the window's own
    share of it is added by its own quantile.

    Parameters
    ----------
    own_distances
        Distance of each week from the other ones.
    alpha
        Chance, above 0 and at most 0.2, where the bound begins to hold.
    degree
        Power of the distance that is a norm: 1 for Wasserstein, 0.5 for divergences, which grow with the square.
    sampling
        What chance alone makes of the distances, where that is known.

    Returns
    -------
    float or None
        In the distance's unit; None with fewer than `MIN_BLOCKS` finite distances.
    """
    norms = [value**degree for value in own_distances if math.isfinite(value)]
    if len(norms) < MIN_BLOCKS:
        return None
    mean_square = math.fsum(norm * norm for norm in norms) / len(norms)
    chance = 0.0
    if sampling is not None:
        freedom = len(norms) * sampling.freedom
        sure = sampling.own * float(stats.chi2.ppf(_SURE, freedom)) / freedom
        mean_square = max(0.0, mean_square - sure)
        chance = sampling.current * float(stats.chi2.isf(alpha, sampling.freedom)) / sampling.freedom
    reach = float(stats.t.isf(alpha / 2, len(norms) - 1))
    return float(math.sqrt(chance + reach * reach * mean_square) ** (1 / degree))


def judge_drift(
    spec: ModelSpec,
    distances: Mapping[str, float | None],
    rows: Mapping[str, int],
    *,
    window: str,
) -> list[Finding]:
    """Compare each feature's distance with the model file's ``monitoring.drift``, which alone decides here.

    Parameters
    ----------
    spec
        The model file.
    distances
        Feature: Wasserstein distance in standard deviations of the reference for numbers, Kullback-Leibler
        divergence in nats for categories; None or absent where it could not be taken.
    rows
        Feature: known values in the smaller of the two windows.
    window
        The two windows, in words.

    Returns
    -------
    list of Finding
        One for each feature, in the model file's order. Drift warns: it is a reason to look or to train, and no
        fault of the candidate. Fewer than `MIN_ROWS` values on a side are NO_DATA.
    """
    return [
        judge_distance(
            feature.name,
            MEASURES[feature.type],
            distances.get(feature.name),
            spec.monitoring.drift,
            rows.get(feature.name, 0),
            window,
            None,
            1.0,
        )
        for feature in spec.features
    ]


def judge_columns(
    drifts: Sequence[ColumnDrift], threshold: float, *, window: str, alpha: float = ALPHA
) -> list[Finding]:
    """Judge measured columns, whichever they are: features, the score, the label.

    Parameters
    ----------
    drifts
        From `compare_windows`.
    threshold
        ``monitoring.drift`` of the model file: of the distance, and of the change of the missing share, which is the
        total variation distance between "missing" and "known".
    window
        The two windows, in words.
    alpha
        Chance of any false finding in a window without drift, where weeks differ by sampling alone; shared out over two
        tests for each column. Where they wander besides, it is `ALPHA` if that is more: of few weeks, a smaller chance
        asks for a limit that hides real drift.

    Returns
    -------
    list of Finding
        For each column its distance, then ``missing_share_change``.
    """
    each = alpha / max(1, 2 * len(drifts))
    own = max(alpha, ALPHA) / max(1, len(drifts))
    findings: list[Finding] = []
    for drift in drifts:
        found = judge_distance(
            drift.column,
            drift.measure,
            drift.distance,
            threshold,
            drift.rows,
            window,
            drift.evidence,
            each,
            own_alpha=own,
        )
        told = _categories_told(drift)
        findings.append(replace(found, reason=f"{found.reason}; {told}") if told else found)
        change = abs(drift.missing_current - drift.missing_reference)
        findings.append(
            judge_distance(
                drift.column,
                "missing_share_change",
                change if math.isfinite(change) else None,
                threshold,
                None,
                window,
                Evidence(drift.missing_p_value),
                each,
            )
        )
    return findings


def judge_distance(
    subject: str,
    measure: str,
    value: float | None,
    threshold: float,
    rows: int | None,
    window: str,
    evidence: Evidence | None,
    alpha: float,
    *,
    own_alpha: float | None = None,
    min_rows: int = MIN_ROWS,
    severity: Severity = Severity.WARNING,
) -> Finding:
    """Judge one distance: told when it is above the threshold, not chance, and unusual for the reference.

    Parameters
    ----------
    subject, measure, value, threshold, rows, window
        As in `lifecycle.findings.Finding`.
    evidence
        None leaves the threshold alone to decide.
    alpha
        Largest p-value that is not chance.
    own_alpha
        Level of the reference's own variation; None for `alpha`.
    min_rows
        Fewer rows are NO_DATA.
    severity
        What a distance that is told means.
    """
    found = judge(
        measure,
        value,
        threshold,
        Direction.AT_MOST,
        window=window,
        subject=subject,
        count=rows,
        min_count=min_rows,
        severity=severity,
    )
    if evidence is None or found.verdict not in (Verdict.WARN, Verdict.FAIL) or value is None:
        return found
    if math.isnan(evidence.p_value):
        return replace(found, verdict=Verdict.NO_DATA, reason=f"{found.reason}; no test of chance could be made")
    if evidence.p_value > alpha:
        told = f"which {rows if rows is not None else 'so few'} rows give by chance (p {evidence.p_value:.2g})"
        return replace(found, verdict=Verdict.PASS, reason=f"{measure} on {subject} is {value:.4g}, {told}")
    level = alpha if own_alpha is None else own_alpha
    limit = own_limit(evidence.own_distances, level, _DEGREE.get(measure, 1.0), evidence.sampling)
    if limit is not None and value <= limit:
        told = f"no further than the reference's own weeks go ({limit:.4g})"
        return replace(found, verdict=Verdict.PASS, reason=f"{measure} on {subject} is {value:.4g}, {told}")
    beyond = "" if limit is None else f", and the reference's own weeks go to {limit:.4g}"
    return replace(found, reason=f"{found.reason}; chance alone has p {evidence.p_value:.2g}{beyond}")


def rank_contributions(distances: Mapping[str, float | None], importances: Mapping[str, float]) -> list[Contribution]:
    """Rank drifted columns by how far their drift matters to the model.

    Parameters
    ----------
    distances
        Column: distance; None and NaN count as 0.
    importances
        Column: how much the model leans on it, for example its permutation importance; one that is negative or
        absent counts as 0.

    Returns
    -------
    list of Contribution
        Largest first; equal ones by distance, then by name. Shares are all 0 when nothing that matters drifted.
    """
    found = []
    for name, value in distances.items():
        distance = value if value is not None and math.isfinite(value) else 0.0
        importance = importances.get(name, 0.0)
        found.append((name, distance, importance if importance > 0 else 0.0))
    total = math.fsum(distance * importance for _, distance, importance in found)
    ranked = [
        Contribution(name, distance * importance / total if total > 0 else 0.0, distance, importance)
        for name, distance, importance in found
    ]
    return sorted(ranked, key=lambda one: (-one.share, -one.distance, one.column))


def _compare(name: str, reference: Column, current: Column, blocks: Sequence[Column]) -> ColumnDrift:
    trials = (reference.rows, current.rows)
    missing = proportions_p_value((reference.missing, current.missing), trials)
    rows = min(reference.known, current.known)
    shares = (reference.missing_share, current.missing_share, missing)
    if isinstance(reference, Numbers) and isinstance(current, Numbers):
        distance = normalised_wasserstein(reference, current)
        test = kolmogorov_smirnov(reference, current)
        cells = number_shares(reference, current)
        others = {"ks_statistic": test.statistic}
        measure, p_value, new, vanished = MEASURES["numeric"], test.p_value, {}, {}
        sampling = None
        own = tuple(_own_number(reference, block) for block in blocks if isinstance(block, Numbers))
    elif isinstance(reference, Categories) and isinstance(current, Categories):
        cells = category_shares(reference, current)
        distance = kullback_leibler(cells)
        others = {}
        measure, p_value = MEASURES["categorical"], homogeneity_p_value(reference, current)
        new, vanished = _only(current, reference), _only(reference, current)
        weeks = [block for block in blocks if isinstance(block, Categories)]
        own = tuple(_own_category(reference, week) for week in weeks)
        sampling = _sampling(reference, current, weeks)
    else:
        raise TypeError(f"{name} is numeric in one window and categorical in the other; accepted: the same type")
    others |= {
        "jensen_shannon_distance": jensen_shannon(cells),
        "population_stability_index": population_stability(cells),
    }
    known = math.isfinite(distance)
    return ColumnDrift(
        name,
        measure,
        distance if known else None,
        others,
        Evidence(p_value, own, sampling) if known else None,
        rows,
        *shares,
        new,
        vanished,
    )


def _own_number(reference: Numbers, block: Numbers) -> float:
    """Distance of a block from the other blocks.

    The reference's distribution function is the mean of the block's and the others', so that the block's distance
    from the whole is that from the others times the others' share.
    """
    others = 1 - block.known / reference.known if reference.known else 0.0
    return normalised_wasserstein(reference, block) / others if others > 0 else math.nan


def _own_category(reference: Categories, block: Categories) -> float:
    return kullback_leibler(category_shares(reference.without(block), block))


def _sampling(reference: Categories, current: Categories, weeks: Sequence[Categories]) -> Sampling | None:
    """What chance makes of the divergence, a chi-square over twice the rows of both sides taken together.

    Categories of which a week can expect fewer than five rows are left out: their part has another law.
    """
    known = [week.known for week in weeks if 0 < week.known < reference.known]
    if not known or not current.known:
        return None
    common = sum(count * min(known) >= 5 * reference.known for count in reference.counts.values())
    freedom = max(1, common - 1)
    own = sum(1 / rows + 1 / (reference.known - rows) for rows in known) / len(known)
    return Sampling(freedom, freedom / 2 * own, freedom / 2 * (1 / current.known + 1 / reference.known))


def _only(here: Categories, there: Categories) -> dict[str, float]:
    """Shares of the values that only one window has, largest first."""
    names = sorted(here.counts.keys() - there.counts.keys(), key=lambda name: (-here.counts[name], name))
    return {name: here.counts[name] / here.known for name in names} if there.known else {}


def _categories_told(drift: ColumnDrift) -> str:
    parts = []
    for word, values in (("new", drift.new), ("vanished", drift.vanished)):
        if values:
            some = ", ".join(f"{name} {share:.2%}" for name, share in list(values.items())[:3])
            more = f" and {len(values) - 3} more" if len(values) > 3 else ""
            parts.append(f"{word}: {some}{more}")
    return "; ".join(parts)
