"""How good the shipped models are beside scikit-learn's gradient boosting: ``uv run python benchmarks/quality.py``.

Both see the same snapshot, split and folds. Ours goes through the functions that the pipeline's steps call: fetch,
split, tune, fit, export, and scores of the exported SavedModel. The peer is HistGradientBoostingClassifier with
native categories, tuned on the same folds over a grid of four and the number of trees, then fitted on all training
rows; its AUC with all defaults is printed too, and the better of the two counts. Last line: JSON for each model.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from adapters.fitting import export, fit  # noqa: E402
from adapters.model_files import load_model  # noqa: E402
from adapters.sample_database import ensure_sample_database  # noqa: E402
from adapters.saved_model import score  # noqa: E402
from adapters.source import fetch  # noqa: E402
from adapters.tuning import tune  # noqa: E402
from lifecycle.metrics import expected_calibration_error, roc_auc  # noqa: E402
from lifecycle.spec import ModelSpec  # noqa: E402
from lifecycle.splitting import Split, split  # noqa: E402

AS_OF = {"flight_delay": datetime(2014, 1, 1, tzinfo=UTC), "employment": datetime(2019, 1, 1, tzinfo=UTC)}
MOST_TREES = 300
TREE_STEP = 10


def ours(frame: pd.DataFrame, parts: Split, spec: ModelSpec, seed: int, folder: Path) -> tuple[np.ndarray, str]:
    """Scores of the hold-out by the exported model, and its hyper-parameters in words."""
    tuning = tune(
        frame, parts.train, parts.folds, spec, storage=f"sqlite:///{folder}/tuning.db", study_name="quality", seed=seed
    )
    export(fit(frame, parts.train, spec, tuning, seed), folder / "saved_model")
    scores = score(folder / "saved_model", frame.iloc[parts.holdout])
    return scores, f"{tuning.best.to_dict()} epochs={tuning.epochs} fold AUCs {np.round(tuning.fold_aucs, 4).tolist()}"


def peer(frame: pd.DataFrame, parts: Split, spec: ModelSpec) -> tuple[dict[str, np.ndarray], str]:
    """Scores of the hold-out by the peer, tuned and default, and what tuning chose."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    features = frame[spec.feature_names].copy()
    for feature in spec.categorical:
        # The peer takes at most 255 categories; the commonest keep their own.
        common = features[feature.name].value_counts().index[:254]
        features[feature.name] = features[feature.name].where(features[feature.name].isin(common)).astype("category")
    labels = frame[spec.label.column].to_numpy()

    def model(**arguments: Any) -> Any:
        return HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=0, **arguments)

    tried: dict[tuple[float, int, int], float] = {}
    for rate, leaves in itertools.product((0.05, 0.1), (15, 31)):
        by_fold = []
        for fitted, validated in parts.folds:
            grown = model(learning_rate=rate, max_leaf_nodes=leaves, max_iter=MOST_TREES, early_stopping=False)
            grown.fit(features.iloc[fitted], labels[fitted])
            stages = itertools.islice(
                grown.staged_predict_proba(features.iloc[validated]), TREE_STEP - 1, None, TREE_STEP
            )
            by_fold.append([roc_auc(labels[validated], stage[:, 1]) for stage in stages])
        for place, value in enumerate(np.mean(by_fold, axis=0)):
            tried[rate, leaves, (place + 1) * TREE_STEP] = float(value)
    rate, leaves, trees = max(tried, key=lambda key: tried[key])
    scores = {}
    for name, arguments in {
        "tuned": {"learning_rate": rate, "max_leaf_nodes": leaves, "max_iter": trees, "early_stopping": False},
        "default": {},
    }.items():
        fitted = model(**arguments).fit(features.iloc[parts.train], labels[parts.train])
        scores[name] = fitted.predict_proba(features.iloc[parts.holdout])[:, 1]
    return scores, f"learning_rate={rate} leaves={leaves} trees={trees} mean fold AUC {tried[rate, leaves, trees]:.4f}"


def measure(name: str, seeds: list[int], database: Path, with_peer: bool) -> dict[str, float]:
    """Train one shipped model and its peer, print, and return the figures (means over seeds)."""
    spec = load_model(name)
    frame = fetch(spec, f"duckdb:///{database}", AS_OF[name], spec.training.seed).frame
    parts = split(frame, spec, spec.training.seed)
    labels = frame[spec.label.column].to_numpy()[parts.holdout]
    print(f"{name}: {len(parts.train):,} training rows, {len(parts.holdout):,} held out", flush=True)
    aucs, eces, seconds = [], [], []
    for seed in seeds:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            scores, words = ours(frame, parts, spec, seed, Path(folder))
        seconds.append(time.perf_counter() - started)
        aucs.append(roc_auc(labels, scores))
        eces.append(expected_calibration_error(labels, scores))
        print(f"  ours, seed {seed}: AUC {aucs[-1]:.4f}, ECE {eces[-1]:.4f}, {seconds[-1]:.0f} s; {words}", flush=True)
    result = {"auc": float(np.mean(aucs)), "ece": float(np.mean(eces)), "seconds": float(np.mean(seconds))}
    if with_peer:
        started = time.perf_counter()
        by_name, words = peer(frame, parts, spec)
        peers = {name: roc_auc(labels, scores) for name, scores in by_name.items()}
        took = time.perf_counter() - started
        ece = expected_calibration_error(labels, by_name[max(peers, key=lambda name: peers[name])])
        print(
            f"  peer: AUC tuned {peers['tuned']:.4f}, default {peers['default']:.4f}, ECE {ece:.4f}, {took:.0f} s; {words}"
        )
        result |= {"peer_auc": max(peers.values()), "peer_ece": ece, "peer_seconds": took}
    return {key: round(value, 5) for key, value in result.items()}


def main() -> None:
    """Measure both shipped models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", choices=list(AS_OF), help="default: both")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of ours, averaged")
    parser.add_argument("--no-peer", action="store_true")
    asked = parser.parse_args()
    database = ensure_sample_database(ROOT / "var" / "source.duckdb", ROOT / "data")
    results = {
        name: measure(name, list(range(asked.seeds)), database, not asked.no_peer) for name in asked.model or AS_OF
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
