"""Mutation score of lifecycle/: the share of small faults, planted one at a time, that the unit tests notice.

All mutants of the core would take an hour, so a seeded random sample of them is tried; the score is told with its 95 %
interval. Which mutants survived stands in mutants/survivors.txt; `mutmut show NAME` prints one.

    uv run python .ci/mutation.py [--sample 400] [--seed 0] [--only PATTERN] [--floor 0.8]
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "mutants"
# A mutant that makes the tests hang is noticed too. "no tests", "survived" and "suspicious" are not.
NOTICED = {"killed", "timeout", "caught by type check"}
# Any mutant will do: mutmut makes all of them, runs the clean suite, and then tries this one.
FIRST = "lifecycle.findings.x_worst__mutmut_1"


def mutmut(names: list[str]) -> None:
    """Run mutmut on some mutants; its spinner goes to a file, which is shown when it fails."""
    environment = {**os.environ, "HYPOTHESIS_PROFILE": "mutation", "OMP_NUM_THREADS": "1"}
    log = FOLDER.with_name("mutants.log")
    with log.open("w") as output:
        done = subprocess.run(
            [Path(sys.executable).with_name("mutmut"), "run", *names],
            cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    told = log.read_text().replace("\r", "\n")
    log.unlink()
    if done.returncode != 0:
        sys.exit(f"mutmut failed:\n{told[-6000:]}")


def results() -> dict[str, str]:
    """Status of every mutant by its name."""
    from mutmut.stats import status_by_exit_code

    found: dict[str, str] = {}
    for meta in sorted((FOLDER / "lifecycle").rglob("*.meta")):
        codes = json.loads(meta.read_text())["exit_code_by_key"]
        found.update({name: status_by_exit_code[code] for name, code in codes.items()})
    return found


def interval(noticed: int, tried: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z = 1.96
    share = noticed / tried
    centre = share + z * z / (2 * tried)
    half = z * math.sqrt(share * (1 - share) / tried + z * z / (4 * tried * tried))
    return (centre - half) / (1 + z * z / tried), (centre + half) / (1 + z * z / tried)


def main() -> int:
    """Plant, try, tell; 1 when the score is below the floor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=400, help="mutants tried; 0 for all")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another sample")
    parser.add_argument("--only", default="*", help="pattern of mutants to choose from, as in '*.gates.*'")
    parser.add_argument("--floor", type=float, default=0.80, help="least accepted score")
    arguments = parser.parse_args()

    began = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    mutmut([FIRST])
    names = [name for name in sorted(results()) if fnmatch.fnmatch(name, arguments.only)]
    if not names:
        sys.exit(f"no mutant is called {arguments.only}")
    wanted = arguments.sample or len(names)
    chosen = sorted(random.Random(arguments.seed).sample(names, min(wanted, len(names))))
    print(f"{len(names)} mutants, {len(chosen)} of them tried (seed {arguments.seed})", flush=True)
    mutmut(chosen)

    status = results()
    by_module: dict[str, Counter[str]] = {}
    for name in chosen:
        by_module.setdefault(name.split(".")[1], Counter())[status[name]] += 1
    print(f"{'module':<16}{'tried':>7}{'noticed':>9}{'score':>8}")
    for module, counts in sorted(by_module.items()):
        tried, noticed = counts.total(), sum(counts[kind] for kind in NOTICED)
        others = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()) if kind not in NOTICED)
        print(f"{module:<16}{tried:>7}{noticed:>9}{noticed / tried:>8.0%}  {others}")
    survivors = [name for name in chosen if status[name] not in NOTICED]
    (FOLDER / "survivors.txt").write_text("".join(f"{status[name]}: {name}\n" for name in survivors))
    noticed = len(chosen) - len(survivors)
    score = noticed / len(chosen)
    low, high = interval(noticed, len(chosen))
    print(
        f"mutation score {score:.1%} ({noticed} of {len(chosen)}, 95 % interval {low:.1%} to {high:.1%}; "
        f"floor {arguments.floor:.0%}), {time.monotonic() - began:.0f} s"
    )
    return 0 if score >= arguments.floor else 1


if __name__ == "__main__":
    sys.exit(main())
