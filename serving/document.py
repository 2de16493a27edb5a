"""The OpenAPI document: a typed route for each model from its signature and model file, and every answer there is (R2.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serving.access import MATRIX
from serving.dialects import DATATYPES, LABELS, OUTPUTS
from serving.rows import LARGEST_NUMBER, LONGEST_ENTITY, LONGEST_TEXT, MOST_ROWS
from serving.versions import Loaded, Served

Schema = dict[str, Any]
REQUEST_ID = r"^[A-Za-z0-9._:-]{1,128}$"
_REFUSALS = {
    400: "invalid, with every problem named",
    401: "unknown client",
    403: "not allowed",
    404: "not served",
    408: "the body did not come",
    413: "too large",
    415: "not JSON",
    429: "too often",
    500: "the version failed",
    503: "not on record, so not answered",
}
_TEXT = {"type": "string"}


def _object(properties: Schema, required: Sequence[str] | None = None, closed: bool = False) -> Schema:
    made: Schema = {"type": "object", "properties": properties}
    made["required"] = list(properties) if required is None else list(required)
    return {**made, "additionalProperties": False} if closed else made


def _array(items: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": items, **limits}


_ERROR = _object({"error": _TEXT, "problems": _array(_TEXT)})
_ROUTING = _object(
    {
        "model": _TEXT,
        "generation": {"type": "integer", "minimum": 1},
        "share": {"type": "number", "minimum": 0, "maximum": 1},
        **{part: {"type": ["string", "null"]} for part in ("live", "candidate", "shadow", "previous")},
    }
)
_STATUS = _object({"error_code": _TEXT, "error_message": _TEXT})
_TENSOR = _object({"name": _TEXT, "datatype": {"enum": list(DATATYPES)}, "shape": _array({"type": "integer"})})
_SIGNATURES = _object({"signature_def": _object({"signature_def": _object({"serving_default": {"type": "object"}})})})

# What each page answers with, by the last part of its route.
_PAGES: dict[str, Schema] = {
    "/healthz": _object({"status": {"const": "ok"}}),
    "/v2/health/live": _object({"live": {"const": True}}),
    "/v2/health/ready": _object({"ready": {"type": "boolean"}}),
    "/models": {"type": "object", "additionalProperties": _ROUTING},
    "/v1/models/{model}": _object(
        {
            "model_version_status": _array(
                _object({"version": _TEXT, "state": {"const": "AVAILABLE"}, "status": _STATUS})
            )
        }
    ),
    "/v1/models/{model}/metadata": _object({"model_spec": {"type": "object"}, "metadata": _SIGNATURES}),
    "/v2": _object({"name": _TEXT, "version": _TEXT, "extensions": _array(_TEXT)}),
    "/v2/models/{model}": _object(
        {
            "name": _TEXT,
            "versions": _array(_TEXT),
            "platform": _TEXT,
            "inputs": _array(_TENSOR),
            "outputs": _array(_TENSOR),
        }
    ),
    "/v2/models/{model}/ready": _object({"name": _TEXT, "ready": {"const": True}}),
    "/operate/state": _object(
        {"started": {"type": "number"}, "models": {"type": "object"}, "problems": {"type": "object"}}
    ),
    "/openapi.json": {"type": "object"},
}


def document(drawn: Schema, served: Mapping[str, Served]) -> Schema:
    """Complete FastAPI's document.

    Parameters
    ----------
    drawn
        What FastAPI knows: the pages.
    served
        Models in memory.
    """
    schemas: Schema = {"Error": _ERROR}
    paths: dict[str, Schema] = {
        **drawn["paths"],
        "/openapi.json": {"get": {"summary": "This document", "tags": ["models"]}},
        "/docs": {"get": {"summary": "This document, to read and try", "tags": ["models"]}},
    }
    for path, operations in paths.items():
        for method, operation in operations.items():
            operation |= _page(path, MATRIX[method.upper(), path] is not None)
    for name, one in served.items():
        paths |= _model(name, one, schemas)
    paths["/outcomes"] = {"post": _outcomes(list(served))}
    keys = {
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "token": {"type": "http", "scheme": "bearer"},
    }
    return {
        **drawn,
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": keys},
        "security": [{"key": []}, {"token": []}],
    }


def _page(path: str, closed: bool) -> Schema:
    whole = path.replace("/versions/{version}", "").replace("/labels/{label}", "")
    kind, schema = {
        "/metrics": ("text/plain", _TEXT),
        "/docs": ("text/html", _TEXT),
    }.get(path, ("application/json", _PAGES.get(whole, {})))
    answers: Schema = {"200": {"description": "so it is", "content": {kind: {"schema": schema}}}}
    if path == "/v2/health/ready":
        answers["503"] = {**answers["200"], "description": "a model is not served as its routing table says"}
    named = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    statuses = [*((401, 403, 429) if closed else ()), *((404,) if named else ())]
    told: Schema = {
        "parameters": [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in named],
        "responses": {**answers, **_refusals(statuses)},
    }
    return told if closed else {**told, "security": []}


def _refusals(statuses: Sequence[int]) -> Schema:
    schema = {"$ref": "#/components/schemas/Error"}
    return {
        str(status): {"description": _REFUSALS[status], "content": {"application/json": {"schema": schema}}}
        for status in statuses
    }


def _post(summary: str, body: Schema, answer: Schema, parameters: Sequence[Schema] = ()) -> Schema:
    content = {"application/json": {"schema": answer}}
    return {
        "summary": summary,
        "tags": ["predictions"],
        "parameters": list(parameters),
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": {"description": "answered, and on record", "content": content}, **_refusals([*_REFUSALS])},
    }


def _model(name: str, served: Served, schemas: Schema) -> dict[str, Schema]:
    """Prediction routes of a model, in each dialect."""
    loaded = served.versions[served.routing.live or next(iter(served.versions))]
    schemas[f"{name}.Row"] = _row(loaded)
    schemas[f"{name}.Instance"] = _row(loaded, base64=True)
    row: Schema = {"$ref": f"#/components/schemas/{name}.Row"}
    instance: Schema = {"$ref": f"#/components/schemas/{name}.Instance"}
    scored: Schema = {
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "decision": {"type": "integer", "enum": [0, 1]},
    }
    summary = loaded.manifest.description
    headers = [
        _header("X-Request-Id", "what an outcome names later", {"type": "string", "pattern": REQUEST_ID}),
        _header("X-Prodecks-Version", "a version in memory, for testers", {"enum": list(served.versions)}),
    ]
    version = {"name": "version", "in": "path", "required": True, "schema": {"enum": list(served.versions)}}
    label = {"name": "label", "in": "path", "required": True, "schema": {"enum": list(LABELS)}}
    own = _post(
        summary,
        _object({"rows": _array(row, minItems=1, maxItems=MOST_ROWS)}, closed=True),
        _object({"predictions": _array(_object({**scored, "request_id": _TEXT, "version": _TEXT}))}),
        headers,
    )
    tfs = (
        f"{summary} (TensorFlow Serving)",
        _tfs_body(loaded, instance),
        {
            "anyOf": [
                _object({"predictions": _array(_object(scored))}),
                _object({"outputs": _object({key: _array(one) for key, one in scored.items()})}),
            ]
        },
    )
    v2 = (f"{summary} (Open Inference)", _v2_body(loaded), _v2_answer())
    return {
        f"/models/{name}/predict": {"post": own},
        f"/v1/models/{name}:predict": {"post": _post(*tfs, headers)},
        f"/v1/models/{name}/versions/{{version}}:predict": {"post": _post(*tfs, [version, headers[0]])},
        f"/v1/models/{name}/labels/{{label}}:predict": {"post": _post(*tfs, [label, headers[0]])},
        f"/v2/models/{name}/infer": {"post": _post(*v2, headers)},
        f"/v2/models/{name}/versions/{{version}}/infer": {"post": _post(*v2, [version, headers[0]])},
    }


def _header(name: str, meaning: str, schema: Schema) -> Schema:
    return {"name": name, "in": "header", "required": False, "description": meaning, "schema": schema}


def _row(loaded: Loaded, base64: bool = False) -> Schema:
    properties: Schema = {}
    for one in loaded.manifest.features:
        entity = one.name == loaded.manifest.entity_key
        told = _value(one.kind == "numeric", base64, LONGEST_ENTITY if entity else LONGEST_TEXT)
        limits = "" if one.low is None and one.high is None else f" ({one.low} to {one.high})"
        if one.meaning or limits:
            told["description"] = f"{one.meaning}{limits}".strip()
        if one.values:
            told["examples"] = list(one.values)
        properties[one.name] = told
    required = list(properties)
    key = loaded.manifest.entity_key
    if key not in properties:
        properties[key] = {**_value(False, base64, LONGEST_ENTITY), "description": "whom the row is about"}
    return _object(properties, required, closed=True)


def _value(numeric: bool, base64: bool, longest: int = LONGEST_TEXT) -> Schema:
    if numeric:
        return {"type": ["number", "null"], "minimum": -LARGEST_NUMBER, "maximum": LARGEST_NUMBER}
    text: Schema = {"type": ["string", "null"], "maxLength": longest}
    encoded = _object({"b64": {"type": "string", "contentEncoding": "base64"}}, closed=True)
    return {"anyOf": [text, encoded]} if base64 else text


def _tfs_body(loaded: Loaded, instance: Schema) -> Schema:
    signature = {"enum": ["serving_default", ""]}
    columns = {
        one.name: _array(_value(one.kind == "numeric", base64=True), minItems=1, maxItems=MOST_ROWS)
        for one in loaded.manifest.features
    }
    required = list(columns)
    columns.setdefault(loaded.manifest.entity_key, _array(_value(False, base64=True, longest=LONGEST_ENTITY)))
    rows = _array(instance, minItems=1, maxItems=MOST_ROWS)
    return {
        "anyOf": [
            _object({"signature_name": signature, "instances": rows}, ["instances"], closed=True),
            _object(
                {"signature_name": signature, "inputs": _object(columns, required, closed=True)},
                ["inputs"],
                closed=True,
            ),
        ]
    }


def _v2_body(loaded: Loaded) -> Schema:
    parameters: Schema = {"type": ["object", "null"]}
    tensors = []
    names = {one.name: one.kind == "numeric" for one in loaded.manifest.features}
    for name, numeric in {loaded.manifest.entity_key: False, **names}.items():
        properties: Schema = {
            "name": {"const": name},
            "shape": _array({"type": "integer", "minimum": 1}, minItems=1, maxItems=2),
            "datatype": {"enum": [kind for kind in DATATYPES if (kind != "BYTES") == numeric]},
            "data": _array(_value(numeric, base64=False), minItems=1, maxItems=MOST_ROWS),
        }
        tensors.append(_object({**properties, "parameters": parameters}, list(properties), closed=True))
    wanted = _object({"name": {"enum": list(OUTPUTS)}, "parameters": parameters}, ["name"])
    return _object(
        {
            "id": {"type": ["string", "null"], "pattern": REQUEST_ID},
            "parameters": parameters,
            "inputs": _array({"anyOf": tensors}, minItems=len(names), maxItems=len(tensors)),
            "outputs": {**_array(wanted), "type": ["array", "null"]},
        },
        ["inputs"],
        closed=True,
    )


def _v2_answer() -> Schema:
    output = _object(
        {
            "name": {"enum": list(OUTPUTS)},
            "datatype": {"enum": list(OUTPUTS.values())},
            "shape": _array({"type": "integer"}),
            "data": _array({"type": "number"}),
        }
    )
    return _object({"model_name": _TEXT, "model_version": _TEXT, "id": _TEXT, "outputs": _array(output)})


def _outcomes(models: list[str]) -> Schema:
    name = {"type": ["string", "null"], "maxLength": LONGEST_ENTITY}
    moment = {"type": ["number", "null"], "minimum": 0, "description": "Unix seconds, of a moment that has been"}
    outcome = _object(
        {
            "model": {"enum": models} if models else _TEXT,
            "label": {"type": "integer", "enum": [0, 1]},
            "request_id": name,
            "entity": name,
            "at": moment,
            "observed_at": moment,
        },
        ["model", "label"],
        closed=True,
    )
    outcome["oneOf"] = [
        {"properties": {one: {"type": "string"}, other: {"type": "null"}}, "required": [one]}
        for one, other in (("request_id", "entity"), ("entity", "request_id"))
    ]
    status = {"enum": ["recorded", "late", "duplicate", "contradicts", "unknown"]}
    return _post(
        "Labels, by request id or by entity",
        _object({"outcomes": _array(outcome, minItems=1, maxItems=MOST_ROWS)}, closed=True),
        _object({"outcomes": _array(_object({"request_id": _TEXT, "status": status}))}),
    )
