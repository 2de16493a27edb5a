"""Attacks on a model that its traffic shows: inputs like none before, clients that copy it, refused requests (R5.7)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from lifecycle.distribution import Categories, Numbers, WindowState
from lifecycle.findings import Direction, Finding, Severity, Verdict, judge

Floats = NDArray[np.float64]

ALPHA = 0.01
"""Chance that a window of ordinary traffic has any finding of one kind, over all of its clients."""
ODD = 0.001
"""Share of ordinary rows that count as odd."""
MIN_QUERIES = 100
"""Queries from which a client's spacing is judged, as in PRADA."""
MOST_SPACING = 0.4
"""Largest accepted difference of two spacings, as a Kolmogorov-Smirnov statistic: clients with a corner of their own reach
0.2 on the project's generator, random, perturbed and searching queries 0.87 and more."""
MOST_COVERAGE = 0.4
"""Share of ordinary rows from which a busy client asks as broadly as all traffic does (0.5)."""
MOST_QUERIES = 2_000
# A busy client asks at least this many times as much as usual, however steady clients are.
_BUSY = 3.0
_RIDGE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """Rows as points in which distances mean something: numbers in deviations, categories as corners of a simplex.

    Parameters
    ----------
    numeric
        Column: mean and standard deviation of the reference.
    categories
        Column: share of each category, and what an unseen one counts as.
    """

    numeric: dict[str, tuple[float, float]]
    categories: dict[str, dict[str, float]]

    @classmethod
    def of(cls, reference: WindowState) -> Self:
        """The space of a reference's columns."""
        numeric: dict[str, tuple[float, float]] = {}
        categories: dict[str, dict[str, float]] = {}
        for name, state in reference.columns.items():
            if isinstance(state, Numbers):
                deviation = state.deviation
                numeric[name] = (state.mean, deviation if deviation > 0 else 1.0)
            elif isinstance(state, Categories):
                categories[name] = {value: count / max(1, state.rows) for value, count in state.counts.items()}
        return cls(numeric, categories)

    def numbers(self, frame: pd.DataFrame) -> Floats:
        """Shape (rows, numeric columns): deviations from the mean, 0 where missing; infinities become very far."""
        columns = [
            np.nan_to_num(
                (frame[name].to_numpy(dtype=np.float64, na_value=math.nan) - mean) / deviation,
                nan=0.0,
                posinf=1e6,
                neginf=-1e6,
            )
            for name, (mean, deviation) in self.numeric.items()
        ]
        return np.column_stack(columns) if columns else np.zeros((len(frame), 0))

    def points(self, frame: pd.DataFrame) -> Floats:
        """Shape (rows, dimensions): points whose Euclidean distance counts an unlike category as one deviation."""
        parts = [np.clip(self.numbers(frame), -10, 10)]
        for name, shares in self.categories.items():
            places = {value: place for place, value in enumerate(shares)}
            codes, found = pd.factorize(frame[name])
            # Unseen and missing values are corners of their own.
            corner = np.array(
                [*(places.get(str(value), len(places)) for value in found), len(places) + 1], dtype=np.intp
            )
            parts.append(np.eye(len(places) + 2)[corner[codes]] / math.sqrt(2))
        return np.hstack(parts)


@dataclass(frozen=True, slots=True, eq=False)
class Familiarity:
    """How much a row looks like the reference's: a score, and what share of ordinary rows look stranger.

    Mahalanobis distance of the numbers (Lee and others, 2018, "A simple unified framework for detecting
    out-of-distribution samples and adversarial attacks") and the surprise of the categories, made a p-value by the
    reference's own scores (conformal anomaly detection; Laxhammar and Falkman, 2010).
    """

    space: Space
    whitening: Floats
    scores: Floats

    @classmethod
    def of(cls, space: Space, ordinary: pd.DataFrame) -> Self:
        """Learn from ordinary rows; some thousand are enough, and 10 / `ODD` the least for that share to mean anything."""
        numbers = space.numbers(ordinary)
        covariance = np.atleast_2d(np.cov(numbers, rowvar=False)) if numbers.shape[1] else np.zeros((0, 0))
        whitening = np.linalg.inv(np.linalg.cholesky(covariance + _RIDGE * np.eye(len(covariance))))
        unscored = cls(space, whitening, np.empty(0))
        return cls(space, whitening, np.sort(unscored.score(ordinary)))

    def score(self, frame: pd.DataFrame) -> Floats:
        """Strangeness of each row: squared distance plus twice the surprise in nats; any real number above 0."""
        distance = np.square(self.space.numbers(frame) @ self.whitening.T).sum(axis=1)
        for name, shares in self.space.categories.items():
            codes, found = pd.factorize(frame[name])
            missing = max(ODD, 1 - sum(shares.values()))
            surprise = [-2 * math.log(shares.get(str(value), ODD * ODD)) for value in found]
            distance = distance + np.array([*surprise, -2 * math.log(missing)])[codes]
        return np.asarray(distance)

    def p_values(self, frame: pd.DataFrame) -> Floats:
        """Share of ordinary rows at least as strange, above 0 to 1."""
        at_least = len(self.scores) - np.searchsorted(self.scores, self.score(frame), side="left")
        return np.asarray((at_least + 1) / (len(self.scores) + 1))


