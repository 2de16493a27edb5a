"""How often equal versions are rolled back, and how soon worse ones are, by our judge and by a plain failure count (R8.1).

Rollouts are simulated answer by answer counts: each tick brings rows to the candidate and to the live version, and both
judges look at every tick. The plain failure count is the analysis that Argo Rollouts and Flagger make: at each interval
the candidate's rate of that interval is compared with a threshold, and a number of failed intervals rolls back. Its
threshold is the live version's rate plus a margin, and its number of failures the smallest that keeps its false rollbacks
at our alpha over the same rollouts; where none does, it is left at the largest tried, and its own rate is told.

    uv run python benchmarks/judge.py [--rollouts 10000]

Prints tables, then one line of JSON: `false_rollback_rate`, `alpha`, `detect_n` and `failure_count_detect_n` (the
candidate's rows until half of the worse versions are rolled back, by percentage points of error rate), and the same for
wrong decisions relatively worse.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
from scipy.special import betainc, betaln

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lifecycle.findings import Verdict
from lifecycle.rollout import ALPHA, WORSE_ERRORS, Counts, judge
from lifecycle.sequential import log_e_above
from lifecycle.spec import Rollout

CANDIDATE_ROWS, LIVE_ROWS, TICKS = 50, 450, 240
BASE_ERRORS, BASE_WRONG, LABELLED = 0.01, 0.30, 0.5
PLAN = Rollout()
LIMIT = math.log(4 / ALPHA)
MARGINS, MOST_FAILURES = (0.02, 0.05, 0.10), 60


def log_e(events: np.ndarray, trials: np.ndarray, bound: np.ndarray | float) -> np.ndarray:
    """`lifecycle.sequential.log_e_above` for arrays; compared with it at the start of every run."""
    a, b = events + 1.0, trials - events + 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        mixed = betaln(a, b) + np.log(betainc(b, a, 1 - np.asarray(bound))) - np.log1p(-np.asarray(bound))
        found = mixed - events * np.log(bound) - (trials - events) * np.log1p(-np.asarray(bound))
    return np.where(trials > 0, np.nan_to_num(found, nan=-np.inf), 0.0)


def simulate(rng: np.random.Generator, rollouts: int, errors: float, wrong: float) -> dict[str, np.ndarray]:
    """Cumulative counts, each of shape (rollouts, ticks)."""
    size = (rollouts, TICKS)
    return {
        "errors": rng.binomial(CANDIDATE_ROWS, errors, size),
        "right": rng.binomial(int(CANDIDATE_ROWS * LABELLED), 1 - wrong, size),
        "errors_live": rng.binomial(LIVE_ROWS, BASE_ERRORS, size),
        "right_live": rng.binomial(int(LIVE_ROWS * LABELLED), 1 - BASE_WRONG, size),
        "slow": rng.binomial(CANDIDATE_ROWS, 0.02, size),
    }


def ours(seen: dict[str, np.ndarray]) -> np.ndarray:
    """Tick at which each rollout is rolled back, TICKS where it never is: the four tests of `lifecycle.rollout.judge`."""
    ticks = np.arange(1, TICKS + 1)
    rows, rows_live = ticks * CANDIDATE_ROWS, ticks * LIVE_ROWS
    total = {name: counts.cumsum(axis=1) for name, counts in seen.items()}
    labelled, labelled_live = (rows * LABELLED).astype(int), (rows_live * LABELLED).astype(int)
    share = WORSE_ERRORS * rows / (WORSE_ERRORS * rows + rows_live)
    ratio = 1 / (1 - PLAN.rollback.performance_drop)
    share_right = ratio * labelled_live / (ratio * labelled_live + labelled)
    failed = log_e(total["errors"], np.broadcast_to(rows, total["errors"].shape), PLAN.rollback.error_rate) >= LIMIT
    failed |= log_e(total["slow"], np.broadcast_to(rows, total["slow"].shape), 0.05) >= LIMIT
    failed |= log_e(total["errors"], total["errors"] + total["errors_live"], share) >= LIMIT
    failed |= log_e(total["right_live"], total["right_live"] + total["right"], share_right) >= LIMIT
    return np.where(failed.any(axis=1), failed.argmax(axis=1), TICKS)


def failure_count(seen: dict[str, np.ndarray], margin: float, failures: int) -> np.ndarray:
    """Tick at which a plain count of failed intervals rolls back, TICKS where it never does."""
    failed = (seen["errors"] / CANDIDATE_ROWS > BASE_ERRORS + margin).cumsum(axis=1) >= failures
    return np.where(failed.any(axis=1), failed.argmax(axis=1), TICKS)


def tuned(seen: dict[str, np.ndarray]) -> list[tuple[float, int, float]]:
    """For each margin the smallest count of failures with at most alpha false rollbacks, and its rate."""
    found = []
    for margin in MARGINS:
        for failures in range(1, MOST_FAILURES + 1):
            rate = float((failure_count(seen, margin, failures) < TICKS).mean())
            if rate <= ALPHA:
                break
        found.append((margin, failures, rate))
    return found


def half(stopped: np.ndarray) -> int | None:
    """The candidate's rows until half of the rollouts were stopped; None when fewer ever were."""
    tick = float(np.quantile(stopped, 0.5))
    return None if tick >= TICKS else int((tick + 1) * CANDIDATE_ROWS)


