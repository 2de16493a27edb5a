"""The baselines take what a snapshot really holds, are the same every time, and decide by worth."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from adapters import baselines
from adapters.baselines import fit_baselines, fit_prior, score_baselines
from lifecycle.errors import DataError
from lifecycle.spec import ModelSpec
from tests.minimal_spec import minimal_spec

pytestmark = pytest.mark.requirement("R3.7")


def model() -> ModelSpec:
    return minimal_spec(
        sensitivity="sensitive",
        features=[
            {"name": "x", "type": "numeric"},
            {"name": "empty", "type": "numeric"},
            {"name": "c", "type": "categorical"},
        ],
        business={"currency": "EUR", "decision": "call", "true_positive": 12, "false_positive": -3},
    )


def snapshot(rows: int = 2_000) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=rows)
    category = rng.choice(np.array(["u", "v", None], dtype=object), rows)
    odds = 1.5 * x + (category == "u") - 1
    label = (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.int8)
    x[::17] = np.nan
    x[5] = np.inf
    return pd.DataFrame({"x": x, "empty": np.full(rows, np.nan), "c": category, "y": label})


def half(_labels, _scores, _business) -> float:
    return 0.5


TRAIN = np.arange(1_600)
FOLDS = [(TRAIN[:400], TRAIN[400:800]), (TRAIN[:1_200], TRAIN[1_200:])]
HOLDOUT = slice(1_600, None)


def test_missing_infinite_and_unseen_values_are_scored_without_a_warning():
    frame = snapshot()
    frame.loc[1_700, "c"] = "never seen"
    frame.loc[1_701, "x"] = -np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scored = score_baselines(fit_baselines(model(), frame, TRAIN, FOLDS, half, 0), frame[HOLDOUT])
    assert list(scored) == ["prior", "logistic_regression"]
    for one in scored.values():
        assert one.scores.shape == (400,)
        assert ((one.scores >= 0) & (one.scores <= 1)).all()
    assert roc_auc_score(frame["y"][HOLDOUT], scored["logistic_regression"].scores) > 0.75


def test_the_prior_is_the_share_of_the_training_rows():
    frame = snapshot()
    prior = fit_baselines(model(), frame, TRAIN, FOLDS, half, 0)["prior"]
    assert prior.rate == frame["y"][:1_600].mean()
    assert set(prior.score(frame[HOLDOUT])) == {prior.rate}


@pytest.mark.parametrize(("positives", "always"), [(0, False), (19, False), (21, True), (100, True)])
def test_the_prior_warns_all_or_nobody_whichever_is_worth_more(positives: int, always: bool):
    labels = np.repeat(np.array([1, 0], dtype=np.int8), [positives, 100 - positives])
    prior = fit_prior(model(), labels)  # 12 for each right, -3 for each wrong: equal at one in five
    assert (prior.rate >= prior.threshold) is always


def test_the_threshold_is_chosen_on_the_newest_fold_which_was_not_fitted_on():
    frame = snapshot()
    seen = []

    def choose(labels, scores, business) -> float:
        seen.append((labels, scores, business))
        return 0.3

    spec = model()
    fitted = fit_baselines(spec, frame, TRAIN, FOLDS, choose, 0)
    ((labels, scores, business),) = seen
    np.testing.assert_array_equal(labels, frame["y"][1_200:1_600])
    assert business is spec.business
    assert fitted["logistic_regression"].threshold == 0.3
    final = fitted["logistic_regression"].score(frame[1_200:1_600])
    assert not np.allclose(final, scores)  # the fit that is kept has seen these rows


def test_a_fit_is_the_same_every_time_and_the_sample_follows_the_seed(monkeypatch):
    frame = snapshot()
    monkeypatch.setattr(baselines, "MOST_ROWS", 500)
    first, again, other = (
        fit_baselines(model(), frame, TRAIN, FOLDS, half, seed)["logistic_regression"].score(frame[HOLDOUT])
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_one_label_only_is_refused():
    frame = snapshot()
    frame["y"] = np.int8(1)
    with pytest.raises(DataError, match="m: 1200 training rows have one label only; accepted: both"):
        fit_baselines(model(), frame, TRAIN, FOLDS, half, 0)


def test_no_training_rows_are_refused():
    with pytest.raises(DataError, match="no training rows"):
        fit_prior(model(), np.array([], dtype=np.int8))
