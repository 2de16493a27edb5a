"""Performance measures of scored rows under many weightings at once, and their bootstrap intervals (R5.2).

Definitions agree with scikit-learn's where it has them, but a measure that the rows cannot give (one class
only, no positive decision, no rows) is NaN here, never 0 or 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy.stats import poisson, rankdata

from lifecycle.measures import PERFORMANCE
from lifecycle.spec import Business

Floats = NDArray[np.float64]
Binning = Literal["mass", "width"]

NAMES: tuple[str, ...] = tuple(PERFORMANCE)
CALIBRATION_BINS = 15

# Poisson(1) counts by inversion of a 16-bit uniform: ten times quicker than an exact sampler, and each
# probability is right to 2**-16.
_POISSON = poisson.ppf((np.arange(2**16) + 0.5) / 2**16, 1.0).astype(np.int32)
# Cells of one batch of resamples: enough to amortise the calls, few enough to stay near the cache.
_BATCH_CELLS = 2**18
# A measure that most resamples cannot give has no honest interval.
_LEAST_FINITE_SHARE = 0.9
# The smallest probability the logarithm sees, as in scikit-learn.
_EPSILON = float(np.finfo(np.float64).eps)


def invalid_scores(scores: ArrayLike) -> int:
    """Count the scores that are no probabilities: NaN, infinite, or outside 0..1."""
    values = np.asarray(scores, dtype=np.float64)
    return int(values.size - np.count_nonzero((values >= 0) & (values <= 1)))


def calibration_segments(scores: Floats, bins: int = CALIBRATION_BINS, binning: Binning = "mass") -> NDArray[np.intp]:
    """Where each calibration bin starts among scores sorted in descending order.

    Parameters
    ----------
    scores
        Shape (rows,), descending, within 0..1, at least one.
    bins
        Number of bins at most; equal scores always share a bin, so there may be fewer.
    binning
        ``mass``: bins of about equally many rows; ``width``: bins of equal width on 0..1.

    Returns
    -------
    Starts of the bins that hold rows, ascending; the first is 0.
    """
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    edges = np.quantile(scores, inner) if binning == "mass" else inner
    bin_of = np.searchsorted(edges, scores, side="left")
    return np.concatenate(([0], np.flatnonzero(np.diff(bin_of)) + 1))


class Scratch:
    """Arrays that are used again from call to call: getting them from the system each time took four times the sums."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, str], NDArray[Any]] = {}

    def array(self, name: str, shape: tuple[int, int], dtype: DTypeLike) -> NDArray[Any]:
        """Give an array with whatever was left in it; one of that name and type given before is gone."""
        kind = np.dtype(dtype)
        cells = shape[0] * shape[1]
        held = self._arrays.get((name, kind.str))
        if held is None or held.size < cells:
            held = self._arrays[name, kind.str] = np.empty(cells, dtype=kind)
        return held[:cells].reshape(shape)


