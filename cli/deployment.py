"""`python run.py --pipeline deploy`: a version checked and its rollout begun, on record as a run (R4.5)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import get_args

from adapters.model_files import nearest
from cli.progress import showing_progress
from cli.rollouts import Deployment
from cli.show import console, print_json
from cli.training import LEASE, as_of_now, on_record
from cli.workspace import Workspace
from lifecycle.aliases import Alias
from lifecycle.errors import ConfigError
from lifecycle.records import VersionState
from lifecycle.rollout import Stage, Strategy


@dataclass(frozen=True, slots=True)
class DeployRequest:
    """What was asked for on the command line.

    Parameters
    ----------
    model, stack
        Which, and where.
    environment
        Whose users it is for; None for the stack's.
    version
        None for the newest approved one, or the one that is live in the environment before.
    strategy
        None for the model file's.
    reason, requested_by
        Kept on record.
    """

    model: str
    stack: str
    environment: str | None
    version: str | None
    strategy: str | None
    reason: str
    requested_by: str


def run_deployment(request: DeployRequest, *, as_json: bool) -> int:
    """Begin a rollout; the exit code.

    Raises
    ------
    ConfigError
        Unknown model, version or strategy, or a version that cannot be rolled out.
    BusyError
        Another rollout of the model is on its way.
    """
    strategies = list(get_args(Strategy))
    if request.strategy is not None and request.strategy not in strategies:
        raise ConfigError(f"unknown strategy {request.strategy!r}; {nearest(request.strategy, strategies)}")
    workspace = Workspace.open(request.stack, request.environment)
    deployment = Deployment(workspace, request.model)
    spec, ops, environment = deployment.spec, deployment.ops, deployment.environment
    version = request.version or _version(deployment)
    workspace.ensure_sample_database()
    with showing_progress("setting up the stack"):
        workspace.apply_stack()
    as_of = as_of_now(spec, workspace)
    run = ops.start_run(
        pipeline="deploy",
        model=spec.name,
        stack=request.stack,
        trigger_kind="manual",
        reason=request.reason,
        requested_by=request.requested_by,
        as_of=as_of,
        now=datetime.now(UTC),
        lease=LEASE,
    )
    with on_record(ops, run), showing_progress(f"deploy {spec.name}"):
        from pipelines.deploy import run_deploy_pipeline

        run_deploy_pipeline(
            spec,
            version,
            deployment.policy,
            deployment.promotion,
            environment=environment,
            strategy=request.strategy or spec.rollout.strategy,
            as_of=as_of,
            run_id=run.run_id,
            facts={"requested_by": request.requested_by, "reason": request.reason},
        )
        change = deployment.current()
        deployment.carry_out(change)
        detail = f"version {version} {change.state.stage.value} in {environment}"
        ops.finish_run(run.run_id, "succeeded", detail, datetime.now(UTC))
    if as_json:
        told = {"model": spec.name, "run": run.run_id, "environment": environment, "generation": change.generation}
        print_json({**told, **change.state.to_dict(), "evidence": change.evidence})
        return 0
    there = "" if environment == workspace.stack.environment else f" --environment {environment}"
    following = {
        Stage.AWAITING_APPROVAL: f"waits for approval by the {change.evidence['approver'].replace('_', ' ')}: "
        f"python run.py rollout approve {spec.name}{there} --by NAME --reason TEXT",
        Stage.SHADOW: f"is a shadow beside the live version; python run.py operate{there} takes it further",
        Stage.LIVE: f"is live, as the model's first; python run.py serve{there} answers with it",
    }.get(change.state.stage, change.state.stage.value)
    console().print(f"{spec.name} version {version} in {environment} {following}", markup=False)
    return 0


def _version(deployment: Deployment) -> str:
    """What is deployed when no version is named."""
    name, previous = deployment.spec.name, deployment.promotion.before(deployment.environment)
    if previous is not None:
        live = deployment.ops.aliases(name, previous).get(Alias.CHAMPION)
        if live is None:
            raise ConfigError(f"{name} has no live version in {previous}; accepted: deploy it there first")
        return live
    for one in deployment.ops.versions(name):
        if one.state is VersionState.APPROVED:
            return one.version
    raise ConfigError(f"{name} has no approved version; accepted: run.py --pipeline train --model {name} first")
