"""Pictures of a version's evidence, as PNG: evaluation, gates, data and tuning (R3.7, R5.6, R11.1).

matplotlib keeps its font cache where the environment variable MPLCONFIGDIR says; the caller sets it.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lifecycle.evaluation import Estimate, Evaluation
from lifecycle.fairness import RATES, AttributeFairness, GroupFigures
from lifecycle.findings import Finding, Verdict
from lifecycle.measures import MEASURES
from lifecycle.model_card import group_rate, made_equal, measure_text, share_estimate
from lifecycle.quality import shorten
from lifecycle.remedies import Outcome, Remedy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart with any kind of colour vision. Marks and hatches say the same again.
BLUE, ORANGE, GREEN, YELLOW, PURPLE, INK, GREY, PALE = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#e69f00",
    "#8a4f7d",
    "#222222",
    "#6f6f6f",
    "#dddddd",
)
MARKS = {
    Verdict.PASS: ("o", BLUE),
    Verdict.WARN: ("^", YELLOW),
    Verdict.NO_DATA: ("s", GREY),
    Verdict.FAIL: ("X", ORANGE),
}

_STYLE = {
    "text.parse_math": False,  # a category named "$" is no formula
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "hatch.linewidth": 0.6,
}
_LONGEST = 40  # characters of a name
MOST_ROWS = 40  # slices and groups drawn
WIDE = 9.6  # inches of a figure that stands alone

_RATE_WORDS = {
    "selection_rate": "share decided positive",
    "true_positive_rate": "recall",
    "precision": "precision",
}


def evaluation_figures(evaluation: Evaluation, *, limits: Mapping[str, float] | None = None) -> dict[str, bytes]:
    """Draw everything an evaluation holds.

    Parameters
    ----------
    evaluation
        The candidate on its hold-out.
    limits
        Fairness measure: largest accepted difference; see `fairness_limits`.

    Returns
    -------
    dict
        Name: PNG, in the order people read. What an evaluation has no data for is not drawn.
    """
    figures: dict[str, bytes] = {}
    if evaluation.roc.x:
        figures["roc"] = roc_figure(evaluation)
    if evaluation.precision_recall.x:
        figures["precision_recall"] = precision_recall_figure(evaluation)
    if evaluation.calibration:
        figures["calibration"] = calibration_figure(evaluation)
    if sum(evaluation.histogram.negatives) + sum(evaluation.histogram.positives):
        figures["scores"] = scores_figure(evaluation)
    if evaluation.confusion is not None:
        figures["confusion"] = confusion_figure(evaluation)
    if evaluation.value_by_threshold.x:
        figures["value"] = value_figure(evaluation)
    if evaluation.comparisons:
        figures["comparisons"] = comparisons_figure(evaluation)
    if evaluation.slices:
        figures["slices"] = slices_figure(evaluation)
    for name, attribute in evaluation.fairness.items():
        figures[f"fairness_{name}"] = fairness_figure(attribute, limits or {})
    return figures


def fairness_limits(findings: Sequence[Finding]) -> dict[str, float]:
    """Fairness measure: largest accepted difference, as the gates' findings tell it."""
    return {one.measure: one.threshold for one in findings if one.measure in RATES and one.threshold is not None}


def roc_figure(evaluation: Evaluation) -> bytes:
    """Draw the ROC curve with the point of the decision threshold, and tell the baselines' areas."""
    with _drawing() as (figure, axes):
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="chance (0.5)")
        area = _estimate(evaluation.metrics.get("roc_auc"), interval=True)
        axes.plot(evaluation.roc.x, evaluation.roc.y, color=BLUE, linewidth=2, label=f"candidate ({area})")
        for name, table in evaluation.baselines.items():
            if name != "prior":
                axes.plot([], [], " ", label=f"{measure_text(name)}: {_estimate(table.get('roc_auc'))}")
        counts = evaluation.confusion
        if counts is not None:
            x = _share(counts.false_positive, counts.false_positive + counts.true_negative)
            y = _share(counts.true_positive, counts.true_positive + counts.false_negative)
            if x is not None and y is not None:
                axes.plot(x, y, "o", color=INK, markersize=7, label=f"at threshold {evaluation.threshold:.3g}")
        axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        axes.set_title("ROC curve on the hold-out")
        axes.set_aspect("equal")
        axes.legend(loc="lower right", title="area under the curve", title_fontsize=9, fontsize=8.5)
        return _png(figure)


