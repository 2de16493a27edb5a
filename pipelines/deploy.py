"""Check a version, then begin its rollout; it ends when the rollout has begun, not when it is over (R4.1 to R4.5)."""

from __future__ import annotations

from zenml import pipeline

from lifecycle.approvals import ApprovalPolicy
from lifecycle.spec import ModelSpec
from steps.check_version import check_version
from steps.load_model_file import load_model_file
from steps.start_rollout import start_rollout


@pipeline(name="deploy")
def deploy(
    spec: ModelSpec, version: str, policy: ApprovalPolicy, strategy: str, run_id: str, facts: dict[str, str]
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
    run_id
        The ops store's run.
    facts
        Who asked, and why.
    """
    checked = check_version(model=spec.name, version=version)
    start_rollout(
        spec=load_model_file(spec=spec), version=checked, policy=policy, strategy=strategy, run_id=run_id, facts=facts
    )


def run_deploy_pipeline(
    spec: ModelSpec, version: str, policy: ApprovalPolicy, *, strategy: str, run_id: str, facts: dict[str, str]
) -> None:
    """Run the pipeline on the active stack and wait for its end, which is soon."""
    from zenml.enums import ExecutionMode

    configured = deploy.with_options(
        run_name=f"deploy {spec.name} {version} {run_id.rsplit('-', 1)[-1]}",
        tags=[spec.name],
        enable_step_logs=False,
        execution_mode=ExecutionMode.FAIL_FAST,
    )
    configured(spec=spec, version=version, policy=policy, strategy=strategy, run_id=run_id, facts=facts)
