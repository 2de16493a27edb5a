"""A trained model's ONNX twin answers as the SavedModel does; what is no plain arithmetic is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper

from adapters.fitting import export, fit
from adapters.onnx_model import OnnxModel, refuse_hostile
from adapters.saved_model import score, tensorflow
from adapters.twin_export import NoTwinError, export_twin
from lifecycle.errors import ConfigError
from lifecycle.findings import Verdict, worst
from lifecycle.twins import judge_twin, probing_rows, raw_columns
from tests.adapters.small_training import found, rows, spec

pytestmark = pytest.mark.requirement("R2.3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "saved_model"
    export(fit(rows(), np.arange(480), spec(), found(threshold=0.55), 1), folder)
    return folder


@pytest.fixture(scope="module")
def content(folder: Path) -> bytes:
    return export_twin(folder)


@pytest.mark.parametrize("frame", [rows(), probing_rows(spec(), rows().iloc[1:])], ids=["rows", "odd rows"])
def test_the_twin_scores_as_the_model(folder: Path, content: bytes, frame):
    refuse_hostile(content)
    twin = OnnxModel(content).score(raw_columns(spec(), frame))
    assert worst(judge_twin(score(folder, frame), twin, 0.55, subject="s", window="w")) is Verdict.PASS


def test_inputs_are_the_features_by_kind(content: bytes):
    assert OnnxModel(content).inputs == {"x": True, "kind": False}


def saved(folder: Path, *names: str) -> Path:
    """A SavedModel that adds up its features."""
    tf = tensorflow()
    module = tf.Module()

    def serve(**raw):
        score = tf.sigmoid(tf.add_n([raw[name] * (place + 1) for place, name in enumerate(names)]))
        return {"score": score, "decision": tf.cast(score >= 0.5, tf.int64)}

    module.serve = tf.function(serve)
    signature = {name: tf.TensorSpec([None], tf.float64, name=name) for name in names}
    tf.saved_model.save(module, str(folder), signatures=module.serve.get_concrete_function(**signature))
    return folder


def test_features_keep_their_names_with_capitals(tmp_path: Path):
    folder = saved(tmp_path / "m", "AGEP", "years_of_Schooling", "x")
    twin = OnnxModel(export_twin(folder))
    assert set(twin.inputs) == {"AGEP", "years_of_Schooling", "x"}
    frame = pd.DataFrame({"AGEP": [0.1, 0.2], "years_of_Schooling": [-0.3, 0.4], "x": [1.0, -1.0]})
    columns = {name: frame[name].to_numpy() for name in frame}
    assert twin.score(columns) == pytest.approx(score(folder, frame))


def test_a_folder_without_a_model_has_no_twin_and_says_why(tmp_path: Path):
    with pytest.raises(NoTwinError, match="tf2onnx: "):
        export_twin(tmp_path)


def simple(*nodes: onnx.NodeProto, **graph: object) -> bytes:
    """A model with an input x, an output score, and these nodes."""
    made = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None])],
        [helper.make_tensor_value_info("score", TensorProto.DOUBLE, [None])],
        **graph,
    )
    domains = sorted({node.domain for node in nodes} | {""})
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid(domain, 18 if not domain else 1) for domain in domains]
    )
    model.ir_version = 8
    return model.SerializeToString()


def custom() -> bytes:
    return simple(helper.make_node("RunCommand", ["x"], ["score"], domain="evil", command="id"))


def control_flow() -> bytes:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["s"])],
        "i",
        [],
        [helper.make_tensor_value_info("s", TensorProto.DOUBLE, None)],
    )
    condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    return simple(
        helper.make_node("Constant", [], ["c"], value=condition),
        helper.make_node("If", ["c"], ["score"], then_branch=inner, else_branch=inner),
    )


def external() -> bytes:
    weights = TensorProto(name="w", data_type=TensorProto.DOUBLE, dims=[1], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value="../../etc/passwd")
    return simple(helper.make_node("Add", ["x", "w"], ["score"]), initializer=[weights])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: b"", "not an ONNX model"),
        (lambda: b"\x80\x04\x95cos\nsystem\n", "not an ONNX model"),
        (lambda: b"PK\x03\x04" + b"\0" * 64, "not an ONNX model"),
        (custom, "evil:RunCommand|not an ONNX model"),
        (control_flow, "holds If"),
        (external, "not an ONNX model|files beside it"),
    ],
    ids=["empty", "pickle", "zip", "custom operation", "control flow", "a file beside it"],
)
def test_what_is_no_plain_arithmetic_is_refused_with_its_reason(make: Callable[[], bytes], reason: str):
    with pytest.raises(ConfigError, match=reason):
        refuse_hostile(make())


def test_every_way_of_cutting_a_twin_short_is_refused(content: bytes):
    for share in (0.1, 0.5, 0.9, 0.999):
        with pytest.raises(ConfigError):
            refuse_hostile(content[: int(len(content) * share)])


def test_a_model_without_a_score_is_refused():
    made = onnx.load_model_from_string(simple(helper.make_node("Identity", ["x"], ["score"])))
    made.graph.output[0].name = "y"
    made.graph.node[0].output[0] = "y"
    with pytest.raises(ConfigError, match="no output named score"):
        OnnxModel(made.SerializeToString())


def test_what_the_runtime_cannot_load_is_an_answer():
    with pytest.raises(ConfigError, match="ONNX Runtime cannot load"):
        OnnxModel(b"nothing")
