"""What monitoring says of a model: its traffic held against its reference, area by area (R5.1 to R5.7).

Every area is judged by itself: what cannot be judged, or breaks while it is, is a finding and leaves the others alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
from scipy import stats

from lifecycle.bias import CHANGE, WindowFairness, intersections, judge_bias, told_apart, window_fairness
from lifecycle.distribution import Numbers, WindowState
from lifecycle.drift import MIN_BLOCKS, MIN_ROWS, ColumnDrift, compare_windows, judge_columns, rank_contributions
from lifecycle.estimation import EstimateCheck, check_estimate, estimate_performance, judge_estimate, judge_trust
from lifecycle.evaluation import Estimate
from lifecycle.findings import Direction, Finding, Severity, Verdict, judge
from lifecycle.intrusion import Client, judge_clients, judge_familiarity, judge_refusals
from lifecycle.multivariate import judge_multivariate
from lifecycle.observed import Arrivals, Observed, VersionRows
from lifecycle.performance import Performance, judge_degradation, judge_labelled, measure_performance
from lifecycle.reference import SCORE, Reference, label_state
from lifecycle.spec import ModelSpec
from lifecycle.window_quality import judge_duplicates, judge_freshness, judge_values, judge_volume

ALPHA = 0.001
"""Chance that one test tells of a change where there is none; a quiet model is looked at for years."""
BIAS_ALPHA = 0.005
"""The same for all tests of bias together: a group has few labels, and a missed rise harms its people."""
AREAS = ("service", "quality", "drift", "model", "bias", "security")
"""What is looked at, in the order in which it is shown."""
JUDGED = ("roc_auc", "accuracy")
"""Measures whose loss is degradation: of the ranking, and of the decisions."""
LEAST_LABELLED = 0.5
"""Share of labels below which people hear that labels are missing, and performance is estimated."""
MIN_LABELLED = 200
LEAST_AVAILABLE = 0.01
"""Share of requests answered below which a model counts as down."""
PAST_WINDOWS = 8
LONGEST_GAP_S = 86_400.0
CLOCK_S = 60.0
TOLD_CLIENTS = 200
_TOLD_ADDRESSES = 20

NAMES = {
    "column_present": "schema",
    "type_mismatch_share": "quality_type_mismatch",
    "out_of_range_share": "out_of_range",
    "outlier_share_rise": "outlier_share",
    "constant": "quality_constant",
    "unseen_share": "quality_unseen_share",
    "volume_doublings": "volume",
    "age_of_newest_row": "freshness",
    "duplicate_share": "duplicates",
    "missing_share_change": "missing_share_drift",
    "multivariate_shift": "multivariate_drift",
    "roc_auc_loss": "roc_auc_degradation",
    "accuracy_loss": "accuracy_degradation",
    "demographic_parity_difference_rise": "demographic_parity_difference_change",
    "equal_opportunity_difference_rise": "equal_opportunity_difference_change",
    "predictive_parity_difference_rise": "predictive_parity_difference_change",
    "out_of_distribution_share": "adversarial_inputs",
    "query_spacing_distance": "model_extraction",
    "input_coverage": "security_input_coverage",
    "query_volume_ratio": "unusual_clients",
    "refused_share": "unauthorized_access",
}
"""A judge's measure: what the finding is called in monitoring, where docs/alerting.md says what its name means."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure that is not in the prediction log.

    Parameters
    ----------
    measure
        ``availability``, ``cpu_share``, ``memory_share``, ``gpu_share``.
    value
        None where it could not be had, and `reason` says why.
    source
        Where it is from, in words.
    """

    measure: str
    value: float | None
    source: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was gathered of a model for one look.

    Parameters
    ----------
    spec
        The model file.
    as_of
        The moment of the look.
    arrivals
        Counts of this window and of earlier ones.
    current
        The window that ends at `as_of`.
    matured
        The newest window whose labels have had the label delay to come; `current` itself without a delay.
    main
        Version that the window's inputs are held against: the live one, or the one that was asked most.
    references
        Version: its reference.
    no_reference
        Version: why it has none.
    damaged
        Parts of the record that could not be read, in words.
    past_latency_ms
        P95 of earlier windows.
    past_checks
        Estimates of earlier windows beside what their labels said, oldest first.
    """

    spec: ModelSpec
    as_of: datetime
    arrivals: Arrivals
    current: Observed
    matured: Observed
    main: str | None
    references: Mapping[str, Reference]
    no_reference: Mapping[str, str]
    damaged: Sequence[str] = ()
    past_latency_ms: Sequence[float] = ()
    past_checks: Sequence[EstimateCheck] = ()

    @property
    def window(self) -> str:
        """The window in words."""
        return self.current.window.words

    @property
    def judged_versions(self) -> list[str]:
        """Versions with rows enough, the main one first."""
        enough = [name for name, rows in self.arrivals.by_version.items() if rows >= MIN_ROWS and name != self.main]
        return [*([self.main] if self.main is not None else []), *sorted(enough)]


