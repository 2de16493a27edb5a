"""The whole training on the real sample data, as its user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def var(tmp_path_factory):
    folder = tmp_path_factory.mktemp("var")
    (folder / "home").mkdir()
    return folder


def run(var, *arguments):
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("PRODECKS_", "ZENML_", "MLFLOW_"))
    }
    environment = {**inherited, "PRODECKS_VAR": str(var), "HOME": str(var / "home")}
    return subprocess.run(
        [sys.executable, "run.py", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
    )


@pytest.mark.requirement(
    "R3.4", "R3.5", "R3.6", "R3.7", "R3.8", "R11.1", "RO.1", "RO.3", "RO.4", "R1.1", "R1.2", "R1.3"
)
def test_a_training_ends_with_a_registered_version_and_a_second_one_reuses_it(var):
    first = run(var, "--pipeline", "train", "--trials", "1", "--json")
    assert first.returncode == 0, first.stderr[-3000:]
    told = json.loads(first.stdout)
    assert (told["state"], told["version"], told["created"]) == ("approved", "1", True)
    assert told["metrics"]["roc_auc"] > 0.62
    second = json.loads(run(var, "--pipeline", "train", "--trials", "1", "--json").stdout)
    assert (second["version"], second["created"], second["content"]) == ("1", False, told["content"])
    assert all(second["phases"][step]["reused"] for step in ("split_data", "tune_model", "fit_model"))
    assert list((var / "home").iterdir()) == []


@pytest.mark.requirement("R5.6", "R7.3")
def test_real_bias_is_rejected_with_its_own_exit_code(var):
    ended = run(var, "--pipeline", "train", "--model", "employment", "--trials", "1", "--json")
    assert ended.returncode == 3, ended.stderr[-3000:]
    told = json.loads(ended.stdout)
    assert told["state"] == "rejected"
    assert any(one["verdict"] == "FAIL" for one in told["findings"]["gates"])
