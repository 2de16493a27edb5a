"""Verbs beside training: help that answers at once, gates proved, a model drafted from a table nobody prepared."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tests.cli.conftest import ROOT, ROWS, members, write_table

HEAVY = {"tensorflow", "zenml", "mlflow", "optuna", "pandas", "sklearn", "great_expectations", "evidently", "ibis"}


def test_help_imports_nothing_heavy():
    asked = (
        "import sys; sys.argv = ['run.py', '--help']\n"
        "from cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit as ended:\n    assert not ended.code\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--pipeline" in ended.stdout
    imported = {name.strip(" '[]\n") for name in ended.stderr.split(",")}
    assert "typer" in imported
    assert not imported & HEAVY


@pytest.mark.requirement("R7.3")
def test_every_gate_of_a_model_is_shown_to_fire_to_pass_and_to_lack_data(workspace):
    proofs = workspace.call("prove-gates", "--model", "churn", "--json").json["churn"]
    assert len(proofs) == 3
    assert all(proof["proven"] and proof["fires"] and proof["passes"] and proof["lacks_data"] for proof in proofs)
    table = workspace.call("prove-gates", "--model", "churn")
    assert table.code == 0
    assert "every gate can fire, pass and lack data" in table.out


@pytest.mark.slow
@pytest.mark.requirement("RO.1")
def test_a_file_drafted_from_a_table_nobody_prepared_trains_without_edits(place):
    frame = members()
    rng = np.random.default_rng(1)
    frame = frame.assign(
        note=[f"called on day {i}" for i in range(ROWS)],
        fee_refunded=frame.churned * 3.0 + 0.001 * rng.normal(size=ROWS),
        paid=np.where(rng.random(ROWS) < 0.2, np.nan, rng.exponential(40, ROWS)),
        joined=pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, ROWS), unit="D"),
    )
    write_table(place.folder / "source.duckdb", frame, "people")
    drafted = place.run(
        "new-model", "leavers", "--table", "people", "--label", "churned", "--timestamp", "due_at",
        "--entity", "member_id",
    )  # fmt: skip
    assert drafted.code == 0, drafted.err
    assert "fee_refunded" in drafted.out
    text = (place.models / "leavers.yaml").read_text()
    used = {line.split("name: ")[1].split(",")[0] for line in text.splitlines() if line.strip().startswith("- {name: ")}
    assert {"activity", "plan", "paid"} <= used
    assert not used & {"fee_refunded", "member_id", "note", "due_at", "churned"}
    trained = place.run("--pipeline", "train", "--model", "leavers", "--trials", "1", "--json")
    assert trained.code in (0, 3), trained.err
    assert trained.json["version"] == "1"