class ScoredRows:
    """Rows with their score and outcome, sorted once, to be measured under any number of weightings.

    Parameters
    ----------
    labels
        Shape (rows,): 0 or 1.
    scores
        Shape (rows,): probability of the positive class, 0..1. If a single one is not (NaN included), every
        measure is NaN.
    threshold
        A score at or above it is a positive decision.
    business
        What the outcomes of a decision are worth.
    rows
        Which entries of a weighting these rows are; by default all of them, in order.
    bins, binning
        Calibration bins, by default 15 of equal mass (equal-width bins are nearly empty where a model
        seldom scores; Nixon et al., 2019).
    """

    def __init__(
        self,
        labels: ArrayLike,
        scores: ArrayLike,
        threshold: float,
        business: Business,
        *,
        rows: NDArray[np.intp] | None = None,
        bins: int = CALIBRATION_BINS,
        binning: Binning = "mass",
    ) -> None:
        outcome = np.asarray(labels)
        score = np.asarray(scores, dtype=np.float64)
        if outcome.shape != score.shape or outcome.ndim != 1:
            raise ValueError(f"labels {outcome.shape} and scores {score.shape}; accepted: one score for each label")
        self.size = len(outcome)
        self.valid = self.size > 0 and invalid_scores(score) == 0
        self.business = business
        order = np.argsort(-score, kind="stable")
        self._rows = order if rows is None else rows[order]
        self.scores = score[order]
        self.positive = outcome[order] == 1
        if not self.valid:
            return
        self._positive = self.positive.astype(np.int32)
        self._positives_at = np.flatnonzero(self.positive)
        # A threshold cannot part equal scores: each positive stands with the first and last row of its score.
        ends = np.append(np.flatnonzero(np.diff(self.scores)), self.size - 1)
        run = np.searchsorted(ends, self._positives_at)
        self._last = ends[run]
        self._before = np.concatenate(([-1], ends[:-1]))[run]
        self._tied = len(ends) < self.size
        self._decided = int(np.count_nonzero(self.scores >= threshold))
        self._segments = calibration_segments(self.scores, bins, binning)
        self._gaps = self._positive - self.scores
        likelihood = np.where(self.positive, self.scores, 1 - self.scores)
        self._losses = np.column_stack(
            [-np.log(np.clip(likelihood, _EPSILON, 1 - _EPSILON)), np.square(self.scores - self._positive)]
        )

    def measure(self, weights: ArrayLike | None = None, scratch: Scratch | None = None) -> Floats:
        """Take every measure of `NAMES` under each weighting.

        Parameters
        ----------
        weights
            Shape (weightings, all rows) or (all rows,): how much each row counts, at least 0; None counts
            each once. Counts as int32 are quickest; a weighting has to add up within that type.
        scratch
            Arrays to use again, when this is called many times.

        Returns
        -------
        Shape (weightings, measures), or (measures,) for one weighting; NaN where a measure is not defined.
        """
        given = np.ones(self._rows.max(initial=-1) + 1, dtype=np.int32) if weights is None else np.asarray(weights)
        table = np.atleast_2d(given)
        if table.dtype != np.int32:
            table = table.astype(np.float64)
        result = np.full((len(table), len(NAMES)), math.nan)
        if self.valid:
            result = self._measure(table, scratch or Scratch())
        return result if given.ndim == 2 else result[0]

    def _measure(self, table: NDArray[Any], scratch: Scratch) -> Floats:
        shape = (len(table), self.size)
        w = table.take(self._rows, axis=1, out=scratch.array("w", shape, table.dtype), mode="clip")
        cum_all = np.cumsum(w, axis=1, out=scratch.array("cum_all", shape, w.dtype))
        floats = scratch.array("floats", shape, np.float64)
        np.copyto(floats, w)
        positive = np.multiply(w, self._positive, out=w)
        cum_positive = np.cumsum(positive, axis=1, out=scratch.array("cum_positive", shape, w.dtype))

        total = cum_all[:, -1].astype(np.float64)
        positives = cum_positive[:, -1].astype(np.float64)
        negatives = total - positives
        nothing = np.zeros(len(w))
        decided = cum_all[:, self._decided - 1].astype(np.float64) if self._decided else nothing
        tp = cum_positive[:, self._decided - 1].astype(np.float64) if self._decided else nothing
        fp, fn = decided - tp, positives - tp
        tn = negatives - fp

        with np.errstate(divide="ignore", invalid="ignore"):
            both = (positives > 0) & (negatives > 0)
            wrong, precision_sum = self._areas(floats, cum_positive, cum_all, scratch)
            losses = (floats @ self._losses) / total[:, np.newaxis]
            gaps = np.add.reduceat(np.multiply(floats, self._gaps, out=floats), self._segments, axis=1)
            worth = self.business
            value = worth.true_positive * tp + worth.false_positive * fp
            value += worth.true_negative * tn + worth.false_negative * fn
            measures = {
                "roc_auc": np.where(both, 1 - wrong / (positives * negatives), math.nan),
                "average_precision": np.where(both, precision_sum / positives, math.nan),
                "accuracy": (tp + tn) / total,
                "precision": tp / decided,
                "recall": tp / positives,
                "f1": np.where(positives > 0, 2 * tp / (2 * tp + fp + fn), math.nan),
                "log_loss": losses[:, 0],
                "brier": losses[:, 1],
                "expected_calibration_error": np.abs(gaps).sum(axis=1) / total,
                "business_value_per_1000": 1_000 * value / total,
            }
        return np.column_stack([measures[name] for name in NAMES])

    def _areas(
        self, weights: Floats, cum_positive: NDArray[Any], cum_all: NDArray[Any], scratch: Scratch
    ) -> tuple[Floats, Floats]:
        """Weight of the pairs ranked wrong, and the sum of the precisions at each positive.

        All arguments have shape (weightings, rows), in descending order of score. Among equal scores half of
        the pairs count as ranked wrong.
        """
        shape = (len(weights), len(self._positives_at))

        def at(source: NDArray[Any], places: NDArray[np.intp], name: str) -> Floats:
            taken = scratch.array(f"{name} taken", shape, source.dtype)
            result = scratch.array(name, shape, np.float64)
            np.copyto(result, source.take(places, axis=1, out=taken, mode="clip"))
            return result

        weight = at(weights, self._positives_at, "weight")
        tp = at(cum_positive, self._last, "tp")
        decided = at(cum_all, self._last, "decided")
        fp = np.subtract(decided, tp, out=scratch.array("fp", shape, np.float64))
        wrong = np.einsum("ij,ij->i", weight, fp)
        # No weight at or above a score means that its own weight is 0 too: it adds nothing, whatever it is divided by.
        precision = np.divide(tp, np.maximum(decided, np.finfo(np.float64).tiny, out=decided), out=tp)
        precision_sum = np.einsum("ij,ij->i", weight, precision)
        if self._tied:
            # mode="clip" reads -1, nothing above, as row 0: set it right.
            above = at(cum_all, self._before, "tp") - at(cum_positive, self._before, "decided")
            above[:, self._before < 0] = 0.0
            wrong = (wrong + np.einsum("ij,ij->i", weight, above)) / 2
        return wrong, precision_sum


