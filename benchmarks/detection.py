"""Planted drift, bias and breaks in weekly traffic: how many monitoring finds, and how often it cries without cause.

    uv run python -m benchmarks.detection [--models 8] [--quiet-weeks 26]

Every model is fitted on eight weeks of the member table (`lifecycle/members.py`), and the next eight are its reference.
Then come quiet weeks, with nothing planted, and after them one week for each thing that is planted, all with the same
past. Volumes differ from model to model and vary from week to week; part of the models have labels that are wrong in
places; labels come late, and some very late. The weeks are judged by the functions of `run.py --pipeline monitor`, and
what would open an alert by configs/policies/alerting.yaml counts: a planted thing is found when that is so for its own
column in its own area at the end of the first window that holds it (or its labels), and any alert in a quiet week is a
false alarm, but for bias that is there: experience goes with what makes members stay, so that decisions differ between its
groups by more than the model file accepts, in the reference too; such weeks are counted as `standing_bias`. Beside it Evidently's presets on the same weeks, deciding by their own tests: `DataDriftPreset` with
`ClassificationPreset`, and apart from them `DataSummaryPreset` in every fourth week, against a sample of the reference as
large as the window.

Prints tables, then one line of JSON: `planted`, `found`, `false_alarms`, `quiet_model_weeks`, and the same for `peer`
(and for `peer_with_summary`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process for each core
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ["DO_NOT_TRACK"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks.watching import VERSION, Watch, alarms, answered, told
from lifecycle.bias import BETWEEN
from lifecycle.fairness import RATES
from lifecycle.findings import Finding
from lifecycle.members import (
    CHURNED,
    FEATURES,
    KEY,
    OUTCOME,
    SENSITIVE,
    TIMESTAMP,
    Bias,
    BreakKind,
    ConceptDrift,
    Drift,
    MemberPlan,
    Numeric,
    Planted,
    QualityBreak,
    generate,
)
from lifecycle.reference import LABEL, SCORE, Reference, reference_rows
from lifecycle.spec import ModelSpec

START = datetime(2026, 1, 5, tzinfo=UTC)
WEEK = timedelta(weeks=1)
FIT, HELD = 8, 8
"""Weeks that a model is fitted on, and weeks of its reference after them."""
VOLUMES = (5_000, 2_000, 10_000, 5_000, 1_000, 20_000, 5_000, 10_000)
"""Predictions a week, from model to model."""
NOISES = (0.0, 0.0, 0.05, 0.1)
"""Share of labels that are wrong."""
WITH_PLANTED = (0, 2, 3)
"""Models in which things are planted, with 5,000 rows a week or more: they are meant to be seen in one window."""
SUMMARY_EVERY = 4
"""Evidently's data summary takes as long as all the rest together: it is asked in every fourth week."""
THRESHOLD = 0.3
OPEN = ("industry", "first_template")
"""Categories without a closed list: new ones come all the time."""
DELAY = timedelta(weeks=1)


