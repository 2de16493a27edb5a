"""How tables, verdicts and JSON look on the terminal, the same for every verb."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lifecycle.findings import Finding, Verdict

STYLE = {Verdict.PASS: "green", Verdict.WARN: "yellow", Verdict.NO_DATA: "magenta", Verdict.FAIL: "bold red"}


def console() -> Console:
    """Standard output; wide when piped, so that no table is cut."""
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False, emoji=False)


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    sys.stdout.write(json.dumps(value, default=_plain, ensure_ascii=False) + "\n")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """Lay out rows; columns whose name ends in ``#`` are numbers, aligned right."""
    result = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        result.add_column(
            column.removesuffix("#"), justify="right" if column.endswith("#") else "left", overflow="fold"
        )
    for row in rows:
        result.add_row(*(cell if isinstance(cell, Text) else _cell(cell) for cell in row))
    return result


def verdict(value: Verdict) -> Text:
    """Show a verdict as mark and word."""
    return Text(f"{value.mark} {value.label}", style=STYLE[value])


def findings_table(title: str, findings: Iterable[Finding]) -> Table:
    """Show findings: measure, subject, value with its interval, what was asked, verdict."""
    return table(
        title,
        ("measure", "on", "value#", "interval", "asked", "verdict"),
        (
            (
                finding.measure,
                finding.subject,
                number(finding.value),
                "" if finding.interval is None else f"{number(finding.interval[0])} … {number(finding.interval[1])}",
                "" if finding.threshold is None else f"{finding.direction.sign} {number(finding.threshold)}",
                verdict(finding.verdict),
            )
            for finding in findings
        ),
    )


def number(value: float | None) -> str:
    """Show four significant digits, thousands apart; a dash for nothing."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"


def moment(value: datetime | None) -> str:
    """Show a moment in UTC to the minute."""
    return "–" if value is None else f"{value:%Y-%m-%d %H:%M}"


def _cell(value: Any) -> str:
    if isinstance(value, datetime):
        return moment(value)
    # Square brackets would be read as markup.
    return str(value).replace("[", r"\[")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if hasattr(value, "item"):
        return value.item()
    return str(value)
