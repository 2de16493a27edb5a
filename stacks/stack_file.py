"""Stack files: typed, closed, with secrets and places taken from the environment (RO.3, RO.4, RA.2)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from adapters.model_files import load_file, nearest, shown
from lifecycle.errors import ConfigError
from lifecycle.spec import Name, Section

FOLDER = Path(__file__).resolve().parent
_PLACEHOLDER = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")

ServiceName = Literal["PRODECKS_SOURCE_URL", "PRODECKS_OPS_URL", "PRODECKS_TUNING_URL", "PRODECKS_REGISTRY_URL"]


class Component(Section):
    """One ZenML stack component."""

    flavor: str = Field(min_length=1, description="ZenML flavor.")
    configuration: dict[str, str] = Field(default_factory=dict, description="Its settings; ${VARIABLE} from outside.")


class StackFile(Section):
    """Where pipelines run."""

    name: Name = Field(description="Equal to the file's name without .yaml.")
    environment: Name = Field(description="Environment whose differences apply: configs/environments/NAME.yaml.")
    components: dict[
        Literal["orchestrator", "artifact_store", "experiment_tracker", "model_registry"],
        Annotated[Component, Field()],
    ] = Field(description="ZenML stack components by type.")
    services: dict[ServiceName, str] = Field(description="Addresses that steps read from their environment.")


def stack_names(folder: Path = FOLDER) -> list[str]:
    """Names of all stack files."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_stack(name: str, folder: Path = FOLDER) -> StackFile:
    """Read a stack file with its placeholders filled.

    Raises
    ------
    ConfigError
        Unknown stack (with the nearest name), anything wrong in the file, or a variable that is not set.
    """
    names = stack_names(folder)
    if name not in names:
        raise ConfigError(f"unknown stack {name!r}; {nearest(name, names)}")
    path = folder / f"{name}.yaml"
    stack = load_file(path, StackFile, {})
    if stack.name != name:
        raise ConfigError(f"{shown(path)}: name is {stack.name!r}; accepted: the file's own name, {name!r}")
    missing = {"orchestrator", "artifact_store"} - set(stack.components)
    if missing:
        raise ConfigError(f"{shown(path)}: components lacks {', '.join(sorted(missing))}; both are required")

    def fill(text: str, key: str) -> str:
        unset = [variable for variable in _PLACEHOLDER.findall(text) if variable not in os.environ]
        if unset:
            raise ConfigError(
                f"{shown(path)}: {key} needs the environment variable {', '.join(unset)}, which is not set"
            )
        return _PLACEHOLDER.sub(lambda match: os.environ[match[1]], text)

    return stack.model_copy(
        update={
            "components": {
                kind: component.model_copy(
                    update={
                        "configuration": {
                            key: fill(value, f"components.{kind}.{key}")
                            for key, value in component.configuration.items()
                        }
                    }
                )
                for kind, component in stack.components.items()
            },
            "services": {key: fill(value, f"services.{key}") for key, value in stack.services.items()},
        }
    )
