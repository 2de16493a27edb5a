"""The prediction log: what was acknowledged is on disk before its answer leaves, and is found once, whatever happens.

A folder of append-only segments. Each group of records is one write and one fdatasync, framed by its length and a
checksum, so that a torn tail shows itself and is cut when the log is opened again. A group also says up to which record
answers had left when it was written: records beyond the last such mark of a process that was killed may or may not have
been acknowledged, and stay marked as unconfirmed.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import math
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgspec

from lifecycle.errors import BusyError, ConfigError, UnavailableError

MAGIC = b"PDLOG1\0\n"
SEGMENT_BYTES = 64 * 1024 * 1024
INTERVAL_S = 0.05
MOST_GROUP_BYTES = 256 * 1024 * 1024
_HEAD = struct.Struct("<IIQQII")  # bytes, crc32 of all that follows, first sequence, answered through, records, kind
_LENGTH = struct.Struct("<I")
_RECORDS, _UNCONFIRMED = 0, 1


class Fsync(enum.StrEnum):
    """When a record counts as kept."""

    EVERY_GROUP = "every_group"
    """Before its answer: survives a loss of power."""
    INTERVAL = "interval"
    """At most `INTERVAL_S` later: survives the process, and loses that much with the power."""
    NEVER = "never"
    """When the system pleases: survives the process."""


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
    """

    request_id: str
    entity: str
    model: str
    label: int
    observed_at: float
    at: float
    client: str


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


@dataclass(frozen=True, slots=True)
class _Group:
    offset: int
    end: int
    first: int
    through: int
    count: int
    kind: int
    payload: bytes

    @property
    def last(self) -> int:
        return self.first + self.count - 1


class PredictionLog:
    """An open log; made by `open`. One process holds it, any number may read its folder.

    `append` may be called by one thread at a time.
    """

    def __init__(self, folder: Path, fsync: Fsync, segment_bytes: int, lock: int) -> None:
        self.folder = folder
        self._fsync, self._segment_bytes, self._lock = fsync, segment_bytes, lock
        self._file = -1
        self._size = 0
        self._next = 1
        self._guard = threading.Lock()
        self._dirty = False
        self._stop = threading.Event()
        self._syncer: threading.Thread | None = None
        self.torn_bytes = 0
        """Bytes of an incomplete group that opening cut off; they lie in a file beside the segment."""

    @classmethod
    def open(cls, folder: Path, fsync: Fsync = Fsync.EVERY_GROUP, segment_bytes: int = SEGMENT_BYTES) -> Self:
        """Take the log for this process and make it whole.

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
        log = cls(folder, fsync, segment_bytes, lock)
        try:
            log._recover()
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

    def records(self, newest: int | None = None) -> Iterator[Entry]:
        """Everything in the log, or its newest records; oldest first."""
        return read(self.folder, after=0 if newest is None else max(0, self._next - 1 - newest))

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
            if self._file < 0 or (self._size + len(group) > self._segment_bytes and self._size > len(MAGIC)):
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

    def _roll(self) -> None:
        if self._file >= 0:
            os.fdatasync(self._file)
            os.close(self._file)
            self._file = -1
        path = self.folder / "segments" / f"{self._next:020d}.log"
        path.parent.mkdir(exist_ok=True)
        # The same name twice: the segment before it took nothing at all.
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            os.write(file, MAGIC)
            os.fdatasync(file)
            _sync_folder(path.parent)
        except OSError:
            os.close(file)
            raise
        self._file, self._size = file, len(MAGIC)

    def _recover(self) -> None:
        paths = segments(self.folder)
        through = 0
        for path in paths:
            newest = path == paths[-1]
            content = path.read_bytes()
            good = len(MAGIC)
            for group in _groups(path, content, torn_tail=newest):
                if group.count and group.first != self._next and self._next != 1:
                    raise ConfigError(
                        f"{path}: record {group.first} follows {self._next - 1}; accepted: a log without a hole"
                    )
                through = max(through, group.through)
                self._next = max(self._next, group.first + group.count)
                good = group.end
            if newest and good < len(content):
                self.torn_bytes = len(content) - good
                with path.with_suffix(f".torn-{time.time_ns()}").open("wb") as kept:
                    kept.write(content[good:])
                    os.fsync(kept.fileno())
                with path.open("r+b") as file:
                    file.truncate(good)
                    file.flush()
                    os.fsync(file.fileno())
        if through < self._next - 1:
            marked = struct.pack("<QQ", through + 1, self._next - 1)
            with self._guard:
                self._write(_UNCONFIRMED, 0, self._next - 1, marked)

    def _sync_now_and_then(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            if self._dirty:
                with self._guard, contextlib.suppress(OSError):
                    self._dirty = False
                    if self._file >= 0:
                        os.fdatasync(self._file)


def segments(folder: Path) -> list[Path]:
    """Segments of a log, oldest first."""
    return sorted((folder / "segments").glob("*.log"))


def read(folder: Path, after: int = 0) -> Iterator[Entry]:
    """Records of a log, oldest first, also while it is written; a group in flight is not there yet.

    Parameters
    ----------
    folder
        The log's.
    after
        Sequence up to which they are left out.

    Raises
    ------
    ConfigError
        A damaged group: file and offset.
    """
    paths = segments(folder)
    while len(paths) > 1 and int(paths[1].stem) <= after + 1:
        del paths[0]  # nothing in it is asked for, and nothing in it speaks of later records
    unconfirmed = _unconfirmed(paths)
    for place, path in enumerate(paths):
        for group in _groups(path, path.read_bytes(), torn_tail=place + 1 == len(paths)):
            if group.kind != _RECORDS or group.last <= after:
                continue
            for offset, raw in enumerate(_split(path, group)):
                sequence = group.first + offset
                if sequence > after:
                    sure = not any(low <= sequence <= high for low, high in unconfirmed)
                    yield Entry(sequence, _decoder.decode(raw), sure)


class Follower:
    """Reads a log as it grows, each record once, without reading again what was read.

    Parameters
    ----------
    folder
        The log's; it need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._segment: Path | None = None
        self._offset = 0

    def new(self) -> Iterator[Record]:
        """Records that came since the last call.

        Raises
        ------
        ConfigError
            A damaged group: file and offset.
        """
        paths = segments(self._folder)
        if self._segment is not None:
            # A segment that was compacted away was read, or holds what the archive holds now.
            paths = [path for path in paths if path.name >= self._segment.name]
        for place, path in enumerate(paths):
            start = self._offset if path == self._segment else 0
            with path.open("rb") as file:
                file.seek(start)
                content = file.read()
            if start:
                content = MAGIC + content
            read_to = start
            for group in _groups(path, content, torn_tail=place + 1 == len(paths)):
                read_to = start + group.end - (len(MAGIC) if start else 0)
                if group.kind == _RECORDS:
                    for raw in _split(path, group):
                        yield _decoder.decode(raw)
            self._segment, self._offset = path, read_to