@dataclass(frozen=True, slots=True)
class Report:
    """What a look found.

    Parameters
    ----------
    areas
        Area: its findings.
    checks
        Estimates of this window's version beside the labels, for later looks.
    contributions
        Drifted columns with their part of the drift that matters to the model, largest first.
    latency_p95_ms
        Of this window; None without an answered row.
    """

    areas: dict[str, list[Finding]]
    checks: tuple[EstimateCheck, ...]
    contributions: tuple[tuple[str, float], ...]
    latency_p95_ms: float | None

    @property
    def findings(self) -> list[Finding]:
        """All of them."""
        return [finding for found in self.areas.values() for finding in found]


def look(seen: Seen) -> Report:
    """Judge every area of a model."""
    checks: list[EstimateCheck] = []
    contributions: list[tuple[str, float]] = []
    areas: dict[str, Callable[[], list[Finding]]] = {
        "service": lambda: judge_service(seen),
        "quality": lambda: judge_quality(seen),
        "drift": lambda: judge_all_drift(seen, contributions),
        "model": lambda: judge_model(seen, checks),
        "bias": lambda: judge_all_bias(seen),
        "security": lambda: judge_security(seen),
    }
    found: dict[str, list[Finding]] = {}
    for area, judged in areas.items():
        try:
            found[area] = [named(finding) for finding in judged()]
        except Exception as error:  # noqa: BLE001 - what breaks one area must not blind the others
            told = f"{area} could not be judged: {type(error).__name__}: {error}"
            found[area] = [no_data(f"{area}_monitoring", seen.window, told)]
    latency = next((one.value for one in found["service"] if one.measure == "latency_p95_ms"), None)
    return Report(found, tuple(checks), tuple(contributions), latency)


def look_at_gateway(
    metrics: Sequence[Metric], refused: Mapping[str, int], rows: int, limit: float, *, window: str
) -> dict[str, list[Finding]]:
    """Judge what all models share: the gateway's own health, and who was let in. Told once, not once for each model.

    Parameters
    ----------
    metrics
        What the metrics source says of the gateway.
    refused
        Address: requests refused for want of a right.
    rows
        Rows on record of all models.
    limit
        Share of a resource above which it is told.
    window
        In words.

    Returns
    -------
    dict of list of Finding
        By area, as of a model.
    """
    return {"service": _metrics(metrics, limit, window), "security": _refusals(refused, rows, window)}


def settled(before: Sequence[Finding], now: Sequence[Finding], window: str) -> list[Finding]:
    """What was wrong at the last look and is not there to be looked at any more, as findings that say so.

    A client that asks no more, or a version that answers no more, would stay an open alert for ever.
    """
    known = {(one.measure, one.subject) for one in now}
    return [
        replace(
            one, value=None, interval=None, count=None, window=window, verdict=Verdict.PASS,
            reason=f"{one.measure} on {one.subject}: nothing of it in this window any more",
        )
        for one in before
        if one.verdict in (Verdict.WARN, Verdict.FAIL) and (one.measure, one.subject) not in known
    ]  # fmt: skip


def named(finding: Finding) -> Finding:
    """A judge's finding under the name that alerting knows it by."""
    name = NAMES.get(finding.measure)
    if name is None:
        return finding
    return replace(finding, measure=name, reason=finding.reason.replace(finding.measure, name, 1))


def no_data(measure: str, window: str, reason: str, subject: str = "all rows") -> Finding:
    """Nothing is known, and why."""
    return Finding(measure, subject, None, None, Direction.AT_MOST, window, Verdict.NO_DATA, reason, 0)


