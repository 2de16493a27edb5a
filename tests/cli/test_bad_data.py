"""Data that breaks its model file stops the run with an answer, on record, and the next run works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.cli.conftest import ROWS, members, write_table

pytestmark = pytest.mark.requirement("R2.1", "R5.5")

TRAIN = ("--pipeline", "train", "--model", "churn")
DATA, UNAVAILABLE = 4, 5


def with_value(column: str, value: object) -> pd.DataFrame:
    frame = members()
    if isinstance(value, str):
        frame[column] = frame[column].astype(object)
    frame.loc[5, column] = value
    return frame


CASES: dict[str, tuple[Callable[[], pd.DataFrame], str]] = {
    "missing column": (lambda: members().drop(columns="visits"), "features (members): no column 'visits'; accepted:"),
    "renamed column": (
        lambda: members().rename(columns={"activity": "activty"}),
        "features (members): no column 'activity'; nearest: activty",
    ),
    "missing label": (lambda: members().drop(columns="churned"), "label.column (members): no column 'churned'"),
    "missing timestamp": (lambda: members().drop(columns="due_at"), "source.timestamp (members): no column 'due_at'"),
    "empty table": (lambda: members().head(0), "has no row with a due_at"),
    "one label": (lambda: members(churned=1), "all of 600 rows are 1; it holds '1' (600 rows); accepted: a label with"),
    "no labels": (lambda: members(churned=pd.Series([None] * ROWS, dtype="Int64")), "600 have no churned; accepted:"),
    "infinite value": (lambda: with_value("activity", np.inf), "asked: finite numbers; for example inf"),
    "nothing but missing": (lambda: members(activity=np.nan), "all 600 values are missing"),
    "duplicate keys": (
        lambda: members(member_id=["M1", "M1", *members().member_id[2:]]),
        "asked: each entity key once; for example M1",
    ),
    "newest row in the future": (lambda: with_value("due_at", pd.Timestamp("2199-01-01")), "which lies in the future"),
    "text of 10 MB": (lambda: with_value("plan", "x" * 10_000_000), "plan holds a text of 10,000,000 bytes; accepted:"),
    "text in a number": (lambda: members(activity=["many"] * ROWS), "activity is string; accepted for a numeric"),
    "out of range": (lambda: with_value("activity", 99.0), "asked: -10 to 10"),
    "unknown category": (lambda: with_value("plan", "gold"), "asked: one of basic, plus, pro"),
    "too few rows": (lambda: members().head(100), "observed 100; asked: at least 300 rows (quality.min_rows)"),
}


@pytest.mark.parametrize("case", CASES)
def test_data_that_breaks_its_model_file_is_refused_and_on_record(workspace, tmp_path: Path, case: str):
    make, told = CASES[case]
    url = write_table(tmp_path / "source.duckdb", make())
    answer = workspace.call(*TRAIN, PRODECKS_SOURCE_URL=url)
    assert (answer.code, answer.out) == (DATA, "")
    assert answer.err.startswith("error: ")
    assert told in answer.err.replace("\n", " ")
    assert "Traceback" not in answer.err
    newest = workspace.call("runs", "--json", "--limit", "1").json[0]
    assert newest["state"] == "failed"
    assert told in newest["detail"].replace("\n", " ")


def test_an_empty_window_is_told_with_what_to_do(workspace):
    answer = workspace.call(*TRAIN, "--as-of", "2020-01-01")
    assert answer.code == DATA
    assert "accepted: an as-of whose window of 6mo meets that range" in answer.err.replace("\n", " ")


@pytest.mark.parametrize("url", ["postgresql://nobody@127.0.0.1:1/none", "duckdb:////nowhere/source.duckdb"])
def test_a_source_that_does_not_answer_is_named_without_its_password(workspace, url: str):
    answer = workspace.call(*TRAIN, PRODECKS_SOURCE_URL=url.replace("nobody@", "nobody:s3cret@"))
    assert answer.code == UNAVAILABLE, answer
    assert "s3cret" not in answer.err
    assert workspace.call("runs", "--json", "--limit", "1").json[0]["state"] == "failed"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--pipeline", "tarin"), "unknown pipeline 'tarin'; did you mean 'train'?"),
        (("--pipeline", "train", "--model", "chrun"), "unknown model 'chrun'; did you mean 'churn'?"),
        (("--pipeline", "train", "--model", "churn", "--stack", "locl"), "unknown stack 'locl'; did you mean 'local'?"),
        ((*TRAIN, "--as-of", "yesterday"), "--as-of 'yesterday' is no moment; accepted: ISO 8601"),
        ((*TRAIN, "--as-of", "2999-01-01"), "lies in the future"),
        ((*TRAIN, "--trials", "0"), "greater than or equal to 1"),
        (("--pipeline", "train", "models"), "accepted: one of them"),
        (("--pipeline", "deploy", "--model", "churn", "--version", "7"), "churn has no version '7'"),
        (
            ("override", "grant", "churn", "--gate", "roc", "--reason", "r", "--until", "2030-01-01", "--by", "M"),
            "has no gate 'roc'",
        ),
        (
            ("override", "grant", "churn", "--gate", "roc_auc", "--reason", "r", "--until", "soon", "--by", "M"),
            "is no date",
        ),
        (("runs", "show", "nothing"), "no run 'nothing' in the ops store"),
        (("new-model", "churn", "--table", "members", "--label", "churned"), "churn.yaml exists; accepted: a new name"),
        (("new-model", "other", "--table", "membres", "--label", "churned"), "membres"),
    ],
)
def test_a_wrong_command_is_answered_with_what_is_accepted(workspace, arguments: tuple[str, ...], told: str):
    answer = workspace.call(*arguments)
    assert answer.code in (2, 4), answer
    assert told in answer.err.replace("\n", " ")
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("line", "instead", "told"),
    [
        ("tier: secondary", "tiers: secondary", "tiers"),
        ("tier: secondary", "tier: third", "tier"),
        ("min: 0.6}", "min: 1.6}", "1.6"),
        ("trials: 1", "trials: many", "many"),
        ("holdout", "holdout", ""),
    ],
)
def test_a_wrong_model_file_is_told_with_its_line(place, line: str, instead: str, told: str):
    file = place.models / "churn.yaml"
    text = file.read_text()
    if line == instead:
        file.write_bytes(b"name: \xff\xfe")
        told = "churn.yaml"
    else:
        file.write_text(text.replace(line, instead, 1))
    for arguments in (("models", "check"), TRAIN):
        answer = place.call(*arguments)
        assert answer.code == 2, answer
        said = answer.out + answer.err
        assert told in said
        assert "churn.yaml" in said