def judge_familiarity(
    p_values: Floats, threshold: float = 0.01, *, window: str, subject: str = "all rows", alpha: float = ALPHA
) -> Finding:
    """Judge the share of rows that hardly any ordinary row is as strange as.

    Parameters
    ----------
    p_values
        From `Familiarity.p_values`; shape (rows,).
    threshold
        Largest accepted share of odd rows.
    window, subject
        In words.
    alpha
        Chance of a finding in a window of ordinary rows, of which a share of `ODD` is odd.

    Returns
    -------
    Finding
        ``out_of_distribution_share``: a warning above the threshold unless ordinary rows give as many by chance.
    """
    odd, rows = int(np.count_nonzero(p_values <= ODD)), len(p_values)
    found = judge(
        "out_of_distribution_share",
        odd / rows if rows else None,
        threshold,
        Direction.AT_MOST,
        window=window,
        subject=subject,
        count=rows,
        severity=Severity.WARNING,
    )
    chance = float(stats.binom.sf(odd - 1, rows, ODD)) if odd else 1.0
    if found.verdict is Verdict.WARN and chance > alpha:
        return replace(found, verdict=Verdict.PASS, reason=f"{odd} odd rows of {rows}: ordinary ones give as many")
    return found


def spacing(points: Floats) -> Floats:
    """Distance of each query to the nearest one before it (PRADA's; Juuti and others, 2019).

    Parameters
    ----------
    points
        Shape (queries, dimensions), in order of arrival; at most `MOST_QUERIES` are looked at, evenly chosen.

    Returns
    -------
    Shape (queries - 1,).
    """
    if len(points) > MOST_QUERIES:
        points = points[np.linspace(0, len(points) - 1, MOST_QUERIES).round().astype(np.intp)]
    if len(points) < 2:
        return np.empty(0)
    between = cdist(points, points)
    between[np.triu_indices(len(points))] = np.inf
    return np.asarray(between[1:].min(axis=1))


def coverage(points: Floats, ordinary: Floats) -> float:
    """Share of ordinary rows that some query stands for: none nearer among as many other ordinary rows, half the time.

    Parameters
    ----------
    points
        Shape (queries, dimensions).
    ordinary
        Shape (rows, dimensions), at least twice as many as queries.

    Returns
    -------
    float
        0 to 1; about 0.5 for queries drawn like the ordinary rows, less for a client that asks of its own corner.
    """
    if not len(points):
        return 0.0
    held = ordinary[::2]
    others = ordinary[1::2][: len(points)]
    usual = KDTree(others).query(held)[0]
    nearest = KDTree(points).query(held)[0]
    return float((nearest < usual).mean() + 0.5 * (nearest == usual).mean())


@dataclass(frozen=True, slots=True)
class Client:
    """What one client did in a window.

    Parameters
    ----------
    name
        Its name in the log.
    queries
        Answered requests.
    refused
        Requests refused for want of a right.
    points
        Shape (queries, dimensions): its queries in order, by `Space.points`.
    """

    name: str
    queries: int
    refused: int
    points: Floats


