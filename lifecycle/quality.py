"""What a fetch must look like, drawn from the model file, and what follows from what was found (R3.4, R5.5)."""

from __future__ import annotations

import difflib
import enum
import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lifecycle.findings import Direction, Finding, Severity, Verdict, worst
from lifecycle.spec import Feature, ModelSpec, NumericFeature

NUMBER_TYPES = ("float64", "float32", "int64", "int32", "int16", "int8")

_DAY = timedelta(days=1)


class Reading(enum.Enum):
    """How the outcome of a check becomes a value beside a threshold."""

    UNEXPECTED_SHARE = "share of values that are not as asked"
    NUMBER = "the observed number"
    AGE = "days between as-of and the observed time"
    EXISTS = "1 when present, else 0"


@dataclass(frozen=True, slots=True)
class Check:
    """One expectation, as plain values.

    Parameters
    ----------
    type
        Great Expectations class, for example ``ExpectColumnValuesToBeBetween``.
    arguments
        Its arguments.
    subject
        Column, columns or ``all rows``.
    severity
        ERROR turns a miss into FAIL, WARNING into WARN.
    asked
        The rule in words, for the reason: "asked: ...".
    reading
        What the value of the finding is.
    threshold, direction
        What the value is shown beside; the expectation itself decides.
    accepts_empty
        The model file accepts a column without any value: nothing to look at is then a warning, not NO_DATA.
    near
        Names like the missing column's, when it is missing.
    """

    type: str
    arguments: dict[str, Any]
    subject: str
    severity: Severity
    asked: str
    reading: Reading = Reading.UNEXPECTED_SHARE
    threshold: float | None = 0.0
    direction: Direction = Direction.AT_MOST
    accepts_empty: bool = False
    near: tuple[str, ...] = ()

    @property
    def measure(self) -> str:
        """The expectation's name in snake case."""
        return snake_case(self.type)

    @property
    def columns(self) -> list[str]:
        """Columns the arguments name."""
        return named_columns(self.arguments)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What running a check gave.

    Parameters
    ----------
    success
        Whether the expectation was met; None when it could not be computed.
    rows, missing, unexpected
        Rows looked at, nulls among them, values not as asked; None for checks on a whole column or table.
    observed
        The value of a check on a whole column or table.
    samples
        A few of the unexpected values, as short texts.
    error
        Why it could not be computed.
    """

    success: bool | None
    rows: int | None = None
    missing: int | None = None
    unexpected: int | None = None
    observed: Any = None
    samples: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class QualityReport:
    """What quality found in one snapshot.

    Parameters
    ----------
    findings
        One for each check.
    results
        The checks' raw results, JSON-ready.
    data_docs
        One self-contained HTML page.
    failing_rows
        ``expectation on subject``: up to five rows that were not as asked, long values shortened.
    """

    findings: list[Finding]
    results: dict[str, Any]
    data_docs: str
    failing_rows: dict[str, list[dict[str, Any]]]

    @property
    def verdict(self) -> Verdict:
        """The worst of the findings."""
        return worst(self.findings)


def snake_case(name: str) -> str:
    """The name an expectation has in results: ``ExpectColumnToExist`` is ``expect_column_to_exist``.

    Examples
    --------
    >>> snake_case("ExpectColumnPairValuesAToBeGreaterThanB")
    'expect_column_pair_values_a_to_be_greater_than_b'
    """
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower().replace("k_l_", "kl_")


def named_columns(arguments: dict[str, Any]) -> list[str]:
    """Columns that an expectation's arguments name."""
    one = [arguments[key] for key in ("column", "column_A", "column_B") if isinstance(arguments.get(key), str)]
    many = arguments.get("column_list")
    return one + ([name for name in many if isinstance(name, str)] if isinstance(many, (list, tuple)) else [])


def label_horizon(spec: ModelSpec, as_of: datetime) -> datetime:
    """The youngest row that can have a known label at `as_of`."""
    return spec.label.delay.before(as_of)


