"""From raw features to compact arrays a network can read; all of it is repeated inside the saved model (R3.5).

Numbers are centred on their median and scaled, and carry NaN where missing; categories become codes with a bucket
each for the missing and for the unseen or rare. The encoding learns from training rows only and never sees a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lifecycle.errors import DataError
from lifecycle.spec import ModelSpec

MISSING = 0
UNSEEN = 1
FIRST_VALUE = 2
LARGEST_NUMBER = 1e300
"""Numbers beyond it count as missing, as infinities do: the saved model can test it with one comparison."""
LARGEST_ENCODED = 1e30
"""Encoded numbers are held inside it, so that none becomes a float32 infinity."""
LONGEST_VALUE = 256
"""Longer texts are not categories; they count as unseen."""
GRID = 256
_SAMPLE = 200_000

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32]
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Columns:
    """The features of a frame, read once: every fold is encoded from it without touching text again.

    Parameters
    ----------
    numbers
        Shape (rows, numeric features), float64; NaN where missing, infinite or beyond `LARGEST_NUMBER`.
    codes
        Shape (rows, categorical features), positions in `categories`; -1 where missing or empty.
    categories
        For each categorical feature its distinct values, sorted.
    """

    numbers: Floats
    codes: Codes
    categories: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True)
class Encoded:
    """Arrays of a network's input.

    Parameters
    ----------
    numbers
        Shape (rows, numeric features), float32, centred and scaled; NaN where missing.
    codes
        Shape (rows, categorical features), int32: `MISSING`, `UNSEEN`, or `FIRST_VALUE` + place in the vocabulary.
    """

    numbers: Numbers
    codes: Codes

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: Rows) -> Encoded:
        """The given rows, in their order."""
        return Encoded(self.numbers[rows], self.codes[rows])


@dataclass(frozen=True)
class NumericEncoding:
    """How one number is encoded: ``(x - center) / scale``.

    Parameters
    ----------
    name
        Feature.
    center
        Median of the training rows, in the feature's unit.
    scale
        Half the distance of the 5 % and 95 % quantiles, or 1 where they coincide; above 0.
    grid
        Quantiles of the encoded values at 0, 1/256, ... 1: knots of any number of bins are drawn from it.
    """

    name: str
    center: float
    scale: float
    grid: tuple[float, ...]

    def knots(self, bins: int) -> Numbers:
        """Ends of the piecewise-linear bins (Gorishniy et al. 2022, section 3.1), rising, at most `bins` + 1.

        A feature with fewer distinct values gets a knot at each; a constant one gets a single knot: no bin at all.
        """
        distinct = np.unique(np.asarray(self.grid, dtype=np.float32))
        if len(distinct) <= bins + 1:
            return distinct
        return np.unique(np.asarray(self.grid, dtype=np.float32)[np.linspace(0, GRID, bins + 1).round().astype(int)])


@dataclass(frozen=True)
class CategoricalEncoding:
    """How one category is encoded: its place in the vocabulary, after the buckets of the missing and the unseen.

    Parameters
    ----------
    name
        Feature.
    vocabulary
        Values met at least `min_category_count` times in training, sorted.
    """

    name: str
    vocabulary: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of codes, buckets included."""
        return FIRST_VALUE + len(self.vocabulary)