def _unconfirmed(paths: Sequence[Path]) -> list[tuple[int, float]]:
    """Ranges without an answer for certain: what killed processes left, and the tail that no later group speaks of."""
    found: list[tuple[int, float]] = []
    through = 0
    for place, path in enumerate(paths):
        for group in _groups(path, path.read_bytes(), torn_tail=place + 1 == len(paths)):
            if group.kind == _UNCONFIRMED:
                found.append(struct.unpack("<QQ", group.payload))
            through = max(through, group.through)
    return [*found, (through + 1, math.inf)]


def _groups(path: Path, content: bytes, *, torn_tail: bool) -> Iterator[_Group]:
    """Whole groups of a segment; what follows the last one is a torn tail only where the file may still grow."""
    if not content.startswith(MAGIC):
        if torn_tail and MAGIC.startswith(content):
            return
        raise ConfigError(f"{path}: no segment of a prediction log; accepted: one that begins with {MAGIC!r}")
    offset = len(MAGIC)
    while offset < len(content):
        head = content[offset : offset + _HEAD.size]
        size, crc, first, through, count, kind = _HEAD.unpack(head) if len(head) == _HEAD.size else (0,) * 6
        end = offset + _HEAD.size + size
        whole = len(head) == _HEAD.size and end <= len(content) and size <= MOST_GROUP_BYTES
        if not whole or zlib.crc32(content[offset + 8 : end]) != crc:
            # Only what was written last can be torn: a whole group behind it says that this one was damaged later.
            if torn_tail and not _any_whole(content, offset + 1):
                return
            raise ConfigError(
                f"{path}: the group at byte {offset} is damaged; accepted: restore the file from its backup, or move it "
                "away and lose its records knowingly"
            )
        yield _Group(offset, end, first, through, count, kind, content[offset + _HEAD.size : end])
        offset = end


def _any_whole(content: bytes, start: int) -> bool:
    """Whether a whole group begins anywhere from here on."""
    for offset in range(start, len(content) - _HEAD.size + 1):
        size, crc, _, _, _, kind = _HEAD.unpack_from(content, offset)
        end = offset + _HEAD.size + size
        if kind <= _UNCONFIRMED and end <= len(content) and zlib.crc32(memoryview(content)[offset + 8 : end]) == crc:
            return True
    return False


def _split(path: Path, group: _Group) -> Iterator[bytes]:
    offset = 0
    for _ in range(group.count):
        (size,) = _LENGTH.unpack_from(group.payload, offset)
        offset += _LENGTH.size
        if offset + size > len(group.payload):
            raise ConfigError(f"{path}: the group at byte {group.offset} holds less than it says")
        yield group.payload[offset : offset + size]
        offset += size


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def decode(raw: bytes) -> Any:
    """Inverse of `encode`."""
    return _decoder.decode(raw)
