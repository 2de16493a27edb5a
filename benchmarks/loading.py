"""What loading a version does to the others: a model's latency with and without another model's versions being loaded (R4.1).

A real gateway, one model under an open loop of requests, and a second model whose routing table is written again and
again so that each time a version is read, verified, loaded and tried. Quiet and loading stretches take turns in the same
run. Twins are hand-made, the loaded one with a layer of weights of the given size.

    uv run --group dev python benchmarks/loading.py [--seconds 10] [--turns 5] [--megabytes 4]

Prints a table, then one line of JSON: `p99_ms` and `p99_loading_ms` (medians over the turns), their `ratio`, and `load_s`,
the median time of a load; two of them a second are far more than any rollout asks for.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import onnx
from onnx import helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from adapters.model_store import TWIN, ModelStore, Table, digests
from benchmarks.open_loop import OpenLoop
from lifecycle.manifest import describe
from lifecycle.traffic import Routing
from tests.cli.conftest import Place
from tests.cli.hand_made import MODEL, World, row, twin
from tests.cli.test_serve import serving

RATE = 200
EVERY_S = 0.5


def heavy(megabytes: float, shift: float) -> bytes:
    """The hand-made twin with a square layer of weights that every row passes."""
    model = onnx.load_model_from_string(twin(shift))
    side = int((megabytes * 1e6 / 8) ** 0.5)
    weights = np.random.default_rng(0).normal(size=(side, side))
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.zeros((1, side)), "row"),
            numpy_helper.from_array(np.array(0.0), "no"),
        ]
    )
    for node in model.graph.node:
        node.output[:] = ["before" if name == "score" else name for name in node.output]
    model.graph.node.extend(
        [
            helper.make_node("MatMul", ["row", "weights"], ["passed"]),
            helper.make_node("ReduceSum", ["passed"], ["all"], keepdims=0),
            helper.make_node("Mul", ["all", "no"], ["none"]),
            helper.make_node("Add", ["before", "none"], ["score"]),
        ]
    )
    return model.SerializeToString()


async def p99(address: str, seconds: float) -> float:
    """Of a stretch, in s."""
    load = OpenLoop(address, RATE, row)
    await load.run(seconds)
    load.close()
    assert {status for status, _ in load.answered} == {200}
    return float(np.quantile([taken for _, taken in load.answered], 0.99))


def place(store: ModelStore, world: World, model: str, version: str, content: bytes) -> str:
    """Put a version of a model of that name into the store; its digest."""
    spec = world.spec.model_copy(update={"name": model})
    tags = {"content": f"{model}{version}", "threshold": "0.5"}
    return store.place(describe(spec, version, tags, "onnx", digests({TWIN: content})), {TWIN: content})


def keep_loading(folder: Path, loaded: dict[str, str], start: int, seconds: float) -> None:
    """Let the gateway load one version after the other, for so long."""
    store, end = ModelStore(folder), time.monotonic() + seconds
    for generation in itertools.count(start):
        version = sorted(loaded)[generation % len(loaded)]
        store.write_table(Table(Routing("other", generation, version), {version: loaded[version]}))
        time.sleep(EVERY_S)
        if time.monotonic() > end:
            return


def measure(
    address: str, store: ModelStore, loaded: dict[str, str], seconds: float, turns: int
) -> tuple[list[float], list[float], list[float]]:
    """P99 of quiet and of loading stretches in s, and the time of a load in each."""
    quiet, loading, times = [], [], []
    asyncio.run(p99(address, 2.0))
    for turn in range(turns):
        quiet.append(asyncio.run(p99(address, seconds)))
        # In a process of its own: it must not slow the client.
        other = multiprocessing.Process(target=keep_loading, args=(store.folder, loaded, 1 + turn * 1_000, seconds))
        other.start()
        loading.append(asyncio.run(p99(address, seconds)))
        other.join()
        state = httpx.get(f"{address}/operate/state").json()["models"]["other"]
        times += [one["load_seconds"] for one in state["versions"].values()]
    return quiet, loading, times


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--megabytes", type=float, default=4.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        here = Place(Path(folder))
        for name in ("models", "home", "var"):
            (here.folder / name).mkdir()
        (here.models / "churn.yaml").write_text(MODEL)
        world, store = World(here), ModelStore(here.var / "serving")
        first = place(store, world, "churn", "1", twin())
        store.write_table(Table(Routing("churn", 1, "1"), {"1": first}))
        loaded = {version: place(store, world, "other", version, heavy(asked.megabytes, 0.1)) for version in "12"}
        with serving(here) as gateway:
            quiet, loading, times = measure(gateway.address, store, loaded, asked.seconds, asked.turns)
    print(f"P99 of {RATE} requests/s in ms, by turns; a load of {asked.megabytes:g} MB every {EVERY_S:g} s")
    print("  quiet   " + " ".join(f"{one * 1e3:7.2f}" for one in quiet))
    print("  loading " + " ".join(f"{one * 1e3:7.2f}" for one in loading))
    before, during = float(np.median(quiet)), float(np.median(loading))
    print(
        json.dumps(
            {
                "p99_ms": round(before * 1e3, 3), "p99_loading_ms": round(during * 1e3, 3), "ratio": round(during / before, 3),
                "load_s": round(float(np.median(times)), 4),
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
