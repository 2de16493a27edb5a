"""Everything of the gateway that is not a prediction: health, metadata, metrics, state, and the OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from serving import dialects
from serving.versions import Loaded, Served

if TYPE_CHECKING:
    from serving.gateway import Gateway

TITLE = "ProDecks gateway"


def pages(gateway: Gateway) -> FastAPI:
    """Draw up the application behind the hot routes.

    Parameters
    ----------
    gateway
        Whose state the pages show.
    """
    app = FastAPI(title=TITLE, docs_url="/docs", redoc_url=None, openapi_url="/openapi.json")

    @app.get("/healthz", tags=["health"])
    def healthz() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    @app.get("/v2/health/live", tags=["health"])
    def live() -> dict[str, bool]:
        """Whether the process answers; Open Inference."""
        return {"live": True}

    @app.get("/v2/health/ready", tags=["health"])
    def ready() -> Response:
        """Whether every model that has a routing table is served as it says; Open Inference."""
        waiting = sorted(set(gateway.models.store.models()) - set(gateway.models.served))
        good = not waiting and not gateway.models.problems
        return JSONResponse({"ready": good}, 200 if good else 503)

    @app.get("/models", tags=["models"])
    def models() -> dict[str, Any]:
        """Models that are served, and by which versions."""
        return {name: served.routing.to_dict() for name, served in gateway.models.served.items()}

    @app.get("/v1/models/{model}", tags=["TensorFlow Serving"])
    def tfs_status(model: str) -> Response:
        """State of each version in memory; TensorFlow Serving."""
        served = gateway.models.served.get(model)
        if served is None:
            return unknown(model)
        status = {"error_code": "OK", "error_message": ""}
        told = [{"version": version, "state": "AVAILABLE", "status": status} for version in served.versions]
        return JSONResponse({"model_version_status": told})

    @app.get("/v1/models/{model}/metadata", tags=["TensorFlow Serving"])
    def tfs_metadata(model: str) -> Response:
        """Signature; TensorFlow Serving."""
        served = gateway.models.served.get(model)
        if served is None:
            return unknown(model)
        first = main(served)
        return JSONResponse(dialects.metadata_tfs(model, first.manifest.version, features(first)))

    @app.get("/v2", tags=["Open Inference"])
    def v2_server() -> dict[str, Any]:
        """About the server; Open Inference."""
        return {"name": "prodecks", "version": "1", "extensions": []}

    @app.get("/v2/models/{model}", tags=["Open Inference"])
    def v2_metadata(model: str) -> Response:
        """Inputs and outputs; Open Inference."""
        served = gateway.models.served.get(model)
        if served is None:
            return unknown(model)
        first = main(served)
        platform = "onnx_onnxv1" if first.manifest.backend == "onnx" else "tensorflow_savedmodel"
        return JSONResponse(dialects.metadata_v2(model, list(served.versions), platform, features(first)))

    @app.get("/v2/models/{model}/ready", tags=["Open Inference"])
    def v2_ready(model: str) -> Response:
        """Whether a model is served; Open Inference."""
        if model not in gateway.models.served:
            return unknown(model)
        return JSONResponse({"name": model, "ready": True})

    @app.get("/metrics", tags=["operation"])
    def metrics() -> Response:
        """Prometheus' text format."""
        return Response(gateway.measures.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/operate/state", tags=["operation"])
    def state() -> dict[str, Any]:
        """The routing tables in force and every version in memory."""
        return gateway.state()

    @app.exception_handler(Exception)
    def failed(_request: Request, _error: Exception) -> Response:
        return JSONResponse({"error": "the gateway failed; its log says why"}, 500)

    plain = app.openapi

    def document() -> dict[str, Any]:
        # Drawn anew for each caller: it follows the versions in memory.
        app.openapi_schema = None
        drawn = plain()
        drawn["components"] = {
            **drawn.get("components", {}),
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "token": {"type": "http", "scheme": "bearer"},
            },
        }
        drawn["security"] = [{"key": []}, {"token": []}]
        drawn["paths"] |= _predictions(gateway)
        app.openapi_schema = None
        return drawn

    app.openapi = document  # type: ignore[method-assign]
    return app


def unknown(model: str) -> Response:
    """No such model."""
    return JSONResponse({"error": f"model {model[:80]!r} is not served"}, 404)


