"""Evaluations: JSON, with their pictures."""

from __future__ import annotations

from typing import Any, ClassVar

from zenml.enums import ArtifactType, VisualizationType

from adapters.figures import evaluation_figures
from lifecycle.evaluation import Evaluation
from materializers.files import FileMaterializer


class EvaluationMaterializer(FileMaterializer):
    """Keeps an `Evaluation`."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Evaluation,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA_ANALYSIS

    def save(self, data: Evaluation) -> None:
        """Write it as JSON."""
        self.write_json("evaluation.json", data.to_dict())

    def load(self, data_type: type[Any]) -> Evaluation:  # noqa: ARG002 - one type
        """Read it back."""
        return Evaluation.from_dict(self.read_json("evaluation.json"))

    def extract_metadata(self, data: Evaluation) -> dict[str, Any]:
        """Tell the measures."""
        found = {name: estimate.value for name, estimate in data.metrics.items() if estimate.value is not None}
        return {"rows": data.rows, "threshold": data.threshold, **found}

    def save_visualizations(self, data: Evaluation) -> dict[str, VisualizationType]:
        """Show curves, calibration, slices and groups."""
        return {
            self.write_bytes(f"{name}.png", picture): VisualizationType.IMAGE
            for name, picture in evaluation_figures(data).items()
        }
