"""docs/requirements.md: which code does what was asked for, and which test shows it (R13.3)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = ROOT / "docs" / "requirements.yaml"
CODE = (
    "adapters",
    "benchmarks",
    "cli",
    "docs",
    "lifecycle",
    "materializers",
    "pipelines",
    "serving",
    "stacks",
    "steps",
)
SINGLE_FILES = ("run.py", ".ci/mutation.py")
STATES = {"shown": "done", "partial": "in part", "later": "not yet"}
# An id, or the first and last of a range as in R3.4 to R3.8.
MENTION = re.compile(r"\b(R(?:\d+|[A-Z])\.\d+)(?:\s+to\s+(R(?:\d+|[A-Z])\.\d+))?\b")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One line of the contract.

    Parameters
    ----------
    id, text, chapter
        As it was given.
    state
        shown, partial or later.
    note
        What is there and what is not, when the state is partial.
    files
        Files that take part and have no docstring.
    """

    id: str
    text: str
    chapter: str
    state: str
    note: str
    files: tuple[str, ...]


@cache
def contract() -> dict[str, Requirement]:
    """Every requirement by its id, in the contract's order."""
    chapters = YAML(typ="safe").load(CONTRACT)["chapters"]
    return {
        name: Requirement(
            name, one["text"], chapter["title"], one["state"], one.get("note", ""), tuple(one.get("files", ()))
        )
        for chapter in chapters
        for name, one in chapter["requirements"].items()
    }


def mentioned(text: str) -> set[str]:
    """Ids that a text names, ranges spelled out.

    >>> sorted(mentioned("Wiring only (R3.4 to R3.6, RO.1)"))
    ['R3.4', 'R3.5', 'R3.6', 'RO.1']
    """
    found: set[str] = set()
    for first, last in MENTION.findall(text):
        chapter, low = first.split(".")
        high = last.split(".")[1] if last else low
        found |= {f"{chapter}.{number}" for number in range(int(low), int(high) + 1)}
    return found


@cache
def named_by_code() -> dict[str, set[str]]:
    """Ids in the docstrings of modules, classes and functions: id: files, relative to the root."""
    files = [path for room in CODE for path in (ROOT / room).rglob("*.py")]
    found: dict[str, set[str]] = {}
    for path in [*files, *(ROOT / name for name in SINGLE_FILES)]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        scopes = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        if path.parent == Path(__file__).parent:
            scopes = [tree]  # this package's functions speak about ids as examples
        for scope in scopes:
            for name in mentioned(ast.get_docstring(scope) or ""):
                found.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
    return found


@cache
def shown_by_tests() -> dict[str, set[str]]:
    """Ids of ``pytest.mark.requirement`` markers: id: test files, relative to the root."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "tests").rglob("*.py"):
        for name in _markers(ast.parse(path.read_text(encoding="utf-8"))):
            found.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
    return found


def _markers(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "requirement":
            for argument in node.args:
                # Whatever is no plain text cannot be traced; it shows up as an unknown id.
                yield str(argument.value) if isinstance(argument, ast.Constant) else ast.unparse(argument)


def page() -> str:
    """Draw the page."""
    wanted, code, tests = contract(), named_by_code(), shown_by_tests()
    counts = {state: sum(one.state == state for one in wanted.values()) for state in STATES}
    lines = [
        "# Requirements, and what shows them",
        "",
        "Drawn by `uv run python -m docs.generate` from `requirements.yaml`, from the ids that docstrings name and from",
        "the `requirement` markers of tests; a test fails when it is stale. *In part* and *not yet* are meant as they stand:",
        "what is listed beside them is the part that exists.",
        "",
        f"{len(wanted)} requirements: " + ", ".join(f"{counts[state]} {word}" for state, word in STATES.items()) + ".",
    ]
    chapter = ""
    for one in wanted.values():
        if one.chapter != chapter:
            chapter = one.chapter
            lines += ["", f"## {chapter}"]
        lines += ["", f"**{one.id}** · {STATES[one.state]}<br>", one.text, ""]
        if one.note:
            lines.append(f"- So far: {one.note}.")
        doing = sorted(code.get(one.id, set()) | set(one.files))
        if doing:
            lines.append(f"- Code: {_links(doing)}")
        if one.id in tests:
            lines.append(f"- Tests: {_links(sorted(tests[one.id]))}")
        if lines[-1] == "":
            lines.pop()
    return "\n".join(lines) + "\n"


def _links(files: list[str]) -> str:
    return ", ".join(f"[{file}](../{file})" for file in files)
