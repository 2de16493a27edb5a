"""What the columns of a window hold, as states that partitions compute apart and merge (R5.3, R5.5).

Counts of rows, missing values and categories, extremes and moments are exact after any merging. The values of a number
are kept whole while they fit, or else as a quantile sketch whose error bound travels with it.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lifecycle.errors import DataError

Floats = NDArray[np.float64]
Result = TypeVar("Result")

SKETCH = 4_096
"""Values a run of the sketch keeps: half a megabyte a column at 50 million rows, at a rank error below 0.2 %."""

_BLOCK = 2**13


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Sorted values that each stand for `count` / len(values) rows.

    Parameters
    ----------
    values
        Ascending, finite.
    count
        Rows behind them.
    error
        Largest difference, in rows, between the rows at or below any value and what the run says of them; 0 when
        every row is kept.
    """

    values: Floats
    count: int
    error: float


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """A numeric column.

    Parameters
    ----------
    rows
        All rows.
    missing
        Null or NaN among them.
    below, above
        Negative and positive infinities among them; they take part in no distance.
    mean, squares
        Mean of the finite values, and the sum of their squared differences from it; merged by Chan, Golub and
        LeVeque (1983).
    low, high
        Smallest and largest finite value; NaN without one.
    runs
        The finite values: one whole run, or the runs of the sketch.
    size
        Values a run of the sketch keeps; None keeps all.
    """

    rows: int
    missing: int
    below: int
    above: int
    mean: float
    squares: float
    low: float
    high: float
    runs: tuple[Run, ...]
    size: int | None = None

    @classmethod
    def of(cls, values: ArrayLike, size: int | None = None) -> Self:
        """Read a column.

        Parameters
        ----------
        values
            Shape (rows,): numbers or booleans, null and NaN missing.
        size
            Values a run of the sketch keeps, at least 2; None keeps all, so that distances are exact.

        Raises
        ------
        DataError
            Values that are no numbers.
        """
        if size is not None and size < 2:
            raise ValueError(f"size {size}; accepted: 2 or more, or None for all values")
        numbers = np.sort(_as_floats(values))
        known = int(np.searchsorted(numbers, math.nan))
        first = int(np.searchsorted(numbers, -math.inf, side="right"))
        last = int(np.searchsorted(numbers[:known], math.inf, side="left"))
        finite = numbers[first:last]
        with np.errstate(over="ignore", invalid="ignore"):  # numbers near the largest float have no moments
            mean = float(finite.mean()) if len(finite) else 0.0
            squares = _squares(finite, mean)
        return cls(
            rows=len(numbers),
            missing=len(numbers) - known,
            below=first,
            above=known - last,
            mean=mean,
            squares=squares,
            low=float(finite[0]) if len(finite) else math.nan,
            high=float(finite[-1]) if len(finite) else math.nan,
            runs=_settled((Run(finite, len(finite), 0.0),), size),
            size=size,
        )

    @property
    def known(self) -> int:
        """Finite values."""
        return self.rows - self.missing - self.below - self.above

    @property
    def missing_share(self) -> float:
        """Share of rows without a value, 0..1; NaN without rows."""
        return self.missing / self.rows if self.rows else math.nan

    @property
    def deviation(self) -> float:
        """Standard deviation of the finite values as a population (numpy's); NaN without one."""
        return math.sqrt(self.squares / self.known) if self.known else math.nan

    @property
    def is_exact(self) -> bool:
        """Whether every value is kept."""
        return len(self.runs) <= 1 and self.rank_error == 0

    @property
    def rank_error(self) -> float:
        """Largest error of `share_at`, as a share of the known rows: a bound, not a guess (Munro and Paterson, 1980)."""
        return sum(run.error for run in self.runs) / self.known if self.known else 0.0

    def weighted(self) -> tuple[Floats, Floats]:
        """Values in ascending order, and how many rows each stands for."""
        values = np.concatenate([run.values for run in self.runs]) if self.runs else np.empty(0)
        weights = (
            np.concatenate([np.full(len(run.values), run.count / len(run.values)) for run in self.runs])
            if self.runs
            else np.empty(0)
        )
        if len(self.runs) > 1:
            order = np.argsort(values, kind="stable")
            values, weights = values[order], weights[order]
        return values, weights

    def share_at(self, points: ArrayLike, *, strictly_below: bool = False) -> Floats:
        """Share of the known rows at or below (or strictly below) each point, 0..1; NaN without a known row.

        Off by at most `rank_error`.
        """
        places = np.asarray(points, dtype=np.float64)
        side: Any = "left" if strictly_below else "right"
        if not self.known:
            return np.full(places.shape, math.nan)
        found = np.zeros(places.shape)
        for run in self.runs:
            found += np.searchsorted(run.values, places, side=side) * (run.count / len(run.values))
        return found / self.known

    def quantile(self, shares: ArrayLike) -> Floats:
        """Smallest kept value with at least such a share of the rows at or below it; NaN without a known row.

        Its true rank differs from the share asked by at most `rank_error`, and by what one kept value stands for.
        """
        asked = np.asarray(shares, dtype=np.float64)
        values, weights = self.weighted()
        if not len(values):
            return np.full(asked.shape, math.nan)
        reached = np.cumsum(weights) / self.known
        # The last sum may miss 1 by rounding.
        places = np.minimum(np.searchsorted(reached, asked - 1e-12, side="left"), len(values) - 1)
        return np.asarray(np.where(asked >= 1, self.high, np.where(asked <= 0, self.low, values[places])))

    def distinct(self, most: int) -> Floats | None:
        """Distinct kept values when there are at most `most`; None when there are more, or no known row."""
        values = self.runs[0].values if len(self.runs) == 1 else self.weighted()[0]
        found: list[float] = []
        place = 0
        while place < len(values) and len(found) <= most:
            found.append(float(values[place]))
            place = int(np.searchsorted(values, values[place], side="right"))
        return np.array(found) if 0 < len(found) <= most else None

    def merge(self, other: Numbers) -> Numbers:
        """The state of both windows' rows together.

        Raises
        ------
        ValueError
            Sketches of different size.
        """
        if self.size != other.size:
            raise ValueError(f"sketches of {self.size} and {other.size} values a run; accepted: the same size")
        mine, theirs = self.known, other.known
        known = mine + theirs
        gap = other.mean - self.mean
        return Numbers(
            rows=self.rows + other.rows,
            missing=self.missing + other.missing,
            below=self.below + other.below,
            above=self.above + other.above,
            mean=(self.mean * mine + other.mean * theirs) / known if known else 0.0,
            squares=self.squares + other.squares + (gap * gap * mine * theirs / known if known else 0.0),
            low=float(np.fmin(self.low, other.low)),
            high=float(np.fmax(self.high, other.high)),
            runs=_settled(self.runs + other.runs, self.size),
            size=self.size,
        )


