"""The three ways a prediction is asked for, and answered: TensorFlow Serving's REST, Open Inference v2, and our own (R2.3)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from lifecycle.manifest import MODEL_NAME, VERSION_NAME
from lifecycle.traffic import Routing
from serving.rows import InvalidRequest, RowReader

_PATH = re.compile(
    r"/v1/models/(?P<tfs>[^/:]{1,80})(?:/versions/(?P<version>[^/:]{1,20})|/labels/(?P<label>[^/:]{1,40}))?:predict"
    r"|/v2/models/(?P<v2>[^/]{1,80})(?:/versions/(?P<v2_version>[^/]{1,20}))?/infer"
    r"|/models/(?P<own>[^/]{1,80})/predict"
)
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
    parts = {
        "live": routing.live,
        "stable": routing.live,
        "candidate": routing.candidate,
        "canary": routing.candidate,
        "shadow": routing.shadow,
        "previous": routing.previous,
    }
    return parts.get(label)


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
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError):
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
    signature = told.get("signature_name", "serving_default")
    if signature not in ("serving_default", ""):
        raise InvalidRequest([f"signature_name: {str(signature)[:60]!r}; accepted: serving_default"])
    strangers = sorted(set(told) - {"signature_name", "instances", "inputs"})
    if strangers or ("instances" in told) == ("inputs" in told):
        raise InvalidRequest(
            [f"keys {', '.join(sorted(told))[:200]}; accepted: signature_name, and instances or inputs"]
        )
    if "instances" in told:
        rows = told["instances"]
        if not isinstance(rows, list):
            raise InvalidRequest(["instances: is no list; accepted: a list of objects"])
        if len(reader.names) == 1 and not any(isinstance(row, dict) for row in rows):
            rows = [{reader.names[0]: row} for row in rows]  # a single input may be given bare
        return Asked(reader.from_dicts([_unwrapped(row) for row in rows], "instances"), _tfs_rows)
    columns = told["inputs"]
    if not isinstance(columns, dict) or not all(isinstance(values, list) for values in columns.values()):
        raise InvalidRequest(["inputs: accepted: an object with a list for every feature"])
    flat = {name: [_unwrapped(value) for value in values] for name, values in columns.items()}
    return Asked(reader.from_columns(flat, "inputs"), _tfs_columns)


def _unwrapped(value: Any) -> Any:
    """TensorFlow's clients write a scalar of a batch as a list of one."""
    if isinstance(value, dict):
        return {name: _unwrapped(one) for name, one in value.items()}
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _tfs_rows(scored: Sequence[Scored]) -> bytes:
    return encoded({"predictions": [{"score": one.score, "decision": one.decision} for one in scored]})


def _tfs_columns(scored: Sequence[Scored]) -> bytes:
    return encoded({"outputs": {"score": [one.score for one in scored], "decision": [one.decision for one in scored]}})


def _read_v2(told: dict[str, Any], reader: RowReader, model: str) -> Asked:
    inputs = told.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(one, dict) for one in inputs):
        raise InvalidRequest(["inputs: accepted: a list of tensors with name, shape, datatype and data"])
    columns: dict[str, list[Any]] = {}
    problems = []
    for place, one in enumerate(inputs):
        name, shape, data = one.get("name"), one.get("shape"), one.get("data")
        if not isinstance(name, str) or not isinstance(data, list) or not isinstance(shape, list):
            problems.append(f"inputs[{place}]: accepted: name, shape, datatype and data")
            continue
        if name in columns:
            problems.append(f"inputs[{place}]: {name[:60]} stands twice; accepted: each input once")
            continue
        flat = _flat(data)
        if shape not in ([len(flat)], [len(flat), 1]):
            problems.append(
                f"inputs[{place}].shape: {str(shape)[:60]} with {len(flat)} values; accepted: [{len(flat)}]"
            )
            continue
        columns[name] = flat
    identifier = told.get("id")
    if identifier is not None and not isinstance(identifier, str):
        problems.append("id: accepted: a text")
    if problems:
        raise InvalidRequest(problems)
    rows = reader.from_columns(columns, "inputs")

    def answer(scored: Sequence[Scored]) -> bytes:
        count = len(scored)
        return encoded(
            {
                "model_name": model,
                "model_version": ", ".join(dict.fromkeys(one.version for one in scored)),
                "id": identifier or scored[0].request_id,
                "outputs": [
                    {"name": "score", "datatype": "FP64", "shape": [count], "data": [one.score for one in scored]},
                    {
                        "name": "decision",
                        "datatype": "INT64",
                        "shape": [count],
                        "data": [one.decision for one in scored],
                    },
                ],
            }
        )

    return Asked(rows, answer, identifier)


def _flat(data: list[Any]) -> list[Any]:
    return [one[0] if isinstance(one, list) and len(one) == 1 else one for one in data]


def finite(value: float) -> float | None:
    """A number that JSON knows; None for the others."""
    return value if math.isfinite(value) else None


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
        "outputs": [
            {"name": "score", "datatype": "FP64", "shape": [-1]},
            {"name": "decision", "datatype": "INT64", "shape": [-1]},
        ],
    }
