"""Great Expectations: runs the checks of `lifecycle.quality` on a snapshot and renders its data docs (R2.1, R5.5)."""

from __future__ import annotations

import contextlib
import difflib
import enum
import html
import logging
import math
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lifecycle.errors import ConfigError
from lifecycle.quality import (
    Check,
    Outcome,
    QualityReport,
    Reading,
    draw_checks,
    finding_key,
    judge_check,
    shorten,
    snake_case,
    stops,
)

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult
    from great_expectations.expectations.expectation import Expectation

    from lifecycle.snapshot import Snapshot
    from lifecycle.spec import ModelSpec

TEMPLATES = Path(__file__).parent / "templates" / "data_docs"

SAMPLES = 5  # unexpected values and rows kept for people
LONGEST = 200  # characters of a value that are kept
_LONGEST_IN_REASON = 60

# Expectations that ask a database, not a frame.
_SQL_ONLY = {"ExpectQueryResultsToMatchComparison", "ExpectTableRowCountToEqualOtherTable"}
# Arguments that are ours to set, or that would change what a result looks like.
_OURS = {
    "batch_id",
    "catch_exceptions",
    "description",
    "id",
    "meta",
    "notes",
    "rendered_content",
    "result_format",
    "severity",
    "windows",
}


class _Part(enum.Enum):
    """What of the frame a check is run on."""

    WHOLE = enum.auto()
    COLUMNS = enum.auto()
    OBJECTS = enum.auto()
    NAMES = enum.auto()


def validate(snapshot: Snapshot, spec: ModelSpec) -> QualityReport:
    """Hold a snapshot against its model file.

    Parameters
    ----------
    snapshot
        The fetched rows.
    spec
        The model file; its ``quality`` section and the features' ranges, lists and missing shares are checked.

    Returns
    -------
    QualityReport
        One finding for each check; `lifecycle.quality.stops` says whether they stop the run.

    Raises
    ------
    ConfigError
        A free-form expectation has an unknown type or arguments it does not accept; all of them at once.
    """
    wrong = problems(spec)
    if wrong:
        raise ConfigError("\n".join(wrong))
    frame = snapshot.frame
    if not isinstance(frame.index, pd.RangeIndex) or frame.index.start != 0 or frame.index.step != 1:
        frame = frame.reset_index(drop=True)  # rows are looked up by position below
    checks = draw_checks(spec, list(frame.columns), snapshot.as_of, snapshot.window_start)
    with _quiet():
        results = _run(frame, checks)
        findings, failing_rows, raw = [], {}, []
        for check, result in zip(checks, results, strict=True):
            outcome = _outcome(check, result, snapshot.as_of)
            finding = judge_check(check, outcome, window=snapshot.window, rows=len(frame))
            findings.append(finding)
            rows = (result.result or {}).get("partial_unexpected_index_list") or []
            if rows:
                failing_rows[finding_key(check)] = _rows(frame, rows)
            _shorten_result(result)
            raw.append(_raw(check, outcome, result))
        report = QualityReport(findings, _summary(snapshot, spec, raw), "", failing_rows)
        data_docs = _render(report, results, snapshot, spec)
    return QualityReport(findings, report.results, data_docs, failing_rows)


def problems(spec: ModelSpec) -> list[str]:
    """What is wrong with the free-form expectations of a model file, each with what is accepted; empty when right."""
    found: list[str] = []
    if not spec.quality.expectations:
        return found  # Great Expectations takes seconds to import
    with _quiet():
        accepted = _classes()
        for position, expectation in enumerate(spec.quality.expectations):
            where = f"{spec.name}: quality.expectations[{position}]"
            if expectation.type not in accepted:
                near = difflib.get_close_matches(expectation.type, accepted, n=3, cutoff=0.5)
                hint = f"the nearest are {', '.join(near)}" if near else "a class of great_expectations.expectations"
                reason = "asks a database, not rows" if expectation.type in _SQL_ONLY else "is not known"
                found.append(f"{where}.type {expectation.type!r} {reason}; accepted: {hint}")
                continue
            found += _wrong_arguments(
                accepted[expectation.type], expectation.arguments, f"{where} ({expectation.type})"
            )
    return found


def _wrong_arguments(kind: type[Expectation], arguments: dict[str, Any], where: str) -> list[str]:
    from great_expectations.compatibility.pydantic import ValidationError

    fields = [name for name in kind.__fields__ if name not in _OURS]
    unknown = [name for name in arguments if name not in fields]
    if unknown:
        near = {name: difflib.get_close_matches(name, fields, n=1) for name in unknown}
        return [
            f"{where}: unknown argument {name!r}{f' (nearest: {near[name][0]})' if near[name] else ''}; "
            f"accepted: {', '.join(fields)}"
            for name in unknown
        ]
    try:
        kind(**arguments)
    except ValidationError as error:
        # A field that may be of several types reports each of them; people need one line a field.
        by_field: dict[str, list[str]] = defaultdict(list)
        for one in error.errors():
            by_field[str(one["loc"][0])].append(one["msg"])
        return [
            f"{where}: {f'{name} is {shorten(arguments.get(name), 60)}: ' if name != '__root__' else ''}"
            f"{' or '.join(messages)}; accepted: {', '.join(fields)}"
            for name, messages in by_field.items()
        ]
    except (TypeError, ValueError) as error:
        return [f"{where}: {error}; accepted: {', '.join(fields)}"]
    return []


