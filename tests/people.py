"""Members for tests of monitoring: features, what a version says of them, and what came true."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from lifecycle.reference import reference_rows
from lifecycle.spec import ModelSpec

DAY = timedelta(days=1)


def people(rows: int, seed: int, **columns: Any) -> pd.DataFrame:
    """Rows; `columns` replace what the version was told, while the world stays as it was."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "activity": rng.normal(size=rows),
            "visits": rng.integers(0, 40, rows).astype(float),
            "plan": rng.choice(["basic", "plus", "pro"], rows),
            "gender": rng.choice(["f", "m"], rows),
        }
    )
    truth = 1 / (1 + np.exp(-2 * (frame["activity"] + (frame["plan"] == "pro"))))
    frame = frame.assign(**columns)
    frame["score"] = 1 / (1 + np.exp(-2 * (frame["activity"] + (frame["plan"] == "pro"))))
    frame["churned"] = (rng.random(rows) < truth).astype(int)
    return frame


def holdout(spec: ModelSpec, rows: int = 4_000, seed: int = 1, weeks: int = 6) -> pd.DataFrame:
    """A reference over some weeks."""
    frame = people(rows, seed)
    frame[spec.source.timestamp] = pd.date_range("2026-01-05", periods=rows, freq=weeks * 7 * DAY / rows, tz="UTC")
    return reference_rows(spec, frame, frame["score"])