def main(served: Served) -> Loaded:
    """The version that stands for a model: the live one, or the only one."""
    return served.versions[served.routing.live or next(iter(served.versions))]


def features(loaded: Loaded) -> list[tuple[str, bool]]:
    """Name of each feature, and whether it is a number."""
    return [(one.name, one.kind == "numeric") for one in loaded.manifest.features]


def routes_of(app: FastAPI) -> set[tuple[str, str]]:
    """Method and path of every page, for the test that none is outside the access matrix."""
    return {
        (method, str(route.path))
        for route in app.routes
        for method in (getattr(route, "methods", None) or ())
        if method != "HEAD"
    }


def _predictions(gateway: Gateway) -> dict[str, Any]:
    """Routes of the short path, which FastAPI does not see."""
    paths: dict[str, Any] = {}
    refusals = {
        str(status): {"description": text, "content": {"application/json": {"schema": _ERROR}}}
        for status, text in (
            (400, "invalid, with every problem named"), (401, "unknown client"), (403, "not allowed"), (404, "not served"),
            (408, "the body did not come"), (413, "too large"), (415, "not JSON"), (429, "too often"),
            (500, "the version failed"), (503, "not on record, so not answered"),
        )
    }  # fmt: skip
    for name, served in gateway.models.served.items():
        loaded = main(served)
        row = _row(loaded)
        scored = {
            "score": {"type": "number", "minimum": 0, "maximum": 1},
            "decision": {"type": "integer", "enum": [0, 1]},
        }
        answer = {**scored, "request_id": {"type": "string"}, "version": {"type": "string"}}
        paths[f"/models/{name}/predict"] = _post(
            f"{loaded.manifest.description}", _list("rows", row), _list("predictions", _object(answer)), refusals
        )
        paths[f"/v1/models/{name}:predict"] = _post(
            "TensorFlow Serving's REST", _list("instances", row), _list("predictions", _object(scored)), refusals
        )
        tensor = _object(
            {
                "name": {"type": "string"},
                "shape": {"type": "array", "items": {"type": "integer"}},
                "datatype": {"type": "string"},
                "data": {"type": "array", "items": {}},
            }
        )
        paths[f"/v2/models/{name}/infer"] = _post(
            "Open Inference Protocol", _list("inputs", tensor), _list("outputs", tensor), refusals
        )
    outcome = {
        "type": "object",
        "properties": {
            "model": {"type": "string"},
            "label": {"type": "integer", "enum": [0, 1]},
            "request_id": {"type": "string"},
            "entity": {"type": "string"},
            "at": {"type": "number", "minimum": 0},
            "observed_at": {"type": "number", "minimum": 0},
        },
        "required": ["model", "label"],
        "additionalProperties": False,
    }
    status = {"type": "string", "enum": ["recorded", "late", "duplicate", "contradicts", "unknown"]}
    told = _object({"request_id": {"type": "string"}, "status": status})
    paths["/outcomes"] = _post(
        "Labels, by request id or by entity", _list("outcomes", outcome), _list("outcomes", told), refusals
    )
    return paths


_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "problems": {"type": "array", "items": {"type": "string"}}},
    "required": ["error"],
}


def _row(loaded: Loaded) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for one in loaded.manifest.features:
        told: dict[str, Any] = {"type": ["number" if one.kind == "numeric" else "string", "null"]}
        if one.meaning:
            told["description"] = one.meaning
        if one.values:
            told["examples"] = list(one.values)
        if one.low is not None or one.high is not None:
            told["description"] = f"{one.meaning} ({one.low} to {one.high})".strip()
        properties[one.name] = told
    required = list(properties)
    if loaded.manifest.entity_key not in properties:
        properties[loaded.manifest.entity_key] = {"type": ["string", "null"], "description": "whom the row is about"}
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(name: str, items: dict[str, Any]) -> dict[str, Any]:
    inner = {"type": "array", "minItems": 1, "items": items}
    return {"type": "object", "properties": {name: inner}, "required": [name]}


def _post(summary: str, body: dict[str, Any], answer: dict[str, Any], refusals: dict[str, Any]) -> dict[str, Any]:
    return {
        "post": {
            "summary": summary,
            "tags": ["predictions"],
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": {
                "200": {"description": "answered, and on record", "content": {"application/json": {"schema": answer}}},
                **refusals,
            },
        }
    }
