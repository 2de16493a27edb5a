"""Verbs over stack files."""

from __future__ import annotations

import re

from cli.show import console, print_json, table
from cli.workspace import Workspace
from stacks.stack_file import load_stack, stack_names


def list_stacks(*, as_json: bool) -> None:
    """Print the stacks' names."""
    names = stack_names()
    if as_json:
        print_json(names)
    else:
        console().print(table("stacks", ("name", "file"), ((name, f"stacks/{name}.yaml") for name in names)))


def show(name: str, *, as_json: bool) -> None:
    """Print a stack with its placeholders filled and its passwords left out."""
    Workspace.open(name)
    stack = load_stack(name)
    rows = [("environment", stack.environment)]
    for kind, component in stack.components.items():
        rows.append((kind, component.flavor))
        rows += [(f"{kind}.{key}", _without_password(value)) for key, value in component.configuration.items()]
    rows += [(key, _without_password(value)) for key, value in stack.services.items()]
    if as_json:
        print_json(dict(rows))
    else:
        console().print(table(f"stack {name}", ("what", "value"), rows))


def apply(name: str) -> None:
    """Make ZenML agree with a stack file and print what changed."""
    changes = Workspace.open(name).apply_stack()
    for change in changes or [f"stack {name}: nothing to change"]:
        console().print(change, markup=False)


def _without_password(url: str) -> str:
    return re.sub(r"://([^:/@]*):[^@]*@", r"://\1:***@", url)
