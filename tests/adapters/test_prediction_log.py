"""What was appended is found once and in order, whatever was cut, flipped, full or killed; what is damaged says so."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters import prediction_log
from adapters.prediction_log import (
    MAGIC,
    Entry,
    Follower,
    Fsync,
    Outcome,
    Prediction,
    PredictionLog,
    encode,
    read,
    segments,
)
from lifecycle.errors import BusyError, ConfigError, UnavailableError

ROOT = Path(__file__).resolve().parents[2]


def prediction(number: int) -> Prediction:
    features: dict[str, float | str | None] = {"x": number / 2, "kind": "Köln", "none": None}
    return Prediction(f"r{number}", 1.5, "m", "1", "live", "c", f"e{number}", features, 0.25, 0, 1.25)


def numbers(entries: Any) -> list[int]:
    return [int(entry.record.request_id[1:]) for entry in entries]


def fill(folder: Path, groups: list[int], **options: Any) -> None:
    """Groups of so many records; every answer is known to have left when the next group is written."""
    log = PredictionLog.open(folder, **options)
    number = 0
    for size in groups:
        last = log.append([encode(prediction(number + place)) for place in range(size)], number)
        number += size
        assert last == number
    kill(log)


def kill(log: PredictionLog) -> None:
    """Let go of the files as the end of a process does, without a last word."""
    if log._file >= 0:
        os.close(log._file)
    os.close(log._lock)
    log._file = log._lock = -1


def test_records_come_back_as_they_went_in(tmp_path: Path):
    log = PredictionLog.open(tmp_path)
    outcome = Outcome("r0", "e0", "m", 1, 2.0, 3.0, "c")
    assert log.append([encode(prediction(0)), encode(outcome)], 0) == 2
    log.close()
    log.close()
    assert list(read(tmp_path)) == [Entry(1, prediction(0), True), Entry(2, outcome, True)]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.sampled_from([200, 1_000, 64_000_000]))
def test_any_groups_over_any_segments_are_found_in_order(
    tmp_path_factory: pytest.TempPathFactory, groups: list[int], size: int
):
    folder = tmp_path_factory.mktemp("log")
    fill(folder, groups, segment_bytes=size)
    assert numbers(read(folder)) == list(range(sum(groups)))
    assert [entry.sequence for entry in read(folder, after=2)] == list(range(3, sum(groups) + 1))


def test_the_newest_records_are_read_without_the_segments_before_them(tmp_path: Path):
    fill(tmp_path, [2, 2, 2, 2], segment_bytes=200)
    first, *others = segments(tmp_path)
    assert len(others) > 1
    first.write_bytes(b"not looked at")
    kept = list(read(tmp_path, after=5))
    assert [(entry.sequence, entry.confirmed) for entry in kept] == [(6, True), (7, False), (8, False)]


def test_a_tail_cut_anywhere_costs_its_own_group_and_no_other(tmp_path: Path):
    fill(tmp_path / "whole", [2, 1, 3])
    content = segments(tmp_path / "whole")[0].read_bytes()
    ends = [len(MAGIC)]
    ends += [group.end for group in prediction_log._groups(Path("x"), io.BytesIO(content), torn_tail=True)]
    kept = [0, 2, 3, 6]
    for length in range(len(content) + 1):
        folder = tmp_path / str(length)
        (folder / "segments").mkdir(parents=True)
        path = folder / "segments" / f"{1:020d}.log"
        path.write_bytes(content[:length])
        whole = sum(length >= end for end in ends)
        expected = list(range(kept[max(whole, 1) - 1]))
        assert numbers(read(folder)) == expected
        log = PredictionLog.open(folder)
        assert log.append([encode(prediction(99))], 0) == len(expected) + 1
        log.close()
        assert numbers(read(folder)) == [*expected, 99]


def test_a_flipped_byte_is_noticed_wherever_it_is(tmp_path: Path):
    fill(tmp_path / "whole", [1, 1, 1])
    content = segments(tmp_path / "whole")[0].read_bytes()
    last = list(prediction_log._groups(Path("x"), io.BytesIO(content), torn_tail=True))[-1].offset
    for place in range(0, len(content), 3):
        folder = tmp_path / str(place)
        (folder / "segments").mkdir(parents=True)
        (folder / "segments" / f"{1:020d}.log").write_bytes(
            content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :]
        )
        if place < last:
            with pytest.raises(ConfigError, match=r"damaged|no segment|hole|less than"):
                PredictionLog.open(folder)
            with pytest.raises(ConfigError):
                list(read(folder))
        else:  # the newest group: as good as torn
            assert numbers(read(folder)) == [0, 1]


def test_a_damaged_older_segment_is_an_error_and_never_skipped(tmp_path: Path):
    fill(tmp_path, [1, 1, 1], segment_bytes=100)
    first, *_ = segments(tmp_path)
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(ConfigError, match="damaged"):
        PredictionLog.open(tmp_path)
    with pytest.raises(ConfigError, match="damaged"):
        list(read(tmp_path))


def test_a_segment_that_is_gone_is_a_hole(tmp_path: Path):
    fill(tmp_path, [1, 1, 1], segment_bytes=100)
    segments(tmp_path)[1].unlink()
    with pytest.raises(ConfigError, match="without a hole"):
        PredictionLog.open(tmp_path)


def test_what_was_cut_is_kept_beside(tmp_path: Path):
    fill(tmp_path, [1, 1])
    path = segments(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:-5])
    log = PredictionLog.open(tmp_path)
    assert log.torn_bytes > 0
    (torn,) = path.parent.glob("*.torn-*")
    assert torn.stat().st_size == log.torn_bytes
    log.close()


def test_what_a_killed_process_may_not_have_answered_is_marked(tmp_path: Path):
    fill(tmp_path, [2, 3])  # the first two had left when the next three were written
    log = PredictionLog.open(tmp_path)
    log.append([encode(prediction(5))], 0)
    log.close()
    assert [entry.confirmed for entry in read(tmp_path)] == [True, True, False, False, False, True]
    PredictionLog.open(tmp_path).close()
    assert [entry.confirmed for entry in read(tmp_path)] == [True, True, False, False, False, True]


def test_two_writers_are_told_apart(tmp_path: Path):
    log = PredictionLog.open(tmp_path)
    with pytest.raises(BusyError, match="held by another process"):
        PredictionLog.open(tmp_path)
    log.close()
    PredictionLog.open(tmp_path).close()


@pytest.mark.parametrize("call", ["write", "fdatasync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_keeps_nothing_of_the_group_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
):
    log = PredictionLog.open(tmp_path)
    log.append([encode(prediction(0))], 0)
    real = getattr(os, call)

    def failing(file: int, *rest: Any) -> Any:
        if call == "write":
            real(file, bytes(rest[0][:7]))  # part of it reached the disk
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as broken:
        broken.setattr(os, call, failing)
        for _ in range(2):
            with pytest.raises(UnavailableError, match=os.strerror(code)):
                log.append([encode(prediction(1))], 0)
    assert numbers(read(tmp_path)) == [0]
    assert log.append([encode(prediction(2))], 1) == 2
    log.close()
    assert numbers(read(tmp_path)) == [0, 2]


def test_a_full_disk_refuses_and_goes_on_when_there_is_room(tmp_path: Path):
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    try:
        filler = disk / "filler"
        filler.write_bytes(b"x" * 700_000)
        log = PredictionLog.open(disk / "log")
        kept = 0

        def until_full() -> None:
            nonlocal kept
            for _ in range(10_000):
                log.append([encode(prediction(kept))], kept)
                kept += 1

        with pytest.raises(UnavailableError, match="No space left"):
            until_full()
        assert kept > 100
        filler.unlink()
        log.append([encode(prediction(kept))], kept)
        log.close()
        assert numbers(read(disk / "log")) == list(range(kept + 1))
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("fsync", list(Fsync))
def test_every_policy_keeps_what_was_appended(tmp_path: Path, fsync: Fsync):
    log = PredictionLog.open(tmp_path, fsync=fsync)
    for number in range(20):
        log.append([encode(prediction(number))], number)
        time.sleep(0.005)
    log.close()
    assert numbers(read(tmp_path)) == list(range(20))


WRITER = """
import sys
from pathlib import Path
from adapters.prediction_log import PredictionLog, Prediction, encode
log = PredictionLog.open(Path(sys.argv[1]), segment_bytes=20_000)
start = int(sys.argv[2])
for group in range(100_000):
    ids = [f"{start}-{group}-{place}" for place in range(1 + group % 5)]
    log.append([encode(Prediction(one, 0.0, "m", "1", "live", "c", one, {"x": 1.0}, 0.5, 1, 1.0)) for one in ids], 0)
    print(*ids, flush=True)
