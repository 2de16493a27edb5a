"""How a model does on the rows whose labels have arrived, with intervals, and against its reference (R5.2, R5.4)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lifecycle.errors import DataError
from lifecycle.evaluation import Estimate
from lifecycle.findings import Direction, Finding, Severity, Verdict, judge
from lifecycle.measures import PERFORMANCE
from lifecycle.metrics import NAMES, ScoredRows, interval, invalid_scores
from lifecycle.spec import Business

Floats = NDArray[np.float64]

RESAMPLES = 500
# Groups of neighbouring scores that the resamples tell apart: their intervals differ from those of single rows by less
# than the resampling itself does, in time that does not grow with the rows.
GROUPS = 2_000


@dataclass(frozen=True, slots=True)
class Performance:
    """A model on a window.

    Parameters
    ----------
    rows, labelled
        Predictions in the window, and those of them whose label has arrived.
    positives
        Of the labelled.
    invalid_scores
        Labelled rows whose score is no probability; with any of them no measure has a value.
    metrics
        Every measure of `lifecycle.measures.PERFORMANCE` on the labelled rows.
    """

    rows: int
    labelled: int
    positives: int
    invalid_scores: int
    metrics: dict[str, Estimate]

    @property
    def labelled_share(self) -> float:
        """Share of the predictions whose label has arrived, 0..1; NaN without rows."""
        return self.labelled / self.rows if self.rows else math.nan


def measure_performance(
    labels: ArrayLike,
    scores: ArrayLike,
    threshold: float,
    business: Business,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Performance:
    """Measure a window on the labels that have arrived.

    Parameters
    ----------
    labels
        Shape (rows,): 0 or 1, NaN where the label has not arrived.
    scores
        Shape (rows,): probability of the positive class.
    threshold
        A score at or above it is a positive decision.
    business
        Worth of each outcome.
    confidence, resamples, seed
        Level, number and seed of the Poisson bootstrap behind the intervals.

    Raises
    ------
    DataError
        A label other than 0, 1 and NaN.
    """
    outcome, score = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    known = ~np.isnan(outcome)
    if not np.isin(outcome[known], (0, 1)).all():
        raise DataError(f"labels {np.unique(outcome[known])[:5].tolist()}; accepted: 0, 1, or NaN until it arrives")
    there, given = outcome[known], score[known]
    view = ScoredRows(there, given, threshold, business)
    values = view.measure()
    samples = np.full((resamples, len(NAMES)), math.nan)
    if view.valid:
        middles, group = score_groups(given, threshold)
        counts = np.array([np.bincount(group[there == label], minlength=len(middles)) for label in (1, 0)])
        rng = np.random.default_rng(seed)
        # A group's rows counted Poisson(1) times each are Poisson(rows) in all.
        samples = measure_groups(middles, rng.poisson(counts, (resamples, *counts.shape)), threshold, business)
    return Performance(
        rows=len(outcome),
        labelled=len(there),
        positives=int(np.count_nonzero(there == 1)),
        invalid_scores=invalid_scores(given),
        metrics=with_intervals(values, samples, confidence),
    )


def judge_degradation(
    reference: Mapping[str, Estimate],
    current: Performance,
    threshold: float,
    *,
    window: str,
    measures: Collection[str] = ("roc_auc",),
    min_labelled: int = 200,
) -> list[Finding]:
    """Compare a window with the reference, relative to it (R5.4).

    Parameters
    ----------
    reference
        Measure: estimate on the reference, for example the version's own evaluation.
    current
        The window.
    threshold
        Largest accepted relative loss: ``monitoring.concept_drift`` of the model file.
    window
        The window in words.
    measures
        Which measures are judged.
    min_labelled
        Fewer labels are NO_DATA.

    Returns
    -------
    list of Finding
        ``<measure>_loss`` for each measure: 0 is as good as the reference, 0.1 a tenth worse, negative better. A loss
        beyond the threshold fails; but where the window's interval still holds the reference's value, the labels are
        too few to tell, which is NO_DATA. Where the reference's value is not above 0 a relative loss means nothing:
        NO_DATA.
    """
    share = f"labels of {current.labelled:,} of {current.rows:,} predictions"
    findings = []
    for name in measures:
        before, now = reference.get(name, Estimate(None)).value, current.metrics[name]
        loss = relative_loss(name, before, now.value)
        found = judge(
            f"{name}_loss",
            loss,
            threshold,
            Direction.AT_MOST,
            window=window,
            count=current.labelled,
            min_count=min_labelled,
            severity=Severity.ERROR,
            interval=_loss_interval(name, before, now),
            missing=f"{name} is {now.value} here and {before} on the reference",
        )
        if found.verdict is Verdict.FAIL and (found.interval is None or found.interval[0] <= 0):
            reason = f"{found.reason}, but the labels are too few to tell it from the reference's {before:.4g}"
            found = replace(found, verdict=Verdict.NO_DATA, reason=reason)
        findings.append(replace(found, reason=f"{found.reason} ({share})"))
    return findings


def judge_labelled(current: Performance, least: float, *, window: str) -> Finding:
    """Judge the share of predictions whose labels have arrived: ``labelled_share``, a warning below `least`."""
    return judge(
        "labelled_share",
        current.labelled_share,
        least,
        Direction.AT_LEAST,
        window=window,
        count=current.rows,
        severity=Severity.WARNING,
    )


def relative_loss(measure: str, before: float | None, now: float | None) -> float | None:
    """How much worse a measure is than it was, as a share of what it was; None where that means nothing."""
    if before is None or now is None or not before > 0:
        return None
    return (before - now if PERFORMANCE[measure].higher_is_better else now - before) / before


def score_groups(scores: Floats, threshold: float) -> tuple[Floats, NDArray[np.intp]]:
    """Put neighbouring scores together, at most about `GROUPS` of about equally many rows.

    Parameters
    ----------
    scores
        Shape (rows,): within 0..1, at least one.
    threshold
        Never inside a group: the groups' decisions are the rows'.

    Returns
    -------
    The groups' mean scores, ascending, and each row's group.
    """
    edges = np.unique(np.append(np.quantile(scores, np.linspace(0, 1, GROUPS + 1)[1:]), np.nextafter(threshold, -1)))
    group = np.searchsorted(edges, scores, side="left")
    _, group = np.unique(group, return_inverse=True)
    counts = np.bincount(group)
    low, high = np.full(len(counts), np.inf), np.full(len(counts), -np.inf)
    np.minimum.at(low, group, scores)
    np.maximum.at(high, group, scores)
    # Rounding must not carry a mean out of its group, and over the threshold.
    middles = np.clip(np.bincount(group, weights=scores) / counts, low, high)
    return middles, group


def measure_groups(middles: Floats, counts: NDArray[np.int64], threshold: float, business: Business) -> Floats:
    """Take every measure of rows that stand in groups of score.

    Parameters
    ----------
    middles
        Shape (groups,): score of each group.
    counts
        Shape (resamples, 2, groups): positives, then negatives.
    threshold, business
        As in `measure_performance`.

    Returns
    -------
    Shape (resamples, measures), columns as in `lifecycle.metrics.NAMES`.
    """
    view = ScoredRows(np.repeat([1, 0], len(middles)), np.tile(middles, 2), threshold, business)
    return view.measure(counts.reshape(len(counts), 2 * len(middles)).astype(np.int32))


def with_intervals(values: Floats, samples: Floats, confidence: float) -> dict[str, Estimate]:
    """Pair each measure with the interval of its resamples; a measure without a value has none."""
    found: dict[str, Estimate] = {}
    for place, name in enumerate(NAMES):
        value = float(values[place])
        if not math.isfinite(value):
            found[name] = Estimate(None)
            continue
        measure = PERFORMANCE[name]
        # Calibration error adds up absolute gaps, which every resampling widens.
        centre = value if name == "expected_calibration_error" else None
        low, high = interval(samples[:, place], confidence, centre=centre, low=measure.low, high=measure.high)
        found[name] = Estimate(value, *(bound if math.isfinite(bound) else None for bound in (low, high)))
    return found


def _loss_interval(measure: str, before: float | None, now: Estimate) -> tuple[float, float] | None:
    ends = [relative_loss(measure, before, bound) for bound in (now.low, now.high)]
    known = [end for end in ends if end is not None]
    return (min(known), max(known)) if len(known) == 2 else None
