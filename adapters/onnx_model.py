"""A version's ONNX twin in ONNX Runtime: checked against an allow-list, then scored without TensorFlow (R2.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from lifecycle.errors import ConfigError
from lifecycle.file_kinds import kind_of_file

_STANDARD = """
    Abs Add And Cast Ceil Clip Concat Constant ConstantOfShape Div Equal Erf Exp Expand Flatten Floor Gather GatherElements
    GatherND Gemm Greater GreaterOrEqual HardSigmoid Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log MatMul Max Mean Min
    Mul Neg Not OneHot Or Pad Pow Range Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Round
    ScatterND Selu Shape Sigmoid Sign Size Slice Softmax Softplus Split Sqrt Squeeze Sub Sum Tanh Tile Transpose Unsqueeze
    Where Xor Elu
"""
ALLOWED = frozenset(
    {("", name) for name in _STANDARD.split()} | {("ai.onnx.ml", "CategoryMapper"), ("ai.onnx.ml", "LabelEncoder")}
)
"""Operations a twin may hold: arithmetic and look-ups. No control flow, no files, nothing of a custom domain."""
MOST_ELEMENTS = 2**27
"""Largest tensor a twin may hold or make, in elements: 1 GiB of float64."""

Vector = npt.NDArray[Any]


def refuse_hostile(content: bytes) -> None:
    """Accept an ONNX model that does arithmetic and nothing else.

    Raises
    ------
    ConfigError
        It is no ONNX model, reads a file beside it, or holds an operation that is not on the list; which, by name.
    """
    import onnx
    from google.protobuf.message import DecodeError

    kind = kind_of_file(content)
    if kind is not None:
        raise ConfigError(f"not an ONNX model but {kind}; accepted: ONNX")
    try:
        model = onnx.load_model_from_string(content)
        # Before the checker, which looks for the files.
        _refuse_files_beside(model)
        onnx.checker.check_model(model)
        shaped = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (DecodeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise ConfigError(f"not an ONNX model: {(str(error).splitlines() or ['cut short'])[0][:200]}") from None
    if model.functions:
        raise ConfigError(f"the model defines functions of its own ({model.functions[0].name}); accepted: none")
    used = {
        (node.domain.removeprefix("ai.onnx") if node.domain == "ai.onnx" else node.domain, node.op_type)
        for node in model.graph.node
    }
    strangers = sorted(f"{domain}:{name}" if domain else name for domain, name in used - ALLOWED)
    if strangers:
        raise ConfigError(f"the model holds {', '.join(strangers)}; accepted: arithmetic and look-ups only")
    inner = [
        node.op_type for node in model.graph.node if any(one.HasField("g") or one.graphs for one in node.attribute)
    ]
    if inner:
        raise ConfigError(f"{inner[0]} holds a graph of its own; accepted: none")
    shapes = {one.name: [*one.dims] for one in model.graph.initializer}
    for value in shaped.graph.value_info:
        shapes[value.name] = [max(one.dim_value, 1) for one in value.type.tensor_type.shape.dim]
    for name, shape in shapes.items():
        if math.prod(shape) > MOST_ELEMENTS:
            raise ConfigError(f"the model's {name[:80]} has the shape {shape}; accepted: {MOST_ELEMENTS:,} elements")


def _refuse_files_beside(model: Any) -> None:
    """ConfigError when any tensor, wherever it stands, is kept in a file."""
    import onnx

    sparse = [*model.graph.sparse_initializer]
    tensors = [*model.graph.initializer]
    for attribute in (one for node in model.graph.node for one in node.attribute):
        tensors += [attribute.t, *attribute.tensors]
        sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
    tensors += [part for one in sparse for part in (one.values, one.indices)]
    if any(one.data_location == onnx.TensorProto.EXTERNAL or one.external_data for one in tensors):
        raise ConfigError("the model keeps data in files beside it; accepted: all of it inside")


class OnnxModel:
    """A loaded twin.

    Parameters
    ----------
    content
        The ONNX model, checked by `refuse_hostile` when it was made ready to serve.
    threads
        Threads of one scoring.

    Raises
    ------
    ConfigError
        ONNX Runtime cannot load it, or it does not answer with ``score``.
    """

    def __init__(self, content: bytes, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        options.log_severity_level = 4
        # Memory that a large batch took is given back, instead of being kept for the next one that large.
        options.enable_cpu_mem_arena = False
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - the runtime's errors share no class of their own
            raise ConfigError(f"ONNX Runtime cannot load the model: {str(error).splitlines()[0][:200]}") from None
        self.inputs = {one.name: one.type != "tensor(string)" for one in self._session.get_inputs()}
        """Feature: whether it is a number (float64), else a text."""
        if "score" not in {one.name for one in self._session.get_outputs()}:
            raise ConfigError("the model has no output named score; accepted: score and decision")

    def score(self, columns: Mapping[str, Vector]) -> npt.NDArray[np.float64]:
        """Probability of the positive class.

        Parameters
        ----------
        columns
            For each feature a vector of shape (rows,): float64 with NaN for missing, or objects, all of them str,
            empty for missing.

        Returns
        -------
        numpy.ndarray
            Shape (rows,), float64.
        """
        scores: npt.NDArray[np.float64] = self._session.run(["score"], columns)[0]
        return scores.reshape(-1)
