"""Put the beginning of a rollout on record; whoever operates carries it on (R4.1, R4.2, R4.3)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from zenml import log_metadata, step

from adapters.ops_store import OpsStore
from adapters.rollout_store import RolloutStore
from adapters.services import Services
from lifecycle.approvals import ApprovalPolicy
from lifecycle.errors import BusyError
from lifecycle.rollout import OPEN, Stage, live_version, propose
from lifecycle.spec import ModelSpec


@step(enable_cache=False)
def start_rollout(
    spec: ModelSpec, version: str, policy: ApprovalPolicy, strategy: str, run_id: str, facts: dict[str, str]
) -> Annotated[dict[str, Any], "rollout"]:
    """Begin a rollout: it awaits approval, is a shadow, or, as a model's first, live.

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
    run_id
        The ops store's run; names the rollout.
    facts
        ``requested_by`` and ``reason``.
    """
    ops = OpsStore.open(Services.from_environment().ops)
    rollouts = RolloutStore(ops)
    before = rollouts.current(spec.name)
    if before is not None and before.state.stage in OPEN - {Stage.LIVE}:
        raise BusyError(
            f"version {before.state.candidate} of {spec.name} is {before.state.stage.value} since "
            f"{before.state.since:%Y-%m-%d %H:%M} UTC; accepted: wait until it is live, or run.py rollout rollback {spec.name}"
        )
    now = datetime.now(UTC)
    state = propose(
        run_id,
        spec.name,
        version,
        None if before is None else live_version(before.state),
        strategy,  # type: ignore[arg-type]
        now,
        needs_approval=policy.needed(spec.sensitivity) > 0,
        blocked=rollouts.blocked(spec.name),
    )
    change = rollouts.change(
        before, state, spec.rollout, actor=f"run {run_id}", now=now, requested_by=facts["requested_by"]
    )
    told = {"rollout": run_id, "stage": change.state.stage.value, "generation": change.generation}
    ops.set_run_facts(run_id, {"version": version, **told}, now)
    log_metadata(metadata={**told, "version": version, "strategy": strategy})
    return told
