"""`run.py predictions`: the archive of what was predicted and what came true, moved there, kept as long as models say (R2.5)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from adapters.model_files import ROOT, load_model, model_names
from adapters.ops_store import OpsStore, write_audit
from adapters.prediction_archive import PredictionArchive
from adapters.prediction_log import segments
from adapters.services import models_folder, serving_policy
from cli.serve import serving_folder
from cli.show import console, print_json, table
from cli.workspace import Workspace
from lifecycle.errors import BusyError
from lifecycle.retention import expired, first_day_kept
from lifecycle.spec import Environment

ACTOR = "retention policy"


def compact(stack: str, environment: str | None, *, as_json: bool) -> None:
    """Move finished segments into the archive, delete the days that are kept no longer, and say what was done.

    Raises
    ------
    BusyError
        Another process does so.
    ConfigError
        A segment, the archive's state or a model file is wrong: file and place.
    UnavailableError
        The disk or the ops store does not take it; what is not on the audit trail is not deleted.
    """
    workspace = Workspace.open(stack, environment)
    archive = PredictionArchive(serving_folder(workspace.environment))
    done = archive.compact()
    deleted, left_alone = _retain(workspace, archive, datetime.now(UTC))
    if as_json:
        print_json({**asdict(done), "deleted": deleted, "left_alone": left_alone})
        return
    out = console()
    out.print(
        f"{done.records:,} records of {done.segments} finished segments moved into {done.files} files", markup=False
    )
    for one in deleted:
        told = "deleted {kind} of {model} of {day}: {rows:,} rows, kept from {kept_from} on"
        out.print(told.format(**one), markup=False)
    for model in left_alone:
        out.print(f"{model} has no model file, and so no retention: nothing of it is deleted", markup=False)


def _retain(workspace: Workspace, archive: PredictionArchive, now: datetime) -> tuple[list[dict[str, Any]], list[str]]:
    """Delete what no model file keeps any longer, each day on the audit trail first; what, and which models have no file."""
    deleted: list[dict[str, Any]] = []
    left_alone: list[str] = []
    known = model_names(models_folder())
    held = sorted(archive.partitions(), key=lambda one: one.model)
    for model, partitions in groupby(held, key=lambda one: one.model):
        if model not in known:
            left_alone.append(model)
            continue
        kept = load_model(model, workspace.environment, models_folder()).retention.predictions
        days = list(partitions)
        due = expired((one.day for one in days), kept, now)
        for partition in sorted(one for one in days if one.day in due):
            holding = archive.holding(partition)
            told = {
                "kind": partition.kind, "model": model, "day": partition.day.isoformat(), "rows": holding.rows,
                "bytes": holding.size, "retention": str(kept), "kept_from": first_day_kept(kept, now).isoformat(),
            }  # fmt: skip
            # On record before it is done: a deletion that is cut short is told twice, and never goes untold.
            with OpsStore.open(workspace.services.ops).writing() as connection:
                subject = f"{partition.kind} of {partition.day.isoformat()}"
                write_audit(connection, now, ACTOR, "predictions deleted", subject, model, told)
            archive.forget(partition)
            deleted.append(told)
    return deleted, left_alone


def list_holdings(model: str | None, environment: Environment, *, as_json: bool) -> None:
    """Print what an environment's archive holds; ConfigError when its state is wrong."""
    archive = PredictionArchive(serving_folder(environment))
    held = [one for one in archive.holdings() if model in (None, one.partition.model)]
    waiting = len(segments(archive.log))
    if as_json:
        print_json(
            {
                "through": archive.through,
                "log_segments": waiting,
                "days": [
                    {**asdict(one.partition), "day": one.partition.day.isoformat()}
                    | {"rows": one.rows, "bytes": one.size, "files": one.files}
                    for one in held
                ],
            }
        )
        return
    rows = [
        (one.partition.model, one.partition.kind, one.partition.day, f"{one.rows:,}", f"{one.size:,}", one.files)
        for one in sorted(held, key=lambda one: (one.partition.model, one.partition.kind, one.partition.day))
    ]
    out = console()
    out.print(table("prediction archive", ("model", "kind", "day (UTC)", "rows#", "bytes#", "files#"), rows))
    out.print(f"records up to {archive.through:,}; what came later lies in {waiting} segments of the log", markup=False)


class Compaction:
    """`run.py predictions compact` beside `operate`, now and then, in a process of its own: nothing waits for it.

    Parameters
    ----------
    workspace
        Where: its stack and environment.
    tell
        Called with what went wrong.
    """

    def __init__(self, workspace: Workspace, tell: Callable[[str], None]) -> None:
        self._workspace, self._tell = workspace, tell
        self._every = serving_policy().archive.every_seconds
        self._process: subprocess.Popen[str] | None = None

    def tick(self) -> None:
        """Tell how the last one ended, and start one when it is due."""
        if self._process is not None and self._process.poll() is not None:
            self.wait()
        if self._process is None and self._is_due(time.time()):
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [
                    sys.executable,
                    "run.py",
                    "predictions",
                    "compact",
                    "--stack",
                    self._workspace.stack.name,
                    "--environment",
                    self._workspace.environment.name,
                ],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=lambda: os.nice(10),
            )

    def wait(self) -> None:
        """Wait for one that runs, and tell how it ended; not moving anything because another process does is no failure."""
        if self._process is None:
            return
        _, said = self._process.communicate()
        if self._process.returncode not in (0, BusyError.exit_code):
            self._tell(f"predictions were not compacted: {said.strip() or f'exit code {self._process.returncode}'}")
        self._process = None

    def stop(self) -> None:
        """End one that runs: it loses nothing by it."""
        if self._process is not None:
            self._process.terminate()
            self._process.communicate()

    def _is_due(self, now: float) -> bool:
        archive = PredictionArchive(serving_folder(self._workspace.environment))
        before = archive.compacted_at
        if before is None:
            return len(segments(archive.log)) > 1
        return not 0 <= now - before < self._every