def _classes() -> dict[str, type[Expectation]]:
    import great_expectations.expectations as gxe

    return {
        name: kind
        for name, kind in vars(gxe).items()
        if name.startswith("Expect") and isinstance(kind, type) and name not in _SQL_ONLY and name != "Expectation"
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Great Expectations from talking: importing it under a verbose root logger prints hundreds of lines."""
    logging.getLogger("great_expectations").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _run(frame: pd.DataFrame, checks: Sequence[Check]) -> list[ExpectationValidationResult]:
    """Run all checks; the results stand in the order of the checks."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    # The default ephemeral context makes a temporary folder for a site of data docs.
    context = gx.get_context(
        mode="ephemeral",
        project_config=DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            progress_bars=ProgressBarsConfig(globally=False),
            analytics_enabled=False,
        ),
    )
    asset = context.data_sources.add_pandas("snapshot").add_dataframe_asset("rows")
    definition = asset.add_batch_definition_whole_dataframe("whole")
    classes = _classes()
    # Great Expectations copies the rows it is given for every expectation (it filters nulls out first): one column
    # at a time makes that ten times cheaper than the whole frame.
    groups: dict[tuple[_Part, tuple[str, ...]], list[int]] = defaultdict(list)
    for position, check in enumerate(checks):
        groups[_part_needed(check, frame)].append(position)
    results: dict[int, ExpectationValidationResult] = {}
    with _no_fingerprints():
        for (kind, columns), positions in groups.items():
            part = _part(frame, kind, columns)
            batch = definition.get_batch(batch_parameters={"dataframe": part})
            suite = gx.ExpectationSuite(
                name="quality",
                expectations=[
                    classes[check.type](
                        **check.arguments,
                        severity="critical" if check.severity == "error" else "warning",
                        meta={"position": position},
                    )
                    for position, check in ((position, checks[position]) for position in positions)
                ],
            )
            found = batch.validate(
                suite, result_format={"result_format": "SUMMARY", "partial_unexpected_count": SAMPLES}
            )
            for result in found.results:
                results[result.expectation_config.meta.pop("position")] = result
    return [results[position] for position in range(len(checks))]


@contextlib.contextmanager
def _no_fingerprints() -> Iterator[None]:
    """Keep Great Expectations from hashing every batch, twice: a third of the time, for a name we have already."""
    from great_expectations.execution_engine import pandas_execution_engine

    above = pandas_execution_engine.HASH_THRESHOLD
    pandas_execution_engine.HASH_THRESHOLD = -1.0
    try:
        yield
    finally:
        pandas_execution_engine.HASH_THRESHOLD = above


def _part_needed(check: Check, frame: pd.DataFrame) -> tuple[_Part, tuple[str, ...]]:
    """The smallest part of the frame that gives a check its right answer."""
    named = tuple(name for name in dict.fromkeys(check.columns) if name in frame.columns)
    if check.reading is Reading.EXISTS:
        return _Part.NAMES, ()
    if check.arguments.get("type_list") == ["Timestamp"] and isinstance(frame[check.subject].dtype, pd.DatetimeTZDtype):
        return _Part.OBJECTS, named  # pandas' zoned time is no type it knows; a single value is
    if check.type == "ExpectTableRowCountToBeBetween" and frame.shape[1]:
        return _Part.COLUMNS, (str(frame.columns[0]),)
    if not named or {"row_condition", "condition_parser"} & check.arguments.keys():
        return _Part.WHOLE, ()  # a condition on rows may name any column
    return _Part.COLUMNS, named


def _part(frame: pd.DataFrame, kind: _Part, columns: tuple[str, ...]) -> pd.DataFrame:
    if kind is _Part.NAMES:
        return frame.head(0)
    if kind is _Part.WHOLE:
        return frame
    part = frame[list(columns)]
    return part.astype(object) if kind is _Part.OBJECTS else part


def _outcome(check: Check, result: ExpectationValidationResult, as_of: datetime) -> Outcome:
    """Read Great Expectations' result."""
    error = _error(result)
    if error is not None:
        return Outcome(None, error=error)
    values = result.result or {}
    observed = values.get("observed_value")
    if check.reading is Reading.AGE and observed is not None:
        observed = (as_of - pd.Timestamp(observed)) / pd.Timedelta(days=1)
    elif hasattr(observed, "item"):
        observed = observed.item()
    samples = dict.fromkeys(shorten(value, _LONGEST_IN_REASON) for value in values.get("partial_unexpected_list") or [])
    return Outcome(
        success=bool(result.success),
        rows=values.get("element_count"),
        missing=values.get("missing_count"),
        unexpected=values.get("unexpected_count"),
        observed=observed,
        samples=tuple(samples),
    )


