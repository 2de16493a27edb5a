"""Verbs over the ops store: runs, overrides."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from adapters.model_files import ROOT, load_file, load_model, nearest
from adapters.ops_store import OpsStore
from adapters.services import models_folder
from cli.show import console, findings_table, print_json, table
from cli.workspace import Workspace
from lifecycle.errors import ConfigError
from lifecycle.promotion import PromotionPolicy
from lifecycle.redaction import redacted

MAX_OVERRIDE_DAYS = 90


def list_runs(model: str | None, stack: str, limit: int, *, as_json: bool) -> None:
    """Print the newest runs."""
    found = OpsStore.open(Workspace.open(stack).services.ops).runs(model, limit)
    if as_json:
        print_json([asdict(run) for run in found])
        return
    rows = [
        (
            run.run_id,
            run.model,
            run.state.value,
            run.started_at,
            run.requested_by,
            run.reason,
            run.detail.split("\n")[0],
        )
        for run in found
    ]
    console().print(table("runs", ("run", "model", "state", "started (UTC)", "by", "reason", "how it ended"), rows))


def show_run(run_id: str, stack: str, *, as_json: bool) -> None:
    """Print one run with its findings and its audit trail."""
    ops = OpsStore.open(Workspace.open(stack).services.ops)
    run, findings = ops.run(run_id), ops.findings(run_id)
    trail = [entry for entry in reversed(ops.audit_trail(run.model, limit=1_000)) if entry.subject == run_id]
    if as_json:
        print_json({**asdict(run), "findings": [record.finding.to_dict() for record in findings]})
        return
    out = console()
    facts = {**{key: value for key, value in asdict(run).items() if key not in ("facts", "lease")}, **run.facts}
    out.print(
        table(run_id, ("what", "value"), ((key, value) for key, value in facts.items() if value not in ("", None)))
    )
    for phase in dict.fromkeys(record.phase for record in findings):
        out.print()
        out.print(findings_table(phase, (record.finding for record in findings if record.phase == phase)))
    out.print()
    out.print(table("audit", ("at (UTC)", "who", "what"), ((entry.at, entry.actor, entry.action) for entry in trail)))


def grant(model: str, gate: str, person: str, reason: str, until: str, stack: str) -> None:
    """Put an override on record.

    Raises
    ------
    ConfigError
        Unknown model or gate, nobody named, no reason, or an end that is past or too far ahead.
    """
    workspace = Workspace.open(stack)
    spec = load_model(model, workspace.environment, models_folder())
    promotion = load_file(ROOT / "configs" / "policies" / "promotion.yaml", PromotionPolicy, {})
    gates = [one.name for one in spec.evaluation.gates] + promotion.gates
    if gate not in gates:
        raise ConfigError(f"{model} has no gate {gate!r}; {nearest(gate, gates)}")
    record = OpsStore.open(workspace.services.ops).grant_override(
        model=model,
        gate=gate,
        person=person,
        reason=reason,
        until=_end_of(until),
        now=datetime.now(UTC),
        max_days=MAX_OVERRIDE_DAYS,
    )
    console().print(
        f"override {record.override_id}: {record.person} lets {model}'s gate {record.gate!r} pass "
        f"until {record.until:%Y-%m-%d %H:%M} UTC: {redacted(record.reason)}",
        markup=False,
    )


def list_overrides(model: str, stack: str, *, as_json: bool) -> None:
    """Print every override of a model, in force or over."""
    workspace = Workspace.open(stack)
    load_model(model, workspace.environment, models_folder())
    ops = OpsStore.open(workspace.services.ops)
    in_force = {record.override_id for record in ops.overrides_in_force(model, datetime.now(UTC))}
    found = ops.overrides(model)
    if as_json:
        print_json([{**asdict(record), "in_force": record.override_id in in_force} for record in found])
        return
    rows = [
        (
            record.override_id,
            record.gate,
            record.person,
            record.reason,
            record.granted_at,
            record.until,
            "in force" if record.override_id in in_force else "over",
        )
        for record in found
    ]
    columns = ("#", "gate", "who", "why", "granted (UTC)", "until (UTC)", "state")
    console().print(table(f"overrides of {model}", columns, rows))


def _end_of(text: str) -> datetime:
    """Read a day as its end, a moment as itself; UTC unless it says otherwise."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--until {text!r} is no date; accepted: ISO 8601, as in 2026-12-31") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment + timedelta(days=1) if len(text) == len("2026-12-31") else moment
