"""What a fetch must look like, and what follows: pure, without Great Expectations."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.findings import Direction, Severity, Verdict
from lifecycle.quality import (
    Check,
    Outcome,
    QualityReport,
    Reading,
    draw_checks,
    expected_columns,
    finding_key,
    judge_check,
    label_horizon,
    named_columns,
    shorten,
    snake_case,
    stopping_findings,
    stopping_message,
    stops,
)
from lifecycle.spec import ModelSpec
from tests.minimal_spec import minimal_spec

pytestmark = pytest.mark.requirement("R5.5", "R3.4")

AS_OF = datetime(2024, 6, 1, tzinfo=UTC)
START = datetime(2023, 12, 1, tzinfo=UTC)
COLUMNS = ["id", "ts", "y", "x", "c", "g"]


def model(features: list[dict[str, Any]] | None = None, delay: str = "2d", **quality: Any) -> ModelSpec:
    return minimal_spec(
        name="toy",
        sensitivity="sensitive",
        label={"column": "y", "meaning": "is y", "delay": delay},
        features=features
        or [
            {"name": "x", "type": "numeric", "min": -10, "max": 10, "unit": "mi"},
            {"name": "c", "type": "categorical", "values": ["a", "b"], "max_missing": 0.2},
        ],
        sensitive=[{"name": "gender", "column": "g"}],
        quality={"min_rows": 100, **quality},
        business={"currency": "USD", "decision": "d", "true_positive": 1, "false_positive": -1},
    )


def drawn(spec: ModelSpec, kind: str, subject: str, columns: list[str] = COLUMNS) -> list[Check]:
    return [c for c in draw_checks(spec, columns, AS_OF, START) if c.type == kind and c.subject == subject]


CHECK = Check("ExpectColumnValuesToBeInSet", {"column": "c"}, "c", Severity.ERROR, "one of a, b")


def judged(check: Check, outcome: Outcome, rows: int = 10) -> Any:
    return judge_check(check, outcome, window="w", rows=rows)


def report(*verdicts: Verdict) -> QualityReport:
    outcomes = {
        Verdict.PASS: (Severity.ERROR, Outcome(True, 10, 0, 0)),
        Verdict.WARN: (Severity.WARNING, Outcome(False, 10, 0, 1)),
        Verdict.NO_DATA: (Severity.ERROR, Outcome(True, 10, 10, 0)),
        Verdict.FAIL: (Severity.ERROR, Outcome(False, 10, 0, 1, samples=("z",))),
    }
    findings = []
    for verdict in verdicts:
        severity, outcome = outcomes[verdict]
        finding = judged(Check(CHECK.type, CHECK.arguments, verdict.label, severity, CHECK.asked), outcome)
        assert finding.verdict is verdict
        findings.append(finding)
    rows = {"expect_column_values_to_be_in_set on fail": [{"id": f"k{i}", "c": "z" * 100} for i in range(5)]}
    return QualityReport(findings, {}, "", rows)


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("ExpectColumnToExist", "expect_column_to_exist"),
        ("ExpectColumnPairValuesAToBeGreaterThanB", "expect_column_pair_values_a_to_be_greater_than_b"),
        ("ExpectColumnKLDivergenceToBeLessThan", "expect_column_kl_divergence_to_be_less_than"),
        ("ExpectColumnValueZScoresToBeLessThan", "expect_column_value_z_scores_to_be_less_than"),
    ],
)
def test_a_measure_has_the_name_the_expectation_has_in_results(name: str, snake: str) -> None:
    assert snake_case(name) == snake


def test_every_expected_column_is_asked_for_once() -> None:
    spec = model(
        expectations=[{"type": "ExpectColumnPairValuesToBeEqual", "arguments": {"column_A": "x", "column_B": "z"}}]
    )
    assert expected_columns(spec) == ["id", "ts", "y", "x", "c", "g", "z"]
    asked = [c.subject for c in draw_checks(spec, [*COLUMNS, "z"], AS_OF, START) if c.type == "ExpectColumnToExist"]
    assert asked == ["id", "ts", "y", "x", "c", "g", "z"]


@pytest.mark.parametrize("column", COLUMNS)
def test_a_missing_column_is_reported_once_and_nothing_else_is_asked_of_it(column: str) -> None:
    columns = [name for name in COLUMNS if name != column]
    asked = [c for c in draw_checks(model(), columns, AS_OF, START) if c.subject == column]
    assert [c.type for c in asked] == ["ExpectColumnToExist"]
    finding = judged(asked[0], Outcome(False))
    assert (finding.verdict, finding.value, finding.threshold) == (Verdict.FAIL, 0.0, 1.0)
    assert "the column is missing" in finding.reason


def test_a_renamed_column_is_told_with_the_nearest_name() -> None:
    features = [{"name": "distance", "type": "numeric"}]
    check = drawn(model(features), "ExpectColumnToExist", "distance", ["id", "ts", "y", "g", "distence"])[0]
    assert check.near == ("distence",)
    assert "nearest names are distence" in judged(check, Outcome(False)).reason
    assert drawn(model(features), "ExpectColumnToExist", "id", ["id", "ts", "y", "g", "distence"])[0].near == ()


def test_a_free_form_expectation_on_a_missing_column_is_not_run_but_its_column_is_missed() -> None:
    spec = model(expectations=[{"type": "ExpectColumnMeanToBeBetween", "arguments": {"column": "z", "max_value": 1}}])
    asked = [c.type for c in draw_checks(spec, COLUMNS, AS_OF, START) if c.subject == "z"]
    assert asked == ["ExpectColumnToExist"]


@pytest.mark.parametrize(
    ("delay", "days"),
    [("0m", 7.0), ("2d", 9.0), ("30d", 37.0)],
)
def test_freshness_allows_for_the_label_delay(delay: str, days: float) -> None:
    # Rows younger than the delay are not trained on: the newest row of a snapshot is at least that old.
    check = drawn(model(delay=delay), "ExpectColumnMaxToBeBetween", "ts")[0]
    assert check.arguments == {"column": "ts", "min_value": AS_OF - timedelta(days=days)}
    assert check.threshold == days
    assert check.direction is Direction.AT_MOST
    assert ("label delay" in check.asked) == (delay != "0m")


def test_no_timestamp_may_lie_outside_the_window() -> None:
    check = drawn(model(), "ExpectColumnValuesToBeBetween", "ts")[0]
    assert check.arguments == {"column": "ts", "min_value": START, "max_value": AS_OF}
    assert check.severity is Severity.ERROR


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"min": 1, "max": 2}, "1 to 2 mi for at least 0.9 of the values"),
        ({"min": 1}, "1 mi or more for at least 0.9 of the values"),
        ({"max": 2}, "2 mi or less for at least 0.9 of the values"),
    ],
)
def test_a_declared_range_is_asked_with_the_declared_severity(bounds: dict[str, float], words: str) -> None:
    spec = model([{"name": "x", "type": "numeric", "unit": "mi", **bounds}], range_severity="warning", range_mostly=0.9)
    check = drawn(spec, "ExpectColumnValuesToBeBetween", "x")[0]
    assert check.arguments == {"column": "x", **{f"{k}_value": v for k, v in bounds.items()}, "mostly": 0.9}
    assert (check.severity, check.threshold, check.asked) == (Severity.WARNING, 0.1, words)


def test_without_a_range_or_a_closed_list_none_is_asked() -> None:
    spec = model([{"name": "x", "type": "numeric"}, {"name": "c", "type": "categorical"}])
    assert drawn(spec, "ExpectColumnValuesToBeBetween", "x") == []
    assert drawn(spec, "ExpectColumnValuesToBeInSet", "c") == []


def test_a_closed_list_missing_shares_and_text_length_come_from_the_file() -> None:
    spec = model(max_missing_severity="error", max_text_length=7, range_mostly=0.75)
    listed = drawn(spec, "ExpectColumnValuesToBeInSet", "c")[0]
    assert listed.arguments == {"column": "c", "value_set": ["a", "b"], "mostly": 0.75}
    assert listed.threshold == 0.25
    missing = drawn(spec, "ExpectColumnValuesToNotBeNull", "c")[0]
    assert (missing.arguments["mostly"], missing.threshold, missing.severity) == (0.8, 0.2, Severity.ERROR)
    for name in ("id", "c", "g"):
        assert drawn(spec, "ExpectColumnValueLengthsToBeBetween", name)[0].arguments["max_value"] == 7


def test_a_constant_feature_warns_and_one_class_stops() -> None:
    kind = "ExpectColumnUniqueValueCountToBeBetween"
    feature, label = drawn(model(), kind, "x")[0], drawn(model(), kind, "y")[0]
    one = Outcome(False, observed=1)
    assert judged(feature, one).verdict is Verdict.WARN
    assert judged(label, one).verdict is Verdict.FAIL
    assert (judged(label, one).value, judged(label, one).threshold) == (1.0, 2.0)
    assert judged(label, Outcome(True, observed=2)).verdict is Verdict.PASS
    assert judged(label, Outcome(False, observed=0)).verdict is Verdict.NO_DATA


def test_a_sensitive_column_that_is_also_a_feature_is_checked_once() -> None:
    spec = model([{"name": "g", "type": "categorical"}])
    assert len(drawn(spec, "ExpectColumnValuesToBeInTypeList", "g")) == 1


def test_the_key_label_and_timestamp_may_not_be_missing_and_the_key_is_unique() -> None:
    for name in ("id", "ts", "y"):
        assert drawn(model(), "ExpectColumnValuesToNotBeNull", name)[0].severity is Severity.ERROR
    assert len(drawn(model(), "ExpectColumnValuesToBeUnique", "id")) == 1
    assert drawn(model(), "ExpectColumnValuesToBeInSet", "y")[0].arguments["value_set"] == [0, 1]
    assert drawn(model(), "ExpectColumnValuesToNotBeInSet", "x")[0].arguments["value_set"] == [math.inf, -math.inf]


@pytest.mark.parametrize(
    ("arguments", "columns"),
    [
        ({}, []),
        ({"column": "a"}, ["a"]),
        ({"column_A": "a", "column_B": "b"}, ["a", "b"]),
        ({"column_list": ["a", "b", 3]}, ["a", "b"]),
        ({"column_set": ["a"], "min_value": 3, "column": 5}, []),
    ],
)
def test_columns_are_read_from_the_arguments(arguments: dict[str, Any], columns: list[str]) -> None:
    assert named_columns(arguments) == columns


@pytest.mark.parametrize(
    ("severity", "outcome", "verdict"),
    [
        (Severity.ERROR, Outcome(True, 10, 0, 0), Verdict.PASS),
        (Severity.ERROR, Outcome(False, 10, 0, 3), Verdict.FAIL),
        (Severity.WARNING, Outcome(False, 10, 0, 3), Verdict.WARN),
        (Severity.ERROR, Outcome(None, error="boom"), Verdict.FAIL),
        (Severity.WARNING, Outcome(None, error="boom"), Verdict.NO_DATA),
        (Severity.WARNING, Outcome(None), Verdict.NO_DATA),
        (Severity.ERROR, Outcome(True, error="boom"), Verdict.FAIL),
        (Severity.ERROR, Outcome(True, 10, 10, 0), Verdict.NO_DATA),
        (Severity.ERROR, Outcome(True, 0, 0, 0), Verdict.NO_DATA),
        (Severity.ERROR, Outcome(False, 0, 0, 0), Verdict.NO_DATA),
    ],
)
def test_what_was_not_seen_never_passes(severity: Severity, outcome: Outcome, verdict: Verdict) -> None:
    check = Check(CHECK.type, CHECK.arguments, "c", severity, CHECK.asked)
    assert judged(check, outcome).verdict is verdict


def test_an_empty_column_that_the_file_accepts_warns() -> None:
    spec = model([{"name": "x", "type": "numeric", "min": 0, "max_missing": 1.0}])
    for check in draw_checks(spec, COLUMNS, AS_OF, START):
        if check.subject == "x" and check.type not in ("ExpectColumnToExist", "ExpectColumnValuesToNotBeNull"):
            assert check.accepts_empty
            empty = Outcome(False, observed=0) if check.reading is Reading.NUMBER else Outcome(True, 10, 10, 0)
            assert judged(check, empty).verdict is Verdict.WARN


@pytest.mark.parametrize(
    ("severity", "accepted", "verdict"),
    [
        (Severity.ERROR, False, Verdict.FAIL),
        (Severity.WARNING, False, Verdict.NO_DATA),
        (Severity.WARNING, True, Verdict.PASS),
    ],
)
def test_an_empty_column_is_no_data_and_not_a_mere_warning(
    severity: Severity, accepted: bool, verdict: Verdict
) -> None:
    check = Check("ExpectColumnValuesToNotBeNull", {"column": "c"}, "c", severity, "some")
    finding = judged(check, Outcome(accepted, 10, None, 10))
    assert finding.verdict is verdict
    assert "all 10 values are missing" in finding.reason


@given(
    rows=st.integers(1, 1000),
    missing=st.integers(0, 1000),
    unexpected=st.integers(0, 1000),
    success=st.booleans(),
    severity=st.sampled_from(Severity),
)
def test_a_share_is_of_the_values_looked_at(
    rows: int, missing: int, unexpected: int, success: bool, severity: Severity
) -> None:
    missing = min(missing, rows)
    unexpected = min(unexpected, rows - missing)
    check = Check(CHECK.type, CHECK.arguments, "c", severity, CHECK.asked)
    finding = judged(check, Outcome(success, rows, missing, unexpected))
    assert finding.count == rows
    if missing == rows:
        assert finding.value is None
        assert finding.verdict is Verdict.NO_DATA
    else:
        assert finding.value == unexpected / (rows - missing)
        assert (finding.verdict is Verdict.PASS) == success


@pytest.mark.parametrize(
    ("arguments", "observed", "success", "expected"),
    [
        ({"max_value": 3}, 5.0, False, (5.0, 3.0, Direction.AT_MOST)),
        ({"min_value": 3}, 5.0, True, (5.0, 3.0, Direction.AT_LEAST)),
        ({"min_value": 3, "max_value": 9}, 5.0, True, (5.0, 9.0, Direction.AT_MOST)),
        ({"min_value": 3, "max_value": 9}, 1.0, False, (1.0, 3.0, Direction.AT_LEAST)),
        ({"value_set": [1]}, [2], False, (None, None, Direction.AT_LEAST)),
    ],
)
def test_an_observed_number_stands_beside_the_bound_it_is_nearest_to_missing(
    arguments: dict[str, Any], observed: Any, success: bool, expected: tuple[Any, ...]
) -> None:
    check = Check("ExpectColumnMeanToBeBetween", {"column": "x", **arguments}, "x", Severity.ERROR, "asked")
    finding = judged(check, Outcome(success, observed=observed), rows=77)
    assert (finding.value, finding.threshold, finding.direction) == expected
    assert finding.count == 77


@pytest.mark.parametrize("observed", [None, math.nan, math.inf, []])
def test_an_observation_that_is_no_number_never_passes(observed: Any) -> None:
    check = Check("ExpectColumnMeanToBeBetween", {"column": "x", "min_value": 0}, "x", Severity.ERROR, "asked")
    finding = judged(check, Outcome(True, observed=observed))
    assert finding.verdict is Verdict.NO_DATA
    assert finding.value is None


def test_a_free_form_share_is_shown_beside_the_allowed_share() -> None:
    spec = model(
        expectations=[
            {"type": "ExpectColumnValuesToMatchRegex", "arguments": {"column": "c", "regex": "a", "mostly": 0.7}},
            {
                "type": "ExpectColumnMeanToBeBetween",
                "arguments": {"column": "x", "min_value": 0},
                "severity": "warning",
            },
            {"type": "ExpectTableColumnCountToEqual", "arguments": {"value": 6}},
        ]
    )
    share, mean, table = draw_checks(spec, COLUMNS, AS_OF, START)[-3:]
    assert (share.threshold, share.direction, share.asked) == (0.3, Direction.AT_MOST, "column c, regex a, mostly 0.7")
    assert (mean.severity, mean.direction) == (Severity.WARNING, Direction.AT_LEAST)
    assert (table.subject, judged(table, Outcome(True, observed=6)).verdict) == ("all rows", Verdict.PASS)


def test_a_reason_names_expectation_count_rule_and_samples() -> None:
    finding = judged(CHECK, Outcome(False, 1200, 200, 12, samples=("x", "y")))
    assert finding.reason == (
        "expect_column_values_to_be_in_set on c: 12 of 1,000 values not as asked (1.200%); "
        "asked: one of a, b; for example x, y"
    )
    assert "for example" not in judged(CHECK, Outcome(True, 1200, 200, 12, samples=("x", "y"))).reason


def test_the_age_of_the_newest_row_is_told_in_days() -> None:
    check = drawn(model(), "ExpectColumnMaxToBeBetween", "ts")[0]
    finding = judged(check, Outcome(False, observed=12.5))
    assert (finding.value, finding.threshold, finding.verdict) == (12.5, 9.0, Verdict.FAIL)
    assert "the newest row is 12.5 days old" in finding.reason


@pytest.mark.parametrize(
    ("verdicts", "stopped"),
    [
        ((), True),
        ((Verdict.PASS,), False),
        ((Verdict.PASS, Verdict.WARN), False),
        ((Verdict.PASS, Verdict.NO_DATA), True),
        ((Verdict.WARN, Verdict.FAIL), True),
    ],
)
def test_a_failure_or_no_data_stops_and_a_warning_does_not(verdicts: tuple[Verdict, ...], stopped: bool) -> None:
    assert stops(report(*verdicts)) is stopped


def test_the_message_has_failures_first_each_with_reason_and_a_few_short_rows() -> None:
    found = report(Verdict.PASS, Verdict.NO_DATA, Verdict.WARN, Verdict.FAIL)
    assert [f.verdict for f in stopping_findings(found.findings)] == [Verdict.FAIL, Verdict.NO_DATA]
    lines = stopping_message(found, rows=2).splitlines()
    assert lines[0] == "the data cannot be trained on: 2 of 4 expectations failed"
    assert lines[1].startswith("- [fail] expect_column_values_to_be_in_set on fail: 1 of 10")
    assert lines[2] == f"    row id=k0, c={'z' * 40}…"
    assert len(lines) == 5
    assert lines[4].startswith("- [no data]")


def test_rows_are_found_by_finding_and_by_check_alike() -> None:
    assert (
        finding_key(CHECK)
        == finding_key(judged(CHECK, Outcome(True, 1, 0, 0)))
        == "expect_column_values_to_be_in_set on c"
    )


def test_the_horizon_of_labels_is_the_delay_before_as_of() -> None:
    assert label_horizon(model(delay="30d"), AS_OF) == AS_OF - timedelta(days=30)


@given(st.text(alphabet=st.characters(codec=None), max_size=300), st.integers(1, 250))
def test_a_shortened_value_can_always_be_written(text: str, limit: int) -> None:
    short = shorten(text, limit)
    assert "\x00" not in short
    short.encode("utf-8")
    if len(text) <= limit and text.isprintable():
        assert short == text


def test_a_short_value_stays_and_a_long_one_tells_its_length() -> None:
    assert shorten("abcde", 5) == "abcde"
    assert shorten("abcdef", 5) == "abcde… (6 characters)"
    assert shorten(None) == "None"
    assert len(shorten("x" * 10_000_000)) < 230
