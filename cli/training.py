"""`python run.py --pipeline train`: one run a model, on record to its end, whatever the end (R1.2)."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from adapters.model_files import load_model
from adapters.ops_store import OpsStore
from adapters.services import models_folder
from cli.models import chosen
from cli.progress import showing_progress
from cli.results import print_result
from cli.show import print_json
from cli.workspace import Workspace, git_revision, invoked_as, lock_hash
from lifecycle.errors import (
    CandidateRejected,
    ConfigError,
    DataError,
    ProDecksError,
    UnavailableError,
    causes,
    was_interrupted,
)
from lifecycle.records import RunRecord, RunState
from lifecycle.spec import ModelSpec

LEASE = timedelta(minutes=10)
BEAT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What was asked for on the command line.

    Parameters
    ----------
    models
        Names, or ``all``.
    stack
        Where it runs.
    as_of
        ISO 8601 moment, or None for what the environment calls now.
    trials, seed
        In place of the model file's, when given.
    reason, requested_by
        Kept on record.
    """

    models: list[str]
    stack: str
    as_of: str | None
    trials: int | None
    seed: int | None
    reason: str
    requested_by: str


def run_training(request: TrainRequest, *, as_json: bool) -> int:
    """Train each model in turn.

    Every model file is read before the first model is trained, and one model's failure does not keep the
    others from being trained.

    Returns
    -------
    int
        Exit code: 0 when every candidate was approved, else that of the worst ending.
    """
    workspace = Workspace.open(request.stack)
    specs = [
        _as_asked(load_model(name, workspace.environment, models_folder()), request) for name in chosen(request.models)
    ]
    as_of = None if request.as_of is None else parse_moment(request.as_of)
    ops = OpsStore.open(workspace.services.ops)
    workspace.ensure_sample_database()
    with showing_progress("setting up the stack"):
        workspace.apply_stack()
    results, failures = [], []
    for spec in specs:
        try:
            result = _train(spec, as_of, workspace, ops, request)
        except ProDecksError as error:
            if len(specs) == 1:
                raise
            failures.append((spec.name, error))
            continue
        results.append(result)
        if not as_json:
            print_result(result)
    if as_json:
        told = [result.to_dict() for result in results]
        told += [{"model": name, "state": "failed", "error": str(error)} for name, error in failures]
        print_json(told[0] if len(told) == 1 else told)
    if failures:
        raise type(failures[0][1])("\n".join(f"{name}: {error}" for name, error in failures))
    return 0 if all(result.approved for result in results) else CandidateRejected.exit_code


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How one training ended, for the terminal and for scripts.

    Parameters
    ----------
    run
        The ops store's record of the run.
    findings
        Its findings by phase.
    phases
        Step: seconds, and whether its earlier result was reused.
    seconds
        Wall-clock seconds from the start of the run.
    """

    run: RunRecord
    findings: dict[str, list[Any]]
    phases: dict[str, dict[str, Any]]
    seconds: float

    @property
    def approved(self) -> bool:
        """Whether the gates let the candidate through."""
        return self.run.state is RunState.SUCCEEDED

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return {
            "model": self.run.model,
            "run": self.run.run_id,
            "state": "approved" if self.approved else "rejected",
            "as_of": self.run.as_of.isoformat(),
            "seconds": round(self.seconds, 2),
            "phases": self.phases,
            **self.run.facts,
            "findings": {phase: [finding.to_dict() for finding in found] for phase, found in self.findings.items()},
        }


def parse_moment(text: str, option: str = "--as-of") -> datetime:
    """Read ISO 8601; UTC unless it says otherwise; ConfigError when it is no moment or lies in the future."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{option} {text!r} is no moment; accepted: ISO 8601, as in 2013-12-01 or 2013-12-01T06:00"
        ) from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if moment > datetime.now(UTC) + timedelta(days=1):
        raise ConfigError(f"{option} {text} lies in the future; accepted: a moment that has been")
    return moment


def _as_asked(spec: ModelSpec, request: TrainRequest) -> ModelSpec:
    differences = {
        key: value for key, value in (("trials", request.trials), ("seed", request.seed)) if value is not None
    }
    return spec.model_copy(update={"training": spec.training.model_copy(update=differences)})


