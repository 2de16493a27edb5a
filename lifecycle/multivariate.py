"""Whether columns have drifted together, also where none has by itself: maximum mean discrepancy on random features (R5.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from lifecycle.distribution import Categories, Numbers, WindowState
from lifecycle.drift import MIN_ROWS, Evidence, judge_distance
from lifecycle.findings import Finding

Floats = NDArray[np.float64]

FREQUENCIES = 128
ALPHA = 0.001
# Numbers beyond this many deviations say nothing more: one wild value must not be a direction of its own.
_FAR = 5.0
_BLOCK = 8_192


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """Rows summed in the feature space of a kernel, where each has length 1; partitions add up exactly.

    Parameters
    ----------
    rows
        Rows summed.
    total
        Shape (features,): their sum.
    products
        Shape (features, features): sum of each row's products with itself.
    """

    rows: int
    total: Floats
    products: Floats

    def merge(self, other: Embedding) -> Embedding:
        """The embedding of both windows' rows together."""
        return Embedding(self.rows + other.rows, self.total + other.total, self.products + other.products)

    def without(self, part: Embedding) -> Embedding:
        """The embedding of the rows that are not in a part of this window."""
        return Embedding(self.rows - part.rows, self.total - part.total, self.products - part.products)

    @property
    def mean(self) -> Floats:
        """Mean embedding; shape (features,)."""
        return np.asarray(self.total / self.rows)

    @property
    def covariance(self) -> Floats:
        """Covariance of the rows; shape (features, features)."""
        return np.asarray(self.products / self.rows - np.outer(self.mean, self.mean))


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """A Gaussian kernel over numbers and categories, by random Fourier features (Rahimi and Recht, 2007).

    Numbers count in standard deviations of the reference, a missing one as its mean with a mark of its own. Each
    category is a corner of a simplex; what the reference never had is one more corner, what is missing another. The
    kernel is one standard deviation a column wide, which is about the median distance of two rows.

    Parameters
    ----------
    numeric
        Column: mean and deviation of the reference.
    categories
        Column: place of each category.
    numeric_weights, missing_weights
        Shape (numeric columns, frequencies).
    category_weights
        Column: shape (categories + 2, frequencies).
    width
        In standard deviations.
    """

    numeric: dict[str, tuple[float, float]]
    categories: dict[str, dict[str, int]]
    numeric_weights: Floats
    missing_weights: Floats
    category_weights: dict[str, Floats]
    width: float

    @classmethod
    def of(cls, reference: WindowState, seed: int, frequencies: int = FREQUENCIES) -> Self:
        """Draw a kernel for a reference's columns.

        Parameters
        ----------
        reference
            Says what is usual of each column.
        seed
            Of the directions; embeddings of different seeds cannot be compared.
        frequencies
            Half the length of an embedding.
        """
        rng = np.random.default_rng(seed)
        numeric = {
            name: (state.mean, state.deviation if state.known and state.deviation > 0 else 1.0)
            for name, state in reference.columns.items()
            if isinstance(state, Numbers)
        }
        categories = {
            name: {value: place for place, value in enumerate(sorted(state.counts))}
            for name, state in reference.columns.items()
            if isinstance(state, Categories)
        }
        width = math.sqrt(max(1, len(reference.columns)))

        def weights(rows: int) -> Floats:
            return rng.normal(size=(rows, frequencies)) / width

        return cls(
            numeric,
            categories,
            weights(len(numeric)),
            weights(len(numeric)),
            # Two unlike categories lie the square root of two apart, as two rows of a standardised number do.
            {name: weights(len(values) + 2) for name, values in categories.items()},
            width,
        )

    def embed(self, frame: pd.DataFrame) -> Embedding:
        """Sum rows that have the reference's columns; time grows with rows, memory hardly does."""
        frequencies = self.numeric_weights.shape[1]
        total, products = np.zeros(2 * frequencies), np.zeros((2 * frequencies, 2 * frequencies))
        codes = {name: self._codes(frame[name], values) for name, values in self.categories.items()}
        columns = {name: frame[name].to_numpy(dtype=np.float64, na_value=math.nan) for name in self.numeric}
        for first in range(0, len(frame), _BLOCK):
            rows = slice(first, min(first + _BLOCK, len(frame)))
            angles = np.zeros((rows.stop - first, frequencies))
            if columns:
                values = np.column_stack(
                    [(columns[name][rows] - mean) / deviation for name, (mean, deviation) in self.numeric.items()]
                )
                missing = np.isnan(values)
                angles += np.clip(np.where(missing, 0.0, values), -_FAR, _FAR) @ self.numeric_weights
                if missing.any():
                    angles += missing @ self.missing_weights
            for name, code in codes.items():
                angles += self.category_weights[name][code[rows]]
            waves = np.hstack([np.cos(angles), np.sin(angles)]) / math.sqrt(frequencies)
            total += waves.sum(axis=0)
            products += waves.T @ waves
        return Embedding(len(frame), total, products)

    @staticmethod
    def _codes(column: pd.Series[str], known: dict[str, int]) -> NDArray[np.intp]:
        """Place of each row's category: the known ones, then the unseen, then the missing."""
        codes, found = pd.factorize(column)
        places = np.array([*(known.get(str(value), len(known)) for value in found), len(known) + 1], dtype=np.intp)
        return places[codes]


