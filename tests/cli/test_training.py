"""One real training on a few hundred rows: what is registered and reused, and what the version is worth on any labelled window."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.cli.conftest import MODEL, ROWS, Place, Trained, members, write_table

pytestmark = pytest.mark.requirement("R3.8", "RO.4")
TRAIN = ("--pipeline", "train", "--model", "churn")
TRAINED_ROWS = 500
AS_OF = "2024-03-03T12:00"  # 500 rows, one every three hours


def test_an_approved_training_ends_with_gates_verdict_version_and_where_to_look(trained: Trained):
    assert trained.first.code == 0, trained.first
    for told in ("gates of churn", "roc_auc", "✓ pass", "approved: churn version 1", "model card", "runs show"):
        assert told in trained.first.out
    assert trained.first.err == ""


def test_the_same_training_again_reuses_what_did_not_change_and_registers_nothing_new(trained: Trained):
    assert trained.second.code == 0, trained.second
    told = trained.second.json
    assert (told["state"], told["version"], told["created"]) == ("approved", "1", False)
    reused = {name for name, phase in told["phases"].items() if phase["reused"]}
    assert reused == {
        "validate_data",
        "split_data",
        "check_drift",
        "tune_model",
        "fit_model",
        "make_twin",
        "evaluate_model",
    }
    assert 0.7 < told["metrics"]["roc_auc"] < 1.0


def test_nothing_is_split_or_trained_before_the_data_was_found_sound(trained: Trained):
    from zenml.client import Client

    run = (
        Client().list_pipeline_runs(pipeline="train", status="completed", sort_by="asc:created", hydrate=True).items[0]
    )
    assert "require_quality" in run.steps["split_data"].spec.upstream_steps
    for later in ("check_drift", "tune_model", "fit_model", "make_twin", "evaluate_model"):
        assert "split_data" in run.steps[later].spec.upstream_steps


def test_a_version_is_kept_with_its_hold_out_for_monitoring(trained: Trained, tmp_path: Path):
    from adapters.reference_file import decode
    from adapters.registry import REFERENCE, Registry
    from lifecycle.reference import AT, LABEL, SCORE

    registry = Registry(f"sqlite:///{trained.place.var / 'mlflow' / 'mlflow.db'}")
    kept = registry.attached("churn", "1", REFERENCE, tmp_path)
    assert kept is not None
    rows = decode(kept)
    assert list(rows.columns) == ["activity", "visits", "plan", "gender", AT, LABEL, SCORE]  # and nobody's key
    assert len(rows) == 120
    assert rows[SCORE].between(0, 1).all()
    assert set(rows[LABEL]) == {0, 1}
    assert rows[AT].is_monotonic_increasing


@pytest.mark.requirement("R2.1", "R5.5")
def test_a_feature_that_never_varies_warns_and_the_next_run_works(trained: Trained, tmp_path: Path):
    url = write_table(tmp_path / "source.duckdb", members(visits=7))
    answer = trained.place.call(*TRAIN, "--json", PRODECKS_SOURCE_URL=url)
    assert answer.code == 0, answer.err
    assert [one["subject"] for one in answer.json["findings"]["quality"] if one["verdict"] == "WARN"] == ["visits"]
    again = trained.place.call(*TRAIN, "--json")
    assert (again.code, again.json["version"]) == (0, "1")


@pytest.mark.requirement("R3.7", "R5.2")
def test_a_version_is_measured_on_a_window_and_the_findings_are_on_record(trained: Trained):
    told = trained.place.call("--pipeline", "evaluate", "--model", "churn", "--version", "1", "--from", "2024-01-10", "--to", "2024-02-20", "--json")  # fmt: skip
    assert told.code == 0, told.err
    measured = {one["measure"]: one for one in told.json["findings"]}
    assert set(measured) == {"roc_auc", "demographic_parity_difference", "training_overlap"}
    assert told.json["rows"]["rows"] == 41 * 8
    assert told.json["window"] == "2024-01-10 to 2024-02-19"
    assert measured["roc_auc"]["count"] == 41 * 8
    # Every row lies in the window it was trained from: it looks better than it is, and that is said.
    assert (measured["training_overlap"]["value"], measured["training_overlap"]["verdict"]) == (1.0, "WARN")
    kept = trained.place.call("runs", "show", told.json["run"], "--json").json
    assert [one["measure"] for one in kept["findings"]] == list(measured)


def test_a_kept_snapshot_is_measured_as_it_was(trained: Trained):
    name = trained.second.json["snapshot"]
    told = trained.place.call("--pipeline", "evaluate", "--model", "churn", "--version", "1", "--data", name)
    assert told.code == 0, told.err
    assert f"{ROWS:,} rows, snapshot {name}" in told.out
    assert "training_overlap" in told.out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--version", "9"), "no version '9' on record; accepted: "),
        (("--version", "1", "--data", "none"), "no snapshot 'none' is kept"),
        (("--version", "1", "--data", "x", "--from", "2024-01-01"), "a snapshot, or a window"),
        (("--version", "1", "--from", "2024-02-01", "--to", "2024-01-01"), "--from before --to"),
        (("--version", "1", "--from", "soon"), "--from 'soon' is no moment"),
        (("--version", "1"), "which version 1 was trained up to"),
        (("--version", "1", "--seed", "1"), "--seed does not belong to --pipeline evaluate; accepted: --version"),
    ],
)
def test_what_cannot_be_measured_is_an_answer(trained: Trained, arguments: tuple[str, ...], problem: str):
    answer = trained.place.call("--pipeline", "evaluate", "--model", "churn", *arguments)
    assert answer.code == 2, answer
    assert problem in answer.err


def test_a_window_without_rows_says_what_the_table_covers(trained: Trained):
    answer = trained.place.call("--pipeline", "evaluate", "--model", "churn", "--version", "1", "--from", "2019-01-01", "--to", "2019-02-01")  # fmt: skip
    assert answer.code == 4, answer
    assert "it covers 2024-01-01" in answer.err


@pytest.fixture(scope="module")
def turned(workspace: Place) -> Place:
    """A model whose world turned right after its training: who stayed leaves, who left stays."""
    frame = members()
    frame["churned"] = np.where(np.arange(ROWS) < TRAINED_ROWS, frame["churned"], 1 - frame["churned"])
    write_table(workspace.folder / "source.duckdb", pd.DataFrame(frame), "turned_members")
    text = MODEL.replace("name: churn", "name: turned", 1).replace("table: members", "table: turned_members")
    (workspace.models / "turned.yaml").write_text(text)
    answer = workspace.call("--pipeline", "train", "--model", "turned", "--as-of", AS_OF)
    assert answer.code == 0, answer.err
    return workspace


@pytest.mark.requirement("R4.5")
def test_a_version_that_fails_on_what_came_since_its_training_meets_nobody(turned: Place):
    before = turned.call("--pipeline", "evaluate", "--model", "turned", "--version", "1")
    assert before.code == 3, before
    assert "roc_auc on all rows is" in before.out
    refused = turned.call("--pipeline", "deploy", "--model", "turned", "--by", "Ali")
    assert refused.code == 3, refused
    assert "fails on the rows since then, 2024-03-03 12:00 to" in refused.err
    assert turned.call("rollout", "status", "turned").code == 2  # never deployed
    until = f"{datetime.now(UTC) + timedelta(30):%Y-%m-%d}"
    granted = turned.call("override", "grant", "turned", "--gate", "roc_auc", "--reason", "known", "--until", until, "--by", "Mina")  # fmt: skip
    assert granted.code == 0, granted.err
    assert turned.call("--pipeline", "deploy", "--model", "turned", "--by", "Ali").code == 0
