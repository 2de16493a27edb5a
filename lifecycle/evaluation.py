"""A candidate on its hold-out: measures with intervals, baselines, slices, groups (R3.7, R5.2, R5.6)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lifecycle.errors import DataError
from lifecycle.fairness import AttributeFairness, attribute_fairness, group_names
from lifecycle.findings import Direction, Verdict
from lifecycle.measures import PERFORMANCE
from lifecycle.metrics import NAMES, ScoredRows, bootstrap, calibration_segments, interval, invalid_scores
from lifecycle.spec import Business, ModelSpec

Floats = NDArray[np.float64]

CANDIDATE = "candidate"
CURVE_POINTS = 200
ALWAYS, NEVER = 0.0, 1.0
HISTOGRAM_BINS = 50
THRESHOLD_STEPS = 100
# These add up absolute gaps, which every resampling widens: their intervals are centred on the measurement.
_CENTRED = {"expected_calibration_error"}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measurement and its bootstrap confidence interval, in the measure's own unit; None is "no data"."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class BaselineScores:
    """What is compared with the candidate, on the same rows.

    Parameters
    ----------
    scores
        Shape (rows,): probability of the positive class.
    threshold
        A score at or above it is a positive decision.
    """

    scores: NDArray[np.float64]
    threshold: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """Rows by decision and outcome at the model's threshold."""

    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int


@dataclass(frozen=True, slots=True)
class Curve:
    """At most 200 points of a curve; what x and y are stands with the field that holds it."""

    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Rows whose score lies in one bin: their mean score beside the share that was positive."""

    low: float
    high: float
    rows: int
    mean_score: float
    positive_share: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Rows of each class by score; `edges` has one more entry than the counts."""

    edges: tuple[float, ...]
    negatives: tuple[int, ...]
    positives: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SliceFigures:
    """The candidate on the rows with one value of one feature.

    Parameters
    ----------
    column, value, label
        Feature, its value ("(missing)" for null), and what people read.
    rows, positives
        Size of the slice.
    metrics
        Measure: estimate; empty when the slice is too small to judge.
    verdict
        NO_DATA when too small; WARN when the slice's interval lies wholly on the wrong side of the bound
        of one of the model's own gates; else PASS. A slice never decides, it is told.
    reason
        One sentence.
    """

    column: str
    value: str
    label: str
    rows: int
    positives: int
    metrics: dict[str, Estimate]
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A candidate on its hold-out.

    Parameters
    ----------
    rows, positives
        Size of the hold-out and of its positive class.
    invalid_scores
        Scores that are NaN, infinite or outside 0..1; with any of them no measure has a value.
    window
        The hold-out in words a reader can look up.
    threshold
        Decision threshold: a score at or above it is a positive decision.
    confidence, resamples, seed
        Level, number and seed of the bootstrap behind the intervals.
    currency
        Of the business value, ISO 4217.
    metrics
        Every measure of `lifecycle.measures.PERFORMANCE`.
    baselines
        The same for ``prior``, ``logistic_regression`` and ``champion``, as far as they were given. A
        baseline that exists but could not be scored has estimates without values.
    comparisons
        Baseline: measure: improvement of the candidate over it with its paired interval. Always
        oriented so that above 0 means the candidate is better, also for measures where lower is better.
    confusion
        Counts at `threshold`; None when scores are invalid (so are the curves empty).
    roc
        x: false positive rate, y: true positive rate.
    precision_recall
        x: recall, y: precision.
    calibration
        Equal-mass bins of the score that hold rows.
    histogram
        Scores by class.
    value_by_threshold
        x: threshold, y: business value per 1,000 predictions.
    slices
        By column of `spec.evaluation.slices`, then by value, largest first.
    fairness
        One for each sensitive attribute.
    """

    rows: int
    positives: int
    invalid_scores: int
    window: str
    threshold: float
    confidence: float
    resamples: int
    seed: int
    currency: str
    metrics: dict[str, Estimate]
    baselines: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    comparisons: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    confusion: Confusion | None = None
    roc: Curve = Curve((), ())
    precision_recall: Curve = Curve((), ())
    calibration: tuple[CalibrationBin, ...] = ()
    histogram: Histogram = Histogram((), (), ())
    value_by_threshold: Curve = Curve((), ())
    slices: tuple[SliceFigures, ...] = ()
    fairness: dict[str, AttributeFairness] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values: no NaN (None instead), verdicts by name."""
        values = asdict(self)
        for row in values["slices"]:
            row["verdict"] = row["verdict"].name
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """Inverse of `to_dict`, also after a round through JSON."""

        def estimates(table: Mapping[str, Any]) -> dict[str, Estimate]:
            return {name: Estimate(**estimate) for name, estimate in table.items()}

        def curve(points: Mapping[str, Any]) -> Curve:
            return Curve(tuple(points["x"]), tuple(points["y"]))

        return cls(
            **{
                **values,
                "metrics": estimates(values["metrics"]),
                "baselines": {name: estimates(table) for name, table in values["baselines"].items()},
                "comparisons": {name: estimates(table) for name, table in values["comparisons"].items()},
                "confusion": None if values["confusion"] is None else Confusion(**values["confusion"]),
                "roc": curve(values["roc"]),
                "precision_recall": curve(values["precision_recall"]),
                "calibration": tuple(CalibrationBin(**one) for one in values["calibration"]),
                "histogram": Histogram(**{name: tuple(counts) for name, counts in values["histogram"].items()}),
                "value_by_threshold": curve(values["value_by_threshold"]),
                "slices": tuple(
                    SliceFigures(**{**row, "metrics": estimates(row["metrics"]), "verdict": Verdict[row["verdict"]]})
                    for row in values["slices"]
                ),
                "fairness": {
                    name: AttributeFairness.from_dict(attribute) for name, attribute in values["fairness"].items()
                },
            }
        )


