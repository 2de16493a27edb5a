"""The full training pipeline on a million rows beside tuned LightGBM: ``uv run --group bench python benchmarks/train_scale.py``.

Ours is the command an operator types, ``run.py --pipeline train``, on a member-retention table of 20 numbers and 10
categories: fetch, validation, split, drift report, tuning, fit, evaluation, gates, registration, in a process of its
own. Its wall time is from start to exit. The peer is LightGBM on the very same snapshot, split and folds, tuned by
Optuna with the same number of trials, the same sampler and pruner (newest fold first), early stopping, and bins made
once for each fold; its wall time is tuning, the final fit and scoring, and nothing else. Last line: JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from adapters.model_files import load_model  # noqa: E402
from adapters.source import fetch  # noqa: E402
from adapters.tuning import KEPT_PERCENT, STARTUP_TRIALS  # noqa: E402
from lifecycle.members import CATEGORICAL, KEY, NUMERIC, OUTCOME, TIMESTAMP, MemberPlan, generate  # noqa: E402
from lifecycle.metrics import roc_auc  # noqa: E402
from lifecycle.spec import ModelSpec  # noqa: E402
from lifecycle.splitting import split  # noqa: E402

START, END, AS_OF = (
    datetime(2025, 1, 10, tzinfo=UTC),
    datetime(2025, 6, 28, tzinfo=UTC),
    datetime(2025, 7, 1, tzinfo=UTC),
)
PART = 200_000
MOST_TREES, PATIENCE = 500, 10
REJECTED = 3


def make_source(path: Path, rows: int) -> None:
    """Write the table part by part, so that the generator's memory does not count."""
    import duckdb

    with duckdb.connect(str(path)) as database:
        for first in range(0, rows, PART):
            part = generate(MemberPlan(label_noise=0.02), min(PART, rows - first), 7, START, END, first=first).frame
            part[TIMESTAMP] = part[TIMESTAMP].dt.tz_localize(None)
            database.register("part", part)
            verb = "CREATE TABLE members AS" if first == 0 else "INSERT INTO members"
            database.execute(f"{verb} SELECT * FROM part")
            database.unregister("part")


def model_file(rows: int, trials: int, folds: int) -> str:
    """Write the model file: what a team would write for a table of this size."""
    features = [f"  - {{name: {one.name}, type: numeric, max_missing: 0.5}}" for one in NUMERIC]
    features += [f"  - {{name: {one.name}, type: categorical, max_missing: 0.5}}" for one in CATEGORICAL]
    return f"""
name: members
description: Probability that a member leaves.
owner: {{team: benchmarks, contact: "#benchmarks"}}
tier: main
sensitivity: non_sensitive
source: {{table: members, timestamp: {TIMESTAMP}, entity_key: {KEY}, max_rows: {rows}}}
label: {{column: {OUTCOME}, positive: churned, delay: 1d, meaning: leaves}}
features:
{chr(10).join(features)}
sensitive:
  - {{name: gender, column: gender}}
  - {{name: experience, column: experience}}
  - {{name: region, column: region}}
training:
  trials: {trials}
  batch_size: 2048
  patience: 1
  max_epochs: 5
  ensemble: 2
  search: {{units: [32, 64], layers: [1, 2], bins: [8, 16], learning_rate: {{low: 0.002, high: 0.01, log: true}}}}
  split: {{strategy: time, holdout: 0.2, folds: {folds}}}
evaluation:
  gates:
    - {{metric: roc_auc, min: 0.6}}
    - {{metric: roc_auc, against: prior, min_difference: 0.05}}
business: {{currency: USD, decision: offer a discount, true_positive: 20, false_positive: -5}}
"""


def ours(var: Path, seed: int) -> dict[str, Any]:
    """Run the pipeline as an operator does; wall seconds, peak memory and what the command told."""
    environment = {
        **os.environ,
        "PRODECKS_VAR": str(var),
        "PRODECKS_MODELS": str(var / "models"),
        "PRODECKS_SOURCE_URL": f"duckdb:///{var}/members.duckdb",
    }
    command = [sys.executable, "run.py", "--pipeline", "train", "--model", "members", "--json"]
    command += ["--as-of", AS_OF.isoformat(), "--seed", str(seed)]
    started = time.perf_counter()
    with (var / "told.json").open("w") as told:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=told)
        _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, REJECTED):
        raise SystemExit(f"the pipeline ended with {process.returncode}")
    return {"wall_s": wall, "peak_gb": usage.ru_maxrss / 1e6, **json.loads((var / "told.json").read_text())}


