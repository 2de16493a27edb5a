"""Monitoring on real rows: flights whose world changes, and a survey whose world hardly does.

    uv run python -m benchmarks.real_years [--only flights|employment] [--picture docs/images/flights-2013.svg]

Flights out of New York in 2013: a model of January to June, its newest fifth held out as the reference, is frozen and then
looked at every month until the end of the year. Each look estimates its AUC before the labels of the month have come, and a
later one measures it. Employment in Massachusetts: a model of the first half of 2015, with the second half as reference,
is looked at every month of 2016 to 2018. The models are scikit-learn's gradient boosting; the looks are those of `run.py
--pipeline monitor` on the files in configs/models.

Prints what every look told, and one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from adapters.model_files import load_model
from adapters.sample_database import ensure_sample_database
from adapters.source import fetch
from benchmarks.watching import ROOT, VERSION, Watch, alarms, answered
from lifecycle.drift import MEASURES
from lifecycle.estimation import estimate_performance
from lifecycle.evaluation import Estimate
from lifecycle.findings import Finding, Verdict
from lifecycle.metrics import roc_auc
from lifecycle.monitoring import Report
from lifecycle.observed import unix_nanoseconds
from lifecycle.reference import Reference, reference_rows
from lifecycle.spec import Duration, ModelSpec

MOST_CATEGORIES = 200
"""Of a category; rarer ones count as missing to the model, which takes no more than 255."""
SHOWN = 10
"""Features in the picture, those whose drift matters most to the score."""


def boosted(spec: ModelSpec, rows: pd.DataFrame, seed: int = 0) -> Any:
    """A gradient-boosted model of a table: a function of rows that gives scores."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    places = {
        feature.name: {value: place for place, value in enumerate(rows[feature.name].value_counts().index[:MOST_CATEGORIES])}
        for feature in spec.categorical
    }  # fmt: skip

    def matrix(frame: pd.DataFrame) -> np.ndarray:
        columns = [
            (frame[name].map(places[name]) if name in places else frame[name]).to_numpy(np.float64, na_value=np.nan)
            for name in spec.feature_names
        ]
        return np.column_stack(columns)

    model = HistGradientBoostingClassifier(
        categorical_features=[feature.name in places for feature in spec.features],
        early_stopping=False,
        random_state=seed,
    ).fit(matrix(rows), rows[spec.label.column])
    return lambda frame: np.asarray(model.predict_proba(matrix(frame))[:, 1])


def threshold_of(spec: ModelSpec) -> float:
    """From where on a positive decision pays, of a score that is a probability."""
    worth = spec.business
    gain, loss = worth.true_positive - worth.false_negative, worth.true_negative - worth.false_positive
    return loss / (gain + loss)


@dataclass(frozen=True)
class Look:
    """One window.

    Parameters
    ----------
    end
        When it ends.
    rows
        Its predictions.
    estimated
        Its AUC as it is estimated while none of its labels have come.
    measured
        What its labels say.
    drifted
        Columns of which drift would be told, the weightiest for the model first.
    told
        All that would be told: area and finding.
    """

    end: datetime
    rows: int
    estimated: Estimate
    measured: float
    drifted: tuple[str, ...]
    told: tuple[tuple[str, Finding], ...]
    report: Report = field(repr=False)


@dataclass(frozen=True)
class Story:
    """A model and its looks."""

    name: str
    reference: Reference
    looks: tuple[Look, ...]

    @property
    def reference_auc(self) -> float:
        """AUC on the reference."""
        value = self.reference.performance["roc_auc"].value
        assert value is not None
        return value