def told(measure: str, value: float | None, window: str, reason: str, **more: object) -> Finding:
    """A figure that nothing is asked of; NO_DATA without a value."""
    if value is None or not math.isfinite(value):
        return no_data(measure, window, f"{measure}: {reason or 'no finite value'}")
    found = Finding(measure, "all rows", value, None, Direction.AT_MOST, window, Verdict.PASS, reason)
    return replace(found, **more)  # type: ignore[arg-type]


# Service


def judge_service(seen: Seen) -> list[Finding]:
    """Latency, throughput, error rate, and the share of requests that was answered (R5.1)."""
    current, window, rules = seen.current, seen.window, seen.spec.rollout.rollback
    rows = current.rows
    failed = int(np.count_nonzero(current.column("failed")))
    answered = current.column("latency_ms")[~current.column("failed").astype(bool)].astype(np.float64)
    findings: list[Finding] = []
    for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99")):
        value = float(np.quantile(answered, share)) if len(answered) else None
        measure = f"latency_{name}_ms"
        if name == "p95" and len(seen.past_latency_ms) and value is not None:
            usual = float(np.median(seen.past_latency_ms))
            findings.append(
                judge(
                    measure, value, max(1.0, rules.latency_ratio * usual), Direction.AT_MOST, window=window,
                    count=len(answered), min_count=MIN_ROWS, severity=Severity.WARNING,
                )
            )  # fmt: skip
        else:
            findings.append(told(measure, value, window, _of(value, "no answered row"), count=len(answered)))
    findings.append(
        told("throughput_per_s", rows / current.seconds if rows else None, window, f"{rows:,} rows", count=rows)
    )
    findings.append(
        judge("error_rate", failed / rows if rows else None, rules.error_rate, Direction.AT_MOST, window=window,
              count=rows, missing="no predictions in the window")
    )  # fmt: skip
    # Of rows on record, the share that was answered; a gateway that is down puts nothing on record.
    answered_share = 1 - failed / rows if rows else None
    missing = "no predictions in the window"
    findings.append(
        judge("availability", answered_share, LEAST_AVAILABLE, Direction.AT_LEAST, window=window, missing=missing)
    )
    return findings


def _metrics(metrics: Sequence[Metric], limit: float, window: str) -> list[Finding]:
    findings = []
    for metric in metrics:
        asked = (
            (LEAST_AVAILABLE, Direction.AT_LEAST, Severity.ERROR)
            if metric.measure == "availability"
            else (limit, Direction.AT_MOST, Severity.WARNING)
        )
        threshold, direction, severity = asked
        found = judge(
            metric.measure, metric.value, threshold, direction, window=window, subject="gateway", severity=severity,
            missing=metric.reason,
        )  # fmt: skip
        findings.append(replace(found, reason=f"{found.reason} (from {metric.source})"))
    return findings


# Quality


def judge_quality(seen: Seen) -> list[Finding]:
    """Schema, types, values, volume, freshness, duplicates, and the record itself (R5.5)."""
    spec, current, arrivals, window = seen.spec, seen.current, seen.arrivals, seen.window
    findings = [
        Finding("quality_record", "archive and log", 1.0, 0.0, Direction.AT_MOST, window, Verdict.FAIL, problem)
        for problem in seen.damaged
    ] or [told("quality_record", 0.0, window, "every part of the record could be read", subject="archive and log")]
    newest = None if arrivals.newest is None else datetime.fromtimestamp(arrivals.newest / 1e9, UTC)
    if newest is not None and newest > seen.as_of:
        findings.append(judge_freshness(newest, seen.as_of, timedelta(0), window=window))
    else:
        oldest = spec.quality.freshness.after(seen.as_of) - seen.as_of
        findings.append(judge_freshness(newest, seen.as_of, oldest, window=window))
    findings.append(_clock(seen))
    if arrivals.past:
        volume = judge_volume(current.rows, arrivals.past, window=window, alpha=ALPHA)
        findings.append(replace(volume, subject="all rows", reason=f"{volume.reason} ({volume.subject})"))
        findings.append(_gap(seen))
    findings.append(told("info_rows", float(current.rows), window, f"{current.rows:,} rows", count=current.rows))
    for version, count in sorted(arrivals.by_version.items()):
        if count < MIN_ROWS:
            why = f"{count} rows: fewer than the {MIN_ROWS} that are judged"
            findings.append(told("info_rows", float(count), window, why, count=count, subject=f"version {version}"))
    if not current.rows:
        return [*findings, no_data("quality_values", window, "no predictions in the window")]
    findings += current.schema.values()
    findings.append(judge_duplicates(pd.Series(current.column("key")), window=window))
    assert current.state is not None  # rows were looked at
    reference = seen.references.get(seen.main or "")
    for known in (True, False):
        features = [
            feature
            for feature in spec.features
            if (reference is not None and feature.name in reference.state.columns) is known
        ]
        if features:
            part = spec.model_copy(update={"features": features})
            findings += judge_values(
                part, current.state, reference.state if reference and known else None, window=window, alpha=ALPHA
            )
    return findings


