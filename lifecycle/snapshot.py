"""An immutable snapshot of training data, named by its content, so that the same data is the same input (R3.4)."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from datetime import datetime

import numpy as np
import pandas as pd


@dataclass(frozen=True, slots=True)
class FetchCounts:
    """How many rows a fetch saw, and where they went.

    Parameters
    ----------
    in_window
        Rows of the table inside the window, after the model file's ``where``.
    not_yet_labelled
        Rows too young for their label: the label delay has not passed at as-of.
    never_labelled
        Rows old enough that still have no label, a cancelled flight for example.
    eligible
        Rows with a known label; the three add up to `in_window`.
    rows
        Rows in the snapshot; fewer than `eligible` when a sample was taken.
    """

    in_window: int
    not_yet_labelled: int
    never_labelled: int
    eligible: int
    rows: int

    @property
    def sampled(self) -> bool:
        """Whether the snapshot is a sample of the eligible rows."""
        return self.rows < self.eligible

    def to_dict(self) -> dict[str, int]:
        """Plain JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The rows a training run is made from.

    Parameters
    ----------
    name
        `content_name` of the frame.
    frame
        One row for each prediction, sorted by timestamp, then entity key, with a RangeIndex: entity key (str),
        timestamp (datetime64[us, UTC]), numeric features (float64, NaN for missing), categorical features and
        sensitive columns (object of str, None for missing), label (int8, 1 for the positive class), and the
        columns that free-form expectations name.
    as_of
        The moment the fetch looked back from; rows from it on are not seen.
    window_start
        First moment of the window ``[window_start, as_of)``.
    counts
        What the fetch left out, and why.
    """

    name: str
    frame: pd.DataFrame
    as_of: datetime
    window_start: datetime
    counts: FetchCounts

    @property
    def window(self) -> str:
        """The window in words, for findings."""
        return f"{self.window_start:%Y-%m-%d} to {self.as_of:%Y-%m-%d}"


def content_name(frame: pd.DataFrame) -> str:
    """Name a frame by its logical content: columns in order, their types, and every value.

    The index does not count. Missing values are equal to each other, and so are 0.0 and -0.0. Times count by the
    instant, to the resolution of their type.

    Parameters
    ----------
    frame
        Columns of numbers, booleans, times, or objects that are str, bool or missing.

    Returns
    -------
    str
        The first 16 hex digits of the SHA-256.

    Raises
    ------
    TypeError
        A column holds something else; the message names the column.

    Examples
    --------
    >>> content_name(pd.DataFrame({"a": [1.0, 2.0]})) == content_name(pd.DataFrame({"a": [1.0, 2.0]}, index=[7, 8]))
    True
    """
    digest = hashlib.sha256()
    _framed(digest, f"{len(frame)} {frame.shape[1]}".encode())
    for position, name in enumerate(frame.columns):
        column = frame.iloc[:, position]
        _framed(digest, str(name).encode("utf-8", "surrogatepass"))
        _framed(digest, str(column.dtype).encode())
        kind = column.dtype.kind
        if isinstance(column.dtype, np.dtype) and kind in "biuf":
            values = column.to_numpy()
            if kind == "f":
                values = values + values.dtype.type(0)  # -0.0 + 0.0 is 0.0
                values[np.isnan(values)] = np.nan  # one bit pattern for all of them
            digest.update(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes())
        elif kind == "M":
            digest.update(np.ascontiguousarray(column.astype("int64").to_numpy(), dtype="<i8").tobytes())
        elif column.dtype == object or pd.api.types.is_string_dtype(column.dtype):
            codes, distinct = pd.factorize(column.to_numpy(dtype=object))
            digest.update(np.ascontiguousarray(codes, dtype="<i8").tobytes())
            encoded = [_encoded(value, str(name)) for value in distinct]
            _framed(digest, np.fromiter(map(len, encoded), dtype="<i8", count=len(encoded)).tobytes())
            _framed(digest, b"".join(encoded))
        else:
            raise TypeError(f"column {name!r} is {column.dtype}; accepted: numbers, booleans, times and text")
    return digest.hexdigest()[:16]


def _framed(digest: hashlib._Hash, part: bytes) -> None:
    """Add one part with its length, so that no two sequences of parts read alike."""
    digest.update(len(part).to_bytes(8, "little"))
    digest.update(part)


def _encoded(value: object, name: str) -> bytes:
    """One value of an object column as bytes that tell its type."""
    if isinstance(value, str):
        return b"s" + value.encode("utf-8", "surrogatepass")
    if isinstance(value, (bool, np.bool_)):
        return b"b1" if value else b"b0"
    raise TypeError(f"column {name!r} holds a {type(value).__name__}; accepted: text, booleans and missing values")
