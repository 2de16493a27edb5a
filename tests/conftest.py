"""Shared by all tests: how hypothesis searches, and a real PostgreSQL server for those that ask for one."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings

_databases = count(1)

# Examples are the same in every run, so that a red run can be repeated; mutation runs each test hundreds of times.
settings.register_profile("default", derandomize=True, deadline=None, database=None)
settings.register_profile("mutation", settings.get_profile("default"), max_examples=10)
settings.register_profile("search", deadline=None, max_examples=1_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# matplotlib keeps its list of fonts in the user's home unless told otherwise.
os.environ.setdefault("MPLCONFIGDIR", str(Path(__file__).parents[1] / "var" / "cache" / "matplotlib"))


@dataclass(frozen=True)
class PostgresServer:
    """A running server: anybody on the loopback may log in as the superuser ``postgres``; nothing is synced to disk."""

    port: int

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str) -> None:
        import psycopg2

        connection = psycopg2.connect(self.url("postgres"))
        try:
            connection.autocommit = True  # CREATE DATABASE refuses to run inside a transaction
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()


def _programs() -> Path | None:
    """Folder of initdb and pg_ctl: Debian keeps them off PATH, the newest major version wins."""
    installed = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if installed:
        return max(installed, key=lambda folder: float(folder.parent.name))
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def _account() -> str | None:
    """Name of the account the server runs as when we are root, which it refuses to run as."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A server of this test session alone; its default time zone is not UTC, to bring out whoever relies on it."""
    programs = _programs()
    if programs is None:
        reason = "no PostgreSQL server programs found; accepted: initdb in /usr/lib/postgresql/*/bin or on PATH"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    account = _account()
    group = pwd.getpwnam(account).pw_gid if account else None
    # Not under pytest's own folder, which the server's account could not enter.
    home = Path(tempfile.mkdtemp(prefix="postgres-"))
    data, log = home / "data", home / "log"

    def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        # pg_ctl hands its output on to the server: a pipe would stay open, a file does not.
        with (home / "output").open("w+") as output:
            done = subprocess.run(
                [programs / program, "-D", data, *arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                user=account, group=group, extra_groups=[] if account else None,
                cwd=home, check=False, text=True, timeout=120,
            )  # fmt: skip
        done.stdout = (home / "output").read_text()
        return done

    try:
        if account:
            shutil.chown(home, account)
        made = run("initdb", "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        assert made.returncode == 0, made.stdout
        for _attempt in range(5):  # somebody else may take the port between our look and the server's start
            port = _free_port()
            settings = {
                "port": port,
                "listen_addresses": "127.0.0.1",
                "unix_socket_directories": "",
                "fsync": "off",
                "synchronous_commit": "off",
                "full_page_writes": "off",
                "shared_buffers": "32MB",
                "timezone": "Asia/Tehran",
            }
            options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
            started = run("pg_ctl", "-w", "-l", str(log), "-o", options, "start")
            if started.returncode == 0:
                break
        else:
            pytest.fail(f"PostgreSQL did not start: {started.stdout}{log.read_text() if log.exists() else ''}")
        try:
            yield PostgresServer(port)
        finally:
            run("pg_ctl", "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """URL of a fresh, empty database, dropped after the test whoever is still connected."""
    name = f"test_{next(_databases)}"
    postgres_server.execute(f"CREATE DATABASE {name}")
    try:
        yield postgres_server.url(name)
    finally:
        postgres_server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