def prior_threshold(rate: float, business: Business) -> float:
    """Decide the same for every row, without looking at it: `ALWAYS` or `NEVER` positive, whichever is worth more.

    Parameters
    ----------
    rate
        Share of positives, 0..1: the prior's score of every row.
    business
        What the outcomes of a decision are worth.
    """
    always = rate * business.true_positive + (1 - rate) * business.false_positive
    never = rate * business.false_negative + (1 - rate) * business.true_negative
    return ALWAYS if always > never else NEVER


def evaluate(
    spec: ModelSpec,
    frame: pd.DataFrame,
    labels: ArrayLike,
    scores: ArrayLike,
    threshold: float,
    baselines: Mapping[str, BaselineScores | None],
    seed: int,
    window: str,
) -> Evaluation:
    """Measure a candidate on its hold-out, alone and beside its baselines.

    Parameters
    ----------
    spec
        The model file: rules of evaluation, slices, sensitive attributes, business value.
    frame
        Rows of the hold-out, with the columns of `spec.evaluation.slices` and of the sensitive attributes.
    labels
        Shape (rows,): 0 or 1.
    scores
        Shape (rows,): the candidate's probability of the positive class.
    threshold
        The candidate's decision threshold.
    baselines
        ``prior``, ``logistic_regression``, ``champion``: their scores on the same rows. None stands for one
        that exists but could not be scored: whatever asks for it has no data, and no other rule takes its
        place. A champion that is not named at all does not exist: the candidate is the first version.
    seed
        Of the bootstrap.
    window
        The hold-out in words.

    Raises
    ------
    DataError
        A label other than 0 and 1, a missing column.
    ValueError
        Lengths that differ.
    """
    outcome = np.asarray(labels)
    score = np.asarray(scores, dtype=np.float64)
    _check(spec, frame, outcome)
    views = {CANDIDATE: ScoredRows(outcome, score, threshold, spec.business)}
    for name, baseline in baselines.items():
        if baseline is not None:
            views[f"against {name}"] = ScoredRows(outcome, baseline.scores, baseline.threshold, spec.business)
    candidate = views[CANDIDATE]
    parts = _parts(spec, frame) if candidate.valid else []
    for number, (_, _, rows) in enumerate(parts):
        if len(rows) >= spec.evaluation.min_group_rows:
            views[f"slice {number}"] = ScoredRows(
                outcome[rows], score[rows], threshold, spec.business, rows=rows.astype(np.intp)
            )

    once = np.ones(len(outcome), dtype=np.int32)
    values = {name: view.measure(once) for name, view in views.items()}
    resampled = bootstrap(views, len(outcome), spec.evaluation.bootstrap, seed)

    def estimates(name: str) -> dict[str, Estimate]:
        if name not in views:
            return dict.fromkeys(NAMES, Estimate(None))
        return _estimates(values[name], resampled[name], spec.evaluation.confidence)

    def improvement(name: str) -> dict[str, Estimate]:
        if name not in views:
            return dict.fromkeys(NAMES, Estimate(None))
        better = np.array([1.0 if PERFORMANCE[measure].higher_is_better else -1.0 for measure in NAMES])
        return _estimates(
            better * (values[CANDIDATE] - values[name]),
            better * (resampled[CANDIDATE] - resampled[name]),
            spec.evaluation.confidence,
            difference=True,
        )

    curves: dict[str, Any] = {}
    fairness: dict[str, AttributeFairness] = {}
    if candidate.valid:
        curves = _curves(candidate, threshold, spec.business)
        fairness = {
            attribute.name: attribute_fairness(
                attribute.name,
                frame[attribute.column],
                outcome,
                score >= threshold,
                spec.evaluation,
                attribute.labels,
                seed,
            )
            for attribute in spec.sensitive
        }
    return Evaluation(
        rows=len(outcome),
        positives=int(np.count_nonzero(outcome == 1)),
        invalid_scores=invalid_scores(score),
        window=window,
        threshold=float(threshold),
        confidence=spec.evaluation.confidence,
        resamples=spec.evaluation.bootstrap,
        seed=seed,
        currency=spec.business.currency,
        metrics=estimates(CANDIDATE),
        baselines={name: estimates(f"against {name}") for name in baselines},
        comparisons={name: improvement(f"against {name}") for name in baselines},
        slices=tuple(
            _slice(spec, outcome, part, estimates(f"slice {number}") if f"slice {number}" in views else {})
            for number, part in enumerate(parts)
        ),
        fairness=fairness,
        **curves,
    )


