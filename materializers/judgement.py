"""Judgements: JSON, with the gates on one picture."""

from __future__ import annotations

from typing import Any, ClassVar

from zenml.enums import ArtifactType, VisualizationType

from adapters.figures import gates_figure
from lifecycle.judgement import Judgement
from materializers.files import FileMaterializer


class JudgementMaterializer(FileMaterializer):
    """Keeps a `Judgement`."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Judgement,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA_ANALYSIS

    def save(self, data: Judgement) -> None:
        """Write it as JSON."""
        self.write_json("judgement.json", data.to_dict())

    def load(self, data_type: type[Any]) -> Judgement:  # noqa: ARG002 - one type
        """Read it back."""
        return Judgement.from_dict(self.read_json("judgement.json"))

    def extract_metadata(self, data: Judgement) -> dict[str, Any]:
        """Tell the decision and its reasons."""
        return {"decision": data.decision.state.value, "reasons": list(data.decision.reasons) or ["none"]}

    def save_visualizations(self, data: Judgement) -> dict[str, VisualizationType]:
        """Show each gate's value beside its threshold."""
        return {self.write_bytes("gates.png", gates_figure(data.findings)): VisualizationType.IMAGE}