def performance(
    labels: ArrayLike,
    scores: ArrayLike,
    threshold: float,
    business: Business,
    weights: ArrayLike | None = None,
) -> dict[str, float]:
    """Every measure of `lifecycle.measures.PERFORMANCE` on scored rows, NaN where it is not defined.

    Parameters as in `ScoredRows`; `weights` has shape (rows,).
    """
    values = ScoredRows(labels, scores, threshold, business).measure(weights)
    return dict(zip(NAMES, values.tolist(), strict=True))


def expected_calibration_error(
    labels: ArrayLike, scores: ArrayLike, bins: int = CALIBRATION_BINS, binning: Binning = "mass"
) -> float:
    """Mean gap between score and outcome over bins of the score, weighted by rows (Guo et al., 2017).

    0 is perfectly calibrated; NaN without rows or with a score that is no probability. `bins` and `binning`
    as in `calibration_segments`.
    """
    score = np.asarray(scores, dtype=np.float64)
    if score.size == 0 or invalid_scores(score):
        return math.nan
    order = np.argsort(-score, kind="stable")
    gaps = (np.asarray(labels)[order] == 1) - score[order]
    starts = calibration_segments(score[order], bins, binning)
    return float(np.abs(np.add.reduceat(gaps, starts)).sum() / score.size)


def bootstrap(views: Mapping[str, ScoredRows], rows: int, resamples: int, seed: int) -> dict[str, Floats]:
    """Measure every view under the same resamples of the rows, so that differences between views are paired.

    A resample counts each row Poisson(1) times, independently (the Poisson bootstrap; Hanley and MacGibbon,
    2006): equal to resampling with replacement for large samples, and the resample of a slice is the slice of
    the resample. Memory is bounded by a batch of resamples.

    Parameters
    ----------
    views
        Scored rows by name; their `rows` point into 0..rows.
    rows
        Rows resampled.
    resamples
        Number of resamples.
    seed
        Of the only random choice.

    Returns
    -------
    For each view shape (resamples, measures), columns as in `NAMES`.
    """
    rng = np.random.default_rng(seed)
    scratch = Scratch()
    batch = max(1, _BATCH_CELLS // max(rows, 1))
    result = {name: np.empty((resamples, len(NAMES))) for name in views}
    for start in range(0, resamples, batch):
        count = min(batch, resamples - start)
        draws = rng.integers(0, 2**16, (count, rows), dtype=np.uint16)
        weights = _POISSON.take(draws, out=scratch.array("weights", (count, rows), np.int32), mode="clip")
        for name, view in views.items():
            result[name][start : start + count] = view.measure(weights, scratch)
    return result


def interval(
    samples: Floats, confidence: float, *, centre: float | None = None, low: float = -math.inf, high: float = math.inf
) -> tuple[float, float]:
    """Percentile interval of a measure's resamples.

    Parameters
    ----------
    samples
        Shape (resamples,); those that are NaN are left out, but if more than a tenth are, there is no interval.
    confidence
        Level, between 0 and 1.
    centre
        Moves the interval so that the median of the resamples lies here. For measures that every resampling
        pushes up because they add up absolute gaps (calibration error, difference of groups).
    low, high
        Smallest and largest value the measure can take.

    Returns
    -------
    Lower and upper bound; NaN twice without an interval.
    """
    finite = samples[np.isfinite(samples)]
    if finite.size == 0 or finite.size < _LEAST_FINITE_SHARE * samples.size:
        return math.nan, math.nan
    tail = (1 - confidence) / 2
    # Equal to numpy's quantile, whose checks would cost more than the sorting of so few numbers.
    places = np.array([tail, 0.5, 1 - tail]) * (finite.size - 1)
    lower, median, upper = np.interp(places, np.arange(finite.size), np.sort(finite)).tolist()
    shift = 0.0 if centre is None else centre - median
    return min(max(lower + shift, low), high), min(max(upper + shift, low), high)


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve of any scores, by ranks (Mann and Whitney, 1947); ties count half.

    NaN where a class is missing or a score is NaN.
    """
    positive, score = np.asarray(labels) == 1, np.asarray(scores, dtype=np.float64)
    positives = int(np.count_nonzero(positive))
    negatives = positive.size - positives
    if not positives or not negatives or np.isnan(score).any():
        return math.nan
    above = float(rankdata(score)[positive].sum()) - positives * (positives + 1) / 2
    return float(above / (positives * negatives))