def watched(
    spec: ModelSpec, held: pd.DataFrame, fitted: pd.DataFrame, traffic: pd.DataFrame, ends: list[datetime]
) -> Story:
    """Fit a model, keep its reference, and look at its traffic at each of some moments."""
    score, threshold = boosted(spec, fitted), threshold_of(spec)
    length = ends[0] - spec.monitoring.window.before(ends[0])
    reference = Reference(spec, VERSION, reference_rows(spec, held, score(held)), threshold, length)
    delay = spec.label.delay.after(ends[0]) - ends[0]
    record = answered(
        spec,
        traffic,
        score(traffic),
        threshold,
        traffic[spec.source.timestamp] + pd.Timedelta(delay),
        spec.training.seed,
    )
    watch, looks = Watch(spec, reference), []
    for end in ends:
        known = record[(record["at"] >= unix_nanoseconds(end - 11 * length)) & (record["at"] < unix_nanoseconds(end))]
        report = watch.look(known, end)
        window = known[known["at"] >= unix_nanoseconds(spec.monitoring.window.before(end))]
        estimate = estimate_performance(window["score"], threshold, spec.business, reference.calibration)
        found = [(area, finding) for area, _, finding in alarms(report)]
        looks.append(
            Look(
                end, len(window), estimate.metrics["roc_auc"], roc_auc(window["label"], window["score"]),
                tuple(finding.subject for area, finding in found if area == "drift"), tuple(found), report,
            )
        )  # fmt: skip
    return Story(spec.name, reference, tuple(looks))


def flights(url: str, *, last: datetime = datetime(2014, 1, 1, tzinfo=UTC)) -> Story:
    """The model of January to June, month by month from July on."""
    spec = load_model("flight_delay")
    frozen = datetime(2013, 7, 1, tzinfo=UTC)
    rows = _rows(spec, url, datetime(2013, 1, 1, tzinfo=UTC), last)
    at = rows[spec.source.timestamp]
    before = rows[at < frozen].sort_values(spec.source.timestamp)
    place = round(len(before) * (1 - spec.training.split.holdout))
    ends = list(_moments(spec.monitoring.window, frozen, last))
    return watched(spec, before.iloc[place:], before.iloc[:place], rows[at >= frozen], ends)


def employment(url: str, *, every: int = 1) -> Story:
    """The model of 2015, month by month (or every so many months) from 2016 to 2018."""
    spec = load_model("employment")
    half, start, last = (datetime(year, month, 1, tzinfo=UTC) for year, month in ((2015, 7), (2016, 1), (2019, 1)))
    rows = _rows(spec, url, datetime(2015, 1, 1, tzinfo=UTC), last)
    at = rows[spec.source.timestamp]
    ends = list(_moments(spec.monitoring.window, start, last))[every - 1 :: every]
    return watched(spec, rows[(at >= half) & (at < start)], rows[at < half], rows[at >= start], ends)


def _rows(spec: ModelSpec, url: str, start: datetime, end: datetime) -> pd.DataFrame:
    return fetch(spec, url, end + timedelta(days=60), 0, between=(start, end)).frame


def _moments(window: Duration, start: datetime, last: datetime) -> Iterator[datetime]:
    """Ends of windows that follow one another."""
    end = window.after(start)
    while end <= last:
        yield end
        end = window.after(end)


