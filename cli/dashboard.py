"""`python run.py dashboard`: ZenML's dashboard and MLflow's pages over the state of local runs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from adapters.services import var_folder
from cli.show import console
from cli.workspace import Workspace
from lifecycle.errors import BusyError, UnavailableError

HOST = "127.0.0.1"
START_SECONDS = 90.0


def serve(port: int, stack: str) -> int:
    """Serve both until Ctrl-C.

    Parameters
    ----------
    port
        ZenML's port; MLflow takes the next one.
    stack
        Stack whose state is shown.

    Raises
    ------
    BusyError
        A port is taken.
    UnavailableError
        A server did not start.
    """
    workspace = Workspace.open(stack)
    for taken in (port, port + 1):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if probe.connect_ex((HOST, taken)) == 0:
                raise BusyError(f"port {taken} is taken; accepted: --port with two free ports in a row")
    workspace.apply_stack()
    from zenml.client import Client

    client = Client()
    if client.active_user.email_opted_in is None:
        # Else the first page asks for a name and an e-mail address before it shows anything.
        client.update_user(
            client.active_user.id,
            updated_email_opt_in=False,
            updated_metadata={"finished_onboarding_survey": True},
        )
    store = str(client.zen_store.url)
    var = var_folder()
    zenml_url, mlflow_url = f"http://{HOST}:{port}", f"http://{HOST}:{port + 1}"
    zenml_environment = {
        "ZENML_CONFIG_PATH": str(var / "zenml-server"),
        "ZENML_STORE_TYPE": "sql",
        "ZENML_STORE_URL": store,
        "ZENML_SERVER_DEPLOYMENT_TYPE": "local",
        "ZENML_SERVER_AUTH_SCHEME": "NO_AUTH",
        "ZENML_SERVER_AUTO_ACTIVATE": "1",
        # Pictures of artifacts lie in the local artifact store; without this the server refuses to read them.
        "ZENML_SERVER_ALLOW_LOCAL_FILE_ACCESS": "true",
        "ZENML_LOCAL_STORES_PATH": str(Path(store.removeprefix("sqlite:///")).parent.parent),
    }
    mlflow = ["mlflow", "server", "--backend-store-uri", workspace.services.registry, "--workers", "1"]
    mlflow += ["--host", HOST, "--port", str(port + 1)]
    zenml = ["uvicorn", "zenml.zen_server.zen_server_api:app", "--host", HOST, "--port", str(port)]
    with (
        _server("zenml", zenml, zenml_environment, f"{zenml_url}/health"),
        _server("mlflow", mlflow, {}, f"{mlflow_url}/health"),
    ):
        console().print(f"ZenML   {zenml_url}   pipelines, runs, artifacts and their pictures", markup=False)
        console().print(f"MLflow  {mlflow_url}   trials, versions, model cards", markup=False)
        console().print("Ctrl-C ends both")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
    return 0


@contextlib.contextmanager
def _server(name: str, module: list[str], environment: dict[str, str], health: str) -> Iterator[None]:
    log = var_folder() / "cache" / f"{name}-server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and modules
            [sys.executable, "-m", *module],
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            if process.poll() is not None:
                raise UnavailableError(f"{name}'s server ended with code {process.returncode}; its log: {log}")
            with contextlib.suppress(OSError), urllib.request.urlopen(health, timeout=2):  # noqa: S310 - our own address
                break
            if time.monotonic() > deadline:
                raise UnavailableError(f"{name}'s server did not answer within {START_SECONDS:.0f} s; its log: {log}")
            time.sleep(0.3)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
