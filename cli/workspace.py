"""Set-up on first use: folders, quiet libraries, stack, sample database; nothing outside the var folder is written."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adapters.model_files import ROOT, load_environment
from adapters.services import SOURCE, VAR, Services, var_folder
from lifecycle.errors import BusyError, ConfigError, UnavailableError
from lifecycle.spec import Environment
from stacks.stack_file import StackFile, load_stack

SETUP_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Workspace:
    """A place to run pipelines in.

    Parameters
    ----------
    stack
        The stack file in force.
    environment
        The environment that is played: the one it names, or another that was asked for.
    services
        Addresses of the outside world.
    """

    stack: StackFile
    environment: Environment
    services: Services

    @classmethod
    def open(cls, stack_name: str, environment_name: str | None = None) -> Workspace:
        """Prepare the process for a stack; idempotent.

        Parameters
        ----------
        stack_name
            Where pipelines run.
        environment_name
            Which environment to play there; None for the stack's own.

        Raises
        ------
        ConfigError
            Unknown stack or environment, or a file or variable that is wrong.
        UnavailableError
            The var folder cannot be written.
        """
        var = var_folder()
        os.environ[VAR] = str(var)
        _isolate(var)
        stack = load_stack(stack_name)
        environment = load_environment(environment_name or stack.environment)
        for name, address in stack.services.items():
            os.environ.setdefault(name, address)
        try:
            for folder in ("artifacts", "mlflow/artifacts", "cache", "zenml"):
                (var / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnavailableError(
                f"{var} cannot be written: {error.strerror}; set {VAR} to a folder that can"
            ) from None
        return cls(stack, environment, Services.from_environment())

    def gateway(self, given: str | None) -> str:
        """Address of the gateway: the one given, or the environment's on this machine; ConfigError when it is none."""
        if given is not None and not given.startswith(("http://", "https://")):
            raise ConfigError(f"--gateway {given!r}; accepted: an http or https address")
        return given or f"http://127.0.0.1:{self.environment.port}"

    def ensure_sample_database(self) -> None:
        """Make the embedded sample database where the stack points at it; another source is left alone."""
        path = var_folder() / "source.duckdb"
        if os.environ[SOURCE] == f"duckdb:///{path}":
            from adapters.sample_database import ensure_sample_database

            ensure_sample_database(path, ROOT / "data")

    def apply_stack(self) -> list[str]:
        """Make ZenML agree with the stack file; what changed, in words."""
        from zenml.utils import source_utils

        from stacks.apply import apply_stack

        # A failed step is told once, as an answer, by the command itself.
        logging.getLogger("zenml").setLevel(logging.CRITICAL)
        source_utils.set_custom_source_root(str(ROOT))
        with self.alone():
            return apply_stack(self.stack)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes out while a library makes its database in the var folder: none expects company.

        Raises
        ------
        BusyError
            Another process has been setting up for over `SETUP_SECONDS`.
        """
        from filelock import FileLock, Timeout

        path = var_folder() / "setup.lock"
        try:
            with FileLock(path, timeout=SETUP_SECONDS):
                yield
        except Timeout:
            raise BusyError(
                f"another process has been setting up {path.parent} for over {SETUP_SECONDS} s; "
                f"accepted: wait, or stop the holder of {path}"
            ) from None


def serving_environment(stack_name: str, environment_name: str | None) -> Environment:
    """The environment that is played on a stack, without anything else being set up."""
    os.environ[VAR] = str(var_folder())
    return load_environment(environment_name or load_stack(stack_name).environment)


def _isolate(var: Path) -> None:
    """Point every library's state into the var folder, and keep the libraries quiet and at home."""
    cache = str(var / "cache")
    for name, value in {
        "ZENML_CONFIG_PATH": str(var / "zenml"),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_AUTO_OPEN_DASHBOARD": "false",
        "ZENML_ENABLE_RICH_TRACEBACK": "false",
        "ZENML_LOGGING_VERBOSITY": "ERROR",
        "ZENML_DISABLE_STEP_NAMES_IN_LOGS": "true",
        "GX_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "GIT_PYTHON_REFRESH": "quiet",
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": f"{cache}/matplotlib",
        "KERAS_HOME": f"{cache}/keras",
        "XDG_CACHE_HOME": cache,
        "XDG_CONFIG_HOME": f"{cache}/config",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "1",
    }.items():
        os.environ.setdefault(name, value)


def git_revision() -> str:
    """Revision of the code, with ``+changes`` when the tree differs from it; ``unknown`` outside Git."""
    try:
        revision = _git("rev-parse", "HEAD")
        return revision + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def lock_hash() -> str:
    """First 16 hex digits of the lock file's sha256: which libraries made a version."""
    path = ROOT / "uv.lock"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else "unknown"


def invoked_as() -> str:
    """Name the command line the way people typed it, without the path of the interpreter."""
    return " ".join(["run.py", *sys.argv[1:]])


def _git(*arguments: str) -> str:
    return subprocess.run(  # noqa: S603 - fixed arguments
        ["git", "-C", str(ROOT), *arguments],  # noqa: S607 - whichever git the user has
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
