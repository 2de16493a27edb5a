"""Check a version and what it showed so far, then begin its rollout; it ends when that has begun, not when it is over (R4.1 to R4.5)."""

from __future__ import annotations

from datetime import datetime

from zenml import pipeline

from lifecycle.approvals import ApprovalPolicy
from lifecycle.promotion import PromotionPolicy
from lifecycle.spec import ModelSpec
from steps.check_promotion import check_promotion
from steps.check_since_training import check_since_training
from steps.check_version import check_version
from steps.load_model_file import load_model_file
from steps.start_rollout import start_rollout


@pipeline(name="deploy")
def deploy(
    spec: ModelSpec,
    version: str,
    policy: ApprovalPolicy,
    promotion: PromotionPolicy,
    environment: str,
    strategy: str,
    as_of: str,
    run_id: str,
    facts: dict[str, str],
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
    promotion
        The order of environments.
    environment
        Where it shall go.
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
    track_record = check_promotion(
        model=spec.name, version=approved, promotion=promotion, environment=environment, run_id=run_id
    )
    checked = check_since_training(
        spec=model_file, version=approved, environment=environment, as_of=as_of, run_id=run_id, after="check_promotion"
    )
    start_rollout(
        spec=model_file,
        version=checked,
        policy=policy,
        strategy=strategy,
        environment=environment,
        track_record=track_record,
        run_id=run_id,
        facts=facts,
    )


def run_deploy_pipeline(
    spec: ModelSpec,
    version: str,
    policy: ApprovalPolicy,
    promotion: PromotionPolicy,
    *,
    environment: str,
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
        promotion=promotion,
        environment=environment,
        strategy=strategy,
        as_of=as_of.isoformat(),
        run_id=run_id,
        facts=facts,
    )
