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
from lifecycle.rollout_judge import ALPHA, SCORE_BINS, SLOW_SHARE, TESTS, WORSE_ERRORS, Counts, judge
from lifecycle.sequential import log_e_above, mean_margin
from lifecycle.spec import Rollout

CANDIDATE_ROWS, LIVE_ROWS, TICKS = 50, 450, 240
BASE_ERRORS, BASE_WRONG, BASE_AUC, LABELLED, PAIRED = 0.01, 0.30, 0.75, 0.5, 0.2
PLAN = Rollout()
LIMIT = math.log(TESTS / ALPHA)
BATCH = 500
MARGINS, MOST_FAILURES = (0.02, 0.05, 0.10), 60


def log_e(events: np.ndarray, trials: np.ndarray, bound: np.ndarray | float) -> np.ndarray:
    """`lifecycle.sequential.log_e_above` for arrays; compared with it at the start of every run."""
    a, b = events + 1.0, trials - events + 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        mixed = betaln(a, b) + np.log(betainc(b, a, 1 - np.asarray(bound))) - np.log1p(-np.asarray(bound))
        found = mixed - events * np.log(bound) - (trials - events) * np.log1p(-np.asarray(bound))
    return np.where(trials > 0, np.nan_to_num(found, nan=-np.inf), 0.0)


def simulate(
    rng: np.random.Generator,
    rollouts: int,
    errors: float = BASE_ERRORS,
    wrong: float = BASE_WRONG,
    auc: float = BASE_AUC,
) -> dict[str, np.ndarray]:
    """Counts between looks, of shape (rollouts, ticks), the scores' with their bins as a third axis."""
    size = (rollouts, TICKS)
    drawn: dict[str, np.ndarray] = {}
    for side, rows, rates in (
        ("", CANDIDATE_ROWS, (errors, 1 - wrong, auc)),
        ("_live", LIVE_ROWS, (BASE_ERRORS, 1 - BASE_WRONG, BASE_AUC)),
    ):
        labelled, pairs = int(rows * LABELLED), int(rows * PAIRED)
        drawn[f"errors{side}"] = rng.binomial(rows, rates[0], size)
        drawn[f"right{side}"] = rng.binomial(labelled, rates[1], size)
        drawn[f"ordered{side}"] = rng.binomial(pairs, rates[2], size)
        drawn[f"scores{side}"] = rng.multinomial(rows, [1 / SCORE_BINS] * SCORE_BINS, size).astype(np.int32)
    drawn["slow"] = rng.binomial(CANDIDATE_ROWS, 0.02, size)
    # A right decision is worth the whole span here, a wrong one nothing.
    return drawn | {"worth": drawn["right"], "worth_live": drawn["right_live"]}


def ours(seen: dict[str, np.ndarray]) -> np.ndarray:
    """Tick at which each rollout is rolled back, TICKS where it never is: the tests of `lifecycle.rollout_judge.judge`."""
    ticks = np.arange(1, TICKS + 1)
    rows, rows_live = ticks * CANDIDATE_ROWS, ticks * LIVE_ROWS
    total = {name: counts.cumsum(axis=1) for name, counts in seen.items()}
    labelled, labelled_live = ticks * int(CANDIDATE_ROWS * LABELLED), ticks * int(LIVE_ROWS * LABELLED)
    pairs, pairs_live = ticks * int(CANDIDATE_ROWS * PAIRED), ticks * int(LIVE_ROWS * PAIRED)
    bounds = PLAN.rollback
    ratio = 1 / (1 - bounds.performance_drop)

    def share(weight: float, its: np.ndarray, other: np.ndarray) -> np.ndarray:
        return weight * its / (weight * its + other)

    everything = np.broadcast_to(rows, total["errors"].shape)
    failed = log_e(total["errors"], everything, bounds.error_rate) >= LIMIT
    failed |= log_e(total["slow"], everything, SLOW_SHARE) >= LIMIT
    for bad, good, odds in (
        (total["errors"], total["errors_live"], share(WORSE_ERRORS, rows, rows_live)),
        (total["right_live"], total["right"], share(ratio, labelled_live, labelled)),
        (total["ordered_live"], total["ordered"], share(ratio, pairs_live, pairs)),
    ):
        failed |= log_e(bad, bad + good, odds) >= LIMIT
    each = ALPHA / TESTS
    lost = total["worth_live"] / labelled_live - total["worth"] / labelled
    failed |= lost - margins(labelled, each / 2) - margins(labelled_live, each / 2) > bounds.value_drop
    below = [
        total[name].cumsum(axis=2)[..., :-1] / count[:, None]
        for name, count in (("scores", rows), ("scores_live", rows_live))
    ]
    each = each / (SCORE_BINS - 1) / 2
    shift = np.abs(below[0] - below[1]).max(axis=2)
    failed |= shift - margins(rows, each) - margins(rows_live, each) > bounds.score_shift
    return np.where(failed.any(axis=1), failed.argmax(axis=1), TICKS)


