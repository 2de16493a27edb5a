"""The registry's aliases follow the ops store; one that somebody moved there is found, put on record, and set right (R4.4).

A difference that our own assignments explain is the registry lagging behind; any other is somebody's hand. MLflow does not
keep who moved an alias or when, so what is on record is that, from what to what, and when it was found.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from adapters.ops_store import OpsStore, write_audit
from adapters.registry import Registry
from lifecycle.aliases import Alias, Assignment, moved_by_hand, registry_name
from lifecycle.errors import ProDecksError
from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.records import RunState

PIPELINE, PHASE = "reconcile", "aliases"
UNKNOWN = "unknown"
"""Who moved an alias by hand: the registry does not say."""
LEASE = timedelta(minutes=1)
TRIES = 5


def mirror_aliases(ops: OpsStore, registry: Registry, model: str, environment: str, now: datetime) -> list[str]:
    """Make the registry's aliases of an environment what the ops store says; what somebody else had moved, in words.

    Raises
    ------
    BusyError
        Another process is putting the same on record.
    UnavailableError
        The registry or the ops store does not answer.
    """
    ours, held = _steady(ops, registry, model, environment)
    wanted = {alias: ours[alias][-1].version if alias in ours else None for alias in Alias}
    names = {alias: registry_name(environment, alias) for alias in Alias}
    wrong = [alias for alias in Alias if held.get(names[alias]) != wanted[alias]]
    moved = [_finding(names[one], held.get(names[one]), wanted[one], now) for one in wrong
             if moved_by_hand(held.get(names[one]), ours.get(one, []))]  # fmt: skip
    if wrong:
        with _on_record(ops, model, moved, now) if moved else contextlib.nullcontext():
            registry.mirror_aliases(model, {names[alias]: wanted[alias] for alias in wrong})
    unseen = [ours[alias][-1] for alias in ours if not ours[alias][-1].mirrored]
    if unseen:
        ops.mark_mirrored(unseen, now)
    return [one.reason for one in moved]


def _steady(
    ops: OpsStore, registry: Registry, model: str, environment: str
) -> tuple[dict[Alias, list[Assignment]], Mapping[str, str]]:
    """Both sides at one moment: what we assigned did not change while the registry was read."""
    ours = ops.alias_assignments(model, environment)
    for _ in range(TRIES):
        held, before = registry.aliases(model), ours
        ours = ops.alias_assignments(model, environment)
        if ours == before:
            break
    return ours, held


def _finding(name: str, held: str | None, wanted: str | None, now: datetime) -> Finding:
    told = (
        f"alias {name} was moved by hand in the registry from {_version(wanted)} to {_version(held)}: set right again"
    )
    window = f"found at {now:%Y-%m-%d %H:%M:%S} UTC"
    return Finding("alias_moved", name, None, None, Direction.AT_MOST, window, Verdict.FAIL, told)


def _version(version: str | None) -> str:
    return "no version" if version is None else f"version {version}"


@contextlib.contextmanager
def _on_record(ops: OpsStore, model: str, moved: list[Finding], now: datetime) -> Iterator[None]:
    """Keep the findings before they are set right, once, however often setting them right has to be tried."""
    if _told_before(ops, model, moved):
        yield
        return
    stack = ops.runs(model, limit=1)[0].stack  # where the model last ran: nobody ran this
    run = ops.start_run(
        pipeline=PIPELINE, model=model, stack=stack, trigger_kind="event", reason=moved[0].reason, requested_by=PIPELINE,
        as_of=now, now=now, lease=LEASE,
    )  # fmt: skip
    ops.record_findings(run.run_id, PHASE, moved, now, model)
    with ops.writing() as connection:
        for one in moved:
            detail = {"finding": one.reason, "found": now.isoformat(), "run": run.run_id}
            write_audit(connection, now, UNKNOWN, "alias moved by hand", f"{model} {one.subject}", model, detail)
    try:
        yield
    except ProDecksError as error:
        ops.finish_run(run.run_id, RunState.FAILED, str(error), now)
        raise
    ops.finish_run(run.run_id, RunState.SUCCEEDED, f"{len(moved)} aliases set right", now)


def _told_before(ops: OpsStore, model: str, moved: list[Finding]) -> bool:
    """Whether the very same is on record already and could not be set right since."""
    kept = ops.findings(model=model, phase=PHASE)
    last = [one for one in kept if one.run_id == kept[-1].run_id]
    same = {(one.finding.subject, one.finding.reason) for one in last} == {(one.subject, one.reason) for one in moved}
    return same and ops.run(kept[-1].run_id).state is not RunState.SUCCEEDED
