"""What a monitoring run found, as one page: models by area, and what is wrong with a little picture (R2.4)."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from lifecycle.findings import Verdict
from lifecycle.monitoring import AREAS

_COLOUR = {Verdict.PASS: "#2e7d32", Verdict.WARN: "#b26a00", Verdict.NO_DATA: "#6a1b9a", Verdict.FAIL: "#c62828"}
_STYLE = """body{font:14px/1.5 system-ui,sans-serif;margin:2rem;color:#222}table{border-collapse:collapse;margin:1rem 0}
th,td{padding:.3rem .7rem;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}td.n{text-align:right}"""
MOST_FINDINGS = 40
"""Of a model; all of them are on record."""


def render(monitored: Sequence[dict[str, Any]], notes: Sequence[str]) -> str:
    """Draw the page.

    Parameters
    ----------
    monitored
        Results of `steps.watch_models`: each has ``model``, ``state``, ``detail``, and ``findings`` with their ``area``.
    notes
        Sentences that stand below.

    Returns
    -------
    str
        HTML that needs nothing from elsewhere.
    """
    head = "".join(f"<th>{name}</th>" for name in ("model", *AREAS, "rows"))
    rows = "".join(_row(one) for one in monitored)
    parts = "".join(_findings(one) for one in monitored if one.get("findings"))
    below = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    legend = " ".join(map(_verdict, Verdict))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Monitoring</title><style>{_STYLE}</style></head>'
        f"<body><h1>Monitoring</h1><p>{legend}</p><table><tr>{head}</tr>{rows}</table>{parts}{below}</body></html>"
    )


def _row(one: dict[str, Any]) -> str:
    name = html.escape(one["model"])
    if not one.get("findings"):
        return f'<tr><td>{name}</td><td colspan="{len(AREAS) + 1}">{html.escape(one["state"])}: {html.escape(one["detail"])}</td></tr>'
    cells = []
    for area in AREAS:
        verdicts = [Verdict[told["verdict"]] for told in one["findings"] if told["area"] == area]
        cells.append(f"<td>{_verdict(max(verdicts)) if verdicts else '–'}</td>")
    return f'<tr><td><a href="#{name}">{name}</a></td>{"".join(cells)}<td class="n">{one["rows"]:,}</td></tr>'


def _findings(one: dict[str, Any]) -> str:
    wrong = sorted(
        (told for told in one["findings"] if Verdict[told["verdict"]] is not Verdict.PASS),
        key=lambda told: -Verdict[told["verdict"]],
    )
    name = html.escape(one["model"])
    title = f'<h2 id="{name}">{name}</h2><p>{html.escape(one["detail"])}</p>'
    if not wrong:
        return f"{title}<p>Nothing is wrong.</p>"
    rows = "".join(
        f"<tr><td>{told['area']}</td><td>{_verdict(Verdict[told['verdict']])}</td><td>{html.escape(told['measure'])}</td>"
        f"<td>{html.escape(told['subject'])}</td><td>{_picture(told)}</td><td>{html.escape(told['reason'])}</td></tr>"
        for told in wrong[:MOST_FINDINGS]
    )
    more = f"<p>and {len(wrong) - MOST_FINDINGS} more on record</p>" if len(wrong) > MOST_FINDINGS else ""
    return f"{title}<table>{rows}</table>{more}"


def _verdict(value: Verdict) -> str:
    return f'<span style="color:{_COLOUR[value]}">{value.mark} {value.label}</span>'


def _picture(told: dict[str, Any]) -> str:
    """The value as a bar, its threshold as a stroke; nothing where one of them is missing."""
    value, threshold = told["value"], told["threshold"]
    if value is None or threshold is None:
        return ""
    longest = max(abs(value), abs(threshold)) or 1.0
    width, stroke = (120 * abs(one) / longest for one in (value, threshold))
    return (
        f'<svg width="126" height="14" role="img" aria-label="{value:.4g} against {threshold:.4g}">'
        f'<rect width="{width:.1f}" height="10" y="2" fill="{_COLOUR[Verdict[told["verdict"]]]}"/>'
        f'<rect x="{stroke:.1f}" width="2" height="14" fill="#222"/></svg>'
    )
