"""A version that is damaged, half-copied or hostile never becomes live, and the one before it goes on answering (R4.1)."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import pickle
import random
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from adapters.model_store import MANIFEST, SAVED_MODEL, TWIN, ModelStore, Table, digests
from lifecycle.errors import ConfigError
from lifecycle.traffic import Routing
from serving.gateway import Gateway
from serving.versions import Models, load_version
from tests.serving.conftest import Opened, Place, manifest, twin

pytestmark = pytest.mark.requirement("R4.1")
OWN = "/models/churn/predict"
ROW = {"x": 1.0, "kind": "a"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def both(place: Place) -> Place:
    """Version 1 live, 2 a twin, 3 a SavedModel of which only the bytes matter: it is never run here."""
    rng = random.Random(1)
    sources = {
        f"{SAVED_MODEL}/saved_model.pb": rng.randbytes(5_000),
        f"{SAVED_MODEL}/fingerprint.pb": rng.randbytes(90),
        f"{SAVED_MODEL}/variables/variables.index": rng.randbytes(400),
        f"{SAVED_MODEL}/variables/variables.data-00000-of-00001": rng.randbytes(3_000),
    }
    place.digests["3"] = place.store.place(
        manifest("3", b"", backend="tensorflow", files=digests(sources)), dict(sources)
    )
    return place


def files_of(place: Place, version: str) -> list[Path]:
    return sorted(path for path in (place.folder / "models" / "churn" / version).rglob("*") if path.is_file())


def test_five_hundred_flipped_bytes_spread_over_a_versions_files_are_each_refused(both: Place):
    rng = random.Random(2)
    models = Models(both.store)
    models.refresh("churn")
    generation = 1
    files = [(version, path) for version in ("2", "3") for path in files_of(both, version)]
    assert {path.name for _, path in files} >= {MANIFEST, TWIN, "saved_model.pb", "variables.index"}
    refused: dict[str, int] = {}
    for number in range(500):
        version, path = files[number % len(files)]
        good = path.read_bytes()
        bad = bytearray(good)
        # Every first and last byte, and others anywhere; the new byte is any other.
        where = {0: 0, 1: len(good) - 1}.get(number // len(files), rng.randrange(len(good)))
        bad[where] ^= rng.randrange(1, 256)
        path.write_bytes(bad)
        with pytest.raises(ConfigError):
            load_version(both.store, "churn", version, both.digests[version])
        if number % 10 == 0:
            generation += 1
            both.store.write_table(
                Table(Routing("churn", generation, version, previous="1"), {one: both.digests[one] for one in "123"})
            )
            models.refresh("churn")
            assert models.problems["churn"]
            assert models.served["churn"].routing.live == "1"
        path.write_bytes(good)
        refused[path.name] = refused.get(path.name, 0) + 1
    assert sum(refused.values()) == 500
    assert min(refused.values()) >= 70
    assert load_version(both.store, "churn", "2", both.digests["2"]).manifest.version == "2"


@pytest.mark.parametrize("version", ["2", "3"])
def test_each_file_missing_cut_short_grown_or_another_is_refused(both: Place, version: str):
    for path in files_of(both, version):
        good = path.read_bytes()
        for bad in (None, b"", good[: len(good) // 2], good[:-1], good + b"\0", good[::-1]):
            path.unlink()
            if bad is not None:
                path.write_bytes(bad)
            with pytest.raises(ConfigError):
                load_version(both.store, "churn", version, both.digests[version])
            path.write_bytes(good)
        path.unlink()
        path.symlink_to("/etc/passwd")
        with pytest.raises(ConfigError):
            load_version(both.store, "churn", version, both.digests[version])
        path.unlink()
        path.write_bytes(good)
    both.store.verify(both.store.manifest("churn", version))


def test_a_version_that_is_still_being_copied_by_hand_is_refused_until_it_is_whole(both: Place, tmp_path: Path):
    whole = both.folder / "models" / "churn" / "2"
    elsewhere = Path(shutil.copytree(whole, tmp_path / "elsewhere"))
    shutil.rmtree(whole)
    whole.mkdir()
    for path in sorted(elsewhere.iterdir()):
        with pytest.raises(ConfigError):
            load_version(both.store, "churn", "2", both.digests["2"])
        content = path.read_bytes()
        (whole / path.name).write_bytes(content[: len(content) // 2])
        with pytest.raises(ConfigError):
            load_version(both.store, "churn", "2", both.digests["2"])
        (whole / path.name).write_bytes(content)
    assert load_version(both.store, "churn", "2", both.digests["2"]).manifest.version == "2"


def test_a_manifest_that_says_the_same_in_other_bytes_is_not_the_one_that_was_deployed(both: Place):
    path = both.folder / "models" / "churn" / "2" / MANIFEST
    path.write_bytes(path.read_bytes().replace(b"\n", b" "))
    with pytest.raises(ConfigError, match="not as it was written"):
        both.store.manifest("churn", "2")


@pytest.mark.parametrize("other", [{"threshold": "0.5"}, {"threshold": None}, {"model": 7}, {"version": ["1"]}])
def test_a_manifest_of_mistyped_values_is_an_answer(both: Place, other: dict[str, Any]):
    made = dataclasses.replace(both.store.manifest("churn", "2"), **other)
    (both.folder / "models" / "churn" / "2" / MANIFEST).write_bytes(made.to_json())
    with pytest.raises(ConfigError, match="not a manifest"):
        both.store.manifest("churn", "2")


# Models that are whole, and hostile: whoever could write the store's digests too.


class Touch:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.touch, (self.canary,)


def archive(kind: str, name: str) -> bytes:
    made = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(made, "w") as opened:
            opened.writestr(name, b"x")
    else:
        with tarfile.open(fileobj=made, mode=kind) as opened:
            opened.addfile(tarfile.TarInfo(name))
    return made.getvalue()


def graph(*nodes: onnx.NodeProto, **more: Any) -> bytes:
    made = helper.make_graph(
        list(nodes),
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None]),
            helper.make_tensor_value_info("kind", TensorProto.STRING, [None]),
        ],
        [helper.make_tensor_value_info("score", TensorProto.DOUBLE, [None])],
        **more,
    )
    domains = {"": 18, **{node.domain: 1 for node in nodes if node.domain}}
    model = helper.make_model(made, opset_imports=[helper.make_opsetid(*one) for one in domains.items()])
    model.ir_version = 8
    return bytes(model.SerializeToString())


def external(canary: Path, key: str = "location") -> bytes:
    weights = TensorProto(name="w", data_type=TensorProto.DOUBLE, dims=[1], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key=key, value=str(canary))
    return graph(helper.make_node("Add", ["x", "w"], ["score"]), initializer=[weights])


def hidden_external(canary: Path) -> bytes:
    value = TensorProto(name="w", data_type=TensorProto.DOUBLE, dims=[1], data_location=TensorProto.EXTERNAL)
    value.external_data.add(key="location", value="../../../../etc/passwd")
    constant = helper.make_node("Constant", [], ["w"])
    constant.attribute.append(onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR, t=value))
    return graph(constant, helper.make_node("Add", ["x", "w"], ["score"]))


def giant(canary: Path) -> bytes:
    size = helper.make_tensor("n", TensorProto.INT64, [1], [2**40])
    return graph(
        helper.make_node("ConstantOfShape", ["n"], ["many"]),
        helper.make_node("ReduceSum", ["many"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["worth"], to=TensorProto.DOUBLE),
        helper.make_node("Add", ["x", "worth"], ["score"]),
        initializer=[size],
    )


def claimed(canary: Path) -> bytes:
    weights = TensorProto(name="w", data_type=TensorProto.DOUBLE, dims=[2**31, 2**31])
    return graph(helper.make_node("Add", ["x", "w"], ["score"]), initializer=[weights])


def function(canary: Path) -> bytes:
    model = onnx.load_model_from_string(graph(helper.make_node("Twice", ["x"], ["score"], domain="mine")))
    inner = helper.make_node("Add", ["a", "a"], ["b"])
    model.functions.append(helper.make_function("mine", "Twice", ["a"], ["b"], [inner], [helper.make_opsetid("", 18)]))
    return bytes(model.SerializeToString())


HOSTILE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "pickle": (lambda canary: pickle.dumps(Touch(canary)), "but a pickle, which runs code"),
    "old pickle": (lambda canary: pickle.dumps(Touch(canary), 0), "not an ONNX model"),
    "pickle by hand": (lambda canary: f"cposix\nsystem\n(S'touch {canary}'\ntR.".encode(), "but a pickle"),
    "zip that climbs out": (lambda canary: archive("zip", f"../../{canary.name}"), "but a zip archive"),
    "zip of an absolute path": (lambda canary: archive("zip", str(canary)), "but a zip archive"),
    "tar": (lambda canary: archive("w", str(canary)), "but a tar archive"),
    "gzipped tar": (lambda canary: archive("w:gz", str(canary)), "but a gzip archive"),
    "Keras archive": (lambda canary: archive("zip", "config.json"), r"as \.keras"),
    "HDF5": (lambda canary: b"\x89HDF\r\n\x1a\n" + bytes(64), "but an HDF5 file"),
    "script": (lambda canary: f"#!/bin/sh\ntouch {canary}\n".encode(), "but a script"),
    "program": (lambda canary: b"\x7fELF" + bytes(64), "but a program"),
    "nothing": (lambda canary: b"", "not an ONNX model"),
    "random bytes": (lambda canary: random.Random(3).randbytes(4_000), "not an ONNX model"),
    "cut short": (lambda canary: twin()[:-9], "not an ONNX model"),
    "data in a file": (external, "files beside it"),
    "data in a file, hidden": (hidden_external, "files beside it"),
    "custom operation": (
        lambda canary: graph(helper.make_node("Run", ["x"], ["score"], domain="evil", command=f"touch {canary}")),
        "not an ONNX model: No|evil:Run",
    ),
    "Python operation": (
        lambda canary: graph(helper.make_node("PyOp", ["x"], ["score"], domain="ai.onnx.contrib")),
        "PyOp|not an ONNX model",
    ),
    "function of its own": (function, "functions of its own"),
    "giant tensor": (giant, "the shape"),
    "giant claim": (claimed, "not an ONNX model|the shape"),
    "answers no probability": (
        lambda canary: graph(helper.make_node("Identity", ["x"], ["score"])),
        "accepted: a score",
    ),
    "fails when asked": (
        lambda canary: graph(
            helper.make_node("Reshape", ["x", "n"], ["score"]),
            initializer=[helper.make_tensor("n", TensorProto.INT64, [2], [7, 7])],
        ),
        "does not answer|accepted: a score",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_is_refused_with_its_reason_and_nothing_of_it_runs(place: Place, tmp_path: Path, name: str):
    make, reason = HOSTILE[name]
    canary = tmp_path / "canary"
    place.add("3", content=make(canary))
    models = Models(place.store)
    models.refresh("churn")
    place.route(live="3", previous="1")
    models.refresh("churn")
    assert models.served["churn"].routing.live == "1"
    with pytest.raises(ConfigError, match=reason):
        load_version(ModelStore(place.folder), "churn", "3", place.digests["3"])
    assert not canary.exists()


async def followed(gateway: Gateway, told: Callable[[], bool]) -> None:
    for _ in range(200):
        if told():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(gateway.state())


@pytest.mark.anyio
async def test_the_gateway_answers_on_through_damaged_missing_and_hostile_versions_and_then_follows_a_good_one(
    opened: Opened, both: Place, tmp_path: Path
):
    canary = tmp_path / "canary"
    both.add("4", content=pickle.dumps(Touch(canary)))
    both.add("5", content=twin(1.0)[:-5])
    (both.folder / "models" / "churn" / "3" / SAVED_MODEL / "saved_model.pb").unlink()
    async with opened() as (gateway, client):
        for version in ("3", "4", "5"):
            before = gateway.models.problems.get("churn")
            both.route(live=version, previous="1")
            await followed(gateway, lambda before=before: gateway.models.problems.get("churn") not in (None, before))
            told = await client.post(OWN, json={"rows": [ROW]})
            assert told.json()["predictions"][0]["version"] == "1"
            assert (await client.get("/v2/health/ready")).status_code == 503
        generation = both.route(live="2", previous="1").generation
        await followed(gateway, lambda: gateway.models.served["churn"].routing.generation == generation)
        assert (await client.post(OWN, json={"rows": [ROW]})).json()["predictions"][0]["version"] == "2"
        assert (await client.get("/v2/health/ready")).status_code == 200
    assert not canary.exists()
