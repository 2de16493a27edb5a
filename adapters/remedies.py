"""Fair decision thresholds by fairlearn: what they would change, in figures (R5.6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lifecycle.fairness import RATES, group_names
from lifecycle.findings import Finding
from lifecycle.remedies import Remedy, missed_fairness, outcome
from lifecycle.spec import ModelSpec, SensitiveAttribute

if TYPE_CHECKING:
    from fairlearn.postprocessing import ThresholdOptimizer

# fairlearn has no constraint for predictive parity: where recall is made equal, it is reported what that does to it.
_CONSTRAINTS = {
    "demographic_parity_difference": "demographic_parity",
    "equal_opportunity_difference": "true_positive_rate_parity",
    "predictive_parity_difference": "true_positive_rate_parity",
}
assert _CONSTRAINTS.keys() == RATES.keys()

_NOTE = (
    "The decision then depends on the group itself: whether that is allowed is for the owner to settle. "
    "Thresholds are mixed at random to meet the constraint exactly (Hardt et al., 2016)."
)


@dataclass(frozen=True, slots=True)
class Scored:
    """Rows with outcome and score.

    Parameters
    ----------
    frame
        Rows with the columns of the sensitive attributes.
    labels, scores
        Shape (rows,): 0 or 1, and the probability of the positive class.
    """

    frame: pd.DataFrame
    labels: ArrayLike
    scores: ArrayLike


def propose_remedies(
    spec: ModelSpec, findings: list[Finding], validation: Scored, holdout: Scored, threshold: float, seed: int
) -> list[Remedy]:
    """For each attribute with a missed fairness gate, fit fairlearn's threshold optimiser and measure its effect.

    Parameters
    ----------
    findings
        As `lifecycle.gates.judge_gates` gives them.
    validation
        Rows the model was not fitted on (out-of-fold): the optimiser learns from them.
    holdout
        Rows the effect is measured on.
    threshold
        The model's own decision threshold.
    seed
        Of the random mixing of thresholds.

    Returns
    -------
    One remedy for each attribute and constraint, in the order of the findings; none where fewer than two
    groups of the validation rows are large enough to fit.
    """
    attributes = {attribute.name: attribute for attribute in spec.sensitive}
    remedies: dict[tuple[str, str], Remedy] = {}
    for name, measure in missed_fairness(spec, findings):
        constraint = _CONSTRAINTS[measure]
        if (name, constraint) in remedies:
            continue
        remedy = _remedy(spec, attributes[name], measure, constraint, validation, holdout, threshold, seed)
        if remedy is not None:
            remedies[name, constraint] = remedy
    return list(remedies.values())


def _remedy(
    spec: ModelSpec,
    attribute: SensitiveAttribute,
    measure: str,
    constraint: str,
    validation: Scored,
    holdout: Scored,
    threshold: float,
    seed: int,
) -> Remedy | None:
    groups, labels = group_names(validation.frame[attribute.column]), np.asarray(validation.labels)
    fitted = _groups_to_fit(spec, groups, labels)
    if len(fitted) < 2:
        return None
    rows = np.isin(groups, fitted)
    optimiser = _fit(constraint, np.asarray(validation.scores, dtype=np.float64)[rows], labels[rows], groups[rows])

    others = group_names(holdout.frame[attribute.column])
    scores = np.asarray(holdout.scores, dtype=np.float64)
    before = (scores >= threshold).astype(np.int8)
    known = np.isin(others, fitted)
    after = before.copy()
    if known.any():
        after[known] = optimiser.predict(scores[known, np.newaxis], sensitive_features=others[known], random_state=seed)
    return Remedy(
        attribute=attribute.name,
        method="threshold optimiser",
        constraint=constraint,
        answers=measure,
        before=outcome(spec, attribute.name, others, holdout.labels, before),
        after=outcome(spec, attribute.name, others, holdout.labels, after),
        currency=spec.business.currency,
        left_out=tuple(attribute.labels.get(group, group) for group in sorted(set(others.tolist()) - set(fitted))),
        note=_NOTE,
    )


def _groups_to_fit(spec: ModelSpec, groups: NDArray[np.object_], labels: NDArray[Any]) -> list[str]:
    """Groups with enough rows of each class: the optimiser draws a ROC curve for each."""
    least = spec.evaluation.min_group_class_rows
    return [
        group
        for group in sorted(set(groups.tolist()))
        if np.count_nonzero(groups == group) >= spec.evaluation.min_group_rows
        and min(np.count_nonzero((groups == group) & (labels == value)) for value in (0, 1)) >= least
    ]


def _fit(
    constraint: str, scores: NDArray[np.float64], labels: NDArray[Any], groups: NDArray[np.object_]
) -> ThresholdOptimizer:
    from fairlearn.postprocessing import ThresholdOptimizer
    from sklearn.base import BaseEstimator, ClassifierMixin

    class GivenScores(ClassifierMixin, BaseEstimator):
        """A model whose only input is its score."""

        classes_ = np.array([0, 1])

        def __sklearn_is_fitted__(self) -> bool:
            return True

        def fit(self, *_: ArrayLike) -> GivenScores:
            return self

        def predict_proba(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
            column = np.asarray(inputs, dtype=np.float64)[:, 0]
            return np.column_stack([1 - column, column])

    optimiser = ThresholdOptimizer(
        estimator=GivenScores(),
        constraints=constraint,
        objective="accuracy_score",
        prefit=True,
        predict_method="predict_proba",
    )
    optimiser.fit(scores[:, np.newaxis], labels, sensitive_features=groups)
    return optimiser