def check(rng: np.random.Generator) -> None:
    """The fast formulas here are the judge's: compared on counts drawn at random."""
    for _ in range(300):
        trials = int(rng.integers(1, 5_000))
        events, bound = int(rng.integers(0, trials + 1)), float(rng.uniform(0.01, 0.99))
        fast, slow = float(log_e(np.array(events), np.array(trials), bound)), log_e_above(events, trials, bound)
        assert (fast >= LIMIT) == (slow >= LIMIT), (events, trials, bound)
        assert slow < 0 or abs(fast - slow) < 1e-6, (events, trials, bound)
    seen = simulate(rng, 40, 0.04, 0.45)
    stopped = ours(seen)
    for place in range(40):
        total = {name: counts[place].cumsum() for name, counts in seen.items()}
        for tick in range(0, TICKS, 20):
            rows, rows_live = (tick + 1) * CANDIDATE_ROWS, (tick + 1) * LIVE_ROWS
            mine = Counts(
                rows,
                int(total["errors"][tick]),
                int(total["slow"][tick]),
                int(rows * LABELLED),
                int(total["right"][tick]),
            )
            live = Counts(
                rows_live, int(total["errors_live"][tick]), 0, int(rows_live * LABELLED), int(total["right_live"][tick])
            )
            if any(one.verdict is Verdict.FAIL for one in judge(PLAN, mine, live)):
                assert stopped[place] <= tick
            elif stopped[place] == tick:
                raise AssertionError(f"rollout {place} at tick {tick}")


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rollouts", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng = np.random.default_rng(asked.seed)
    started = time.perf_counter()
    check(rng)
    equal = simulate(rng, asked.rollouts, BASE_ERRORS, BASE_WRONG)
    rate = float((ours(equal) < TICKS).mean())
    print(
        f"{asked.rollouts:,} equal rollouts of {TICKS} looks, {CANDIDATE_ROWS} rows of the candidate and {LIVE_ROWS} of the live version between looks"
    )
    print(f"  rolled back by our judge: {rate:.2%}, declared at most {ALPHA:.0%}")
    once = float((failure_count(equal, 0.02, 1) < TICKS).mean())
    print(f"  by a plain comparison at each look (2 points above, first failure): {once:.1%}")
    counts = tuned(equal)
    for margin, failures, false in counts:
        print(f"  by a failure count {margin:.0%} above the live rate, {failures} failures: {false:.2%}")
    print("candidate's rows until half of the worse versions are rolled back")
    detect: dict[str, int | None] = {}
    plain: dict[str, int | None] = {}
    for points in (5, 10, 20):
        worse = simulate(rng, 1_000, BASE_ERRORS + points / 100, BASE_WRONG)
        detect[str(points)] = half(ours(worse))
        best = [half(failure_count(worse, margin, failures)) for margin, failures, false in counts if false <= ALPHA]
        plain[str(points)] = min((one for one in best if one is not None), default=None)
        print(f"  errors {points:2d} points more: ours {detect[str(points)]}, best failure count {plain[str(points)]}")
    wrong: dict[str, int | None] = {}
    for percent in (5, 10, 20, 30, 40):
        right = (1 - BASE_WRONG) * (1 - percent / 100)
        wrong[str(percent)] = half(ours(simulate(rng, 300, BASE_ERRORS, 1 - right)))
        print(
            f"  right decisions {percent:2d} % fewer (bound {PLAN.rollback.performance_drop:.0%}): ours {wrong[str(percent)]}"
        )
    print(f"{time.perf_counter() - started:.0f} s")
    print(
        json.dumps(
            {
                "false_rollback_rate": rate, "alpha": ALPHA, "detect_n": detect, "failure_count_detect_n": plain,
                "plain_comparison_false_rollback_rate": once, "performance_detect_n": wrong,
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
