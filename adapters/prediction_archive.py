"""The prediction archive: the log's finished segments as Parquet by model and day, and one reader over both.

Layout: ``archive/<predictions|outcomes>/model=<model>/day=<YYYY-MM-DD>/<first>-<last>.parquet``, where first and last are
sequences of the stretch of the log that was compacted together. ``state.json`` says up to which record the archive holds
everything: its replacement is the moment a stretch changes hands. Files beyond it are leftovers of a compaction that was
killed and are made again; segments up to it are leftovers too and go. So no record is ever lost, and none is read twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import heapq
import itertools
import json
import logging
import math
import os
import urllib.parse
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from adapters.prediction_log import (
    Entry,
    Finished,
    Follower,
    MovedToArchive,
    Outcome,
    Prediction,
    Record,
    encode,
    finished,
    read,
    segments,
    sync_folder,
)
from lifecycle.errors import BusyError, ConfigError, UnavailableError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# pyarrow and pandas are imported where Parquet is read or written: a gateway without an archive needs neither.

Kind = Literal["predictions", "outcomes"]
KINDS: tuple[Kind, ...] = ("predictions", "outcomes")
FORMAT = 1
STRETCH_BYTES = 512 * 1024 * 1024
"""Of segments that are compacted together: a file for each model and day comes of it."""
BUFFER_BYTES = 8 * 1024 * 1024
"""Of records, as the log has them, that wait to be written."""
BATCH_ROWS = 65_536
NUMERIC, CATEGORICAL = "numeric_", "categorical_"
Span = tuple[int, int]
"""Nanoseconds since 1970, UTC: from (included) and to (not)."""
ALWAYS: Span = (-(2**63), 2**63 - 1)

log = logging.getLogger("prodecks.archive")


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


@dataclass(frozen=True, slots=True)
class Holding:
    """What the archive holds of a model's day.

    Parameters
    ----------
    partition
        Which.
    rows, size, files
        Records, bytes, files.
    """

    partition: Partition
    rows: int
    size: int
    files: int


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction did: records and segments that went to the archive, and files that came of them."""

    records: int
    segments: int
    files: int


