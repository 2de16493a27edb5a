"""A SavedModel is accepted for arithmetic and look-ups alone; a hostile one is refused by name, and nothing of it runs."""

from __future__ import annotations

import io
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.fitting import export, fit
from adapters.saved_model import tensorflow
from adapters.saved_model_check import refuse_hostile_saved_model
from lifecycle.errors import ConfigError
from tests.adapters.small_training import found, rows, spec

pytestmark = pytest.mark.requirement("R2.3", "R5.7")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "saved_model"
    export(fit(rows(), np.arange(480), spec(), found(threshold=0.55), 1), folder)
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "saved_model"))


def saved(folder: Path, body: Callable[[Any], Any]) -> None:
    """A SavedModel whose signature runs `body` on its way."""
    tf = tensorflow()
    module = tf.Module()

    def serve(x):
        return {"score": tf.sigmoid(x + tf.cast(body(x), tf.float64))}

    module.serve = tf.function(serve, input_signature=[tf.TensorSpec([None], tf.float64, name="x")])
    shutil.rmtree(folder, ignore_errors=True)
    tf.saved_model.save(module, str(folder), signatures=module.serve)


def writes(folder: Path, canary: Path) -> None:
    def body(x: Any) -> Any:
        tf = tensorflow()
        with tf.control_dependencies([tf.io.write_file(str(canary), "written")]):
            return tf.identity(0.0)

    saved(folder, body)


def reads(folder: Path, canary: Path) -> None:
    saved(folder, lambda x: tensorflow().strings.length(tensorflow().io.read_file("/etc/passwd")))


def runs_python(folder: Path, canary: Path) -> None:
    saved(folder, lambda x: tensorflow().numpy_function(lambda: canary.touch() or 0.0, [], tensorflow().float64))


def prints(folder: Path, canary: Path) -> None:
    def body(x: Any) -> Any:
        tf = tensorflow()
        tf.print("said", output_stream=f"file://{canary}")
        return 0.0

    saved(folder, body)


def loops(folder: Path, canary: Path) -> None:
    tf = tensorflow()
    saved(folder, lambda x: tf.while_loop(lambda i: i >= 0, lambda i: (i,), (tf.constant(0),))[0])


def vocabulary(folder: Path, canary: Path) -> None:
    tf = tensorflow()
    words = folder.parent / "words.txt"
    words.write_text("a\nb\n")
    table = tf.lookup.StaticVocabularyTable(
        tf.lookup.TextFileInitializer(
            str(words), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
        ),
        1,
    )
    tf_module = tf.Module()
    tf_module.table = table
    tf_module.serve = tf.function(
        lambda x: {"score": tf.cast(table.lookup(tf.as_string(x)), tf.float64)},
        input_signature=[tf.TensorSpec([None], tf.float64, name="x")],
    )
    shutil.rmtree(folder)
    tf.saved_model.save(tf_module, str(folder), signatures=tf_module.serve)
    shutil.rmtree(folder / "assets")