def draw_checks(spec: ModelSpec, columns: Sequence[str], as_of: datetime, window_start: datetime) -> list[Check]:
    """Draw the checks of a snapshot from its model file.

    A column that is missing is reported once, by the check that it exists; what else would be asked of it is not
    drawn.

    Parameters
    ----------
    spec
        The model file.
    columns
        Columns the snapshot has.
    as_of, window_start
        The snapshot's window; the newest row may be as old as the label delay and ``quality.freshness`` together.

    Returns
    -------
    list of Check
        In the order people read: table, times, key, label, features, sensitive columns, free-form.
    """
    present = set(columns)
    checks = [_enough_rows(spec)]
    checks += [_exists(name, columns, expected_columns(spec)) for name in expected_columns(spec)]
    if spec.source.timestamp in present:
        checks += _timestamp_checks(spec, as_of, window_start)
    if spec.source.entity_key in present:
        checks += _key_checks(spec)
    if spec.label.column in present:
        checks += _label_checks(spec)
    for feature in spec.features:
        if feature.name in present:
            checks += _feature_checks(feature, spec)
    features = set(spec.feature_names)
    for name in dict.fromkeys(attribute.column for attribute in spec.sensitive):
        if name in present and name not in features:
            checks += _text_checks(name, spec, accepts_empty=False)
    for expectation in spec.quality.expectations:
        named = named_columns(expectation.arguments)
        if present.issuperset(named):
            checks.append(
                Check(
                    expectation.type,
                    dict(expectation.arguments),
                    subject=", ".join(named) or "all rows",
                    severity=expectation.severity,
                    asked=_in_words(expectation.arguments),
                    threshold=_free_threshold(expectation.arguments),
                    direction=_free_direction(expectation.arguments),
                )
            )
    return checks


def expected_columns(spec: ModelSpec) -> list[str]:
    """Columns a snapshot has to have: key, timestamp, label, features, sensitive and free-form ones, each once."""
    return list(
        dict.fromkeys(
            [
                spec.source.entity_key,
                spec.source.timestamp,
                spec.label.column,
                *spec.feature_names,
                *(attribute.column for attribute in spec.sensitive),
                *(name for expectation in spec.quality.expectations for name in named_columns(expectation.arguments)),
            ]
        )
    )


def judge_check(check: Check, outcome: Outcome, *, window: str, rows: int) -> Finding:
    """What follows from one check on a snapshot of `rows` rows.

    What could not be computed, or had nothing to look at, never passes: it is FAIL or NO_DATA (a warning where the
    model file accepts an empty column).
    """
    missed = Verdict.FAIL if check.severity is Severity.ERROR else Verdict.WARN
    where = f"{check.measure} on {check.subject}"
    looked_at = None if outcome.rows is None else outcome.rows - (outcome.missing or 0)
    value, threshold, direction = _reading(check, outcome)
    if outcome.error is not None or outcome.success is None:
        verdict = Verdict.FAIL if check.severity is Severity.ERROR else Verdict.NO_DATA
        reason = f"{where} could not be computed: {outcome.error or 'no result'}; asked: {check.asked}"
    elif check.measure == "expect_column_values_to_not_be_null" and outcome.rows and outcome.unexpected == outcome.rows:
        # An empty column: nothing was delivered, which is not the same as too much missing.
        verdict = Verdict.PASS if outcome.success else max(missed, Verdict.NO_DATA)
        reason = f"{where}: all {outcome.rows:,} values are missing; asked: {check.asked}"
    elif looked_at == 0 or (looked_at is None and _nothing_observed(check, outcome)):
        verdict = Verdict.WARN if check.accepts_empty else Verdict.NO_DATA
        reason = f"{where}: no finite value to look at; asked: {check.asked}"
    else:
        verdict = Verdict.PASS if outcome.success else missed
        reason = f"{where}: {_told(check, outcome, looked_at)}; asked: {check.asked}"
        if verdict is not Verdict.PASS and outcome.samples:
            reason += f"; for example {', '.join(outcome.samples)}"
    return Finding(
        measure=check.measure,
        subject=check.subject,
        value=value,
        threshold=threshold,
        direction=direction,
        window=window,
        verdict=verdict,
        reason=reason,
        count=rows if outcome.rows is None else outcome.rows,
    )


