"""Make the twin that will be served, and compare it with the model on every held-out row and on odd ones (R2.3)."""

from __future__ import annotations

from typing import Annotated, Any

from zenml import step

from adapters.onnx_model import OnnxModel, refuse_hostile
from adapters.saved_model import score
from adapters.twin_export import NoTwinError, export_twin
from lifecycle.errors import ConfigError
from lifecycle.findings import Verdict, worst
from lifecycle.snapshot import Snapshot
from lifecycle.spec import ModelSpec
from lifecycle.splitting import Split
from lifecycle.trained_model import TrainedModel
from lifecycle.training import TuningResult
from lifecycle.twins import judge_twin, probing_rows, raw_columns
from steps.progress import tell


@step
def make_twin(
    snapshot: Snapshot, split: Split, tuning: TuningResult, model: TrainedModel, spec: ModelSpec, twin_key: str
) -> tuple[Annotated[bytes, "twin"], Annotated[list[dict[str, Any]], "twin_findings"], Annotated[str, "no_twin"]]:
    """Convert the model and prove the twin equal; a twin that is not is thrown away.

    Parameters
    ----------
    snapshot, split, tuning, model
        What the model was made from, its threshold, and the model.
    spec
        The model file.
    twin_key
        What the step reads of the model file.

    Returns
    -------
    bytes
        The ONNX model, empty where the SavedModel itself will be served.
    list of dict
        Findings of the comparison; empty without a twin.
    str
        Why there is no twin; empty when there is one.
    """
    tell("twin", "convert", 0, 2)
    try:
        content = export_twin(model.folder)
        refuse_hostile(content)
        twin = OnnxModel(content)
    except (NoTwinError, ConfigError) as error:
        tell("twin", f"none: {error}", 2, 2)
        return b"", [], str(error)
    tell("twin", "compare", 1, 2)
    holdout = snapshot.frame.iloc[split.holdout]
    findings = [
        finding
        for subject, rows in (("hold-out", holdout), ("odd values", probing_rows(spec, holdout)))
        for finding in judge_twin(
            score(model.folder, rows),
            twin.score(raw_columns(spec, rows)),
            tuning.threshold,
            subject=subject,
            window=f"{len(rows):,} rows",
        )
    ]
    equal = worst(findings) is Verdict.PASS
    tell("twin", "equal" if equal else "not equal: the SavedModel will be served", 2, 2)
    told = [finding.to_dict() for finding in findings]
    return (content, told, "") if equal else (b"", told, "its scores are not the model's")