def planted_in(onset: datetime) -> list[MemberPlan]:
    """One plan for each thing, all beginning at one moment."""
    drifts = (
        Drift("age_years", onset, shift=0.2),
        Drift("age_years", onset, shift=-0.4),
        Drift("tenure_months", onset, shift=0.3),
        Drift("sessions_30d", onset, scale=1.4),
        Drift("satisfaction_score", onset, shift=-0.3),
        Drift("storage_mb", onset, shift=0.6),
        Drift("discount_share", onset, shift=0.4),
        Drift("days_since_last_session", onset, shift=0.4),
        Drift("email_open_rate", onset, scale=0.6),
        Drift("monthly_fee_usd", onset, shift=0.8, ramp=WEEK),
        Drift("plan", onset, towards="team", share=0.25),
        Drift("device", onset, towards="mobile", share=0.3),
        Drift("acquisition_channel", onset, towards="partner", share=0.2),
        Drift("first_template", onset, towards="template_99", share=0.2),
        Drift("region", onset, towards="west", share=0.6, ramp=WEEK),
    )
    concepts = (
        ConceptDrift("sessions_30d", onset, -1.0),
        ConceptDrift("tenure_months", onset, -2.5),
        ConceptDrift("sessions_trend", onset, -2.5),
    )
    biases = (
        Bias("gender", "female", 1.0, onset),
        Bias("gender", "male", -1.0, onset),
        Bias("experience", "0-1", 1.0, onset),
        Bias("region", "north", 1.0, onset),
        Bias("region", "west", -1.5, onset),
    )
    kind = BreakKind
    breaks = (
        QualityBreak("age_years", kind.MISSING, onset, share=0.3),
        QualityBreak("storage_mb", kind.MISSING, onset, share=0.1),
        QualityBreak("plan", kind.MISSING, onset, share=0.2),
        QualityBreak("sessions_30d", kind.CONSTANT, onset),
        QualityBreak("email_open_rate", kind.CONSTANT, onset),
        QualityBreak("device", kind.CONSTANT, onset),
        QualityBreak("monthly_fee_usd", kind.UNIT, onset, share=0.2),
        QualityBreak("storage_mb", kind.UNIT, onset, share=0.05),
        QualityBreak("age_years", kind.UNIT, onset),
        QualityBreak("session_minutes", kind.OUTLIERS, onset, share=0.02),
        QualityBreak("discount_share", kind.OUTLIERS, onset, share=0.005),
        QualityBreak("billing_period", kind.NEW_CATEGORY, onset, share=0.01),
        QualityBreak("industry", kind.NEW_CATEGORY, onset, share=0.05),
    )
    return [
        *(MemberPlan(drifts=(one,)) for one in drifts),
        *(MemberPlan(concept_drifts=(one,)) for one in concepts),
        *(MemberPlan(biases=(one,)) for one in biases),
        *(MemberPlan(breaks=(one,)) for one in breaks),
    ]


def member_spec() -> ModelSpec:
    """The member table as a model file."""
    features: list[dict[str, Any]] = []
    for name, feature in FEATURES.items():
        # Fewer of those on a mobile device are asked, and so many have no score.
        usual = 0.2 if name == "satisfaction_score" else feature.missing
        said: dict[str, Any] = {"name": name, "max_missing": max(0.05, 1.5 * usual)}
        if isinstance(feature, Numeric):
            said |= {"type": "numeric", "min": feature.low, "max": feature.high, "unit": feature.unit}
        else:
            said |= {"type": "categorical", "values": None if name in OPEN else feature.categories}
        features.append(said)
    return ModelSpec.model_validate(
        {
            "name": "retention",
            "description": "Probability that a member leaves.",
            "owner": {"team": "Members", "contact": "#members"},
            "tier": "main",
            "sensitivity": "sensitive",
            "source": {"table": "members", "timestamp": TIMESTAMP, "entity_key": KEY},
            "label": {"column": "left", "delay": "7d", "meaning": "leaves"},
            "features": features,
            "sensitive": [{"name": name, "column": name} for name in SENSITIVE],
            "evaluation": {"gates": [{"metric": "roc_auc", "min": 0.6}]},
            "business": {"currency": "USD", "decision": "call", "true_positive": 7.0, "false_positive": -3.0},
        }
    )


