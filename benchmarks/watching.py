"""A model under watch, window after window, over rows that are at hand: the very judgement of `run.py --pipeline monitor`.

Only where rows come from is different: a table instead of the prediction record. What is judged, and by which rules, is
`lifecycle.monitoring.look`, and what of it would be told is `configs/policies/alerting.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from adapters.model_files import load_file
from lifecycle.alerting import AlertingPolicy
from lifecycle.estimation import EstimateCheck
from lifecycle.findings import Finding
from lifecycle.monitoring import PAST_WINDOWS, Report, Seen, look
from lifecycle.observed import Arrivals, Observed, Window, unix_nanoseconds
from lifecycle.reference import Reference
from lifecycle.spec import ModelSpec

ROOT = Path(__file__).resolve().parents[1]
VERSION = "1"
CLIENTS = {"app": 0.6, "web": 0.3, "partner": 0.1}
"""Who asks, and what share of it."""
MONITORED = frozenset({"drift", "quality", "bias", "model", "security"})


@cache
def policy() -> AlertingPolicy:
    """The alerting policy as it is shipped."""
    return load_file(ROOT / "configs" / "policies" / "alerting.yaml", AlertingPolicy, {})


def alarms(report: Report) -> list[tuple[str, str, Finding]]:
    """Area, rule of the alerting policy, and finding, of all that would open an alert by itself."""
    return [
        (area, rule.name, finding)
        for area, findings in report.areas.items()
        if area in MONITORED
        for finding in findings
        for rule in policy().rules_of(finding)
        if not rule.waits and rule.priority_of(finding) is not None
    ]


def answered(
    spec: ModelSpec, rows: pd.DataFrame, scores: np.ndarray, threshold: float, label_at: pd.Series, seed: int
) -> pd.DataFrame:
    """Rows as a record of predictions holds them, in order of their time.

    Parameters
    ----------
    spec
        The model file.
    rows
        Features, key, time, and the label's column as 0 and 1.
    scores, threshold
        What the version said, and from where on it is a positive decision.
    label_at
        When each label comes.
    seed
        Of who asked, and of how long the answer took.
    """
    rng = np.random.default_rng(seed)
    fixed = pd.DataFrame(
        {
            "request_id": rows[spec.source.entity_key].astype(str),
            "at": rows[spec.source.timestamp].dt.as_unit("ns").astype("int64"),
            "version": VERSION,
            "role": "live",
            "client": rng.choice(list(CLIENTS), len(rows), p=list(CLIENTS.values())),
            "score": scores,
            "decision": (np.asarray(scores) >= threshold).astype(np.int8),
            "latency_ms": rng.lognormal(1.0, 0.3, len(rows)),
            "error": None,
            "label": rows[spec.label.column].astype(np.float64),
            "label_at": label_at.dt.as_unit("ns").astype("int64"),
        },
        index=rows.index,
    )
    frame = pd.concat([fixed, rows[spec.feature_names]], axis=1).sort_values("at", kind="stable", ignore_index=True)
    frame["sequence"] = np.arange(len(frame))
    return frame


@dataclass
class Watch:
    """Looks at one model, one after the other: later ones know what earlier ones found.

    Parameters
    ----------
    spec, reference
        The model file, and what its version is held against.
    checks, latencies
        Of earlier windows, oldest first.
    """

    spec: ModelSpec
    reference: Reference
    checks: list[EstimateCheck] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def after(self) -> Watch:
        """One that has seen as much, to go on with other rows."""
        return Watch(self.spec, self.reference, list(self.checks), list(self.latencies))

    def look(self, record: pd.DataFrame, as_of: datetime) -> Report:
        """Judge the window that ends at a moment, with the labels that have come by then.

        Parameters
        ----------
        record
            From `answered`: this window, the one whose labels have come, and earlier ones.
        """
        spec, moment = self.spec, as_of.astimezone(UTC)
        length = spec.monitoring.window
        window = Window.before(moment, length)
        known = record["label_at"] <= unix_nanoseconds(moment)
        record = record.assign(label=record["label"].where(known))
        arrivals = Arrivals([*window.earlier(PAST_WINDOWS, length), window])
        arrivals.add(record[record["at"] < unix_nanoseconds(moment)])
        arrivals.settle()
        current = self._observed(record, window, self.reference)
        end = spec.label.delay.before(moment)
        matured = current
        if end < moment:
            matured = self._observed(record, Window.before(end, length), None)
        with np.errstate(all="ignore"):
            report = look(
                Seen(
                    spec=spec, as_of=moment, arrivals=arrivals, current=current, matured=matured, main=VERSION,
                    references={VERSION: self.reference}, no_reference={},
                    past_latency_ms=self.latencies[-PAST_WINDOWS:], past_checks=self.checks,
                )
            )  # fmt: skip
        self.checks += report.checks
        if report.latency_p95_ms is not None:
            self.latencies.append(report.latency_p95_ms)
        return report

    def _observed(self, record: pd.DataFrame, window: Window, reference: Reference | None) -> Observed:
        inside = record[
            (record["at"] >= unix_nanoseconds(window.start)) & (record["at"] < unix_nanoseconds(window.end))
        ]
        observed = Observed(self.spec, window, reference, len(inside), features=reference is not None)
        observed.add(inside)
        return observed


def told(found: Iterable[tuple[str, str, Finding]]) -> set[str]:
    """Rules of which an alert would be opened: all findings of a model under one rule are one alert."""
    return {rule for _, rule, _ in found}
