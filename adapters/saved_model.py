"""Score raw feature rows with a SavedModel; MLflow keeps this file with each version as its loader (R3.8).

It imports nothing of this project, so that a version loads wherever TensorFlow is.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

BATCH_ROWS = 65_536


def tensorflow() -> Any:
    """Import TensorFlow without its notes about the machine, which no setting of its own silences; 6 s the first time."""
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        sys.stderr.flush()
        terminal = os.dup(2)
        with tempfile.TemporaryFile() as notes:
            os.dup2(notes.fileno(), 2)
            try:
                importlib.import_module("tensorflow")
            except BaseException:
                notes.seek(0)
                os.write(terminal, notes.read())
                raise
            finally:
                os.dup2(terminal, 2)
                os.close(terminal)
    return importlib.import_module("tensorflow")


class SavedModel:
    """A loaded SavedModel whose signature takes one vector for each raw feature.

    Parameters
    ----------
    folder
        Folder that holds ``saved_model.pb``.
    """

    def __init__(self, folder: Path | str) -> None:
        self._tf = tensorflow()
        self._loaded = self._tf.saved_model.load(str(folder))
        self._signature = self._loaded.signatures["serving_default"]
        self.inputs = {name: spec.dtype for name, spec in self._signature.structured_input_signature[1].items()}

    def predict(self, frame: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Score rows.

        Parameters
        ----------
        frame
            Raw features; missing is NaN for numbers, None or "" for categories. Other columns are left alone.
        params
            None: there are none.

        Returns
        -------
        pandas.DataFrame
            ``score``, the probability of the positive class, and ``decision``, 0 or 1; the frame's index.

        Raises
        ------
        KeyError
            A feature is missing; it is named.
        """
        del params
        columns = {name: self._column(frame, name) for name in self.inputs}
        parts: list[dict[str, Any]] = []
        for start in range(0, len(frame), BATCH_ROWS):
            batch = {name: self._tf.constant(values[start : start + BATCH_ROWS]) for name, values in columns.items()}
            parts.append({name: tensor.numpy() for name, tensor in self._signature(**batch).items()})
        return pd.DataFrame(
            {
                "score": np.concatenate([part["score"].reshape(-1) for part in parts] or [[]]).astype(np.float64),
                "decision": np.concatenate([part["decision"].reshape(-1) for part in parts] or [[]]).astype(np.int64),
            },
            index=frame.index,
        )

    def _column(self, frame: pd.DataFrame, name: str) -> npt.NDArray[Any]:
        if name not in frame:
            raise KeyError(f"feature {name!r} is missing; accepted: {', '.join(self.inputs)}")
        column = frame[name]
        if self.inputs[name] != self._tf.string:
            return pd.to_numeric(column).to_numpy(dtype=self.inputs[name].as_numpy_dtype, na_value=np.nan)
        # With a None among them pandas compares values as Python does; alone, texts end for it at their first NUL.
        codes, values = pd.factorize(np.concatenate([column.to_numpy(dtype=object), np.array([None])]))
        # As bytes: text that is no text, a lone surrogate, is then unseen like any other value.
        texts = np.array([*(str(value).encode("utf-8", "surrogatepass") for value in values), b""], dtype=object)
        return texts[codes[:-1]]  # -1, the missing, indexes the last


def score(folder: Path, frame: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Probability of the positive class for each row, shape (rows,).

    Raises
    ------
    KeyError
        The model takes a feature that the frame does not have.
    """
    return SavedModel(folder).predict(frame)["score"].to_numpy()


def _load_pyfunc(path: str) -> SavedModel:
    """Load a registered version; MLflow calls it by this name."""
    found = sorted(Path(path).rglob("saved_model.pb"))
    return SavedModel(found[0].parent)