@dataclass(frozen=True, slots=True)
class Categories:
    """A categorical column: every value as text with its rows, and the rows without one."""

    rows: int
    missing: int
    counts: dict[str, int]

    @classmethod
    def of(cls, values: ArrayLike) -> Self:
        """Read a column of shape (rows,); null is missing, anything else is read as text."""
        column = values if isinstance(values, pd.Series) else pd.Series(values)
        if isinstance(column.dtype, pd.CategoricalDtype):
            codes, found = column.cat.codes.to_numpy(), column.cat.categories.to_numpy(dtype=object)
        else:
            codes, values_found = pd.factorize(column)
            found = np.asarray(values_found, dtype=object)
        per_code = np.bincount(codes.astype(np.intp, copy=False) + 1, minlength=len(found) + 1)
        counts: dict[str, int] = {}
        for value, count in zip(found, per_code[1:].tolist(), strict=True):
            if count:
                counts[str(value)] = counts.get(str(value), 0) + count
        return cls(len(column), int(per_code[0]), counts)

    @property
    def known(self) -> int:
        """Rows with a value."""
        return self.rows - self.missing

    @property
    def missing_share(self) -> float:
        """Share of rows without a value, 0..1; NaN without rows."""
        return self.missing / self.rows if self.rows else math.nan

    def merge(self, other: Categories) -> Categories:
        """The state of both windows' rows together."""
        return self._combined(other, 1)

    def without(self, part: Categories) -> Categories:
        """The state of the rows that are not in a part of this window."""
        return self._combined(part, -1)

    def _combined(self, other: Categories, sign: int) -> Categories:
        counts = dict(self.counts)
        for value, count in other.counts.items():
            counts[value] = counts.get(value, 0) + sign * count
        counts = {value: count for value, count in counts.items() if count}
        return Categories(self.rows + sign * other.rows, self.missing + sign * other.missing, counts)


