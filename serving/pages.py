"""Everything of the gateway that is not a prediction: health, metadata, metrics, state (R2.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from serving import dialects
from serving.document import document
from serving.versions import Loaded, Served

if TYPE_CHECKING:
    from serving.gateway import Gateway

TITLE = "ProDecks gateway"
_AVAILABLE = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


class NotServed(Exception):
    """No such model, version or label is in memory."""


def pages(gateway: Gateway) -> FastAPI:
    """Draw up the application behind the hot routes.

    Parameters
    ----------
    gateway
        Whose state the pages show.
    """
    app = FastAPI(
        title=TITLE, docs_url="/docs", redoc_url=None, openapi_url="/openapi.json", swagger_ui_oauth2_redirect_url=None
    )

    @app.get("/healthz", tags=["health"])
    def healthz() -> Response:
        """Whether the process answers."""
        return JSONResponse({"status": "ok"})

    @app.get("/v2/health/live", tags=["health"])
    def live() -> Response:
        """Whether the process answers; Open Inference."""
        return JSONResponse({"live": True})

    @app.get("/v2/health/ready", tags=["health"])
    def ready() -> Response:
        """Whether every model that has a routing table is served as it says; Open Inference."""
        waiting = sorted(set(gateway.models.store.models()) - set(gateway.models.served))
        good = not waiting and not gateway.models.problems
        return JSONResponse({"ready": good}, 200 if good else 503)

    @app.get("/models", tags=["models"])
    def models() -> Response:
        """Models that are served, and by which versions."""
        return JSONResponse({name: served.routing.to_dict() for name, served in gateway.models.served.items()})

    def tfs_status(model: str, version: str | None = None, label: str | None = None) -> Response:
        """State of each version in memory, or of one; TensorFlow Serving."""
        named = found(gateway, model, version, label)
        told = list(gateway.models.served[model].versions) if version is label is None else [named.manifest.version]
        return JSONResponse({"model_version_status": [{"version": one, **_AVAILABLE} for one in told]})

    def tfs_metadata(model: str, version: str | None = None, label: str | None = None) -> Response:
        """Signature; TensorFlow Serving."""
        named = found(gateway, model, version, label)
        return JSONResponse(dialects.metadata_tfs(model, named.manifest.version, features(named)))

    for part in ("", "/versions/{version}", "/labels/{label}"):
        _add(app, f"/v1/models/{{model}}{part}", tfs_status, "TensorFlow Serving")
        _add(app, f"/v1/models/{{model}}{part}/metadata", tfs_metadata, "TensorFlow Serving")

    @app.get("/v2", tags=["Open Inference"])
    def v2_server() -> Response:
        """About the server; Open Inference."""
        return JSONResponse({"name": "prodecks", "version": "1", "extensions": []})

    def v2_metadata(model: str, version: str | None = None) -> Response:
        """Inputs and outputs; Open Inference."""
        named = found(gateway, model, version, None)
        platform = "onnx_onnxv1" if named.manifest.backend == "onnx" else "tensorflow_savedmodel"
        versions = list(gateway.models.served[model].versions)
        return JSONResponse(dialects.metadata_v2(model, versions, platform, features(named)))

    def v2_ready(model: str, version: str | None = None) -> Response:
        """Whether a model, or a version of it, is served; Open Inference."""
        found(gateway, model, version, None)
        return JSONResponse({"name": model, "ready": True})

    for part in ("", "/versions/{version}"):
        _add(app, f"/v2/models/{{model}}{part}", v2_metadata, "Open Inference")
        _add(app, f"/v2/models/{{model}}{part}/ready", v2_ready, "Open Inference")

    @app.get("/metrics", tags=["operation"])
    def metrics() -> Response:
        """Prometheus' text format."""
        return Response(gateway.measures.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/operate/state", tags=["operation"])
    def state() -> Response:
        """The routing tables in force and every version in memory."""
        return JSONResponse(gateway.state())

    @app.exception_handler(NotServed)
    def not_served(_request: Request, error: NotServed) -> Response:
        return JSONResponse({"error": str(error), "problems": [str(error)]}, 404)

    @app.exception_handler(Exception)
    def failed(_request: Request, _error: Exception) -> Response:
        told = "the gateway failed; its log says why"
        return JSONResponse({"error": told, "problems": [told]}, 500)

    plain = app.openapi

    def drawn() -> dict[str, Any]:
        # Drawn anew for each caller: it follows the versions in memory.
        app.openapi_schema = None
        made = document(plain(), gateway.models.served)
        app.openapi_schema = None
        return made

    app.openapi = drawn  # type: ignore[method-assign]
    return app


def _add(app: FastAPI, path: str, page: Callable[..., Response], tag: str) -> None:
    """Give a page one more path, with those of its parameters that the path names."""

    def bound(request: Request) -> Response:
        return page(**request.path_params)

    bound.__doc__ = page.__doc__
    app.add_api_route(path, bound, methods=["GET"], tags=[tag], name=f"{page.__name__} {path}")


def found(gateway: Gateway, model: str, version: str | None, label: str | None) -> Loaded:
    """The version that a path names, or the one that stands for the model; NotServed."""
    served = gateway.models.served.get(model)
    if served is None:
        raise NotServed(f"the model is not served; accepted: {', '.join(gateway.models.served) or 'none yet'}")
    if label is not None:
        version = dialects.by_label(served.routing, label)
        if version is None:
            raise NotServed(f"the label is nobody's right now; accepted: {', '.join(dialects.LABELS)}")
    if version is None:
        return main(served)
    if version not in served.versions:
        raise NotServed(f"the version is not loaded; accepted: {', '.join(served.versions)}")
    return served.versions[version]


def main(served: Served) -> Loaded:
    """The version that stands for a model: the live one, or the only one."""
    return served.versions[served.routing.live or next(iter(served.versions))]


def features(loaded: Loaded) -> list[tuple[str, bool]]:
    """Name of each feature, and whether it is a number."""
    return [(one.name, one.kind == "numeric") for one in loaded.manifest.features]


def routes_of(app: FastAPI) -> set[tuple[str, str]]:
    """Method and path of every page, for the test that none is outside the access matrix."""
    return {
        (method, str(getattr(route, "path", "?")))
        for route in app.routes
        for method in (getattr(route, "methods", None) or {"?"})
        if method != "HEAD"
    }
