"""An ONNX twin of a SavedModel, made by tf2onnx: the same answers without TensorFlow in the serving process (R2.3)."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from adapters.saved_model import tensorflow

OPSET = 18
MOST_SECONDS = 600


class NoTwinError(Exception):
    """The converter cannot express the model; the SavedModel itself is served then."""


def export_twin(folder: Path) -> bytes:
    """Convert a SavedModel with a signature of one vector for each raw feature.

    Parameters
    ----------
    folder
        Folder that holds ``saved_model.pb``.

    Returns
    -------
    bytes
        The ONNX model: inputs named as the features, outputs ``score`` and ``decision``.

    Raises
    ------
    NoTwinError
        The converter does not know an operation of the model, which it names, or takes too long.
    """
    # Its command line is the documented way to convert a SavedModel with look-up tables. It also resets TensorFlow's
    # graph, which a process that goes on training would notice.
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / "twin.onnx"
        command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", str(folder), "--output", str(made)]
        command += ["--opset", str(OPSET), "--tag", "serve", "--signature_def", "serving_default"]
        try:
            done = subprocess.run(  # noqa: S603 - our own interpreter and paths
                command,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=MOST_SECONDS,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
            )
        except subprocess.TimeoutExpired:
            raise NoTwinError(f"tf2onnx was not done after {MOST_SECONDS} s") from None
        if done.returncode != 0 or not made.is_file():
            told = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
            raise NoTwinError(f"tf2onnx: {told[-1].strip()[:500]}")
        return _with_feature_names(made.read_bytes(), _tensor_names(folder))


def _tensor_names(folder: Path) -> dict[str, str]:
    """Feature: what TensorFlow calls its tensor, which is not the feature's own name where that has capitals."""
    loaded = tensorflow().saved_model.load(str(folder))
    inputs = loaded.signatures["serving_default"].structured_input_signature[1]
    return {feature: spec.name for feature, spec in inputs.items()}


def _with_feature_names(content: bytes, tensors: dict[str, str]) -> bytes:
    import onnx

    model: Any = onnx.load_model_from_string(content)
    features = {tensor: feature for feature, tensor in tensors.items() if tensor != feature}
    taken = {name for node in model.graph.node for name in node.output} | {one.name for one in model.graph.initializer}
    clash = sorted(taken & set(features.values()))
    if clash:
        raise NoTwinError(f"a feature has the name of something inside the model: {', '.join(clash)[:500]}")
    for one in model.graph.input:
        one.name = features.get(one.name, one.name)
    for node in model.graph.node:
        node.input[:] = [features.get(name, name) for name in node.input]
    return bytes(model.SerializeToString())
