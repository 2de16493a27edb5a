"""docs/model-file.md: every key of model files, environments and stack files, from their schemas (RA.2)."""

from __future__ import annotations

import ast
import enum
import json
import types
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AwareDatetime
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lifecycle.alerting import AlertingPolicy
from lifecycle.measures import MEASURES
from lifecycle.oncall import OnCall
from lifecycle.serving_policy import ServingPolicy
from lifecycle.spec import Duration, Environment, ModelSpec, Section, Unit
from stacks.stack_file import StackFile

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("adapters", "cli", "lifecycle", "materializers", "pipelines", "stacks", "steps")

READ_LATER = {
    "Retention.snapshots": "retirement and deletion when due (R2.5)",
    "Retraining.on_drift": "triggers (R3.2)",
    "Retraining.on_degradation": "triggers (R3.2)",
    "Retraining.on_new_rows": "triggers (R3.2)",
    "Retraining.mode": "approaches to retraining (R7.2)",
}
"""Keys, or sections with everything in them, that are checked but that no code reads yet: the work that will."""

FILES: dict[str, tuple[type[Section], str]] = {
    "Model files": (ModelSpec, "`configs/models/NAME.yaml`: one production model each, and no code."),
    "Environments": (Environment, "`configs/environments/NAME.yaml`: what differs there, and nothing else."),
    "Serving": (
        ServingPolicy,
        "`configs/policies/serving.yaml`: how the gateway behaves; flags of `run.py serve` go before it.",
    ),
    "Alerting": (AlertingPolicy, "`configs/policies/alerting.yaml`: what is an alert, who hears of it, when and how."),
    "On call": (OnCall, "`configs/policies/oncall.yaml`: who is reached how, and when."),
    "Stack files": (StackFile, "`stacks/NAME.yaml`: where pipelines run. `${VARIABLE}` is taken from the environment."),
}


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a section.

    Parameters
    ----------
    section
        The class that declares it.
    name
        As it is written in the file.
    kind, unit, default, accepted, meaning
        What the page says of it.
    numbers
        Whether it holds numbers, which have units.
    """

    section: type[Section]
    name: str
    kind: str
    unit: str
    default: str
    accepted: str
    meaning: str
    numbers: bool


def sections(root: type[Section]) -> list[type[Section]]:
    """Return a file's schema and every section in it, each once, from the outside in."""
    found = [root]
    for section in found:
        for field in section.model_fields.values():
            found += [inner for inner in _sections_in(field.annotation) if inner not in found]
    return found


def keys(section: type[Section]) -> Iterator[Key]:
    """Every key of one section, in the file's order."""
    for name, field in section.model_fields.items():
        inside = list(_parts(field.annotation, field.metadata))
        yield Key(
            section=section,
            name=name,
            kind=_kind(field.annotation),
            unit=_unit(inside),
            default=_default(field),
            accepted=_accepted(inside),
            meaning=field.description or "",
            numbers=any(part in (int, float) for part, _ in inside),
        )


