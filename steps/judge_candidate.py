"""Judge the candidate by the model file's gates, on record (R3.7, R7.3)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from zenml import step

from adapters.ops_store import OpsStore
from adapters.services import Services
from lifecycle.evaluation import Evaluation
from lifecycle.findings import Finding
from lifecycle.gates import decide, judge_gates
from lifecycle.judgement import Judgement
from lifecycle.spec import ModelSpec
from materializers.judgement import JudgementMaterializer
from steps.progress import tell


@step(enable_cache=False, output_materializers=JudgementMaterializer)
def judge_candidate(
    evaluation: Evaluation, drift: list[dict[str, Any]], spec: ModelSpec, run_id: str
) -> Annotated[Judgement, "judgement"]:
    """Compare each gate with the evaluation; only an override on record lets a failed one pass.

    Parameters
    ----------
    evaluation
        The candidate on its hold-out.
    drift
        Findings about the hold-out's features; on record beside the gates', and no gate themselves.
    spec
        The model file.
    run_id
        The ops store's run.
    """
    now = datetime.now(UTC)
    ops = OpsStore.open(Services.from_environment().ops)
    findings = judge_gates(spec, evaluation)
    decision = decide(spec, findings, ops.overrides_in_force(spec.name, now), now)
    ops.record_findings(run_id, "drift", [Finding.from_dict(one) for one in drift], now=now, model=spec.name)
    ops.record_findings(run_id, "gates", findings, now=now, model=spec.name)
    tell("judge", f"{decision.state.value}: {decision.reasons[0]}", 1, 1)
    return Judgement(tuple(findings), decision)