def margins(counts: np.ndarray, alpha: float) -> np.ndarray:
    """`lifecycle.sequential.mean_margin` of each count."""
    return np.array([mean_margin(int(count), alpha) for count in counts])


def stopped_at(rng: np.random.Generator, rollouts: int, **rates: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Ticks of our judge over many rollouts, and the candidates' errors, for the judges beside it."""
    stopped, kept = [], []
    for start in range(0, rollouts, BATCH):
        seen = simulate(rng, min(BATCH, rollouts - start), **rates)
        stopped.append(ours(seen))
        kept.append(seen["errors"])
    return np.concatenate(stopped), {"errors": np.concatenate(kept)}


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
    seen = simulate(rng, 40, 0.04, 0.45, 0.6)
    stopped = ours(seen)
    for place in range(40):
        total = {name: counts[place].cumsum(axis=0) for name, counts in seen.items()}
        for tick in range(0, TICKS, 20):
            mine, live = (
                Counts(
                    (tick + 1) * rows,
                    int(total[f"errors{side}"][tick]),
                    (tick + 1) * rows if not side else 0,
                    int(total["slow"][tick]) if not side else 0,
                    (tick + 1) * int(rows * LABELLED),
                    int(total[f"right{side}"][tick]),
                    (tick + 1) * int(rows * PAIRED),
                    float(total[f"ordered{side}"][tick]),
                    float(total[f"worth{side}"][tick]),
                    scores=tuple(total[f"scores{side}"][tick].tolist()),
                )
                for side, rows in (("", CANDIDATE_ROWS), ("_live", LIVE_ROWS))
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
    stopped, equal = stopped_at(rng, asked.rollouts)
    rate = float((stopped < TICKS).mean())
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
        stopped, worse = stopped_at(rng, 1_000, errors=BASE_ERRORS + points / 100)
        detect[str(points)] = half(stopped)
        best = [half(failure_count(worse, margin, failures)) for margin, failures, false in counts if false <= ALPHA]
        plain[str(points)] = min((one for one in best if one is not None), default=None)
        print(f"  errors {points:2d} points more: ours {detect[str(points)]}, best failure count {plain[str(points)]}")
    bound = PLAN.rollback.performance_drop
    wrong: dict[str, int | None] = {}
    ranking: dict[str, int | None] = {}
    for percent in (5, 10, 20, 30, 40):
        left = 1 - percent / 100
        wrong[str(percent)] = half(stopped_at(rng, 300, wrong=1 - (1 - BASE_WRONG) * left)[0])
        ranking[str(percent)] = half(stopped_at(rng, 300, auc=BASE_AUC * left)[0])
        print(
            f"  right decisions {percent:2d} % fewer (bounds: {bound:.0%}, and {PLAN.rollback.value_drop:.0%} of the value's span): "
            f"ours {wrong[str(percent)]}; ROC AUC {percent} % lower (bound {bound:.0%}): ours {ranking[str(percent)]}"
        )
    print(f"{time.perf_counter() - started:.0f} s")
    print(
        json.dumps(
            {
                "false_rollback_rate": rate, "alpha": ALPHA, "detect_n": detect, "failure_count_detect_n": plain,
                "plain_comparison_false_rollback_rate": once, "performance_detect_n": wrong, "ranking_detect_n": ranking,
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
