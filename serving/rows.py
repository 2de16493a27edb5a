"""Requests into columns: a typed row for each model, and every invalid value named by row and field (R2.3)."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.structs import astuple

from lifecycle.manifest import Manifest

LONGEST_TEXT = 10_000
LONGEST_ENTITY = 256
"""Entities are remembered by the hundred thousand, until their labels come."""
LARGEST_NUMBER = sys.float_info.max
MOST_PROBLEMS = 20
MOST_ROWS = 10_000

Columns = dict[str, npt.NDArray[Any]]
Row = dict[str, float | str | None]


class InvalidRequest(Exception):
    """A request that is no valid one.

    Parameters
    ----------
    problems
        What is wrong, each with row and field where it has one. A problem never repeats a value that was sent: what
        stands by mistake where it does not belong may be a secret.
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
        self._numbers = [place for place, name in enumerate(self._names) if name in self._numeric]
        self._texts = [place for place, name in enumerate(self._names) if name not in self._numeric]
        self._entity_key = manifest.entity_key
        self._longest = {
            one.name: LONGEST_ENTITY if one.name == manifest.entity_key else LONGEST_TEXT
            for one in manifest.features
            if one.kind != "numeric"
        } | {manifest.entity_key: LONGEST_ENTITY}

        def text(name: str) -> Any:
            return Annotated[str, msgspec.Meta(max_length=self._longest[name])] | None

        fields: list[Any] = [
            (f"f{place}", float | None if one.kind == "numeric" else text(one.name))
            for place, one in enumerate(manifest.features)
        ]
        rename = {f"f{place}": name for place, name in enumerate(self._names)}
        if self._entity_key not in self._names:
            fields.append(("entity", text(self._entity_key), None))
            rename["entity"] = self._entity_key
        # A feature may have a name that Python keeps for itself: the row's own names are numbers.
        self.row_type = msgspec.defstruct(
            "Row", fields, rename=rename, forbid_unknown_fields=True, array_like=False, gc=False
        )
        self._slots = [f"f{place}" for place in range(len(self._names))]

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

    def columns(self, rows: Sequence[Any]) -> Columns:
        """Vectors of shape (rows,): float64 with NaN for missing, objects with "" for missing."""
        values = list(zip(*map(astuple, rows), strict=True))
        # One array for all numbers and one for all texts: each feature's vector is a row of it.
        numbers = np.array([values[place] for place in self._numbers], dtype=np.float64)
        texts = np.empty((len(self._texts), len(rows)), dtype=object)
        for row, place in zip(texts, self._texts, strict=True):
            row[:] = ["" if value is None else value for value in values[place]]
        made: Columns = {self._names[place]: row for place, row in zip(self._numbers, numbers, strict=True)}
        made |= {self._names[place]: row for place, row in zip(self._texts, texts, strict=True)}
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
        counted(len(rows))
        made: list[Any] = []
        problems: list[str] = []
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
            raise InvalidRequest(
                [f"{name}: lists of {min(lengths):,} to {max(lengths):,} values; accepted: one value for each row"]
            )
        count = lengths.pop() if lengths else 0
        counted(count)
        return self.from_dicts(
            [{key: values[place] for key, values in columns.items()} for place in range(count)], name
        )

    def _problems(self, row: Any, where: str) -> list[str]:
        if not isinstance(row, dict):
            return [f"{where}: is {kind_of(row)}; accepted: an object with every feature"]
        problems: list[str] = []
        for key in row:
            if len(problems) >= MOST_PROBLEMS:
                return problems
            if key not in self._names and key != self._entity_key:
                # Comparing takes the time of both lengths; a key that is like no feature is not repeated.
                close = difflib.get_close_matches(key, self._names, n=1) if len(key) <= 80 else []
                problems.append(
                    f"{where}.{key!r}: no feature of the model; did you mean {close[0]!r}?"
                    if close
                    else f"{where}: a key that is no feature of the model; accepted: {', '.join(self._names)[:500]}"
                )
        for name in self._names:
            wanted = "a number or null" if name in self._numeric else "a text or null"
            if name not in row:
                problems.append(f"{where}.{name}: is missing; accepted: {wanted}")
            else:
                problems += self._value(row[name], name in self._numeric, name, f"{where}.{name}", wanted)
        if self._entity_key not in self._names:
            problems += self._value(
                row.get(self._entity_key), False, self._entity_key, f"{where}.{self._entity_key}", "a text or null"
            )
        return problems

    def _value(self, value: Any, numeric: bool, name: str, where: str, wanted: str) -> list[str]:
        if value is None:
            return []
        if numeric:
            if not isinstance(value, int | float) or isinstance(value, bool):
                return [f"{where}: is {kind_of(value)}; accepted: {wanted}"]
            if abs(value) > LARGEST_NUMBER or math.isnan(value):
                return [f"{where}: is beyond what a number of 64 bits holds; accepted: {wanted}"]
            return []
        if not isinstance(value, str):
            return [f"{where}: is {kind_of(value)}; accepted: {wanted}"]
        if len(value) > self._longest[name]:
            return [f"{where}: a text of {len(value):,} characters; accepted: at most {self._longest[name]:,}"]
        return []


def checked(rows: Sequence[Any]) -> Sequence[Any]:
    """Refuse no rows and too many; InvalidRequest."""
    if not rows:
        raise InvalidRequest(["no rows; accepted: at least one"])
    counted(len(rows))
    return rows


def counted(rows: int) -> None:
    """Refuse more rows than one request may hold, before they are read; InvalidRequest."""
    if rows > MOST_ROWS:
        raise InvalidRequest([f"{rows:,} rows; accepted: at most {MOST_ROWS:,} in one request"], 413)


def kind_of(value: Any) -> str:
    """What JSON calls a value, without the value."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return "a text"
    if isinstance(value, int | float):
        return "a number"
    return "a list" if isinstance(value, list) else "an object"
