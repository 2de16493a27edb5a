"""How a model probably does while labels are missing, from its own confidence, and whether that can be trusted (R5.4).

Confidence-based performance estimation, as NannyML does it (Bialek and others, "Estimating Model Performance Under Covariate
Shift Without Labels", 2024): of rows with a calibrated probability of 0.9, nine in ten will be positives. It sees the
rows change, never the world: under concept drift it is wrong, which is told as soon as labels arrive.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.optimize import isotonic_regression

from lifecycle.errors import DataError
from lifecycle.evaluation import Estimate
from lifecycle.findings import Direction, Finding, Severity, Verdict, judge
from lifecycle.metrics import ScoredRows
from lifecycle.performance import (
    RESAMPLES,
    measure_groups,
    measure_performance,
    relative_loss,
    score_groups,
    with_intervals,
)
from lifecycle.spec import Business

Floats = NDArray[np.float64]

ALPHA = 0.01
"""Chance that a sound estimator is called untrusted."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoreCalibration:
    """What a score has meant: a rising function of it, linear between the scores it was fitted on.

    Parameters
    ----------
    scores, probabilities
        Shape (points,): distinct scores in ascending order, and the share of positives there.
    """

    scores: Floats
    probabilities: Floats

    def apply(self, scores: ArrayLike) -> Floats:
        """Probability for each score; beyond the fitted scores the nearest one's."""
        return np.interp(np.asarray(scores, dtype=np.float64), self.scores, self.probabilities)


@dataclass(frozen=True, slots=True)
class EstimatedPerformance:
    """What a window's labels will probably say; never a measurement.

    Parameters
    ----------
    rows
        Predictions it rests on.
    metrics
        Measure: expected value, and the interval that the measured value will lie in with the stated confidence, if
        scores mean what they meant on the reference.
    """

    rows: int
    metrics: dict[str, Estimate]


@dataclass(frozen=True, slots=True)
class EstimateCheck:
    """An estimate beside the truth, on the same rows.

    Parameters
    ----------
    measure, window
        What was estimated, and for when.
    estimated
        The estimate with its interval.
    measured
        The truth; None where the labels cannot give it.
    rows
        Labelled rows.
    """

    measure: str
    window: str
    estimated: Estimate
    measured: float | None
    rows: int

    @property
    def error(self) -> float | None:
        """Estimated less measured; None where either is missing."""
        if self.measured is None or self.estimated.value is None:
            return None
        return self.estimated.value - self.measured

    @property
    def covered(self) -> bool | None:
        """Whether the interval held the truth; None where there is no interval or no truth."""
        low, high = self.estimated.low, self.estimated.high
        if self.measured is None or low is None or high is None:
            return None
        return low <= self.measured <= high


def fit_score_calibration(labels: ArrayLike, scores: ArrayLike) -> ScoreCalibration:
    """Fit what scores mean by isotonic regression (Zadrozny and Elkan, 2002), on the reference's labelled rows.

    Parameters
    ----------
    labels
        Shape (rows,): 0 or 1, both present.
    scores
        Shape (rows,): within 0..1.

    Raises
    ------
    DataError
        One class only, or a score that is no probability.
    """
    outcome, score = np.asarray(labels) == 1, np.asarray(scores, dtype=np.float64)
    if not 0 < np.count_nonzero(outcome) < len(outcome) or not ((score >= 0) & (score <= 1)).all():
        raise DataError(f"{len(score)} scores cannot be calibrated; accepted: probabilities of both classes' rows")
    distinct, group, counts = np.unique(score, return_inverse=True, return_counts=True)
    shares = np.bincount(group, weights=outcome) / counts
    return ScoreCalibration(distinct, np.asarray(isotonic_regression(shares, weights=counts).x))


