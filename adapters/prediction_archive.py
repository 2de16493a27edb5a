"""The prediction archive: the log's finished segments as Parquet by model and day, and one reader over both.

Layout: ``archive/<predictions|outcomes>/model=<model>/day=<YYYY-MM-DD>/<first>-<last>.parquet``, where first and last are
sequences of the stretch of the log that was compacted together. ``state.json`` says up to which record the archive holds
everything: its replacement is the moment a stretch changes hands. Files beyond it are leftovers of a compaction that was
killed and are made again; segments up to it are leftovers too and go. So no record is ever lost, and none is read twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import itertools
import json
import logging
import math
import os
import urllib.parse
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters import durable
from adapters.prediction_columns import (
    ALWAYS,
    BATCH_ROWS,
    EPOCH,
    KINDS,
    Partition,
    Span,
    batch_of,
    feature_columns,
    feature_name,
    is_feature,
    labelled,
    nanoseconds,
    partition_of,
    read_entries,
    read_rows,
    schema_of,
    span,
    touches,
)
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
)
from lifecycle.errors import BusyError, ConfigError, UnavailableError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# pyarrow and pandas are imported where Parquet is read or written: a gateway without an archive needs neither.

FORMAT = 1
STRETCH_BYTES = 512 * 1024 * 1024
"""Of segments that are compacted together: a file for each model and day comes of it."""
BUFFER_BYTES = 8 * 1024 * 1024
"""Of records, as the log has them, that wait to be written."""

log = logging.getLogger("prodecks.archive")


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
                durable.sync(folder.parent)
        except OSError as error:
            raise UnavailableError(f"{folder} cannot be deleted: {error.strerror}") from None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        durable.sync(self.folder.parent)
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
        durable.replace(self._state, json.dumps({"format": FORMAT, "through": through}).encode())

    def _write(self, done: Finished, start: int, stop: int) -> tuple[int, int]:
        """Put segments into Parquet files, durable and in place; how many records, and files."""
        import pyarrow.parquet as pq

        first, last = int(done.paths[start].stem), done.last[stop - 1]
        features: dict[Partition, set[str]] = defaultdict(set)
        for entry in done.entries(start, stop):
            features[partition_of(entry.record)] |= feature_columns(entry.record)
        schemas = {partition: schema_of(partition.kind, names) for partition, names in features.items()}
        rows = 0
        with contextlib.ExitStack() as stack:
            writers: dict[Partition, Any] = {}
            for partition, schema in schemas.items():
                folder = self.folder / partition.folder
                folder.mkdir(parents=True, exist_ok=True)
                path = folder / f"{first:020d}-{last:020d}.parquet.new"
                writers[partition] = stack.enter_context(pq.ParquetWriter(path, schema, compression="zstd"))
            for partition, waiting in _buffered(done.entries(start, stop)):
                writers[partition].write_batch(batch_of(waiting, schemas[partition]))
                rows += len(waiting)
        for partition in schemas:
            path = self.folder / partition.folder / f"{first:020d}-{last:020d}.parquet.new"
            durable.sync(path)
            path.replace(path.with_suffix(""))
            for folder in path.parents[:4]:  # day, model, kind, archive: any of them may be new
                durable.sync(folder)
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
        wanted = [span(*one) for one in spans]
        for part in self._walk(after):
            if isinstance(part, Entry):
                if model is None or part.record.model == model:
                    yield part
                continue
            streams = [
                read_entries(file.path, file.partition, part.after, wanted, features=features)
                for file in part.files
                if (model is None or file.partition.model == model) and touches(file.partition.day, wanted)
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

    def scan(
        self,
        model: str,
        start: datetime,
        end: datetime,
        damaged: list[str] | None = None,
        only: Collection[str] | None = None,
    ) -> pa.RecordBatchReader:
        """A model's predictions of a window, each with its outcome; those of a day come in the order of the record.

        Outcomes join by request id, whenever they came; one that names an entity alone belongs to the entity's newest
        prediction up to the moment it is about. The first outcome of a prediction counts. What is on record when the
        scan begins is read, each prediction once, and the same rows come whichever part of them the archive holds.

        Parameters
        ----------
        model
            Whose.
        start, end
            First moment, and the first one after the window; with a time zone.
        damaged
            When given, a damaged part is told here, and the rest is read all the same.
        only
            Features that are read, by their own names; None for all.

        Returns
        -------
        pyarrow.RecordBatchReader
            Columns of the archive's predictions; ``label`` (0 or 1, null without an outcome), ``observed_at``,
            ``labelled_at``; then the features that any of the model's predictions has on the window's days, as
            ``numeric_<name>`` and ``categorical_<name>``.

        Raises
        ------
        ConfigError
            A damaged part: file and place; never where `damaged` is given.
        """
        import pyarrow as pa

        window = _window(start, end)
        survey = self._survey(model, window, damaged)
        features = {one for one in survey.features if only is None or feature_name(one) in only}
        columns = schema_of("predictions", features)
        schema = schema_of("predictions", features, labels=True)

        def batches() -> Iterator[pa.RecordBatch]:
            outcomes = self._joined(model, window, survey, damaged)
            for batch in self._predictions(model, window, survey.last, columns, damaged):
                yield labelled(batch, outcomes, schema)

        return pa.RecordBatchReader.from_batches(schema, batches())

    def arrivals(
        self, model: str, start: datetime, end: datetime, damaged: list[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """When a model was asked, and by whom: columns ``sequence``, ``at``, ``client``, ``version``, ``role``, read fast.

        Parameters, order and errors as in `scan`.
        """
        import pyarrow as pa

        full = schema_of("predictions")
        narrow = pa.schema([full.field(name) for name in ("sequence", "at", "client", "version", "role")])
        yield from self._predictions(model, _window(start, end), None, narrow, damaged)

    def _survey(self, model: str, window: Span, damaged: list[str] | None) -> _Survey:
        """What a scan has to know before its first row."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        features: set[str] = set()
        tables: list[Any] = []
        waiting: list[Entry] = []
        schema = schema_of("outcomes")
        last = 0
        for part in self._sound(model, damaged):
            if isinstance(part, Entry):
                last = part.sequence
                if part.record.model != model:
                    continue
                if isinstance(part.record, Outcome):
                    waiting.append(part)
                elif touches(partition_of(part.record).day, [window]):
                    features |= feature_columns(part.record)
                continue
            last = max(last, *(file.last for file in part.files))
            for file in part.files:
                if file.partition.model != model:
                    continue
                with _tolerating(file.path, damaged):
                    if file.partition.kind == "outcomes":
                        if touches(file.partition.day, [(window[0], ALWAYS[1])]):
                            tables += read_rows(file.path, part.after, [(window[0], ALWAYS[1])], schema)
                    elif touches(file.partition.day, [window]):
                        features |= {name for name in pq.read_schema(file.path).names if is_feature(name)}
        waiting = [entry for entry in waiting if nanoseconds(entry.record.at) >= window[0]]
        table = pa.Table.from_batches([*tables, batch_of(waiting, schema)], schema)
        return _Survey(features, table.sort_by("sequence").to_pandas(), last)

    def _joined(self, model: str, window: Span, survey: _Survey, damaged: list[str] | None) -> pd.DataFrame:
        """Outcomes by request id, the first of each."""
        import pandas as pd

        outcomes = survey.outcomes
        nameless = outcomes[outcomes.request_id == ""]
        if len(nameless):
            schema = schema_of("predictions")
            wanted = set(nameless.entity)
            found = [
                frame[frame.entity.isin(wanted) & (frame.role != "shadow")]
                for batch in self._predictions(model, (window[0], ALWAYS[1]), survey.last, schema, damaged)
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

    def _predictions(
        self, model: str, window: Span, last: int | None, schema: pa.Schema, damaged: list[str] | None
    ) -> Iterator[pa.RecordBatch]:
        """A model's predictions of a window, up to a sequence."""
        import pyarrow.compute as pc

        waiting: list[Entry] = []
        for part in self._sound(model, damaged):
            if isinstance(part, Entry):
                record = part.record
                if last is not None and part.sequence > last:
                    break
                if not isinstance(record, Prediction) or record.model != model:
                    continue
                if window[0] <= nanoseconds(record.at) < window[1]:
                    waiting.append(part)
                    if len(waiting) == BATCH_ROWS:
                        yield batch_of(waiting, schema)
                        waiting = []
                continue
            if waiting:
                yield batch_of(waiting, schema)
                waiting = []
            for file in part.files:
                partition = file.partition
                if partition.model == model and partition.kind == "predictions" and touches(partition.day, [window]):
                    with _tolerating(file.path, damaged):
                        for batch in read_rows(file.path, part.after, [window], schema):
                            yield batch if last is None else batch.filter(pc.less_equal(batch.column("sequence"), last))
        if waiting:
            yield batch_of(waiting, schema)

    def _sound(self, model: str, damaged: list[str] | None) -> Iterator[_Stretch | Entry]:
        """A model's record in order, others' among it; up to where it is damaged when that is to be told and not raised."""
        try:
            yield from self._walk(0, model)
        except ConfigError as error:
            if damaged is None:
                raise
            _note(damaged, str(error))

    def _walk(self, after: int, about: str = "") -> Iterator[_Stretch | Entry]:
        """The whole record in order: the archive's stretches, then the log's entries that are about a text.

        Where a segment went to the archive while it was read, the walk goes on there.
        """
        while True:
            through = self.through
            files = [file for file in self._files() if after < file.last <= through]
            for _, together in itertools.groupby(files, key=lambda file: (file.first, file.last)):
                yield _Stretch(list(together), after)
            after = max(after, through)
            try:
                for entry in read(self.log, after, about):
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
    """Reads a model's record as it grows, each record once: the archive's, then the log's.

    Parameters
    ----------
    archive
        The archive.
    model
        Whose.
    since
        Unix seconds: what is older is left out of what is on record at the first call.
    most
        Of more records than that, those in the middle are left out of the first call, so that what it costs does not grow
        with the record: its first half from `since` on, and about as many of the newest, whoever's. None for all.
    """

    def __init__(
        self, archive: PredictionArchive, model: str, since: float = -math.inf, most: int | None = None
    ) -> None:
        self._archive, self._model, self._since = archive, model, since
        self._half = None if most is None else most // 2
        self._left = math.inf if most is None else most // 2
        self._after = 0
        self._follower: Follower | None = None

    def new(self) -> Iterator[Record]:
        """Records that came since the last call; ConfigError for a damaged part."""
        if self._follower is not None:
            try:
                yield from (record for record in self._follower.new() if record.model == self._model)
            except MovedToArchive:
                self._after = self._follower.after or 0
            else:
                return
        elif self._left > 0:
            yield from self._first()
        through = self._archive.through
        for entry in self._archive.entries(self._after, self._model, features=False):
            self._after = entry.sequence
            yield entry.record
        self._follower = Follower(self._archive.log, max(self._after, through))

    def _first(self) -> Iterator[Record]:
        for entry in self._archive.entries(self._after, self._model, [(self._since, math.inf)], features=False):
            self._after = entry.sequence
            if entry.record.at >= self._since:
                self._left -= 1
                yield entry.record
            if self._left <= 0:
                break
        self._left = 0
        if self._half is not None:
            newest = next((int(path.stem) for path in reversed(segments(self._archive.log))), self._archive.through)
            self._after = max(self._after, newest - self._half)


def _buffered(entries: Iterable[Entry]) -> Iterator[tuple[Partition, list[Entry]]]:
    """Records by partition, in lots that keep memory bounded however many partitions there are."""
    waiting: dict[Partition, list[Entry]] = defaultdict(list)
    sizes: dict[Partition, int] = defaultdict(int)
    total = 0
    for entry in entries:
        partition = partition_of(entry.record)
        waiting[partition].append(entry)
        size = len(encode(entry.record))
        sizes[partition] += size
        total += size
        if total >= BUFFER_BYTES:
            largest = max(sizes, key=lambda one: sizes[one])
            yield largest, waiting.pop(largest)
            total -= sizes.pop(largest)
    yield from waiting.items()


def _window(start: datetime, end: datetime) -> Span:
    microsecond = timedelta(microseconds=1)
    return (start - EPOCH) // microsecond * 1_000, (end - EPOCH) // microsecond * 1_000


@contextlib.contextmanager
def _tolerating(path: Path, damaged: list[str] | None) -> Iterator[None]:
    """Raise what is wrong with a file as ConfigError, or tell it and go on without the rest of the file."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, AttributeError) as error:  # AttributeError: a row group without statistics
        told = f"{path} is damaged: {(str(error).splitlines() or [''])[0][:200]}; accepted: its backup"
        if damaged is None:
            raise ConfigError(told) from None
        _note(damaged, told)


def _note(damaged: list[str], told: str) -> None:
    if told not in damaged:  # a file is read more than once in a scan
        damaged.append(told)


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
        durable.sync(paths[0].parent)