def _check(spec: ModelSpec, frame: pd.DataFrame, outcome: NDArray[Any]) -> None:
    if len(frame) != len(outcome):
        raise ValueError(f"{len(frame)} rows and {len(outcome)} labels; accepted: one label for each row")
    if not np.isin(outcome, (0, 1)).all():
        raise DataError(f"{spec.name}: labels {np.unique(outcome)[:5].tolist()}; accepted: 0 and 1 only")
    wanted = [*spec.evaluation.slices, *(attribute.column for attribute in spec.sensitive)]
    missing = [column for column in dict.fromkeys(wanted) if column not in frame.columns]
    if missing:
        raise DataError(
            f"{spec.name}: hold-out without {', '.join(missing)}; accepted: every slice and sensitive column"
        )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _estimates(values: Floats, samples: Floats, confidence: float, difference: bool = False) -> dict[str, Estimate]:
    """Pair each measure with the interval of its resamples; a measure without a value has no interval."""
    table: dict[str, Estimate] = {}
    for place, name in enumerate(NAMES):
        value = _finite(values[place])
        if value is None:
            table[name] = Estimate(None)
            continue
        low, high = interval(
            samples[:, place],
            confidence,
            centre=value if name in _CENTRED else None,
            low=-math.inf if difference else PERFORMANCE[name].low,
            high=math.inf if difference else PERFORMANCE[name].high,
        )
        table[name] = Estimate(value, _finite(low), _finite(high))
    return table


def _parts(spec: ModelSpec, frame: pd.DataFrame) -> list[tuple[str, str, NDArray[np.intp]]]:
    """Rows of each value of each slice column, in the file's order, then the largest first."""
    parts: list[tuple[str, str, NDArray[np.intp]]] = []
    for column in spec.evaluation.slices:
        codes, names = pd.factorize(group_names(frame[column]), sort=True)
        found = [(column, str(name), np.flatnonzero(codes == code)) for code, name in enumerate(names)]
        parts += sorted(found, key=lambda part: -len(part[2]))
    return parts