def stops(report: QualityReport) -> bool:
    """Whether nothing may be trained on this snapshot: a check failed, or one could not be made."""
    return report.verdict >= Verdict.NO_DATA


def stopping_message(report: QualityReport, *, rows: int = 3) -> str:
    """What the user reads when quality stops a run: each reason, then a sample of the rows.

    Parameters
    ----------
    rows
        Sample rows shown for each failing expectation.
    """
    bad = stopping_findings(report.findings)
    lines = [f"the data cannot be trained on: {len(bad)} of {len(report.findings)} expectations failed"]
    for finding in bad:
        lines.append(f"- [{finding.verdict.label}] {finding.reason}")
        lines += [
            "    row " + ", ".join(f"{name}={_cell(value)}" for name, value in row.items())
            for row in report.failing_rows.get(finding_key(finding), [])[:rows]
        ]
    return "\n".join(lines)


def stopping_findings(findings: Iterable[Finding]) -> list[Finding]:
    """The findings that stop a run, failures first."""
    return sorted((f for f in findings if f.verdict >= Verdict.NO_DATA), key=lambda finding: -finding.verdict)


def finding_key(finding: Finding | Check) -> str:
    """Key of a finding's or check's sample rows in `QualityReport.failing_rows`."""
    return f"{finding.measure} on {finding.subject}"


def shorten(value: object, limit: int = 200) -> str:
    """A value as text that is safe to print and store: at most `limit` characters, always valid UTF-8.

    Examples
    --------
    >>> shorten("a" * 300, 5)
    'aaaaa… (300 characters)'
    """
    text = value if isinstance(value, str) else str(value)
    cut = text if len(text) <= limit else f"{text[:limit]}… ({len(text):,} characters)"
    return cut.encode("utf-8", "backslashreplace").decode("utf-8").replace("\x00", "\\x00")


