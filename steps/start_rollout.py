"""Put the beginning of a rollout on record, with what it rests on; whoever operates carries it on (R4.1 to R4.5, R10.3)."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import reduce
from typing import Annotated, Any

from zenml import log_metadata, step

from adapters.ops_store import OpsStore
from adapters.registry import Registry
from adapters.rollout_store import RolloutStore
from adapters.services import Services
from lifecycle.approvals import ApprovalPolicy, stricter
from lifecycle.changes import size_of_change
from lifecycle.errors import BusyError
from lifecycle.rollout import OPEN, Stage, live_version, propose
from lifecycle.spec import ModelSpec, Sensitivity
from steps.version_files import substance_of


@step(enable_cache=False)
def start_rollout(
    spec: ModelSpec,
    version: str,
    policy: ApprovalPolicy,
    strategy: str,
    environment: str,
    track_record: dict[str, Any],
    run_id: str,
    facts: dict[str, str],
) -> Annotated[dict[str, Any], "rollout"]:
    """Begin a rollout: it awaits approval, is a shadow, or, as a model's first in the environment, live.

    Parameters
    ----------
    spec
        The model file.
    version
        The version, checked.
    policy
        Who has to agree.
    strategy
        canary, blue_green or shadow.
    environment
        Where.
    track_record
        What it showed in the environment before; empty in the first one.
    run_id
        The ops store's run; names the rollout.
    facts
        ``requested_by`` and ``reason``.
    """
    services = Services.from_environment()
    ops = OpsStore.open(services.ops)
    rollouts = RolloutStore(ops, environment)
    before = rollouts.current(spec.name)
    if before is not None and before.state.stage in OPEN - {Stage.LIVE}:
        raise BusyError(
            f"version {before.state.candidate} of {spec.name} is {before.state.stage.value} in {environment} since "
            f"{before.state.since:%Y-%m-%d %H:%M} UTC; accepted: wait until it is live, or run.py rollout rollback {spec.name}"
        )
    now = datetime.now(UTC)
    live = None if before is None else live_version(before.state)
    made_from = ops.config(spec.name, version)
    sized = size_of_change(live, None if live is None else ops.config(spec.name, live), made_from)
    # As sensitive as the model file says now, or said when the version was made: a file made laxer meanwhile frees nobody.
    said = {spec.sensitivity, Sensitivity(made_from["sensitivity"]) if made_from else spec.sensitivity}
    approver = reduce(stricter, (policy.approver(sensitivity, sized.size) for sensitivity in said))
    state = propose(
        run_id,
        spec.name,
        version,
        live,
        strategy,  # type: ignore[arg-type]
        now,
        needs_approval=policy.needed(approver) > 0,
        blocked=rollouts.blocked(spec.name),
    )
    evidence = {
        "substance": substance_of(Registry(services.registry), spec, version),
        "change": {"size": sized.size.value, "reasons": list(sized.reasons)},
        "approver": approver.value,
        "track_record": track_record,
    }
    change = rollouts.change(
        before,
        state,
        spec.rollout,
        actor=f"run {run_id}",
        now=now,
        requested_by=facts["requested_by"],
        evidence=evidence,
    )
    told = {"rollout": run_id, "environment": environment, "stage": change.state.stage.value}
    told |= {"generation": change.generation, "change": sized.size.value, "approver": approver.value}
    ops.set_run_facts(run_id, {"version": version, **told}, now)
    log_metadata(metadata={**told, "version": version, "strategy": strategy})
    return told
