"""The three ways a prediction is asked for, and answered: TensorFlow Serving's REST, Open Inference v2, and our own (R2.3)."""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from lifecycle.manifest import MODEL_NAME, VERSION_NAME
from lifecycle.traffic import Routing
from serving.rows import MOST_PROBLEMS, InvalidRequest, RowReader, counted, kind_of

_PATH = re.compile(
    r"/v1/models/(?P<tfs>[^/:]{1,80})(?:/versions/(?P<version>[^/:]{1,20})|/labels/(?P<label>[^/:]{1,40}))?:predict"
    r"|/v2/models/(?P<v2>[^/]{1,80})(?:/versions/(?P<v2_version>[^/]{1,20}))?/infer"
    r"|/models/(?P<own>[^/]{1,80})/predict"
)
LABELS = {
    "live": "live",
    "stable": "live",
    "candidate": "candidate",
    "canary": "candidate",
    "shadow": "shadow",
    "previous": "previous",
}
"""Label of TensorFlow Serving's routes: the part it names."""

_INTEGERS = {
    f"{sign}INT{bits}": (0 if sign else -(2 ** (bits - 1)), 2 ** (bits if sign else bits - 1) - 1)
    for sign in ("", "U")
    for bits in (8, 16, 32, 64)
}
_FLOATS = {"FP16": 65_504.0, "FP32": 3.4028234663852886e38, "FP64": math.inf}
DATATYPES = (*_FLOATS, *_INTEGERS, "BYTES")
"""What a tensor of Open Inference may be declared as: numbers, and BYTES for texts."""

_decode = msgspec.json.Decoder()
_encode = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Scored:
    """The answer to one row.

    Parameters
    ----------
    score, decision
        Probability of the positive class, and whether it reaches the threshold: 0 or 1.
    version, role
        Who answered, and as what.
    request_id
        What an outcome names later.
    """

    score: float
    decision: int
    version: str
    role: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A request's rows.

    Parameters
    ----------
    rows
        Typed rows.
    answer
        Draws the answer's body from the scored rows.
    request_id
        What the body itself named; None when it did not.
    """

    rows: list[Any]
    answer: Callable[[Sequence[Scored]], bytes]
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names.

    Parameters
    ----------
    dialect
        ``tfs``, ``v2`` or ``own``.
    model
        Model's name.
    version, label
        A version, or the part a version plays; both None for whoever's turn it is.
    """

    dialect: str
    model: str
    version: str | None
    label: str | None


