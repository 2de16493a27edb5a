"""The prediction log: what was acknowledged is on disk before its answer leaves, and is found once, whatever happens.

A folder of append-only segments. Each group of records is one write and one fdatasync, framed by its length and a
checksum, so that a torn tail shows itself and is cut when the log is opened again. A group also says up to which record
answers had left when it was written: records beyond the last such mark of a process that was killed may or may not have
been acknowledged, and stay marked as unconfirmed.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import math
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import msgspec

from adapters import durable
from lifecycle.errors import BusyError, ConfigError, UnavailableError
from lifecycle.serving_policy import Fsync

MAGIC = b"PDLOG1\0\n"
SEGMENT_BYTES = 64 * 1024 * 1024
INTERVAL_S = 0.05
MOST_GROUP_BYTES = 256 * 1024 * 1024
_HEAD = struct.Struct("<IIQQII")  # bytes, crc32 of all that follows, first sequence, answered through, records, kind
_LENGTH = struct.Struct("<I")
_RECORDS, _UNCONFIRMED = 0, 1


class Prediction(msgspec.Struct, array_like=True, tag="p", frozen=True, gc=False):
    """One row that was answered, or that a version failed to answer.

    Parameters
    ----------
    request_id
        What an outcome names.
    at
        Unix seconds, UTC, when it was scored.
    model, version, role
        Who answered: ``live``, ``candidate``, ``previous``, or ``shadow``, whose score nobody saw.
    client, entity
        Who asked, about whom.
    features
        As they came.
    score, decision
        None when the version failed.
    latency_ms
        From the request's last byte to this record.
    error
        Why there is no score; empty when there is.
    """

    request_id: str
    at: float
    model: str
    version: str
    role: str
    client: str
    entity: str
    features: dict[str, float | str | None]
    score: float | None
    decision: int | None
    latency_ms: float
    error: str = ""


class Outcome(msgspec.Struct, array_like=True, tag="o", frozen=True, gc=False):
    """A label that came later.

    Parameters
    ----------
    request_id, entity
        Whose; an empty request id is joined by entity and time.
    model
        Which.
    label
        0 or 1.
    observed_at, at
        Unix seconds: when it became true, when it came.
    client
        Who said so.
    until
        Unix seconds: where it was named by its entity alone, the entity's newest prediction up to here is meant; None for
        the newest up to `observed_at`.
    """

    request_id: str
    entity: str
    model: str
    label: int
    observed_at: float
    at: float
    client: str
    until: float | None = None


Record = Prediction | Outcome
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    """A record as it is kept."""
    return _encoder.encode(record)


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as it is found.

    Parameters
    ----------
    sequence
        Its number, from 1, without gaps.
    record
        The record.
    confirmed
        Whether it was acknowledged for certain. False where a process was killed between writing and answering, and
        for the newest records of a process that goes on, until its next groups say that their answers have left.
    """

    sequence: int
    record: Record
    confirmed: bool


class MovedToArchive(Exception):
    """Records that were asked for have gone from the log to the archive meanwhile."""


@dataclass(frozen=True, slots=True)
class _Group:
    offset: int
    end: int
    first: int
    through: int
    count: int
    kind: int
    raw: bytes

    @property
    def last(self) -> int:
        return self.first + self.count - 1

    @property
    def payload(self) -> bytes:
        return self.raw[_HEAD.size :]


