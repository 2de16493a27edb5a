"""A tiny model on a tiny table, and one workspace in which it was trained, shared by every test of the command."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = 600

MODEL = """\
name: churn
description: Probability that a member leaves.
owner: {team: Members, contact: "#members"}
tier: secondary
sensitivity: non_sensitive
source: {table: members, timestamp: due_at, entity_key: member_id}
label: {column: churned, meaning: leaves}
features:
  - {name: activity, type: numeric, min: -10, max: 10}
  - {name: visits, type: numeric, min: 0, max: 100}
  - {name: plan, type: categorical, values: [basic, plus, pro]}
sensitive: [{name: gender, column: gender}]
quality: {min_rows: 300}
training:
  trials: 1
  max_epochs: 2
  patience: 1
  ensemble: 1
  batch_size: 64
  split: {folds: 2}
  search: {units: [8], layers: [1], bins: [4], learning_rate: {low: 0.01, high: 0.02}}
evaluation:
  min_rows: 100
  min_group_rows: 30
  min_group_class_rows: 10
  bootstrap: 100
  gates:
    - {metric: roc_auc, min: 0.6}
    - {metric: roc_auc, against: prior, min_difference: 0.02}
    - {metric: demographic_parity_difference, over: [gender], max: 0.5}
business: {currency: USD, decision: call, true_positive: 10.0, false_positive: -3.0}
"""


def members(**columns: Any) -> pd.DataFrame:
    """A member table whose activity and plan say who leaves; `columns` replace or add columns."""
    rng = np.random.default_rng(0)
    activity, plan = rng.normal(size=ROWS), rng.choice(["basic", "plus", "pro"], ROWS)
    left = activity + 1.0 * (plan == "pro") + 0.5 * rng.normal(size=ROWS) > 0.5
    frame = {
        "member_id": [f"M{i:05d}" for i in range(ROWS)],
        "due_at": pd.date_range("2024-01-01", periods=ROWS, freq="3h"),
        "activity": activity,
        "visits": rng.integers(0, 40, ROWS),
        "plan": plan,
        "gender": rng.choice(["f", "m"], ROWS),
        "churned": left.astype(int),
    }
    return pd.DataFrame({**frame, **columns})


def write_table(path: Path, frame: pd.DataFrame, table: str = "members") -> str:
    """Put a table into a DuckDB file; its URL."""
    import duckdb

    with duckdb.connect(str(path)) as connection:
        connection.register("given", frame)
        connection.execute(f"CREATE OR REPLACE TABLE {table} AS FROM given")
    return f"duckdb:///{path}"


@dataclass(frozen=True)
class Answer:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        """What stands on standard error."""
        return self.err.strip().splitlines()


@dataclass
class Place:
    """A folder with a source, model files and state of its own."""

    folder: Path
    extra: dict[str, str] = field(default_factory=dict)
    called: ClassVar[Path | None] = None
    """The one whose command ran last in this process."""

    @classmethod
    def make(cls, folder: Path, frame: pd.DataFrame | None = None, model: str = MODEL) -> Place:
        place = cls(folder)
        for name in ("models", "home"):
            (folder / name).mkdir()
        (place.models / "churn.yaml").write_text(model)
        write_table(folder / "source.duckdb", members() if frame is None else frame)
        return place

    @property
    def models(self) -> Path:
        return self.folder / "models"

    @property
    def var(self) -> Path:
        return self.folder / "var"

    @property
    def environment(self) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("PRODECKS_", "ZENML_", "MLFLOW_"))
        }
        return {
            **inherited,
            "HOME": str(self.folder / "home"),
            "PRODECKS_VAR": str(self.var),
            "PRODECKS_MODELS": str(self.models),
            "PRODECKS_SOURCE_URL": f"duckdb:///{self.folder / 'source.duckdb'}",
            **self.extra,
        }

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """A command in a process of its own."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": self.environment, **options}
        return subprocess.Popen([sys.executable, "run.py", *arguments], cwd=ROOT, text=True, **options)

    def run(self, *arguments: str, timeout: float = 600, **options: Any) -> Answer:
        """A command in a process of its own, waited for."""
        process = self.start(*arguments, **options)
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            process.kill()
        return Answer(process.returncode, out, err)

    def call(self, *arguments: str, **environment: str) -> Answer:
        """A command in this process, which has imported TensorFlow once and for all."""
        from cli.main import main

        self._have_zenml()
        out, err = io.StringIO(), io.StringIO()
        before, handler, command = dict(os.environ), signal.getsignal(signal.SIGTERM), sys.argv
        os.environ.clear()
        os.environ.update(self.environment | environment)
        sys.argv = ["run.py", *arguments]
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
                main()
        finally:
            os.environ.clear()
            os.environ.update(before)
            sys.argv = command
            signal.signal(signal.SIGTERM, handler)
        return Answer(int(ended.value.code or 0), out.getvalue(), err.getvalue())

    def _have_zenml(self) -> None:
        """Let ZenML, which keeps one store a process, forget that of the place that was called before."""
        from zenml.client import Client
        from zenml.config.global_config import GlobalConfiguration

        if Place.called != self.folder:
            for singleton in (Client, GlobalConfiguration):
                singleton._reset_instance()
            Place.called = self.folder


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A place nobody ran anything in."""
    return Place.make(tmp_path)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The place of this process, where commands are called without a process of their own."""
    return Place.make(tmp_path_factory.mktemp("workspace"))


@dataclass(frozen=True)
class Trained:
    """The workspace after two trainings of the same model on the same rows."""

    place: Place
    first: Answer
    second: Answer


@pytest.fixture(scope="session")
def trained(workspace: Place) -> Trained:
    """Train twice: the first time for people, the second for scripts."""
    command = ("--pipeline", "train", "--model", "churn", "--reason", "to see it work", "--by", "Mina")
    return Trained(workspace, workspace.call(*command), workspace.call(*command, "--json"))


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A place whose model has one version, made by hand, which is live."""
    from tests.cli.hand_made import GOOD, World, register

    world = World.make(
        tmp_path_factory.mktemp("promoted") / "world", register(tmp_path_factory.mktemp("registry") / "mlflow")
    )
    world.deploy(GOOD)
    world.carry_out()
    return world.place
