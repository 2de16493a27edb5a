"""What a candidate has to be worth more than: the prior and a logistic regression, by scikit-learn (R3.7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lifecycle.errors import DataError
from lifecycle.evaluation import BaselineScores, prior_threshold
from lifecycle.fairness import group_names
from lifecycle.spec import Business, ModelSpec

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
ChooseThreshold = Callable[[NDArray[np.int8], Floats, Business], float]

# A linear model has learnt what it can from fewer rows than this; more only cost time.
MOST_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Prior:
    """Every row gets the training rows' share of positives.

    Parameters
    ----------
    rate
        That share, 0..1.
    threshold
        The same decision for all, whichever is worth more on the training rows.
    """

    rate: float
    threshold: float

    def score(self, frame: pd.DataFrame) -> Floats:
        """Shape (rows,): the rate."""
        return np.full(len(frame), self.rate)


@dataclass(frozen=True, slots=True)
class LogisticRegressionBaseline:
    """A linear model of the same features, its threshold chosen on rows it had not seen."""

    pipeline: Pipeline
    features: ModelSpec
    threshold: float

    def score(self, frame: pd.DataFrame) -> Floats:
        """Shape (rows,): probability of the positive class."""
        scores: Floats = self.pipeline.predict_proba(_inputs(self.features, frame))[:, 1]
        return scores


Baseline = Prior | LogisticRegressionBaseline


def fit_baselines(
    spec: ModelSpec,
    frame: pd.DataFrame,
    train: Rows,
    folds: Sequence[tuple[Rows, Rows]],
    choose_threshold: ChooseThreshold,
    seed: int,
) -> dict[str, Baseline]:
    """Fit the baselines on the training rows of a snapshot.

    Parameters
    ----------
    frame
        A snapshot's rows: features, and the label as 0 and 1.
    train
        Its training rows.
    folds
        Pairs of rows to fit and rows to validate on; the last one, the newest in time, gives the threshold.
    choose_threshold
        (labels, scores, business) to the threshold worth most.
    seed
        Of the samples of at most `MOST_ROWS` rows that are fitted and validated on.

    Raises
    ------
    DataError
        One label only in the training rows or in the last fold's rows to fit on.
    """
    labels = frame[spec.label.column].to_numpy(dtype=np.int8)
    return {
        "prior": fit_prior(spec, labels[train]),
        "logistic_regression": _fit_logistic_regression(spec, frame, labels, train, folds, choose_threshold, seed),
    }


def score_baselines(baselines: dict[str, Baseline], holdout: pd.DataFrame) -> dict[str, BaselineScores]:
    """Score the rows of a hold-out with every baseline."""
    return {name: BaselineScores(baseline.score(holdout), baseline.threshold) for name, baseline in baselines.items()}


def fit_prior(spec: ModelSpec, labels: NDArray[np.int8]) -> Prior:
    """Take the share of positives, and always or never decide positive, whichever is worth more."""
    if not len(labels):
        raise DataError(f"{spec.name}: no training rows; accepted: at least one of each label")
    rate = float(np.mean(labels == 1))
    return Prior(rate, prior_threshold(rate, spec.business))


def _fit_logistic_regression(
    spec: ModelSpec,
    frame: pd.DataFrame,
    labels: NDArray[np.int8],
    train: Rows,
    folds: Sequence[tuple[Rows, Rows]],
    choose_threshold: ChooseThreshold,
    seed: int,
) -> LogisticRegressionBaseline:
    fit, validate = folds[-1]
    earlier = _fit(spec, frame, labels, fit, seed)
    validate = _sample(validate, seed)
    scores = earlier.predict_proba(_inputs(spec, frame.iloc[validate]))[:, 1]
    threshold = float(choose_threshold(labels[validate], scores, spec.business))
    return LogisticRegressionBaseline(_fit(spec, frame, labels, train, seed), spec, threshold)


def _fit(spec: ModelSpec, frame: pd.DataFrame, labels: NDArray[np.int8], rows: Rows, seed: int) -> Pipeline:
    import warnings

    from sklearn.compose import ColumnTransformer
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    if len(np.unique(labels[rows])) < 2:
        raise DataError(f"{spec.name}: {len(rows)} training rows have one label only; accepted: both")
    rows = _sample(rows, seed)
    numeric = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True), StandardScaler()
    )
    categorical = OneHotEncoder(
        min_frequency=spec.training.min_category_count, handle_unknown="infrequent_if_exist", dtype=np.float64
    )
    pipeline = make_pipeline(
        ColumnTransformer(
            [
                ("numeric", numeric, [feature.name for feature in spec.numeric]),
                ("categorical", categorical, [feature.name for feature in spec.categorical]),
            ],
            sparse_threshold=1.0,
        ),
        LogisticRegression(solver="lbfgs", max_iter=200),
    )
    with warnings.catch_warnings():
        # After 200 steps the last digits of a baseline's coefficients decide nothing.
        warnings.simplefilter("ignore", ConvergenceWarning)
        pipeline.fit(_inputs(spec, frame.iloc[rows]), labels[rows])
    return pipeline


def _sample(rows: Rows, seed: int) -> Rows:
    """At most `MOST_ROWS` of the rows, uniformly, in their order."""
    if len(rows) <= MOST_ROWS:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, MOST_ROWS, replace=False))


def _inputs(spec: ModelSpec, frame: pd.DataFrame) -> pd.DataFrame:
    """Features only; null is a category of its own, an infinite number is missing."""
    columns = {
        feature.name: frame[feature.name].to_numpy(dtype=np.float64, na_value=np.nan) for feature in spec.numeric
    }
    numbers = {name: np.where(np.isfinite(values), values, np.nan) for name, values in columns.items()}
    texts = {feature.name: group_names(frame[feature.name]) for feature in spec.categorical}
    return pd.DataFrame({**numbers, **texts})
