"""The gateway beside MLflow's model server, BentoML, LitServe and MLServer: single rows at 1, 8 and 32 connections (R5.1).

    apt-get install wrk
    uv run python -m benchmarks.serving [--seconds 4] [--rounds 3] [--only gateway,bare]

Everybody serves the same trained flight model by the same ONNX twin, one worker each, on this machine, and is asked the
same 4,000 different flights in turn by `wrk` on one thread. The gateway is `run.py serve` as it is installed: an API key,
validation, metrics, every answer on record behind one fdatasync a group, and a 10 % canary. The peers have no access
control and no log; each stands in an environment of its own under var/bench, with batching on where it has it, and
once more without. Rounds are interleaved, whoever is not measured is stopped (SIGSTOP), and medians of the rounds are
told. `bare` is uvicorn answering a constant; `unsynced` is the gateway again, its log synced every 50 ms
instead of before each answer, so that what the disk costs shows.

Prints tables, then one line of JSON, each keyed by connections: `rps`, `p99_ms`, `bare_rps`, `unsynced_rps`; of the peers
with batching on (MLflow, which has none, as it is) `best_peer_rps`, `ratio`, `best_peer_p99_ms` (the lowest of any);
`best_of_both_rps`, `best_of_both_ratio`, `best_of_both_p99_ms` where each peer counts by the better of with and without;
and `rss_mb` of the gateway after all of it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.trained import MODEL, ROOT, make

BENCH = ROOT / "var" / "bench"
PEERS = Path(__file__).parent / "peers"
LEVELS = ("1", "8", "32")
START_SECONDS = 180
RUNTIME = ("onnxruntime==1.32.0", "numpy==2.4.6")
PINNED = {
    "litserve": ("litserve==0.2.19", "pyzmq==27.3.0", *RUNTIME),
    "bentoml": ("bentoml==1.4.40", *RUNTIME),
    "mlserver": ("mlserver==1.7.1", *RUNTIME),
    "mlflow": ("mlflow==3.17.2", *RUNTIME),
}
QUIET = {"BENTOML_DO_NOT_TRACK": "True", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


@dataclass
class Server:
    """Somebody who is asked.

    Parameters
    ----------
    name
        In the table.
    command, environment, folder
        How it is started.
    port
        Where it listens.
    path, bodies, headers
        What is posted: the file of bodies holds one a line.
    """

    name: str
    command: Sequence[str | Path]
    environment: Mapping[str, str]
    folder: Path
    port: int
    path: str
    bodies: Path
    headers: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    problem: str = ""
    seen: dict[str, list[dict[str, float]]] = field(default_factory=dict)

    @property
    def is_peer(self) -> bool:
        """Whether it is compared with."""
        return self.name not in ("gateway", "unsynced", "bare")

    @property
    def batches(self) -> bool:
        """Whether it is a peer as batching is meant: on, or not to be had."""
        return self.name.endswith("-batching") or self.name == "mlflow"

    def start(self) -> None:
        """Start it and wait for its first answer; what goes wrong is kept in `problem`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        told = self.folder / "output.txt"
        with told.open("wb") as output:
            self.process = subprocess.Popen(
                [str(part) for part in self.command],
                cwd=self.folder,
                env={**os.environ, **QUIET, **self.environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until = time.monotonic() + START_SECONDS
        with self.bodies.open("rb") as bodies:
            body = bodies.readline()
        problem = "no answer"
        while time.monotonic() < until and self.process.poll() is None:
            try:
                self._ask(body)
            except urllib.error.HTTPError as error:
                problem = f"{error.code} {error.read()[:200]!r}"
            except OSError as error:
                problem = str(error)
            else:
                return
            time.sleep(0.25)
        lines = told.read_text(errors="replace").strip().splitlines() or [""]
        self.problem = f"{problem}; its last words: {lines[-1][:200]}"
        self.stop()

    def _ask(self, body: bytes) -> None:
        headers = {"content-type": "application/json", **dict(zip(self.headers[::2], self.headers[1::2], strict=True))}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{self.path}", body, headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()

    def load(self, level: str, seconds: int) -> dict[str, float]:
        """Ask it for some seconds."""
        self._signal(signal.SIGCONT)
        command = ["wrk", "-t1", f"-c{level}", f"-d{seconds}s", "--timeout", "30s", "-s", PEERS.parent / "load.lua"]
        command += [f"http://127.0.0.1:{self.port}", "--", self.path, self.bodies, *self.headers]
        before = self._cpu_seconds()
        told = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout
        spent = self._cpu_seconds() - before
        self._signal(signal.SIGSTOP)
        seen: dict[str, float] = json.loads(told.strip().splitlines()[-1])
        return {**seen, "cpu_ms": spent * 1e3 / max(1.0, seen["requests"])}

    def rss_mb(self) -> float:
        """Resident memory of it and its children."""
        return sum(one.memory_info().rss for one in self._processes()) / 1e6

    def _cpu_seconds(self) -> float:
        times = [one.cpu_times() for one in self._processes()]
        return sum(one.user + one.system for one in times)

    def _processes(self) -> list[psutil.Process]:
        assert self.process is not None
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def stop(self) -> None:
        """End its whole session."""
        if self.process is None or self.process.poll() is not None:
            return
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, which: signal.Signals) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, which)

    def median(self, level: str, what: str) -> float:
        """Median of the rounds; NaN when it was not measured, or did not answer all it was asked."""
        seen = self.seen.get(level, [])
        if not seen or any(one["failed"] or not one["requests"] for one in seen):
            return float("nan")
        return statistics.median(one[what] for one in seen)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def environment(name: str) -> str:
    """Make a peer's environment unless it is there as pinned; what went wrong, or nothing."""
    place = BENCH / name
    stamp = place / "installed"
    if stamp.exists() and stamp.read_text() == " ".join(PINNED[name]):
        return ""
    shutil.rmtree(place, ignore_errors=True)
    for command in (
        ["uv", "venv", "--quiet", "--python", "3.11", place],
        ["uv", "pip", "install", "--quiet", "--python", place / "bin" / "python", *PINNED[name]],
    ):
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode:
            return f"not installed: {done.stderr.strip()[-300:]}"
    stamp.write_text(" ".join(PINNED[name]))
    return ""


