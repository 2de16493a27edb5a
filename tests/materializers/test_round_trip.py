"""What is saved loads back equal, and tells the dashboard what it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lifecycle.calibration import Calibration
from lifecycle.errors import DataError
from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.gates import Decision, State
from lifecycle.judgement import Judgement
from lifecycle.quality import QualityReport
from lifecycle.snapshot import FetchCounts, Snapshot, content_name
from lifecycle.splitting import Split
from lifecycle.trained_model import TrainedModel
from lifecycle.training import Hyperparameters, TuningResult
from materializers.evaluation import EvaluationMaterializer
from materializers.judgement import JudgementMaterializer
from materializers.quality_report import QualityReportMaterializer
from materializers.saved_model import SavedModelMaterializer
from materializers.snapshot import SnapshotMaterializer
from materializers.split import SplitMaterializer
from materializers.tuning_result import TuningResultMaterializer

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.requirement("RO.2")

FINDING = Finding(
    "roc_auc", "<script>all</script>", 0.7, 0.6, Direction.AT_LEAST, "w", Verdict.PASS, "fine", 9, (0.6, 0.8)
)
NOTHING = Finding("f1", "gender", None, None, Direction.AT_LEAST, "w", Verdict.NO_DATA, "3 rows, 9 needed")


def snapshot(rows: int = 30) -> Snapshot:
    frame = pd.DataFrame(
        {
            "id": [f"k{number}" for number in range(rows)],
            "ts": pd.date_range("2026-01-01", periods=rows, freq="h", tz="UTC").astype("datetime64[us, UTC]"),
            "x": [np.nan if number % 3 else number / 7 for number in range(rows)],
            "c": [("é <b>", None, "")[number % 3] for number in range(rows)],
            "all_missing": pd.Series([None] * rows, dtype=object),
            "y": pd.Series([number % 2 for number in range(rows)], dtype="int8"),
        }
    )
    moment = datetime(2026, 2, 1, tzinfo=UTC)
    return Snapshot(
        content_name(frame), frame, moment, datetime(2025, 8, 1, tzinfo=UTC), FetchCounts(40, 4, 6, rows, rows)
    )


def tuning() -> TuningResult:
    trials = pd.DataFrame(
        {"number": [0, 1], "state": ["complete", "pruned"], "roc_auc": [0.7, np.nan], "seconds": [1.5, 0.2]}
    )
    return TuningResult(
        best=Hyperparameters(0.001, 1e-05, 0.1, 64, 2, 32),
        epochs=7,
        trials=trials,
        out_of_fold=np.array([0.25, np.nan, -3.5]),
        calibration=Calibration(1.25, -0.1),
        threshold=0.216,
        fold_aucs=(0.7, 0.71),
        plots={"history": "<p>plot</p>"},
        study="flight_delay",
    )


def folder_of(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(bytes(range(256)))
    (folder / "variables" / "variables.index").write_bytes(b"\x00weights")
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


@pytest.mark.parametrize("rows", [0, 1, 30])
def test_a_snapshot_loads_back_equal_with_its_types(stored: Any, rows: int):
    kept, materializer = snapshot(rows), stored(SnapshotMaterializer)
    materializer.save(kept)
    loaded = materializer.load(Snapshot)
    pd.testing.assert_frame_equal(loaded.frame, kept.frame)
    assert [value for value in loaded.frame["c"] if not isinstance(value, str)] == [None] * len(kept.frame["c"][1::3])
    assert (loaded.name, loaded.as_of, loaded.window_start, loaded.counts) == (
        kept.name,
        kept.as_of,
        kept.window_start,
        kept.counts,
    )
    assert materializer.compute_content_hash(loaded) == kept.name


def test_a_snapshot_whose_rows_were_changed_is_refused(stored: Any):
    kept, materializer = snapshot(), stored(SnapshotMaterializer)
    materializer.save(kept)
    path = Path(materializer.path("rows.parquet"))
    changed = pd.read_parquet(path)
    changed.loc[3, "y"] = 1 - changed.loc[3, "y"]
    changed.to_parquet(path, index=False)
    with pytest.raises(DataError, match=rf"snapshot {kept.name} holds other rows \([0-9a-f]{{16}}\); accepted"):
        materializer.load(Snapshot)


@pytest.mark.parametrize("damage", ["cut", "emptied", "flipped", "column dropped"])
def test_a_damaged_snapshot_file_is_refused(stored: Any, damage: str):
    materializer = stored(SnapshotMaterializer)
    materializer.save(snapshot())
    path = Path(materializer.path("rows.parquet"))
    whole = path.read_bytes()
    if damage == "column dropped":
        pd.read_parquet(path).drop(columns="x").to_parquet(path, index=False)
    else:
        middle = len(whole) // 4
        flipped = whole[:middle] + bytes(255 - byte for byte in whole[middle : middle + 64]) + whole[middle + 64 :]
        path.write_bytes({"cut": whole[:-40], "emptied": b"", "flipped": flipped}[damage])
    with pytest.raises(DataError, match="accepted: what was fetched, unchanged"):
        materializer.load(Snapshot)


def test_a_snapshots_profile_shows_values_as_text(stored: Any):
    materializer, kept = stored(SnapshotMaterializer), snapshot()
    (page,) = materializer.save_visualizations(kept)
    text = Path(page).read_text(encoding="utf-8")
    assert "é &lt;b&gt;" in text
    assert "<b>" not in text
    assert [line for line in text.splitlines() if "33.3%" in line], "a third of c is missing"
    assert "2026-01-02 05:00" in text
    assert materializer.extract_metadata(kept)["never_labelled"] == 6


@pytest.mark.parametrize("rows", [0, 1])
def test_a_snapshot_of_no_row_or_one_has_a_profile(stored: Any, rows: int):
    (page,) = stored(SnapshotMaterializer).save_visualizations(snapshot(rows))
    assert ("no rows" in Path(page).read_text(encoding="utf-8")) == (rows == 0)


def test_a_split_loads_back_equal_and_is_named_by_its_rows(stored: Any):
    kept = Split(
        np.arange(8), np.arange(8, 10), ((np.arange(4), np.arange(4, 6)), (np.arange(6), np.array([], dtype=np.intp)))
    )
    materializer = stored(SplitMaterializer)
    materializer.save(kept)
    loaded = materializer.load(Split)
    np.testing.assert_array_equal(loaded.train, kept.train)
    np.testing.assert_array_equal(loaded.holdout, kept.holdout)
    assert len(loaded.folds) == 2
    for (fit, validate), (fit_kept, validate_kept) in zip(loaded.folds, kept.folds, strict=True):
        np.testing.assert_array_equal(fit, fit_kept)
        np.testing.assert_array_equal(validate, validate_kept)
    assert materializer.compute_content_hash(loaded) == materializer.compute_content_hash(kept)
    moved = Split(kept.train[:-1], np.arange(7, 10), kept.folds)
    assert materializer.compute_content_hash(moved) != materializer.compute_content_hash(kept)
    assert materializer.extract_metadata(kept) == {"train": 8, "holdout": 2, "folds": 2}


def test_a_split_keeps_the_order_of_ten_folds_and_more(stored: Any):
    folds = tuple((np.array([number]), np.array([number + 100])) for number in range(12))
    materializer = stored(SplitMaterializer)
    materializer.save(Split(np.arange(12), np.arange(0), folds))
    assert [int(fit[0]) for fit, _ in materializer.load(Split).folds] == list(range(12))


def test_a_tuning_result_loads_back_equal(stored: Any):
    kept, materializer = tuning(), stored(TuningResultMaterializer)
    materializer.save(kept)
    loaded = materializer.load(TuningResult)
    pd.testing.assert_frame_equal(loaded.trials, kept.trials)
    np.testing.assert_array_equal(loaded.out_of_fold, kept.out_of_fold)
    for name in ("best", "epochs", "calibration", "threshold", "fold_aucs", "plots", "study"):
        assert getattr(loaded, name) == getattr(kept, name), name
    pages = materializer.save_visualizations(kept)
    assert {Path(page).name for page in pages} == {"history.html", "trials.html"}
    assert "pruned" in Path(materializer.path("trials.html")).read_text(encoding="utf-8")


def test_an_evaluation_loads_back_equal_with_a_picture_of_everything_it_holds(stored: Any, evaluation: Any):
    materializer = stored(EvaluationMaterializer)
    materializer.save(evaluation)
    assert materializer.load(type(evaluation)) == evaluation
    pictures = [Path(page) for page in materializer.save_visualizations(evaluation)]
    assert {"roc", "calibration", "confusion", "slices", "fairness_gender"} <= {one.stem for one in pictures}
    assert all(one.read_bytes().startswith(b"\x89PNG") for one in pictures)
    assert materializer.extract_metadata(evaluation)["roc_auc"] == evaluation.metrics["roc_auc"].value


def test_a_judgement_loads_back_equal(stored: Any):
    kept = Judgement((FINDING, NOTHING), Decision(State.REJECTED, ("f1: 3 rows",), ("brier: by A until 2026-02-01",)))
    materializer = stored(JudgementMaterializer)
    materializer.save(kept)
    assert materializer.load(Judgement) == kept
    (picture,) = materializer.save_visualizations(kept)
    assert Path(picture).read_bytes().startswith(b"\x89PNG")
    assert materializer.extract_metadata(kept) == {"decision": "rejected", "reasons": ["f1: 3 rows"]}


@pytest.mark.requirement("R3.4")
def test_a_quality_report_loads_back_equal_and_shows_its_data_docs(stored: Any):
    kept = QualityReport([FINDING, NOTHING], {"a": [1, None]}, "<h1>é</h1>", {"x": [{"x": None, "t": "é"}]})
    materializer = stored(QualityReportMaterializer)
    materializer.save(kept)
    assert materializer.load(QualityReport) == kept
    (page,) = materializer.save_visualizations(kept)
    assert Path(page).read_text(encoding="utf-8") == "<h1>é</h1>"
    assert materializer.extract_metadata(kept) == {"verdict": "no data", "checks": 2}


@pytest.mark.requirement("R3.6")
def test_a_model_loads_back_byte_for_byte_into_another_folder(stored: Any, tmp_path: Path):
    folder = folder_of(tmp_path)
    kept = TrainedModel(folder, "0123456789abcdef", {"threshold": 0.2, "mlflow_run": None})
    materializer = stored(SavedModelMaterializer)
    materializer.save(kept)
    before = files_of(folder)
    (folder / "saved_model.pb").unlink()
    loaded = materializer.load(TrainedModel)
    assert loaded.folder != folder
    assert files_of(loaded.folder) == before
    assert (loaded.content, loaded.facts) == (kept.content, kept.facts)
    assert materializer.compute_content_hash(loaded) == kept.content
    assert materializer.extract_metadata(kept) == {"content": kept.content, "threshold": 0.2}


def test_a_loaded_model_lies_there_for_the_step_and_no_longer(tmp_path: Path):
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import json, sys, tempfile
            from pathlib import Path
            from typing import Annotated

            from zenml import pipeline, step
            from zenml.client import Client

            from lifecycle.trained_model import TrainedModel
            from materializers.saved_model import SavedModelMaterializer


            @step(enable_cache=False, output_materializers=SavedModelMaterializer)
            def make() -> Annotated[TrainedModel, "model"]:
                folder = Path(tempfile.mkdtemp()) / "saved_model"
                folder.mkdir()
                (folder / "saved_model.pb").write_bytes(b"graph")
                return TrainedModel(folder, "c" * 16, {})


            @step(enable_cache=False)
            def use(model: TrainedModel) -> Annotated[dict[str, str], "seen"]:
                return {"folder": str(model.folder), "graph": (model.folder / "saved_model.pb").read_text()}


            @pipeline(enable_cache=False)
            def both():
                use(make())


            if __name__ == "__main__":
                run = both()
                seen = Client().get_pipeline_run(run.id).steps["use"].output.load()
                print(json.dumps({**seen, "left": Path(seen["folder"]).exists()}))
            """
        ),
        encoding="utf-8",
    )
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "ZENML_CONFIG_PATH": str(tmp_path / "zenml"),
        "ZENML_LOCAL_STORES_PATH": str(tmp_path / "stores"),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_LOGGING_VERBOSITY": "ERROR",
    }
    ended = subprocess.run(
        [sys.executable, str(program)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    told = json.loads(ended.stdout.splitlines()[-1])
    assert told["graph"] == "graph"
    assert not told["left"]
