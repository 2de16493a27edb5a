"""SavedModels: a folder, kept file by file, with the facts of its training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from zenml.enums import ArtifactType
from zenml.utils import io_utils

from lifecycle.trained_model import TrainedModel
from materializers.files import FileMaterializer


class SavedModelMaterializer(FileMaterializer):
    """Keeps a `TrainedModel`: what TensorFlow wrote, byte for byte."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (TrainedModel,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL

    def save(self, data: TrainedModel) -> None:
        """Copy the folder, then write the facts: an artifact with facts is whole."""
        io_utils.copy_dir(str(data.folder), self.path("saved_model"))
        self.write_json("facts.json", {"content": data.content, "facts": data.facts})

    def load(self, data_type: type[Any]) -> TrainedModel:  # noqa: ARG002 - one type
        """Copy the folder to a temporary one that lives as long as the step."""
        facts = self.read_json("facts.json")
        with self.get_temporary_directory(delete_at_exit=False, delete_after_step_execution=True) as temporary:
            folder = Path(temporary) / "saved_model"
            io_utils.copy_dir(self.path("saved_model"), str(folder))
        return TrainedModel(folder=folder, content=facts["content"], facts=facts["facts"])

    def compute_content_hash(self, data: TrainedModel) -> str:
        """Name the content: equal weights, vocabularies, calibration and threshold."""
        return data.content

    def extract_metadata(self, data: TrainedModel) -> dict[str, Any]:
        """Tell the facts of the training."""
        return {"content": data.content, **{key: value for key, value in data.facts.items() if value is not None}}