def judge_clients(
    clients: Sequence[Client],
    ordinary: Floats,
    *,
    window: str,
    usual_queries: Mapping[str, Sequence[int]] | None = None,
    usual_points: Mapping[str, Floats] | None = None,
    alpha: float = ALPHA,
) -> list[Finding]:
    """Look for clients that copy the model: many queries, spaced as no ordinary ones, or spread over all inputs.

    A model can only be copied by asking much, so only a busy client is looked at more closely. Its queries fail when
    they are spaced unlike ordinary ones: synthetic queries lie farther off, perturbed and searching ones closer, than
    real rows do (Juuti and others, 2019, "PRADA", compare with a normal distribution, which rows with categories do not
    have: here ordinary rows take its place). They warn when they stand for as many of the ordinary inputs as randomly
    chosen rows would: copying with real rows looks like that, and so does a new client with all kinds of business.

    Parameters
    ----------
    clients
        Of this window.
    ordinary
        Shape (rows, dimensions): ordinary traffic in random order; twice as many rows as a client has queries, at best.
    window
        In words.
    usual_queries
        Client: its queries in earlier windows. A client with a past is measured by its own, a new one by the others';
        without any past, by this window's clients.
    usual_points
        Client: its own earlier queries, in random order, which then take the place of `ordinary` for its spacing.
    alpha
        Chance of any finding of one kind among clients that do as ever.

    Returns
    -------
    list of Finding
        For each client ``query_volume_ratio`` (over the usual; a warning), and where it is busy
        ``query_spacing_distance`` (a failure) and ``input_coverage`` (a warning).
    """
    each = alpha / max(1, len(clients))
    past = {
        name: np.log1p(np.asarray(counts, dtype=np.float64))
        for name, counts in (usual_queries or {}).items()
        if len(counts)
    }
    field = np.array(
        [float(logs.mean()) for logs in past.values()] or [math.log1p(client.queries) for client in clients]
    )
    findings: list[Finding] = []
    for client in clients:
        usual, limit = _usual_queries(past.get(client.name), past, field, each)
        volume = judge(
            "query_volume_ratio",
            (client.queries + 1) / (usual + 1) if usual > 0 else None,
            limit,
            Direction.AT_MOST,
            window=window,
            subject=client.name,
            count=client.queries,
            min_count=0,
            severity=Severity.WARNING,
            missing="no client has asked before",
        )
        findings.append(volume)
        # Without a record of volume every client that asked enough is looked at.
        if volume.verdict is Verdict.PASS or client.queries < MIN_QUERIES:
            continue
        findings.append(_judge_spacing(client, (usual_points or {}).get(client.name, ordinary), window, each))
        if len(ordinary) >= 2 * MIN_QUERIES:
            share = coverage(client.points[:MOST_QUERIES], ordinary[: 2 * MOST_QUERIES])
            findings.append(
                judge(
                    "input_coverage",
                    share,
                    MOST_COVERAGE,
                    Direction.AT_MOST,
                    window=window,
                    subject=client.name,
                    count=client.queries,
                    severity=Severity.WARNING,
                )
            )
    return findings


def judge_refusals(
    clients: Sequence[Client], usual_share: float, *, window: str, most: float = 0.1, alpha: float = ALPHA
) -> list[Finding]:
    """Judge the refused requests of each client: attempts to do what it has no right to.

    Parameters
    ----------
    clients
        Of this window; those unknown may stand under their address.
    usual_share
        Share of all requests that is usually refused, 0..1.
    window
        In words.
    most
        Largest accepted share.
    alpha
        Chance of any finding among clients that are refused no more often than usual.

    Returns
    -------
    list of Finding
        ``refused_share`` for each client with any request: a failure above `most` unless chance gives as many.
    """
    findings = []
    for client in clients:
        asked = client.queries + client.refused
        found = judge(
            "refused_share",
            client.refused / asked if asked else None,
            most,
            Direction.AT_MOST,
            window=window,
            subject=client.name,
            count=asked,
        )
        chance = float(stats.binom.sf(client.refused - 1, asked, min(1.0, max(usual_share, 1e-4)))) if asked else 1.0
        if found.verdict is Verdict.FAIL and chance > alpha / max(1, len(clients)):
            told = f"{client.refused} of {asked} requests refused: so few say nothing (p {chance:.2g})"
            found = replace(found, verdict=Verdict.PASS, reason=told)
        findings.append(found)
    return findings


def _usual_queries(own: Floats | None, past: Mapping[str, Floats], field: Floats, alpha: float) -> tuple[float, float]:
    """Queries that are usual of a client, and how many times as many are not; queries are taken as lognormal.

    Parameters
    ----------
    own
        Logarithms of the client's queries in earlier windows; None of a new client.
    past
        The same of every client that has any.
    field
        Logarithm of each client's usual queries.
    """
    freedom = sum(len(logs) - 1 for logs in past.values())
    if own is not None and freedom > 0:
        usual = float(own.mean())
        variance = sum(float(np.square(logs - logs.mean()).sum()) for logs in past.values()) / freedom
        reach = float(stats.t.isf(alpha, freedom)) * math.sqrt(variance * (1 + 1 / len(own)))
    else:
        usual = float(np.median(field))
        # The median deviation, so that an attacker in the field does not excuse itself.
        reach = float(stats.norm.isf(alpha)) * float(np.median(np.abs(field - usual))) / float(stats.norm.isf(0.25))
    return math.expm1(usual), max(_BUSY, math.exp(reach))


def _judge_spacing(client: Client, ordinary: Floats, window: str, alpha: float) -> Finding:
    """Compare a client's spacing with that of as many ordinary queries."""
    number = min(len(client.points), len(ordinary), MOST_QUERIES)
    statistic, chance = None, 1.0
    if number >= MIN_QUERIES:
        mine, usual = spacing(client.points[:number]), spacing(ordinary[:number])
        tested = stats.ks_2samp(mine, usual, method="asymp")
        statistic, chance = float(tested.statistic), float(tested.pvalue)
    found = judge(
        "query_spacing_distance",
        statistic,
        MOST_SPACING,
        Direction.AT_MOST,
        window=window,
        subject=client.name,
        count=number,
        min_count=MIN_QUERIES,
    )
    if found.verdict is Verdict.FAIL and chance > alpha:
        return replace(found, verdict=Verdict.PASS, reason=f"{found.reason}, which chance gives (p {chance:.2g})")
    return found
