"""Drift of a million rows against a million, beside Evidently's preset: ``uv run python benchmarks/drift.py``.

Both sides get the same two tables of 20 numbers and 10 categories, a twentieth of each column missing, in a process of
its own, so that each one's peak memory is its own: libraries and tables included. Ours measures Wasserstein, KS,
Jensen-Shannon, PSI, Kullback-Leibler, missing shares, new and vanished categories and tests of each; the preset measures
Wasserstein and Kullback-Leibler. The distances that both measure are compared. Last line: JSON.

``--stream ROWS`` instead reads a window of so many rows part by part into the mergeable state, and tells time and memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lifecycle.distribution import SKETCH, Numbers, WindowState, merged  # noqa: E402
from lifecycle.drift import compare_frames  # noqa: E402

NUMBERS = [f"number_{place}" for place in range(20)]
CATEGORIES = [f"category_{place}" for place in range(10)]
THREADS = 2
TIMES = 3
PART = 1_000_000


def table(rows: int, seed: int, moved: float) -> pd.DataFrame:
    """Columns of every common shape; `moved` shifts a third of them."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {}
    for place, name in enumerate(NUMBERS):
        shift = moved if place % 3 == 0 else 0.0
        values = rng.normal(shift, 1.0, rows)
        if place % 4 in (1, 2):
            np.exp(values, out=values)
        if place % 4 == 2:
            np.floor(10 * values, out=values)
        if place % 4 == 3:
            values = 1 / (1 + np.exp(-values))
        values[rng.random(rows) < 0.05] = np.nan
        columns[name] = values
    for place, name in enumerate(CATEGORIES):
        many = (2, 3, 5, 8, 12, 20, 50, 100, 200, 500)[place]
        names = np.array([*(f"{name} value {value}" for value in range(many)), None], dtype=object)
        skew = 1 + (moved if place % 3 == 0 else 0.0)
        codes = (many * rng.random(rows) ** skew).astype(np.int64)
        codes[rng.random(rows) < 0.05] = many
        columns[name] = names[codes]
    return pd.DataFrame(columns, copy=False)  # a copy would be the peak of either side


def ours(rows: int, *, prepared: bool) -> dict[str, Any]:
    """Our side; with the reference's state made beforehand, or with nothing."""
    reference: WindowState | pd.DataFrame = table(rows, 1, 0.0)
    if prepared:
        reference = WindowState.of(reference, NUMBERS, CATEGORIES, threads=THREADS)
    current = table(rows, 2, 0.2)
    seconds, cpu = [], []
    for _ in range(TIMES):
        start, used = time.perf_counter(), time.process_time()
        found = compare_frames(reference, current, NUMBERS, CATEGORIES, threads=THREADS)
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    return {
        "seconds": statistics.median(seconds),
        "cpu_seconds": statistics.median(cpu),
        "distances": {drift.column: drift.distance for drift in found},
    }


def peer(rows: int) -> dict[str, Any]:
    """Evidently's drift preset with the same distances."""
    os.environ["DO_NOT_TRACK"] = "1"
    warnings.simplefilter("ignore")
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    reference, current = table(rows, 1, 0.0), table(rows, 2, 0.2)
    definition = DataDefinition(numerical_columns=NUMBERS, categorical_columns=CATEGORIES)
    start, used = time.perf_counter(), time.process_time()
    report = Report([DataDriftPreset(num_method="wasserstein", cat_method="kl_div")])
    measured = report.run(Dataset.from_pandas(current, definition), Dataset.from_pandas(reference, definition))
    seconds, cpu = time.perf_counter() - start, time.process_time() - used
    distances = {
        metric["config"]["column"]: float(metric["value"])
        for metric in measured.dict()["metrics"]
        if "column" in metric["config"]
    }
    return {"seconds": seconds, "cpu_seconds": cpu, "distances": distances}


def stream(rows: int) -> dict[str, Any]:
    """Read a window in parts of a million rows, the same ones again: time and memory do not depend on what is in them."""
    part = table(PART, 1, 0.0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    start = time.perf_counter()
    state = merged(
        WindowState.of(part.iloc[: rows - first], NUMBERS, CATEGORIES, size=SKETCH, threads=THREADS)
        for first in range(0, rows, PART)
    )
    seconds = time.perf_counter() - start
    return {
        "rows": state.rows,
        "seconds": round(seconds, 1),
        "rank_error": max(column.rank_error for column in state.columns.values() if isinstance(column, Numbers)),
        "state_mb": round(len(state.to_bytes()) / 1e6, 1),
        "peak_gb_before": round(before, 3),
    }


def alone(side: str, rows: int) -> dict[str, Any]:
    """Run one side in a process of its own."""
    command = [sys.executable, __file__, "--side", side, "--rows", str(rows)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{side}: {result['seconds']:.2f} s, {result['cpu_seconds']:.2f} s of processor, {result['peak_gb']:.2f} GB",
        flush=True,
    )
    return result


def main() -> None:
    """Run one side, a stream, or all sides and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--side", choices=["prepared", "unprepared", "peer"])
    parser.add_argument("--stream", type=int, metavar="ROWS")
    arguments = parser.parse_args()
    if arguments.side or arguments.stream:
        result = (
            stream(arguments.stream)
            if arguments.stream
            else peer(arguments.rows)
            if arguments.side == "peer"
            else ours(arguments.rows, prepared=arguments.side == "prepared")
        )
        result["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(result))
        return
    sides = {side: alone(side, arguments.rows) for side in ("prepared", "unprepared", "peer")}
    kept, fresh, other = sides["prepared"], sides["unprepared"], sides["peer"]
    apart = max(abs(kept["distances"][name] - value) for name, value in other["distances"].items())
    print(f"{len(other['distances'])} distances, at most {apart:.1e} apart")
    print(
        json.dumps(
            {
                "rows": arguments.rows,
                "seconds": round(kept["seconds"], 3),
                "seconds_unprepared": round(fresh["seconds"], 3),
                "peer_seconds": round(other["seconds"], 1),
                "ratio": round(other["seconds"] / kept["seconds"], 1),
                "ratio_unprepared": round(other["seconds"] / fresh["seconds"], 1),
                "peak_gb": round(max(kept["peak_gb"], fresh["peak_gb"]), 3),
                "peer_peak_gb": round(other["peak_gb"], 3),
                # Of the processor: what is left to compare by on a machine that others use too.
                "cpu_seconds": round(kept["cpu_seconds"], 3),
                "cpu_seconds_unprepared": round(fresh["cpu_seconds"], 3),
                "peer_cpu_seconds": round(other["cpu_seconds"], 1),
                "largest_difference": apart,
            }
        )
    )


if __name__ == "__main__":
    main()
