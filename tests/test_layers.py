"""Imports point one way, and a wrong one is caught: a contract that cannot fail holds nothing."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.requirement("RO.2")

ROOT = Path(__file__).resolve().parent.parent
PACKAGES: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
PURE = sys.stdlib_module_names | {"lifecycle", "numpy", "pandas", "pydantic", "pydantic_core", "scipy", "dateutil"}


def lint(folder: Path) -> tuple[int, str]:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def imported(file: Path) -> Iterator[str]:
    """Top-level packages a file imports, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layers")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_the_contracts_hold() -> None:
    code, told = lint(ROOT)
    assert code == 0, told


@pytest.mark.parametrize(
    ("package", "line", "contract"),
    [
        ("lifecycle", "import adapters", "Imports point down"),
        ("adapters", "import steps", "Imports point down"),
        ("steps", "def late():\n    import pipelines", "Imports point down"),
        ("pipelines", "import cli", "Imports point down"),
        ("lifecycle", "import sqlalchemy", "lifecycle is pure"),
        ("lifecycle", "import tensorflow", "lifecycle is pure"),
        ("lifecycle", "def late():\n    import requests", "lifecycle is pure"),
        ("adapters", "import zenml", "ZenML only where"),
        ("steps", "import fastapi", "FastAPI only in"),
        ("adapters", "import adapters.registry\nimport adapters.ops_store", "One outside system a file"),
    ],
)
def test_a_wrong_import_is_caught_by_name(copy: Path, package: str, line: str, contract: str) -> None:
    wrong = copy / package / "wrong.py"
    wrong.write_text(line + "\n")
    try:
        code, told = lint(copy)
    finally:
        wrong.unlink()
    assert code != 0
    assert any(contract in row and "BROKEN" in row for row in told.splitlines()), told


@pytest.mark.parametrize("file", sorted((ROOT / "lifecycle").rglob("*.py")), ids=lambda file: file.stem)
def test_the_core_imports_nothing_but_what_is_listed(file: Path) -> None:
    assert set(imported(file)) <= PURE


def test_the_entry_point_knows_the_command_line_alone() -> None:
    assert set(imported(ROOT / "run.py")) == {"cli"}


def test_every_room_with_code_is_under_the_contracts() -> None:
    rooms = {init.parent.name for init in ROOT.glob("*/__init__.py")} - {"tests", "mutants"}
    assert rooms == set(PACKAGES)
