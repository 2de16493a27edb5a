"""An ONNX twin of a SavedModel, made by tf2onnx: the same answers without TensorFlow in the serving process (R2.3)."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

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
        return made.read_bytes()