def precision_recall_figure(evaluation: Evaluation) -> bytes:
    """Draw precision over recall above the share of positives, which is what chance gives."""
    with _drawing() as (figure, axes):
        base = _share(evaluation.positives, evaluation.rows)
        average = _estimate(evaluation.metrics.get("average_precision"), interval=True)
        curve = evaluation.precision_recall
        axes.step(curve.x, curve.y, color=BLUE, linewidth=2, where="post", label=f"candidate (average {average})")
        if base is not None:
            axes.axhline(base, color=GREY, linestyle=":", label=f"chance: {base:.3g} of the rows are positive")
        counts = evaluation.confusion
        if counts is not None:
            x = _share(counts.true_positive, counts.true_positive + counts.false_negative)
            y = _share(counts.true_positive, counts.true_positive + counts.false_positive)
            if x is not None and y is not None:
                axes.plot(x, y, "o", color=INK, markersize=7, label=f"at threshold {evaluation.threshold:.3g}")
        axes.set(xlabel="recall", ylabel="precision", xlim=(-0.01, 1.01), ylim=(0, 1.02))
        axes.set_title("Precision and recall on the hold-out")
        axes.legend(loc="best", fontsize=8.5)
        return _png(figure)


def calibration_figure(evaluation: Evaluation) -> bytes:
    """Draw outcome over score, with 95 % intervals of each bin's share (Wilson, 1927), above the rows of each bin."""
    with _drawing(rows=2, heights=(3.4, 1), share_x=True) as (figure, (axes, below)):
        bins = evaluation.calibration
        scores = [one.mean_score for one in bins]
        shares = [one.positive_share for one in bins]
        spans = [share_estimate(round(one.positive_share * one.rows), one.rows) for one in bins]
        top = min(1.0, max([0.05, *scores, *(one.high or 0 for one in spans)]) * 1.08)
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfect: what was said came true")
        axes.vlines(scores, [one.low for one in spans], [one.high for one in spans], color=BLUE, linewidth=1.2)
        axes.plot(scores, shares, "o-", color=BLUE, markersize=5, linewidth=1, label="candidate, 95 % interval")
        axes.set(ylabel="share that was positive", xlim=(0, top), ylim=(0, top))
        error = _estimate(evaluation.metrics.get("expected_calibration_error"), interval=True)
        axes.set_title(f"Calibration on the hold-out: expected error {error}", fontsize=10)
        axes.legend(loc="upper left", fontsize=8.5)
        widths = [max(one.high - one.low, top / 300) for one in bins]
        below.bar(
            [one.low for one in bins], [one.rows for one in bins], widths, align="edge", color=PALE, edgecolor=GREY
        )
        below.set(xlabel="predicted probability (mean of the bin)", ylabel="rows a bin")
        below.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        return _png(figure)