Column = Numbers | Categories


@dataclass(frozen=True, slots=True)
class WindowState:
    """A window of rows: each column's state."""

    rows: int
    columns: dict[str, Column]

    @classmethod
    def of(
        cls,
        frame: pd.DataFrame,
        numeric: Collection[str],
        categorical: Collection[str],
        *,
        size: int | None = None,
        threads: int = 1,
    ) -> Self:
        """Read a window, or a partition of one.

        Parameters
        ----------
        frame
            Rows.
        numeric, categorical
            Columns read as numbers and as categories.
        size
            As in `Numbers.of`: None keeps every number, `SKETCH` bounds memory.
        threads
            Columns read at a time; numpy sorts without Python's lock.

        Raises
        ------
        DataError
            A column that is not there, or a numeric one that holds no numbers.
        """
        gone = [name for name in (*numeric, *categorical) if name not in frame.columns]
        if gone:
            raise DataError(
                f"the window has no column {', '.join(gone)}; accepted: {', '.join(map(str, frame.columns))}"
            )

        def read(name: str) -> Column:
            return Numbers.of(frame[name], size) if name in numbers else Categories.of(frame[name])

        numbers = set(numeric)
        names = [*numeric, *categorical]
        states = in_threads(read, names, threads)
        return cls(len(frame), dict(zip(names, states, strict=True)))

    def merge(self, other: WindowState) -> WindowState:
        """The state of both windows' rows together.

        Raises
        ------
        ValueError
            Windows with other columns, or a column that is a number in one and a category in the other.
        """
        if self.columns.keys() != other.columns.keys():
            odd = sorted(self.columns.keys() ^ other.columns.keys())
            raise ValueError(f"{', '.join(odd)} stands in one window only; accepted: the same columns in both")
        columns: dict[str, Column] = {}
        for name, mine in self.columns.items():
            theirs = other.columns[name]
            match mine, theirs:
                case Numbers(), Numbers():
                    columns[name] = mine.merge(theirs)
                case Categories(), Categories():
                    columns[name] = mine.merge(theirs)
                case _:
                    raise ValueError(f"{name}: number and category; accepted: one type in both windows")
        return WindowState(self.rows + other.rows, columns)

    def to_bytes(self) -> bytes:
        """The state as a file's content: an ``.npz`` of plain arrays, no pickle in it."""
        arrays: dict[str, NDArray[Any]] = {}
        columns: dict[str, dict[str, Any]] = {}
        for place, (name, state) in enumerate(self.columns.items()):
            if isinstance(state, Categories):
                columns[name] = {"rows": state.rows, "missing": state.missing, "counts": state.counts}
                continue
            fields = ("rows", "missing", "below", "above", "mean", "squares", "low", "high", "size")
            columns[name] = {field: getattr(state, field) for field in fields}
            columns[name]["runs"] = [(run.count, run.error) for run in state.runs]
            arrays |= {f"{place}.{number}": run.values for number, run in enumerate(state.runs)}
        said = json.dumps({"rows": self.rows, "columns": columns})
        target = io.BytesIO()
        np.savez(target, allow_pickle=False, state=np.frombuffer(said.encode(), dtype=np.uint8), **arrays)
        return target.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Inverse of `to_bytes`."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            said = json.loads(arrays["state"].tobytes())
            columns: dict[str, Column] = {}
            for place, (name, fields) in enumerate(said["columns"].items()):
                if "counts" in fields:
                    columns[name] = Categories(**fields)
                    continue
                runs = tuple(
                    Run(arrays[f"{place}.{number}"], count, error)
                    for number, (count, error) in enumerate(fields["runs"])
                )
                columns[name] = Numbers(**{**fields, "runs": runs})
        return cls(said["rows"], columns)