class Touch:
    """A pickle that writes the canary when it is read."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.touch, (self.canary,)


def tar_of(name: str, content: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def zip_of(name: str, content: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(name, content)
    return made.getvalue()


def in_place_of_the_model(make: Callable[[Path], bytes]) -> Callable[[Path, Path], None]:
    return lambda folder, canary: (folder / "saved_model.pb").write_bytes(make(canary)) and None


def beside(name: str, make: Callable[[Path], bytes]) -> Callable[[Path, Path], None]:
    def hostile(folder: Path, canary: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(make(canary))

    return hostile


def changed(change: Callable[[Any], None]) -> Callable[[Path, Path], None]:
    """The exported model with a change to its graph."""

    def hostile(folder: Path, canary: Path) -> None:
        tensorflow()
        from tensorflow.core.protobuf import saved_model_pb2

        model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        change(model.meta_graphs[0])
        (folder / "saved_model.pb").write_bytes(model.SerializeToString())

    return hostile


def giant(meta: Any) -> None:
    node = next(one for one in meta.graph_def.node if one.op == "Const")
    del node.attr["value"].tensor.tensor_shape.dim[:]
    node.attr["value"].tensor.tensor_shape.dim.add(size=2**40)


def giant_variable(meta: Any) -> None:
    node = next(one for one in meta.graph_def.node if one.op == "VarHandleOp")
    node.attr["shape"].shape.dim.add(size=2**40)


def custom(meta: Any) -> None:
    meta.graph_def.node.add(name="c", op="RunCommand")


def saves_when_asked(meta: Any) -> None:
    meta.signature_def["serving_default"].inputs["x"].name = meta.saver_def.filename_tensor_name
    meta.signature_def["serving_default"].outputs["score"].name = meta.saver_def.save_tensor_name


def saves_when_loaded(meta: Any) -> None:
    meta.graph_def.node.add(name="again", op="NoOp").input.append(f"^{meta.saver_def.save_tensor_name.split(':')[0]}")
    meta.collection_def["saved_model_main_op"].node_list.value[:] = ["again"]


def traced_save(meta: Any) -> str:
    return next(one.signature.name for one in meta.graph_def.library.function if "traced_save" in one.signature.name)


def calls_the_saver(meta: Any) -> None:
    function = next(one for one in meta.graph_def.library.function if "serve" in one.signature.name)
    function.node_def.add(name="s", op="StatefulPartitionedCall").attr["f"].func.name = traced_save(meta)


def calls_the_saver_from_the_graph(meta: Any) -> None:
    meta.graph_def.node.add(name="s", op="StatefulPartitionedCall").attr["f"].func.name = traced_save(meta)


def offers_the_saver(meta: Any) -> None:
    meta.object_graph_def.nodes[3].function.concrete_functions[:] = [traced_save(meta)]


def saves_in_the_graph(meta: Any) -> None:
    meta.graph_def.node.add(name="s", op="SaveV2")


def is_keras(meta: Any) -> None:
    meta.object_graph_def.nodes[0].user_object.identifier = "_tf_keras_layer"


def linked(folder: Path, canary: Path) -> None:
    (folder / "variables" / "variables.data-00000-of-00002").symlink_to("/etc/passwd")


HOSTILE: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "writes a file": (writes, "holds WriteFile"),
    "reads a file": (reads, "ReadFile"),
    "calls Python": (runs_python, "PyFunc"),
    "prints to a file": (prints, "PrintV2"),
    "loops for ever": (loops, "While"),
    "reads a vocabulary": (vocabulary, "InitializeTableFromTextFileV2|TableFromTextFile"),
    "custom operation": (changed(custom), "holds RunCommand"),
    "giant tensor": (changed(giant), "1,099,511,627,776 elements"),
    "giant variable": (changed(giant_variable), "elements"),
    "signature that saves": (changed(saves_when_asked), "keeps files from serving_default"),
    "saves when it is loaded": (changed(saves_when_loaded), "keeps files from saved_model_main_op"),
    "function that saves": (changed(calls_the_saver), "keeps files from"),
    "node that saves": (changed(calls_the_saver_from_the_graph), "keeps files from s;"),
    "offers its saver": (changed(offers_the_saver), "keeps files from __inference__traced_save"),
    "saves in the graph itself": (changed(saves_in_the_graph), "holds SaveV2"),
    "Keras object": (changed(is_keras), "Python object '_tf_keras_layer'"),
    "no graph": (in_place_of_the_model(lambda _: b""), "holds no graph"),
    "pickle": (in_place_of_the_model(lambda canary: pickle.dumps(Touch(canary))), "is a pickle"),
    "old pickle": (in_place_of_the_model(lambda canary: pickle.dumps(Touch(canary), 0)), "is a pickle|no SavedModel"),
    "zip that climbs out": (in_place_of_the_model(lambda c: zip_of(f"../../{c.name}", b"x")), "is a zip archive"),
    "tar that climbs out": (in_place_of_the_model(lambda c: tar_of(str(c), b"x")), "is a tar archive"),
    "HDF5": (in_place_of_the_model(lambda _: b"\x89HDF\r\n\x1a\n" + bytes(100)), "is an HDF5 file"),
    "random bytes": (in_place_of_the_model(lambda _: bytes(range(255, 0, -1))), "no SavedModel"),
    "pickle beside it": (beside("model.pkl", lambda canary: pickle.dumps(Touch(canary))), r"model\.pkl, a pickle"),
    "Keras archive beside it": (beside("model.keras", lambda c: zip_of("config.json", b"{}")), r"model\.keras, a zip"),
    "HDF5 beside it": (beside("model.h5", lambda _: b"\x89HDF\r\n\x1a\n"), r"model\.h5, an HDF5 file"),
    "Keras metadata": (beside("keras_metadata.pb", lambda _: b"\x0a\x04code"), r"holds keras_metadata\.pb"),
    "assets": (beside("assets/words.txt", lambda _: b"a\n"), r"holds assets/words\.txt"),
    "requests it answers when loaded": (beside("assets.extra/tf_serving_warmup_requests", lambda _: b"x"), r"assets\.extra"),
    "program": (beside("variables/hook.so", lambda _: b"\x7fELF"), r"variables/hook\.so, a program"),
    "text in place of the graph": (beside("saved_model.pbtxt", lambda _: b"{}"), r"holds saved_model\.pbtxt"),
    "link": (linked, "a link to elsewhere"),
}  # fmt: skip


def test_what_training_exports_is_accepted(exported: Path):
    refuse_hostile_saved_model(exported)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_is_refused_with_its_reason_and_nothing_of_it_runs(folder: Path, tmp_path: Path, name: str):
    make, reason = HOSTILE[name]
    canary = tmp_path / "canary"
    make(folder, canary)
    with pytest.raises(ConfigError, match=reason):
        refuse_hostile_saved_model(folder)
    assert not canary.exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_model_cut_short_is_refused(folder: Path, share: float):
    path = folder / "saved_model.pb"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ConfigError, match=r"cut short|holds no graph"):
        refuse_hostile_saved_model(folder)


def test_a_folder_without_a_model_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"saved_model\.pb cannot be read"):
        refuse_hostile_saved_model(tmp_path)
