"""docs/commands.md: every verb with its arguments and options, from the command line itself (RO.4)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cli.main import app
from lifecycle import errors

EXIT_CODES = {
    0: "done; a candidate was approved",
    **{
        kind.exit_code: (kind.__doc__ or "").strip()
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.ProDecksError)
    },
    1: "something that nobody foresaw, or a gate that `prove-gates` found unable to do its work",
    130: "interrupted",
}


def commands() -> Iterator[tuple[str, Any]]:
    """Verbs as people type them after ``run.py``, the bare command first, each with Typer's command."""
    from typer.main import get_command

    root: Any = get_command(app)
    yield "", root
    for name, command in sorted(root.commands.items()):
        if not hasattr(command, "commands"):
            yield name, command
            continue
        if command.invoke_without_command:
            yield name, command
        for inner_name, inner in sorted(command.commands.items()):
            yield f"{name} {inner_name}", inner


def page() -> str:
    """Draw the page."""
    lines = [
        "# Commands",
        "",
        "Drawn by `uv run python -m docs.generate` from the command line; a test fails when it is stale.",
    ]
    for verb, command in commands():
        arguments = [one for one in command.params if one.param_type_name == "argument"]
        options = [one for one in command.params if one.param_type_name == "option" and one.name != "help"]
        usage = " ".join(["python run.py", *verb.split(), *(one.name.upper() for one in arguments)])
        needed = " ".join(f"{one.opts[0]} {_value(one)}" for one in options if one.required)
        lines += ["", f"## `{usage} {needed}`".replace(" `", "`").replace("##`", "## `"), ""]
        lines.append(_plain(command.help or ""))
        if options:
            lines += ["", "| option | default | what |", "|---|---|---|"]
        for one in options:
            many = " May be given several times." if one.multiple else ""
            lines.append(f"| `{one.opts[0]}{_value(one, ' ')}` | {_default(one)} | {_plain(one.help or '')}{many} |")
    lines += ["", "## Exit codes", "", "| code | what it says |", "|---|---|"]
    lines += [f"| {code} | {meaning} |" for code, meaning in sorted(EXIT_CODES.items())]
    return "\n".join(lines) + "\n"


def _value(option: Any, before: str = "") -> str:
    return "" if option.is_flag else f"{before}{option.name.upper().replace('_', '-')}"


def _default(option: Any) -> str:
    if option.required:
        return "required"
    return "" if option.is_flag or option.default in (None, "", ()) else f"`{option.default}`"


def _plain(text: str) -> str:
    """Take Rich's markup out; numpydoc sections are for readers of the code."""
    return re.sub(r"\[/?bold\]", "`", text.split("\n\n")[0]).replace("\n", " ").strip()