def in_threads(function: Callable[[str], Result], names: Iterable[str], threads: int) -> list[Result]:
    """Results of a function for each name, in order, so many at a time."""
    if threads <= 1:
        return [function(name) for name in names]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, names))


def merged(states: Iterable[WindowState]) -> WindowState:
    """The state of all partitions together.

    Raises
    ------
    ValueError
        No partition, or ones that do not fit together.
    """
    total: WindowState | None = None
    for state in states:
        total = state if total is None else total.merge(state)
    if total is None:
        raise ValueError("no partition; accepted: at least one")
    return total


def _as_floats(values: ArrayLike) -> Floats:
    """A column as numbers, NaN where it is missing."""
    try:
        if isinstance(values, pd.Series):
            # np.nan itself: another NaN makes pandas look for the missing ones and copy.
            return values.to_numpy(dtype=np.float64, na_value=np.nan)
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"a numeric column holds what is no number ({error}); accepted: numbers and nulls") from error


def _squares(values: Floats, mean: float) -> float:
    """Sum of the squared differences from the mean, in blocks that stay in the processor's cache."""
    total = 0.0
    for first in range(0, len(values), _BLOCK):
        gaps = values[first : first + _BLOCK] - mean
        total += float(gaps @ gaps)
    return total


def _settled(runs: tuple[Run, ...], size: int | None) -> tuple[Run, ...]:
    """Runs within their bounds: one whole run, or a sketch with at most one run for each power of two of its rows.

    The collapse of Manku, Rajagopalan and Lindsay (1998), on runs of about equal weight as in Munro and Paterson
    (1980): nothing in it is random, and each collapse adds half of what one kept value stands for to the error.
    """
    runs = tuple(run for run in runs if run.count)
    if size is None:
        if len(runs) < 2:
            return runs
        # Timsort merges runs that are already sorted.
        values = np.sort(np.concatenate([run.values for run in runs]), kind="stable")
        return (Run(values, len(values), 0.0),)
    levels: dict[int, Run] = {}
    for run in runs:
        if run.error == 0 and len(run.values) == run.count > 2 * size:
            run = _thinned([run], size)
        # A run that still has all its rows is at level 0; two of one level make one of a higher level.
        level = _level(run, size)
        while level in levels:
            run = _thinned([levels.pop(level), run], size)
            level = _level(run, size)
        levels[level] = run
    return tuple(levels[level] for level in sorted(levels))


def _level(run: Run, size: int) -> int:
    return max(0, int(run.count // (2 * size)).bit_length())


def _thinned(runs: list[Run], size: int) -> Run:
    """One run of the rows of all: each of its values stands at the middle of an equal share of the rows."""
    count = sum(run.count for run in runs)
    values = np.concatenate([run.values for run in runs])
    weights = np.concatenate([np.full(len(run.values), run.count / len(run.values)) for run in runs])
    if len(runs) > 1:
        order = np.argsort(values, kind="stable")
        values, weights = values[order], weights[order]
    whole = len(values) == count
    if whole and count <= 2 * size:
        return Run(values, count, 0.0)
    asked = (np.arange(size) + 0.5) * (count / size)
    places = (
        np.floor(asked).astype(np.intp)
        if whole
        else np.minimum(np.searchsorted(np.cumsum(weights), asked, side="right"), len(values) - 1)
    )
    return Run(values[places], count, sum(run.error for run in runs) + count / (2 * size))
