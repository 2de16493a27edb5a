"""Quality reports: findings, raw results, and Great Expectations' data docs as the picture."""

from __future__ import annotations

from typing import Any, ClassVar

from zenml.enums import ArtifactType, VisualizationType

from lifecycle.findings import Finding
from lifecycle.quality import QualityReport
from materializers.files import FileMaterializer


class QualityReportMaterializer(FileMaterializer):
    """Keeps a `QualityReport`."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (QualityReport,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA_ANALYSIS

    def save(self, data: QualityReport) -> None:
        """Write findings and results as JSON, the data docs as a page."""
        self.write_json(
            "report.json",
            {
                "findings": [finding.to_dict() for finding in data.findings],
                "results": data.results,
                "failing_rows": data.failing_rows,
            },
        )
        self.write_text("data_docs.html", data.data_docs)

    def load(self, data_type: type[Any]) -> QualityReport:  # noqa: ARG002 - one type
        """Read it back."""
        report = self.read_json("report.json")
        return QualityReport(
            findings=[Finding.from_dict(values) for values in report["findings"]],
            results=report["results"],
            data_docs=self.read_bytes("data_docs.html").decode(),
            failing_rows=report["failing_rows"],
        )

    def extract_metadata(self, data: QualityReport) -> dict[str, Any]:
        """Tell the verdict and how many checks came to which."""
        return {"verdict": data.verdict.label, "checks": len(data.findings)}

    def save_visualizations(self, data: QualityReport) -> dict[str, VisualizationType]:  # noqa: ARG002 - written by save
        """Show the data docs."""
        return {self.path("data_docs.html"): VisualizationType.HTML}