def scores_figure(evaluation: Evaluation) -> bytes:
    """Draw how scores spread in each class, as shares of the class, and the decision threshold."""
    with _drawing() as (figure, axes):
        edges = np.asarray(evaluation.histogram.edges, dtype=float)
        for counts, colour, line, hatch, name in (
            (evaluation.histogram.negatives, GREY, "-", "", "negative"),
            (evaluation.histogram.positives, BLUE, "--", "///", "positive"),
        ):
            total = sum(counts)
            if total:
                share = np.asarray(counts, dtype=float) / total
                label = f"{name}: {total:,} rows"
                axes.stairs(share, edges, color=colour, linestyle=line, linewidth=1.6, label=label)
                axes.stairs(share, edges, fill=True, alpha=0.18, facecolor=colour, hatch=hatch, edgecolor=colour)
        axes.axvline(evaluation.threshold, color=ORANGE, linewidth=1.5)
        low, high = edges[0], edges[-1]
        left = evaluation.threshold > (low + high) / 2
        axes.annotate(
            f"threshold {evaluation.threshold:.3g}: positive from here on",
            (evaluation.threshold, 0.98),
            xycoords=("data", "axes fraction"),
            xytext=(-5 if left else 5, 0),
            textcoords="offset points",
            color=ORANGE,
            va="top",
            ha="right" if left else "left",
            fontsize=8.5,
        )
        held = np.flatnonzero(np.asarray(evaluation.histogram.negatives) + np.asarray(evaluation.histogram.positives))
        room = (high - low) * 0.03
        axes.set_xlim(
            min(edges[held[0]], evaluation.threshold) - room, max(edges[held[-1] + 1], evaluation.threshold) + room
        )
        axes.set(xlabel="predicted probability", ylabel="share of the class")
        axes.set_ylim(0, axes.get_ylim()[1] * 1.12)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_title("Scores by outcome on the hold-out")
        axes.legend(loc="center right", fontsize=8.5)
        return _png(figure)


def confusion_figure(evaluation: Evaluation) -> bytes:
    """Draw decisions against outcomes: rows, and their share of the outcome."""
    counts = evaluation.confusion
    assert counts is not None
    table = np.array([[counts.true_negative, counts.false_positive], [counts.false_negative, counts.true_positive]])
    outcomes = table.sum(axis=1, keepdims=True)
    shares = np.divide(table, outcomes, out=np.zeros_like(table, dtype=float), where=outcomes > 0)
    with _drawing(size=(5.6, 4.4)) as (figure, axes):
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.25, aspect="auto")
        names = (("right: no", "false alarm"), ("missed", "right: yes"))
        for row in range(2):
            for column in range(2):
                axes.text(
                    column,
                    row,
                    f"{names[row][column]}\n{table[row, column]:,} rows\n{shares[row, column]:.1%} of the {'positives' if row else 'negatives'}",
                    ha="center",
                    va="center",
                    color="white" if shares[row, column] > 0.75 else INK,
                    fontsize=11,
                )
        axes.set_xticks([0, 1], ["decided negative", "decided positive"])
        axes.set_yticks([0, 1], ["was\nnegative", "was\npositive"])
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(f"Decisions at threshold {evaluation.threshold:.3g}")
        return _png(figure)


def value_figure(evaluation: Evaluation) -> bytes:
    """Draw what the decisions are worth at every threshold."""
    with _drawing() as (figure, axes):
        curve = evaluation.value_by_threshold
        axes.plot(curve.x, curve.y, color=BLUE, linewidth=2)
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.axvline(evaluation.threshold, color=ORANGE, linewidth=1.5)
        here = evaluation.metrics.get("business_value_per_1000", Estimate(None))
        axes.plot(
            [],
            [],
            color=ORANGE,
            label=f"threshold {evaluation.threshold:.3g}, chosen on validation rows: {_estimate(here)}",
        )
        finite = [(y, x) for x, y in zip(curve.x, curve.y, strict=True) if math.isfinite(y)]
        if finite:
            best, where = max(finite)
            axes.plot(
                where, best, "D", color=INK, markersize=6, label=f"best on the hold-out: {best:,.4g} at {where:.3g}"
            )
        axes.set(xlabel="decision threshold", ylabel=f"{_name(evaluation.currency)} per 1,000 predictions")
        axes.set_title("Business value by threshold, on the hold-out")
        axes.legend(loc="best", fontsize=8.5)
        return _png(figure)


