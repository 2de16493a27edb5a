"""Answers to bias as part of training (R5.6)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def reweighing(groups: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Sample weights that make label and group independent (Kamiran and Calders, 2012).

    A row's weight is ``P(group) P(label) / P(group, label)``, so the weights have mean 1.

    Parameters
    ----------
    groups
        Shape (rows,): the group of each row; a missing one is a group of its own.
    labels
        Shape (rows,): 0 or 1.

    Returns
    -------
    numpy.ndarray
        Shape (rows,), above 0.
    """
    names = np.array([str(group) for group in np.asarray(groups, dtype=object)], dtype=object)
    _, group = np.unique(names, return_inverse=True)
    label = np.asarray(labels).astype(np.intp)
    if not len(label):
        return np.empty(0)
    joint = np.zeros((group.max() + 1, 2))
    np.add.at(joint, (group, label), 1.0)
    expected = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True) / joint.sum()
    return np.asarray((expected / np.maximum(joint, 1.0))[group, label])