@dataclass(frozen=True)
class Encoding:
    """What was learnt from the training rows: plain values, in the model file's order of features."""

    numeric: tuple[NumericEncoding, ...]
    categorical: tuple[CategoricalEncoding, ...]

    def transform(self, columns: Columns, rows: Rows | slice = slice(None)) -> Encoded:
        """Encode rows of columns read by `read_columns`."""
        center = np.array([feature.center for feature in self.numeric], dtype=np.float64)
        scale = np.array([feature.scale for feature in self.numeric], dtype=np.float64)
        # float64 until after the centring: a number such as a Unix time has no float32 digits to spare.
        scaled = (columns.numbers[rows] - center) / scale
        numbers = np.clip(scaled, -LARGEST_ENCODED, LARGEST_ENCODED).astype(np.float32)
        raw = columns.codes[rows]
        codes = np.empty(raw.shape, dtype=np.int32)
        for place, feature in enumerate(self.categorical):
            known = {value: FIRST_VALUE + code for code, value in enumerate(feature.vocabulary)}
            # One entry more: -1, the missing, indexes the last.
            table = [known.get(value, UNSEEN) for value in columns.categories[place]]
            codes[:, place] = np.array([*table, MISSING], dtype=np.int32)[raw[:, place]]
        return Encoded(numbers, codes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready state."""
        return {
            "numeric": [
                {"name": f.name, "center": f.center, "scale": f.scale, "grid": list(f.grid)} for f in self.numeric
            ],
            "categorical": [{"name": f.name, "vocabulary": list(f.vocabulary)} for f in self.categorical],
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Encoding:
        """Equal to the encoding whose `to_dict` this was."""
        return cls(
            tuple(
                NumericEncoding(f["name"], float(f["center"]), float(f["scale"]), tuple(f["grid"]))
                for f in state["numeric"]
            ),
            tuple(CategoricalEncoding(f["name"], tuple(f["vocabulary"])) for f in state["categorical"]),
        )


def read_columns(frame: pd.DataFrame, spec: ModelSpec) -> Columns:
    """Read a frame's features.

    Parameters
    ----------
    frame
        With a column for each feature of the model file; further columns are ignored.
    spec
        The model file.

    Raises
    ------
    DataError
        A feature is not among the columns, or a numeric one does not hold numbers.
    """
    absent = [name for name in spec.feature_names if name not in frame.columns]
    if absent:
        raise DataError(
            f"{spec.name}: feature {absent[0]!r} is not among the columns; accepted: all of {spec.feature_names}"
        )
    numbers = np.full((len(frame), len(spec.numeric)), np.nan, dtype=np.float64)
    for place, number in enumerate(spec.numeric):
        try:
            values = pd.to_numeric(frame[number.name], errors="raise").to_numpy(dtype=np.float64, na_value=np.nan)
        except (TypeError, ValueError) as error:
            raise DataError(f"{spec.name}: feature {number.name!r} holds {error}; accepted: numbers or null") from error
        numbers[:, place] = np.where(np.abs(values) <= LARGEST_NUMBER, values, np.nan)
    codes = np.full((len(frame), len(spec.categorical)), -1, dtype=np.int32)
    categories: list[tuple[str, ...]] = []
    for place, category in enumerate(spec.categorical):
        column = frame[category.name].astype(object)
        # With a None among them pandas compares values as Python does; alone, texts end for it at their first NUL.
        found, uniques = pd.factorize(np.concatenate([column.to_numpy(dtype=object), np.array([None])]))
        # Text order, not order of appearance: the vocabulary must not depend on the order of rows.
        texts = [str(value) for value in uniques]
        distinct = sorted(set(texts) - {""})
        place_of = {text: rank for rank, text in enumerate(distinct)}
        codes[:, place] = np.array([*[place_of.get(text, -1) for text in texts], -1], dtype=np.int32)[found[:-1]]
        categories.append(tuple(distinct))
    return Columns(numbers, codes, tuple(categories))


def fit_encoding(columns: Columns, rows: Rows | slice, spec: ModelSpec) -> Encoding:
    """Learn medians, scales, quantiles and vocabularies from the given rows.

    Quantiles are taken over at most 200,000 evenly spaced rows. Values that are not valid text (lone surrogates)
    or longer than `LONGEST_VALUE` characters never enter a vocabulary: they are served as unseen.
    """
    numbers = columns.numbers[rows]
    codes = columns.codes[rows]
    sample = numbers[:: -(-len(numbers) // _SAMPLE)] if len(numbers) > _SAMPLE else numbers
    return Encoding(
        tuple(_fit_numeric(feature.name, sample[:, place]) for place, feature in enumerate(spec.numeric)),
        tuple(
            _fit_categorical(feature.name, codes[:, place], columns.categories[place], spec.training.min_category_count)
            for place, feature in enumerate(spec.categorical)
        ),
    )


def _fit_numeric(name: str, values: Floats) -> NumericEncoding:
    known = np.sort(values[~np.isnan(values)])
    if len(known) == 0:
        return NumericEncoding(name, 0.0, 1.0, (0.0,) * (GRID + 1))
    # Quantiles that are values of the data: a knot between two integers would say nothing.
    grid = known[np.linspace(0, len(known) - 1, GRID + 1).round().astype(int)]
    center = float(known[len(known) // 2])
    low, high = known[int(0.05 * (len(known) - 1))], known[int(np.ceil(0.95 * (len(known) - 1)))]
    spread = float(high / 2 - low / 2) or float(known[-1] / 2 - known[0] / 2)
    scale = spread if spread > 0 else 1.0
    return NumericEncoding(name, center, scale, tuple(float(np.float32((edge - center) / scale)) for edge in grid))


def _fit_categorical(name: str, codes: Codes, categories: Sequence[str], min_count: int) -> CategoricalEncoding:
    counts = np.bincount(codes[codes >= 0], minlength=len(categories))
    return CategoricalEncoding(
        name,
        tuple(value for value, count in zip(categories, counts, strict=True) if count >= min_count and _fits(value)),
    )


def _fits(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return len(value) <= LONGEST_VALUE