def unread() -> list[str]:
    """Keys that no code reads, as ``Section.key``; a section that is not read takes its keys with it.

    A key counts as read where an attribute of its name is, in any room of the code: names that several sections
    share cannot be told apart.
    """
    names = {
        node.attr
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    found: list[str] = []
    visited: set[type[Section]] = set()

    def visit(section: type[Section]) -> None:
        if section in visited:  # a route holds routes
            return
        visited.add(section)
        for name, field in section.model_fields.items():
            if name not in names:
                found.append(f"{section.__name__}.{name}")
            else:
                for inner in _sections_in(field.annotation):
                    visit(inner)

    for root, _ in FILES.values():
        visit(root)
    return list(dict.fromkeys(found))


def page() -> str:
    """Draw the page."""
    lines = [
        "# Model files, environments, policies, stack files",
        "",
        "Drawn by `uv run python -m docs.generate` from the schemas in `lifecycle/` and `stacks/`; a test fails when",
        "it is stale. Files are closed: an unknown key is an error. `python run.py models check` checks model files.",
    ]
    for title, (root, about) in FILES.items():
        lines += ["", f"## {title}", "", about]
        for section in sections(root):
            lines += ["", f"### {section.__name__}", "", _about(section), ""]
            lines += ["| key | type | unit | default | accepted | meaning |", "|---|---|---|---|---|---|"]
            for key in keys(section):
                later = READ_LATER.get(f"{section.__name__}.{key.name}")
                meaning = key.meaning + (f" *Checked, not read yet: {later}.*" if later else "")
                cells = (f"`{key.name}`", key.kind, key.unit, key.default, key.accepted, meaning)
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", "## Measures that a gate may name", ""]
    lines += ["| measure | unit | range | better | meaning |", "|---|---|---|---|---|"]
    for measure in MEASURES.values():
        better = "higher" if measure.higher_is_better else "lower"
        lines.append(
            f"| `{measure.name}` | {measure.unit} | {measure.low:g} to {measure.high:g} | {better} | {measure.meaning} |"
        )
    return "\n".join(lines) + "\n"


def _about(section: type[Section]) -> str:
    return " ".join((section.__doc__ or "").split())


def _is_section(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Section)


def _sections_in(annotation: Any) -> list[type[Section]]:
    if _is_section(annotation):
        return [annotation]
    return [inner for argument in get_args(annotation) for inner in _sections_in(argument)]


def _parts(annotation: Any, metadata: list[Any]) -> Iterator[tuple[Any, list[Any]]]:
    """Types inside an annotation, each with what is said about it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _parts(arguments[0], [*metadata, *annotation.__metadata__])
    elif origin in (Union, types.UnionType):
        for argument in arguments:
            yield from _parts(argument, metadata)
    elif origin in (list, dict):
        yield origin, metadata
        for argument in arguments:
            yield from _parts(argument, [])
    else:
        yield annotation, metadata


def _kind(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(argument) for argument in arguments if argument is not type(None))
    if origin is list:
        return f"list of {_kind(arguments[0])}"
    if origin is dict:
        return f"map of {_kind(arguments[0])} to {_kind(arguments[1])}"
    if origin is Literal:
        return "word"
    if _is_section(annotation):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return "word"
    words = {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "true or false",
        Duration: "duration",
        time: "time of day",
        datetime: "moment",
    }
    return words.get(annotation, "moment" if annotation is AwareDatetime else "any value")


def _unit(inside: list[tuple[Any, list[Any]]]) -> str:
    units = [one.name for _, metadata in inside for one in metadata if isinstance(one, Unit)]
    if any(part is Duration for part, _ in inside):
        units.append("in the value")
    return ", ".join(dict.fromkeys(units))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined:
        return "none"
    if isinstance(value, Section):
        return "its own" if value == type(value).model_construct() else f"`{_dumped(value.model_dump(mode='json'))}`"
    return f"`{_dumped(value.value if isinstance(value, enum.Enum) else value)}`"


def _dumped(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _accepted(inside: list[tuple[Any, list[Any]]]) -> str:
    signs = {"ge": "at least {:,}", "gt": "above {:,}", "le": "at most {:,}", "lt": "below {:,}"}
    told: list[str] = []
    for part, metadata in inside:
        if get_origin(part) is Literal:
            told.append(", ".join(f"`{value}`" for value in get_args(part)))
        elif isinstance(part, type) and issubclass(part, enum.Enum):
            told.append(", ".join(f"`{member.value}`" for member in part))
        elif part is Duration:
            told.append("a whole number and `m`, `h`, `d`, `w`, `mo` or `y`, as in `6mo`")
        limits: list[str] = []
        for one in _constraints(metadata):
            limits += [form.format(getattr(one, name)) for name, form in signs.items() if hasattr(one, name)]
            if getattr(one, "min_length", None):
                limits.append("not empty")
            if getattr(one, "pattern", None):
                limits.append(f"`{one.pattern}`")
        told += [" and ".join(limits)] if limits else []
    return "; ".join(dict.fromkeys(told))


def _constraints(metadata: list[Any]) -> Iterator[Any]:
    """What pydantic has made of Field(...): single constraints, also from inside nested fields."""
    for one in metadata:
        if isinstance(one, FieldInfo):
            yield from _constraints(one.metadata)
        else:
            yield one
