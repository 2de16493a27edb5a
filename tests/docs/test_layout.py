"""The project has the shape and stands on the libraries that its owner decided."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.requirement("RO.2")
@pytest.mark.parametrize("folder", ["pipelines", "steps", "stacks", "materializers", "configs", "tests"])
def test_the_mandated_folders_are_there_and_in_use(folder):
    assert any(path.is_file() for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts)


@pytest.mark.requirement("RO.2")
@pytest.mark.parametrize("file", ["run.py", "pyproject.toml"])
def test_the_mandated_files_are_there(file):
    assert (ROOT / file).stat().st_size > 0


@pytest.mark.requirement("RO.1")
@pytest.mark.parametrize(
    "library",
    ["zenml", "kfp", "mlflow", "great-expectations", "evidently", "optuna", "tensorflow", "tensorflow-serving-api"],
)
def test_the_libraries_decided_on_are_declared_and_locked(library):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    declared = [
        *project["project"]["dependencies"],
        *(one for group in project["dependency-groups"].values() for one in group),
    ]
    assert library in {re.split(r"[\[<>=~!; ]", one)[0] for one in declared if isinstance(one, str)}
    locked = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    assert library in {package["name"] for package in locked}
