"""`python run.py --pipeline evaluate`: any registered version on any labelled window, on record as a run (R3.7, R5.2)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from adapters.model_files import load_model
from adapters.ops_store import OpsStore
from adapters.services import models_folder
from cli.progress import showing_progress
from cli.show import console, findings_table, print_json
from cli.training import LEASE, as_of_now, heartbeat, on_record, parse_moment
from cli.workspace import Workspace
from lifecycle.aliases import Alias
from lifecycle.errors import CandidateRejected, ConfigError
from lifecycle.findings import Finding, Verdict, worst
from lifecycle.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class EvaluateRequest:
    """What was asked for on the command line.

    Parameters
    ----------
    model, stack
        Which, and where.
    environment
        Whose live version counts; None for the stack's.
    version
        None for the live one.
    data
        Name of a kept snapshot, or None.
    start, end
        ISO 8601 moments of the window when no snapshot is named; None: from the version's training on, up to now.
    reason, requested_by
        Kept on record.
    """

    model: str
    stack: str
    environment: str | None
    version: str | None
    data: str | None
    start: str | None
    end: str | None
    reason: str
    requested_by: str


def run_evaluation(request: EvaluateRequest, *, as_json: bool) -> int:
    """Evaluate a version; the exit code: that of a rejection when it fails a gate there.

    Raises
    ------
    ConfigError
        Unknown model, version or snapshot; a snapshot and a window; a window that is none.
    DataError
        No labelled row in the window.
    """
    if request.data is not None and (request.start or request.end):
        raise ConfigError("--data with --from or --to; accepted: a snapshot, or a window")
    workspace = Workspace.open(request.stack, request.environment)
    spec = load_model(request.model, workspace.environment, models_folder())
    ops = OpsStore.open(workspace.services.ops)
    version = _version(spec, ops, workspace.environment.name, request.version)
    workspace.ensure_sample_database()
    with showing_progress("setting up the stack"):
        workspace.apply_stack()
    as_of = as_of_now(spec, workspace)
    window = _window(spec, workspace, version, request, as_of)
    run = ops.start_run(
        pipeline="evaluate",
        model=spec.name,
        stack=request.stack,
        trigger_kind="manual",
        reason=request.reason,
        requested_by=request.requested_by,
        as_of=as_of,
        now=datetime.now(UTC),
        lease=LEASE,
    )
    with on_record(ops, run):
        from pipelines.evaluate import run_evaluate_pipeline

        with heartbeat(ops, run), showing_progress(f"evaluate {spec.name}"):
            run_evaluate_pipeline(
                spec,
                version,
                data=request.data,
                window=window,
                environment=workspace.environment.name,
                as_of=as_of,
                run_id=run.run_id,
            )
        findings = [one.finding for one in ops.findings(run.run_id)]
        verdict = worst(findings)
        facts = ops.run(run.run_id).facts
        detail = f"version {version} on {facts['window']}: {verdict.label}"
        ops.finish_run(run.run_id, "succeeded", detail, datetime.now(UTC))
    _print(spec, run.run_id, facts, findings, as_json=as_json)
    return CandidateRejected.exit_code if verdict is Verdict.FAIL else 0


def _version(spec: ModelSpec, ops: OpsStore, environment: str, asked: str | None) -> str:
    version = asked or ops.aliases(spec.name, environment).get(Alias.CHAMPION)
    known = [one.version for one in ops.versions(spec.name)]
    if version is None:
        raise ConfigError(
            f"{spec.name} has no live version in {environment}; accepted: --version with one of {', '.join(known) or 'none'}"
        )
    if version not in known:
        raise ConfigError(
            f"{spec.name} has no version {version!r} on record; accepted: {', '.join(known) or 'none registered yet'}"
        )
    return version


def _window(
    spec: ModelSpec, workspace: Workspace, version: str, request: EvaluateRequest, as_of: datetime
) -> tuple[datetime, datetime]:
    from adapters.registry import Registry

    end = as_of if request.end is None else parse_moment(request.end, "--to")
    if request.start is not None:
        start = parse_moment(request.start, "--from")
    elif request.data is not None:
        return spec.source.window.before(end), end
    else:
        start = datetime.fromisoformat(Registry(workspace.services.registry).tags(spec.name, version)["as_of"])
    if start >= end:
        since = "" if request.start else f", which version {version} was trained up to"
        raise ConfigError(
            f"a window from {start:%Y-%m-%d %H:%M}{since} to {end:%Y-%m-%d %H:%M}; accepted: --from before --to"
        )
    return start, end


def _print(spec: ModelSpec, run_id: str, facts: dict[str, Any], findings: list[Finding], *, as_json: bool) -> None:
    if as_json:
        print_json({"model": spec.name, "run": run_id, **facts, "findings": [one.to_dict() for one in findings]})
        return
    out = console()
    out.print(findings_table(f"{spec.name} version {facts['version']} on {facts['window']}", findings))
    notable = [one.reason for one in findings if one.verdict is not Verdict.PASS]
    for line in (*notable, f"{facts['rows']['rows']:,} rows, snapshot {facts['snapshot']}"):
        out.print(line, markup=False)
    out.print(f"details     python run.py runs show {run_id}", markup=False)
