"""Ten versions of a hundred models: memory, load time, and how soon traffic has moved (R2.3, R4.1).

    uv run python -m benchmarks.many_models [--models 100] [--versions 10]

Every version is the trained flight model's twin with weights of its own, so that nothing can be shared. First a process
loads all of them, each verified and tried, as the gateway does. Then a real `run.py serve` serves all models out of the
same store, where it holds the versions that play a part (live, and the one before); moved is the time from
the new routing table to the first answer of the new version, asked again and again, for versions that were in memory
and for versions that were not.

Last line, JSON: `models`, `versions`, `rss_mb` and `load_s` with all of them in one process, `switch_ms` (median, version not in
memory), and of the gateway `warm_switch_ms`, `gateway_rss_mb`, `gateway_start_s`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import psutil

from adapters.model_store import TWIN, ModelStore, Table, digests
from benchmarks.serving import BENCH, free_port
from benchmarks.trained import MODEL, ROOT, make
from lifecycle.traffic import Routing

LOAD = """
import json, sys, time
from pathlib import Path
import psutil
from adapters.model_store import ModelStore
from serving.versions import load_version

store, started, own = ModelStore(Path(sys.argv[1])), time.perf_counter(), psutil.Process()
kept = [load_version(store, *one) for one in json.load(sys.stdin)]
print(json.dumps({"load_s": time.perf_counter() - started, "rss_mb": own.memory_info().rss / 1e6}))
"""


def fill(trained: Path, folder: Path, models: int, versions: int) -> dict[str, dict[str, str]]:
    """Place versions that differ in one weight, each model's version 1 live; model: version: digest."""
    import onnx

    source, store = ModelStore(trained / "serving"), ModelStore(folder)
    known = source.manifest(MODEL, "1")
    twin = onnx.load_model_from_string(source.read(known, TWIN))
    weights = next(one for one in twin.graph.initializer if one.data_type == onnx.TensorProto.FLOAT and one.raw_data)
    plain = np.frombuffer(weights.raw_data, np.float32)
    placed: dict[str, dict[str, str]] = {}
    for number in range(models):
        name = f"model_{number}"
        placed[name] = {}
        for version in range(1, versions + 1):
            changed = plain.copy()
            changed[0] += 1e-5 * (number * versions + version)
            weights.raw_data = changed.tobytes()
            files = {TWIN: twin.SerializeToString()}
            made = replace(known, model=name, version=str(version), files=digests(files))
            placed[name][str(version)] = store.place(made, files)
        move(store, placed[name], Routing(name, 1, "1"))
    return placed


def move(store: ModelStore, placed: Mapping[str, str], routing: Routing) -> None:
    """Put a routing table in force."""
    store.write_table(Table(routing, {version: placed[version] for version in routing.warm}))


def load_all(folder: Path, placed: Mapping[str, Mapping[str, str]]) -> dict[str, float]:
    """Load every version in a process of its own."""
    every = [(model, version, digest) for model, versions in placed.items() for version, digest in versions.items()]
    command = [sys.executable, "-c", LOAD, str(folder)]
    done = subprocess.run(command, cwd=ROOT, input=json.dumps(every), capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def switches(
    store: ModelStore, placed: Mapping[str, Mapping[str, str]], client: httpx.Client, row: object
) -> tuple[list[float], list[float]]:
    """Move ten models to a version that is not in memory, and back to the one before, which is; ms each."""
    cold, warm = [], []
    for model in list(placed)[:10]:
        for generation, live, before, into in ((2, "2", "1", cold), (3, "1", "2", warm)):
            started = time.perf_counter()
            move(store, placed[model], Routing(model, generation, live, previous=before))
            while client.post(f"/models/{model}/predict", json={"rows": [row]}).headers["x-prodecks-version"] != live:
                pass
            into.append((time.perf_counter() - started) * 1e3)
    return cold, warm


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--versions", type=int, default=10)
    given = parser.parse_args()
    trained = make(BENCH / "model")
    row = json.loads((trained / "rows.json").read_text())[0]
    with tempfile.TemporaryDirectory(dir=BENCH) as place:
        folder = Path(place) / "serving"
        placed = fill(trained, folder, given.models, given.versions)
        every = load_all(folder, placed)
        print(
            f"{given.models * given.versions:,} versions in one process: {every['load_s']:.1f} s, {every['rss_mb']:,.0f} MB"
        )
        port, started = free_port(), time.perf_counter()
        command = [sys.executable, ROOT / "run.py", "serve", "--port", str(port)]
        process = subprocess.Popen(command, env={**os.environ, "PRODECKS_VAR": place}, stderr=subprocess.DEVNULL)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                while not _ready(client):
                    assert process.poll() is None, "the gateway ended"
                    time.sleep(0.05)
                start = time.perf_counter() - started
                rss = psutil.Process(process.pid).memory_info().rss / 1e6
                cold, warm = switches(ModelStore(folder), placed, client, row)
        finally:
            process.terminate()
            process.wait()
    print(f"gateway of {given.models} models: ready after {start:.1f} s, {rss:,.0f} MB")
    print(
        f"traffic moved, median: {statistics.median(cold):.0f} ms to a version not in memory, {statistics.median(warm):.0f} ms back"
    )
    print(
        json.dumps(
            {
                "models": given.models, "versions": given.versions, "rss_mb": round(every["rss_mb"], 1),
                "load_s": round(every["load_s"], 2), "switch_ms": round(statistics.median(cold), 1),
                "warm_switch_ms": round(statistics.median(warm), 1), "gateway_rss_mb": round(rss, 1),
                "gateway_start_s": round(start, 2),
            }
        )
    )  # fmt: skip


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/v2/health/ready").status_code == 200
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main()
