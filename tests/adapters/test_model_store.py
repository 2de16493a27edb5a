"""A version lies in the store whole or not at all; whatever is changed, missing or strange about it is told."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path

import pytest

from adapters.model_store import MANIFEST, TWIN, ModelStore, Table, digests
from lifecycle.errors import ConfigError, UnavailableError
from lifecycle.manifest import Manifest, describe
from lifecycle.traffic import Routing
from tests.unit.test_twins import SPEC

pytestmark = pytest.mark.requirement("R2.3")
CONTENT = bytes(range(256)) * 4
SOURCES = {TWIN: CONTENT, "extra/deep.bin": b"deep"}


def made(version: str = "1", **sources: bytes) -> Manifest:
    return describe(SPEC, version, {"content": "c", "threshold": "0.5"}, "onnx", digests({**SOURCES, **sources}))


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    store = ModelStore(tmp_path / "serving")
    store.place(made(), SOURCES)
    return store


def test_a_placed_version_is_there_whole(store: ModelStore):
    manifest = store.manifest("m", "1")
    assert manifest == made()
    store.verify(manifest)
    assert store.read(manifest, TWIN) == CONTENT
    assert list((store.folder / "staging").iterdir()) == []


def test_placing_it_again_changes_nothing_and_mends_what_was_damaged(store: ModelStore):
    path = store.folder / "models" / "m" / "1" / TWIN
    before = path.stat().st_ino
    assert store.place(made(), SOURCES) == made().digest
    assert path.stat().st_ino == before
    path.write_bytes(b"damaged")
    store.place(made(), SOURCES)
    assert path.read_bytes() == CONTENT


def test_files_that_are_not_what_the_manifest_says_are_not_placed(store: ModelStore):
    with pytest.raises(ConfigError, match=r"twin\.onnx is not what was registered"):
        store.place(made("2"), {**SOURCES, TWIN: b"other"})
    with pytest.raises(ConfigError, match="no version 2 to serve"):
        store.manifest("m", "2")
    assert list((store.folder / "staging").iterdir()) == []


@pytest.mark.parametrize("place", range(0, len(CONTENT), 7))
def test_any_flipped_byte_is_noticed(store: ModelStore, place: int):
    path = store.folder / "models" / "m" / "1" / TWIN
    changed = bytearray(CONTENT)
    changed[place] ^= 1 << (place % 8)
    path.write_bytes(changed)
    with pytest.raises(ConfigError, match="not what was registered"):
        store.verify(store.manifest("m", "1"))


@pytest.mark.parametrize("name", [*SOURCES, MANIFEST])
def test_a_missing_or_half_copied_file_is_noticed(store: ModelStore, name: str):
    path = store.folder / "models" / "m" / "1" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ConfigError):
        store.verify(store.manifest("m", "1"))
    path.unlink()
    with pytest.raises(ConfigError):
        store.verify(store.manifest("m", "1"))


def test_a_file_nobody_registered_is_noticed(store: ModelStore):
    (store.folder / "models" / "m" / "1" / "hook.py").write_text("import os")
    with pytest.raises(ConfigError, match=r"hook\.py, which its manifest does not name"):
        store.verify(store.manifest("m", "1"))


def test_a_manifest_of_another_version_is_refused(store: ModelStore):
    path = store.folder / "models" / "m" / "1" / MANIFEST
    path.write_bytes(dataclasses.replace(made(), version="2").to_json())
    with pytest.raises(ConfigError, match="accepted: its own"):
        store.manifest("m", "1")


@pytest.mark.parametrize("name", ["..", "../m", "m/../../x", "/etc", "M", "", "m\0", "m" * 64, ".", "m.", "m "])
def test_a_name_that_is_no_models_touches_no_path(store: ModelStore, name: str):
    for call in (lambda: store.manifest(name, "1"), lambda: store.table(name), lambda: store.stamp(name)):
        with pytest.raises(ConfigError, match="accepted: lower-case letters"):
            call()


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_full_disk_leaves_nothing_half_written(store: ModelStore, monkeypatch: pytest.MonkeyPatch, call: str):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(*((os, "fsync") if call == "fsync" else (Path, "rename")), full)
        with pytest.raises(UnavailableError, match="No space left"):
            store.place(made("2"), SOURCES)
        if call == "fsync":
            with pytest.raises(UnavailableError, match="No space left"):
                store.write_table(Table(Routing("m", 1, "1"), {"1": "d"}))
    assert [path.name for path in (store.folder / "models" / "m").iterdir()] == ["1"]
    assert store.table("m") is None


def test_a_routing_table_is_written_whole_and_never_goes_back(store: ModelStore):
    newer, older = Table(Routing("m", 2, "1"), {"1": "d"}), Table(Routing("m", 1, "2"), {"2": "e"})
    store.write_table(newer)
    stamp = store.stamp("m")
    store.write_table(older)
    assert store.table("m") == newer
    assert store.stamp("m") == stamp
    assert store.models() == ["m"]


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"routing": {"model": "n", "generation": 1, "live": "1"}, "digests": {}}']
)
def test_a_table_that_is_none_is_refused(store: ModelStore, text: str):
    (store.folder / "routing").mkdir()
    (store.folder / "routing" / "m.json").write_text(text)
    with pytest.raises(ConfigError):
        store.table("m")
