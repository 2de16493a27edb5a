"""Draw what was found: one page of all models, and Evidently's reports of those in which something is wrong (R2.4)."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from zenml import save_artifact, step
from zenml.types import HTMLString

from adapters.drift_report import PAGE_ROWS, pages
from adapters.model_files import load_environment, load_model
from adapters.monitoring_page import render
from adapters.prediction_archive import PredictionArchive
from adapters.registry import Registry
from adapters.services import Services, models_folder
from lifecycle.findings import Verdict
from lifecycle.observed import Window
from lifecycle.spec import GATEWAY
from steps.model_traffic import load_reference, sample
from steps.progress import tell

MOST_REPORTS = 3
"""Models that Evidently draws in one run: it takes seconds for each."""

log = logging.getLogger(__name__)


@step(enable_cache=False)
def report_models(monitored: list[dict[str, Any]], place: dict[str, str]) -> Annotated[HTMLString, "monitoring"]:
    """Draw the page, and Evidently's reports as artifacts beside it.

    Evidently draws the worst `MOST_REPORTS` models that have a finding.

    Parameters
    ----------
    monitored, place
        From and as in `watch_models`.
    """
    looked_at = [one for one in monitored if one["model"] != GATEWAY and one["state"] == "monitored"]
    wrong = [one for one in looked_at if one["rows"] and _severity(one) != (0, 0)]
    drawn = sorted(wrong, key=_severity, reverse=True)[:MOST_REPORTS]
    notes = [f"Evidently draws the worst {MOST_REPORTS} models that have a finding"]
    for done, one in enumerate(drawn):
        tell("reports", f"Evidently, {one['model']}", done, len(drawn))
        try:
            rows = _draw(one, place)
        except Exception as error:  # noqa: BLE001 - a picture that cannot be drawn must not hide what was found
            log.warning("Evidently's reports of %s were not drawn: %s: %s", one["model"], type(error).__name__, error)
            notes.append(f"Evidently's reports of {one['model']} were not drawn: {type(error).__name__}: {error}")
        else:
            notes.append(f"Evidently's reports of {one['model']}: a sample of {rows:,} rows")
    tell("reports", "page", len(drawn), len(drawn))
    return HTMLString(render(monitored, notes))


def _severity(one: dict[str, Any]) -> tuple[int, int]:
    verdicts = [Verdict[finding["verdict"]] for finding in one["findings"]]
    return verdicts.count(Verdict.FAIL), verdicts.count(Verdict.WARN)


def _draw(one: dict[str, Any], place: dict[str, str]) -> int:
    """Evidently's reports of a model as artifacts of this run; rows of the sample."""
    spec = load_model(one["model"], load_environment(place["environment"]), models_folder())
    window = Window(datetime.fromisoformat(one["start"]), datetime.fromisoformat(one["end"]))
    archive = PredictionArchive(Path(place["serving"]))
    rows = sample(spec, window, archive, one["rows"], PAGE_ROWS)
    reference = load_reference(spec, one["main"], window.length, Registry(Services.from_environment().registry))
    drawn = pages(None if reference is None else reference.rows, rows, spec, reference.threshold if reference else 0.5)
    for kind, page in drawn.items():
        save_artifact(HTMLString(page), name=f"{spec.name}_evidently_{kind}")
    return len(rows)
