"""Predictions and outcomes as columns: how the archive's Parquet files look, and the records they are made back into."""

from __future__ import annotations

import contextlib
import functools
import math
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from adapters.prediction_log import Entry, Outcome, Prediction, Record

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# pyarrow is imported where Parquet is read or written: a gateway without an archive does without it.

Kind = Literal["predictions", "outcomes"]
KINDS: tuple[Kind, ...] = ("predictions", "outcomes")
NUMERIC, CATEGORICAL = "numeric_", "categorical_"
BATCH_ROWS = 65_536
BATCH_RECORDS = 4_096
"""Rows at once that become records: these take far more memory."""
Span = tuple[int, int]
"""Nanoseconds since 1970, UTC: from (included) and to (not)."""
ALWAYS: Span = (-(2**63), 2**63 - 1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86_400 * 1_000_000_000


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """Records of one kind, model and day (UTC)."""

    kind: Kind
    model: str
    day: date

    @property
    def folder(self) -> str:
        """Below the archive's folder; the names Hive gave such folders, which query engines know."""
        return f"{self.kind}/model={urllib.parse.quote(self.model, safe='')}/day={self.day.isoformat()}"


def schema_of(kind: Kind, features: Iterable[str] = (), *, labels: bool = False) -> pa.Schema:
    """Columns of a kind, with those of a joined outcome where asked.

    Features are named as in `feature_columns`: a column's name says its type, so that files of versions that differ in
    their features, or read the same one differently, can always be read together. ``missing`` lists the features of a
    row that had no value, which tells them from those that its version does not know.
    """
    import pyarrow as pa

    text, number, moment = pa.string(), pa.float64(), pa.timestamp("ns", tz="UTC")
    fixed: dict[str, Any] = {"sequence": pa.int64(), "confirmed": pa.bool_(), "request_id": text, "at": moment}
    if kind == "outcomes":
        fixed |= {"entity": text, "label": pa.int8(), "observed_at": moment, "client": text, "until": moment}
    else:
        fixed |= {"version": text, "role": text, "client": text, "entity": text, "score": number}
        fixed |= {"decision": pa.int8(), "latency_ms": number, "error": text, "missing": pa.list_(text)}
    if labels:
        fixed |= {"label": pa.int8(), "observed_at": moment, "labelled_at": moment}
    fixed |= {name: number if name.startswith(NUMERIC) else text for name in sorted(features)}
    return pa.schema(list(fixed.items()))


def feature_columns(record: Record) -> set[str]:
    """Columns that hold a record's features: two for a feature that one version reads as a number and another as text."""
    if isinstance(record, Outcome):
        return set()
    return {_column(name, type(value)) for name, value in record.features.items() if value is not None}


@functools.lru_cache(maxsize=10_000)
def _column(feature: str, kind: type) -> str:
    return (CATEGORICAL if kind is str else NUMERIC) + feature


def _feature(column: str) -> tuple[str, bool]:
    """A column's feature, and whether it is text."""
    text = column.startswith(CATEGORICAL)
    return column.removeprefix(CATEGORICAL if text else NUMERIC), text


def feature_name(column: str) -> str:
    """The feature that a column holds."""
    return _feature(column)[0]


def is_feature(column: str) -> bool:
    """Whether a column holds a feature."""
    return column.startswith((NUMERIC, CATEGORICAL))


def batch_of(entries: Sequence[Entry], schema: pa.Schema) -> pa.RecordBatch:
    """Entries of one kind in the columns of a schema; what has no column there is left out."""
    import pyarrow as pa

    def column(name: str) -> list[Any]:
        if name in ("sequence", "confirmed"):
            return [getattr(entry, name) for entry in entries]
        if name in ("at", "observed_at", "until"):
            return [_or_none(getattr(entry.record, name)) for entry in entries]
        if name == "missing":
            return [
                [one for one, value in features.items() if value is None] if None in features.values() else []
                for features in features_of
            ]
        if is_feature(name):
            feature, text = _feature(name)
            values = [features.get(feature) for features in features_of]
            return [value if isinstance(value, str) is text else None for value in values]
        return [getattr(entry.record, name) for entry in entries]

    features_of = [entry.record.features for entry in entries if isinstance(entry.record, Prediction)]
    return pa.RecordBatch.from_arrays([pa.array(column(one.name), one.type) for one in schema], schema=schema)


def read_rows(
    path: Path, after: int, spans: Sequence[Span], schema: pa.Schema, batch_rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """Rows of a file, in the columns of a schema; nothing where retention has just taken the file.

    Parameters
    ----------
    path
        The file.
    after
        Sequence up to which rows are left out.
    spans
        Times whose rows are read; at least one.
    schema
        Columns; those that the file does not have are null.
    batch_rows
        Most rows at once.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with contextlib.suppress(FileNotFoundError), pq.ParquetFile(path) as parquet:
        there = set(parquet.schema_arrow.names)
        groups = [
            place
            for place in range(parquet.num_row_groups)
            if parquet.metadata.row_group(place).column(0).statistics.max > after
        ]
        names = [one.name for one in schema if one.name in there]
        for batch in parquet.iter_batches(batch_rows, groups, names):
            at = batch.column("at").cast(pa.int64())
            kept = pc.greater(batch.column("sequence"), after)
            inside = [pc.and_(pc.greater_equal(at, low), pc.less(at, high)) for low, high in spans]
            kept = pc.and_(kept, functools.reduce(pc.or_, inside))
            columns = [
                batch.column(one.name) if one.name in there else pa.nulls(len(batch), one.type) for one in schema
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema).filter(kept)


def read_entries(
    path: Path, partition: Partition, after: int, spans: Sequence[Span], *, features: bool
) -> Iterator[Entry]:
    """Records of a partition's file, as they were when they were compacted; without features where they are not asked for."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = partition.kind
    names: list[str] = []
    if features and kind == "predictions":
        with contextlib.suppress(FileNotFoundError):
            names = [name for name in pq.read_schema(path).names if is_feature(name)]
    fields = Prediction.__struct_fields__ if kind == "predictions" else Outcome.__struct_fields__
    for batch in read_rows(path, after, spans, schema_of(kind, names), BATCH_RECORDS):
        columns: dict[str, list[Any]] = {"model": [partition.model] * len(batch)}
        for one in batch.schema:
            values = batch.column(one.name)
            if pa.types.is_timestamp(one.type):
                # An int by an int: the quotient is the very float that was recorded.
                columns[one.name] = [
                    None if value is None else value / 1_000_000_000 for value in values.cast(pa.int64()).to_pylist()
                ]
            elif features or one.name != "missing":
                columns[one.name] = values.to_pylist()
        if kind == "predictions":
            columns["features"] = _features(columns, names) if features else [{}] * len(batch)
        made = Prediction if kind == "predictions" else Outcome
        for sequence, confirmed, *values in zip(
            columns["sequence"], columns["confirmed"], *(columns[name] for name in fields), strict=True
        ):
            yield Entry(sequence, made(*values), confirmed)


def _features(columns: dict[str, list[Any]], names: Sequence[str]) -> list[dict[str, float | str | None]]:
    found: list[dict[str, float | str | None]] = [dict.fromkeys(missing) for missing in columns["missing"]]
    for column in names:
        name, _ = _feature(column)
        for features, value in zip(found, columns[column], strict=True):
            if value is not None:
                features[name] = value
    return found


def labelled(batch: pa.RecordBatch, outcomes: pd.DataFrame, schema: pa.Schema) -> pa.RecordBatch:
    """A batch with the outcome of each row beside it.

    Parameters
    ----------
    batch
        Predictions.
    outcomes
        By request id, each once.
    schema
        As `schema_of` gives with labels.
    """
    import pyarrow as pa

    places = outcomes.index.get_indexer(batch.column("request_id").to_pylist())
    known = places >= 0

    def column(one: pa.Field) -> pa.Array:
        source = {"label": "label", "observed_at": "observed_at", "labelled_at": "at"}.get(one.name)
        if source is None:
            return batch.column(one.name)
        if not known.any():
            return pa.nulls(len(batch), one.type)
        # With their time zone, moments would become Python objects, one by one.
        values = outcomes[source].to_numpy("datetime64[ns]" if pa.types.is_timestamp(one.type) else None)
        return pa.array(values[places], mask=~known).cast(one.type)

    return pa.RecordBatch.from_arrays([column(one) for one in schema], schema=schema)


def partition_of(record: Record) -> Partition:
    """Where a record belongs, by the day it was made or came."""
    return _partition(
        "predictions" if isinstance(record, Prediction) else "outcomes", record.model, nanoseconds(record.at) // _DAY
    )


@functools.lru_cache(maxsize=10_000)
def _partition(kind: Kind, model: str, day: int) -> Partition:
    return Partition(kind, model, EPOCH.date() + timedelta(days=day))


def nanoseconds(seconds: float) -> int:
    """Nanoseconds of a moment: whole and part apart, so that no digit is lost and the float can be had back."""
    whole = math.floor(seconds)
    return whole * 1_000_000_000 + round((seconds - whole) * 1e9)


def _or_none(seconds: float | None) -> int | None:
    return None if seconds is None else nanoseconds(seconds)


def span(first: float, end: float) -> Span:
    """Times in Unix seconds, without an end where they are infinite."""
    return (ALWAYS[0] if first == -math.inf else nanoseconds(first), ALWAYS[1] if end == math.inf else nanoseconds(end))


def touches(day: date, spans: Sequence[Span]) -> bool:
    """Whether a moment of a day lies in one of the spans."""
    begins = (day - EPOCH.date()).days * _DAY
    return any(begins < end and first < begins + _DAY for first, end in spans)