def bodies(trained: Path) -> dict[str, Path]:
    """Write what each protocol posts: the same flights."""
    rows = json.loads((trained / "rows.json").read_text())
    features = [{name: value for name, value in row.items() if name != "flight_id"} for row in rows]
    shapes = {
        "gateway": [{"rows": [row]} for row in rows],
        "litserve": features,
        "bentoml": [{"rows": [row]} for row in features],
        "mlserver": [{"inputs": [_tensor(name, value) for name, value in row.items()]} for row in features],
        "mlflow": [{"dataframe_split": {"columns": list(row), "data": [list(row.values())]}} for row in features],
    }
    made = {}
    for name, told in shapes.items():
        made[name] = trained / f"{name}.txt"
        made[name].write_text("".join(f"{json.dumps(one)}\n" for one in told))
    return made


def _tensor(name: str, value: Any) -> dict[str, Any]:
    kind = "BYTES" if isinstance(value, str) else "FP64"
    return {"name": name, "shape": [1], "datatype": kind, "data": [value]}


def gateway(name: str, fsync: str, trained: Path, asked: Path) -> Server:
    """Ours: a fresh folder, an API key, and the canary that `benchmarks.trained` put in force."""
    var = BENCH / name
    shutil.rmtree(var, ignore_errors=True)
    shutil.copytree(trained / "serving", var / "serving")
    told = {"PRODECKS_VAR": str(var)}
    command = [sys.executable, ROOT / "run.py", "keys", "add", "benchmark", "--role", "predict", "--role", "operate"]
    key = subprocess.run(command, env={**os.environ, **told}, check=True, capture_output=True, text=True).stdout.strip()
    port = free_port()
    serve = [sys.executable, ROOT / "run.py", "serve", "--port", str(port), "--fsync", fsync]
    return Server(name, serve, told, var, port, f"/models/{MODEL}/predict", asked, ("X-API-Key", key))


