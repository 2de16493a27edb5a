"""Requests into columns: a typed row for each model, and every invalid value named by row and field (R2.3)."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.structs import astuple

from lifecycle.manifest import Manifest

LONGEST_TEXT = 10_000
MOST_PROBLEMS = 20
MOST_ROWS = 10_000
DEEPEST = 20

Columns = dict[str, npt.NDArray[Any]]
Row = dict[str, float | str | None]


class InvalidRequest(Exception):
    """A request that is no valid one.

    Parameters
    ----------
    problems
        What is wrong, each with row and field where it has one.
    status
        HTTP status to answer.
    """

    def __init__(self, problems: Sequence[str], status: int = 400) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)
        self.status = status


class RowReader:
    """Reads rows of one version.

    Parameters
    ----------
    manifest
        The version.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._features = manifest.features
        self._numeric = {one.name for one in manifest.features if one.kind == "numeric"}
        self._names = [one.name for one in manifest.features]
        self._entity_key = manifest.entity_key
        fields: list[Any] = [
            (f"f{place}", float | None if one.kind == "numeric" else str | None)
            for place, one in enumerate(manifest.features)
        ]
        rename = {f"f{place}": name for place, name in enumerate(self._names)}
        if self._entity_key not in self._names:
            fields.append(("entity", str | None, None))
            rename["entity"] = self._entity_key
        # A feature may have a name that Python keeps for itself: the row's own names are numbers.
        self.row_type = msgspec.defstruct(
            "Row", fields, rename=rename, forbid_unknown_fields=True, array_like=False, gc=False
        )
        self._slots = [f"f{place}" for place in range(len(self._names))]
        self._texts = [
            (name, slot) for name, slot in zip(self._names, self._slots, strict=True) if name not in self._numeric
        ]

    @property
    def names(self) -> list[str]:
        """Features in the manifest's order."""
        return self._names

    def nothing_known(self) -> Columns:
        """One row with every feature missing."""
        return self.columns([self.row_type(**dict.fromkeys(self._slots))])

    def entity(self, row: Any) -> str | None:
        """Whom a row is about; None when it does not say."""
        if self._entity_key in self._names:
            value = getattr(row, f"f{self._names.index(self._entity_key)}")
            return None if value is None else str(value)
        found: str | None = row.entity
        return found

    def values(self, row: Any) -> Row:
        """A row as it was sent, for the record."""
        return dict(zip(self._names, astuple(row), strict=False))  # an entity that is no feature comes last

    def texts(self, row: Any) -> list[tuple[str, str | None]]:
        """Name and value of a row's texts."""
        return [(name, getattr(row, slot)) for name, slot in self._texts]

    def columns(self, rows: Sequence[Any]) -> Columns:
        """Vectors of shape (rows,): float64 with NaN for missing, objects with "" for missing."""
        made: Columns = {}
        for name, values in zip(self._names, zip(*map(astuple, rows), strict=True), strict=False):
            if name in self._numeric:
                made[name] = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
            else:
                texts = np.empty(len(values), dtype=object)
                texts[:] = ["" if value is None else value for value in values]
                made[name] = texts
        return made

    def from_dicts(self, rows: Sequence[Any], name: str) -> list[Any]:
        """Rows from parsed JSON; every problem is told, not the first.

        Parameters
        ----------
        rows
            What should be a mapping of every feature to a number, a text, or null.
        name
            What the rows are called in messages: ``instances``.

        Raises
        ------
        InvalidRequest
            With row and field of each problem.
        """
        made, problems = [], []
        for place, row in enumerate(rows):
            try:
                made.append(msgspec.convert(row, self.row_type))
            except (msgspec.ValidationError, OverflowError) as error:
                problems += self._problems(row, f"{name}[{place}]") or [f"{name}[{place}]: {error}"]
                if len(problems) >= MOST_PROBLEMS:
                    problems[MOST_PROBLEMS:] = ["and maybe more"]
                    break
        if problems:
            raise InvalidRequest(problems)
        return made

    def from_columns(self, columns: dict[str, list[Any]], name: str) -> list[Any]:
        """Rows from equally long lists, one for each feature; InvalidRequest as in `from_dicts`."""
        lengths = {len(values) for values in columns.values()}
        if len(lengths) > 1:
            told = ", ".join(f"{key}: {len(values)}" for key, values in list(columns.items())[:5])
            raise InvalidRequest([f"{name}: lists of different lengths ({told}); accepted: one value for each row"])
        count = lengths.pop() if lengths else 0
        return self.from_dicts(
            [{key: values[place] for key, values in columns.items()} for place in range(count)], name
        )

    def _problems(self, row: Any, where: str) -> list[str]:
        if not isinstance(row, dict):
            return [f"{where}: is {_short(row)}; accepted: an object with every feature"]
        problems = []
        for key in row:
            if key not in self._names and key != self._entity_key:
                close = difflib.get_close_matches(str(key), self._names, n=1)
                hint = f"did you mean {close[0]!r}?" if close else "accepted: the model's features"
                problems.append(f"{where}.{_short(key)}: no feature of the model; {hint}")
        for name in self._names:
            kind = "a number or null" if name in self._numeric else "a text or null"
            if name not in row:
                problems.append(f"{where}.{name}: is missing; accepted: {kind}")
                continue
            value = row[name]
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is None or (number if name in self._numeric else isinstance(value, str)):
                continue
            problems.append(f"{where}.{name}: is {_short(value)}; accepted: {kind}")
        entity = row.get(self._entity_key)
        if self._entity_key not in self._names and entity is not None and not isinstance(entity, str):
            problems.append(f"{where}.{self._entity_key}: is {_short(entity)}; accepted: a text")
        return problems


def checked(rows: Sequence[Any], reader: RowReader) -> Sequence[Any]:
    """Refuse no rows, too many, and texts that are no category; InvalidRequest."""
    if not rows:
        raise InvalidRequest(["no rows; accepted: at least one"])
    if len(rows) > MOST_ROWS:
        raise InvalidRequest([f"{len(rows):,} rows; accepted: at most {MOST_ROWS:,} in one request"], 413)
    problems = [
        f"row {place}, {name}: a text of {len(value):,} characters; accepted: at most {LONGEST_TEXT:,}"
        for place, row in enumerate(rows)
        for name, value in reader.texts(row)
        if value is not None and len(value) > LONGEST_TEXT
    ]
    if problems:
        raise InvalidRequest(problems[:MOST_PROBLEMS])
    return rows


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
