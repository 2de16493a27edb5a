"""Splits: row numbers of hold-out and folds."""

from __future__ import annotations

import hashlib
import io
from typing import Any, ClassVar

import numpy as np
from zenml.enums import ArtifactType

from lifecycle.splitting import Split
from materializers.files import FileMaterializer


class SplitMaterializer(FileMaterializer):
    """Keeps a `Split` as arrays of row numbers."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Split,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA

    def save(self, data: Split) -> None:
        """Write the arrays."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **_arrays(data))
        self.write_bytes("split.npz", buffer.getvalue())

    def load(self, data_type: type[Any]) -> Split:  # noqa: ARG002 - one type
        """Read the arrays back."""
        with np.load(io.BytesIO(self.read_bytes("split.npz")), allow_pickle=False) as arrays:
            folds = sum(name.startswith("fit_") for name in arrays)
            return Split(
                train=arrays["train"],
                holdout=arrays["holdout"],
                folds=tuple((arrays[f"fit_{number}"], arrays[f"validate_{number}"]) for number in range(folds)),
            )

    def compute_content_hash(self, data: Split) -> str:
        """Name the content: the same rows on the same sides."""
        digest = hashlib.sha256()
        for name, array in _arrays(data).items():
            digest.update(f"{name}:{array.size};".encode() + np.ascontiguousarray(array, dtype="<i8").tobytes())
        return digest.hexdigest()[:16]

    def extract_metadata(self, data: Split) -> dict[str, Any]:
        """Tell sizes."""
        return {"train": len(data.train), "holdout": len(data.holdout), "folds": len(data.folds)}


def _arrays(data: Split) -> dict[str, np.ndarray]:
    arrays = {"train": data.train, "holdout": data.holdout}
    for number, (fit, validate) in enumerate(data.folds):
        arrays |= {f"fit_{number}": fit, f"validate_{number}": validate}
    return arrays