def _error(result: ExpectationValidationResult) -> str | None:
    """Why an expectation could not be computed: its exceptions' messages, each once."""
    information = result.exception_info or {}
    parts = [information] if "raised_exception" in information else list(information.values())
    messages = dict.fromkeys(
        shorten(part.get("exception_message") or "no message", LONGEST)
        for part in parts
        if part.get("raised_exception")
    )
    return "; ".join(messages) or None


def _rows(frame: pd.DataFrame, positions: Sequence[int]) -> list[dict[str, Any]]:
    """Whole rows, as plain short values."""
    rows = frame.iloc[list(positions)[:SAMPLES]]
    return [
        {str(name): _plain(value) for name, value in zip(rows.columns, row, strict=True)}
        for row in rows.to_numpy(dtype=object)
    ]


def _plain(value: Any) -> Any:
    """A JSON-ready value: long text is cut, times become text, infinities and unknown types too, NaN becomes None."""
    if isinstance(value, dict):
        return {shorten(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(one) for one in value]
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if value is None or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and math.isinf(value):
        return str(value)
    if isinstance(value, (bool, int, float)):
        return value
    return shorten(value, LONGEST)


def _shorten_result(result: ExpectationValidationResult) -> None:
    """Cut long values in place before they are rendered, and drop tracebacks: they tell paths of this machine."""
    result.result = _plain(result.result or {})
    result.exception_info = {"raised_exception": False, "exception_traceback": None, "exception_message": None} | (
        {"raised_exception": True, "exception_message": message, "exception_traceback": ""}
        if (message := _error(result))
        else {}
    )


def _raw(check: Check, outcome: Outcome, result: ExpectationValidationResult) -> dict[str, Any]:
    return {
        "expectation": snake_case(check.type),
        "arguments": _plain(check.arguments),
        "severity": check.severity.value,
        "success": outcome.success,
        "result": result.result,
        "error": outcome.error,
    }


def _summary(snapshot: Snapshot, spec: ModelSpec, raw: list[dict[str, Any]]) -> dict[str, Any]:
    import great_expectations

    return {
        "model": spec.name,
        "snapshot": snapshot.name,
        "as_of": snapshot.as_of.isoformat(),
        "window_start": snapshot.window_start.isoformat(),
        "rows": len(snapshot.frame),
        "great_expectations": great_expectations.__version__,
        "expectations": len(raw),
        "met": sum(1 for one in raw if one["success"]),
        "results": raw,
    }


def _render(
    report: QualityReport, results: Sequence[ExpectationValidationResult], snapshot: Snapshot, spec: ModelSpec
) -> str:
    """Great Expectations' own validation page, with our findings above it and nothing fetched from elsewhere."""
    from great_expectations.core import ExpectationSuiteValidationResult, RunIdentifier
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from jinja2 import ChoiceLoader, FileSystemLoader

    met = sum(1 for result in results if result.success)
    whole: ExpectationSuiteValidationResult = ExpectationSuiteValidationResult(
        success=met == len(results),
        results=list(results),
        suite_name=spec.name,
        statistics={
            "evaluated_expectations": len(results),
            "successful_expectations": met,
            "unsuccessful_expectations": len(results) - met,
            "success_percent": 100 * met / len(results),
        },
        meta={"run_id": RunIdentifier(run_name=snapshot.name, run_time=snapshot.as_of)},
    )
    document = ValidationResultsPageRenderer(run_info_at_end=True).render(whole)
    view = _view()
    view.env.loader = ChoiceLoader([FileSystemLoader(TEMPLATES), view.env.loader])
    page = view.render(
        document,
        template="findings_page.j2",
        report=report,
        snapshot=snapshot,
        spec=spec,
        stopped=stops(report),
        escape=lambda value: html.escape(shorten(value, LONGEST * 2)),
    )
    # Its own site around the page does not exist here.
    return shorten(re.sub(r' href="(?:\.\./)+[^"]*"', "", page), len(page))


def _view() -> Any:
    """Great Expectations' page view, made safe against data that looks like HTML.

    Its templates are not escaped: it escapes what goes through its string templates and trusts the rest, cells of
    tables with unexpected values for example.
    """
    from great_expectations.render.view import DefaultJinjaPageView
    from jinja2 import pass_context

    class EscapingPageView(DefaultJinjaPageView):
        def _validate_document(self, document: Any) -> None:
            pass

        @pass_context
        def render_content_block(  # type: ignore[override]
            self,
            jinja_context: Any,
            content_block: Any,
            index: Any = None,
            content_block_id: Any = None,
            render_to_markdown: bool = False,
        ) -> Any:
            if isinstance(content_block, str):
                return html.escape(content_block)
            if isinstance(content_block, list):
                return "".join(
                    str(self.render_content_block(jinja_context, one, place, f"{content_block_id}-{place}"))
                    for place, one in enumerate(content_block)
                )
            return super().render_content_block(
                jinja_context, content_block, index, content_block_id, render_to_markdown
            )

    return EscapingPageView()
