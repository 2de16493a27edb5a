"""A version's reference as a Parquet file: what registration keeps and monitoring reads (R5.2 to R5.6)."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from lifecycle.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


def encode(rows: pd.DataFrame) -> bytes:
    """The rows as Parquet."""
    file = io.BytesIO()
    rows.to_parquet(file, index=False, compression="zstd")
    return file.getvalue()


def decode(path: Path) -> pd.DataFrame:
    """Inverse of `encode`; DataError for a file that is none."""
    import pandas as pd
    import pyarrow as pa

    try:
        return pd.read_parquet(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        told = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DataError(f"{path.name} is no reference: {told}; accepted: the file that was registered") from None
