"""A small model server that speaks TensorFlow Serving's protocol, with its rules about versions, labels and restarts.

What a version answers is up to `load`: a real SavedModel, or a function. Loading takes place beside the answering and
can be held up; everything the real one forgets at a restart is forgotten here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from adapters.saved_model import tensorflow
from adapters.tf_serving import tensorflow_unopened

with tensorflow_unopened():
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_management_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

Inputs = Mapping[str, np.ndarray]
Answer = Callable[[Inputs], Mapping[str, Any]]
State = get_model_status_pb2.ModelVersionStatus
POLL_S = 0.02
FAILED = 13


def saved_model(folder: Path) -> Answer:
    """Load a SavedModel as TensorFlow Serving does."""
    tf = tensorflow()
    loaded = tf.saved_model.load(str(folder))
    signature = loaded.signatures["serving_default"]

    def answer(inputs: Inputs) -> Mapping[str, Any]:
        assert loaded is not None
        given = {name: tf.constant(values) for name, values in inputs.items()}
        return {name: tensor.numpy() for name, tensor in signature(**given).items()}

    return answer


@dataclass
class Version:
    """A version the server knows of."""

    state: int
    answer: Answer | None = None
    problem: str = ""


@dataclass
class TensorFlowServing(
    prediction_service_pb2_grpc.PredictionServiceServicer, model_service_pb2_grpc.ModelServiceServicer
):
    """The server; `open` and `close` it, `restart` for both."""

    load: Callable[[Path], Answer] = saved_model
    port: int = 0
    loads: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str]] = field(default_factory=list)
    configs: int = 0

    def __post_init__(self) -> None:
        self.loads.set()
        self._config: dict[str, tuple[Path, frozenset[int]]] = {}
        self._versions: dict[str, dict[int, Version]] = {}
        self._labels: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server: grpc.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def open(self) -> None:
        self._tf = tensorflow()
        # As TensorFlow Serving does, it takes messages of any size.
        options = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
        self._server = grpc.server(futures.ThreadPoolExecutor(32), options=options)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(self, self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, args=(self._closing,), daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """End at once; what was configured is forgotten."""
        assert self._server is not None
        self._closing.set()
        self._server.stop(None).wait()
        self._watcher.join(10)
        self._config, self._versions, self._labels = {}, {}, {}

    def restart(self) -> None:
        self.close()
        self.open()

    def state(self, model: str, version: int) -> str | None:
        found = self._versions.get(model, {}).get(version)
        return None if found is None else State.State.Name(found.state)

    def label(self, model: str, label: str) -> int | None:
        return self._labels.get((model, label))

    # ModelService

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        name = request.model_spec.name
        found = dict(self._versions.get(name, {}))
        if request.model_spec.HasField("version"):
            wanted = request.model_spec.version.value
            found = {version: one for version, one in found.items() if version == wanted}
        if not found:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {name}")
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, one in found.items():
            told = response.model_version_status.add(version=version, state=one.state)
            if one.problem:
                told.status.error_code, told.status.error_message = FAILED, one.problem
        return response

    def HandleReloadConfigRequest(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        if request.config.WhichOneof("config") != "model_config_list":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Only ModelConfigList is currently supported")
        configs = request.config.model_config_list.config
        self.configs += 1
        with self._lock:
            labels = {(one.name, label): version for one in configs for label, version in one.version_labels.items()}
            for (name, _), version in labels.items():
                if self.state(name, version) != "AVAILABLE":
                    context.abort(
                        grpc.StatusCode.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model {name}, which is not currently "
                        "available for inference",
                    )
            self._labels = labels
            fresh = {one.name for one in configs} - set(self._config)
            self._config = {
                one.name: (Path(one.base_path), frozenset(one.model_version_policy.specific.versions))
                for one in configs
            }
        # Answered when a version of each new model is there.
        while fresh and context.is_active():
            there = {name for name in fresh if any(one.answer for one in self._versions.get(name, {}).values())}
            if there == fresh:
                break
            time.sleep(POLL_S)
        return model_management_pb2.ReloadConfigResponse()

    # PredictionService

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        version, _ = self._find(request.model_spec, context)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name, response.model_spec.version.value = request.model_spec.name, version
        return response

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        version, found = self._find(request.model_spec, context)
        assert found.answer is not None
        told = dict(context.invocation_metadata())
        self.asked.append((told["prodecks-model"], told["prodecks-version"]))
        try:
            outputs = found.answer({name: self._tf.make_ndarray(tensor) for name, tensor in request.inputs.items()})
        except Refused as refused:
            context.abort(refused.code, "refused")
        except (TypeError, ValueError) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error)[:500])
        response = predict_pb2.PredictResponse()
        response.model_spec.name, response.model_spec.version.value = request.model_spec.name, version
        for name, values in outputs.items():
            if not request.output_filter or name in request.output_filter:
                response.outputs[name].CopyFrom(self._tf.make_tensor_proto(values))
        return response

    def _find(self, spec: Any, context: grpc.ServicerContext) -> tuple[int, Version]:
        if spec.WhichOneof("version_choice") == "version_label":
            version = self._labels.get((spec.name, spec.version_label))
            if version is None:
                context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT, f"Unrecognized servable version label: {spec.version_label}"
                )
        elif spec.HasField("version"):
            version = spec.version.value
        else:
            version = max((one for one in self._versions.get(spec.name, {})), default=0)
        found = self._versions.get(spec.name, {}).get(version)
        if found is None or found.answer is None:
            context.abort(
                grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Specific({spec.name}, {version})"
            )
        return version, found

    # Loading

    def _watch(self, closing: threading.Event) -> None:
        """Load what is configured as soon as its folder is seen, unload what is not."""
        while not closing.is_set():
            with self._lock:
                config = dict(self._config)
            for name, versions in list(self._versions.items()):
                aspired = config.get(name, (Path(), frozenset()))[1]
                for version, one in versions.items():
                    if version not in aspired and one.state != State.END:
                        versions[version] = Version(State.END)
            for name, (base, aspired) in config.items():
                known = self._versions.setdefault(name, {})
                for version in sorted(aspired):
                    found = known.get(version)
                    unloaded = found is None or (found.state == State.END and not found.problem)
                    if unloaded and (base / str(version)).is_dir():
                        self._load(known, version, base / str(version), closing)
            time.sleep(POLL_S)

    def _load(self, known: dict[int, Version], version: int, folder: Path, closing: threading.Event) -> None:
        known[version] = Version(State.LOADING)
        while not self.loads.wait(POLL_S):
            if closing.is_set():
                return
        try:
            known[version] = Version(State.AVAILABLE, self.load(folder))
        except Exception as error:  # noqa: BLE001 - told as the version's state
            known[version] = Version(State.END, problem=str(error))


class Refused(Exception):
    """Raised by a version's function to answer with a status of gRPC."""

    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__(code.name)
        self.code = code


@contextmanager
def tensorflow_serving(load: Callable[[Path], Answer] = saved_model) -> Iterator[TensorFlowServing]:
    """A server on a free port, without any model yet."""
    server = TensorFlowServing(load)
    server.open()
    try:
        yield server
    finally:
        server.loads.set()
        server.close()