def peer(name: str, batching: bool, trained: Path, asked: Path) -> Server:
    """One of the others, with or without batching."""
    port, binaries = free_port(), BENCH / name / "bin"
    told = {
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "PYTHONPATH": str(PEERS),
        "TWIN": str(trained / "1" / "twin.onnx"),
        "BATCHING": str(int(batching)),
    }
    folder = BENCH / "run" / f"{name}{'-batching' * batching}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path, command = (
        "/predict",
        [binaries / "python", PEERS / "litserve_server.py", str(port), "32" if batching else "1"],
    )
    if name == "bentoml":
        command = [binaries / "bentoml", "serve", "bentoml_server:Scorer", "--host", "127.0.0.1", "--port", str(port)]
        told["BENTOML_HOME"] = str(folder)
    elif name == "mlserver":
        path, command = "/v2/models/twin/infer", [binaries / "mlserver", "start", "."]
        settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "metrics_port": free_port(),
                    "parallel_workers": 0, "debug": False, "access_log": False}  # fmt: skip
        (folder / "settings.json").write_text(json.dumps(settings))
        model = {"name": "twin", "implementation": "mlserver_server.Scorer"}
        model |= {"max_batch_size": 32, "max_batch_time": 0.002} if batching else {}
        (folder / "model-settings.json").write_text(json.dumps(model))
    elif name == "mlflow":
        saved = folder / "model"
        save = [binaries / "python", PEERS / "mlflow_model.py", saved]
        subprocess.run(save, cwd=PEERS, env={**os.environ, **QUIET, **told}, check=True, capture_output=True)
        path = "/invocations"
        command = [binaries / "mlflow", "models", "serve", "--model-uri", saved, "--env-manager", "local",
                   "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]  # fmt: skip
    return Server(folder.name, command, told, folder, port, path, asked)


def everybody(trained: Path, only: set[str]) -> Iterator[Server]:
    """Whoever takes part, in the order of the table; a peer that cannot be installed says so."""
    asked = bodies(trained)
    yield gateway("gateway", "every_group", trained, asked["gateway"])
    yield gateway("unsynced", "interval", trained, asked["gateway"])
    port = free_port()
    command = [sys.executable, PEERS / "bare.py", str(port)]
    yield Server("bare", command, {}, BENCH / "run" / "bare", port, "/", asked["gateway"])
    for name in PINNED:
        if only and name not in only:
            continue
        problem = environment(name)
        if problem:
            yield Server(name, [], {}, BENCH / "run" / name, 0, "", asked[name], problem=problem)
            continue
        for batching in (False, True) if name != "mlflow" else (False,):
            yield peer(name, batching, trained, asked[name])


def canary_share(server: Server) -> float:
    """Share of rows that the candidate answered, as the gateway's own metrics tell."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/metrics", headers={"X-API-Key": server.headers[1]}
    )
    server._signal(signal.SIGCONT)
    with urllib.request.urlopen(request, timeout=30) as page:
        text = page.read().decode()
    rows = {role: float(n) for role, n in re.findall(r'prodecks_rows_total\{.*role="(\w+)".*\} (\S+)', text)}
    return rows.get("candidate", 0.0) / sum(rows.values())


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="peers to ask, divided by commas; all without it")
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed; accepted: apt-get install wrk")
    console = Console(width=140)
    started = time.monotonic()
    trained = make(BENCH / "model")
    servers: list[Server] = []
    try:
        for server in everybody(trained, set(given.only.split(",")) - {""}):
            servers.append(server)
            if not server.problem:
                server.start()
            if not server.problem:
                for level in LEVELS:  # warm, and what adapts has adapted
                    server.load(level, 2)
            console.print(f"{server.name}: {server.problem or 'answers'}", highlight=False)
        answering = [server for server in servers if not server.problem]
        for _ in range(given.rounds):
            for level in LEVELS:
                for server in answering:
                    server.seen.setdefault(level, []).append(server.load(level, given.seconds))
        report(console, servers)
        console.print(f"{time.monotonic() - started:.0f} s, load of the machine at the end {os.getloadavg()[0]:.1f}")
        print(json.dumps(summary(servers)))
    finally:
        for server in servers:
            server.stop()
        for name in ("gateway", "unsynced"):
            shutil.rmtree(BENCH / name, ignore_errors=True)


def report(console: Console, servers: Sequence[Server]) -> None:
    """Tables of requests a second and times."""
    for what, title in (
        ("rps", "requests a second"),
        ("p50_ms", "P50, ms"),
        ("p99_ms", "P99, ms"),
        ("cpu_ms", "processor time a request, ms"),
    ):
        table = Table("", *(f"{level} connections" for level in LEVELS), "MB", title=title, title_justify="left")
        for server in servers:
            if server.problem:
                table.add_row(server.name, *("not measured" for _ in LEVELS), "")
                continue
            values = [server.median(level, what) for level in LEVELS]
            shown = [f"{value:,.0f}" if what == "rps" else f"{value:,.2f}" for value in values]
            table.add_row(server.name, *shown, f"{server.rss_mb():,.0f}")
        console.print(table)
    for server in servers:
        if server.problem:
            console.print(f"{server.name} was not measured: {server.problem}", highlight=False)
        failed = sum(int(one["failed"]) for seen in server.seen.values() for one in seen)
        if failed:
            console.print(f"{server.name} failed {failed} requests; a level with failures is nan", highlight=False)
    console.print(f"rows the gateway's canary answered: {canary_share(servers[0]):.1%}", highlight=False)


def summary(servers: Sequence[Server]) -> dict[str, Any]:
    """The figures by connections; a figure that is missing is null."""
    ours, unsynced, bare = servers[:3]
    told: dict[str, Any] = {}
    for level in LEVELS:
        values = {"rps": ours.median(level, "rps"), "p99_ms": ours.median(level, "p99_ms")}
        values |= {"bare_rps": bare.median(level, "rps"), "unsynced_rps": unsynced.median(level, "rps")}
        peers = [server for server in servers if server.is_peer and server.median(level, "rps") > 0]
        for prefix, some in (("best_peer", [one for one in peers if one.batches]), ("best_of_both", peers)):
            best = max((one.median(level, "rps") for one in some), default=float("nan"))
            values[f"{prefix}_rps"] = best
            values["ratio" if prefix == "best_peer" else f"{prefix}_ratio"] = values["rps"] / best
            values[f"{prefix}_p99_ms"] = min((one.median(level, "p99_ms") for one in some), default=float("nan"))
        for name, value in values.items():
            told.setdefault(name, {})[level] = round(value, 3) if value == value else None
    return {**told, "rss_mb": round(ours.rss_mb(), 1)}


if __name__ == "__main__":
    main()
