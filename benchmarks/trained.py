"""A really trained flight model in a gateway's store, made once and kept: what the serving benchmarks ask."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adapters.fitting import export, fit
from adapters.model_files import load_model
from adapters.model_store import TWIN, ModelStore, Table, digests
from adapters.onnx_model import refuse_hostile
from adapters.sample_database import ensure_sample_database
from adapters.source import fetch
from adapters.twin_export import export_twin
from lifecycle.calibration import Calibration
from lifecycle.manifest import describe
from lifecycle.spec import ModelSpec
from lifecycle.traffic import Routing
from lifecycle.training import Hyperparameters, TuningResult

ROOT = Path(__file__).resolve().parents[1]
MODEL = "flight_delay"
ROWS, EPOCHS, ASKED = 40_000, 3, 4_000
CHOSEN = Hyperparameters(learning_rate=0.003, weight_decay=1e-4, dropout=0.1, units=64, layers=2, bins=16)
"""What a search over these flights finds, near enough; the ensemble of four is the default."""


def make(folder: Path) -> Path:
    """Fit two versions with different seeds, export and convert them, and place both in a store below `folder`.

    Returns
    -------
    Path
        `folder`: ``serving/`` is a gateway's, ``1/saved_model`` and ``1/twin.onnx`` the peers', ``rows.json`` what is
        asked: rows of flights the model was not fitted on, each with its flight's id.
    """
    done = folder / "made"
    if done.exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    spec = load_model(MODEL)
    spec = spec.model_copy(update={"source": spec.source.model_copy(update={"max_rows": ROWS + ASKED})})
    database = ensure_sample_database(folder.parent / "sample.duckdb", ROOT / "data")
    frame = fetch(spec, f"duckdb:///{database}", datetime(2014, 1, 2, tzinfo=UTC), 0).frame
    (folder / "rows.json").write_text(json.dumps([_row(spec, one) for one in frame.iloc[ROWS:].to_dict("records")]))
    store = ModelStore(folder / "serving")
    placed = {}
    for version, seed in (("1", 0), ("2", 1)):
        fitted = fit(frame, np.arange(ROWS), spec, _tuning(seed), seed)
        saved = folder / version / "saved_model"
        export(fitted, saved)
        twin = export_twin(saved)
        refuse_hostile(twin)
        (folder / version / TWIN).write_bytes(twin)
        tags = {"content": fitted.content, "threshold": str(fitted.tuning.threshold)}
        manifest = describe(spec, version, tags, "onnx", digests({TWIN: twin}))
        placed[version] = store.place(manifest, {TWIN: twin})
    store.write_table(Table(Routing(MODEL, 1, "1", candidate="2", share=0.1), placed))
    done.touch()
    return folder


def _row(spec: ModelSpec, row: dict[str, Any]) -> dict[str, Any]:
    """A flight as a client sends it."""
    names = [spec.source.entity_key, *spec.feature_names]
    return {name: None if pd.isna(row[name]) else row[name] for name in names}


def _tuning(seed: int) -> TuningResult:
    return TuningResult(CHOSEN, EPOCHS, pd.DataFrame(), np.empty(0), Calibration(1.0, 0.0), 0.3, (), {}, f"seed {seed}")


if __name__ == "__main__":
    print(make(ROOT / "var" / "bench" / "model"))
