"""How soon a version that turns bad has lost its users: from the first bad request to the last one on it (R8.1).

A real gateway and a real `operate`, looking every second as they do by default, and 200 requests/s in an open loop: a
request is sent when its time has come, whatever became of those before. Versions are hand-made twins that answer well
until rows of a certain kind arrive, so that the moment of the first bad request is known. Each is rolled back once.

    uv run --group dev python benchmarks/rollback.py [--rounds 3] [--good 15]

Prints a table, then one line of JSON of the slowest rollback of all: `detect_s` (first bad request to rollback on record),
`switch_s` (to the last request on the bad version), `bad_requests`, `ratio`, their sum to the limit of ten seconds, and
`rate`, the requests/s that this machine really sent; and the slowest of each case.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import random
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from adapters.prediction_log import Prediction, read
from benchmarks.open_loop import OpenLoop
from lifecycle.rollout import Stage
from tests.cli.conftest import MODEL
from tests.cli.hand_made import World, operating, register, row, twin
from tests.cli.test_serve import serving

RATE, LIMIT_S, GIVE_UP_S = 200, 10.0, 60.0
# A quick machine makes the slow version quicker than the default floor.
PLAN = "rollout: {hold: 1h, min_requests: 500, steps: [0.1, 0.5, 1.0], rollback: {latency_floor_ms: 10}}\n"
CASES: dict[str, tuple[dict[str, Any], float, Stage]] = {
    # The twin's fault, the share of rows that meet it, and how far the version is on its way.
    "fails, live": ({"fails": True}, 1.0, Stage.LIVE),
    "fails on 3 of 10, live": ({"fails": True}, 0.3, Stage.LIVE),
    "slow, live": ({"slow": 20}, 1.0, Stage.LIVE),
    "fails, canary of 10 %": ({"fails": True}, 1.0, Stage.CANARY),
    "slow, canary of 10 %": ({"slow": 20}, 1.0, Stage.CANARY),
}


class Turning:
    """Rows of entities drawn at random, a share of them of the bad kind from some moment on."""

    def __init__(self) -> None:
        self._chance = random.Random(0)
        self.bad_share = 0.0
        self.first_bad = 0.0

    def __call__(self, _: int) -> dict[str, object]:
        """The next row."""
        bad = self._chance.random() < self.bad_share
        if bad and not self.first_bad:
            self.first_bad = time.time()
        return row(self._chance.randrange(10**9), bad=bad)


def begin(world: World, version: str, stage: Stage) -> None:
    """Put a version where it is to turn bad."""
    world.deploy(version, live=stage is Stage.LIVE)
    if stage is Stage.CANARY:
        state = world.current().state
        world.change(dataclasses.replace(state, stage=Stage.CANARY, since=datetime.now(UTC), reasons=("a canary",)))


async def one(world: World, address: str, version: str, share: float, stage: Stage, good_s: float) -> dict[str, float]:
    """Let a version turn bad after a good time; how it went."""
    begin(world, version, stage)
    rows, stop = Turning(), asyncio.Event()
    load = OpenLoop(address, RATE, rows)
    running = asyncio.create_task(load.run(good_s + 2 * GIVE_UP_S, stop))
    await asyncio.sleep(good_s)
    world.told.clear()
    rows.bad_share = share
    end = time.monotonic() + GIVE_UP_S
    while not any(f"version {version}: rolled_back (read back" in line for line in world.told):
        if time.monotonic() > end:
            raise SystemExit(f"version {version} was not rolled back in {GIVE_UP_S:g} s: {world.told}")
        await asyncio.sleep(0.02)
    told = time.time()
    await asyncio.sleep(1.0)
    stop.set()
    await running
    load.close()
    change = world.current()
    assert change.state.stage is Stage.ROLLED_BACK
    found = (entry.record for entry in read(world.place.var / "serving" / "log"))
    moments = [
        one.at for one in found
        if isinstance(one, Prediction) and one.version == version and one.role != "shadow" and one.at >= rows.first_bad
    ]  # fmt: skip
    recorded, last = change.at.timestamp(), max(moments)
    return {
        "detect_s": recorded - rows.first_bad,
        "switch_s": max(0.0, last - recorded),
        "bad_requests": len(moments),
        "told_s": told - rows.first_bad,
        "rate": load.sent_rate,
        "ratio": (max(last, recorded) - rows.first_bad) / LIMIT_S,
    }


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--good", type=float, default=15.0, help="seconds of good answers before it turns bad")
    asked = parser.parse_args()
    plan = [(name, *CASES[name]) for _ in range(asked.rounds) for name in CASES]
    twins = {"1": twin()} | {str(number): twin(0.1, **fault) for number, (_, fault, _, _) in enumerate(plan, 2)}
    slowest: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        database = register(Path(folder) / "registry", twins)
        world = World.make(Path(folder) / "world", database, MODEL + PLAN, versions=twins)
        world.deploy("1")
        world.carry_out()
        with serving(world.place) as gateway, operating(world, gateway.address, every=1.0):
            world.wait_told("version 1: live (read back")
            print(f"{RATE} requests/s, {asked.good:g} s of good answers first")
            print(f"{'case':24} {'detect s':>9} {'switch s':>9} {'bad requests':>13} {'told s':>7} {'sent/s':>7}")
            for number, (name, _, share, stage) in enumerate(plan, 2):
                seen = asyncio.run(one(world, gateway.address, str(number), share, stage, asked.good))
                print(
                    f"{name:24} {seen['detect_s']:9.2f} {seen['switch_s']:9.2f} {seen['bad_requests']:13.0f} "
                    f"{seen['told_s']:7.2f} {seen['rate']:7.0f}",
                    flush=True,
                )
                if name not in slowest or seen["ratio"] > slowest[name]["ratio"]:
                    slowest[name] = seen
    worst = max(slowest.values(), key=lambda seen: seen["ratio"])
    cases = {name: {key: round(value, 3) for key, value in seen.items()} for name, seen in slowest.items()}
    print(json.dumps({key: round(value, 3) for key, value in worst.items()} | {"cases": cases}))


if __name__ == "__main__":
    main()