class Ground:
    """A fitted model with its reference and its weeks.

    Parameters
    ----------
    number
        Which: seed, volume and label noise follow from it.
    """

    def __init__(self, number: int) -> None:
        self.number, self.spec = number, member_spec()
        self.volume, self.noise = VOLUMES[number % len(VOLUMES)], NOISES[number % len(NOISES)]
        rows = self._table(MemberPlan(label_noise=self.noise), 0, FIT + HELD, self.volume * (FIT + HELD))
        fitted = rows[TIMESTAMP] < pd.Timestamp(START + FIT * WEEK)
        self._places = {
            feature.name: {value: place for place, value in enumerate(sorted(rows[feature.name].dropna().unique()))}
            for feature in self.spec.categorical
        }
        from sklearn.ensemble import HistGradientBoostingClassifier

        categorical = [feature.name in self._places for feature in self.spec.features]
        self._model = HistGradientBoostingClassifier(
            max_iter=60, categorical_features=categorical, early_stopping=False, random_state=number
        ).fit(self._matrix(rows[fitted]), rows.loc[fitted, "left"])
        held = rows[~fitted]
        self.reference = Reference(
            self.spec, VERSION, reference_rows(self.spec, held, self._score(held)), THRESHOLD, WEEK
        )

    def week(self, number: int, plan: MemberPlan | None = None) -> pd.DataFrame:
        """The record of a week after the reference's, the first being 0; quiet without a plan."""
        seed = 1_000 * (self.number + 1) + number
        size = round(self.volume * float(np.random.default_rng(seed).lognormal(0, 0.1)))
        noisy = replace(plan or MemberPlan(), label_noise=self.noise)
        rows = self._table(noisy, FIT + HELD + number, 1, size)
        rng = np.random.default_rng(seed)
        late = np.where(rng.random(size) < 0.05, 1 + 2 * rng.random(size), 0.3 + 0.7 * rng.random(size))
        label_at = rows[TIMESTAMP] + pd.to_timedelta(late * DELAY.total_seconds(), unit="s")
        return answered(self.spec, rows, self._score(rows), THRESHOLD, label_at, seed)

    def _table(self, plan: MemberPlan, first: int, weeks: int, size: int) -> pd.DataFrame:
        start = START + first * WEEK
        frame = generate(plan, size, 1_000 * (self.number + 1) + first, start, start + weeks * WEEK).frame
        frame[KEY] = f"{first}-" + frame[KEY]
        frame["left"] = (frame.pop(OUTCOME) == CHURNED).astype(np.int8)
        return frame

    def _matrix(self, rows: pd.DataFrame) -> np.ndarray:
        columns = [
            rows[name].map(self._places[name]).to_numpy(np.float64) if name in self._places else rows[name].to_numpy()
            for name in self.spec.feature_names
        ]
        return np.column_stack(columns)

    def _score(self, rows: pd.DataFrame) -> np.ndarray:
        return np.asarray(self._model.predict_proba(self._matrix(rows))[:, 1])


def end_of(week: int) -> datetime:
    """When a week after the reference ends."""
    return START + (FIT + HELD + week + 1) * WEEK


def is_found(planted: Planted, found: Iterable[tuple[str, str, Finding]]) -> bool:
    """Whether an alarm tells of what was planted: in its area, on its own column."""
    attribute = planted.subject.split("=")[0]
    for area, _, finding in found:
        subjects = finding.subject.split(BETWEEN)
        if planted.kind == "concept drift":
            hit = area == "model" and finding.measure.endswith("_degradation")
        elif planted.kind == "bias":
            hit = area == "bias" and attribute in subjects
        else:
            hit = area == {"drift": "drift", "break": "quality"}[planted.kind] and finding.subject == planted.subject
        if hit:
            return True
    return False


def stands(reference: Reference, area: str, finding: Finding) -> bool:
    """Whether it tells of groups that differ by as much in the reference: true, and no change."""
    table = reference.fairness.get(finding.subject)
    if area != "bias" or table is None or finding.measure not in RATES:
        return False
    difference = table.table(finding.measure).disparities[finding.measure].difference
    return difference is not None and difference > reference.spec.monitoring.bias