def _clock(seen: Seen) -> Finding:
    back = seen.arrivals.step_back
    found = judge(
        "quality_clock", back, CLOCK_S, Direction.AT_MOST, window=seen.window, subject="gateway's clock",
        severity=Severity.WARNING,
    )  # fmt: skip
    if found.verdict is Verdict.PASS:
        return found
    return replace(found, reason=f"the gateway's clock went back by {back:.0f} s; accepted: at most {CLOCK_S:.0f} s")


def _gap(seen: Seen) -> Finding:
    """The longest time without a prediction, beside those of earlier windows."""
    longest = float(seen.arrivals.longest_gap[-1])
    accepted = max(LONGEST_GAP_S, 2 * float(seen.arrivals.past_gaps.max()))
    return judge(
        "quality_longest_gap", longest / 3600, accepted / 3600, Direction.AT_MOST, window=seen.window,
        subject="hours without a prediction", severity=Severity.WARNING,
    )  # fmt: skip


# Drift


def judge_all_drift(seen: Seen, contributions: list[tuple[str, float]]) -> list[Finding]:
    """Features and rows as wholes against the main version's reference, scores against each version's own (R5.3).

    Parameters
    ----------
    contributions
        Is given each column's part of the drift that matters to the model.
    """
    window, limit = seen.window, seen.spec.monitoring.drift
    if not seen.current.rows:
        return [no_data("drift", window, "no predictions in the window")]
    findings: list[Finding] = []
    reference = seen.references.get(seen.main or "")
    if reference is None:
        findings.append(no_data("drift", window, seen.no_reference.get(seen.main or "", "no version answered")))
    else:
        assert seen.current.state is not None
        drifts = compare_windows(
            _only(reference.state, seen.spec.feature_names),
            seen.current.state,
            [_only(block, seen.spec.feature_names) for block in reference.blocks],
        )
        ranked = rank_contributions({one.column: one.distance for one in drifts}, reference.importances)
        contributions += [(one.column, one.share) for one in ranked]
        shares = dict(contributions)
        judged = judge_columns(drifts, limit, window=window, alpha=ALPHA)
        findings += _weighed(judged, drifts, shares)
        findings += [
            no_data("drift", window, f"{feature}: version {reference.version} does not know it", feature)
            for feature in seen.spec.feature_names
            if feature not in reference.state.columns
        ]
        if seen.current.embedding is not None:
            findings.append(
                judge_multivariate(
                    reference.kernel, reference.embedding, seen.current.embedding, limit, reference.block_embeddings,
                    window=window, alpha=ALPHA,
                )
            )  # fmt: skip
    for version in seen.judged_versions:
        own = seen.references.get(version)
        if own is not None:
            findings += [_about(one, seen, version) for one in _score_drift(seen, version, own)]
    return findings


def _only(state: WindowState, names: Sequence[str]) -> WindowState:
    return WindowState(state.rows, {name: state.columns[name] for name in names if name in state.columns})


def _weighed(findings: list[Finding], drifts: Sequence[ColumnDrift], shares: Mapping[str, float]) -> list[Finding]:
    """Findings with the other distances of the same rows and what they mean to the model, the weightiest first."""
    others = {one.column: one.others for one in drifts}
    described = []
    for finding in findings:
        reason = finding.reason
        if finding.measure != "missing_share_change":
            told_too = [
                f"{name} {value:.3g}" for name, value in others[finding.subject].items() if math.isfinite(value)
            ]
            told_too.append(f"{shares[finding.subject]:.0%} of the drift that matters to the score")
            reason = f"{reason} ({', '.join(told_too)})"
        described.append(replace(finding, reason=reason))
    return sorted(described, key=lambda one: -shares[one.subject])