def comparisons_figure(evaluation: Evaluation) -> bytes:
    """Draw the candidate's improvement over each baseline with its paired interval; right of 0 is better.

    Each baseline has its own scale: how far the candidate is above chance would hide how it is to the champion.
    """
    from matplotlib.ticker import MaxNLocator

    baselines = evaluation.comparisons
    measures = list(
        dict.fromkeys(name for table in baselines.values() for name in table if MEASURES[name].unit == "share")
    )
    with _drawing(columns=len(baselines), size=(WIDE, 1.5 + 0.26 * max(len(measures), 3)), share_y=True) as (
        figure,
        panels,
    ):
        for axes, (baseline, table) in zip(np.atleast_1d(panels), baselines.items(), strict=True):
            axes.axvline(0, color=INK, linewidth=1)
            for place, measure in enumerate(reversed(measures)):
                estimate = table.get(measure)
                low = -math.inf if estimate is None or estimate.low is None else estimate.low
                high = math.inf if estimate is None or estimate.high is None else estimate.high
                colour, mark = (BLUE, "o") if low > 0 else (ORANGE, "X") if high < 0 else (GREY, "D")
                if not _interval(axes, estimate, place, colour, mark):
                    axes.text(0, place, "  no data", color=GREY, va="center", fontsize=8)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.grid(visible=False, axis="y")
            axes.set_title(f"over {measure_text(_name(baseline))}", fontsize=9.5)
        first = np.atleast_1d(panels)[0]
        first.set_yticks(range(len(measures)), [measure_text(name) for name in reversed(measures)])
        first.set_ylim(-0.6, max(len(measures), 1) - 0.4)
        for label, mark, colour in (("better", "o", BLUE), ("no sure difference", "D", GREY), ("worse", "X", ORANGE)):
            first.plot([], [], mark, color=colour, label=label)
        figure.legend(loc="outside lower center", ncols=3, fontsize=8.5)
        _over(figure, f"Improvement over each baseline on the same rows, paired, {evaluation.confidence:.0%} interval")
        return _png(figure)


def slices_figure(evaluation: Evaluation, measure: str = "roc_auc") -> bytes:
    """Draw one measure on each slice with its interval; slices too small to judge are listed without one."""
    from matplotlib.ticker import MaxNLocator

    shown = evaluation.slices[:MOST_ROWS]
    left = len(evaluation.slices) - len(shown)
    with _drawing(size=(WIDE, 1.4 + 0.24 * max(len(shown), 3))) as (figure, axes):
        whole = evaluation.metrics.get(measure, Estimate(None))
        if whole.value is not None:
            if whole.low is not None and whole.high is not None:
                axes.axvspan(whole.low, whole.high, color=BLUE, alpha=0.12, linewidth=0)
            axes.axvline(whole.value, color=BLUE, linewidth=1, label=f"all rows: {_estimate(whole, interval=True)}")
        spread = [
            value for one in shown for value in (_bounds(one.metrics.get(measure)) or ()) if math.isfinite(value)
        ] + [value for value in (_bounds(whole) or ()) if math.isfinite(value)]
        low, high = (min(spread), max(spread)) if spread else (0.0, 1.0)
        room = max(high - low, 0.01) * 0.06
        axes.set_xlim(low - room, high + room)
        for place, one in enumerate(reversed(shown)):
            mark, colour = MARKS[one.verdict]
            if not _interval(axes, one.metrics.get(measure), place, colour, mark):
                axes.annotate(
                    "no data: too few rows or one class",
                    (1.01, place),
                    xycoords=("axes fraction", "data"),
                    color=GREY,
                    va="center",
                    fontsize=8,
                    annotation_clip=False,
                )
        axes.set_yticks(
            range(len(shown)),
            [f"{_name(one.column)} = {_name(one.label)}  ({one.rows:,})" for one in reversed(shown)],
            fontsize=8.5,
        )
        for verdict in sorted({one.verdict for one in shown} - {Verdict.NO_DATA}):
            mark, colour = MARKS[verdict]
            words = "misses no gate" if verdict is Verdict.PASS else "misses a gate's bound, in any measure"
            axes.plot([], [], mark, color=colour, label=words)
        axes.set_ylim(-0.7, len(shown) - 0.3)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(visible=False, axis="y")
        more = f"; {left} more are in the card's table" if left else ""
        axes.set(xlabel=f"{measure_text(measure)}, {evaluation.confidence:.0%} interval (rows in brackets){more}")
        axes.set_title(f"{measure_text(measure)} by slice of the hold-out")
        figure.legend(loc="outside lower center", ncols=3, fontsize=8.5)
        return _png(figure)


