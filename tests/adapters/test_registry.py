"""The registry keeps a version with its evidence, and gives it back wherever TensorFlow is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from adapters.registry import Registry
from adapters.saved_model import score
from lifecycle.errors import ConfigError, UnavailableError

pytestmark = pytest.mark.requirement("R2.2", "R3.8")

EXAMPLE = pd.DataFrame({"x": [1.0, np.nan], "kind": ["a", None]})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel whose score is the logistic function of x."""
    import tensorflow as tf

    module = tf.Module()
    module.serve = tf.function(
        lambda x, kind: {
            "score": tf.sigmoid(x) + 0 * tf.cast(tf.strings.length(kind), x.dtype),
            "decision": tf.cast(x > 0, tf.int64),
        }
    )
    folder = tmp_path_factory.mktemp("saved") / "saved_model"
    signature = module.serve.get_concrete_function(
        x=tf.TensorSpec([None], tf.float64, name="x"), kind=tf.TensorSpec([None], tf.string, name="kind")
    )
    tf.saved_model.save(module, str(folder), signatures=signature)
    return folder


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")


def register(registry: Registry, model: str, saved: Path, content: str = "c0ffee", **tags: str):
    client = mlflow.MlflowClient(registry.url, registry.url)
    run = client.create_run(registry.ensure_experiment(model)).info.run_id
    told = {"content": content, "decision": "approved", **tags}
    registered = registry.register(model, run, saved, EXAMPLE, {"roc_auc": 0.7}, told)
    registry.attach(registered.run, {"card/card.md": "# m", "a.png": b"\x89"})
    return registered


def test_a_version_comes_with_signature_example_metrics_tags_and_files(registry: Registry, saved: Path, tmp_path: Path):
    version = register(registry, "whole", saved, snapshot="abc", long="x" * 6_000)
    assert (version.version, version.created) == ("1", True)
    client = mlflow.MlflowClient(registry.url, registry.url)
    assert client.get_run(version.run).data.metrics == {"roc_auc": 0.7}
    assert {"card", "a.png"} <= {file.path for file in client.list_artifacts(version.run)}
    registry.describe("whole", "1", "Probability of *x*.")
    assert client.get_model_version("whole", "1").description == "Probability of *x*."
    tags = registry.tags("whole", "1")
    assert (tags["snapshot"], len(tags["long"])) == ("abc", 5_000)
    mlflow.set_tracking_uri(registry.url)
    info = mlflow.models.get_model_info("models:/whole/1")
    assert [(column.name, column.type.name) for column in info.signature.inputs] == [
        ("x", "double"),
        ("kind", "string"),
    ]
    assert [column.name for column in info.signature.outputs] == ["score", "decision"]
    assert info.saved_input_example_info is not None
    found = registry.download("whole", "1", tmp_path)
    assert score(found, EXAMPLE.iloc[:1]).tolist() == score(saved, EXAMPLE.iloc[:1]).tolist()


def test_the_same_model_is_registered_once_and_judged_anew(registry: Registry, saved: Path):
    first = register(registry, "twice", saved)
    again = register(registry, "twice", saved, decision="rejected")
    other = register(registry, "twice", saved, content="f00d")
    assert (again.version, again.run, again.created) == (first.version, first.run, False)
    assert (other.version, other.created) == ("2", True)
    assert registry.tags("twice", "1")["decision"] == "rejected"
    found = registry.find("twice", "f00d")
    assert found is not None
    assert found.version == "2"
    assert registry.find("twice", "unheard of") is None
    assert registry.find("nobody", "c0ffee") is None


def test_a_version_loads_where_this_project_is_not(registry: Registry, saved: Path, tmp_path: Path):
    register(registry, "alone", saved)
    program = (
        "import mlflow, pandas as pd, sys\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "loaded = mlflow.pyfunc.load_model('models:/alone/1')\n"
        "print(loaded.predict(pd.DataFrame({'x': [0.0], 'kind': ['a']}))['score'][0])\n"
        "assert not [name for name in sys.modules if name.startswith(('adapters', 'lifecycle'))]\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ended = subprocess.run(
        [sys.executable, "-c", program, registry.url], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ended.stdout.split() == ["0.5"], ended.stderr[-2000:]


def aliases(registry: Registry) -> dict[str, str]:
    held = mlflow.MlflowClient(registry.url, registry.url).get_registered_model("parts").aliases
    return {alias: str(version) for alias, version in held.items()}


def test_aliases_follow_and_others_peoples_are_left_alone(registry: Registry, saved: Path):
    register(registry, "parts", saved)
    register(registry, "parts", saved, content="f00d")
    client = mlflow.MlflowClient(registry.url, registry.url)
    client.set_registered_model_alias("parts", "demo", "1")
    registry.mirror_aliases("parts", {"champion": "1", "challenger": "2", "previous": None})
    assert aliases(registry) == {"demo": "1", "champion": "1", "challenger": "2"}
    registry.mirror_aliases("parts", {"champion": "2", "challenger": None, "previous": "1"})
    assert aliases(registry) == {"demo": "1", "champion": "2", "previous": "1"}


def test_what_is_not_there_is_named(registry: Registry, saved: Path, tmp_path: Path):
    register(registry, "known", saved)
    with pytest.raises(ConfigError, match="known has no version '7'"):
        registry.tags("known", "7")
    with pytest.raises(UnavailableError, match="could not download the version"):
        registry.download("known", "7", tmp_path)
    with pytest.raises(UnavailableError, match="could not set the aliases"):
        registry.mirror_aliases("nobody", {"champion": "1"})


def test_two_who_set_the_same_alias_at_once_both_have_it(registry: Registry, saved: Path):
    register(registry, "raced", saved)
    ready = threading.Barrier(2)

    def point(number: int) -> None:
        ready.wait()
        registry.mirror_aliases("raced", {f"alias-{number}": "1"})

    with ThreadPoolExecutor(2) as pool:
        for number in range(20):
            assert list(pool.map(point, [number] * 2)) == [None, None]
    assert registry.aliases("raced") == {f"alias-{number}": "1" for number in range(20)}


def test_a_server_that_does_not_answer_is_told_as_such(saved: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = probe.getsockname()[1]
    with pytest.raises(UnavailableError, match="the model registry could not"):
        Registry(f"http://127.0.0.1:{closed}").ensure_experiment("m")


def test_a_version_is_registered_whatever_experiment_the_process_last_worked_in(
    registry: Registry, saved: Path, monkeypatch: pytest.MonkeyPatch
):
    from mlflow.tracking import fluent

    monkeypatch.setattr(fluent, "_active_experiment_id", "12345")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "12345")
    assert register(registry, "elsewhere", saved).version == "1"


def test_an_experiment_is_made_once_with_its_files_beside_the_database(registry: Registry):
    assert registry.ensure_experiment("places") == registry.ensure_experiment("places")
    place = mlflow.MlflowClient(registry.url, registry.url).get_experiment_by_name("places").artifact_location
    assert place == (Path(registry.url.removeprefix("sqlite:///")).parent / "artifacts" / "places").as_uri()
