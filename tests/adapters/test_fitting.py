"""A fit stops when validation does, and the same fit is the same model to the last bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from adapters import fitting
from adapters.fitting import FittedModel, Fold, fit, fit_fold, make_network
from lifecycle.encoding import fit_encoding, read_columns
from lifecycle.metrics import roc_auc
from lifecycle.training import TuningResult
from tests.adapters.small_training import found, rows, spec

pytestmark = pytest.mark.requirement("R3.6")

TRAIN = np.arange(480)


def fold() -> Fold:
    frame, asked = rows(), spec()
    columns = read_columns(frame, asked)
    fitted, validated = np.arange(300), np.arange(300, 480)
    labels = frame["y"].to_numpy(np.float32)
    encoding = fit_encoding(columns, fitted, asked)
    return Fold(
        encoding=encoding,
        fit=encoding.transform(columns, fitted),
        labels=labels[fitted],
        weights=np.ones(300, np.float32),
        validate=encoding.transform(columns, validated),
        validate_labels=labels[validated],
        validate_rows=validated,
    )


def fitted(seed: int = 1, found: TuningResult = found(), **others: Any) -> FittedModel:  # noqa: B008 - frozen
    return fit(rows(), TRAIN, spec(), found, seed, **others)


def test_a_fold_keeps_the_scores_of_its_best_epoch():
    one = fold()
    plan = spec().training.model_copy(update={"max_epochs": 12, "patience": 2})
    seen: list[np.ndarray] = []
    network = make_network(one, found().best, 1)
    score = network.logits
    network.logits = lambda placed: seen.append(score(placed)) or seen[-1]
    try:
        logits, epochs = fit_fold(network, one, found().best, plan, 1)
    finally:
        del network.logits
    aucs = [roc_auc(one.validate_labels, epoch) for epoch in seen]
    assert epochs == int(np.argmax(aucs)) + 1
    assert np.array_equal(logits, seen[epochs - 1])
    assert len(seen) == min(12, epochs + 2)


def test_a_fold_ends_with_its_last_epoch():
    plan = spec().training.model_copy(update={"max_epochs": 1})
    assert fit_fold(make_network(fold(), found().best, 1), fold(), found().best, plan, 1)[1] == 1


def test_a_fit_that_diverges_ends_at_once_and_says_so():
    wild = replace(found().best, learning_rate=1e38)
    logits, epochs = fit_fold(make_network(fold(), wild, 1), fold(), wild, spec().training, 1)
    assert not np.isfinite(logits).all()
    assert epochs == 1


def test_the_same_fit_is_the_same_model_to_the_last_bit():
    one, again = fitted(), fitted()
    assert one.content == again.content
    assert all(np.array_equal(a, b) for a, b in zip(one.weights, again.weights, strict=True))


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 2},
        {"found": found(threshold=0.4)},
        {"found": found(learning_rate=0.01)},
        {"weights": np.linspace(0.1, 2, 600)},
    ],
    ids=["seed", "threshold", "hyper-parameter", "sample weights"],
)
def test_a_model_is_named_by_all_that_decides_its_answers(other: dict[str, Any]):
    assert fitted(**other).content != fitted().content


def test_rows_that_do_not_train_change_nothing():
    frame = rows()
    frame.loc[480:, "x"] = 1e6
    frame.loc[480:, "kind"] = "d"
    frame.loc[480:, "y"] = 1
    assert fit(frame, TRAIN, spec(), found(), 1).content == fitted().content


def test_the_final_fit_takes_the_epochs_that_tuning_found_and_tells_of_each():
    heard: list[tuple[int, int]] = []
    fitted(on_epoch=lambda done, total: heard.append((done, total)))
    assert heard == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_networks_of_one_shape_are_compiled_once_and_not_too_many_are_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fitting, "_compiled", {})
    monkeypatch.setattr(fitting, "MOST_COMPILED", 2)
    first = make_network(fold(), found(units=1).best, 1)
    assert make_network(fold(), found(units=1).best, 1) is first
    for units in (2, 3):
        make_network(fold(), found(units=units).best, 1)
    assert [shape.units for shape in fitting._compiled] == [2, 3]