def target(path: str) -> Target | None:
    """Read a prediction's path; None when it is none, or names what no model or version can be called."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    for dialect in ("tfs", "v2", "own"):
        model = found[dialect]
        if model is not None:
            version = found["version"] if dialect == "tfs" else found["v2_version"] if dialect == "v2" else None
            if not MODEL_NAME.fullmatch(model) or (version is not None and not VERSION_NAME.fullmatch(version)):
                return None
            return Target(dialect, model, version, found["label"] if dialect == "tfs" else None)
    return None


def by_label(routing: Routing, label: str) -> str | None:
    """Version that plays a part: live (or stable), candidate (or canary), shadow, previous; None when nobody does."""
    return getattr(routing, LABELS[label]) if label in LABELS else None


def read(dialect: str, body: bytes, reader: RowReader, model: str) -> Asked:
    """Parse a request's body.

    Raises
    ------
    InvalidRequest
        Not JSON, not the dialect, or rows with problems.
    """
    if dialect == "own":
        return _read_own(body, reader)
    told = parsed(body)
    if not isinstance(told, dict):
        raise InvalidRequest(["the body is no object; accepted: a JSON object"])
    return _read_tfs(told, reader) if dialect == "tfs" else _read_v2(told, reader, model)


def parsed(body: bytes) -> Any:
    """Parse JSON; InvalidRequest says where it breaks."""
    try:
        return _decode.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest([f"the body is not JSON: {str(error)[:200]}"]) from None


def encoded(value: Any) -> bytes:
    """JSON text."""
    return _encode.encode(value)


def _read_own(body: bytes, reader: RowReader) -> Asked:
    try:
        rows = _own_decoder(reader).decode(body).rows
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        # Once more and slowly, to name every problem.
        told = parsed(body)
        if not isinstance(told, dict) or set(told) != {"rows"} or not isinstance(told["rows"], list):
            raise InvalidRequest(
                ['accepted: an object {"rows": [...]}, each row an object with every feature']
            ) from None
        rows = reader.from_dicts(told["rows"], "rows")

    def answer(scored: Sequence[Scored]) -> bytes:
        return encoded(
            {
                "predictions": [
                    {"request_id": one.request_id, "score": one.score, "decision": one.decision, "version": one.version}
                    for one in scored
                ]
            }
        )

    return Asked(rows, answer)


_own_decoders: dict[Any, Any] = {}


def _own_decoder(reader: RowReader) -> Any:
    made = _own_decoders.get(reader.row_type)
    if made is None:
        body = msgspec.defstruct("Body", [("rows", list[reader.row_type])], forbid_unknown_fields=True)  # type: ignore[name-defined]
        if len(_own_decoders) > 1_000:
            _own_decoders.clear()
        made = _own_decoders[reader.row_type] = msgspec.json.Decoder(body)
    return made


def _read_tfs(told: dict[str, Any], reader: RowReader) -> Asked:
    if told.get("signature_name", "") not in ("serving_default", ""):
        raise InvalidRequest(["signature_name: no signature of the model; accepted: serving_default"])
    if not told.keys() <= {"signature_name", "instances", "inputs"} or ("instances" in told) == ("inputs" in told):
        raise InvalidRequest(["accepted: signature_name, and instances or inputs, and nothing else"])
    # A model of one input may be given its values bare.
    only = reader.names[0] if len(reader.names) == 1 else None
    if "instances" in told:
        rows = told["instances"]
        if not isinstance(rows, list):
            raise InvalidRequest([f"instances: is {kind_of(rows)}; accepted: a list of objects"])
        counted(len(rows))
        if only is not None and not any(isinstance(row, dict) and set(row) != {"b64"} for row in rows):
            rows = [{only: row} for row in rows]
        plain = [
            {name: _scalar(value, f"instances[{place}]") for name, value in row.items()}
            if isinstance(row, dict)
            else row
            for place, row in enumerate(rows)
        ]
        return Asked(reader.from_dicts(plain, "instances"), _tfs_rows)
    columns = told["inputs"]
    if only is not None and isinstance(columns, list):
        columns = {only: columns}
    if not isinstance(columns, dict) or not all(isinstance(values, list) for values in columns.values()):
        raise InvalidRequest(["inputs: accepted: an object with a list for every feature"])
    for values in columns.values():
        counted(len(values))
    flat = {
        name: [_scalar(value, f"inputs[{place}]") for place, value in enumerate(values)]
        for name, values in columns.items()
    }
    return Asked(reader.from_columns(flat, "inputs"), _tfs_columns)


def _scalar(value: Any, where: str) -> Any:
    """A value without what TensorFlow's clients wrap it in: a list of one, and base64 for texts that may be any bytes."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str):
        try:
            return base64.b64decode(value["b64"], validate=True).decode()
        except (binascii.Error, ValueError):
            raise InvalidRequest([f"{where}: b64 is no base64 of a UTF-8 text; accepted: standard base64"]) from None
    return value


def _tfs_rows(scored: Sequence[Scored]) -> bytes:
    return encoded({"predictions": [{"score": one.score, "decision": one.decision} for one in scored]})


def _tfs_columns(scored: Sequence[Scored]) -> bytes:
    return encoded({"outputs": {"score": [one.score for one in scored], "decision": [one.decision for one in scored]}})


def _read_v2(told: dict[str, Any], reader: RowReader, model: str) -> Asked:
    inputs, identifier = told.get("inputs"), told.get("id")
    problems = []
    if not told.keys() <= {"id", "parameters", "inputs", "outputs"}:
        problems.append("accepted: id, parameters, inputs and outputs, and nothing else")
    if identifier is not None and not isinstance(identifier, str):
        problems.append(f"id: is {kind_of(identifier)}; accepted: a text")
    if not isinstance(told.get("parameters"), dict | None):
        problems.append("parameters: accepted: an object")
    wanted = _wanted(told.get("outputs"), problems)
    if not isinstance(inputs, list):
        inputs = []
        problems.append("inputs: accepted: a list of tensors with name, shape, datatype and data")
    columns: dict[str, list[Any]] = {}
    for place, one in enumerate(inputs):
        if len(problems) >= MOST_PROBLEMS:
            break
        read = _tensor(one, f"inputs[{place}]")
        if isinstance(read, str):
            problems.append(read)
        elif read[0] in columns:
            problems.append(f"inputs[{place}]: an input that stands twice; accepted: each input once")
        else:
            columns[read[0]] = read[1]
    if problems:
        raise InvalidRequest(problems)
    rows = reader.from_columns(columns, "inputs")

    def answer(scored: Sequence[Scored]) -> bytes:
        values = {"score": [one.score for one in scored], "decision": [one.decision for one in scored]}
        return encoded(
            {
                "model_name": model,
                "model_version": ", ".join(dict.fromkeys(one.version for one in scored)),
                "id": identifier or scored[0].request_id,
                "outputs": [
                    {"name": name, "datatype": OUTPUTS[name], "shape": [len(scored)], "data": values[name]}
                    for name in wanted
                ],
            }
        )

    return Asked(rows, answer, identifier)