def discrepancy(one: Embedding, other: Embedding) -> float:
    """Squared maximum mean discrepancy of two windows (Gretton and others, 2012), 0 to 4; chance alone makes some."""
    gap = one.mean - other.mean
    return float(gap @ gap)


def equivalent_shift(reference: Embedding, current: Embedding, width: float) -> float:
    """How far one number would have to move to make the same discrepancy, in its standard deviations.

    A number that moves by d turns each frequency of the mean embedding, which is by 2 (1 - exp(-d^2 / (2 width^2))) of
    its squared length on average. What chance makes of the discrepancy is taken off first.

    Returns
    -------
    float
        0 or above; infinite when no shift would be enough.
    """
    excess = discrepancy(reference, current) - _expected(reference, current)
    length = float(reference.mean @ reference.mean)
    if excess <= 0:
        return 0.0
    turned = excess / (2 * length) if length > 0 else math.inf
    return width * math.sqrt(-2 * math.log1p(-turned)) if turned < 1 else math.inf


def discrepancy_p_value(reference: Embedding, current: Embedding) -> float:
    """Chance of as large a discrepancy of two windows of one distribution.

    The discrepancy is then a sum of chi-squares weighted by the eigenvalues of the covariance: a gamma distribution of
    the same mean and variance stands for it (Gretton and others, 2009, "A fast, consistent kernel two-sample test").
    """
    covariance = reference.merge(current).covariance
    trace, squares = float(np.trace(covariance)), float(np.sum(covariance * covariance))
    # A difference below rounding is none, of rows that do not differ among themselves.
    if trace <= 1e-12:
        return 1.0 if discrepancy(reference, current) <= 1e-12 else 0.0
    freedom = trace * trace / squares
    scale = _expected(reference, current) / freedom
    return float(stats.chi2.sf(discrepancy(reference, current) / scale, freedom))


def judge_multivariate(
    kernel: Kernel,
    reference: Embedding,
    current: Embedding,
    threshold: float,
    blocks: Sequence[Embedding] = (),
    *,
    window: str,
    alpha: float = ALPHA,
) -> Finding:
    """Tell whether a window's rows, taken as wholes, have left the reference's.

    Parameters
    ----------
    kernel
        Which embedded all of them.
    reference, current
        The two windows.
    threshold
        ``monitoring.drift`` of the model file, in standard deviations.
    blocks
        The reference's weeks, which together are the reference.
    window
        The two windows, in words.
    alpha
        Chance of a false finding, as in `lifecycle.drift.judge_drift`.

    Returns
    -------
    Finding
        ``multivariate_shift``: as in `equivalent_shift`. A warning when it is above the threshold, not chance, and
        further than the reference's own weeks go; NO_DATA on fewer than `lifecycle.drift.MIN_ROWS` rows.
    """
    rows = min(reference.rows, current.rows)
    if rows < MIN_ROWS:
        value, evidence = None, None
    else:
        value = equivalent_shift(reference, current, kernel.width)
        own = tuple(
            equivalent_shift(reference.without(block), block, kernel.width)
            for block in blocks
            if MIN_ROWS <= block.rows < reference.rows
        )
        evidence = Evidence(discrepancy_p_value(reference, current), own)
    return judge_distance("all columns", "multivariate_shift", value, threshold, rows, window, evidence, alpha)


def _expected(one: Embedding, other: Embedding) -> float:
    """The discrepancy to expect of two windows of one distribution."""
    return float(np.trace(one.merge(other).covariance)) * (1 / one.rows + 1 / other.rows)