def _score_drift(seen: Seen, version: str, reference: Reference) -> list[Finding]:
    limit = seen.spec.monitoring.drift
    scores = seen.current.of_version(version).scores
    current = WindowState(len(scores), {"score": Numbers.of(scores)})
    usual = [WindowState(one.rows, {"score": one.columns[SCORE]}) for one in (reference.state, *reference.blocks)]
    drifts = compare_windows(usual[0], current, usual[1:])
    labels = label_state(seen.matured.of_version(version).labels)
    found = judge_columns(drifts, limit, window=seen.window, alpha=ALPHA)
    if labels.rows >= MIN_ROWS:
        drifts = compare_windows(reference.label_state, labels, reference.label_blocks)
        found += judge_columns(drifts, limit, window=seen.matured.window.words, alpha=ALPHA)
    return [one for one in found if one.measure != "missing_share_change"]  # a failed row is an error, and no drift


# Model


def judge_model(seen: Seen, checks: list[EstimateCheck]) -> list[Finding]:
    """Performance on the labels that have come, estimated where they have not, and what the estimate is worth (R5.2, R5.4).

    Parameters
    ----------
    checks
        Is given this window's estimates beside the truth.
    """
    if not seen.current.rows and not seen.matured.rows:
        return [no_data("performance", seen.window, "no predictions in the window")]
    findings: list[Finding] = []
    everything = seen.matured.of_version()
    arrived = measure_labelled(everything)
    findings.append(judge_labelled(arrived, LEAST_LABELLED, window=seen.matured.window.words))
    for version in seen.judged_versions:
        reference = seen.references.get(version)
        if reference is None:
            why = seen.no_reference.get(version, "it has no reference")
            findings.append(_about(no_data("performance", seen.window, why), seen, version))
            continue
        found = _performance(seen, version, reference, checks)
        findings += [_about(one, seen, version) for one in found]
    return findings


def measure_labelled(rows: VersionRows) -> Performance:
    """How many labels there are, without any measure."""
    known = rows.labels[~np.isnan(rows.labels)]
    return Performance(len(rows.labels), len(known), int(np.count_nonzero(known == 1)), 0, {})


def _performance(seen: Seen, version: str, reference: Reference, checks: list[EstimateCheck]) -> list[Finding]:
    spec, window, seed = seen.spec, seen.matured.window.words, seen.spec.training.seed
    rows = seen.matured.of_version(version)
    measured = measure_performance(rows.labels, rows.scores, reference.threshold, spec.business, seed=seed)
    findings = []
    for name, estimate in measured.metrics.items():
        before = reference.performance[name].value
        reason = f"{name} on {measured.labelled:,} labelled rows; {'none' if before is None else f'{before:.4g}'} on the reference"
        if estimate.value is None:
            reason = (
                f"{name} has no value on {measured.labelled:,} labelled rows, {measured.positives:,} of them positive"
            )
        bounds = None if estimate.low is None or estimate.high is None else (estimate.low, estimate.high)
        findings.append(told(name, estimate.value, window, reason, count=measured.labelled, interval=bounds))
    degraded = judge_degradation(
        reference.performance, measured, spec.monitoring.concept_drift, window=window, measures=JUDGED,
        min_labelled=MIN_LABELLED,
    )  # fmt: skip
    findings += [_beyond_chance(one, reference, measured) for one in degraded]
    mine = check_estimate(
        rows.labels, rows.scores, reference.threshold, spec.business, reference.calibration, window=window,
        measures=JUDGED, reference=reference.performance, seed=seed,
    )  # fmt: skip
    trusted: dict[str, bool] = {}
    for check in mine:
        # A later look at the same window takes the place of an earlier one.
        earlier = [one for one in seen.past_checks if one.measure == check.measure and one.window != check.window]
        if version == seen.main:
            checks.append(check)
        trust = judge_trust([*(earlier if version == seen.main else []), check], alpha=ALPHA)
        trusted[check.measure] = trust.verdict is not Verdict.FAIL
        findings.append(trust)
    now = seen.current.of_version(version)
    known = np.count_nonzero(~np.isnan(now.labels))
    if len(now.scores) >= MIN_ROWS and known < LEAST_LABELLED * len(now.scores):
        estimated = estimate_performance(
            now.scores, reference.threshold, spec.business, reference.calibration, seed=seed
        )
        for name in JUDGED:
            findings += judge_estimate(
                reference.performance, estimated, spec.monitoring.concept_drift, window=seen.window, measures=(name,),
                trusted=trusted[name],
            )  # fmt: skip
    return findings


