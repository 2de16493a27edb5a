"""Fit the network on encoded rows, and write it as a SavedModel that takes raw features (R3.5, R3.6)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adapters.network import Network, Optimisation, Placed, Shape, tensorflow
from lifecycle.encoding import (
    FIRST_VALUE,
    LARGEST_ENCODED,
    LARGEST_NUMBER,
    MISSING,
    UNSEEN,
    Encoded,
    Encoding,
    fit_encoding,
    read_columns,
)
from lifecycle.metrics import roc_auc
from lifecycle.spec import ModelSpec, Training
from lifecycle.training import Hyperparameters, TuningResult

MOST_COMPILED = 24
_compiled: dict[Shape, Network] = {}


@dataclass(frozen=True)
class Fold:
    """One fold, encoded by what its fitted part alone teaches."""

    encoding: Encoding
    fit: Encoded
    labels: NDArray[np.float32]
    weights: NDArray[np.float32]
    validate: Encoded
    validate_labels: NDArray[np.float32]
    validate_rows: NDArray[np.intp]


@dataclass(frozen=True)
class FittedModel:
    """The final ensemble and all that decides its answers."""

    spec: ModelSpec
    encoding: Encoding
    shape: Shape
    weights: list[NDArray[np.float32]]
    tuning: TuningResult

    @property
    def content(self) -> str:
        """First 16 hex digits of a sha256 over weights, encoding, calibration and threshold."""
        digest = hashlib.sha256()
        state = [
            self.encoding.to_dict(),
            self.tuning.calibration.slope,
            self.tuning.calibration.intercept,
            self.tuning.threshold,
        ]
        digest.update(json.dumps(state, sort_keys=True).encode())
        for array in self.weights:
            digest.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
        return digest.hexdigest()[:16]


def make_network(fold: Fold, chosen: Hyperparameters, members: int) -> Network:
    """Take the compiled network of this shape; it is traced once however many folds and trials share it."""
    return _network(_shape(fold.encoding, chosen, members))


def fit_fold(
    network: Network, fold: Fold, chosen: Hyperparameters, plan: Training, seed: int
) -> tuple[NDArray[np.float64], int]:
    """Fit with early stopping on the validation part.

    Returns
    -------
    logits
        Shape (validated rows,): of the best epoch.
    epochs
        Its number, from 1.
    """
    best: tuple[float, int, NDArray[np.float64]] | None = None

    placed: Placed | None = None

    def after(epoch: int) -> bool:
        nonlocal best, placed
        placed = placed or network.place(fold.validate)
        logits = network.logits(placed)
        auc = roc_auc(fold.validate_labels, logits) if np.isfinite(logits).all() else float("nan")
        if best is None or auc > best[0]:
            best = (auc, epoch, logits)
        return not np.isfinite(auc) or epoch - best[1] >= plan.patience

    _train(network, fold.encoding, fold.fit, fold.labels, fold.weights, chosen, plan, plan.max_epochs, seed, after)
    assert best is not None
    return best[2], best[1]


def fit(
    frame: pd.DataFrame,
    train: NDArray[np.intp],
    spec: ModelSpec,
    tuning: TuningResult,
    seed: int,
    weights: NDArray[np.float64] | None = None,
    on_epoch: Callable[[int, int], None] = lambda _done, _total: None,
) -> FittedModel:
    """Fit the final ensemble on all training rows, for as many epochs as validation found best.

    Parameters
    ----------
    frame
        A snapshot's rows.
    train
        Positions of the training rows.
    spec, tuning, seed
        The model file, what tuning found, and the seed.
    weights
        Shape (rows of frame,): sample weights; None for equal ones.
    on_epoch
        Called with epochs done and in all.
    """
    columns = read_columns(frame, spec)
    encoding = fit_encoding(columns, train, spec)
    shape = _shape(encoding, tuning.best, spec.training.ensemble)
    network = _network(shape)

    def after(epoch: int) -> bool:
        on_epoch(epoch, tuning.epochs)
        return False

    _train(
        network,
        encoding,
        encoding.transform(columns, train),
        frame[spec.label.column].to_numpy(dtype=np.float32)[train],
        np.ones(len(train), np.float32) if weights is None else weights[train].astype(np.float32),
        tuning.best,
        spec.training,
        tuning.epochs,
        seed,
        after,
    )
    return FittedModel(spec, encoding, shape, network.weights, tuning)


def export(fitted: FittedModel, folder: Path) -> None:
    """Write the SavedModel: one vector for each raw feature in, calibrated ``score`` and ``decision`` out.

    Numbers are float64, NaN for missing; categories are strings, empty for missing. Nothing of this project is
    needed to load it.
    """
    tf = tensorflow()
    network = Network(fitted.shape)
    network.restore(fitted.encoding, fitted.weights)
    encoding, calibration = fitted.encoding, fitted.tuning.calibration
    center = np.array([feature.center for feature in encoding.numeric])
    scale = np.array([feature.scale for feature in encoding.numeric])
    module = tf.Module()
    module.parameters = network.variables
    module.tables = [
        tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(["", *feature.vocabulary]),
                # 64 bits: what look-ups in ONNX answer with.
                tf.constant([MISSING, *range(FIRST_VALUE, FIRST_VALUE + len(feature.vocabulary))], tf.int64),
            ),
            UNSEEN,
        )
        for feature in encoding.categorical
    ]

    def serve(**raw: Any) -> dict[str, Any]:
        rows = tf.shape(next(iter(raw.values())))[0]
        numbers, codes = tf.zeros([rows, 0]), tf.zeros([rows, 0], tf.int32)
        if encoding.numeric:
            values = tf.stack([raw[feature.name] for feature in encoding.numeric], axis=1)
            known = tf.abs(values) <= LARGEST_NUMBER  # false for NaN
            scaled = (tf.where(known, values, tf.zeros_like(values)) - center) / scale
            scaled = tf.cast(tf.clip_by_value(scaled, -LARGEST_ENCODED, LARGEST_ENCODED), tf.float32)
            numbers = tf.where(known, scaled, np.float32(np.nan))
        if encoding.categorical:
            codes = tf.stack(
                [
                    table.lookup(raw[feature.name])
                    for feature, table in zip(encoding.categorical, module.tables, strict=True)
                ],
                axis=1,
            )
        logits = network.mean_logits(numbers, tf.cast(codes, tf.int32))
        score = tf.sigmoid(tf.cast(logits, tf.float64) * calibration.slope + calibration.intercept)
        return {"score": score, "decision": tf.cast(score >= fitted.tuning.threshold, tf.int64)}

    numeric = {feature.name for feature in fitted.spec.numeric}
    signature = {
        name: tf.TensorSpec([None], tf.float64 if name in numeric else tf.string, name=name)
        for name in fitted.spec.feature_names
    }
    module.serve = tf.function(serve)
    tf.saved_model.save(module, str(folder), signatures=module.serve.get_concrete_function(**signature))


def _shape(encoding: Encoding, chosen: Hyperparameters, members: int) -> Shape:
    return Shape(
        numbers=len(encoding.numeric),
        vocabulary=tuple(feature.size for feature in encoding.categorical),
        bins=chosen.bins,
        units=chosen.units,
        layers=chosen.layers,
        members=members,
    )


def _network(shape: Shape) -> Network:
    if shape not in _compiled:
        if len(_compiled) >= MOST_COMPILED:
            _compiled.pop(next(iter(_compiled)))
        _compiled[shape] = Network(shape)
    return _compiled[shape]


def _train(
    network: Network,
    encoding: Encoding,
    rows: Encoded,
    labels: NDArray[np.float32],
    weights: NDArray[np.float32],
    chosen: Hyperparameters,
    plan: Training,
    epochs: int,
    seed: int,
    after: Callable[[int], bool],
) -> None:
    tf = tensorflow()
    network.initialise(encoding, seed)
    how = Optimisation(chosen.learning_rate, chosen.weight_decay, chosen.dropout, plan.batch_size)
    placed = network.place(rows)
    target, share = tf.constant(labels), tf.constant(weights / weights.mean())
    for epoch in range(1, epochs + 1):
        order = np.random.default_rng([seed, 2, epoch]).permutation(len(rows)).astype(np.int32)
        network.train_epoch(placed, target, share, order, how, (seed + epoch * 7_919) % 2**31)
        if after(epoch):
            return
