"""Look at each model's traffic, one after the other; what befalls one leaves the others alone (R2.4, R5.1 to R5.7)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from zenml import step

from adapters.model_files import check_models, load_environment, load_model
from adapters.ops_store import OpsStore
from adapters.prediction_archive import PredictionArchive
from adapters.registry import Registry
from adapters.services import Services, models_folder
from adapters.worker_pool import spread
from lifecycle.aliases import Alias
from lifecycle.errors import ProDecksError
from lifecycle.estimation import EstimateCheck
from lifecycle.findings import Finding, Verdict, worst
from lifecycle.monitoring import look, look_at_gateway, settled
from lifecycle.observed import Window
from lifecycle.records import RunRecord, RunState
from lifecycle.spec import GATEWAY, Duration, ModelSpec, Monitoring
from steps.model_traffic import Place, digest, gather, gather_gateway, quiet
from steps.progress import tell

PIPELINE = "monitor"
LEASE = timedelta(minutes=30)
REMEMBERED_RUNS = 500
MODELS_A_PROCESS = 4
"""Models from which another process, which takes seconds to begin, is worth it."""
MOST_PROCESSES = 4
GATEWAY_WINDOW = Duration("7d")


@step(enable_cache=False)
def watch_models(
    models: list[str], window: str, as_of: str, place: dict[str, str], asked: dict[str, str]
) -> Annotated[list[dict[str, Any]], "monitored"]:
    """Monitor models and put what is found on record, each as a run of its own.

    Parameters
    ----------
    models
        Which; with `spec.GATEWAY` among them, the gateway that they share is looked at as well, after them.
    window
        Its length; empty for each model file's.
    as_of
        ISO 8601 end of the window.
    place
        ``serving`` folder, ``environment``, and the ``gateway``'s address, empty for none.
    asked
        ``stack``, ``reason``, ``requested_by``; kept on record.

    Returns
    -------
    list of dict
        One for each model: its ``state`` is ``monitored``, ``unchanged`` (nothing new since an earlier look at the same
        window), ``skipped`` (nothing is served) or ``failed``.
    """
    names = [name for name in models if name != GATEWAY]
    work = partial(watch_here, window=window, as_of=as_of, place=place, asked=asked, skips=len(models) > 1)
    workers = min(os.cpu_count() or 1, MOST_PROCESSES, len(names) // MODELS_A_PROCESS)
    found: dict[str, dict[str, Any]] = {}
    pairs = spread(work, names, workers) if workers > 1 else ((name, work(name)) for name in names)
    tell("monitor", "begin", 0, len(models))
    for name, result in pairs:
        if isinstance(result, BrokenProcessPool):
            result = {"model": name, "state": "failed", "detail": f"its process was killed: {result}", "exit_code": 1}
        found[name] = result
        tell("monitor", name, len(found), len(models))
    if GATEWAY in models:
        rows = sum(one.get("rows", 0) for one in found.values())
        found[GATEWAY] = watch_here(
            GATEWAY, window=window, as_of=as_of, place=place, asked=asked, skips=False, rows=rows
        )
        tell("monitor", GATEWAY, len(models), len(models))
    return [found[name] for name in models]


def watch_here(
    name: str, *, window: str, as_of: str, place: dict[str, str], asked: dict[str, str], skips: bool, rows: int = 0
) -> dict[str, Any]:
    """Look at one model, or the gateway, in a process that has nothing open yet; parameters as in `watch_models`."""
    services = Services.from_environment()
    where = Place(Path(place["serving"]), place["environment"], place["gateway"] or None, datetime.now(UTC))
    try:
        ops = OpsStore.open(services.ops)
    except ProDecksError as error:
        return {"model": name, "state": "failed", "detail": str(error), "exit_code": error.exit_code}
    end = datetime.fromisoformat(as_of)
    if name == GATEWAY:
        return _watched(name, end, where, ops, asked, lambda _: _gateway(window, end, where, rows))
    return _watched(
        name, end, where, ops, asked,
        lambda past: _model(name, window, end, where, ops, Registry(services.registry), past, skips),
    )  # fmt: skip


@dataclass(frozen=True)
class _Look:
    """What was gathered, and how it is judged: only when it is not on record already."""

    digest: str
    window: Window
    rows: int
    judge: Callable[[], tuple[dict[str, list[Finding]], dict[str, Any]]]
    """The findings by area, and facts of the run."""
    version: str | None = None


class _Skipped(Exception):
    """There is nothing to look at, and why."""


def _watched(
    name: str, as_of: datetime, place: Place, ops: OpsStore, asked: dict[str, str],
    gather: Callable[[list[RunRecord]], _Look],
) -> dict[str, Any]:  # fmt: skip
    """Look once and put it on record; a failure is a result too.

    Parameters
    ----------
    gather
        Reads, given the earlier looks, newest first.
    """
    run: RunRecord | None = None

    def start() -> RunRecord:
        return ops.start_run(
            pipeline=PIPELINE, model=name, stack=asked["stack"], trigger_kind="manual", reason=asked["reason"],
            requested_by=asked["requested_by"], as_of=as_of, now=datetime.now(UTC), lease=LEASE,
        )  # fmt: skip

    try:
        past = [
            one
            for one in ops.runs(name, limit=REMEMBERED_RUNS)
            if one.pipeline == PIPELINE
            and one.state is RunState.SUCCEEDED
            and one.facts.get("environment") == place.environment
        ]
        with quiet():
            seen = gather(past)
            same = next((one for one in past if one.facts["digest"] == seen.digest), None)
            if same is not None:
                return _result(same, "unchanged", [(one.phase, one.finding) for one in ops.findings(same.run_id)])
            run = start()
            areas, facts = seen.judge()
        return _put_on_record(seen, areas, {"environment": place.environment, **facts}, run, past, ops)
    except _Skipped as why:
        return {"model": name, "state": "skipped", "detail": str(why)}
    except BaseException as error:
        _tell_of_failure(error, run, start, ops)
        if not isinstance(error, Exception):
            raise
        kind = error.exit_code if isinstance(error, ProDecksError) else 1
        return {"model": name, "state": "failed", "detail": _words(error), "exit_code": kind}


def _model(
    name: str, window: str, as_of: datetime, place: Place, ops: OpsStore, registry: Registry, past: list[RunRecord],
    skips: bool,
) -> _Look:  # fmt: skip
    spec = load_model(name, load_environment(place.environment), models_folder())
    if skips and not _is_served(spec, ops, place):
        raise _Skipped(f"no version is live in {place.environment}")
    length = Duration(window) if window else spec.monitoring.window
    seen = gather(spec, as_of, length, place, ops, registry, past)

    def judged() -> tuple[dict[str, list[Finding]], dict[str, Any]]:
        report = look(seen)
        matured = seen.matured.window
        labelled = next((one.value for one in report.areas["model"] if one.measure == "labelled_share"), None)
        return report.areas, {
            "main": seen.main,
            "versions": seen.arrivals.by_version,
            "labelled_share": labelled,
            "labels_start": matured.start.isoformat(),
            "labels_end": matured.end.isoformat(),
            "latency_p95_ms": report.latency_p95_ms,
            "checks": [_check(one) for one in report.checks],
            "contributions": dict(report.contributions[:10]),
        }

    return _Look(digest(seen), seen.current.window, seen.current.rows, judged, seen.main)


def _gateway(window: str, as_of: datetime, place: Place, rows: int) -> _Look:
    span = Window.before(as_of, Duration(window) if window else GATEWAY_WINDOW)
    metrics, refused = gather_gateway(span, place)
    specs, _ = check_models(models_folder())  # a file that is wrong was told by its own model's look
    limit = min((spec.monitoring.resource_use for spec in specs), default=Monitoring().resource_use)
    read = hashlib.sha256(repr([span.words, sorted(refused.items()), rows]).encode()).hexdigest()[:16]
    facts: dict[str, Any] = {"main": None, "versions": {}, "labelled_share": None}

    def judged() -> tuple[dict[str, list[Finding]], dict[str, Any]]:
        return look_at_gateway(metrics, refused, rows, limit, window=span.words), facts

    return _Look(read, span, rows, judged)


def _put_on_record(
    seen: _Look, found: dict[str, list[Finding]], facts: dict[str, Any], run: RunRecord, past: list[RunRecord],
    ops: OpsStore,
) -> dict[str, Any]:  # fmt: skip
    areas = dict(found)
    # An earlier window that is looked at later ends nothing.
    earlier = [one for one in past if datetime.fromisoformat(one.facts["end"]) <= seen.window.end]
    if earlier and (seen.rows or run.model == GATEWAY):
        newest = max(earlier, key=lambda one: (one.facts["end"], one.started_at))
        before = [one.finding for one in ops.findings(newest.run_id)]
        over = settled(before, [one for findings in found.values() for one in findings], seen.window.words)
        if over:
            areas["over"] = over
    for area, findings in areas.items():
        if findings:
            ops.record_findings(run.run_id, area, findings, datetime.now(UTC), run.model, seen.version)
    told = [(area, one) for area, findings in areas.items() for one in findings]
    now = datetime.now(UTC)
    window = {"window": seen.window.words, "start": seen.window.start.isoformat(), "end": seen.window.end.isoformat()}
    ops.set_run_facts(run.run_id, {**facts, "digest": seen.digest, **window, "rows": seen.rows}, now)
    verdicts = [one.verdict for _, one in told]
    wrong = sum(one in (Verdict.WARN, Verdict.FAIL) for one in verdicts)
    unknown = verdicts.count(Verdict.NO_DATA)
    detail = f"{seen.rows:,} rows, {seen.window.words}: {wrong} findings, {unknown} without data"
    return _result(ops.finish_run(run.run_id, RunState.SUCCEEDED, detail, now), "monitored", told)


def _is_served(spec: ModelSpec, ops: OpsStore, place: Place) -> bool:
    """Whether a version is live, or anything was ever asked."""
    if Alias.CHAMPION in ops.aliases(spec.name, place.environment):
        return True
    return any(one.model == spec.name for one in PredictionArchive(place.serving).partitions())


def _result(run: RunRecord, state: str, findings: list[tuple[str, Finding]]) -> dict[str, Any]:
    return {
        "model": run.model,
        "state": state,
        "run": run.run_id,
        "detail": run.detail,
        "verdict": worst(one for _, one in findings).name,
        **{name: run.facts[name] for name in ("window", "start", "end", "main", "versions", "rows", "labelled_share")},
        "findings": [{"area": area, **one.to_dict()} for area, one in findings],
    }


def _check(check: EstimateCheck) -> dict[str, Any]:
    estimated = check.estimated
    return {
        "measure": check.measure,
        "window": check.window,
        "estimated": [estimated.value, estimated.low, estimated.high],
        "measured": check.measured,
        "rows": check.rows,
    }


def _tell_of_failure(error: BaseException, run: RunRecord | None, start: Any, ops: OpsStore) -> None:
    """Put a failure on record, as far as the store still takes it."""
    state = RunState.FAILED if isinstance(error, Exception) else RunState.INTERRUPTED
    try:
        ops.finish_run((run or start()).run_id, state, _words(error), datetime.now(UTC))
    except ProDecksError:
        return  # the store itself is what failed, or another look is under way: the result says so


def _words(error: BaseException) -> str:
    return str(error) if isinstance(error, ProDecksError) else f"{type(error).__name__}: {error}"