def peer(spec: ModelSpec, url: str, seed: int) -> tuple[float, float, str]:
    """Tune and fit LightGBM; wall seconds, AUC on the hold-out, and what was chosen."""
    import lightgbm
    import optuna

    frame = fetch(spec, url, AS_OF, seed).frame
    parts = split(frame, spec, seed)
    labels = frame[spec.label.column].to_numpy()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    started = time.perf_counter()
    features = frame[spec.feature_names].copy()
    for feature in spec.categorical:
        features[feature.name] = features[feature.name].astype("category")

    def dataset(rows: np.ndarray, reference: Any = None) -> Any:
        made = lightgbm.Dataset(
            features.iloc[rows], labels[rows], reference=reference, params={"feature_pre_filter": False, "verbose": -1}
        )
        return made.construct()

    folds = []
    for fitted, validated in reversed(parts.folds):
        data = dataset(fitted)
        folds.append((data, dataset(validated, data), labels[validated]))

    def objective(trial: Any) -> float:
        chosen = {
            "objective": "binary",
            "metric": "auc",
            "num_threads": os.cpu_count(),
            "seed": seed,
            "verbose": -1,
            "learning_rate": trial.suggest_float("learning_rate", 0.05, 0.3, log=True),
            "num_leaves": trial.suggest_int("num_leaves", 15, 127, log=True),
            "min_data_in_leaf": trial.suggest_int("min_data_in_leaf", 20, 500, log=True),
            "feature_fraction": trial.suggest_float("feature_fraction", 0.5, 1.0),
            "lambda_l2": trial.suggest_float("lambda_l2", 1e-3, 30.0, log=True),
        }
        aucs, trees = [], []
        for place, (data, validation, _) in enumerate(folds):
            stop = lightgbm.early_stopping(PATIENCE, verbose=False)
            grown = lightgbm.train(chosen, data, MOST_TREES, valid_sets=[validation], callbacks=[stop])
            aucs.append(grown.best_score["valid_0"]["auc"])
            trees.append(grown.best_iteration)
            trial.report(float(np.mean(aucs)), place)
            if place + 1 < len(folds) and trial.should_prune():
                raise optuna.TrialPruned
        trial.set_user_attr("trees", int(np.median(trees)))
        trial.set_user_attr("chosen", chosen)
        return float(np.mean(aucs))

    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True),
        pruner=optuna.pruners.PercentilePruner(KEPT_PERCENT, n_startup_trials=STARTUP_TRIALS, n_warmup_steps=0),
    )
    study.optimize(objective, n_trials=spec.training.trials)
    best = study.best_trial
    final = lightgbm.train(best.user_attrs["chosen"], dataset(parts.train), best.user_attrs["trees"])
    auc = roc_auc(labels[parts.holdout], final.predict(features.iloc[parts.holdout]))
    pruned = sum(trial.state.name == "PRUNED" for trial in study.trials)
    words = f"{best.params}, {best.user_attrs['trees']} trees, {pruned} of {len(study.trials)} trials pruned"
    return time.perf_counter() - started, auc, words


def main() -> None:
    """Run both, one after the other, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-peer", action="store_true", help="ours alone")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="train-scale-") as folder:
        var = Path(folder)
        (var / "models").mkdir()
        (var / "models" / "members.yaml").write_text(model_file(asked.rows, asked.trials, asked.folds))
        make_source(var / "members.duckdb", asked.rows)
        print(f"{asked.rows:,} rows x {len(NUMERIC) + len(CATEGORICAL)}, {os.cpu_count()} processors", flush=True)
        told = ours(var, asked.seed)
        phases = {name: phase["seconds"] for name, phase in told["phases"].items()}
        work = sum(phases[name] for name in ("fetch_data", "tune_model", "fit_model"))
        for name, seconds in phases.items():
            print(f"  {name:<18}{seconds:8.1f} s")
        print(f"  {'all else':<18}{told['wall_s'] - sum(phases.values()):8.1f} s (start, ZenML, exit)")
        result = {
            "wall_s": told["wall_s"],
            "peak_gb": told["peak_gb"],
            "auc": told["metrics"]["roc_auc"],
            "overhead_share": 1 - work / told["wall_s"],
        }
        print(f"  ours: {told['wall_s']:.0f} s, AUC {result['auc']:.4f}, {told['state']}", flush=True)
        if not asked.no_peer:
            spec = load_model("members", folder=var / "models")
            seconds, auc, words = peer(spec, f"duckdb:///{var}/members.duckdb", asked.seed)
            print(f"  peer: {seconds:.0f} s, AUC {auc:.4f}; {words}")
            result |= {
                "peer_wall_s": seconds,
                "peer_auc": auc,
                "wall_ratio": told["wall_s"] / seconds,
                "auc_difference": result["auc"] - auc,
            }
    print(json.dumps({key: round(value, 5) for key, value in result.items()}))


if __name__ == "__main__":
    main()