def estimate_performance(
    scores: ArrayLike,
    threshold: float,
    business: Business,
    calibration: ScoreCalibration | None,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> EstimatedPerformance:
    """Estimate every measure of a window without labels.

    Each row counts as a positive by its calibrated probability and as a negative by the rest. The interval comes from
    labels drawn by these probabilities: it says where the measured value will lie, not only the expected one.

    Parameters
    ----------
    scores
        Shape (rows,): probability of the positive class as the model gave it.
    threshold, business
        As in `lifecycle.performance.measure_performance`.
    calibration
        What scores mean; None takes them at their word.
    confidence, resamples, seed
        Level of the intervals, number and seed of the draws.
    """
    score = np.asarray(scores, dtype=np.float64)
    rows = len(score)
    view = ScoredRows(np.repeat([1, 0], rows), np.tile(score, 2), threshold, business)
    if not view.valid:
        return EstimatedPerformance(rows, with_intervals(view.measure(), np.empty((0, 0)), confidence))
    probability = score if calibration is None else calibration.apply(score)
    values = view.measure(np.concatenate([probability, 1 - probability]))
    middles, group = score_groups(score, threshold)
    counts = np.bincount(group)
    mean = np.clip(np.bincount(group, weights=probability) / counts, 0, 1)
    positives = np.random.default_rng(seed).binomial(counts, mean, (resamples, len(counts)))
    drawn = measure_groups(middles, np.stack([positives, counts - positives], axis=1), threshold, business)
    return EstimatedPerformance(rows, with_intervals(values, drawn, confidence))


def judge_estimate(
    reference: Mapping[str, Estimate],
    estimated: EstimatedPerformance,
    threshold: float,
    *,
    window: str,
    measures: Sequence[str] = ("roc_auc",),
    min_rows: int = 200,
    trusted: bool = True,
) -> list[Finding]:
    """Compare what is estimated with the reference: ``estimated_<measure>_loss``, relative, a warning at most.

    Parameters
    ----------
    reference
        Measure: estimate on the reference.
    threshold
        Largest accepted relative loss: ``monitoring.concept_drift`` of the model file.
    trusted
        Whether earlier estimates stood up to the labels (`judge_trust`); otherwise every finding is NO_DATA.
    """
    findings = []
    for name in measures:
        before, now = reference.get(name, Estimate(None)).value, estimated.metrics[name].value
        found = judge(
            f"estimated_{name}_loss",
            relative_loss(name, before, now),
            threshold,
            Direction.AT_MOST,
            window=window,
            count=estimated.rows,
            min_count=min_rows,
            severity=Severity.WARNING,
            missing=f"{name} is estimated as {now} and was {before} on the reference",
        )
        reason = f"{found.reason} (estimated without labels)"
        if not trusted:
            found = replace(found, verdict=Verdict.NO_DATA)
            reason = f"{reason}; earlier estimates were contradicted by their labels: not to be trusted"
        findings.append(replace(found, reason=reason))
    return findings


def check_estimate(
    labels: ArrayLike,
    scores: ArrayLike,
    threshold: float,
    business: Business,
    calibration: ScoreCalibration | None,
    *,
    window: str,
    measures: Sequence[str] = ("roc_auc",),
    reference: Mapping[str, Estimate] | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[EstimateCheck]:
    """Hold the estimate against the labels that have arrived, on exactly their rows.

    What scores mean is known no better than the reference's labels say it, and that error is the same in every window, so
    that windows of many rows would contradict any estimator sooner or later. The reach of the reference's own interval is
    therefore added to that of the estimate, as of errors that do not average out.

    Parameters
    ----------
    labels
        Shape (rows,): 0 or 1, NaN where the label has not arrived.
    scores, threshold, business, calibration, confidence, resamples, seed
        As in `estimate_performance`.
    window
        The window in words.
    measures
        Which measures are checked.
    reference
        Measure: estimate on the rows that the calibration was fitted on, at the same confidence; None leaves its error out.
    """
    outcome = np.asarray(labels, dtype=np.float64)
    known = ~np.isnan(outcome)
    given = np.asarray(scores, dtype=np.float64)[known]
    estimated = estimate_performance(
        given, threshold, business, calibration, confidence=confidence, resamples=resamples, seed=seed
    )
    truth = measure_performance(outcome[known], given, threshold, business, resamples=0)
    found = {name: _widened(estimated.metrics[name], (reference or {}).get(name)) for name in measures}
    return [
        EstimateCheck(name, window, estimate, truth.metrics[name].value, int(known.sum()))
        for name, estimate in found.items()
    ]


def judge_trust(
    checks: Sequence[EstimateCheck], *, confidence: float = 0.95, min_rows: int = 200, alpha: float = ALPHA
) -> Finding:
    """Judge an estimator of one measure by its record.

    It is not to be trusted when the newest truth lies so far outside its interval, or so many of the truths lie outside,
    that a sound estimator does so with a chance of alpha at most (half of it for either test).

    Parameters
    ----------
    checks
        Of one measure, oldest window first.
    confidence
        Level of the intervals.
    min_rows
        Checks on fewer labelled rows say nothing.
    alpha
        Chance that a sound estimator is told off.

    Returns
    -------
    Finding
        ``estimate_coverage``: share of the intervals that held the truth. FAIL means untrusted; NO_DATA without a check
        that says something. The reason names the newest error and the mean absolute one.
    """
    telling = [check for check in checks if check.covered is not None and check.rows >= min_rows]
    measure = checks[0].measure if checks else "no measure"
    if not telling:
        return judge(
            "estimate_coverage",
            None,
            confidence,
            Direction.AT_LEAST,
            window=f"{len(checks)} windows",
            subject=measure,
            missing=f"none of {len(checks)} windows has an estimate and {min_rows} labels",
        )
    held = sum(bool(check.covered) for check in telling)
    newest = telling[-1]
    errors = [check.error for check in telling if check.error is not None]
    usual = stats.norm.isf((1 - confidence) / 2)
    limit = stats.norm.isf(alpha / 4) / usual
    beyond = _half_widths(newest)
    # The coverage that a sound estimator still reaches, but for half of alpha.
    least = int(stats.binom.ppf(alpha / 2, len(telling), confidence)) / len(telling)
    found = judge(
        "estimate_coverage",
        held / len(telling),
        least,
        Direction.AT_LEAST,
        window=f"{telling[0].window} to {newest.window}",
        subject=measure,
        count=len(telling),
    )
    told = f"newest error {errors[-1]:+.4g}, mean absolute error {np.mean(np.abs(errors)):.4g}"
    if found.verdict is Verdict.FAIL:
        return replace(found, reason=f"{found.reason}; {told}: estimates are not to be trusted")
    if beyond > limit:
        reason = (
            f"{measure} was {newest.measured:.4g} in {newest.window} and estimated as {newest.estimated.value:.4g}, "
            f"{beyond:.2g} times the interval's reach away; accepted: {limit:.2g}; {told}: estimates are not to be trusted"
        )
        return replace(found, verdict=Verdict.FAIL, reason=reason)
    return replace(found, reason=f"{found.reason}; {told}")


def _widened(estimate: Estimate, reference: Estimate | None) -> Estimate:
    """An estimate whose interval reaches further by what the reference's does; itself where there is none."""
    if reference is None or reference.value is None or reference.low is None or reference.high is None:
        return estimate
    below, above = reference.value - reference.low, reference.high - reference.value
    return replace(
        estimate,
        low=None if estimate.low is None else estimate.low - below,
        high=None if estimate.high is None else estimate.high + above,
    )


def _half_widths(check: EstimateCheck) -> float:
    """How far the truth lies from the estimate, in reaches of the interval towards it."""
    estimate, measured = check.estimated, check.measured
    assert estimate.value is not None
    assert estimate.low is not None
    assert estimate.high is not None
    assert measured is not None
    gap = measured - estimate.value
    reach = estimate.high - estimate.value if gap > 0 else estimate.value - estimate.low
    if gap == 0:
        return 0.0
    return abs(gap) / reach if reach > 0 else math.inf
