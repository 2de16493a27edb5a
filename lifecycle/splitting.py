"""Which rows train, which validate, which are held out (R3.4, R3.5)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from lifecycle.errors import DataError
from lifecycle.spec import ModelSpec, SplitStrategy

Rows = npt.NDArray[np.intp]
Labels = npt.NDArray[np.int8]

FIRST_FIT_SHARE = 0.5
"""Share of the training part that only ever fits when folds follow time."""


@dataclass(frozen=True)
class Split:
    """Positions in the frame.

    Parameters
    ----------
    train, holdout
        Disjoint, together all rows; sorted by position.
    folds
        Pairs (fit, validate) inside `train`. Validation parts are disjoint. Stratified and grouped folds together
        validate every training row once; folds by time validate the newest half, each row after all it was fitted on.
    """

    train: Rows
    holdout: Rows
    folds: tuple[tuple[Rows, Rows], ...]


def split(frame: pd.DataFrame, spec: ModelSpec, seed: int) -> Split:
    """Take the hold-out and the folds as the model file says.

    - ``time``: the newest rows are held out. The newest half of the rest is cut into consecutive blocks; each block
      validates a fit on everything before it. Fits are then 50 to 90 % of what the final fit will see, so that
      hyper-parameters and epochs carry over, and no fold is asked about its own past. Rows of one moment stay together.
    - ``stratified``: random, with the share of positives equal to within one row of each class.
    - ``grouped``: whole groups; rows without a group form one.

    Parameters
    ----------
    frame
        With timestamp, label and, for grouped, the group column; rows in any order.
    spec
        The model file.
    seed
        Decides random assignments; a split by time does not use it.

    Raises
    ------
    DataError
        Too few rows, moments or groups; or a part that holds only one class.
    """
    plan = spec.training.split
    labels = frame[spec.label.column].to_numpy(dtype=np.int8)
    if len(frame) < 2 * (plan.folds + 1):
        raise DataError(
            f"{spec.name}: {len(frame)} rows cannot be split into a hold-out and {plan.folds} folds; "
            f"accepted: at least {2 * (plan.folds + 1)}"
        )
    if len(np.unique(labels)) < 2:
        raise DataError(
            f"{spec.name}: all {len(frame)} rows have {spec.label.column} = {int(labels[0])}; accepted: both outcomes"
        )
    strategies: dict[SplitStrategy, Callable[[], Split]] = {
        SplitStrategy.TIME: lambda: _by_time(frame[spec.source.timestamp], spec),
        SplitStrategy.STRATIFIED: lambda: _stratified(labels, spec, np.random.default_rng(seed)),
        SplitStrategy.GROUPED: lambda: _grouped(frame[str(plan.group)], spec, np.random.default_rng(seed)),
    }
    found = strategies[plan.strategy]()
    parts = {"the hold-out": found.holdout}
    for number, (fit, validate) in enumerate(found.folds, start=1):
        parts |= {f"the fit part of fold {number}": fit, f"the validation part of fold {number}": validate}
    for part, rows in parts.items():
        positives = int(labels[rows].sum())
        if positives in (0, len(rows)):
            raise DataError(
                f"{spec.name}: {part} ({len(rows)} rows) has {positives} positives; accepted: both outcomes in each "
                "part. Widen source.window, ask for fewer training.split.folds, or split stratified"
            )
    return found


def _by_time(timestamps: pd.Series, spec: ModelSpec) -> Split:
    if timestamps.isna().any():
        raise DataError(f"{spec.name}: {int(timestamps.isna().sum())} rows have no {timestamps.name}; accepted: none")
    moments = timestamps.to_numpy()
    order = np.argsort(moments, kind="stable").astype(np.intp)
    ordered = moments[order]
    # Only between two different moments may a cut fall.
    cuts = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    plan = spec.training.split
    if len(cuts) < plan.folds + 1:
        raise DataError(
            f"{spec.name}: {len(cuts) + 1} distinct values of {timestamps.name}; "
            f"accepted: at least {plan.folds + 2} for a hold-out and {plan.folds} folds by time"
        )
    last = len(order) * (1 - plan.holdout)
    wanted = [last * (FIRST_FIT_SHARE + (1 - FIRST_FIT_SHARE) * block / plan.folds) for block in range(plan.folds + 1)]
    ends = _nearest_rising(cuts, wanted)
    folds = tuple((np.sort(order[:start]), np.sort(order[start:end])) for start, end in itertools.pairwise(ends))
    return Split(np.sort(order[: ends[-1]]), np.sort(order[ends[-1] :]), folds)


def _nearest_rising(cuts: Rows, wanted: list[float]) -> list[int]:
    """For each wanted position the nearest cut that leaves the others at least one cut each."""
    chosen: list[int] = []
    place = -1
    for number, position in enumerate(wanted):
        nearest = int(np.argmin(np.abs(cuts - position)))
        place = min(max(nearest, place + 1), len(cuts) - (len(wanted) - number))
        chosen.append(int(cuts[place]))
    return chosen


def _stratified(labels: Labels, spec: ModelSpec, rng: np.random.Generator) -> Split:
    plan = spec.training.split
    held = np.zeros(len(labels), dtype=bool)
    fold_of = np.full(len(labels), -1, dtype=np.intp)
    for outcome in (0, 1):
        rows = rng.permutation(np.flatnonzero(labels == outcome))
        count = round(len(rows) * plan.holdout)
        held[rows[:count]] = True
        # The second class starts where the first ended, so that fold sizes also differ by one row at most.
        start = int((fold_of >= 0).sum())
        fold_of[rows[count:]] = (start + np.arange(len(rows) - count)) % plan.folds
    return _assemble(held, fold_of, plan.folds)


def _grouped(groups: pd.Series, spec: ModelSpec, rng: np.random.Generator) -> Split:
    plan = spec.training.split
    codes, values = pd.factorize(groups, use_na_sentinel=False, sort=False)
    if len(values) < plan.folds + 1:
        raise DataError(
            f"{spec.name}: {len(values)} distinct values of {groups.name}; "
            f"accepted: at least {plan.folds + 1} for a hold-out and {plan.folds} folds by group"
        )
    sizes = np.bincount(codes)
    # Largest first after a shuffle: greedy filling then ends near the wanted sizes.
    shuffled = rng.permutation(len(values))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    room = np.array([plan.holdout, *[(1 - plan.holdout) / plan.folds] * plan.folds]) * len(codes)
    part_of = np.zeros(len(values), dtype=np.intp)
    filled = np.zeros(plan.folds + 1)
    for number, group in enumerate(order):
        empty = np.flatnonzero(filled == 0)
        # Every part gets a group before the last ones run out.
        part = int(empty[0]) if len(order) - number <= len(empty) else int(np.argmax(room - filled))
        part_of[group] = part
        filled[part] += sizes[group]
    return _assemble((part_of == 0)[codes], part_of[codes] - 1, plan.folds)


def _assemble(held: npt.NDArray[np.bool_], fold_of: Rows, folds: int) -> Split:
    return Split(
        np.flatnonzero(~held),
        np.flatnonzero(held),
        tuple(
            (np.flatnonzero(~held & (fold_of != number)), np.flatnonzero(~held & (fold_of == number)))
            for number in range(folds)
        ),
    )