class PredictionLog:
    """An open log; made by `open`. One process holds it, any number may read its folder.

    `append` may be called by one thread at a time.
    """

    def __init__(
        self, folder: Path, fsync: Fsync, segment_bytes: int, segment_seconds: float, sync_seconds: float, lock: int
    ) -> None:
        self.folder = folder
        self._fsync, self._sync_seconds, self._lock = fsync, sync_seconds, lock
        self._segment_bytes, self._segment_seconds = segment_bytes, segment_seconds
        self._file = -1
        self._size = 0
        self._began = (0, 0.0)  # first sequence of the segment, and monotonic seconds
        self._next = 1
        self._guard = threading.Lock()
        self._dirty = False
        self._stop = threading.Event()
        self._syncer: threading.Thread | None = None
        self.torn_bytes = 0
        """Bytes of an incomplete group that opening cut off; they lie in a file beside the segment."""

    @classmethod
    def open(
        cls,
        folder: Path,
        fsync: Fsync = Fsync.EVERY_GROUP,
        segment_bytes: int = SEGMENT_BYTES,
        segment_seconds: float = math.inf,
        sync_seconds: float = INTERVAL_S,
        first: int = 1,
    ) -> Self:
        """Take the log for this process and make it whole.

        Parameters
        ----------
        folder
            The log's.
        fsync
            When a record counts as kept.
        segment_bytes, segment_seconds
            A segment larger or older than this is finished, and the next group begins another.
        sync_seconds
            Time between two syncs under `Fsync.INTERVAL`.
        first
            Least sequence of the next record: what comes after the archive.

        Raises
        ------
        BusyError
            Another process holds it.
        ConfigError
            A group that is not the last one is damaged: file and offset. Nothing is skipped silently.
        UnavailableError
            The folder cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UnavailableError(f"prediction log {folder}: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise BusyError(
                f"prediction log {folder} is held by another process; accepted: one gateway a folder"
            ) from None
        log = cls(folder, fsync, segment_bytes, segment_seconds, sync_seconds, lock)
        try:
            log._recover(first)
        except OSError as error:
            os.close(lock)
            raise UnavailableError(f"prediction log {folder}: {error.strerror}") from None
        except BaseException:
            os.close(lock)
            raise
        if fsync is Fsync.INTERVAL:
            log._syncer = threading.Thread(target=log._sync_now_and_then, name="log-sync", daemon=True)
            log._syncer.start()
        return log

    def append(self, records: Sequence[bytes], through: int) -> int:
        """Keep records, whole or not at all; on return they are as durable as the policy says.

        Parameters
        ----------
        records
            Each from `encode`; at least one.
        through
            Sequence up to which answers have left.

        Returns
        -------
        int
            Sequence of the last one.

        Raises
        ------
        UnavailableError
            The disk does not take them; none of them will be found. The next call tries again.
        """
        payload = b"".join(part for record in records for part in (_LENGTH.pack(len(record)), record))
        with self._guard:
            self._write(_RECORDS, len(records), through, payload)
            self._next += len(records)
            return self._next - 1

    def records(self) -> Iterator[Entry]:
        """Everything in the log, oldest first."""
        return read(self.folder)

    def close(self) -> None:
        """Say that every answer has left, and let go of the log. Doing so twice changes nothing."""
        if self._lock < 0:
            return
        self._stop.set()
        if self._syncer is not None:
            self._syncer.join()
        with self._guard, contextlib.suppress(UnavailableError):
            if self._next > 1:
                self._write(_RECORDS, 0, self._next - 1, b"")
        if self._file >= 0:
            os.close(self._file)
        os.close(self._lock)
        self._lock = self._file = -1

    def _write(self, kind: int, count: int, through: int, payload: bytes) -> None:
        body = _HEAD.pack(len(payload), 0, self._next, through, count, kind)[8:] + payload
        group = _HEAD.pack(len(payload), zlib.crc32(body), self._next, through, count, kind) + payload
        try:
            if self._file < 0 or self._is_finished(len(group)):
                self._roll()
            start = self._size
            try:
                view = memoryview(group)
                while view:
                    view = view[os.write(self._file, view) :]
                if self._fsync is Fsync.EVERY_GROUP:
                    os.fdatasync(self._file)
            except OSError:
                self._take_back(start)
                raise
        except OSError as error:
            raise UnavailableError(f"prediction log {self.folder}: {error.strerror}") from None
        self._size = start + len(group)
        self._dirty = True

    def _take_back(self, start: int) -> None:
        """Leave the segment as it was before a write that failed, and go on in a new one.

        After a failed fdatasync the kernel may have dropped pages and called them clean: nothing more is trusted to
        that file.
        """
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, start)
            os.fdatasync(self._file)
        os.close(self._file)
        self._file, self._size = -1, 0

    def _is_finished(self, more: int) -> bool:
        first, since = self._began
        if self._next == first:  # without a record the next segment would have the same name
            return False
        return self._size + more > self._segment_bytes or time.monotonic() - since > self._segment_seconds

    def _roll(self) -> None:
        if self._file >= 0:
            os.fdatasync(self._file)
            os.close(self._file)
            self._file = -1
        path = self.folder / "segments" / f"{self._next:020d}.log"
        path.parent.mkdir(exist_ok=True)
        # The same name twice: the segment before it holds no record, but what it says of older ones is kept.
        content = MAGIC + _marks(path)
        staged = path.with_suffix(".new")
        file = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            os.write(file, content)
            os.fdatasync(file)
            staged.replace(path)
            durable.sync(path.parent)
        except OSError:
            os.close(file)
            raise
        self._file, self._size, self._began = file, len(content), (self._next, time.monotonic())

    def _recover(self, first: int) -> None:
        while True:
            try:
                through = self._scan(first)
                break
            except FileNotFoundError:
                continue  # the oldest segments have just gone to the archive
        if self._next < first:
            self._next, through = first, first - 1
        if through < self._next - 1:
            marked = struct.pack("<QQ", through + 1, self._next - 1)
            with self._guard:
                self._write(_UNCONFIRMED, 0, self._next - 1, marked)

    def _scan(self, first: int) -> int:
        """Find where the log ends, and cut its torn tail; up to which record is known whether answers left."""
        paths = segments(self.folder)
        self._next = int(paths[0].stem) if paths else 1
        through = self._next - 1  # what went to the archive was settled
        for path in paths:
            newest = path == paths[-1]
            good = 0
            with path.open("rb") as file:
                for group in _groups(path, file, torn_tail=newest):
                    # What a log that was put back from a backup lacks is in the archive.
                    if group.count and group.first != self._next and not self._next < group.first <= first:
                        raise ConfigError(
                            f"{path}: record {group.first} follows {self._next - 1}; accepted: a log without a hole"
                        )
                    through = max(through, group.through)
                    self._next = max(self._next, group.first + group.count)
                    good = group.end
                good = max(good, len(MAGIC))
                file.seek(good)
                torn = file.read() if newest else b""
            if torn:
                self.torn_bytes = len(torn)
                durable.write(path.with_suffix(f".torn-{time.time_ns()}"), torn)
                with path.open("r+b") as file:
                    file.truncate(good)
                    file.flush()
                    os.fsync(file.fileno())
        return through

    def _sync_now_and_then(self) -> None:
        while not self._stop.wait(self._sync_seconds):
            if self._dirty:
                with self._guard, contextlib.suppress(OSError):
                    self._dirty = False
                    if self._file >= 0:
                        os.fdatasync(self._file)


def segments(folder: Path) -> list[Path]:
    """Segments of a log, oldest first."""
    return sorted((folder / "segments").glob("*.log"))


def read(folder: Path, after: int | None = None, about: str = "") -> Iterator[Entry]:
    """Records of a log, oldest first, also while it is written; a group in flight is not there yet.

    Parameters
    ----------
    folder
        The log's.
    after
        Sequence up to which they are left out; None: from the oldest that is there.
    about
        Records without this text anywhere may be left out, unread: a model's name skips most of what is other models'.

    Raises
    ------
    ConfigError
        A damaged group: file and offset.
    MovedToArchive
        Some that were asked for, or were about to be read, are not in the log any more.
    """
    paths = segments(folder)
    if after is not None:
        if paths and int(paths[0].stem) > after + 1:
            raise MovedToArchive
        while len(paths) > 1 and int(paths[1].stem) <= after + 1:
            del paths[0]  # nothing in it is asked for, and nothing in it speaks of later records
    try:
        yield from _entries(paths, _settled(paths)[1], after or 0, torn_tail=True, about=about.encode())
    except FileNotFoundError:
        raise MovedToArchive from None


@dataclass(frozen=True, slots=True)
class Finished:
    """Segments that nothing more is written to, and of whose records it is known whether they were acknowledged.

    Parameters
    ----------
    paths
        Oldest first.
    last
        Sequence of each one's last record.
    unconfirmed
        First and last sequence of each stretch without an answer for certain.
    """

    paths: list[Path]
    last: list[int]
    unconfirmed: list[tuple[int, float]]

    def entries(self, start: int, stop: int) -> Iterator[Entry]:
        """Records of some of them; ConfigError for a damaged group."""
        return _entries(self.paths[start:stop], self.unconfirmed, 0, torn_tail=False)


def finished(folder: Path) -> Finished:
    """Segments that may leave a log, also while it is written; ConfigError for a damaged group."""
    paths = segments(folder)
    through, unconfirmed = _settled(paths)
    last = [int(following.stem) - 1 for following in paths[1:]]
    last = list(itertools.takewhile(lambda sequence: sequence <= through, last))
    return Finished(paths[: len(last)], last, unconfirmed)


class Follower:
    """Reads a log as it grows, each record once, without reading again what was read.

    Parameters
    ----------
    folder
        The log's; it need not exist yet.
    after
        Sequence up to which records are left out; None: from the oldest that is there.
    """

    def __init__(self, folder: Path, after: int | None = None) -> None:
        self._folder = folder
        self._segment: Path | None = None
        self._offset = 0
        self.after = after
        """Sequence of the record read last."""

    def new(self) -> Iterator[Record]:
        """Records that came since the last call.

        Raises
        ------
        ConfigError
            A damaged group: file and offset.
        MovedToArchive
            Some that were not read yet are not in the log any more.
        """
        paths = segments(self._folder)
        if self.after is not None:
            if paths and int(paths[0].stem) > self.after + 1:
                raise MovedToArchive
            paths = [
                path
                for path, following in itertools.zip_longest(paths, paths[1:])
                if following is None or int(following.stem) > self.after + 1 or path == self._segment
            ]
        if self._segment is not None:
            paths = [path for path in paths if path.name >= self._segment.name]
        for place, path in enumerate(paths):
            if path != self._segment:
                self._segment, self._offset = path, 0
            try:
                file = path.open("rb")
            except FileNotFoundError:
                raise MovedToArchive from None
            with file:
                file.seek(self._offset)
                for group in _groups(path, file, torn_tail=place + 1 == len(paths)):
                    # Before it is handed on: a damaged group behind it must not have this one read again.
                    self._offset = group.end
                    if group.kind == _RECORDS and group.count and group.last > (self.after or 0):
                        skipped = max(0, (self.after or 0) + 1 - group.first)
                        self.after = group.last
                        for raw in itertools.islice(_split(path, group), skipped, None):
                            yield _decoder.decode(raw)


def _entries(
    paths: Sequence[Path], unconfirmed: Sequence[tuple[int, float]], after: int, *, torn_tail: bool, about: bytes = b""
) -> Iterator[Entry]:
    for place, path in enumerate(paths):
        if place + 1 < len(paths) and int(paths[place + 1].stem) <= after + 1:
            continue
        with path.open("rb") as file:
            for group in _groups(path, file, torn_tail=torn_tail and place + 1 == len(paths)):
                if group.kind != _RECORDS or group.last <= after or about not in group.raw:
                    continue
                near = [(low, high) for low, high in unconfirmed if low <= group.last and group.first <= high]
                for offset, raw in enumerate(_split(path, group)):
                    sequence = group.first + offset
                    if sequence > after and about in raw:
                        sure = not near or not any(low <= sequence <= high for low, high in near)
                        yield Entry(sequence, _decoder.decode(raw), sure)


def _settled(paths: Sequence[Path]) -> tuple[int, list[tuple[int, float]]]:
    """Up to which record it is known whether answers left, and the stretches of those without one for certain.

    The last stretch is the tail that no later group speaks of.
    """
    found: list[tuple[int, float]] = []
    through = int(paths[0].stem) - 1 if paths else 0  # what went to the archive was settled
    for place, path in enumerate(paths):
        with path.open("rb") as file:
            for group in _groups(path, file, torn_tail=place + 1 == len(paths)):
                if group.kind == _UNCONFIRMED:
                    found.append(struct.unpack("<QQ", group.payload))
                through = max(through, group.through)
    return through, [*found, (through + 1, math.inf)]


def _marks(path: Path) -> bytes:
    """Groups of a segment without records, as they are: what it says of older segments."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        return b"".join(group.raw for group in _groups(path, file, torn_tail=True) if not group.count)
    return b""