def _slice(
    spec: ModelSpec, outcome: NDArray[Any], part: tuple[str, str, NDArray[np.intp]], metrics: dict[str, Estimate]
) -> SliceFigures:
    column, value, rows = part
    labels = next((feature.labels for feature in spec.categorical if feature.name == column), {})
    positives = int(np.count_nonzero(outcome[rows] == 1))
    verdict, reason = _slice_verdict(spec, len(rows), metrics)
    return SliceFigures(column, value, labels.get(value, value), len(rows), positives, metrics, verdict, reason)


def _slice_verdict(spec: ModelSpec, rows: int, metrics: dict[str, Estimate]) -> tuple[Verdict, str]:
    if not metrics:
        return Verdict.NO_DATA, f"{rows} rows, {spec.evaluation.min_group_rows} needed to judge"
    beyond: list[str] = []
    unknown: list[str] = []
    for gate in spec.evaluation.gates:
        if gate.over is not None or gate.against is not None:
            continue
        estimate = metrics[gate.metric]
        kindest = estimate.high if gate.direction is Direction.AT_LEAST else estimate.low
        if kindest is None:
            unknown.append(gate.metric)
        elif not gate.direction.accepts(kindest, gate.threshold):
            beyond.append(
                f"{gate.metric} at best {kindest:.4g}, asked of the model: {gate.direction.sign} {gate.threshold:.4g}"
            )
    if beyond:
        return Verdict.WARN, "; ".join(beyond)
    if unknown:
        return Verdict.NO_DATA, f"no value or no interval of {', '.join(unknown)}"
    return Verdict.PASS, "within the model's own bounds"


def _curves(candidate: ScoredRows, threshold: float, business: Business) -> dict[str, Any]:
    """Everything that is drawn, from rows sorted by descending score."""
    scores, positive = candidate.scores, candidate.positive
    rows, positives = candidate.size, int(np.count_nonzero(positive))
    tp = np.concatenate(([0], np.cumsum(positive)))
    fp = np.arange(rows + 1) - tp

    def decided_at(level: Floats) -> NDArray[np.intp]:
        """How many rows have a score at or above each level."""
        return np.searchsorted(-scores, -level, side="right")

    # Only where the score changes can a threshold lie.
    ends = np.append(np.flatnonzero(np.diff(scores)), rows - 1) + 1
    places = np.concatenate(([0], ends))
    points = places[np.unique(np.linspace(0, len(places) - 1, CURVE_POINTS).round().astype(np.intp))]
    roc = recall = Curve((), ())
    if 0 < positives < rows:
        roc = Curve(tuple((fp[points] / (rows - positives)).tolist()), tuple((tp[points] / positives).tolist()))
        drawn = points[points > 0]
        recall = Curve(tuple((tp[drawn] / positives).tolist()), tuple((tp[drawn] / drawn).tolist()))

    starts = calibration_segments(scores)
    stops = np.append(starts[1:], rows)
    calibration = tuple(
        CalibrationBin(
            low=float(scores[stop - 1]),
            high=float(scores[start]),
            rows=int(stop - start),
            mean_score=float(scores[start:stop].mean()),
            positive_share=float(positive[start:stop].mean()),
        )
        for start, stop in zip(starts[::-1], stops[::-1], strict=True)
    )

    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    levels = np.linspace(0, 1, THRESHOLD_STEPS + 1)
    at = decided_at(levels)
    worth = business.true_positive * tp[at] + business.false_positive * fp[at]
    worth = worth + business.true_negative * (fp[-1] - fp[at]) + business.false_negative * (tp[-1] - tp[at])
    here = int(decided_at(np.array([threshold]))[0])
    return {
        "confusion": Confusion(
            true_positive=int(tp[here]),
            false_positive=int(fp[here]),
            true_negative=int(fp[-1] - fp[here]),
            false_negative=int(tp[-1] - tp[here]),
        ),
        "roc": roc,
        "precision_recall": recall,
        "calibration": calibration,
        "histogram": Histogram(
            tuple(edges.tolist()),
            tuple(np.histogram(scores[~positive], edges)[0].tolist()),
            tuple(np.histogram(scores[positive], edges)[0].tolist()),
        ),
        "value_by_threshold": Curve(tuple(levels.tolist()), tuple((1_000 * worth / rows).tolist())),
    }