def _cell(value: object) -> str:
    """A value short enough to stand among others in a line; it may already have been shortened."""
    text = shorten(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _enough_rows(spec: ModelSpec) -> Check:
    return Check(
        "ExpectTableRowCountToBeBetween",
        {"min_value": spec.quality.min_rows},
        subject="all rows",
        severity=Severity.ERROR,
        asked=f"at least {spec.quality.min_rows:,} rows (quality.min_rows)",
        reading=Reading.NUMBER,
        threshold=float(spec.quality.min_rows),
        direction=Direction.AT_LEAST,
    )


def _exists(name: str, columns: Sequence[str], expected: Collection[str]) -> Check:
    spare = [column for column in columns if column not in expected]
    near = difflib.get_close_matches(name, spare, n=3) if name not in columns else []
    return Check(
        "ExpectColumnToExist",
        {"column": name},
        subject=name,
        severity=Severity.ERROR,
        asked="the column is there",
        reading=Reading.EXISTS,
        threshold=1.0,
        direction=Direction.AT_LEAST,
        near=tuple(near),
    )


def _complete(name: str) -> Check:
    return Check(
        "ExpectColumnValuesToNotBeNull",
        {"column": name},
        subject=name,
        severity=Severity.ERROR,
        asked="no value missing",
    )


def _typed(name: str, types: Sequence[str], words: str, *, accepts_empty: bool = False) -> Check:
    return Check(
        "ExpectColumnValuesToBeInTypeList",
        {"column": name, "type_list": list(types)},
        subject=name,
        severity=Severity.ERROR,
        asked=f"type {words}",
        accepts_empty=accepts_empty,
    )


def _timestamp_checks(spec: ModelSpec, as_of: datetime, window_start: datetime) -> list[Check]:
    name = spec.source.timestamp
    oldest_newest = spec.quality.freshness.before(label_horizon(spec, as_of))
    delay = f" beyond the label delay of {spec.label.delay}" if label_horizon(spec, as_of) != as_of else ""
    return [
        _typed(name, ["Timestamp"], "time in UTC"),
        _complete(name),
        Check(
            "ExpectColumnValuesToBeBetween",
            {"column": name, "min_value": window_start, "max_value": as_of},
            subject=name,
            severity=Severity.ERROR,
            asked=f"from {window_start:%Y-%m-%d %H:%M} to as-of {as_of:%Y-%m-%d %H:%M}, none later",
        ),
        Check(
            "ExpectColumnMaxToBeBetween",
            {"column": name, "min_value": oldest_newest},
            subject=name,
            severity=Severity.ERROR,
            asked=f"the newest row at most {spec.quality.freshness} old at as-of{delay} (quality.freshness)",
            reading=Reading.AGE,
            threshold=(as_of - oldest_newest) / _DAY,
        ),
    ]


def _key_checks(spec: ModelSpec) -> list[Check]:
    name = spec.source.entity_key
    return [
        _complete(name),
        Check(
            "ExpectColumnValuesToBeUnique",
            {"column": name},
            subject=name,
            severity=Severity.ERROR,
            asked="each entity key once",
        ),
        _short(name, spec),
    ]


def _label_checks(spec: ModelSpec) -> list[Check]:
    name = spec.label.column
    return [
        _complete(name),
        Check(
            "ExpectColumnValuesToBeInSet",
            {"column": name, "value_set": [0, 1]},
            subject=name,
            severity=Severity.ERROR,
            asked="0 or 1",
        ),
        Check(
            "ExpectColumnUniqueValueCountToBeBetween",
            {"column": name, "min_value": 2},
            subject=name,
            severity=Severity.ERROR,
            asked="rows of both classes",
            reading=Reading.NUMBER,
            threshold=2.0,
            direction=Direction.AT_LEAST,
        ),
    ]


def _feature_checks(feature: Feature, spec: ModelSpec) -> list[Check]:
    name, quality = feature.name, spec.quality
    accepts_empty = feature.max_missing >= 1
    checks = [
        Check(
            "ExpectColumnValuesToNotBeNull",
            {"column": name, "mostly": 1 - feature.max_missing},
            subject=name,
            severity=quality.max_missing_severity,
            asked=f"at most {feature.max_missing:.4g} missing (max_missing)",
            threshold=feature.max_missing,
        )
    ]
    if isinstance(feature, NumericFeature):
        checks += [
            _typed(name, NUMBER_TYPES, "number", accepts_empty=accepts_empty),
            Check(
                "ExpectColumnValuesToNotBeInSet",
                {"column": name, "value_set": [math.inf, -math.inf]},
                subject=name,
                severity=Severity.ERROR,
                asked="finite numbers",
                accepts_empty=accepts_empty,
            ),
        ]
        if feature.min is not None or feature.max is not None:
            bounds = {"min_value": feature.min, "max_value": feature.max}
            checks.append(
                Check(
                    "ExpectColumnValuesToBeBetween",
                    {
                        "column": name,
                        **{k: v for k, v in bounds.items() if v is not None},
                        "mostly": quality.range_mostly,
                    },
                    subject=name,
                    severity=quality.range_severity,
                    asked=f"{_range_words(feature)} for at least {quality.range_mostly:.4g} of the values",
                    threshold=round(1 - quality.range_mostly, 12),
                    accepts_empty=accepts_empty,
                )
            )
    else:
        checks += _text_checks(name, spec, accepts_empty=accepts_empty)
        if feature.values is not None:
            checks.append(
                Check(
                    "ExpectColumnValuesToBeInSet",
                    {"column": name, "value_set": list(feature.values), "mostly": quality.range_mostly},
                    subject=name,
                    severity=quality.range_severity,
                    asked=f"one of {', '.join(feature.values)} for at least {quality.range_mostly:.4g} of the values",
                    threshold=round(1 - quality.range_mostly, 12),
                    accepts_empty=accepts_empty,
                )
            )
    checks.append(
        Check(
            "ExpectColumnUniqueValueCountToBeBetween",
            {"column": name, "min_value": 2},
            subject=name,
            severity=Severity.WARNING,
            asked="a feature that varies: at least 2 distinct values",
            reading=Reading.NUMBER,
            threshold=2.0,
            direction=Direction.AT_LEAST,
            accepts_empty=accepts_empty,
        )
    )
    return checks


def _text_checks(name: str, spec: ModelSpec, *, accepts_empty: bool) -> list[Check]:
    return [_typed(name, ["str"], "text", accepts_empty=accepts_empty), _short(name, spec, accepts_empty=accepts_empty)]


def _short(name: str, spec: ModelSpec, *, accepts_empty: bool = False) -> Check:
    longest = spec.quality.max_text_length
    return Check(
        "ExpectColumnValueLengthsToBeBetween",
        {"column": name, "max_value": longest},
        subject=name,
        severity=Severity.ERROR,
        asked=f"at most {longest:,} characters (quality.max_text_length)",
        accepts_empty=accepts_empty,
    )


def _range_words(feature: NumericFeature) -> str:
    unit = f" {feature.unit}" if feature.unit else ""
    if feature.min is not None and feature.max is not None:
        return f"{feature.min:g} to {feature.max:g}{unit}"
    return f"{feature.min:g}{unit} or more" if feature.min is not None else f"{feature.max:g}{unit} or less"


def _in_words(arguments: dict[str, Any]) -> str:
    said = ", ".join(f"{key} {shorten(value, 80)}" for key, value in arguments.items())
    return said or "as the expectation says"


def _free_threshold(arguments: dict[str, Any]) -> float | None:
    """Allowed share of a free-form expectation; bounds of an observed number are shown by `_reading`."""
    mostly = arguments.get("mostly", 1.0)
    return round(1 - mostly, 12) if isinstance(mostly, (int, float)) else None


def _free_direction(arguments: dict[str, Any]) -> Direction:
    bounded_below = arguments.get("min_value") is not None and arguments.get("max_value") is None
    return Direction.AT_LEAST if bounded_below and "mostly" not in arguments else Direction.AT_MOST


def _nothing_observed(check: Check, outcome: Outcome) -> bool:
    """Whether a check on a whole column had no value to look at."""
    if check.reading is Reading.EXISTS or check.subject == "all rows":
        return False
    observed = outcome.observed
    if check.measure == "expect_column_unique_value_count_to_be_between":
        return bool(observed == 0)
    return observed is None or observed == [] or (isinstance(observed, float) and not math.isfinite(observed))


def _reading(check: Check, outcome: Outcome) -> tuple[float | None, float | None, Direction]:
    """Value, threshold and direction that the finding shows."""
    observed = outcome.observed
    number = float(observed) if isinstance(observed, (int, float)) and not isinstance(observed, bool) else None
    if number is not None and not math.isfinite(number):
        number = None
    if outcome.error is not None:
        return None, check.threshold, check.direction
    if check.reading is Reading.EXISTS:
        return float(bool(outcome.success)), check.threshold, check.direction
    if check.reading in (Reading.AGE, Reading.NUMBER):
        return number, check.threshold, check.direction
    if outcome.unexpected is not None and outcome.rows is not None:
        looked_at = outcome.rows - (outcome.missing or 0)
        return (outcome.unexpected / looked_at if looked_at else None), check.threshold, check.direction
    if check.measure == "expect_column_values_to_be_in_type_list":  # judged by the column's type as a whole
        return (None if outcome.success is None else float(not outcome.success)), check.threshold, check.direction
    low, high = check.arguments.get("min_value"), check.arguments.get("max_value")
    bound, direction = (high, Direction.AT_MOST) if high is not None else (low, Direction.AT_LEAST)
    if high is not None and low is not None and number is not None and isinstance(low, (int, float)) and number < low:
        bound, direction = low, Direction.AT_LEAST
    return number, (float(bound) if isinstance(bound, (int, float)) else None), direction


def _told(check: Check, outcome: Outcome, looked_at: int | None) -> str:
    """What was seen, in words."""
    if check.reading is Reading.EXISTS:
        near = f"; the nearest names are {', '.join(check.near)}" if check.near else ""
        return "present" if outcome.success else f"the column is missing{near}"
    if outcome.unexpected is not None and looked_at is not None:
        return f"{outcome.unexpected:,} of {looked_at:,} values not as asked ({outcome.unexpected / looked_at:.3%})"
    if check.reading is Reading.AGE:
        return f"the newest row is {outcome.observed:.4g} days old"
    return f"observed {shorten(outcome.observed, 80)}"
