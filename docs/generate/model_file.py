"""docs/model-file.md: every key of a model, environment or stack file, from the schema itself (RO.4)."""

from __future__ import annotations

import enum
import inspect
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lifecycle.measures import MEASURES
from lifecycle.spec import Duration, Environment, ModelSpec, Unit
from stacks.stack_file import StackFile

FILES: dict[str, type[BaseModel]] = {
    "configs/models/NAME.yaml": ModelSpec,
    "configs/environments/NAME.yaml": Environment,
    "stacks/NAME.yaml": StackFile,
}
SIGNS = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}
LATER = {
    "rollout": "rollouts",
    "monitoring": "monitoring, but for `drift`, which the training's drift report uses",
    "retraining": "triggers, but for `schedule`, which `models` shows",
    "retention": "retirement",
}
"""Sections that are checked now and acted on by work to come."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a section.

    Parameters
    ----------
    name, meaning
        As in the file, and its description.
    type, accepted, unit, default
        As the page shows them; an empty default means that the key is required.
    """

    name: str
    type: str
    accepted: str
    unit: str
    default: str
    meaning: str


def sections(root: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section of a file by its dotted path, the file itself first."""
    waiting: list[tuple[str, type[BaseModel]]] = [("", root)]
    while waiting:
        path, section = waiting.pop(0)
        yield path, section
        for name, field in section.model_fields.items():
            for inner in _models(field.annotation):
                many = "[]" if _holds(field.annotation, list) else ".*" if _holds(field.annotation, dict) else ""
                kind = _kind(inner)
                waiting.append((f"{path}.{name}{many}{kind}".lstrip("."), inner))


def keys(section: type[BaseModel]) -> list[Key]:
    """Keys of one section, in their order."""
    return [_key(name, field) for name, field in section.model_fields.items()]


def page() -> str:
    """Draw the page."""
    lines = [
        "# The model file, and the files beside it",
        "",
        "Drawn by `uv run python -m docs.generate` from the schema; a test fails when it is stale. A file is closed: a key",
        "that does not stand here is an error, and `python run.py models check` tells all errors at once with file, line,",
        "value and what is accepted. A span of time is a whole number and `m`, `h`, `d`, `w`, `mo` or `y`.",
    ]
    for file, root in FILES.items():
        lines += ["", f"## `{file}`"]
        for path, section in sections(root):
            if path:
                lines += ["", f"### `{path}`"]
            lines += ["", _sentence(section)]
            later = LATER.get(path.split(".")[0]) if root is ModelSpec else None
            if later and "." not in path:
                lines += ["", f"Checked now; acted on by work to come: {later}."]
            lines += ["", "| key | type | accepted | unit | default | meaning |", "|---|---|---|---|---|---|"]
            lines += [
                f"| `{one.name}` | {one.type} | {one.accepted} | {one.unit} | {one.default} | {one.meaning} |"
                for one in keys(section)
            ]
    lines += ["", "## Measures", "", "| measure | range | better | unit | meaning |", "|---|---|---|---|---|"]
    lines += [
        f"| `{one.name}` | {one.low:g} to {one.high:g} | {'higher' if one.higher_is_better else 'lower'} "
        f"| {one.unit} | {one.meaning} |"
        for one in MEASURES.values()
    ]
    return "\n".join(lines) + "\n"


def _key(name: str, field: FieldInfo) -> Key:
    found = [*field.metadata, *_metadata(field.annotation)]
    units = dict.fromkeys(one.name for one in found if isinstance(one, Unit))
    bounds = [f"{SIGNS[type(one)]} {_number(_bound(one))}" for one in found if type(one) in SIGNS]
    lengths = [f"at least {one.min_length}" for one in found if isinstance(one, MinLen)]
    lengths += [f"at most {one.max_length}" for one in found if isinstance(one, MaxLen)]
    patterns = [f"`{one.pattern}`" for one in found if getattr(one, "pattern", None)]
    accepted = ", ".join(dict.fromkeys([*_choices(field.annotation), *bounds, *lengths, *patterns]))
    return Key(
        field.alias or name,
        _type(field.annotation),
        _cell(accepted),
        _cell(", ".join(units)),
        _cell(_default(field)),
        _cell(field.description or ""),
    )


def _bound(one: Any) -> float:
    return float(getattr(one, type(one).__name__.lower()))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _parts(annotation: Any) -> Iterator[Any]:
    """The annotation and everything inside it."""
    yield annotation
    for inner in get_args(annotation) if get_origin(annotation) is not Literal else ():
        yield from _parts(inner)


def _metadata(annotation: Any) -> list[Any]:
    found: list[Any] = []
    for part in _parts(annotation):
        if get_origin(part) is Annotated:
            for one in part.__metadata__:
                found += list(one.metadata) if isinstance(one, FieldInfo) else [one]
    return found


def _models(annotation: Any) -> list[type[BaseModel]]:
    return [part for part in _parts(annotation) if inspect.isclass(part) and issubclass(part, BaseModel)]


def _holds(annotation: Any, container: type) -> bool:
    return any(get_origin(part) is container for part in _parts(annotation))


def _kind(section: type[BaseModel]) -> str:
    """Tell sections of one key apart by their type."""
    field = section.model_fields.get("type")
    return (
        f" ({get_args(field.annotation)[0]})" if field is not None and get_origin(field.annotation) is Literal else ""
    )


def _choices(annotation: Any) -> list[str]:
    found: list[str] = []
    for part in _parts(annotation):
        if get_origin(part) is Literal:
            found += [f"`{one}`" for one in get_args(part)]
        elif inspect.isclass(part) and issubclass(part, enum.Enum):
            found += [f"`{one.value}`" for one in part]
    return found


def _type(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(one) for one in inner if one is not types.NoneType))
    if origin is Literal or (inspect.isclass(annotation) and issubclass(annotation, enum.Enum)):
        return "one of"
    if origin is list:
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return f"text: {_type(inner[1])}"
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return "section"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", Duration: "span", Any: "any"}
    return names.get(annotation, str(getattr(annotation, "__name__", annotation)))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = None if field.default is PydanticUndefined else field.default
    if isinstance(default, BaseModel):
        return "as below"
    if isinstance(default, enum.Enum):
        return f"`{default.value}`"
    if default is None or default == "":
        return "none"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _sentence(section: type[BaseModel]) -> str:
    return re.sub(r"\s+", " ", inspect.cleandoc(section.__doc__ or "")).strip()


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
