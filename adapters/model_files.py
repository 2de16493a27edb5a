"""Model files and environments, read into typed values; an error names file, line, key and what is accepted."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lifecycle.errors import ConfigError
from lifecycle.redaction import redacted
from lifecycle.spec import Environment, ModelSpec

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "configs" / "models"
ENVIRONMENTS = ROOT / "configs" / "environments"
MAX_BYTES = 1_000_000
# What a version was judged by may not depend on where it runs: a laxer staging would promote what production rejects.
NOT_OVERRIDABLE = frozenset({"name", "evaluation", "features", "label", "sensitive", "sensitivity", "after_event"})

File = TypeVar("File", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class FileProblem:
    """One thing wrong in a file.

    Parameters
    ----------
    path
        The file, as people write it.
    line
        Line of the key (1-based), or of its nearest parent.
    key
        Dotted path of the key; empty for the file itself.
    message
        The rule, the value, and what is accepted; a secret that stands there by mistake is masked.
    """

    path: str
    line: int
    key: str
    message: str

    def __post_init__(self) -> None:
        """Mask secrets."""
        object.__setattr__(self, "message", redacted(self.message))

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.key + ': ' if self.key else ''}{self.message}"


class InvalidFileError(ConfigError):
    """A file with problems: all of them, not the first."""

    def __init__(self, problems: list[FileProblem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


def model_names(folder: Path = MODELS) -> list[str]:
    """Names of all models, one for each file."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def nearest(name: str, names: list[str]) -> str:
    """A hint for a mistyped name: the closest one, and all that exist."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}accepted: {', '.join(names) or 'none exist'}"


def load_model(name: str, environment: Environment | None = None, folder: Path = MODELS) -> ModelSpec:
    """Read one model file.

    Parameters
    ----------
    name
        Name of the model.
    environment
        Its `overrides` are laid over the file.
    folder
        Where model files lie.

    Raises
    ------
    ConfigError
        Unknown name (with the nearest one), or `InvalidFileError` with everything wrong in the file.
    """
    names = model_names(folder)
    if name not in names:
        raise ConfigError(f"unknown model {name!r}; {nearest(name, names)}")
    path = folder / f"{name}.yaml"
    spec = load_file(path, ModelSpec, environment.overrides if environment else {})
    if spec.name != path.stem:
        raise InvalidFileError(
            [FileProblem(shown(path), 1, "name", f"is {spec.name!r}; accepted: the file's own name, {path.stem!r}")]
        )
    return spec


def environment_names(folder: Path = ENVIRONMENTS) -> list[str]:
    """Names of all environments, one for each file."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_environment(name: str, folder: Path = ENVIRONMENTS) -> Environment:
    """Read one environment; ConfigError names the nearest one, or what may not differ between environments."""
    names = environment_names(folder)
    if name not in names:
        raise ConfigError(f"unknown environment {name!r}; {nearest(name, names)}")
    path = folder / f"{name}.yaml"
    environment = load_file(path, Environment, {})
    problems = [
        FileProblem(
            shown(path),
            1,
            f"overrides.{key}",
            f"may not differ between environments: {', '.join(sorted(NOT_OVERRIDABLE))}",
        )
        for key in environment.overrides
        if key.split(".")[0] in NOT_OVERRIDABLE
    ]
    if problems:
        raise InvalidFileError(problems)
    return environment


def check_models(folder: Path = MODELS) -> tuple[list[ModelSpec], list[FileProblem]]:
    """Read every model file; the good ones, and everything wrong in the others."""
    good: list[ModelSpec] = []
    problems: list[FileProblem] = []
    for name in model_names(folder):
        try:
            good.append(load_model(name, folder=folder))
        except InvalidFileError as error:
            problems += error.problems
    return good, problems


def load_file(path: Path, schema: type[File], overrides: dict[str, Any]) -> File:
    """Parse one YAML file (YAML 1.2, no tags, no duplicate keys) into its schema."""
    tree = _parse(path)
    for dotted, value in overrides.items():
        _lay_over(tree, dotted, value)
    try:
        return schema.model_validate(_plain(tree))
    except ValidationError as error:
        problems = [_problem(path, tree, schema, dict(entry)) for entry in error.errors(include_url=False)]
        raise InvalidFileError(problems) from None


def shown(path: Path) -> str:
    """Show the path from the project's root where it lies inside it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _parse(path: Path) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        if path.stat().st_size > MAX_BYTES:
            raise InvalidFileError([FileProblem(shown(path), 1, "", f"larger than {MAX_BYTES:,} bytes")])
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidFileError([FileProblem(shown(path), 1, "", f"not UTF-8: byte {error.start}")]) from None
    except OSError as error:
        raise ConfigError(f"{shown(path)}: cannot be read: {error.strerror}") from None
    try:
        tree = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise InvalidFileError([FileProblem(shown(path), line, "", f"not YAML: {error.problem}")]) from None
    except YAMLError as error:
        raise InvalidFileError([FileProblem(shown(path), 1, "", f"not YAML: {str(error).splitlines()[0]}")]) from None
    if not isinstance(tree, dict):
        raise InvalidFileError([FileProblem(shown(path), 1, "", "holds no keys; accepted: a mapping")])
    return tree


def _plain(node: Any) -> Any:
    """Round-trip nodes as plain Python values: pydantic tells exact types apart."""
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return str(node)


def _lay_over(tree: Any, dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for key in parents:
        tree = tree.setdefault(key, {})
    tree[last] = value


def _problem(path: Path, tree: Any, schema: type[BaseModel], entry: dict[str, Any]) -> FileProblem:
    location = [part for part in entry["loc"] if part not in ("numeric", "categorical")]
    key = ".".join(str(part) for part in location)
    message = str(entry["msg"]).removeprefix("Value error, ")
    if entry["type"] == "extra_forbidden":
        message = f"unknown key; {nearest(str(location[-1]), _keys_at(schema, location[:-1]))}"
    elif entry["type"] == "missing":
        message = "is missing; this key is required"
    elif entry["type"] != "value_error":
        message = f"is {_short(entry['input'])}; {message[:1].lower()}{message[1:]}"
    return FileProblem(shown(path), _line(tree, location), key, message)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _keys_at(schema: type[BaseModel], location: list[Any]) -> list[str]:
    """Return the keys accepted at a place of the schema, for hints."""
    node: Any = schema.model_json_schema()
    definitions = node.get("$defs", {})

    def options(node: Any) -> list[Any]:
        if "$ref" in node:
            return options(definitions[node["$ref"].rsplit("/", 1)[1]])
        choices = [choice for word in ("anyOf", "oneOf", "allOf") for choice in node.get(word, [])]
        return [found for choice in choices for found in options(choice)] if choices else [node]

    nodes = options(node)
    for part in location:
        below = [
            option["items"] if isinstance(part, int) else option.get("properties", {}).get(part)
            for option in nodes
            if isinstance(part, str) or "items" in option
        ]
        nodes = [found for child in below if child for found in options(child)]
    return sorted({key for option in nodes for key in option.get("properties", {})})


def _line(tree: Any, location: list[Any]) -> int:
    """Find the line of a key, or of its nearest parent that stands in the file."""
    line, node = 1, tree
    for part in location:
        try:
            position = node.lc.key(part) if isinstance(node, dict) else node.lc.item(part)
            line, node = position[0] + 1, node[part]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
    return line
