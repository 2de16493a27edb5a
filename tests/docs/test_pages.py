"""Drawn pages are up to date, and what documents point at exists."""

import re
from pathlib import Path

import pytest

from docs.generate import DOCS, PAGES

pytestmark = pytest.mark.requirement("R13.3")

ROOT = DOCS.parent
DOCUMENTS = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


@pytest.mark.parametrize("name", PAGES)
def test_a_drawn_page_is_up_to_date(name):
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "uv run python -m docs.generate"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_inside_the_project_leads_somewhere(document):
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    inside = [target.split("#")[0] for target in targets if "://" not in target and not target.startswith("#")]
    assert [target for target in inside if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_folders_and_files_that_a_text_names_exist(document):
    text = document.read_text(encoding="utf-8")
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")} - {"var"}
    named = re.findall(rf"`((?:{'|'.join(sorted(rooms))})/[\w./-]*)`", text)
    assert [one for one in named if not Path(ROOT / one).exists() and "NAME" not in one] == []