def _train(
    spec: ModelSpec, as_of: datetime | None, workspace: Workspace, ops: OpsStore, request: TrainRequest
) -> TrainResult:
    started = time.monotonic()
    moment, unknown = as_of, None
    if moment is None:
        try:
            moment = as_of_now(spec, workspace)
        except ProDecksError as error:  # the source: told by a run that failed, not by none at all
            moment, unknown = datetime.now(UTC), error
    run = ops.start_run(
        pipeline="train",
        model=spec.name,
        stack=request.stack,
        trigger_kind="manual",
        reason=request.reason,
        requested_by=request.requested_by,
        as_of=moment,
        now=datetime.now(UTC),
        lease=LEASE,
    )
    with on_record(ops, run):
        if unknown is not None:
            raise unknown
        from adapters.registry import Registry
        from pipelines.train import run_train_pipeline

        with workspace.alone():
            Registry(workspace.services.registry).ensure_experiment(spec.name)
        with heartbeat(ops, run), showing_progress(spec.name):
            phases = run_train_pipeline(
                spec,
                as_of=run.as_of,
                run_id=run.run_id,
                facts={
                    "reason": request.reason,
                    "requested_by": request.requested_by,
                    "stack": request.stack,
                    "environment": workspace.environment.name,
                    "command": invoked_as(),
                    "code_revision": git_revision(),
                    "lock_hash": lock_hash(),
                },
            )
        approved = ops.run(run.run_id).facts.get("decision") == "approved"
        detail = str(ops.run(run.run_id).facts.get("summary", ""))
        ops.finish_run(run.run_id, "succeeded" if approved else "rejected", detail, datetime.now(UTC))
    found: dict[str, list[Any]] = {}
    for record in ops.findings(run.run_id):
        found.setdefault(record.phase, []).append(record.finding)
    return TrainResult(ops.run(run.run_id), found, phases, time.monotonic() - started)


def as_of_now(spec: ModelSpec, workspace: Workspace) -> datetime:
    """Tell as-of when none is given: the clock's now, or the midnight after the newest row of historic data."""
    if workspace.environment.now == "wall_clock":
        return datetime.now(UTC)
    from adapters.source import newest_row

    newest = newest_row(spec, workspace.services.source)
    if newest > datetime.now(UTC) + timedelta(days=1):
        raise DataError(
            f"{spec.source.table}: the newest {spec.source.timestamp} is {newest:%Y-%m-%d %H:%M}, which lies in the future; "
            "accepted: moments that have been, or --as-of with one that has"
        )
    return newest.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


@contextlib.contextmanager
def on_record(ops: OpsStore, run: RunRecord) -> Iterator[None]:
    """Make sure the ops store tells how the run ended, also when it did not end well."""
    try:
        yield
    except ProDecksError as error:
        _finish(ops, run, RunState.FAILED, str(error))
        raise
    except OSError as error:
        answer = UnavailableError(_out_of_room(error))
        _finish(ops, run, RunState.FAILED, str(answer))
        raise answer from error
    except BaseException as error:
        if was_interrupted(error):
            _finish(ops, run, RunState.INTERRUPTED, "interrupted; tuning goes on where it stopped when run again")
            raise KeyboardInterrupt from error
        cause = _foreseen(error)
        _finish(ops, run, RunState.FAILED, f"{type(error).__name__}: {error}" if cause is None else str(cause))
        if cause is None:
            raise
        raise cause from error


def _finish(ops: OpsStore, run: RunRecord, state: RunState, detail: str) -> None:
    # The store may be what failed: its error must not hide the one that is being told.
    with contextlib.suppress(ProDecksError):
        ops.finish_run(run.run_id, state, detail, datetime.now(UTC))


def _out_of_room(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = error.filename or "the var folder"
        return f"no room left on the disk of {place}; free some and run the same command again"
    return f"{error.filename or 'the machine'}: {error.strerror or error}"


def _foreseen(error: BaseException) -> ProDecksError | None:
    """Find the answer inside what a framework wrapped around it."""
    for inner in causes(error):
        if isinstance(inner, ProDecksError):
            return inner
        if "No space left on device" in str(inner) or "database or disk is full" in str(inner):
            return UnavailableError(_out_of_room(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    return None


@contextlib.contextmanager
def heartbeat(ops: OpsStore, run: RunRecord) -> Iterator[None]:
    """Extend the run's lease while it works; a run that was taken over stops."""
    stop = threading.Event()
    lost: list[ProDecksError] = []

    def beat() -> None:
        import _thread

        while not stop.wait(BEAT_SECONDS):
            try:
                ops.heartbeat(run.run_id, datetime.now(UTC))
            except UnavailableError:
                continue  # the lease bridges an outage; a longer one shows when the next step writes
            except ProDecksError as error:
                lost.append(error)
                _thread.interrupt_main()
                return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        if lost:
            raise lost[0] from None
        raise
    finally:
        stop.set()
        thread.join()
