"""Pages that are drawn are fresh, the schema explains itself, and every command a page names exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from docs.generate import DOCS, PAGES
from docs.generate.commands import commands
from docs.generate.model_file import FILES, LATER, keys, sections
from lifecycle.spec import ModelSpec

pytestmark = pytest.mark.requirement("R11.1", "R13.3", "RO.4")

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
VERBS = dict(commands())


@pytest.mark.parametrize("name", PAGES)
def test_a_drawn_page_is_what_its_source_says(name: str):
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "stale: uv run python -m docs.generate"


@pytest.mark.parametrize("root", FILES.values(), ids=FILES)
def test_every_key_says_what_it_means_and_every_number_in_what_unit(root: Any):
    for path, section in sections(root):
        for key in keys(section):
            assert key.meaning, f"{path}.{key.name} has no description"
            if "number" in key.type and "text" not in key.type:
                assert key.unit, f"{path}.{key.name} has no unit"


def test_every_key_is_read_by_code_or_declared_as_read_by_work_to_come():
    rooms = ("adapters", "cli", "lifecycle", "materializers", "pipelines", "stacks", "steps")
    code = "\n".join(path.read_text(encoding="utf-8") for room in rooms for path in (ROOT / room).rglob("*.py"))
    unread = [
        f"{path}.{key.name}"
        for path, section in sections(ModelSpec)
        if path.split(".")[0] not in LATER
        for key in keys(section)
        if not (path == "" and key.name in LATER) and not re.search(rf"\.{key.name}\b", code)
    ]
    assert unread == []
    assert set(LATER) <= set(ModelSpec.model_fields)


def named() -> list[tuple[str, list[str]]]:
    """Every ``run.py`` command line of a page, with its page."""
    found = []
    for path in TEXTS:
        text = path.read_text(encoding="utf-8")
        lines = re.findall(r"(?:python run\.py|`run\.py)([^`\n#|]*)", text)
        found += [(path.name, shlex.split(line.replace("...", ""))) for line in lines]
    return found


@pytest.mark.parametrize(
    ("page", "words"), named(), ids=lambda value: " ".join(value) if isinstance(value, list) else value
)
def test_a_command_that_a_page_names_exists(page: str, words: list[str]):
    plain = [word for word in words if not word.startswith("-")]
    verb = next((" ".join(plain[:length]) for length in (2, 1, 0) if " ".join(plain[:length]) in VERBS), "")
    known = {option for one in VERBS[verb].params for option in one.opts if option.startswith("--")}
    options = {word for word in words if word.startswith("--")}
    assert options <= known, f"{page}: {' '.join(words)}"
    if verb == "" and plain:
        assert options, f"{page}: run.py has no verb {plain[0]!r}"


def test_every_verb_stands_in_the_readme_or_the_page_of_commands():
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert [verb for verb in VERBS if f"`python run.py {verb}".rstrip() not in text] == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_a_link_to_a_file_leads_somewhere(path: Path):
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{path.name}: {target}"