OUTPUTS = {"score": "FP64", "decision": "INT64"}
"""Every model's outputs, with their datatypes."""


def _wanted(told: Any, problems: list[str]) -> list[str]:
    """Outputs that are asked for, in that order; all of them where none is named."""
    if told is None or told == []:
        return list(OUTPUTS)
    names = [one.get("name") if isinstance(one, dict) else None for one in told] if isinstance(told, list) else [None]
    if not all(isinstance(name, str) and name in OUTPUTS for name in names):
        problems.append(f"outputs: accepted: a list of objects with name, one of {', '.join(OUTPUTS)}")
    return list(dict.fromkeys(name for name in names if isinstance(name, str)))


def _tensor(told: Any, where: str) -> tuple[str, list[Any]] | str:
    """Name and flat values of an input; what is wrong with it when it is none."""
    if not isinstance(told, dict) or not {"name", "shape", "datatype", "data"} <= told.keys():
        return f"{where}: accepted: an object with name, shape, datatype and data"
    name, shape, datatype, data = told["name"], told["shape"], told["datatype"], told["data"]
    if not told.keys() <= {"name", "shape", "datatype", "data", "parameters"}:
        return f"{where}: accepted: name, shape, datatype, data and parameters, and nothing else"
    if not isinstance(name, str) or not isinstance(data, list):
        return f"{where}: accepted: a text as name and a list as data"
    if not isinstance(told.get("parameters"), dict | None):
        return f"{where}.parameters: accepted: an object"
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        return f"{where}.datatype: accepted: {', '.join(DATATYPES)}"
    counted(len(data))
    flat = [one[0] if isinstance(one, list) and len(one) == 1 else one for one in data]
    whole = isinstance(shape, list) and all(type(size) is int for size in shape)
    if not whole or shape not in ([len(flat)], [len(flat), 1]):
        return f"{where}.shape: is not that of its {len(flat):,} values; accepted: [{len(flat)}]"
    for place, value in enumerate(flat):
        if value is not None and not _fits(value, datatype):
            return f"{where}.data[{place}]: is {kind_of(value)} that is no {datatype}; accepted: {datatype} or null"
    return name, flat


def _fits(value: Any, datatype: str) -> bool:
    if datatype == "BYTES":
        return isinstance(value, str)
    if isinstance(value, bool):
        return False
    if datatype in _INTEGERS:
        low, high = _INTEGERS[datatype]
        return isinstance(value, int) and low <= value <= high
    return isinstance(value, int | float) and abs(value) <= _FLOATS[datatype]


def metadata_tfs(model: str, version: str, features: Sequence[tuple[str, bool]]) -> Mapping[str, Any]:
    """TensorFlow Serving's answer to /metadata.

    Parameters
    ----------
    features
        Name, and whether it is a number.
    """

    def tensor(name: str, kind: str) -> Mapping[str, Any]:
        return {
            "dtype": kind,
            "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
            "name": name,
        }

    signature = {
        "inputs": {name: tensor(name, "DT_DOUBLE" if number else "DT_STRING") for name, number in features},
        "outputs": {"score": tensor("score", "DT_DOUBLE"), "decision": tensor("decision", "DT_INT64")},
        "method_name": "tensorflow/serving/predict",
    }
    return {
        "model_spec": {"name": model, "signature_name": "", "version": version},
        "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
    }


def metadata_v2(
    model: str, versions: Sequence[str], platform: str, features: Sequence[tuple[str, bool]]
) -> Mapping[str, Any]:
    """Open Inference's answer about a model."""
    return {
        "name": model,
        "versions": list(versions),
        "platform": platform,
        "inputs": [
            {"name": name, "datatype": "FP64" if number else "BYTES", "shape": [-1]} for name, number in features
        ],
        "outputs": [{"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in OUTPUTS.items()],
    }
