"""`run.py serve`: the gateway on this machine, until Ctrl-C; `run.py keys`: who may ask it."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import logging
import logging.handlers
import os
import secrets
import socket
import sys
import time
from pathlib import Path
from typing import Any

from adapters.services import var_folder
from lifecycle.errors import BusyError, ConfigError, UnavailableError

ISSUER, AUDIENCE, JWKS = "PRODECKS_OIDC_ISSUER", "PRODECKS_OIDC_AUDIENCE", "PRODECKS_OIDC_JWKS_URL"
SECURITY_BYTES = 10_000_000


def serving_folder() -> Path:
    """Where the gateway's state lies: versions, routing tables, prediction log, hashed keys."""
    return var_folder() / "serving"


def serve(host: str, port: int, rate: float | None, burst: int, answer_unrecorded: bool, fsync: str) -> int:
    """Run the gateway until it is stopped; the exit code.

    Raises
    ------
    ConfigError
        An address others can reach, without anybody to tell them apart; an unknown sync policy.
    BusyError
        The port is taken, or another gateway writes the same log.
    UnavailableError
        The log's folder cannot be written.
    """
    import uvicorn

    from adapters.model_store import ModelStore
    from adapters.prediction_log import Fsync, PredictionLog
    from serving.access import Access, Principal, Role, checked_rate, load_keys
    from serving.gateway import Gateway, Options
    from serving.protocol import GatewayProtocol

    folder = serving_folder()
    keys, tokens = load_keys(folder / "keys.json"), _tokens()
    loopback = _is_loopback(host)
    if not loopback and not keys and tokens is None:
        raise ConfigError(
            f"--host {host} can be reached by others, and nobody has a key; accepted: run.py keys add first, "
            f"{ISSUER} with {AUDIENCE} and {JWKS}, or a loopback address"
        )
    open_to_all = loopback and not keys and tokens is None
    open_as = Principal("local", frozenset({Role.PREDICT, Role.LABEL, Role.OPERATE})) if open_to_all else None
    if fsync not in {one.value for one in Fsync}:
        raise ConfigError(f"--fsync {fsync!r}; accepted: {', '.join(one.value for one in Fsync)}")
    listening = _listen(host, port)
    _log_security(folder)
    predictions = PredictionLog.open(folder / "log", fsync=Fsync(fsync))
    access = Access(keys, tokens, open_as, checked_rate(rate), burst, time.monotonic)
    gateway = Gateway(ModelStore(folder), predictions, access, Options(answer_unrecorded=answer_unrecorded))
    address = f"http://{host if ':' not in host else f'[{host}]'}:{listening.getsockname()[1]}"
    models = ModelStore(folder).models()
    sys.stderr.write(
        f"gateway at {address}, {'models: ' + ', '.join(models) if models else 'no model deployed yet'}; "
        f"{'open on the loopback' if open_to_all else f'{len(keys)} keys'}; documentation at {address}/docs; Ctrl-C stops it\n"
    )
    sys.stderr.flush()
    config = uvicorn.Config(
        gateway,
        http=functools.partial(GatewayProtocol, gateway=gateway),  # type: ignore[arg-type]
        loop="uvloop",
        log_level="warning",
        access_log=False,
        lifespan="on",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=10,
        server_header=False,
        backlog=2048,
    )
    # Stopping it is how it ends: whoever waits in it has been answered, and the log is closed.
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])
    return 0


def add_key(client: str, roles: list[str]) -> None:
    """Make an API key, print it once, and keep its hash.

    Raises
    ------
    ConfigError
        No client named, or an unknown role.
    """
    from serving.access import KEY_BYTES, Principal, Role, dump_keys, hashed, load_keys

    known = [role.value for role in Role]
    wrong = [role for role in roles if role not in known]
    if wrong or not roles or not client.strip():
        raise ConfigError(f"client {client!r}, roles {roles}; accepted: a name, and roles of {', '.join(known)}")
    path = serving_folder() / "keys.json"
    key = secrets.token_urlsafe(KEY_BYTES)
    keys = load_keys(path) | {hashed(key): Principal(client, frozenset(Role(role) for role in roles))}
    _replace(path, dump_keys(keys))
    sys.stdout.write(f"{key}\n")
    sys.stderr.write(f"key of {client} ({', '.join(sorted(roles))}); only its hash is kept; restart the gateway\n")


def list_keys() -> None:
    """Print who holds keys."""
    from cli.show import console, table
    from serving.access import load_keys

    rows = [
        (one.client, ", ".join(sorted(role.value for role in one.roles)), digest[:12])
        for digest, one in load_keys(serving_folder() / "keys.json").items()
    ]
    console().print(table("API keys", ("client", "roles", "hash"), rows))


def remove_keys(client: str) -> None:
    """Take every key of a client back; ConfigError when it has none."""
    from serving.access import dump_keys, load_keys

    path = serving_folder() / "keys.json"
    keys = load_keys(path)
    left = {digest: one for digest, one in keys.items() if one.client != client}
    if len(left) == len(keys):
        raise ConfigError(f"{client!r} holds no key; accepted: a client that run.py keys list shows")
    _replace(path, dump_keys(left))
    sys.stderr.write(f"{len(keys) - len(left)} keys of {client} taken back; restart the gateway\n")


def _replace(path: Path, text: str) -> None:
    staged = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.unlink(missing_ok=True)
        with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    except OSError as error:
        raise UnavailableError(f"{path} cannot be written: {error.strerror}") from None


def _tokens() -> Any:
    from serving.access import Tokens

    told = {name: os.environ.get(name, "") for name in (ISSUER, AUDIENCE, JWKS)}
    missing = [name for name, value in told.items() if not value]
    if len(missing) == len(told):
        return None
    if missing:
        raise ConfigError(f"{', '.join(missing)} not set; accepted: {ISSUER}, {AUDIENCE} and {JWKS} together")
    return Tokens(told[ISSUER], told[AUDIENCE], told[JWKS])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before anything else is opened: two gateways on it are told apart at once."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except OSError as error:
        raise BusyError(f"{host}:{port} cannot be listened on: {error.strerror}; accepted: a free --port") from None
    return listening


def _log_security(folder: Path) -> None:
    """Refused requests, a line of JSON each; the oldest are overwritten, so that no attacker fills the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(folder / "security.log", maxBytes=SECURITY_BYTES, backupCount=3)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("prodecks.security")
    logger.handlers, logger.propagate = [handler], False