def fairness_figure(attribute: AttributeFairness, limits: Mapping[str, float]) -> bytes:
    """Draw the three rates of each group with 95 % intervals (Wilson, 1927), and how far below the highest a group may be.

    Parameters
    ----------
    attribute
        The groups and their differences.
    limits
        Fairness measure: largest accepted difference; without one no band is drawn.
    """
    largest = sorted(attribute.groups, key=lambda group: -group.rows)[:MOST_ROWS]
    groups = [group for group in attribute.groups if group in largest]
    left = len(attribute.groups) - len(groups)
    with _drawing(columns=3, size=(10.5, 2.1 + 0.36 * max(len(groups), 2)), share_y=True) as (figure, panels):
        for axes, (measure, (rate, needed)) in zip(panels, RATES.items(), strict=True):
            disparity = attribute.disparities.get(measure)
            judged = set(disparity.judged) if disparity else set()
            limit = limits.get(measure)
            top = disparity.highest_value if disparity else None
            if limit is not None and top is not None:
                axes.axvspan(max(top - limit, 0), top, color=GREEN, alpha=0.15, linewidth=0)
            for place, group in enumerate(reversed(groups)):
                _group_bar(axes, place, group, rate, judged=group.label in judged, top=top, limit=limit, needed=needed)
            axes.set_xlim(0, 1.24)
            axes.set_xticks(np.linspace(0, 1, 6))
            axes.set(xlabel=_RATE_WORDS[rate])
            axes.grid(visible=False, axis="y")
            gap = disparity.difference if disparity else None
            told = "no data" if gap is None else f"{gap:.3f}"
            asked = "" if limit is None else f", accepted ≤ {limit:g}"
            axes.set_title(f"{measure_text(measure.removesuffix('_difference'))}\ngap {told}{asked}", fontsize=9.5)
        panels[0].set_yticks(
            range(len(groups)),
            [f"{_name(group.label)}\n{group.rows:,} rows" for group in reversed(groups)],
            fontsize=8.5,
        )
        panels[0].set_ylim(-0.6, max(len(groups), 1) - 0.4)
        _over(
            figure,
            f"Groups of {_name(attribute.attribute)}: the shaded band is what the highest group allows the others"
            + (f" ({left} smaller ones are in the card's table)" if left else ""),
        )
        return _png(figure)


def remedies_figure(remedies: Sequence[Remedy], limits: Mapping[str, float] | None = None) -> bytes:
    """Draw what each remedy does to the gaps between groups, with their intervals, and to the business value.

    Parameters
    ----------
    remedies
        At least one.
    limits
        Fairness measure: largest accepted difference; without one no band is drawn.
    """
    names = [f"{_name(one.method)} on {_name(one.attribute)}\n{_name(made_equal(one), 60)}" for one in remedies]
    with _drawing(columns=len(RATES) + 1, size=(10.5, 2.2 + 0.62 * max(len(remedies), 2)), share_y=True) as (
        figure,
        panels,
    ):
        for axes, measure in zip(panels, RATES, strict=False):
            limit = (limits or {}).get(measure)
            if limit is not None:
                axes.axvspan(0, limit, color=GREEN, alpha=0.15, linewidth=0)
            for place, one in enumerate(reversed(remedies)):
                _change(axes, place, _gap(one.before, measure), _gap(one.after, measure))
            axes.set_xlim(-0.03 * axes.get_xlim()[1], None)
            axes.set_title(measure_text(measure.removesuffix("_difference")), fontsize=9.5)
            axes.set(xlabel="gap" if limit is None else f"gap, accepted ≤ {limit:g}")
        worth = panels[-1]
        for place, one in enumerate(reversed(remedies)):
            _change(
                worth,
                place,
                Estimate(one.before.business_value_per_1000),
                Estimate(one.after.business_value_per_1000),
            )
        worth.set_title("business value", fontsize=9.5)
        worth.set(xlabel=f"{_name(remedies[0].currency)} per 1,000")
        worth.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        worth.margins(x=0.15)
        for axes in panels:
            axes.xaxis.get_major_locator().set_params(nbins=4)
            axes.grid(visible=False, axis="y")
        panels[0].set_yticks(range(len(names)), list(reversed(names)), fontsize=8.5)
        panels[0].set_ylim(-0.7, max(len(names), 1) - 0.3)
        panels[0].plot([], [], "o", color=GREY, label="as it is")
        panels[0].plot([], [], "D", color=BLUE, label="with the remedy")
        figure.legend(loc="outside lower center", ncols=2, fontsize=8.5)
        _over(figure, "What each remedy does on the hold-out")
        return _png(figure)


