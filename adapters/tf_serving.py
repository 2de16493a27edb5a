"""TensorFlow Serving by gRPC: scores rows, tells what is loaded, and takes the config of its models (R2.3, R4.1)."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import shutil
import socket
import sys
import types
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapters import durable
from lifecycle.errors import ConfigError, UnavailableError
from lifecycle.model_server import AVAILABLE, LABELS, Seen, ServedModel

Vector = npt.NDArray[Any]

DEADLINE_S = 1.0
"""What one scoring may take, its retries included."""
STATUS_S = 2.0
RELOAD_S = 30.0
"""The server answers a new config when the models that are new to it have loaded."""
FAILURES_TO_OPEN = 5
OPEN_S = 2.0
"""After so many failures in a row a version is not asked for so long, then by one request at a time until it answers."""
MODEL, VERSION = "prodecks-model", "prodecks-version"
"""Metadata of each call: all versions are asked by one method, and a proxy in between cannot tell them apart by it."""

_SIGNATURE = "serving_default"
_RETRIED = {
    "maxAttempts": 3,
    "initialBackoff": "0.02s",
    "maxBackoff": "0.2s",
    "backoffMultiplier": 3,
    # The server did not take the call. Every other code may mean that it did, and that it is too much for it.
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_SERVICE = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [
                {"service": "tensorflow.serving.PredictionService"},
                {"service": "tensorflow.serving.ModelService", "method": "GetModelStatus"},
            ],
            "retryPolicy": _RETRIED,
        }
    ],
    # While most calls fail, none is retried: a server that is down is not asked three times as often.
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
}
_OPTIONS = [
    ("grpc.service_config", json.dumps(_SERVICE)),
    ("grpc.enable_http_proxy", 0),
    # Each version has a connection of its own: what holds one up holds up no other.
    ("grpc.use_local_subchannel_pool", 1),
    # By default a server that was away is not looked for again for up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", -1),
]


class ModelServer:
    """A TensorFlow Serving, or several of the same under one name.

    Parameters
    ----------
    address
        ``host:port``. Where the name stands for several servers, calls go to all in turn, and all have to agree.
    deadline
        Seconds that one scoring may take.

    Raises
    ------
    ConfigError
        No address, a deadline that is none, or tensorflow-serving-api is not installed.
    """

    def __init__(self, address: str, deadline: float = DEADLINE_S) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
            raise ConfigError(f"TensorFlow Serving at {address[:200]!r}; accepted: HOST:PORT")
        if not 0 < deadline <= 60:  # NaN too
            raise ConfigError(f"deadline of {deadline} s; accepted: above 0, at most 60")
        self.address, self.deadline = address, deadline
        self._apis = _Apis()
        self._channels: dict[str, Any] = {}

    def replicas(self) -> list[str]:
        """Address of every server that the name stands for; UnavailableError for none."""
        host, _, port = self.address.rpartition(":")
        try:
            found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        except OSError as error:
            raise UnavailableError(f"TensorFlow Serving at {self.address}: {error.strerror}") from None
        # A server with an address of either kind is one server.
        kind = min(family for family, *_ in found)
        hosts = sorted({address[0] for family, _, _, _, address in found if family == kind})
        return [f"[{one}]:{port}" if ":" in str(one) else f"{one}:{port}" for one in hosts]

    def version(self, model: str, version: str) -> RemoteVersion:
        """Score with a version; UnavailableError while not every server has it available."""
        for replica in self.replicas():
            seen = self._states(replica, model)
            state = seen.states.get(version, "not known there")
            if state != AVAILABLE:
                why = seen.failures.get(version)
                raise UnavailableError(
                    f"{model} version {version} is {state}{f' ({why})' if why else ''} at TensorFlow Serving {replica}; "
                    f"accepted: {AVAILABLE}"
                )
        return RemoteVersion(self.address, self._apis, model, version, self.deadline)

    def seen(self, replica: str, model: str) -> Seen:
        """What a server says of a model; UnavailableError when it does not answer."""
        states = self._states(replica, model)
        labels = {label: self._label(replica, model, label) for label in LABELS} if states.states else {}
        held = {label: version for label, version in labels.items() if version is not None}
        return Seen(states.states, held, states.failures)

    def configure(self, replica: str, config: Sequence[ServedModel], base: Path) -> None:
        """Give a server the config of all its models.

        Parameters
        ----------
        replica
            One of `replicas`.
        config
            Every model; what is not named is unloaded.
        base
            Folder, as the server sees it, with a folder for each model and in it one for each version.

        Raises
        ------
        UnavailableError
            It does not answer, or does not take it.
        """
        request = self._apis.management.ReloadConfigRequest()
        for one in config:
            wanted = request.config.model_config_list.config.add()
            wanted.name, wanted.base_path, wanted.model_platform = one.model, str(base / one.model), "tensorflow"
            wanted.model_version_policy.specific.versions.extend(int(version) for version in one.versions)
            for label, version in one.labels.items():
                wanted.version_labels[label] = int(version)
        stub = self._apis.models.ModelServiceStub(self._channel(replica))
        with _answering(replica):
            stub.HandleReloadConfigRequest(request, timeout=RELOAD_S)

    def _states(self, replica: str, model: str) -> Seen:
        import grpc

        request = self._apis.status.GetModelStatusRequest()
        request.model_spec.name = model
        stub = self._apis.models.ModelServiceStub(self._channel(replica))
        with _answering(replica):
            try:
                told = stub.GetModelStatus(request, timeout=STATUS_S).model_version_status
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND:
                    return Seen()
                raise
        name = self._apis.status.ModelVersionStatus.State.Name
        return Seen(
            {str(one.version): name(one.state) for one in told},
            failures={str(one.version): one.status.error_message[:300] for one in told if one.status.error_code},
        )

    def _label(self, replica: str, model: str, label: str) -> str | None:
        import grpc

        request = self._apis.metadata.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name, request.model_spec.version_label = model, label
        stub = self._apis.predictions.PredictionServiceStub(self._channel(replica))
        with _answering(replica):
            try:
                return str(stub.GetModelMetadata(request, timeout=STATUS_S).model_spec.version.value)
            except grpc.RpcError as error:
                # A label that is nobody's, and one whose version is not loaded any more.
                if error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND):
                    return None
                raise

    def _channel(self, address: str) -> Any:
        if address not in self._channels:
            self._channels[address] = _channel(address)
        return self._channels[address]


class RemoteVersion:
    """One version at TensorFlow Serving: with its own connection, deadline and circuit breaker.

    Parameters
    ----------
    address
        ``host:port``.
    apis
        The protocol's messages.
    model, version
        Which.
    deadline
        Seconds that one scoring may take.
    """

    def __init__(self, address: str, apis: _Apis, model: str, version: str, deadline: float) -> None:
        import pybreaker

        self._apis, self._deadline = apis, deadline
        self._model, self._version = model, version
        self._predict = apis.predictions.PredictionServiceStub(_channel(f"dns:///{address}")).Predict
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=FAILURES_TO_OPEN,
            reset_timeout=OPEN_S,
            exclude=[lambda error: not _is_overwhelmed(error)],
            throw_new_error_on_trip=False,
        )

    def score(self, columns: Mapping[str, Vector]) -> npt.NDArray[np.float64]:
        """Probability of the positive class; may be called by several threads at once.

        Parameters
        ----------
        columns
            For each feature a vector of shape (rows,): float64 with NaN for missing, or objects, all of them str,
            empty for missing. They are sent as they are: the SavedModel decides what a missing value means.

        Returns
        -------
        numpy.ndarray
            Shape (rows,), float64.

        Raises
        ------
        UnavailableError
            It does not answer in time, refuses, or is not asked because it failed again and again.
        """
        import pybreaker

        request = self._apis.predict.PredictRequest(output_filter=["score"])
        request.model_spec.name, request.model_spec.signature_name = self._model, _SIGNATURE
        request.model_spec.version.value = int(self._version)
        rows = 0
        for name, values in columns.items():
            rows = len(values)
            request.inputs[name].CopyFrom(self._tensor(values))
        what = f"TensorFlow Serving, {self._model} version {self._version}"
        with _answering(what):
            try:
                answer = self._guarded(lambda: self._predict(request, timeout=self._deadline, metadata=self._metadata))
            except pybreaker.CircuitBreakerError:
                raise UnavailableError(f"{what}: not asked for {OPEN_S:g} s, having failed again and again") from None
        return _scores(answer.outputs["score"], rows, what)

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (MODEL, self._model), (VERSION, self._version)

    def _guarded(self, ask: Callable[[], Any]) -> Any:
        """Call past the circuit breaker, which lets one call through at a time: only trials are made inside of it."""
        import pybreaker

        if self._breaker.current_state != pybreaker.STATE_CLOSED:
            return self._breaker.call(ask)
        try:
            answer = ask()
        except Exception as error:
            self._breaker.call(_raise, error)
            raise
        with contextlib.suppress(pybreaker.CircuitBreakerError):  # it opened meanwhile: an answer is an answer
            self._breaker.call(lambda: None)
        return answer

    def _tensor(self, values: Vector) -> Any:
        types_ = self._apis.types
        if values.dtype == object:
            made = self._apis.tensor.TensorProto(dtype=types_.DT_STRING)
            # Text that is no text, a lone surrogate, is then unseen like any other value.
            made.string_val.extend(value.encode("utf-8", "surrogatepass") for value in values)
        else:
            content = np.ascontiguousarray(values, dtype="<f8").tobytes()
            made = self._apis.tensor.TensorProto(dtype=types_.DT_DOUBLE, tensor_content=content)
        made.tensor_shape.dim.add().size = len(values)
        return made


def export_version(saved: Path, base: Path, model: str, version: str) -> bool:
    """Put a SavedModel where TensorFlow Serving looks for it, whole or not at all; whether it was not there.

    It loads a version's folder as soon as it sees it: the folder appears by being renamed.

    Parameters
    ----------
    saved
        Folder that holds ``saved_model.pb``.
    base
        Folder with a folder for each model.

    Raises
    ------
    UnavailableError
        The disk does not take it.
    """
    target = base / model / version
    if target.is_dir():
        return False
    staged = base / ".staging" / uuid.uuid4().hex
    try:
        shutil.copytree(saved, staged)
        for path in (*(one for one in staged.rglob("*")), staged):
            durable.sync(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.rename(target)
        durable.sync(target.parent)
    except OSError as error:
        if target.is_dir():  # somebody else was quicker
            return False
        raise UnavailableError(f"{model} version {version} cannot be put below {base}: {error.strerror}") from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return True


class _Apis:
    """The protocol's messages and stubs, imported when first asked for, and without TensorFlow.

    TensorFlow Serving's messages hold TensorFlow's, and importing those from its package would import all of it: 0.7 GB
    and several seconds for a few generated files.
    """

    def __init__(self) -> None:
        try:
            with tensorflow_unopened():
                self.management = importlib.import_module("tensorflow_serving.apis.model_management_pb2")
                self.metadata = importlib.import_module("tensorflow_serving.apis.get_model_metadata_pb2")
                self.models = importlib.import_module("tensorflow_serving.apis.model_service_pb2_grpc")
                self.predict = importlib.import_module("tensorflow_serving.apis.predict_pb2")
                self.predictions = importlib.import_module("tensorflow_serving.apis.prediction_service_pb2_grpc")
                self.status = importlib.import_module("tensorflow_serving.apis.get_model_status_pb2")
                self.tensor = importlib.import_module("tensorflow.core.framework.tensor_pb2")
                self.types = importlib.import_module("tensorflow.core.framework.types_pb2")
        except ImportError as error:
            raise ConfigError(f"{error}; accepted: tensorflow-serving-api installed (uv sync)") from None


@contextlib.contextmanager
def tensorflow_unopened() -> Iterator[None]:
    """Let modules below ``tensorflow`` be imported without running the package's own, unless it is there already."""
    found = importlib.util.find_spec("tensorflow") if "tensorflow" not in sys.modules else None
    if found is None:
        yield
        return
    package = types.ModuleType("tensorflow")
    package.__path__ = list(found.submodule_search_locations or [])
    sys.modules["tensorflow"] = package
    try:
        yield
    finally:
        # Whoever imports TensorFlow later gets all of it.
        del sys.modules["tensorflow"]


