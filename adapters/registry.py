"""MLflow: runs, registered versions with their evidence, aliases that mirror what was decided (R2.2, R3.8)."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lifecycle.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient


TWIN = "serving/twin.onnx"
"""Where the run that made a version keeps its ONNX twin."""
REFERENCE = "monitoring/reference.parquet"
"""Likewise its hold-out with scores and labels, which its traffic is held against."""
LOADER = Path(__file__).with_name("saved_model.py")


@dataclass(frozen=True, slots=True)
class Registered:
    """A registered version.

    Parameters
    ----------
    version
        Its number in the registry, as text.
    run
        MLflow run that made it.
    created
        False when this very model had been registered before.
    """

    version: str
    run: str
    created: bool


class Registry:
    """MLflow's tracking server and model registry behind one address.

    Parameters
    ----------
    url
        Tracking and registry URI: ``sqlite:///file`` or ``http(s)://...``.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def ensure_experiment(self, name: str) -> str:
        """Make the experiment once, its artifacts beside a local database instead of the current folder; its id."""
        from mlflow.exceptions import MlflowException

        with self._errors("make the experiment"):
            client = self._client()
            existing = client.get_experiment_by_name(name)
            if existing is not None:
                return str(existing.experiment_id)
            location = None
            if self.url.startswith("sqlite:///"):
                location = (Path(self.url.removeprefix("sqlite:///")).parent / "artifacts" / name).resolve().as_uri()
            try:
                return str(client.create_experiment(name, artifact_location=location))
            except MlflowException:  # another process was quicker
                existing = client.get_experiment_by_name(name)
                if existing is None:
                    raise
                return str(existing.experiment_id)

    def find(self, model: str, content: str) -> Registered | None:
        """Look for a version registered earlier with the same content."""
        with self._errors("search versions"):
            for version in self._client().search_model_versions(f"name = '{model}' and tags.content = '{content}'"):
                return Registered(str(version.version), str(version.run_id), created=False)
        return None

    def register(
        self,
        model: str,
        run: str,
        folder: Path,
        example: pd.DataFrame,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
    ) -> Registered:
        """Log a model with its measures on its run and register it as a new version.

        Parameters
        ----------
        model
            Registered model's name.
        run
            MLflow run that trained it.
        folder
            SavedModel folder.
        example
            A few raw feature rows: input example and, with the model's outputs, the signature.
        metrics
            Finite measures.
        tags
            What it was made from and how it was judged; ``content`` identifies the model.

        Returns
        -------
        Registered
            The version; the one that exists when the same content had been registered before.
        """
        existing = self.find(model, tags["content"])
        if existing is not None:
            self.tag(model, existing.version, tags)
            return existing
        import mlflow
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, DataType, Schema

        signature = ModelSignature(
            inputs=Schema(
                [
                    ColSpec(
                        DataType.double if example[name].dtype.kind == "f" else DataType.string, name, required=False
                    )
                    for name in example.columns
                ]
            ),
            outputs=Schema([ColSpec(DataType.double, "score"), ColSpec(DataType.long, "decision")]),
        )
        with self._errors("register the version"), _quiet():
            client = self._client()
            mlflow.set_tracking_uri(self.url)
            mlflow.set_registry_uri(self.url)
            # Whatever experiment this process last worked in, MLflow only continues a run of the active one.
            mlflow.set_experiment(experiment_id=client.get_run(run).info.experiment_id)
            with mlflow.start_run(run_id=run):
                mlflow.log_metrics(dict(metrics))
                mlflow.set_tags({key: value[:5000] for key, value in tags.items()})
                info = mlflow.pyfunc.log_model(
                    name=model,
                    # The loader travels with the version: it loads wherever TensorFlow is, without this project.
                    loader_module=LOADER.stem,
                    data_path=str(folder),
                    code_paths=[str(LOADER)],
                    signature=signature,
                    input_example=example,
                    pip_requirements=["tensorflow", "numpy", "pandas"],
                )
            self._ensure_model(client, model)
            version = client.create_model_version(
                model, info.model_uri, run_id=run, tags={key: value[:5000] for key, value in tags.items()}
            )
            return Registered(str(version.version), run, created=True)

    def attach(self, run: str, files: Mapping[str, str | bytes]) -> None:
        """Keep files with a run, in place of those of the same path: card, figures, plots."""
        with self._errors("keep the version's files"), _quiet():
            client = self._client()
            for path, content in files.items():
                _log_file(client, run, path, content)

    def describe(self, model: str, version: str, text: str) -> None:
        """Set what the registry's page says of a version, in Markdown."""
        with self._errors("describe the version"):
            self._client().update_model_version(model, version, text[:5000])

    def tag(self, model: str, version: str, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        with self._errors("tag the version"):
            client = self._client()
            for key, value in tags.items():
                client.set_model_version_tag(model, version, key, value[:5000])

    def mirror_aliases(self, model: str, aliases: Mapping[str, str | None]) -> None:
        """Point these aliases at these versions, None at nothing; other aliases are left alone."""
        with self._errors("set the aliases"):
            client = self._client()
            held = {alias: str(version) for alias, version in client.get_registered_model(model).aliases.items()}
            for alias, version in aliases.items():
                if version is None and alias in held:
                    client.delete_registered_model_alias(model, alias)
                elif version is not None and held.get(alias) != version:
                    self._point(client, model, alias, version)

    def _point(self, client: MlflowClient, model: str, alias: str, version: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            client.set_registered_model_alias(model, alias, version)
        except MlflowException:
            # Two that make the same alias at once: one of them is refused, by the database's words.
            if str(client.get_registered_model(model).aliases.get(alias)) != version:
                raise

    def aliases(self, model: str) -> dict[str, str]:
        """Version of each alias of a model."""
        with self._errors("read the aliases"):
            held = self._client().get_registered_model(model).aliases
            return {alias: str(version) for alias, version in held.items()}

    def tags(self, model: str, version: str) -> dict[str, str]:
        """Return the tags of a version; ConfigError when there is no such version."""
        from mlflow.exceptions import MlflowException

        with self._errors("read the version"):
            try:
                return dict(self._client().get_model_version(model, version).tags)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    raise ConfigError(f"{model} has no version {version!r} in the registry") from None
                raise

    def download(self, model: str, version: str, destination: Path) -> Path:
        """Copy a version's SavedModel to a folder; the folder that holds ``saved_model.pb``."""
        import mlflow

        with self._errors("download the version"), _quiet():
            mlflow.set_tracking_uri(self.url)
            mlflow.set_registry_uri(self.url)
            copied = mlflow.artifacts.download_artifacts(f"models:/{model}/{version}", dst_path=str(destination))
        found = sorted(Path(copied).rglob("saved_model.pb"))
        if len(found) != 1:
            raise UnavailableError(
                f"{model} version {version} holds {len(found)} SavedModels in the registry; accepted: 1"
            )
        return found[0].parent

    def twin(self, model: str, version: str, destination: Path) -> Path | None:
        """Copy a version's ONNX twin to a folder; None when it has none.

        Raises
        ------
        ConfigError
            No such version.
        UnavailableError
            The registry does not answer.
        """
        return self.attached(model, version, TWIN, destination)

    def attached(self, model: str, version: str, path: str, destination: Path) -> Path | None:
        """Copy a file that was kept with a version (`attach`) to a folder; None when there is none. Errors as in `twin`."""
        self.tags(model, version)  # refuses a version that is not there
        with self._errors(f"download the version's {path}"), _quiet():
            client = self._client()
            run = client.get_model_version(model, version).run_id
            folder, _, name = path.rpartition("/")
            if name not in {Path(one.path).name for one in client.list_artifacts(run, folder)}:
                return None
            return Path(client.download_artifacts(run, path, str(destination)))

    def _ensure_model(self, client: MlflowClient, model: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _client(self) -> MlflowClient:
        import mlflow

        _quiet_loggers()
        return mlflow.MlflowClient(tracking_uri=self.url, registry_uri=self.url)

    @contextlib.contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException
        from sqlalchemy.exc import SQLAlchemyError

        # An http address answers for itself or times out soon, instead of MLflow's default of minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        try:
            yield
        except (MlflowException, RequestException, SQLAlchemyError, OSError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0][:300]
            raise UnavailableError(f"the model registry could not {doing}: {first}") from error


def _log_file(client: MlflowClient, run: str, path: str, content: str | bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / Path(path).name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        parent = str(Path(path).parent)
        client.log_artifact(run, str(file), artifact_path=None if parent == "." else parent)


def _quiet_loggers() -> None:
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow's notes about types and requirements off the operator's terminal."""
    _quiet_loggers()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
