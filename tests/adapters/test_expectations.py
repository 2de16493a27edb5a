"""Bad data in, the right finding out: through the real Great Expectations."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from adapters.expectations import problems, validate
from lifecycle.errors import ConfigError
from lifecycle.findings import Finding, Verdict
from lifecycle.quality import QualityReport, stopping_message, stops
from lifecycle.snapshot import FetchCounts, Snapshot
from lifecycle.spec import ModelSpec
from tests.minimal_spec import minimal_spec

pytestmark = pytest.mark.requirement("R2.1", "R5.5")

AS_OF = datetime(2024, 6, 1, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>"


def model(**quality: Any) -> ModelSpec:
    return minimal_spec(
        name="toy",
        sensitivity="sensitive",
        label={"column": "y", "meaning": "is y", "delay": "1d"},
        features=[
            {"name": "speed", "type": "numeric", "min": -10, "max": 10, "unit": "mph"},
            {"name": "closed", "type": "categorical", "values": ["a", "b"], "max_missing": 0.2},
            {"name": "open", "type": "categorical"},
            {"name": "gust", "type": "numeric", "max_missing": 1.0},
        ],
        sensitive=[{"name": "gender", "column": "g"}],
        quality={"min_rows": 100, **quality},
        business={"currency": "USD", "decision": "d", "true_positive": 1, "false_positive": -1},
    )


def good(rows: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    minutes = pd.to_timedelta(np.arange(rows), "min")
    return pd.DataFrame(
        {
            "id": [f"k{i:06d}" for i in range(rows)],
            "ts": (pd.Timestamp("2024-05-30", tz="UTC") + minutes).astype("datetime64[us, UTC]"),
            "speed": rng.normal(size=rows),
            "closed": rng.choice(np.array(["a", "b", None], dtype=object), rows, p=[0.5, 0.45, 0.05]),
            "open": rng.choice(np.array(["p", "q"], dtype=object), rows),
            "gust": rng.normal(size=rows),
            "g": rng.choice(np.array(["f", "m"], dtype=object), rows),
            "y": (np.arange(rows) % 2).astype("int8"),
        }
    )


def snapshot(frame: pd.DataFrame) -> Snapshot:
    rows = len(frame)
    return Snapshot(
        "0123456789abcdef", frame, AS_OF, datetime(2023, 12, 1, tzinfo=UTC), FetchCounts(rows, 0, 0, rows, rows)
    )


def check(frame: pd.DataFrame, **quality: Any) -> QualityReport:
    return validate(snapshot(frame), model(**quality))


def set_cells(column: str, *values: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame[column] = [*values, *frame[column].tolist()[len(values) :]]
        return frame

    return change


def set_all(column: str, value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.assign(**{column: value})


def named(report: QualityReport, measure: str, subject: str) -> list[Finding]:
    return [f for f in report.findings if f.measure == f"expect_{measure}" and f.subject == subject]


def test_good_data_passes_everything_and_says_what_was_asked() -> None:
    report = check(good())
    assert {f.verdict for f in report.findings} == {Verdict.PASS}
    assert not stops(report)
    assert report.failing_rows.keys() == {"expect_column_values_to_not_be_null on closed"}  # 5 % missing, 20 % accepted
    assert report.results["expectations"] == report.results["met"] == len(report.findings)
    assert len({(f.measure, f.subject, f.reason) for f in report.findings}) == len(report.findings)


BAD: list[tuple[str, Callable[[pd.DataFrame], pd.DataFrame], str, str, Verdict, str]] = [
    ("missing column", lambda f: f.drop(columns="open"), "column_to_exist", "open", Verdict.FAIL, "is missing"),
    ("missing group", lambda f: f.drop(columns="g"), "column_to_exist", "g", Verdict.FAIL, "is missing"),
    (
        "renamed column",
        lambda f: f.rename(columns={"speed": "sped"}),
        "column_to_exist",
        "speed",
        Verdict.FAIL,
        "nearest names are sped",
    ),
    (
        "numbers as text",
        lambda f: f.assign(speed=f["speed"].astype(str)),
        "column_values_to_be_in_type_list",
        "speed",
        Verdict.FAIL,
        "200 of 200",
    ),
    (
        "text as numbers",
        lambda f: f.assign(open=1.5),
        "column_values_to_be_in_type_list",
        "open",
        Verdict.FAIL,
        "observed float64",
    ),
    (
        "text and numbers mixed",
        set_cells("open", 1, 2),
        "column_values_to_be_in_type_list",
        "open",
        Verdict.FAIL,
        "2 of 200",
    ),
    ("bytes", set_cells("open", b"\xff\xfe"), "column_values_to_be_in_type_list", "open", Verdict.FAIL, "1 of 200"),
    (
        "times as text",
        lambda f: f.assign(ts=f["ts"].astype(str)),
        "column_values_to_be_in_type_list",
        "ts",
        Verdict.FAIL,
        "200 of 200",
    ),
    (
        "times without zone",
        lambda f: f.assign(ts=f["ts"].dt.tz_localize(None)),
        "column_values_to_be_between",
        "ts",
        Verdict.FAIL,
        "could not be computed",
    ),
    (
        "too many missing",
        set_cells("speed", *[np.nan] * 11),
        "column_values_to_not_be_null",
        "speed",
        Verdict.WARN,
        "11 of 200 values not as asked (5.500%)",
    ),
    (
        "empty column",
        set_all("speed", np.nan),
        "column_values_to_not_be_null",
        "speed",
        Verdict.NO_DATA,
        "all 200 values are missing",
    ),
    (
        "empty text column",
        set_all("closed", None),
        "column_values_to_be_in_set",
        "closed",
        Verdict.NO_DATA,
        "no finite value",
    ),
    ("infinity", set_cells("speed", np.inf), "column_values_to_not_be_in_set", "speed", Verdict.FAIL, "example inf"),
    ("minus infinity", set_cells("gust", -np.inf), "column_values_to_not_be_in_set", "gust", Verdict.FAIL, "-inf"),
    ("out of range", set_cells("speed", 10.5), "column_values_to_be_between", "speed", Verdict.FAIL, "-10 to 10 mph"),
    ("duplicate key", set_cells("id", "k000001"), "column_values_to_be_unique", "id", Verdict.FAIL, "2 of 200"),
    ("missing key", set_cells("id", None), "column_values_to_not_be_null", "id", Verdict.FAIL, "1 of 200"),
    (
        "future timestamp",
        set_cells("ts", pd.Timestamp("2024-06-01 00:00:01", tz="UTC")),
        "column_values_to_be_between",
        "ts",
        Verdict.FAIL,
        "1 of 200",
    ),
    (
        "missing timestamp",
        set_cells("ts", pd.NaT),
        "column_values_to_not_be_null",
        "ts",
        Verdict.FAIL,
        "1 of 200",
    ),
    (
        "stale data",
        lambda f: f.assign(ts=f["ts"] - pd.Timedelta(days=30)),
        "column_max_to_be_between",
        "ts",
        Verdict.FAIL,
        "days old",
    ),
    ("open category", set_cells("closed", "z"), "column_values_to_be_in_set", "closed", Verdict.FAIL, "example z"),
    (
        "10 MB text",
        set_cells("open", "z" * 10_000_000),
        "column_value_lengths_to_be_between",
        "open",
        Verdict.FAIL,
        "(10,000,000 characters)",
    ),
    ("too few rows", lambda f: f.head(99), "table_row_count_to_be_between", "all rows", Verdict.FAIL, "observed 99"),
    ("no row", lambda f: f.head(0), "table_row_count_to_be_between", "all rows", Verdict.FAIL, "observed 0"),
    ("no row to look at", lambda f: f.head(0), "column_values_to_be_between", "speed", Verdict.NO_DATA, "to look at"),
    (
        "one class",
        set_all("y", np.int8(1)),
        "column_unique_value_count_to_be_between",
        "y",
        Verdict.FAIL,
        "rows of both classes",
    ),
    ("label of three", set_cells("y", 2), "column_values_to_be_in_set", "y", Verdict.FAIL, "example 2"),
    (
        "constant feature",
        set_all("open", "p"),
        "column_unique_value_count_to_be_between",
        "open",
        Verdict.WARN,
        "at least 2 distinct",
    ),
]


@pytest.mark.parametrize(
    ("change", "measure", "subject", "verdict", "says"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_bad_data_is_found(
    change: Callable[[pd.DataFrame], pd.DataFrame], measure: str, subject: str, verdict: Verdict, says: str
) -> None:
    report = check(change(good()))
    (finding,) = named(report, measure, subject)
    assert finding.verdict is verdict
    assert says in finding.reason
    assert stops(report) is (verdict is not Verdict.WARN)
    assert len(stopping_message(report)) < 20_000
    json.dumps(report.results, allow_nan=False).encode()
    json.dumps(report.failing_rows, allow_nan=False).encode()
    report.data_docs.encode()
    assert len(report.data_docs) < 300_000


def test_an_empty_column_the_file_accepts_is_a_warning() -> None:
    report = check(good().assign(gust=np.nan))
    assert not stops(report)
    assert {f.verdict for f in report.findings if f.subject == "gust"} == {Verdict.PASS, Verdict.WARN}


def test_severities_of_the_file_decide() -> None:
    frame = set_cells("speed", 11.0)(set_cells("closed", *[None] * 90)(good()))
    assert stops(check(frame))
    assert not stops(check(frame, range_severity="warning"))
    assert not stops(check(frame, range_mostly=0.99))
    assert stops(check(frame, range_severity="warning", max_missing_severity="error"))


def test_failing_rows_are_the_rows_that_failed_at_most_five_each_long_values_cut() -> None:
    frame = set_cells("closed", *["z" * 10_000] * 9)(good())
    rows = check(frame).failing_rows["expect_column_values_to_be_in_set on closed"]
    assert [row["id"] for row in rows] == [f"k{i:06d}" for i in range(5)]
    assert len(rows[0]["closed"]) < 250
    assert rows[0].keys() == set(frame.columns)


def test_rows_are_found_whatever_the_index() -> None:
    frame = set_cells("speed", 99.0)(good())
    frame.index = pd.Index(range(1000, 1200))
    rows = check(frame).failing_rows["expect_column_values_to_be_between on speed"]
    assert [row["id"] for row in rows] == ["k000000"]


def test_free_form_expectations_run_beside_the_drawn_ones() -> None:
    expectations = [
        {"type": "ExpectColumnPairValuesAToBeGreaterThanB", "arguments": {"column_A": "speed", "column_B": "gust"}},
        {
            "type": "ExpectColumnMeanToBeBetween",
            "arguments": {"column": "speed", "max_value": -5},
            "severity": "warning",
        },
        {"type": "ExpectTableColumnCountToEqual", "arguments": {"value": 8}},
        {
            "type": "ExpectColumnValuesToBeInSet",
            "arguments": {
                "column": "open",
                "value_set": ["p"],
                "row_condition": 'open=="p"',
                "condition_parser": "pandas",
            },
        },
        {"type": "ExpectCompoundColumnsToBeUnique", "arguments": {"column_list": ["id", "ts"]}},
    ]
    pair, mean, table, conditional, compound = check(good(), expectations=expectations).findings[-5:]
    assert (pair.verdict, pair.subject) == (Verdict.FAIL, "speed, gust")
    assert pair.value is not None
    assert 0 < pair.value < 1
    assert (mean.verdict, mean.threshold) == (Verdict.WARN, -5.0)
    assert (table.verdict, conditional.verdict, compound.verdict) == (Verdict.PASS, Verdict.PASS, Verdict.PASS)
    assert conditional.count is not None
    assert conditional.count < 200


def test_an_expectation_that_cannot_be_computed_fails() -> None:
    expectations = [{"type": "ExpectColumnMeanToBeBetween", "arguments": {"column": "open", "max_value": 3}}]
    finding = check(good(), expectations=expectations).findings[-1]
    assert finding.verdict is Verdict.FAIL
    assert "could not be computed" in finding.reason


@pytest.mark.parametrize(
    ("expectation", "says"),
    [
        ({"type": "ExpectColumnValuesToBeUniqe"}, "ExpectColumnValuesToBeUnique"),
        ({"type": "Expectation"}, "is not known"),
        ({"type": "ExpectTableRowCountToEqualOtherTable"}, "asks a database"),
        ({"type": "ExpectColumnToExist", "arguments": {"colum": "x"}}, "'colum' (nearest: column)"),
        ({"type": "ExpectColumnToExist", "arguments": {}}, "field required"),
        ({"type": "ExpectColumnMeanToBeBetween", "arguments": {"column": "x", "min_value": [1]}}, "min_value is [1]"),
        (
            {"type": "ExpectColumnValuesToBeBetween", "arguments": {"column": "x", "max_value": 1, "mostly": 7}},
            "mostly",
        ),
        ({"type": "ExpectColumnToExist", "arguments": {"column": "x", "meta": {}}}, "unknown argument 'meta'"),
    ],
)
def test_a_wrong_free_form_expectation_is_a_config_error_that_says_what_is_accepted(
    expectation: dict[str, Any], says: str
) -> None:
    wrong = problems(
        model(expectations=[expectation, {"type": "ExpectTableColumnCountToEqual", "arguments": {"value": 8}}])
    )
    assert len(wrong) == 1
    assert wrong[0].startswith("toy: quality.expectations[0]")
    assert says in wrong[0]
    assert "accepted: " in wrong[0]
    with pytest.raises(ConfigError, match=re.escape(says)):
        check(good(), expectations=[expectation])


def test_all_wrong_expectations_are_told_at_once() -> None:
    assert len(problems(model(expectations=[{"type": "ExpectNothing"}, {"type": "ExpectColumnToExist"}]))) == 2
    assert problems(model()) == []


def test_data_docs_need_no_network_and_data_cannot_inject_html() -> None:
    frame = set_cells("closed", HOSTILE, "<img src=x onerror=alert(2)>")(good())
    frame["open"] = [HOSTILE, *frame["open"].tolist()[1:]]
    frame = set_cells("id", HOSTILE, HOSTILE)(frame)
    docs = check(
        frame,
        expectations=[{"type": "ExpectColumnValuesToNotMatchRegex", "arguments": {"column": "open", "regex": "<s"}}],
    ).data_docs
    assert "&lt;script&gt;" in docs
    assert "<script" not in docs
    assert "<img" not in docs
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!#)|url\(|@import""", docs)


def test_results_tell_no_path_of_this_machine() -> None:
    report = check(good().assign(ts=lambda f: f["ts"].dt.tz_localize(None)))
    text = json.dumps(report.results) + report.data_docs
    assert "site-packages" not in text
    assert str(Path.cwd()) not in text


def test_validation_is_silent_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    caplog.set_level(logging.DEBUG)
    check(good())
    assert list(tmp_path.rglob("*")) == []
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert [r for r in caplog.records if r.name.startswith("great_expectations")] == []


def test_the_same_snapshot_gives_the_same_findings() -> None:
    one, two = check(good()), check(good())
    assert dataclasses.replace(one, data_docs="") == dataclasses.replace(two, data_docs="")