def gates_figure(findings: Sequence[Finding]) -> bytes:
    """Draw each gate's distance to its threshold; mark, word and colour carry the verdict.

    The axis is in each measure's own unit, logarithmic away from the threshold, so that a hundredth of an AUC and
    a hundred dollars find room beside each other.
    """
    with _drawing(size=(WIDE, 1.5 + 0.3 * max(len(findings), 2))) as (figure, axes):
        axes.axvline(0, color=INK, linewidth=1)
        spread = [0.1]
        for place, one in enumerate(reversed(findings)):
            mark, colour = MARKS[one.verdict]
            margin = _margin(one, one.value)
            if margin is None:
                axes.text(0, place, "  no data", color=GREY, va="center", fontsize=8.5)
            else:
                ends = [_margin(one, end) for end in one.interval or ()]
                known = [end for end in ends if end is not None]
                if len(known) == 2:
                    axes.hlines(place, min(known), max(known), color=colour, linewidth=1.5)
                axes.plot(margin, place, mark, color=colour, markersize=9)
                spread += [abs(end) for end in (margin, *known)]
            asked = "nothing asked" if one.threshold is None else f"{one.direction.sign} {one.threshold:,.4g}"
            seen = "none" if one.value is None or not math.isfinite(one.value) else f"{one.value:,.4g}"
            axes.annotate(
                f"{one.verdict.label}: {seen}, asked {asked}",
                (1.01, place),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=8.5,
                color=INK,
                annotation_clip=False,
            )
        end = max(spread) * 1.6
        axes.set_xscale("symlog", linthresh=0.01, linscale=1.0)
        axes.set_xlim(-end, end)
        axes.axvspan(-end, 0, color=ORANGE, alpha=0.07, linewidth=0)
        powers = [10.0**power for power in range(-2, 7) if 10.0**power <= end]
        powers = powers[(len(powers) > 2) :: max(1, math.ceil(len(powers) / 4))]
        axes.set_xticks([*(-power for power in reversed(powers)), 0, *powers])
        axes.set_xticks([], minor=True)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:+,g}" if value else "threshold")
        axes.set_yticks(range(len(findings)), [_gate(one) for one in reversed(findings)], fontsize=8.5)
        axes.set_ylim(-0.7, max(len(findings), 1) - 0.3)
        axes.grid(visible=False, axis="y")
        axes.set(xlabel="← missed      distance to the threshold, in each measure's unit      met →")
        axes.set_title("Gates: distance to the threshold, with intervals")
        return _png(figure)