def _beyond_chance(finding: Finding, reference: Reference, measured: Performance) -> Finding:
    """A loss as a finding whose value is 0 unless neither chance nor the reference's own windows explain it.

    Alerting grades a loss by its value; one of few labels must not wake anybody.
    """
    measure = finding.measure.removesuffix("_loss")
    before, now = reference.performance[measure], measured.metrics[measure]
    if finding.value is None or measured.labelled < MIN_LABELLED:
        return finding
    if finding.value <= 0:
        return replace(finding, verdict=Verdict.PASS, reason=f"{measure} is no worse than on the reference")
    chance = loss_p_value(
        before, now, reference.own_losses(measure), reference.block_rows, len(reference.rows), finding.value
    )
    reason = f"{measure} is {finding.value:.2%} below the reference's {before.value:.4g}, by chance with p {chance:.2g}"
    if not chance <= ALPHA:
        told_apart = f"{reason}: chance and what is usual of windows are not ruled out, so it counts as 0"
        return replace(finding, value=0.0, verdict=Verdict.PASS, reason=told_apart)
    if finding.threshold is not None and finding.value > finding.threshold:
        return replace(finding, verdict=Verdict.FAIL, reason=f"{reason}; accepted: {finding.threshold:.2%}")
    return replace(finding, verdict=Verdict.WARN if finding.value > CHANGE else Verdict.PASS, reason=reason)


def loss_p_value(
    before: Estimate, now: Estimate, own: Sequence[float], block_rows: Sequence[int], rows: int, loss: float
) -> float:
    """Chance of as large a relative loss of a measure that is as it was; one-sided.

    Windows differ by chance, and among themselves: the variance between the reference's own windows, above what their
    few rows make of it, is added (DerSimonian and Laird, 1986), and Student's distribution takes the normal's place.

    Parameters
    ----------
    before, now
        The measure with its 95 % interval, on the reference and in the window.
    own
        Relative loss of each of the reference's windows.
    block_rows, rows
        Rows of these windows, and of the whole reference.
    loss
        Relative, above 0.

    Returns
    -------
    float
        0 to 1; NaN where an interval is missing.
    """
    ends = (before.low, before.high, now.low, now.high)
    if before.value is None or any(end is None for end in ends):
        return math.nan
    low_before, high_before, low_now, high_now = (float(end) for end in ends if end is not None)
    reach = 2 * float(stats.norm.isf(0.025)) * before.value
    error_before, error_now = (high_before - low_before) / reach, (high_now - low_now) / reach
    known = [(value, count) for value, count in zip(own, block_rows, strict=True) if math.isfinite(value)]
    between = 0.0
    if len(known) >= MIN_BLOCKS:
        noise = sum(error_before**2 * (rows / count) for _, count in known) / len(known)
        between = max(0.0, sum(value**2 for value, _ in known) / len(known) - noise)
    spread = math.sqrt(error_before**2 + error_now**2 + between)
    if spread == 0:
        return 0.0
    return float(stats.t.sf(loss / spread, len(known) - 1) if between > 0 else stats.norm.sf(loss / spread))


# Bias


def judge_all_bias(seen: Seen) -> list[Finding]:
    """Differences of groups and their intersections, of each version's decisions, against its reference (R5.6)."""
    if not seen.spec.sensitive:
        return []
    findings: list[Finding] = []
    for version in seen.judged_versions:
        reference = seen.references.get(version)
        now, then = seen.current.of_version(version), seen.matured.of_version(version)
        for attribute in seen.spec.sensitive:
            if attribute.name not in now.groups:
                why = f"{attribute.column} is no feature, so the record does not hold it"
                findings.append(no_data("demographic_parity_difference", seen.window, why, attribute.name))
        if not len(now.scores):
            findings.append(no_data("bias", seen.window, "no answered row in the window"))
            continue
        findings += [_about(one, seen, version) for one in _version_bias(seen, now, then, reference)]
    if not seen.judged_versions:
        findings.append(no_data("bias", seen.window, "no version has answered enough rows"))
    return findings


