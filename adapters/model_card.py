"""The model card: what a version is for, what it was made from, how it was judged; Markdown and HTML (R11.1)."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

from lifecycle.evaluation import Estimate, Evaluation
from lifecycle.judgement import Judgement
from lifecycle.snapshot import Snapshot
from lifecycle.spec import ModelSpec

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.3rem .8rem;border-bottom:1px solid #ddd;text-align:left}"
    "img{max-width:48%}"
)


def markdown_card(
    spec: ModelSpec,
    snapshot: Snapshot,
    evaluation: Evaluation,
    judgement: Judgement,
    remedies: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
) -> str:
    """Write the card as Markdown; everything that comes from data or files is escaped.

    Parameters
    ----------
    spec, snapshot, evaluation, judgement
        What was asked for, what it was made from, what was measured, what was decided.
    remedies
        Effects of what could be done next about a fairness gate, as `lifecycle.remedies.Remedy.to_dict` gives them.
    facts
        Further facts of the version: hashes, seed, hyper-parameters.
    """
    counts = snapshot.counts
    lines = [
        f"# {_text(spec.name)}: {judgement.decision.state.value}",
        "",
        _text(spec.description),
        "",
        f"It is for this decision: {_text(spec.business.decision)}. The positive class: {_text(spec.label.meaning)}. "
        "It is not for other decisions, nor for people or places outside the data below.",
        "",
        *_table(
            ("fact", "value"),
            [
                ("owner", f"{spec.owner.team}, {spec.owner.contact}"),
                ("tier, sensitivity", f"{spec.tier.value}, {spec.sensitivity.value}"),
                ("retrained", spec.schedule),
                *facts.items(),
            ],
        ),
        "## Data",
        "",
        f"{_text(spec.source.table)}, {snapshot.window}: {counts.in_window:,} rows in the window, "
        f"{counts.not_yet_labelled:,} whose label is not known yet, {counts.never_labelled:,} without one for ever, "
        f"{counts.rows:,} used. Measured on {_text(evaluation.window)}: {evaluation.rows:,} rows, "
        f"{evaluation.positives:,} positive.",
        "",
        "## Gates",
        "",
        *_table(
            ("measure", "on", "value", "asked", "verdict", "why"),
            [
                (
                    one.measure,
                    one.subject,
                    _number(one.value),
                    f"{one.direction.sign} {_number(one.threshold)}",
                    one.verdict.label,
                    one.reason,
                )
                for one in judgement.findings
            ],
        ),
        *(f"- overridden: {_text(one)}" for one in judgement.decision.overridden),
        "## Measures",
        "",
        f"With {evaluation.confidence:.0%} bootstrap intervals.",
        "",
        *_table(
            ("measure", "candidate", *evaluation.baselines),
            [
                (name, _estimate(found), *(_estimate(table.get(name)) for table in evaluation.baselines.values()))
                for name, found in evaluation.metrics.items()
            ],
        ),
    ]
    if evaluation.slices:
        lines += ["## Slices", ""]
        lines += _table(
            ("feature", "value", "rows", "ROC AUC"),
            [
                (
                    one.column,
                    one.label,
                    f"{one.rows:,}",
                    _estimate(one.metrics.get("roc_auc")) if one.metrics else one.reason,
                )
                for one in evaluation.slices
            ],
        )
    if remedies:
        lines += ["## What could be done about the gaps", ""]
        lines += [f"- {_text(one['attribute'])}, {_text(one['method'])}: {_text(_effect(one))}" for one in remedies] + [
            ""
        ]
    lines += ["## Features", ""]
    lines += _table(
        ("feature", "type", "meaning"),
        [(one.name, one.type, one.meaning or getattr(one, "unit", "") or "") for one in spec.features],
    )
    return "\n".join(lines) + "\n"


def html_card(markdown_text: str, title: str, figures: Mapping[str, bytes]) -> str:
    """Render the card as one page with its pictures inside."""
    import markdown

    body = markdown.markdown(markdown_text, extensions=["tables"])
    pictures = "".join(
        f'<img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
        for name, picture in figures.items()
    )
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
    return f"{head}<style>{STYLE}</style><body>{body}<h2>Pictures</h2>{pictures}</body></html>"


def _effect(remedy: Mapping[str, Any]) -> str:
    before, after = remedy["before"], remedy["after"]
    parts = [f"{key} {_plain(before[key])} to {_plain(after[key])}" for key in before if before[key] != after[key]]
    return "; ".join(parts) or "no effect"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    return _number(value) if isinstance(value, (int, float)) or value is None else str(value)


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None or estimate.value is None:
        return "no data"
    interval = "" if estimate.low is None else f" ({_number(estimate.low)} to {_number(estimate.high)})"
    return _number(estimate.value) + interval


def _number(value: float | None) -> str:
    return "no data" if value is None else f"{value:,.4g}"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    return [
        "| " + " | ".join(map(_text, header)) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(_text(str(cell)) for cell in row) + " |" for row in rows),
        "",
    ]


def _text(value: str) -> str:
    """Text as itself: no HTML, no Markdown, no new row."""
    escaped = html.escape(value.replace("\n", " "), quote=False)
    return "".join(f"\\{char}" if char in "\\`*_[]|#" else char for char in escaped)