def history_figure(
    timestamps: pd.Series[Any], labels: Sequence[int] | pd.Series[Any], *, holdout_start: datetime | None, positive: str
) -> bytes:
    """Draw rows and label rate over time, with the split marked.

    Parameters
    ----------
    timestamps, labels
        Shape (rows,): when each row was due (UTC), and 0 or 1.
    holdout_start
        First moment of the hold-out; None when it was not taken by time.
    positive
        The positive class in words.
    """
    frame = pd.DataFrame({"at": pd.to_datetime(pd.Series(timestamps).to_numpy(), utc=True), "y": np.asarray(labels)})
    frame = frame.dropna()
    span = (frame["at"].max() - frame["at"].min()) if len(frame) else pd.Timedelta(0)
    words, rule = ("day", "D") if span < pd.Timedelta(days=120) else ("week", "7D")
    with _drawing(rows=2, heights=(1, 1.3), share_x=True, size=(WIDE, 4.2)) as (figure, (above, below)):
        if len(frame):
            table = frame.set_index("at")["y"].resample(rule).agg(["size", "mean"])
            days = 1.0 if rule == "D" else 7.0
            starts = table.index.tz_localize(None)
            above.bar(starts, table["size"], width=days * 0.9, align="edge", color=PALE, edgecolor=GREY, linewidth=0.4)
            middle = starts + pd.Timedelta(days=days / 2)
            below.plot(middle, table["mean"], color=BLUE, marker=".", markersize=4, linewidth=1.2)
            whole = float(frame["y"].mean())
            below.axhline(whole, color=GREY, linestyle=":", label=f"all rows: {whole:.1%}")
            below.legend(loc="upper left", fontsize=8.5)
        else:
            above.text(0.5, 0.5, "no data", transform=above.transAxes, ha="center", color=GREY)
        if holdout_start is not None:
            moment = pd.Timestamp(holdout_start).tz_localize(None) if holdout_start.tzinfo else holdout_start
            for axes in (above, below):
                axes.axvline(moment, color=ORANGE, linewidth=1.5)
            above.annotate(
                " hold-out →",
                (moment, 1.02),
                xycoords=("data", "axes fraction"),
                color=ORANGE,
                fontsize=9,
                annotation_clip=False,
            )
        above.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        below.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        above.set(ylabel=f"rows a {words}")
        below.set(ylabel="share positive", xlabel="UTC")
        above.set_title(f"Rows and label rate over time: {_name(positive, 70)}")
        figure.align_ylabels()
        return _png(figure)


def trials_figure(trials: pd.DataFrame) -> bytes:
    """Draw each trial's ROC AUC and the best so far.

    Parameters
    ----------
    trials
        Columns ``number``, ``state`` (complete, pruned, fail) and ``roc_auc``, as in `lifecycle.training.TuningResult`.
    """
    from matplotlib.ticker import MaxNLocator

    with _drawing(size=(WIDE, 3.8)) as (figure, axes):
        known = trials if {"number", "state", "roc_auc"} <= set(trials.columns) else trials.head(0)
        marks = {"complete": ("o", BLUE, "all folds"), "pruned": ("v", YELLOW, "pruned: value after its last fold")}
        shown = False
        for state, (mark, colour, words) in marks.items():
            rows = known[(known["state"] == state) & np.isfinite(known["roc_auc"])] if len(known) else known
            if len(rows):
                shown = True
                axes.plot(rows["number"] + 1, rows["roc_auc"], mark, color=colour, label=f"{words} ({len(rows)})")
        complete = known[known["state"] == "complete"].sort_values("number") if len(known) else known
        if len(complete):
            axes.step(
                complete["number"] + 1, complete["roc_auc"].cummax(), color=BLUE, where="post", label="best so far"
            )
        failed = int((known["state"] == "fail").sum()) if len(known) else 0
        if failed:
            axes.plot([], [], "x", color=ORANGE, label=f"failed ({failed})")
        if shown or failed:
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8.5)
        else:
            axes.text(0.5, 0.5, "no finished trial", transform=axes.transAxes, ha="center", color=GREY)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(0.5, max(len(known), 1) + 0.5)
        axes.set(xlabel="trial", ylabel="ROC AUC, mean over folds")
        axes.set_title("Search for hyper-parameters")
        return _png(figure)


