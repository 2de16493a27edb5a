"""A SavedModel read without running it: refused unless all it does is arithmetic and look-ups (R2.3)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapters.saved_model import tensorflow
from lifecycle.errors import ConfigError
from lifecycle.file_kinds import kind_of_file

MODEL = "saved_model.pb"
FILES = re.compile(r"saved_model\.pb|fingerprint\.pb|variables/variables\.(?:index|data-\d{5}-of-\d{5})")
MOST_ELEMENTS = 2**27
"""Largest tensor it may hold, in elements: 1 GiB of float64."""

_ARITHMETIC = """
    Abs Add AddN AddV2 All Any ArgMax ArgMin BatchMatMulV2 BiasAdd BroadcastTo Cast Ceil ClipByValue ConcatV2 Const Cumsum
    Div DivNoNan Elu Equal Erf Exp ExpandDims Fill Floor FloorDiv FloorMod GatherNd GatherV2 Greater GreaterEqual
    HashTableV2 Identity IdentityN IsFinite IsInf IsNan LeakyRelu Less LessEqual Log Log1p LogicalAnd LogicalNot LogicalOr
    LookupTableFindV2 LookupTableImportV2 LookupTableSizeV2 MatMul Max Maximum Mean Min Minimum Mul Neg NoOp NotEqual OneHot
    OnesLike Pack Pad PadV2 PartitionedCall Placeholder PlaceholderWithDefault Pow Prod Range Rank ReadVariableOp RealDiv
    Reciprocal Relu Relu6 Reshape ResourceGather Round Rsqrt Select SelectV2 Selu Shape Sigmoid Sign Size Slice Softmax
    Softplus Split SplitV Sqrt Square SquaredDifference Squeeze StatefulPartitionedCall StopGradient StridedSlice Sub Sum
    Tanh Tile Transpose Unpack VarHandleOp Where ZerosLike
"""
_SAVING = """
    AssignVariableOp DisableCopyOnRead MergeV2Checkpoints RestoreV2 SaveV2 ShardedFilename StaticRegexFullMatch StringJoin
"""
ALLOWED = frozenset(_ARITHMETIC.split())
"""Operations a model may hold: arithmetic, look-ups, and reading its own variables. No files, no Python, nothing custom."""
SAVER = frozenset(_SAVING.split())
"""What every SavedModel holds beside to keep and restore its variables, and what nothing else in it may reach: it writes
and reads files."""
_OBJECTS = {"_generic_user_object", "signature_map", "trackable_dict_wrapper", "trackable_list_wrapper", "trackable_tuple_wrapper"}  # fmt: skip


def refuse_hostile_saved_model(folder: Path) -> None:
    """Accept a SavedModel that does arithmetic and nothing else.

    Parameters
    ----------
    folder
        Folder that holds ``saved_model.pb``.

    Raises
    ------
    ConfigError
        It is no SavedModel, holds a file that none has (assets, Keras metadata, a pickle), an operation that is not on the
        list, a tensor too large, or a way from its signatures to where it keeps files; which, by name.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise ConfigError(f"the SavedModel holds {name}, a link to elsewhere; accepted: plain files")
        if path.is_file() and not FILES.fullmatch(name):
            with path.open("rb") as file:
                kind = kind_of_file(file.read(512))
            told = f"{name}, {kind}" if kind else name
            raise ConfigError(f"the SavedModel holds {told[:200]}; accepted: {MODEL} and its variables, nothing else")
    try:
        content = (folder / MODEL).read_bytes()
    except OSError as error:
        raise ConfigError(f"{MODEL} cannot be read: {error.strerror}") from None
    _refuse(_parsed(content))


def _parsed(content: bytes) -> Any:
    from google.protobuf.message import DecodeError

    kind = kind_of_file(content)
    if kind is not None:
        raise ConfigError(f"{MODEL} is {kind}; accepted: a SavedModel")
    tensorflow()
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString(content)
    except DecodeError:
        raise ConfigError(f"{MODEL} is no SavedModel or cut short") from None
    if not model.meta_graphs:
        raise ConfigError(f"{MODEL} holds no graph; accepted: a SavedModel")
    return model


def _refuse(model: Any) -> None:
    for meta in model.meta_graphs:
        graph = meta.graph_def
        functions = {one.signature.name: one for one in graph.library.function}
        keeping = {name for name, one in functions.items() if any(node.op in SAVER for node in one.node_def)}
        nodes = [*graph.node, *(node for one in functions.values() for node in one.node_def)]
        # In the main graph itself nothing keeps files: it only calls the functions that do.
        strangers = {node.op for node in nodes} - ALLOWED - SAVER | {node.op for node in graph.node} & SAVER
        if strangers:
            raise ConfigError(
                f"the SavedModel holds {', '.join(sorted(strangers))[:300]}; accepted: arithmetic and look-ups only"
            )
        for node in nodes:
            _refuse_large(node)
        saving = {_node(meta.saver_def.save_tensor_name), _node(meta.saver_def.restore_op_name)}
        reached = [
            *(node.name for node in graph.node if keeping & set(_called(node)) and node.name not in saving),
            *(name for name, one in functions.items() for node in one.node_def if keeping & set(_called(node))),
            *(keeping & set(meta.object_graph_def.concrete_functions)),
            *_reaching(meta, saving | {_node(meta.saver_def.filename_tensor_name)}),
        ]
        for one in meta.object_graph_def.nodes:
            kind = one.WhichOneof("kind")
            if kind == "user_object" and one.user_object.identifier not in _OBJECTS:
                raise ConfigError(
                    f"the SavedModel holds a Python object {one.user_object.identifier[:80]!r}; accepted: functions, "
                    "variables and tables"
                )
            named = [*one.function.concrete_functions, one.bare_concrete_function.concrete_function_name]
            reached += keeping & set(named)
        if reached:
            raise ConfigError(
                f"the SavedModel reaches what keeps files from {sorted(reached)[0][:80]}; accepted: from its saver alone"
            )


def _refuse_large(node: Any) -> None:
    for name, value in node.attr.items():
        for shape in (value.shape, value.tensor.tensor_shape, *value.list.shape):
            size = math.prod(max(one.size, 1) for one in shape.dim)
            if size > MOST_ELEMENTS:
                raise ConfigError(
                    f"the SavedModel's {node.name[:80]} has {size:,} elements ({name}); accepted: {MOST_ELEMENTS:,}"
                )


def _called(node: Any) -> Iterator[str]:
    """Functions that a node names."""
    for value in node.attr.values():
        for one in (value.func, *value.list.func):
            if one.name:
                yield one.name


def _node(tensor: str) -> str:
    return tensor.removeprefix("^").partition(":")[0]


def _reaching(meta: Any, saving: set[str]) -> set[str]:
    """Signatures and initial operations that depend on the saver's nodes."""
    inputs = {node.name: [_node(one) for one in node.input] for node in meta.graph_def.node}
    starts = {
        name: [_node(one.name) for one in (*signature.inputs.values(), *signature.outputs.values())]
        for name, signature in meta.signature_def.items()
    } | {name: [_node(one) for one in told.node_list.value] for name, told in meta.collection_def.items()}
    found = set()
    for name, waiting in starts.items():
        seen: set[str] = set()
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting += inputs.get(node, [])
        if seen & saving:
            found.add(name)
    return found