"""


def kill_again_and_again(folder: Path, times: int) -> None:
    acknowledged: set[str] = set()
    for start in range(times):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), str(start)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        acknowledged.update(writer.stdout.readline().split())
        time.sleep(0.002 * (start % 20))
        writer.send_signal(signal.SIGKILL)
        told = writer.stdout.read()
        acknowledged.update(told[: told.rfind("\n") + 1].split())
        writer.wait()
    found = [entry.record.request_id for entry in read(folder)]
    assert len(found) == len(set(found))
    assert acknowledged <= set(found)
    assert len(acknowledged) > 5 * times
    log = PredictionLog.open(folder)
    log.close()
    assert [entry.record.request_id for entry in read(folder)] == found


def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path):
    kill_again_and_again(tmp_path, 8)


@pytest.mark.slow
def test_a_writer_killed_fifty_times_loses_nothing_it_acknowledged(tmp_path: Path):
    kill_again_and_again(tmp_path, 50)


def followed(follower: Follower) -> list[int]:
    return [int(one.request_id[1:]) for one in follower.new()]


def test_a_follower_gives_each_record_once_also_before_a_damaged_group(tmp_path: Path):
    fill(tmp_path, [2, 2, 2, 2], segment_bytes=400)
    first, *_, last = segments(tmp_path)
    follower = Follower(tmp_path)
    content = last.read_bytes()
    last.write_bytes(b"damaged" + content)
    with pytest.raises(ConfigError, match="no segment"):
        followed(follower)
    with pytest.raises(ConfigError, match="no segment"):
        assert followed(follower) == []
    last.write_bytes(content)
    assert followed(follower)[-1] == 7
    assert followed(follower) == []
    whole = first.read_bytes()
    fresh = Follower(tmp_path)
    first.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    seen = []
    for _ in range(3):
        with pytest.raises(ConfigError, match="damaged"):
            seen.extend(one.request_id for one in fresh.new())
    assert len(seen) == len(set(seen))