def _group_bar(
    axes: Axes,
    place: int,
    group: GroupFigures,
    rate: str,
    *,
    judged: bool,
    top: float | None,
    limit: float | None,
    needed: str,
) -> None:
    value: float | None = getattr(group, rate)
    if value is None or not math.isfinite(value) or not judged:
        count = getattr(group, needed)
        told = "" if value is None or not math.isfinite(value) else f" ({value:.3f})"
        axes.text(0.01, place, f"no data: {count:,} {needed}{told}", va="center", fontsize=8, color=GREY)
        return
    low, high = _bounds(group_rate(group, rate)) or (value, value)
    beyond = limit is not None and top is not None and top - value > limit
    colour = ORANGE if beyond else BLUE
    axes.barh(place, value, 0.62, color=colour, alpha=0.85, hatch="///" if beyond else None, edgecolor="white")
    axes.hlines(place, low, high, color=INK, linewidth=1.2)
    axes.text(high + 0.015, place, f"{value:.3f}{'  beyond' if beyond else ''}", va="center", fontsize=8.5)


def _gap(outcome: Outcome, measure: str) -> Estimate:
    return Estimate(outcome.gaps.get(measure), *outcome.intervals.get(measure, (None, None)))


def _change(axes: Axes, place: float, before: Estimate, after: Estimate) -> None:
    """Draw two values of a row, one above the other, with what lies between them."""
    drawn = [
        _interval(axes, before, place + 0.14, GREY, "o"),
        _interval(axes, after, place - 0.14, BLUE, "D"),
    ]
    if not any(drawn):
        axes.text(0.02, place, "no data", color=GREY, va="center", fontsize=8, transform=axes.get_yaxis_transform())


def _over(figure: Figure, title: str) -> None:
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")


def _interval(axes: Axes, estimate: Estimate | None, place: float, colour: str, mark: str) -> bool:
    """Draw a value with its interval; False when there is none."""
    if estimate is None or estimate.value is None or not math.isfinite(estimate.value):
        return False
    if estimate.low is not None and estimate.high is not None:
        axes.hlines(place, estimate.low, estimate.high, color=colour, linewidth=1.5)
    axes.plot(estimate.value, place, mark, color=colour, markersize=5.5)
    return True


def _bounds(estimate: Estimate | None) -> tuple[float, float] | None:
    if estimate is None or estimate.value is None:
        return None
    return (
        estimate.value if estimate.low is None else estimate.low,
        estimate.value if estimate.high is None else estimate.high,
    )


def _margin(finding: Finding, value: float | None) -> float | None:
    """How far a value is on the accepted side of the finding's threshold."""
    if value is None or finding.threshold is None or not math.isfinite(value):
        return None
    distance = value - finding.threshold
    return distance if finding.direction.accepts(finding.threshold + 1, finding.threshold) else -distance


def _gate(finding: Finding) -> str:
    on = "" if finding.subject == "all rows" else f" on {_name(finding.subject)}"
    return f"{measure_text(_name(finding.measure, 60))}{on}"


def _name(text: object, longest: int = _LONGEST) -> str:
    """A name from data or a file, short and in one line."""
    said = " ".join(shorten(text, 10 * longest).split())
    return said if len(said) <= longest else f"{said[: longest - 1]}…"


def _estimate(estimate: Estimate | None, *, interval: bool = False) -> str:
    if estimate is None or estimate.value is None or not math.isfinite(estimate.value):
        return "no data"
    said = f"{estimate.value:,.3f}" if abs(estimate.value) < 100 else f"{estimate.value:,.0f}"
    if interval and estimate.low is not None and estimate.high is not None:
        said += f", {estimate.low:,.3f} to {estimate.high:,.3f}"
    return said


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


@contextlib.contextmanager
def _drawing(
    *,
    rows: int = 1,
    columns: int = 1,
    size: tuple[float, float] = (6.2, 4.4),
    heights: Sequence[float] | None = None,
    share_x: bool = False,
    share_y: bool = False,
) -> Iterator[tuple[Figure, Any]]:
    """Give a figure with our style and its axes, drawn without a display and without pyplot's global state."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs that no font here has are drawn as boxes
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield (
            figure,
            figure.subplots(
                rows, columns, sharex=share_x, sharey=share_y, gridspec_kw={"height_ratios": heights} if heights else {}
            ),
        )


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
