"""Alerts as people read them: in English or Persian, with Gregorian or Jalali dates in the reader's clock (R6.5)."""

from __future__ import annotations

import html
import io
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import jdatetime

from lifecycle.alerting import AlertingPolicy, Priority, filled
from lifecycle.alerts import Alert, Kind, Member
from lifecycle.messages import Message, sparkline
from lifecycle.oncall import Person

log = logging.getLogger(__name__)

SMS = 160  # characters
MEMBERS = 5  # told one by one; the rest are counted
_PERSIAN_DIGITS = str.maketrans("0123456789", "۰۱۲۳۴۵۶۷۸۹")
# A piece of Latin text inside Persian keeps its own direction, whatever stands around it.
_ISOLATE, _END = "\u2068", "\u2069"

WORDS = {
    "en": {
        "opened": "new", "raised": "worse", "reopened": "again", "escalated": "escalated", "resolved": "resolved",
        "what": "What", "since": "Since", "found": "Found", "likely": "Likely cause", "done": "Done so far",
        "folded": "Follows from it", "nothing": "nothing yet", "runbook": "Runbook", "ack": "Take it", "level": "Level",
        "accepted": "accepted", "more": "and {count} more", "over": "Over", "now": "now",
    },
    "fa": {
        "opened": "تازه", "raised": "بدتر شد", "reopened": "دوباره", "escalated": "ارجاع به سطح بالاتر", "resolved": "برطرف شد",
        "what": "چه شده", "since": "از", "found": "یافته‌ها", "likely": "علت محتمل", "done": "کارهای انجام‌شده",
        "folded": "پیامدهای آن", "nothing": "هنوز هیچ", "runbook": "راهنما", "ack": "به عهده گرفتن", "level": "سطح",
        "accepted": "قابل قبول", "more": "و {count} مورد دیگر", "over": "پایان", "now": "اکنون",
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Story:
    """What is told beside the alert itself.

    Parameters
    ----------
    kind, priority, level, role
        Why it is told, how urgently, and to whom.
    folded
        Alerts that follow from it.
    values
        Last values of its worst measure, oldest first.
    done
        What the system or people did since: when, and what.
    picture
        Whether one is wanted: it costs a tenth of a second.
    """

    kind: Kind
    priority: Priority
    level: int
    role: str
    folded: Sequence[Alert] = ()
    values: Sequence[float] = ()
    done: Sequence[tuple[datetime, str]] = ()
    picture: bool = False


def rendered(alert: Alert, story: Story, policy: AlertingPolicy, reader: Person) -> Message:
    """An alert for one reader.

    A text of the policy that cannot be filled is left out: what is known is told without it, and the log says so.
    """
    words = WORDS[reader.language]
    title = _text(alert, policy, reader, "title") or f"{alert.model}: {alert.rule}"
    head = f"[{story.priority}] {title}"
    if story.kind is not Kind.OPENED:
        head = f"[{story.priority}, {words[story.kind]}] {title}"
    runbook = f"{policy.runbooks.rstrip('/')}/{alert.rule}.md"
    command = f'python run.py alerts ack {alert.alert_id} --by YOU --reason "..."'
    line = sparkline(story.values)
    found = [_member(member, policy, reader, alert) for member in alert.members[:MEMBERS]]
    if len(alert.members) > MEMBERS:
        found.append(words["more"].format(count=_digits(str(len(alert.members) - MEMBERS), reader)))
    likely = _text(alert, policy, reader, "likely")
    rows: list[tuple[str, list[str]]] = [
        (words["what"], [title]),
        (words["since"], [moment(min((member.since for member in alert.members), default=alert.opened_at), reader)]),
        (words["found"], [*found, *([f"{line} {words['now']}"] if line else [])]),
        (words["likely"], [likely] if likely else []),
        (words["folded"], [_text(other, policy, reader, "title") or other.rule for other in story.folded]),
        (
            words["done"],
            [f"{moment(at, reader)} {_latin(what, reader)}" for at, what in story.done] or [words["nothing"]],
        ),
        (words["level"], [f"{_digits(str(story.level), reader)} ({_latin(story.role, reader)})"]),
        (words["runbook"], [_latin(runbook, reader)]),
    ]
    if story.kind is Kind.RESOLVED:
        rows.insert(2, (words["over"], [moment(alert.resolved_at, reader)] if alert.resolved_at else []))
    else:
        rows.append((words["ack"], [_latin(command, reader)]))
    rows = [(name, lines) for name, lines in rows if lines]
    text = "\n".join(f"{name}: {lines[0]}" if len(lines) == 1 else f"{name}:\n" + "\n".join(f"  {one}" for one in lines) for name, lines in rows)  # fmt: skip
    english = reader.model_copy(update={"language": "en"})
    said = _text(alert, policy, english, "title") or f"{alert.model}: {alert.rule}"
    values = [value for value in story.values if math.isfinite(value)]
    return Message(
        title=head,
        text=text,
        html=_html(head, rows, reader),
        short=_cut(f"{_plain(head)} #{alert.alert_id}", SMS),
        speech=f"{story.priority} alert, {story.kind}. {said}. Acknowledge alert {' '.join(alert.alert_id)}.",
        facts=_facts(alert, story, runbook),
        picture=_picture(alert, values) if story.picture and alert.members and len(values) > 1 else None,
    )


def moment(at: datetime, reader: Person) -> str:
    """A moment in the reader's calendar and clock, with its distance from UTC."""
    local = at.astimezone(ZoneInfo(reader.timezone))
    offset = f"{local:%z}"
    shown = f"{local:%Y-%m-%d %H:%M}"
    if reader.calendar == "jalali":
        shown = f"{jdatetime.datetime.fromgregorian(datetime=local):%Y/%m/%d %H:%M}"
    return _latin(_digits(f"{shown} ({offset[:3]}:{offset[3:]})", reader), reader)


def _text(alert: Alert, policy: AlertingPolicy, reader: Person, part: str) -> str:
    """A rule's title or likely cause with its placeholders filled; empty where that is not possible."""
    rule = policy.rule(alert.rule)
    if rule is None:
        return ""
    told = rule.title if part == "title" else rule.likely
    subjects = list(dict.fromkeys(member.finding.subject for member in alert.members))
    worst = alert.members[0].finding if alert.members else None
    facts = {
        "model": alert.model,
        "measure": worst.measure if worst else "",
        "subjects": ", ".join(subjects[:3]) + (", ..." if len(subjects) > 3 else ""),
        "window": worst.window if worst else "",
        "count": str(worst.count) if worst and worst.count is not None else "?",
        "value": _digits(_value(worst.value if worst else None, worst.measure if worst else ""), reader),
        "threshold": _digits(_value(worst.threshold if worst else None, ""), reader),
    }
    try:
        return filled(told.fa if reader.language == "fa" else told.en, {name: _latin(value, reader) for name, value in facts.items()})  # fmt: skip
    except (KeyError, ValueError) as error:
        log.warning("%s of rule %s cannot be filled: %s %s", part, alert.rule, type(error).__name__, error)
        return ""


def _member(member: Member, policy: AlertingPolicy, reader: Person, alert: Alert) -> str:
    finding = member.finding
    asked, sign = finding.threshold, finding.direction.sign
    rule = policy.rule(alert.rule)
    for level in rule.levels if rule else []:
        # The threshold that made it an alert is the policy's own, where it has one.
        if level.priority is member.priority and (level.above is not None or level.below is not None):
            asked, sign = (level.above, "≤") if level.above is not None else (level.below, "≥")
    value = _value(finding.value, finding.measure)
    bound = "" if asked is None else f", {WORDS[reader.language]['accepted']} {sign} {_value(asked, finding.measure)}"
    name = _latin(f"{finding.measure} ({finding.subject})", reader)
    return f"{name}: {_digits(value + bound, reader)} [{_latin(finding.window, reader)}]"


def _value(value: float | None, measure: str) -> str:
    if value is None:
        return "–"
    shares = ("_share", "degradation", "bias_change", "availability")
    return f"{value:.1%}" if measure.endswith(shares) and abs(value) <= 1 else f"{value:.4g}"


def _digits(text: str, reader: Person) -> str:
    return text.translate(_PERSIAN_DIGITS) if reader.language == "fa" else text


def _latin(text: str, reader: Person) -> str:
    return f"{_ISOLATE}{text}{_END}" if reader.language == "fa" and text else text


def _plain(text: str) -> str:
    return text.replace(_ISOLATE, "").replace(_END, "")


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _html(head: str, rows: Sequence[tuple[str, Sequence[str]]], reader: Person) -> str:
    direction = "rtl" if reader.language == "fa" else "ltr"
    cells = "".join(
        f"<tr><th style='text-align:start;vertical-align:top;padding:2px 12px'>{html.escape(name)}</th>"
        f"<td>{'<br>'.join(html.escape(one) for one in lines)}</td></tr>"
        for name, lines in rows
    )
    return f"<div dir='{direction}' lang='{reader.language}'><h3>{html.escape(head)}</h3><table>{cells}</table></div>"


def _facts(alert: Alert, story: Story, runbook: str) -> dict[str, object]:
    worst = alert.members[0].finding if alert.members else None
    return {
        "alert": alert.alert_id,
        "kind": story.kind.value,
        "model": alert.model,
        "rule": alert.rule,
        "priority": story.priority.value,
        "level": story.level,
        "state": alert.state.value,
        "since": min((member.since for member in alert.members), default=alert.opened_at).isoformat(),
        "measure": worst.measure if worst else None,
        "subject": worst.subject if worst else None,
        "value": worst.value if worst else None,
        "threshold": worst.threshold if worst else None,
        "window": worst.window if worst else None,
        "trend": sparkline(story.values),
        "done": [what for _, what in story.done],
        "runbook": runbook,
    }


def _picture(alert: Alert, values: Sequence[float]) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 1.2), dpi=100, layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(range(len(values)), values, color="#b00020", marker="o", markersize=3)
    worst = alert.members[0].finding
    if worst.threshold is not None:
        axes.axhline(worst.threshold, color="#888888", linestyle="--", linewidth=1)
    axes.set_title(f"{worst.measure} ({worst.subject})", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.set_xticks([])
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()
