"""Check a version, also on what came since its training, then begin its rollout; it ends when the rollout has begun, not when it is over (R4.1 to R4.5)."""

from __future__ import annotations

from datetime import datetime

from zenml import pipeline

from lifecycle.approvals import ApprovalPolicy
from lifecycle.spec import ModelSpec
from steps.check_since_training import check_since_training
from steps.check_version import check_version
from steps.load_model_file import load_model_file
from steps.start_rollout import start_rollout


@pipeline(name="deploy")
def deploy(
    spec: ModelSpec, version: str, policy: ApprovalPolicy, strategy: str, as_of: str, run_id: str, facts: dict[str, str]
) -> None:
    """Begin one version's way to its users.

    Parameters
    ----------
    spec
        The model file.
    version
        Its number in the registry.
    policy
        Who has to agree.
    strategy
        canary, blue_green or shadow.
    as_of
        ISO 8601 moment: labelled rows up to it count.
    run_id
        The ops store's run.
    facts
        Who asked, and why.
    """
    model_file = load_model_file(spec=spec)
    approved = check_version(model=spec.name, version=version)
    checked = check_since_training(spec=model_file, version=approved, as_of=as_of, run_id=run_id)
    start_rollout(spec=model_file, version=checked, policy=policy, strategy=strategy, run_id=run_id, facts=facts)


def run_deploy_pipeline(
    spec: ModelSpec,
    version: str,
    policy: ApprovalPolicy,
    *,
    strategy: str,
    as_of: datetime,
    run_id: str,
    facts: dict[str, str],
) -> None:
    """Run the pipeline on the active stack and wait for its end, which is soon."""
    from zenml.enums import ExecutionMode

    configured = deploy.with_options(
        run_name=f"deploy {spec.name} {version} {run_id.rsplit('-', 1)[-1]}",
        tags=[spec.name],
        enable_step_logs=False,
        execution_mode=ExecutionMode.FAIL_FAST,
    )
    configured(
        spec=spec,
        version=version,
        policy=policy,
        strategy=strategy,
        as_of=as_of.isoformat(),
        run_id=run_id,
        facts=facts,
    )
