"""`run.py serve`: the gateway on this machine, until Ctrl-C; `run.py keys`: who may ask it."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import logging
import logging.handlers
import os
import re
import resource
import secrets
import socket
import sys
import time
from pathlib import Path
from typing import Any

from adapters import durable
from adapters.services import serving_policy, var_folder
from lifecycle.errors import BusyError, ConfigError, UnavailableError
from lifecycle.redaction import redacted
from lifecycle.spec import Environment

ISSUER, AUDIENCE, JWKS = "PRODECKS_OIDC_ISSUER", "PRODECKS_OIDC_AUDIENCE", "PRODECKS_OIDC_JWKS_URL"
SECURITY_BYTES = 10_000_000
CLIENT = re.compile(r"\w[\w .@-]{0,98}\w|\w")


def serving_folder(environment: Environment) -> Path:
    """Where the state of an environment's gateway lies: versions, routing tables, prediction log, hashed keys."""
    return var_folder() / environment.folder


def serve(
    environment: Environment,
    host: str | None,
    port: int | None,
    rate: float | None,
    burst: int | None,
    answer_unrecorded: bool | None,
    fsync: str | None,
    tf_serving: str | None = None,
    deadline: float = 1.0,
) -> int:
    """Run an environment's gateway until it is stopped, on its own port when none is given; the exit code.

    Parameters
    ----------
    host, port, rate, burst, answer_unrecorded, fsync
        Instead of what the serving policy says; None to follow it.

    Raises
    ------
    ConfigError
        An address others can reach, without anybody to tell them apart; an unknown sync policy; no address of
        TensorFlow Serving; a policy file or archive that is wrong.
    BusyError
        The port is taken, or another gateway writes the same log.
    UnavailableError
        The log's folder cannot be written.
    """
    import uvicorn

    from adapters.model_store import ModelStore
    from adapters.prediction_archive import PredictionArchive
    from adapters.prediction_log import Fsync, PredictionLog
    from adapters.tf_serving import ModelServer
    from serving.access import Access, Principal, Role, checked_rate, load_keys
    from serving.gateway import Gateway, Options
    from serving.protocol import GatewayProtocol

    folder, policy = serving_folder(environment), serving_policy()
    limits, recording = policy.limits, policy.recording
    host, port = policy.host if host is None else host, environment.port if port is None else port
    fsync = recording.fsync if fsync is None else fsync
    rate, burst = limits.rate if rate is None else rate, limits.burst if burst is None else burst
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
    server = None if tf_serving is None else ModelServer(tf_serving, deadline)
    listening = _listen(host, port)
    _log_security(folder)
    predictions = PredictionLog.open(
        folder / "log",
        Fsync(fsync),
        recording.segment_bytes,
        recording.segment_seconds,
        recording.sync_seconds,
        first=PredictionArchive(folder).through + 1,
    )
    access = Access(keys, tokens, open_as, checked_rate(rate), burst, time.monotonic, folder / "keys.json")
    options = Options(
        answer_unrecorded=recording.answer_unrecorded if answer_unrecorded is None else answer_unrecorded,
        most_bytes=limits.body_bytes,
        body_seconds=limits.body_seconds,
        follow_seconds=policy.follow_seconds,
        remembered=recording.remembered,
        server=server,
    )
    gateway = Gateway(ModelStore(folder), predictions, access, options)
    address = f"http://{host if ':' not in host else f'[{host}]'}:{listening.getsockname()[1]}"
    models = ModelStore(folder).models()
    sys.stderr.write(
        f"gateway at {address}, {environment.name}, {'models: ' + ', '.join(models) if models else 'no model deployed yet'}; "
        f"{'open on the loopback' if open_to_all else f'{len(keys)} keys'}; documentation at {address}/docs; Ctrl-C stops it\n"
    )
    sys.stderr.flush()
    _log_notes()
    _many_connections()
    config = uvicorn.Config(
        gateway,
        http=functools.partial(GatewayProtocol, gateway=gateway),  # type: ignore[arg-type]
        loop="uvloop",
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="on",
        timeout_keep_alive=limits.idle_seconds,
        timeout_graceful_shutdown=policy.stop_seconds,
        server_header=False,
        backlog=2048,
    )
    # Stopping it is how it ends: whoever waits in it has been answered, and the log is closed.
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])
    return 0


def add_key(environment: Environment, client: str, roles: list[str]) -> None:
    """Make an API key, print it once, and keep its hash.

    Raises
    ------
    ConfigError
        No client named, or an unknown role.
    """
    from serving.access import KEY_BYTES, Principal, Role, dump_keys, hashed, load_keys

    known = [role.value for role in Role]
    wrong = [role for role in roles if role not in known]
    if wrong or not roles or not CLIENT.fullmatch(client):
        raise ConfigError(
            f"client or roles; accepted: a name of letters, digits and . _ @ -, and roles of {', '.join(known)}"
        )
    path = serving_folder(environment) / "keys.json"
    key = secrets.token_urlsafe(KEY_BYTES)
    keys = load_keys(path) | {hashed(key): Principal(client, frozenset(Role(role) for role in roles))}
    _replace(path, dump_keys(keys))
    sys.stdout.write(f"{key}\n")
    sys.stderr.write(f"key of {client} ({', '.join(sorted(roles))}); only its hash is kept; it counts at once\n")


def list_keys(environment: Environment) -> None:
    """Print who holds keys."""
    from cli.show import console, table
    from serving.access import load_keys

    rows = [
        (one.client, ", ".join(sorted(role.value for role in one.roles)), digest[:12])
        for digest, one in load_keys(serving_folder(environment) / "keys.json").items()
    ]
    console().print(table("API keys", ("client", "roles", "hash"), rows))


def remove_keys(environment: Environment, client: str) -> None:
    """Take every key of a client back; ConfigError when it has none."""
    from serving.access import dump_keys, load_keys

    path = serving_folder(environment) / "keys.json"
    keys = load_keys(path)
    left = {digest: one for digest, one in keys.items() if one.client != client}
    if len(left) == len(keys):
        raise ConfigError(f"{client!r} holds no key; accepted: a client that run.py keys list shows")
    _replace(path, dump_keys(left))
    sys.stderr.write(f"{len(keys) - len(left)} keys of {client} taken back, at once\n")


def _replace(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.replace(path, text.encode(), 0o600)
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


def _many_connections() -> None:
    """As many open connections as the system lets a process have: hundreds that are slow leave room for others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Redacting(logging.Formatter):
    """Log lines without secrets, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, or one with its traceback."""
        return redacted(super().format(record))


def _log_notes() -> None:
    """What the gateway and its server have to say, on the terminal."""
    handler = logging.StreamHandler()
    handler.setFormatter(Redacting("%(levelname)s %(name)s: %(message)s"))
    for name in ("prodecks", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False


def _log_security(folder: Path) -> None:
    """Refused requests, a line of JSON each; the oldest are overwritten, so that no attacker fills the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(folder / "security.log", maxBytes=SECURITY_BYTES, backupCount=3)
    handler.setFormatter(Redacting("%(message)s"))
    logger = logging.getLogger("prodecks.security")
    logger.handlers, logger.propagate = [handler], False