def _channel(address: str) -> Any:
    import grpc

    return grpc.insecure_channel(address, options=_OPTIONS)


@contextlib.contextmanager
def _answering(what: str) -> Iterator[None]:
    import grpc

    try:
        yield
    except grpc.RpcError as error:
        raise UnavailableError(f"{what}: {error.code().name}: {(error.details() or '')[:300]}") from None


def _is_overwhelmed(error: BaseException) -> bool:
    """Whether a server does not keep up; one that says what is wrong with a request does."""
    import grpc

    code = grpc.StatusCode
    return isinstance(error, grpc.RpcError) and error.code() in (
        code.UNAVAILABLE, code.DEADLINE_EXCEEDED, code.RESOURCE_EXHAUSTED,
    )  # fmt: skip


def _raise(error: Exception) -> None:
    raise error


def _scores(tensor: Any, rows: int, what: str) -> npt.NDArray[np.float64]:
    """Vector of an answer's tensor, whose numbers stand in its content or in a field for their type."""
    kinds = {1: ("<f4", tensor.float_val), 2: ("<f8", tensor.double_val)}
    if tensor.dtype not in kinds:
        raise UnavailableError(f"{what} answers with data type {tensor.dtype}; accepted: DT_FLOAT, DT_DOUBLE")
    kind, values = kinds[tensor.dtype]
    found = np.frombuffer(tensor.tensor_content, kind) if tensor.tensor_content else np.array(values, kind)
    if found.size != rows:
        raise UnavailableError(f"{what} answers {rows} rows with {found.size} scores; accepted: one each")
    return found.astype(np.float64)