@dataclass(frozen=True, slots=True)
class _File:
    first: int
    last: int
    partition: Partition
    path: Path


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Files that were compacted together, of whose records those up to `after` have been seen."""

    files: list[_File]
    after: int


class PredictionArchive:
    """The archive of a serving folder, and its log.

    Parameters
    ----------
    serving
        The folder: the log lies in ``log``, the archive in ``archive``.
    """

    def __init__(self, serving: Path) -> None:
        self.log = serving / "log"
        self.folder = serving / "archive"
        self._state = self.folder / "state.json"

    @property
    def through(self) -> int:
        """Sequence up to which the archive holds every record; 0 before its first.

        Raises
        ------
        ConfigError
            The archive's state is damaged or missing, and so nobody knows which of its files count.
        """
        try:
            state = json.loads(self._state.read_bytes())
            known, through = state["format"] == FORMAT, int(state["through"])
        except FileNotFoundError:
            if next(self.folder.glob("*/model=*/day=*/*.parquet"), None) is None:
                return 0
            raise ConfigError(f"{self._state} is missing beside Parquet files; accepted: its backup") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self._state} is damaged: {error}; accepted: its backup") from None
        if not known:
            raise ConfigError(f"{self._state} has format {state['format']!r}; accepted: {FORMAT}")
        return through

    @property
    def compacted_at(self) -> float | None:
        """Unix seconds of the last compaction that moved or looked; None before the first."""
        try:
            return (self.folder / "lock").stat().st_mtime
        except FileNotFoundError:
            return None

    # Writing

    def compact(self) -> Compacted:
        """Move every finished segment of the log into the archive; what a killed compaction left is tidied first.

        Raises
        ------
        BusyError
            Another process does so.
        ConfigError
            A segment or the archive's state is damaged.
        UnavailableError
            The disk does not take it; nothing is lost, the next compaction tries again.
        """
        try:
            with self._alone():
                through = self._tidied()
                done = finished(self.log)
                start = moved = files = 0
                while start < len(done.paths):
                    stop = _stretch(done, start)
                    rows, made = self._write(done, start, stop)
                    through = max(through, done.last[stop - 1])
                    self._set_through(through)
                    _remove(done.paths[start:stop])
                    moved, files, start = moved + rows, files + made, stop
                return Compacted(moved, len(done.paths), files)
        except OSError as error:
            raise UnavailableError(f"prediction archive {self.folder}: {error.strerror or error}") from None

    def forget(self, partition: Partition) -> None:
        """Delete a model's day; BusyError while another process works on the archive, UnavailableError for the disk."""
        folder = self.folder / partition.folder
        try:
            with self._alone():
                for path in folder.iterdir():
                    path.unlink()
                folder.rmdir()
                sync_folder(folder.parent)
        except OSError as error:
            raise UnavailableError(f"{folder} cannot be deleted: {error.strerror}") from None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BusyError(f"prediction archive {self.folder} is held by another process") from None
            os.utime(lock)
            yield
        finally:
            os.close(lock)

    def _tidied(self) -> int:
        """Remove what a killed compaction left; up to which record the archive holds everything."""
        through = self.through
        if not self._state.exists():
            self._set_through(through)  # before the first file: its absence then says that it was lost
        for path in self.folder.glob("*/model=*/day=*/*.new"):
            path.unlink()
        for file in self._files():
            if file.last > through:
                file.path.unlink()
        done = finished(self.log)
        _remove([path for path, last in zip(done.paths, done.last, strict=True) if last <= through])
        return through

    def _set_through(self, through: int) -> None:
        staged = self._state.with_suffix(".new")
        with staged.open("wb") as file:
            file.write(json.dumps({"format": FORMAT, "through": through}).encode())
            file.flush()
            os.fsync(file.fileno())
        staged.replace(self._state)
        sync_folder(self.folder)

    def _write(self, done: Finished, start: int, stop: int) -> tuple[int, int]:
        """Put segments into Parquet files, durable and in place; how many records, and files."""
        import pyarrow.parquet as pq

        first, last = int(done.paths[start].stem), done.last[stop - 1]
        features: dict[Partition, set[str]] = defaultdict(set)
        for entry in done.entries(start, stop):
            features[_partition(entry.record)] |= _features(entry.record)
        schemas = {partition: _schema(partition.kind, names) for partition, names in features.items()}
        rows = 0
        with contextlib.ExitStack() as stack:
            writers: dict[Partition, Any] = {}
            for partition, schema in schemas.items():
                folder = self.folder / partition.folder
                _make(folder)
                path = folder / f"{first:020d}-{last:020d}.parquet.new"
                writers[partition] = stack.enter_context(pq.ParquetWriter(path, schema, compression="zstd"))
            for partition, waiting in _buffered(done.entries(start, stop)):
                writers[partition].write_batch(_batch(waiting, schemas[partition]))
                rows += len(waiting)
        for partition in schemas:
            path = self.folder / partition.folder / f"{first:020d}-{last:020d}.parquet.new"
            with path.open("rb") as file:
                os.fsync(file.fileno())
            path.replace(path.with_suffix(""))
            sync_folder(path.parent)
        return rows, len(schemas)

    # Reading

    def partitions(self) -> list[Partition]:
        """Kinds, models and days of which the archive holds something; ConfigError as in `through`."""
        through = self.through
        return sorted({file.partition for file in self._files() if file.last <= through})

    def holdings(self) -> list[Holding]:
        """What is there of each; ConfigError as in `through`."""
        return [self.holding(partition) for partition in self.partitions()]

    def holding(self, partition: Partition) -> Holding:
        """What is there of a kind, model and day; ConfigError as in `through`."""
        through = self.through
        files = [file for file in self._files(partition.folder) if file.last <= through]
        size = sum(file.path.stat().st_size for file in files)
        return Holding(partition, sum(_rows(file) for file in files), size, len(files))

    def entries(
        self,
        after: int = 0,
        model: str | None = None,
        spans: Sequence[tuple[float, float]] = ((-math.inf, math.inf),),
        *,
        features: bool = True,
    ) -> Iterator[Entry]:
        """Everything on record, oldest first: the archive's, then the log's.

        Parameters
        ----------
        after
            Sequence up to which records are left out.
        model
            Whose; None for all.
        spans
            Unix seconds, from (included) and to (not): only records of these times are taken from the archive.
        features
            Whether predictions come with their raw features, where the archive holds them; without is quicker.

        Raises
        ------
        ConfigError
            A damaged part: file and place.
        """
        wanted = [_span(*one) for one in spans]
        for part in self._walk(after):
            if isinstance(part, Entry):
                if model is None or part.record.model == model:
                    yield part
                continue
            streams = [
                _entries(file, part.after, wanted, features=features)
                for file in part.files
                if (model is None or file.partition.model == model) and _touches(file.partition.day, wanted)
            ]
            yield from heapq.merge(*streams, key=lambda entry: entry.sequence)

    def recent(self, most: int) -> Iterator[Entry]:
        """About the archive's newest so many predictions, and everything that came since; those without features.

        ConfigError as in `entries`.
        """
        through, after = self.through, 0
        files = [file for file in reversed(self._files()) if file.last <= through]
        for (first, last), together in itertools.groupby(files, key=lambda file: (file.first, file.last)):
            rows = sum(_rows(file) for file in together if file.partition.kind == "predictions")
            if rows > most:
                # Predictions and outcomes are mixed as they came: a share of the rows is that share of the stretch.
                after = last - (last - first + 1) * most // rows
                break
            most -= rows
        yield from self.entries(after, features=False)

    def scan(self, model: str, start: datetime, end: datetime) -> pa.RecordBatchReader:
        """A model's predictions of a window, each with its outcome, in the order of the record.

        Outcomes join by request id, whenever they came; one that names an entity alone belongs to the entity's newest
        prediction up to the moment it is about. The first outcome of a prediction counts. What is on record when the
        scan begins is read, each prediction once, and the same rows come whichever part of them the archive holds.

        Parameters
        ----------
        model
            Whose.
        start, end
            First moment, and the first one after the window; with a time zone.

        Returns
        -------
        pyarrow.RecordBatchReader
            Columns of the archive's predictions; ``label`` (0 or 1, null without an outcome), ``observed_at``,
            ``labelled_at``; then the features that any of the model's predictions has on the window's days, as
            ``numeric_<name>`` and ``categorical_<name>``.

        Raises
        ------
        ConfigError
            A damaged part: file and place.
        """
        import pyarrow as pa

        microsecond = timedelta(microseconds=1)
        window = ((start - _EPOCH) // microsecond * 1_000, (end - _EPOCH) // microsecond * 1_000)
        survey = self._survey(model, window)
        fixed = _schema("predictions", ())
        labels = [("label", pa.int8()), ("observed_at", _moment()), ("labelled_at", _moment())]
        columns = _schema("predictions", survey.features)
        schema = pa.schema([*fixed, *(pa.field(*one) for one in labels), *list(columns)[len(fixed) :]])

        def batches() -> Iterator[pa.RecordBatch]:
            outcomes = self._joined(model, window, survey)
            for batch in self._predictions(model, window, survey.last, columns):
                yield _labelled(batch, outcomes, schema)

        return pa.RecordBatchReader.from_batches(schema, batches())

    def _survey(self, model: str, window: Span) -> _Survey:
        """What a scan has to know before its first row."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        features: set[str] = set()
        tables: list[Any] = []
        waiting: list[Entry] = []
        schema = _schema("outcomes", ())
        last = 0
        for part in self._walk(0):
            if isinstance(part, Entry):
                last = part.sequence
                if part.record.model != model:
                    continue
                if isinstance(part.record, Outcome):
                    waiting.append(part)
                elif _touches(_partition(part.record).day, [window]):
                    features |= _features(part.record)
                continue
            last = max(last, *(file.last for file in part.files))
            for file in part.files:
                if file.partition.model != model:
                    continue
                if file.partition.kind == "outcomes":
                    if _touches(file.partition.day, [(window[0], ALWAYS[1])]):
                        tables += _read(file, part.after, [(window[0], ALWAYS[1])], schema)
                elif _touches(file.partition.day, [window]):
                    features |= {name for name in pq.read_schema(file.path).names if _is_feature(name)}
        waiting = [entry for entry in waiting if _exact(entry.record.at) >= window[0]]
        table = pa.Table.from_batches([*tables, _batch(waiting, schema)], schema)
        return _Survey(features, table.to_pandas(), last)

    def _joined(self, model: str, window: Span, survey: _Survey) -> pd.DataFrame:
        """Outcomes by request id, the first of each."""
        import pandas as pd

        outcomes = survey.outcomes
        nameless = outcomes[outcomes.request_id == ""]
        if len(nameless):
            schema = _schema("predictions", ())
            wanted = set(nameless.entity)
            found = [
                frame[frame.entity.isin(wanted) & (frame.role != "shadow")]
                for batch in self._predictions(model, (window[0], ALWAYS[1]), survey.last, schema)
                for frame in [batch.select(["entity", "at", "request_id", "role"]).to_pandas()]
            ]
            known = pd.concat(found) if found else pd.DataFrame()
            if len(known):
                about = nameless.assign(moment=nameless.until.fillna(nameless.observed_at)).sort_values("moment")
                met = pd.merge_asof(
                    about.drop(columns="request_id"),
                    known.rename(columns={"at": "moment"}).drop(columns="role").sort_values("moment", kind="stable"),
                    on="moment",
                    by="entity",
                )
                met = met[met.request_id.notna()][list(outcomes.columns)]
                outcomes = pd.concat([outcomes, met]).sort_values("sequence", kind="stable")
        outcomes = outcomes[outcomes.request_id != ""]
        return outcomes.drop_duplicates("request_id").set_index("request_id")

    def _predictions(self, model: str, window: Span, last: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """A model's predictions of a window, up to a sequence."""
        import pyarrow.compute as pc

        waiting: list[Entry] = []
        for part in self._walk(0):
            if isinstance(part, Entry):
                record = part.record
                if part.sequence > last:
                    break
                if not isinstance(record, Prediction) or record.model != model:
                    continue
                if window[0] <= _exact(record.at) < window[1]:
                    waiting.append(part)
                    if len(waiting) == BATCH_ROWS:
                        yield _batch(waiting, schema)
                        waiting = []
                continue
            if waiting:
                yield _batch(waiting, schema)
                waiting = []
            for file in part.files:
                partition = file.partition
                if partition.model == model and partition.kind == "predictions" and _touches(partition.day, [window]):
                    for batch in _read(file, part.after, [window], schema):
                        yield batch.filter(pc.less_equal(batch.column("sequence"), last))
        if waiting:
            yield _batch(waiting, schema)

    def _walk(self, after: int) -> Iterator[_Stretch | Entry]:
        """The whole record in order: the archive's stretches, then the log's entries.

        Where a segment went to the archive while it was read, the walk goes on there.
        """
        while True:
            through = self.through
            files = [file for file in self._files() if after < file.last <= through]
            for _, together in itertools.groupby(files, key=lambda file: (file.first, file.last)):
                yield _Stretch(list(together), after)
            after = max(after, through)
            try:
                for entry in read(self.log, after):
                    after = entry.sequence
                    yield entry
                break
            except MovedToArchive:
                oldest = next((int(path.stem) for path in segments(self.log)), 0)
                if oldest > max(after, self.through) + 1:
                    # No compaction explains it: somebody moved a segment away, and chose to lose its records.
                    log.warning("records %d to %d are neither in the archive nor in the log", after + 1, oldest - 1)
                    after = oldest - 1

    def _files(self, below: str = "*/model=*/day=*") -> list[_File]:
        """Parquet files, oldest stretch first, whether they count or not."""
        found = []
        for path in self.folder.glob(f"{below}/*.parquet"):
            first, _, last = path.stem.partition("-")
            kind, model, day = path.parts[-4:-1]
            name = urllib.parse.unquote(model.removeprefix("model="))
            for known in KINDS:
                if kind == known and first.isdigit() and last.isdigit():
                    partition = Partition(known, name, date.fromisoformat(day.removeprefix("day=")))
                    found.append(_File(int(first), int(last), partition, path))
        return sorted(found, key=lambda file: (file.first, file.last, file.partition))


@dataclass(frozen=True, slots=True)
class _Survey:
    features: set[str]
    outcomes: pd.DataFrame
    last: int


class Tail:
    """Reads a model's record as it grows, each record once: what the archive has of some times, then the log.

    Parameters
    ----------
    archive
        The archive.
    model
        Whose.
    spans
        As in `PredictionArchive.entries`.
    """

    def __init__(self, archive: PredictionArchive, model: str, spans: Sequence[tuple[float, float]]) -> None:
        self._archive, self._model, self._spans = archive, model, spans
        self._follower: Follower | None = None

    def new(self) -> Iterator[Record]:
        """Records that came since the last call; ConfigError for a damaged part."""
        after = 0
        if self._follower is not None:
            try:
                yield from (record for record in self._follower.new() if record.model == self._model)
            except MovedToArchive:
                after = self._follower.after or 0
            else:
                return
        through = self._archive.through
        for entry in self._archive.entries(after, self._model, self._spans, features=False):
            after = entry.sequence
            yield entry.record
        self._follower = Follower(self._archive.log, max(after, through))


# How records become columns, and columns records


def _schema(kind: Kind, features: Iterable[str]) -> pa.Schema:
    """Columns of a kind; features are named as in `_features`, a name says its type."""
    import pyarrow as pa

    text, number, flag, moment = pa.string(), pa.float64(), pa.bool_(), _moment()
    fixed: dict[str, Any] = {"sequence": pa.int64(), "confirmed": flag, "request_id": text, "at": moment}
    if kind == "outcomes":
        fixed |= {"entity": text, "label": pa.int8(), "observed_at": moment, "client": text, "until": moment}
    else:
        fixed |= {"version": text, "role": text, "client": text, "entity": text, "score": number}
        fixed |= {"decision": pa.int8(), "latency_ms": number, "error": text, "missing": pa.list_(text)}
    fixed |= {name: number if name.startswith(NUMERIC) else text for name in sorted(features)}
    return pa.schema(list(fixed.items()))


def _moment() -> pa.DataType:
    import pyarrow as pa

    return pa.timestamp("ns", tz="UTC")


def _features(record: Record) -> set[str]:
    """Columns that hold a record's features: two for a feature that one version reads as a number and another as text."""
    if isinstance(record, Outcome):
        return set()
    return {
        (CATEGORICAL if isinstance(value, str) else NUMERIC) + name
        for name, value in record.features.items()
        if value is not None
    }


def _is_feature(column: str) -> bool:
    return column.startswith((NUMERIC, CATEGORICAL))


def _batch(entries: Sequence[Entry], schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    def column(name: str) -> list[Any]:
        if name in ("sequence", "confirmed"):
            return [getattr(entry, name) for entry in entries]
        if name in ("at", "observed_at", "until"):
            return [_nanoseconds(getattr(entry.record, name)) for entry in entries]
        if name == "missing":
            return [[one for one, value in features.items() if value is None] for features in features_of]
        if name.startswith(CATEGORICAL):
            values = [features.get(name.removeprefix(CATEGORICAL)) for features in features_of]
            return [value if isinstance(value, str) else None for value in values]
        if name.startswith(NUMERIC):
            values = [features.get(name.removeprefix(NUMERIC)) for features in features_of]
            return [None if isinstance(value, str) else value for value in values]
        return [getattr(entry.record, name) for entry in entries]

    features_of = [entry.record.features for entry in entries if isinstance(entry.record, Prediction)]
    return pa.RecordBatch.from_arrays([pa.array(column(one.name), one.type) for one in schema], schema=schema)


def _read(file: _File, after: int, spans: Sequence[Span], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Rows of a file, in the columns of a schema; nothing where retention has just taken the file."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with contextlib.suppress(FileNotFoundError), pq.ParquetFile(file.path) as parquet:
        there = set(parquet.schema_arrow.names)
        groups = [
            place
            for place in range(parquet.num_row_groups)
            if parquet.metadata.row_group(place).column(0).statistics.max > after
        ]
        names = [one.name for one in schema if one.name in there]
        for batch in parquet.iter_batches(BATCH_ROWS, groups, names):
            at = batch.column("at").cast(pa.int64())
            kept = pc.greater(batch.column("sequence"), after)
            inside = [pc.and_(pc.greater_equal(at, low), pc.less(at, high)) for low, high in spans]
            kept = pc.and_(kept, functools.reduce(pc.or_, inside))
            columns = [
                batch.column(one.name) if one.name in there else pa.nulls(len(batch), one.type) for one in schema
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema).filter(kept)


def _entries(file: _File, after: int, spans: Sequence[Span], *, features: bool) -> Iterator[Entry]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind, model = file.partition.kind, file.partition.model
    names: list[str] = []
    if features and kind == "predictions":
        with contextlib.suppress(FileNotFoundError):
            names = [name for name in pq.read_schema(file.path).names if _is_feature(name)]
    fields = Prediction.__struct_fields__ if kind == "predictions" else Outcome.__struct_fields__
    for batch in _read(file, after, spans, _schema(kind, names)):
        columns: dict[str, list[Any]] = {"model": [model] * len(batch)}
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
            columns["features"] = _features_of(columns, names) if features else [{}] * len(batch)
        made = Prediction if kind == "predictions" else Outcome
        for sequence, confirmed, *values in zip(
            columns["sequence"], columns["confirmed"], *(columns[name] for name in fields), strict=True
        ):
            yield Entry(sequence, made(*values), confirmed)


def _features_of(columns: dict[str, list[Any]], names: Sequence[str]) -> list[dict[str, float | str | None]]:
    found: list[dict[str, float | str | None]] = [dict.fromkeys(missing) for missing in columns["missing"]]
    for column in names:
        name = column.removeprefix(NUMERIC if column.startswith(NUMERIC) else CATEGORICAL)
        for features, value in zip(found, columns[column], strict=True):
            if value is not None:
                features[name] = value
    return found


def _labelled(batch: pa.RecordBatch, outcomes: pd.DataFrame, schema: pa.Schema) -> pa.RecordBatch:
    """A batch with the outcome of each row beside it."""
    import pyarrow as pa

    places = outcomes.index.get_indexer(batch.column("request_id").to_pylist())
    known = places >= 0

    def joined(column: str, kind: pa.DataType) -> pa.Array:
        if not len(outcomes):
            return pa.nulls(len(batch), kind)
        return pa.array(outcomes[column].to_numpy()[places], mask=~known).cast(kind)

    labels = {
        "label": joined("label", pa.int8()),
        "observed_at": joined("observed_at", _moment()),
        "labelled_at": joined("at", _moment()),
    }
    columns = [labels[name] if name in labels else batch.column(name) for name in schema.names]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _buffered(entries: Iterable[Entry]) -> Iterator[tuple[Partition, list[Entry]]]:
    """Records by partition, in lots that keep memory bounded however many partitions there are."""
    waiting: dict[Partition, list[Entry]] = defaultdict(list)
    sizes: dict[Partition, int] = defaultdict(int)
    for entry in entries:
        partition = _partition(entry.record)
        waiting[partition].append(entry)
        sizes[partition] += len(encode(entry.record))
        if sum(sizes.values()) >= BUFFER_BYTES:
            largest = max(sizes, key=lambda one: sizes[one])
            yield largest, waiting.pop(largest)
            del sizes[largest]
    yield from waiting.items()


def _partition(record: Record) -> Partition:
    kind: Kind = "predictions" if isinstance(record, Prediction) else "outcomes"
    return Partition(kind, record.model, _EPOCH.date() + timedelta(days=_exact(record.at) // _DAY))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86_400 * 1_000_000_000


def _exact(seconds: float) -> int:
    """Nanoseconds of a moment: whole and part apart, so that no digit is lost and the float can be had back."""
    whole = math.floor(seconds)
    return whole * 1_000_000_000 + round((seconds - whole) * 1e9)


def _nanoseconds(seconds: float | None) -> int | None:
    return None if seconds is None else _exact(seconds)


def _span(first: float, end: float) -> Span:
    return (ALWAYS[0] if first == -math.inf else _exact(first), ALWAYS[1] if end == math.inf else _exact(end))


def _touches(day: date, spans: Sequence[Span]) -> bool:
    begins = (day - _EPOCH.date()).days * _DAY
    return any(begins < end and first < begins + _DAY for first, end in spans)


# Files and folders


def _rows(file: _File) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(file.path).num_rows)


def _stretch(done: Finished, start: int) -> int:
    """Where the segments end that are compacted together: at least one, and not too many bytes."""
    size, stop = 0, start
    while stop < len(done.paths) and (stop == start or size + done.paths[stop].stat().st_size <= STRETCH_BYTES):
        size += done.paths[stop].stat().st_size
        stop += 1
    return stop


def _remove(paths: Sequence[Path]) -> None:
    """Delete segments, the oldest first: what is left has no hole."""
    for path in paths:
        path.unlink()
    if paths:
        sync_folder(paths[0].parent)


def _make(folder: Path) -> None:
    """Make a folder, and those above it, durable."""
    if not folder.exists():
        _make(folder.parent)
        folder.mkdir()
        sync_folder(folder.parent)
