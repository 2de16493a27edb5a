"""Make sure that a version was live in the environment before, and gather what it showed there (R4.4)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from zenml import log_metadata, step

from adapters.ops_store import OpsStore
from adapters.rollout_store import RolloutStore
from adapters.services import Services
from lifecycle.errors import CandidateRejected
from lifecycle.findings import Verdict
from lifecycle.promotion import PromotionPolicy, track_record
from steps.progress import tell


@step(enable_cache=False)
def check_promotion(
    model: str, version: str, promotion: PromotionPolicy, environment: str, run_id: str
) -> Annotated[dict[str, Any], "track_record"]:
    """Gather a version's track record from the environment before; empty in the first environment.

    Parameters
    ----------
    model, version
        Which.
    promotion
        The order of environments.
    environment
        Where it shall go.
    run_id
        The ops store's run.

    Raises
    ------
    CandidateRejected
        It was not live there, or was rolled back, and no override is on record.
    """
    previous = promotion.before(environment)
    if previous is None:
        return {}
    ops, now = OpsStore.open(Services.from_environment().ops), datetime.now(UTC)
    changes = reversed(RolloutStore(ops, previous).history(model, limit=None))
    found = track_record(version, previous, [one.lived for one in changes], now)
    ops.record_findings(run_id, "promotion", [found.finding], now, model, version)
    told = found.to_dict()
    if found.finding.verdict is Verdict.FAIL:
        gate = found.finding.measure
        override = next((one for one in ops.overrides_in_force(model, now) if one.gate == gate), None)
        if override is None:
            raise CandidateRejected(
                f"{model}: {found.finding.reason}; accepted in {environment}: a version that was live in {previous} and "
                f"not rolled back, or an override on record (run.py override grant {model} --gate {gate})"
            )
        told["override"] = {"id": override.override_id, "person": override.person, "reason": override.reason}
    log_metadata(metadata={"from": previous, "reason": found.finding.reason})
    tell("promotion", found.finding.reason, 1, 1)
    return told
