"""Pictures of an evaluation and of its gates, as PNG (R11.1)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from lifecycle.evaluation import Evaluation
from lifecycle.findings import Finding, Verdict

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#777777"
MARKS = {
    Verdict.PASS: ("o", BLUE),
    Verdict.WARN: ("^", "#e69f00"),
    Verdict.NO_DATA: ("s", GREY),
    Verdict.FAIL: ("X", ORANGE),
}


def evaluation_figures(evaluation: Evaluation) -> dict[str, bytes]:
    """Draw ROC curve, calibration, scores by class, and business value by threshold.

    Returns
    -------
    dict
        Name: PNG. An evaluation without valid scores has none.
    """
    if not evaluation.roc.x:
        return {}
    figures: dict[str, Any] = {}
    figures["roc"], axes = _axes("ROC curve on the hold-out", "false positive rate", "true positive rate")
    axes.plot(evaluation.roc.x, evaluation.roc.y, color=BLUE, label="candidate")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="chance")
    axes.legend(loc="lower right")
    figures["calibration"], axes = _axes("Calibration", "mean score of the bin", "share of positives")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfect")
    axes.plot(
        [one.mean_score for one in evaluation.calibration],
        [one.positive_share for one in evaluation.calibration],
        color=BLUE,
        marker="o",
        label=f"{len(evaluation.calibration)} bins of equal rows",
    )
    axes.legend(loc="upper left")
    figures["scores"], axes = _axes("Scores by outcome", "score", "rows")
    edges = evaluation.histogram.edges
    axes.stairs(evaluation.histogram.negatives, edges, color=GREY, label="negative")
    axes.stairs(evaluation.histogram.positives, edges, color=BLUE, label="positive", linestyle="--")
    axes.axvline(evaluation.threshold, color=ORANGE, label=f"threshold {evaluation.threshold:.3g}")
    axes.legend()
    unit = f"{evaluation.currency} per 1,000 predictions"
    figures["value"], axes = _axes("Business value by threshold", "threshold", unit)
    axes.plot(evaluation.value_by_threshold.x, evaluation.value_by_threshold.y, color=BLUE)
    axes.axvline(evaluation.threshold, color=ORANGE, label=f"threshold {evaluation.threshold:.3g}")
    axes.legend()
    return {name: _png(figure) for name, figure in figures.items()}


def gates_figure(findings: Sequence[Finding]) -> bytes:
    """Draw each gate's value and interval relative to its threshold; mark and colour carry the verdict."""
    figure, axes = _axes("Gates: value less threshold, in the measure's unit", "accepted side is right of 0", "")
    for row, finding in enumerate(reversed(findings)):
        mark, colour = MARKS[finding.verdict]
        if finding.value is not None and finding.threshold is not None:
            side = 1 if finding.direction.accepts(finding.threshold + 1, finding.threshold) else -1
            axes.plot(side * (finding.value - finding.threshold), row, marker=mark, color=colour, markersize=9)
    axes.axvline(0, color=GREY)
    axes.set_xscale("symlog", linthresh=0.1)
    axes.set_yticks(
        range(len(findings)),
        [f"{one.measure} on {one.subject}: {one.verdict.label}" for one in reversed(findings)],
    )
    figure.set_size_inches(9, 1.5 + 0.35 * len(findings))
    return _png(figure)


def _axes(title: str, x: str, y: str) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