def _version_bias(seen: Seen, now: VersionRows, then: VersionRows, reference: Reference | None) -> list[Finding]:
    rules, seed = seen.spec.evaluation, seen.spec.training.seed
    groups_now, groups_then = intersections(now.groups), intersections(then.groups)
    findings: list[Finding] = []
    # One level for all attributes together, and one for all their combinations: more of them must not mean more false
    # alarms, and combinations, which are many, must not blind us to the attributes themselves.
    combined = len(groups_now) - len(now.groups)
    for name, groups in groups_now.items():
        alpha = BIAS_ALPHA / 2 / (len(now.groups) if name in now.groups else combined)
        everyone = window_fairness(name, groups, now.labels, now.decisions, rules, seed=seed)
        if seen.matured is seen.current:
            current = everyone
        else:
            labelled = window_fairness(name, groups_then[name], then.labels, then.decisions, rules, seed=seed).labelled
            current = WindowFairness(everyone.everyone, labelled)
        before = None if reference is None else reference.fairness.get(name)
        found = judge_bias(current, before, seen.spec.monitoring.bias, rules, window=seen.window, alpha=alpha)
        simple = name in now.groups
        findings += map(_real_rise, found if simple else told_apart(found))
    return findings


def _real_rise(finding: Finding) -> Finding:
    """A rise that the intervals explain counts as 0: alerting grades it by its value."""
    if finding.measure.endswith("_rise") and finding.verdict is Verdict.PASS and (finding.value or 0) > CHANGE:
        reason = f"{finding.reason}: not told apart from no rise"
        return replace(finding, value=0.0, reason=reason)
    return finding


# Security


def judge_security(seen: Seen) -> list[Finding]:
    """Inputs like none before, clients that copy or do as never before (R5.7)."""
    current, window = seen.current, seen.window
    if not current.rows:
        return [no_data("security_inputs", window, "no predictions in the window")]
    findings: list[Finding] = []
    reference = seen.references.get(seen.main or "")
    queries = current.by_client()
    clients = sorted(queries, key=lambda name: (-queries[name], name))[:TOLD_CLIENTS]
    if reference is None:
        why = seen.no_reference.get(seen.main or "", "no version answered")
        findings.append(no_data("adversarial_inputs", window, why))
        ordinary = np.empty((0, 0))
    else:
        findings.append(judge_familiarity(current.p_values, window=window, alpha=ALPHA))
        ordinary = reference.ordinary_points
    observed = []
    for name in clients:
        rows = current.queries(name)
        points = (
            reference.space.points(rows) if reference is not None and len(rows) else np.empty((0, ordinary.shape[1]))
        )
        observed.append(Client(name or "nameless clients", queries[name], 0, points))
    usual = {name or "nameless clients": counts for name, counts in seen.arrivals.usual_queries.items()}
    judged = judge_clients(observed, ordinary, window=window, usual_queries=usual, alpha=ALPHA)
    if reference is None:  # nothing to say what usual queries look like
        judged = [one for one in judged if one.measure == "query_volume_ratio"]
    return [*findings, *judged]


def _refusals(refused: Mapping[str, int], rows: int, window: str) -> list[Finding]:
    """Refused requests by address, each beside all that was answered."""
    worst = sorted(refused, key=lambda name: (-refused[name], name))[:_TOLD_ADDRESSES]
    nobody = np.empty((0, 0))
    clients = [Client("all addresses", rows, sum(refused.values()), nobody)]
    clients += [Client(name, rows, refused[name], nobody) for name in worst]
    found = judge_refusals(clients, 0.0, window=window, alpha=ALPHA)
    return [
        replace(named(one), reason=f"{one.reason}, {client.refused:,} refused")
        if one.count
        else told("unauthorized_access", 0.0, window, "no request was refused", subject=client.name)
        for one, client in zip(found, clients, strict=True)
    ]


def _about(finding: Finding, seen: Seen, version: str) -> Finding:
    """Which version it is about, where that is not the main one."""
    if version == seen.main:
        return finding
    whole = finding.subject == "all rows"
    return replace(finding, subject=f"version {version}" if whole else f"{finding.subject} of version {version}")


def _of(value: float | None, missing: str) -> str:
    return missing if value is None else f"{value:.4g} ms"