def _groups(path: Path, file: BinaryIO, *, torn_tail: bool) -> Iterator[_Group]:
    """Whole groups from where the file stands; what follows the last one is a torn tail only where it may still grow."""
    offset = file.tell()
    if offset == 0:
        magic = file.read(len(MAGIC))
        if magic != MAGIC:
            if torn_tail and MAGIC.startswith(magic):
                return
            raise ConfigError(f"{path}: no segment of a prediction log; accepted: one that begins with {MAGIC!r}")
        offset = len(MAGIC)
    while True:
        head = file.read(_HEAD.size)
        if not head:
            return
        size = _HEAD.unpack(head)[0] if len(head) == _HEAD.size else 0
        raw = head + (file.read(size) if size <= MOST_GROUP_BYTES else b"")
        if not _is_whole(raw, 0):
            file.seek(offset)
            rest = file.read()
            if torn_tail and _is_whole(rest, 0):  # it was in flight
                file.seek(offset)
                continue
            # Only what was written last can be torn: a whole group behind it says that this one was damaged later.
            if torn_tail and not any(_is_whole(rest, place) for place in range(1, len(rest) - _HEAD.size + 1)):
                return
            raise ConfigError(
                f"{path}: the group at byte {offset} is damaged; accepted: restore the file from its backup, or move it "
                "away and lose its records knowingly"
            )
        _, _, first, through, count, kind = _HEAD.unpack_from(raw)
        yield _Group(offset, offset + len(raw), first, through, count, kind, raw)
        offset += len(raw)


def _is_whole(content: bytes, offset: int) -> bool:
    """Whether a whole group begins here."""
    if len(content) - offset < _HEAD.size:
        return False
    size, crc, _, _, _, kind = _HEAD.unpack_from(content, offset)
    end = offset + _HEAD.size + size
    if kind > _UNCONFIRMED or size > MOST_GROUP_BYTES or end > len(content):
        return False
    return bool(zlib.crc32(memoryview(content)[offset + 8 : end]) == crc)


def _split(path: Path, group: _Group) -> Iterator[bytes]:
    offset = _HEAD.size
    for _ in range(group.count):
        (size,) = _LENGTH.unpack_from(group.raw, offset)
        offset += _LENGTH.size
        if offset + size > len(group.raw):
            raise ConfigError(f"{path}: the group at byte {group.offset} holds less than it says")
        yield group.raw[offset : offset + size]
        offset += size


def decode(raw: bytes) -> Any:
    """Inverse of `encode`."""
    return _decoder.decode(raw)