@dataclass
class Peer:
    """Evidently's presets beside us, as they decide by themselves."""

    ground: Ground
    _asked: int = 0

    def failed(self, record: pd.DataFrame, labelled: pd.DataFrame) -> tuple[list[str], list[str] | None]:
        """Columns (or measures) whose tests failed: of drift and classification, and of the data summary where asked.

        Parameters
        ----------
        record
            The window.
        labelled
            Rows whose labels have come.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from evidently import BinaryClassification, DataDefinition, Dataset, Report
            from evidently.presets import ClassificationPreset, DataDriftPreset, DataSummaryPreset

            spec, before = self.ground.spec, self.ground.reference.rows
            numeric = [feature.name for feature in spec.numeric]
            plain = DataDefinition(
                numerical_columns=numeric, categorical_columns=[feature.name for feature in spec.categorical]
            )
            binary = BinaryClassification(target=LABEL, prediction_labels="decision", prediction_probas=SCORE)
            classed = DataDefinition(
                classification=[binary], categorical_columns=[LABEL, "decision"], numerical_columns=[SCORE]
            )

            def run(preset: Any, definition: Any, now: pd.DataFrame, then: pd.DataFrame) -> list[str]:
                sets = [Dataset.from_pandas(one.reset_index(drop=True), definition) for one in (now, then)]
                tests = Report([preset], include_tests=True).run(*sets).dict()["tests"]
                return [
                    str(test["metric_config"]["params"].get("column", test["metric_config"]["params"]["type"]))
                    for test in tests
                    if test["status"].value == "FAIL"
                ]

            names = spec.feature_names
            before = before.sample(min(len(record), len(before)), random_state=0)
            self._asked += 1
            drifted = run(DataDriftPreset(), plain, record[names], before[names])
            summary = None
            if self._asked % SUMMARY_EVERY == 0:
                summary = run(DataSummaryPreset(), plain, record[names], before[names])
            now, then = (
                pd.DataFrame(
                    {
                        LABEL: rows[label].astype(int),
                        SCORE: rows[score],
                        "decision": (rows[score] >= THRESHOLD).astype(int),
                    }
                )
                for rows, label, score in ((labelled, "label", "score"), (before, LABEL, SCORE))
            )
            classes = run(ClassificationPreset(), classed, now, then) if len(now) else []
            return [*drifted, *(f"classification {one}" for one in classes)], summary


def is_failed(planted: Planted, failed: Sequence[str]) -> bool:
    """Whether a failed test tells of what was planted; the presets do not look at groups."""
    if planted.kind == "concept drift":
        return any(one.startswith("classification ") for one in failed)
    return planted.kind != "bias" and planted.subject in failed


def by_peer(
    failed: tuple[list[str], list[str] | None] | None, judge: Callable[[list[str]], bool]
) -> tuple[bool | None, bool | None]:
    """What its tests say, without and with the data summary; None of what was not asked."""
    if failed is None:
        return None, None
    alone, summary = failed
    return judge(alone), None if summary is None else judge(alone + summary)


@dataclass(frozen=True)
class Week:
    """What came of one week.

    Parameters
    ----------
    planted
        What was in it; None in a quiet one.
    ours
        Whether we found it; in a quiet week, whether anything would have been told.
    peer, peer_summary
        The same of Evidently's drift and classification presets, and of these or its data summary; None when it was
        left out.
    told
        What was told, in words.
    alerts
        Alerts that would have been opened in a quiet week.
    standing
        Whether bias was told that is in the reference too.
    """

    planted: Planted | None
    volume: int
    ours: bool
    peer: bool | None
    peer_summary: bool | None
    told: tuple[str, ...] = ()
    alerts: int = 0
    standing: bool = False


def labelled_rows(weeks: Sequence[pd.DataFrame], as_of: datetime) -> pd.DataFrame:
    """Rows of the week before the last whose labels have come."""
    if len(weeks) < 2:
        return weeks[0].iloc[:0]
    return weeks[-2][weeks[-2]["label_at"] <= as_of.timestamp() * 1e9]


def run_model(number: int, quiet_weeks: int, *, peer: bool = True, only: Sequence[int] | None = None) -> list[Week]:
    """Quiet weeks of a model, and then each planted thing in a week of its own."""
    ground = Ground(number)
    watch, other = Watch(ground.spec, ground.reference), Peer(ground)
    weeks: list[pd.DataFrame] = []
    results: list[Week] = []

    def look(by: Watch, rows: Sequence[pd.DataFrame], week: int, judge: Callable[..., Week]) -> Week:
        every = alarms(by.look(pd.concat(rows[-11:], ignore_index=True), end_of(week)))
        found = [one for one in every if not stands(ground.reference, one[0], one[2])]
        failed = other.failed(rows[-1], labelled_rows(rows, end_of(week))) if peer else None
        return replace(judge(found, failed), standing=len(found) < len(every))

    def quiet(found: Any, failed: Any) -> Week:
        return Week(
            None, ground.volume, bool(found), *by_peer(failed, bool),
            tuple(f"{area}: {finding.reason}" for area, _, finding in found), len(told(found)),
        )  # fmt: skip

    def there(planted: Planted, found: Any, failed: Any) -> Week:
        return Week(
            planted, ground.volume, is_found(planted, found), *by_peer(failed, partial(is_failed, planted)),
            tuple(f"{area}: {finding.measure} {finding.subject}" for area, _, finding in found),
        )  # fmt: skip

    for week in range(quiet_weeks):
        weeks.append(ground.week(week))
        results.append(look(watch, weeks, week, quiet))
    if number not in WITH_PLANTED:
        return results
    onset = end_of(quiet_weeks - 1)
    plans = planted_in(onset)
    for plan in plans if only is None else [plans[place] for place in only]:
        by = watch.after()
        (planted,) = generate(plan, 1, 0, onset, onset + WEEK).truth.planted
        rows = [*weeks, ground.week(quiet_weeks, plan)]
        if planted.kind in ("concept drift", "bias"):  # seen in labels alone, which come a week later
            by.look(pd.concat(rows[-11:], ignore_index=True), end_of(quiet_weeks))
            rows.append(ground.week(quiet_weeks + 1, plan))
        results.append(look(by, rows, quiet_weeks + len(rows) - len(weeks) - 1, partial(there, planted)))
    return results


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--quiet-weeks", type=int, default=26)
    parser.add_argument("--no-peer", action="store_true")
    given = parser.parse_args()
    began = time.perf_counter()
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        run = partial(run_model, quiet_weeks=given.quiet_weeks, peer=not given.no_peer)
        weeks = [week for found in pool.map(run, range(given.models)) for week in found]
    result = tell(weeks, Console(width=150))
    print(json.dumps(result | {"wall_s": round(time.perf_counter() - began, 1)}))


def tell(weeks: Sequence[Week], console: Console) -> dict[str, Any]:
    """Print the tables; the figures."""
    table = Table(title="planted, found at the end of the first window that holds it")
    for head in ("planted", "what", "amount", "weeks", "found", "Evidently", "with data summary"):
        table.add_column(head, justify="left" if head in ("planted", "what") else "right")
    there = [week for week in weeks if week.planted is not None]
    groups: dict[tuple[str, str, str], list[Week]] = {}
    for week in there:
        planted = week.planted
        assert planted is not None
        what = " ".join(part for part in (planted.subject, planted.detail) if part)
        groups.setdefault((planted.kind, what, f"{planted.amount:.3g}"), []).append(week)
    for (kind, what, amount), same in groups.items():
        table.add_row(kind, what, amount, str(len(same)), *_counts(same))
    for kind in dict.fromkeys(kind for kind, _, _ in groups):
        same = [week for week in there if week.planted is not None and week.planted.kind == kind]
        table.add_row(kind, "all", "", str(len(same)), *_counts(same), style="bold")
    console.print(table)
    quiet = [week for week in weeks if week.planted is None]
    table = Table(title="quiet weeks in which anything was told")
    for head in ("predictions a week", "weeks", "ours", "Evidently", "with data summary"):
        table.add_column(head, justify="right")
    for volume in sorted({week.volume for week in quiet}):
        same = [week for week in quiet if week.volume == volume]
        table.add_row(f"{volume:,}", str(len(same)), *_counts(same))
    table.add_row("all", str(len(quiet)), *_counts(quiet), style="bold")
    console.print(table)
    for week in quiet:
        for words in week.told:
            console.print(f"false alarm: {words}", markup=False)
    for week in there:
        if not week.ours:
            console.print(f"not found: {week.planted}, told instead: {', '.join(week.told) or 'nothing'}", markup=False)
    result: dict[str, Any] = {
        "planted": len(there),
        "found": sum(week.ours for week in there),
        "false_alarms": sum(week.alerts for week in quiet),
        "quiet_model_weeks": len(quiet),
        "standing_bias": sum(week.standing for week in quiet),
    }
    for name in ("peer", "peer_summary"):
        known = [week for week in weeks if getattr(week, name) is not None]
        if known:
            counts = Counter((week.planted is None, bool(getattr(week, name))) for week in known)
            result["peer" if name == "peer" else "peer_with_summary"] = {
                "planted": counts[False, True] + counts[False, False],
                "found": counts[False, True],
                "false_alarms": counts[True, True],
                "quiet_model_weeks": counts[True, True] + counts[True, False],
            }
    return result


def _counts(weeks: Sequence[Week]) -> list[str]:
    found = [str(sum(week.ours for week in weeks))]
    for name in ("peer", "peer_summary"):
        known = [getattr(week, name) for week in weeks if getattr(week, name) is not None]
        found.append(f"{sum(known)} of {len(known)}" if known else "–")
    return found


if __name__ == "__main__":
    main()
