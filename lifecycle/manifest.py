"""What a gateway has to know of a version to serve it: inputs, threshold, files with their digests (R2.3)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal, Self

from lifecycle.errors import ConfigError
from lifecycle.spec import ModelSpec, NumericFeature

MODEL_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
VERSION_NAME = re.compile(r"[1-9][0-9]{0,8}")
FORMAT = 1


@dataclass(frozen=True, slots=True)
class InputFeature:
    """One raw feature of a request.

    Parameters
    ----------
    name
        As the model file has it.
    kind
        A number or a text.
    low, high
        Smallest and largest value that can be true; None where the file does not say. Told to clients, not enforced:
        a value outside is for monitoring to find.
    values
        Values the model file lists; empty when open.
    meaning
        In words, with the unit.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    low: float | None
    high: float | None
    values: tuple[str, ...]
    meaning: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A version made ready to serve.

    Parameters
    ----------
    model, version
        Which.
    content
        What the version is known by, wherever it lies: `TrainedModel.content`.
    backend
        ``onnx``: its twin, proved equal at registration; ``tensorflow``: the SavedModel itself.
    threshold
        Score from which a row is decided positive, 0 to 1.
    features
        Inputs in the model file's order.
    entity_key
        Optional key of a row that says whom it is about.
    description, meaning
        What the model predicts, and its positive class, in words.
    late_after
        Seconds after a prediction from which its outcome counts as late.
    files
        Path below the version's folder: sha256 in hex.
    """

    model: str
    version: str
    content: str
    backend: Literal["onnx", "tensorflow"]
    threshold: float
    features: tuple[InputFeature, ...]
    entity_key: str
    description: str
    meaning: str
    late_after: float
    files: dict[str, str]

    def to_json(self) -> bytes:
        """Canonical JSON: the same manifest has the same bytes."""
        return json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True, ensure_ascii=False, indent=1).encode()

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON, in hex: names this version's files and all that is said of them."""
        return hashlib.sha256(self.to_json()).hexdigest()

    @property
    def substance(self) -> str:
        """sha256, in hex, of all that decides an answer; what the version is said to be in words does not count.

        It is what people approve: another text on the page asks nobody again, another byte of the model does.
        """
        inputs = [(feature.name, feature.kind) for feature in self.features]
        decides = [self.model, self.version, self.content, self.backend, self.threshold, inputs, self.files]
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Inverse of `to_json`; ConfigError for anything else."""
        try:
            values = json.loads(text)
            if values.pop("format") != FORMAT:
                raise ConfigError(f"manifest of another format; accepted: {FORMAT}")
            values["features"] = tuple(
                InputFeature(**{**one, "values": tuple(one["values"])}) for one in values["features"]
            )
            made = cls(**values)
            check_names(made.model, made.version)
            sensible = 0 <= made.threshold <= 1  # NaN is not
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(f"not a manifest: {type(error).__name__}: {str(error)[:200]}") from None
        if not sensible:
            raise ConfigError(f"manifest of {made.model}: threshold {made.threshold}; accepted: 0 to 1")
        return made


def check_names(model: str, version: str | None = None) -> None:
    """Refuse a name that is no model's or version's, before it becomes part of a path.

    Raises
    ------
    ConfigError
        With what is accepted.
    """
    if not MODEL_NAME.fullmatch(model):
        raise ConfigError(f"model {model[:80]!r}; accepted: lower-case letters, digits and _, a letter first")
    if version is not None and not VERSION_NAME.fullmatch(version):
        raise ConfigError(f"version {version[:80]!r}; accepted: a whole number from 1")


def describe(
    spec: ModelSpec,
    version: str,
    tags: Mapping[str, str],
    backend: Literal["onnx", "tensorflow"],
    files: dict[str, str],
) -> Manifest:
    """Draw a manifest from the model file and what is registered with the version.

    Parameters
    ----------
    spec
        The model file.
    version
        Its number in the registry.
    tags
        The version's tags there; ``content`` and ``threshold`` are read.
    backend, files
        As in `Manifest`.

    Raises
    ------
    ConfigError
        A tag is missing.
    """
    missing = [name for name in ("content", "threshold") if name not in tags]
    if missing:
        raise ConfigError(
            f"{spec.name} version {version} has no tag {', '.join(missing)}; accepted: one that train made"
        )
    inputs = tuple(
        InputFeature(
            feature.name,
            "numeric",
            feature.min,
            feature.max,
            (),
            feature.meaning + (f" [{feature.unit}]" if feature.unit else ""),
        )
        if isinstance(feature, NumericFeature)
        else InputFeature(feature.name, "categorical", None, None, tuple(feature.values or ()), feature.meaning)
        for feature in spec.features
    )
    return Manifest(
        model=spec.name,
        version=version,
        content=tags["content"],
        backend=backend,
        threshold=float(tags["threshold"]),
        features=inputs,
        entity_key=spec.source.entity_key,
        description=spec.description,
        meaning=spec.label.meaning,
        late_after=_seconds(spec),
        files=files,
    )


def _seconds(spec: ModelSpec) -> float:
    """Label delay and one monitoring window: after it, the window the prediction belonged to has been judged."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return (spec.monitoring.window.after(spec.label.delay.after(start)) - start).total_seconds()
