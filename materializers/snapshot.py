"""Snapshots: Parquet, named by content, with a profile of their columns (R3.4)."""

from __future__ import annotations

import io
from datetime import datetime
from typing import Any, ClassVar

import pandas as pd
from pyarrow import ArrowException
from zenml.enums import ArtifactType, VisualizationType

from lifecycle.errors import DataError
from lifecycle.quality import shorten
from lifecycle.snapshot import FetchCounts, Snapshot, content_name
from materializers.files import FileMaterializer

_STYLE = (
    'body { font: 13px "DejaVu Sans", sans-serif } table { border-collapse: collapse } '
    "th, td { padding: 3px 9px; text-align: left; white-space: nowrap; border-bottom: 1px solid #d5d9de }"
)


class SnapshotMaterializer(FileMaterializer):
    """Keeps a `Snapshot`; a file whose content does not match its name is refused."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Snapshot,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA

    def save(self, data: Snapshot) -> None:
        """Write the rows and what is known about them."""
        buffer = io.BytesIO()
        data.frame.to_parquet(buffer, index=False, compression="zstd")
        self.write_bytes("rows.parquet", buffer.getvalue())
        self.write_json(
            "snapshot.json",
            {
                "name": data.name,
                "as_of": data.as_of.isoformat(),
                "window_start": data.window_start.isoformat(),
                "counts": data.counts.to_dict(),
                "dtypes": {str(name): str(dtype) for name, dtype in data.frame.dtypes.items()},
            },
        )

    def load(self, data_type: type[Any]) -> Snapshot:  # noqa: ARG002 - one type
        """Read it back and check the content against its name; DataError when it was changed."""
        facts = self.read_json("snapshot.json")
        try:
            frame = pd.read_parquet(io.BytesIO(self.read_bytes("rows.parquet"))).astype(facts["dtypes"])
        except (ArrowException, OSError, KeyError, ValueError) as error:
            raise DataError(
                f"snapshot {facts['name']} cannot be read ({shorten(error)}); accepted: what was fetched, unchanged"
            ) from None
        for name in frame.columns[[dtype.kind == "O" for dtype in frame.dtypes]]:
            frame[name] = frame[name].where(frame[name].notna(), None)
        found = content_name(frame)
        if found != facts["name"]:
            raise DataError(
                f"snapshot {facts['name']} holds other rows ({found}); accepted: what was fetched, unchanged"
            )
        return Snapshot(
            name=facts["name"],
            frame=frame,
            as_of=datetime.fromisoformat(facts["as_of"]),
            window_start=datetime.fromisoformat(facts["window_start"]),
            counts=FetchCounts(**facts["counts"]),
        )

    def compute_content_hash(self, data: Snapshot) -> str:
        """Name the content: later steps are reused on equal data."""
        return data.name

    def extract_metadata(self, data: Snapshot) -> dict[str, Any]:
        """Tell the dashboard what a person asks first."""
        return {
            "snapshot": data.name,
            "as_of": data.as_of.isoformat(),
            "window_start": data.window_start.isoformat(),
            "columns": data.frame.shape[1],
            **data.counts.to_dict(),
        }

    def save_visualizations(self, data: Snapshot) -> dict[str, VisualizationType]:
        """Show what each column holds and the first rows, as a page."""
        columns = pd.DataFrame([_column(str(name), data.frame[name]) for name in data.frame]).fillna("")
        rows = data.frame.head(20)
        tables = [
            table.to_html(border=0, na_rep="", index=False, float_format="{:.4g}".format) for table in (columns, rows)
        ]
        page = f"<style>{_STYLE}</style><h3>Columns</h3>{tables[0]}<h3>First rows</h3>{tables[1]}"
        return {self.write_text("profile.html", page): VisualizationType.HTML}


def _column(name: str, values: pd.Series[Any]) -> dict[str, str]:
    """What a column holds, in words."""
    known = values.dropna()
    told = {
        "column": name,
        "type": str(values.dtype),
        "missing": f"{values.isna().mean():.1%}" if len(values) else "no rows",
    }
    if known.empty:
        return told
    if values.dtype.kind == "O":
        frequent = known.value_counts()
        share = f" ({frequent.iloc[0] / len(known):.0%})"
        return {**told, "distinct": f"{len(frequent):,}", "most frequent": shorten(frequent.index[0], 40) + share}
    if values.dtype.kind == "M":
        return {**told, "smallest": f"{known.min():%Y-%m-%d %H:%M}", "largest": f"{known.max():%Y-%m-%d %H:%M}"}
    return {**told, "smallest": f"{known.min():.4g}", "mean": f"{known.mean():.4g}", "largest": f"{known.max():.4g}"}
