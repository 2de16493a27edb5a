"""A file is replaced whole or not at all, and nobody sees more of it than allowed."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from adapters import durable


def test_whoever_reads_meanwhile_finds_one_content_whole(tmp_path: Path):
    path, contents = tmp_path / "table.json", [bytes([number]) * 50_000 for number in range(2)]
    durable.replace(path, contents[0])
    stop, found = threading.Event(), set()

    def look() -> None:
        while not stop.is_set():
            found.add(path.read_bytes())

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(100):
        durable.replace(path, contents[number % 2])
    stop.set()
    reader.join()
    assert found <= set(contents)
    assert [one.name for one in tmp_path.iterdir()] == ["table.json"]


def test_what_the_disk_does_not_take_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "table.json"
    durable.replace(path, b"before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            durable.replace(path, b"after")
    assert path.read_bytes() == b"before"
    assert [one.name for one in tmp_path.iterdir()] == ["table.json"]


def test_content_is_synced_before_its_name_and_the_folder_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, synced = tmp_path / "table.json", []
    fsync = os.fsync

    def told(file: int) -> None:
        synced.append((str(Path(f"/proc/self/fd/{file}").readlink()), path.exists()))
        fsync(file)

    monkeypatch.setattr(os, "fsync", told)
    durable.replace(path, b"content")
    assert synced == [(str(tmp_path / "table.new"), False), (str(tmp_path), True)]


def test_a_secret_is_nobody_elses_also_where_a_killed_writer_left_an_open_file(tmp_path: Path):
    path = tmp_path / "keys.json"
    (tmp_path / "keys.new").write_text("left behind")
    (tmp_path / "keys.new").chmod(0o666)
    durable.replace(path, b"secret", 0o600)
    assert path.stat().st_mode & 0o777 == 0o600
