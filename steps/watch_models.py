"""Look at each model's traffic, one after the other; what befalls one leaves the others alone (R2.4, R5.1 to R5.7)."""

from __future__ import annotations

import os
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from zenml import step

from adapters.model_files import load_environment, load_model
from adapters.ops_store import OpsStore
from adapters.prediction_archive import PredictionArchive
from adapters.registry import Registry
from adapters.services import Services, models_folder
from adapters.worker_pool import spread
from lifecycle.aliases import Alias
from lifecycle.errors import ProDecksError
from lifecycle.estimation import EstimateCheck
from lifecycle.findings import Finding, Verdict, worst
from lifecycle.monitoring import Report, Seen, look, settled
from lifecycle.records import RunRecord, RunState
from lifecycle.spec import Duration, ModelSpec
from steps.model_traffic import Place, digest, gather, quiet
from steps.progress import tell

PIPELINE = "monitor"
LEASE = timedelta(minutes=30)
REMEMBERED_RUNS = 500
MODELS_A_PROCESS = 4
"""Models from which another process, which takes seconds to begin, is worth it."""
MOST_PROCESSES = 4


@step(enable_cache=False)
def watch_models(
    models: list[str], window: str, as_of: str, place: dict[str, str], asked: dict[str, str]
) -> Annotated[list[dict[str, Any]], "monitored"]:
    """Monitor models and put what is found on record, each as a run of its own.

    Parameters
    ----------
    models
        Which.
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
    work = partial(watch_here, window=window, as_of=as_of, place=place, asked=asked, skips=len(models) > 1)
    workers = min(os.cpu_count() or 1, MOST_PROCESSES, len(models) // MODELS_A_PROCESS)
    found: dict[str, dict[str, Any]] = {}
    pairs = spread(work, models, workers) if workers > 1 else ((name, work(name)) for name in models)
    tell("monitor", "begin", 0, len(models))
    for name, result in pairs:
        if isinstance(result, BrokenProcessPool):
            result = {"model": name, "state": "failed", "detail": f"its process was killed: {result}", "exit_code": 1}
        found[name] = result
        tell("monitor", name, len(found), len(models))
    return [found[name] for name in models]


def watch_here(
    name: str, *, window: str, as_of: str, place: dict[str, str], asked: dict[str, str], skips: bool
) -> dict[str, Any]:
    """`watch` in a process that has nothing open yet; parameters as in `watch_models`."""
    services = Services.from_environment()
    where = Place(Path(place["serving"]), place["environment"], place["gateway"] or None, datetime.now(UTC))
    try:
        ops = OpsStore.open(services.ops)
    except ProDecksError as error:
        return {"model": name, "state": "failed", "detail": str(error), "exit_code": error.exit_code}
    return watch(name, window, datetime.fromisoformat(as_of), where, ops, Registry(services.registry), asked, skips)


def watch(
    name: str, window: str, as_of: datetime, place: Place, ops: OpsStore, registry: Registry, asked: dict[str, str],
    skips: bool,
) -> dict[str, Any]:  # fmt: skip
    """Monitor one model; a failure is a result too."""
    run: RunRecord | None = None

    def start() -> RunRecord:
        return ops.start_run(
            pipeline=PIPELINE, model=name, stack=asked["stack"], trigger_kind="manual", reason=asked["reason"],
            requested_by=asked["requested_by"], as_of=as_of, now=datetime.now(UTC), lease=LEASE,
        )  # fmt: skip

    try:
        spec = load_model(name, load_environment(place.environment), models_folder())
        if skips and not _is_served(spec, ops, place):
            return {"model": name, "state": "skipped", "detail": f"no version is live in {place.environment}"}
        past = [
            one
            for one in ops.runs(name, limit=REMEMBERED_RUNS)
            if one.pipeline == PIPELINE
            and one.state is RunState.SUCCEEDED
            and one.facts.get("environment") == place.environment
        ]
        length = Duration(window) if window else spec.monitoring.window
        with quiet():
            seen = gather(spec, as_of, length, place, ops, registry, past)
            key = digest(seen)
            same = next((one for one in past if one.facts["digest"] == key), None)
            if same is not None:
                return _result(same, "unchanged", [(one.phase, one.finding) for one in ops.findings(same.run_id)])
            run = start()
            report = look(seen)
        return _put_on_record(seen, report, {"environment": place.environment, "digest": key}, run, past, ops)
    except BaseException as error:
        _tell_of_failure(error, run, start, ops)
        if not isinstance(error, Exception):
            raise
        kind = error.exit_code if isinstance(error, ProDecksError) else 1
        return {"model": name, "state": "failed", "detail": _words(error), "exit_code": kind}


def _put_on_record(
    seen: Seen, report: Report, facts: dict[str, str], run: RunRecord, past: list[RunRecord], ops: OpsStore
) -> dict[str, Any]:
    areas = dict(report.areas)
    # An earlier window that is looked at later ends nothing.
    earlier = [one for one in past if datetime.fromisoformat(one.facts["end"]) <= seen.current.window.end]
    if seen.current.rows and earlier:
        newest = max(earlier, key=lambda one: (one.facts["end"], one.started_at))
        over = settled([one.finding for one in ops.findings(newest.run_id)], report.findings, seen.window)
        if over:
            areas["over"] = over
    for area, findings in areas.items():
        if findings:
            ops.record_findings(run.run_id, area, findings, datetime.now(UTC), seen.spec.name, seen.main)
    told = [(area, one) for area, findings in areas.items() for one in findings]
    found = [one for _, one in told]
    labelled = next((one.value for one in report.areas["model"] if one.measure == "labelled_share"), None)
    now = datetime.now(UTC)
    matured = seen.matured.window
    ops.set_run_facts(
        run.run_id,
        {
            **facts,
            "window": seen.window,
            "start": seen.current.window.start.isoformat(),
            "end": seen.current.window.end.isoformat(),
            "main": seen.main,
            "versions": seen.arrivals.by_version,
            "rows": seen.current.rows,
            "labelled_share": labelled,
            "labels_start": matured.start.isoformat(),
            "labels_end": matured.end.isoformat(),
            "latency_p95_ms": report.latency_p95_ms,
            "checks": [_check(one) for one in report.checks],
            "contributions": dict(report.contributions[:10]),
        },
        now,
    )
    wrong = sum(one.verdict in (Verdict.WARN, Verdict.FAIL) for one in found)
    unknown = sum(one.verdict is Verdict.NO_DATA for one in found)
    detail = f"{seen.current.rows:,} rows, {seen.window}: {wrong} findings, {unknown} without data"
    ended = ops.finish_run(run.run_id, RunState.SUCCEEDED, detail, now)
    return _result(ended, "monitored", told)


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