def show(story: Story, console: Console) -> dict[str, Any]:
    """Print each look; the figures."""
    table = Table(title=f"{story.name}: reference of {len(story.reference.rows):,} rows, AUC {story.reference_auc:.3f}")
    for head in (
        "window ends",
        "rows",
        "AUC estimated before labels",
        "AUC measured",
        "drift told of",
        "told beside drift",
    ):
        table.add_column(head, justify="right" if head in ("rows", "AUC measured") else "left")
    covered = 0
    for look in story.looks:
        low, high = look.estimated.low or np.nan, look.estimated.high or np.nan
        covered += low <= look.measured <= high
        others = Counter(f"{finding.measure}" for area, finding in look.told if area != "drift")
        table.add_row(
            f"{look.end:%Y-%m-%d}", f"{look.rows:,}", f"{look.estimated.value or np.nan:.3f} ({low:.3f} to {high:.3f})",
            f"{look.measured:.3f}", f"{len(look.drifted)}: {', '.join(look.drifted[:4])}",
            ", ".join(f"{name} {count}" if count > 1 else name for name, count in others.items()),
        )  # fmt: skip
    console.print(table)
    worst = min(story.looks, key=lambda look: look.measured)
    bias = Counter(
        (finding.measure, finding.subject)
        for look in story.looks
        for finding in look.report.areas["bias"]
        if finding.verdict is Verdict.FAIL
    )
    for (measure, subject), count in bias.most_common(8):
        console.print(f"bias: {measure} on {subject} fails in {count} of {len(story.looks)} windows")
    return {
        "windows": len(story.looks),
        "windows_with_drift": sum(bool(look.drifted) for look in story.looks),
        "reference_auc": round(story.reference_auc, 4),
        "lowest_auc": round(worst.measured, 4),
        "lowest_auc_window_ends": f"{worst.end:%Y-%m-%d}",
        "estimates_that_held": covered,
        "degradation_told": sum(any(finding.measure.endswith("_degradation") for _, finding in look.told) for look in story.looks),
        "biased": {f"{measure} {subject}": count for (measure, subject), count in bias.most_common(8)},
    }  # fmt: skip


def draw(story: Story, path: Path) -> None:
    """Draw AUC before and after labels, and how far each feature that matters most has gone, month by month."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    months = [f"{story.reference.spec.monitoring.window.before(look.end):%b}" for look in story.looks]
    places = np.arange(len(months))
    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 6.4), sharex=True, layout="constrained")
    estimates = [look.estimated for look in story.looks]
    values = np.array([one.value or np.nan for one in estimates])
    reach = np.abs(np.array([[one.low or np.nan, one.high or np.nan] for one in estimates]).T - values)
    above.axhline(story.reference_auc, color="#777", linestyle=":", label="reference (held out, to the end of June)")
    above.errorbar(
        places, values, reach, fmt="o", color="#1565c0", capsize=4, label="estimated before labels, 95 % interval"
    )
    above.plot(places, [look.measured for look in story.looks], "s-", color="#c62828", label="measured after labels")
    above.set_ylabel("ROC AUC")
    above.set_title("A flight model frozen at the end of June 2013")
    above.legend(fontsize="small")
    told = [
        {
            finding.subject: finding.value
            for finding in look.report.areas["drift"]
            if finding.measure in MEASURES.values()
        }
        for look in story.looks
    ]
    weight = Counter(
        name for look in story.looks for name, share in look.report.contributions for _ in range(round(1e3 * share))
    )
    names = [name for name, _ in weight.most_common(SHOWN) if name in told[0]]
    cells = np.array([[month.get(name) or np.nan for month in told] for name in [*names, "score", "label"]])
    image = below.imshow(cells, aspect="auto", cmap="Oranges", norm=mpl.colors.LogNorm(0.03, 3))
    for (row, column), value in np.ndenumerate(cells):
        below.text(
            column,
            row,
            f"{value:.2f}",
            ha="center",
            va="center",
            fontsize="x-small",
            color="white" if value > 1 else "black",
        )
    below.set_yticks(np.arange(len(cells)), [*names, "score", "label"], fontsize="small")
    below.set_xticks(places, months)
    below.set_title("distance from the reference (threshold 0.1)", fontsize="medium")
    figure.colorbar(image, ax=below)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["flights", "employment"])
    parser.add_argument("--picture", type=Path, help="draw the flights' weeks into this file")
    given = parser.parse_args()
    url = f"duckdb:///{ensure_sample_database(ROOT / 'var' / 'bench' / 'sample.duckdb', ROOT / 'data')}"
    console, figures = Console(width=200), {}
    for name, tell in {"flights": flights, "employment": employment}.items():
        if given.only in (None, name):
            story = tell(url)
            figures[name] = show(story, console)
            if name == "flights" and given.picture:
                draw(story, given.picture)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
