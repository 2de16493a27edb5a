"""Files of an artifact: read and written through ZenML's artifact store, wherever that is."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

from zenml.materializers.base_materializer import BaseMaterializer


class FileMaterializer(BaseMaterializer):
    """Base of our materializers: named files below the artifact's address."""

    SKIP_REGISTRATION = True

    def path(self, name: str) -> str:
        """Address of a file of this artifact."""
        return f"{self.uri.rstrip('/')}/{PurePosixPath(name)}"

    def write_text(self, name: str, text: str) -> str:
        """Write one text file; its address."""
        return self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, content: bytes) -> str:
        """Write one file; its address."""
        with self.artifact_store.open(self.path(name), "wb") as file:
            file.write(content)
        return self.path(name)

    def write_json(self, name: str, value: Any) -> str:
        """Write one JSON file; its address. NaN and infinities are refused: they are not JSON."""
        return self.write_text(name, json.dumps(value, allow_nan=False, ensure_ascii=False))

    def read_bytes(self, name: str) -> bytes:
        """Read one file."""
        with self.artifact_store.open(self.path(name), "rb") as file:
            return bytes(file.read())

    def read_json(self, name: str) -> Any:
        """Read one JSON file."""
        return json.loads(self.read_bytes(name))
