"""The saved model takes raw features and answers as the encoding and the network do, wherever TensorFlow is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from adapters import saved_model
from adapters.fitting import FittedModel, export, fit
from adapters.network import Network
from adapters.saved_model import SavedModel, score
from lifecycle.encoding import read_columns
from tests.adapters.small_training import found, rows, spec

pytestmark = pytest.mark.requirement("R3.5", "R3.8")

NUMBERS = [0.0, -1.5, 3.0, 1e300, -1e301, 1.8e308, np.inf, -np.inf, np.nan, 5e-324, 1e12, -1e12]
KINDS = ["a", "b", "c", "", None, np.nan, "never met", "Ａ", "تهران", "🛫", "a ", "a\0", "x" * 300, "y" * 1_000_000]
ODD = pd.DataFrame(
    {"x": [number for number in NUMBERS for _ in KINDS], "kind": pd.Series(KINDS * len(NUMBERS), dtype=object)}
)


@pytest.fixture(scope="module")
def fitted() -> FittedModel:
    return fit(rows(), np.arange(480), spec(), found(threshold=0.55), 1)


@pytest.fixture(scope="module")
def folder(fitted: FittedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "saved_model"
    export(fitted, folder)
    return folder


def through_the_encoding(fitted: FittedModel, frame: pd.DataFrame) -> np.ndarray:
    network = Network(fitted.shape)
    network.restore(fitted.encoding, fitted.weights)
    encoded = fitted.encoding.transform(read_columns(frame, fitted.spec))
    return fitted.tuning.calibration.apply(network.logits(network.place(encoded)))


@pytest.mark.parametrize("frame", [ODD, rows()], ids=["odd values", "training rows"])
def test_raw_values_score_as_encoded_ones(fitted: FittedModel, folder: Path, frame: pd.DataFrame):
    scores = score(folder, frame)
    assert np.isfinite(scores).all()
    assert scores == pytest.approx(through_the_encoding(fitted, frame), abs=1e-6)


def test_a_decision_is_a_score_that_reaches_the_threshold(folder: Path):
    told = SavedModel(folder).predict(rows())
    assert told["decision"].tolist() == (told["score"] >= 0.55).astype(int).tolist()
    assert set(told["decision"]) == {0, 1}


@pytest.mark.parametrize(
    "kinds",
    [
        pd.Series(["a", None, "b"], dtype="category"),
        pd.Series(["a", None, "b"], dtype="string"),
        pd.Series(["a", "", "b"], dtype=object),
    ],
    ids=["category", "string", "object"],
)
@pytest.mark.parametrize(
    "numbers",
    [
        pd.Series([1, None, 3], dtype="Int64"),
        pd.Series([1.0, None, 3.0], dtype=object),
        pd.Series([1.0, np.nan, 3.0], dtype=np.float32),
    ],
    ids=["Int64", "object", "float32"],
)
def test_the_type_that_a_column_happens_to_have_does_not_matter(folder: Path, numbers: pd.Series, kinds: pd.Series):
    plain = pd.DataFrame({"x": [1.0, np.nan, 3.0], "kind": ["a", None, "b"]})
    told = score(folder, pd.DataFrame({"x": numbers, "kind": kinds}))
    assert told.tolist() == score(folder, plain).tolist()


def test_text_that_is_no_text_counts_as_unseen(folder: Path):
    frame = pd.DataFrame({"x": [1.0, 1.0], "kind": ["\ud800", "never met"]})
    told = score(folder, frame)
    assert told[0] == told[1]


def test_a_feature_that_is_missing_is_named(folder: Path):
    with pytest.raises(KeyError, match=r"feature 'kind' is missing; accepted: .*x"):
        score(folder, rows()[["x"]])


def test_columns_that_are_no_features_and_the_index_are_left_alone(folder: Path):
    frame = rows().set_index(pd.Index([f"row {place}" for place in range(600)]))
    told = SavedModel(folder).predict(frame.assign(x_squared=frame["x"] ** 2))
    assert told.index.equals(frame.index)
    assert told["score"].tolist() == score(folder, frame[["kind", "x"]]).tolist()


def test_no_rows_have_no_scores(folder: Path):
    told = SavedModel(folder).predict(rows().iloc[:0])
    assert told.dtypes.astype(str).to_dict() == {"score": "float64", "decision": "int64"}
    assert len(told) == 0


def test_rows_scored_in_parts_score_as_one(folder: Path, monkeypatch: pytest.MonkeyPatch):
    whole = score(folder, rows())
    monkeypatch.setattr(saved_model, "BATCH_ROWS", 7)
    assert score(folder, rows()) == pytest.approx(whole, abs=1e-9)


def alone(program: str, folder: Path, *arguments: str) -> Any:
    """Answer of a Python that knows nothing of this project, and says nothing on its terminal."""
    # -I: neither the working directory nor PYTHONPATH is searched.
    command = [sys.executable, "-I", "-c", program, *arguments]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return json.loads(ended.stdout.splitlines()[-1]), ended.stderr


def test_it_answers_where_nothing_but_tensorflow_is(folder: Path, tmp_path: Path):
    program = """
import json, sys
import tensorflow as tf
asked = json.loads(sys.argv[2])
signature = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
told = signature(x=tf.constant(asked["x"], tf.float64), kind=tf.constant(asked["kind"]))
assert not [name for name in sys.modules if name.split(".")[0] in ("adapters", "lifecycle")]
print(json.dumps({name: value.numpy().tolist() for name, value in told.items()}))
"""
    frame = ODD[ODD["kind"].notna() & np.isfinite(ODD["x"]) & (ODD["kind"].str.len() < 99)]
    asked = json.dumps({name: frame[name].tolist() for name in ("x", "kind")})
    told, _ = alone(program, tmp_path, str(folder), asked)
    assert told["score"] == pytest.approx(score(folder, frame), abs=1e-12)
    assert told["decision"] == SavedModel(folder).predict(frame)["decision"].tolist()


def test_its_loader_needs_nothing_else_of_this_project_and_is_quiet(folder: Path, tmp_path: Path):
    shutil.copy(Path(saved_model.__file__), tmp_path / "loader.py")
    program = """
import json, sys
sys.path.insert(0, ".")
import pandas as pd
import loader
told = loader._load_pyfunc(sys.argv[1]).predict(pd.DataFrame({"x": [0.5, None], "kind": ["a", None]}))
print(json.dumps(told["score"].tolist()))
"""
    told, noise = alone(program, tmp_path, str(folder.parent))
    assert told == pytest.approx(score(folder, pd.DataFrame({"x": [0.5, None], "kind": ["a", None]})), abs=1e-12)
    assert noise == ""
