"""The decision threshold that is worth most on validation data (R3.7)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from lifecycle.errors import DataError
from lifecycle.spec import Business


def best_threshold(labels: ArrayLike, scores: ArrayLike, business: Business) -> float:
    """Find the cut that makes decisions worth most.

    Every cut between distinct scores is tried, deciding nobody positive and everybody positive included. Of cuts
    that are worth the same, the highest is taken: the fewest positive decisions.

    Parameters
    ----------
    labels
        Shape (rows,): 0 or 1.
    scores
        Shape (rows,): probabilities; a score at or above the threshold is a positive decision.
    business
        Worth of each outcome.

    Returns
    -------
    float
        Above every score where no positive decision pays.

    Raises
    ------
    DataError
        No row, or a score that is NaN.
    """
    outcome, score = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if not len(score) or np.isnan(score).any():
        raise DataError(
            f"{len(score)} scores, {int(np.isnan(score).sum())} of them NaN; accepted: some, none of them NaN"
        )
    order = np.argsort(-score, kind="stable")
    descending = score[order]
    gains = np.where(
        outcome[order] == 1,
        business.true_positive - business.false_negative,
        business.false_positive - business.true_negative,
    )
    worth = np.concatenate([[0.0], np.cumsum(gains)])
    # A cut may not part rows of equal score: only ends of ties count, and the empty one.
    ends = np.concatenate([[True], np.append(descending[1:] != descending[:-1], True)])
    best = int(np.argmax(np.where(ends, worth, -np.inf)))
    if best == 0:
        return float(np.nextafter(descending[0], np.inf))
    if best == len(score):
        return float(descending[-1])
    return float((descending[best - 1] + descending[best]) / 2)
