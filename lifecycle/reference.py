"""A version's hold-out, kept with it: the reference that its traffic is held against (R5.2 to R5.7)."""

from __future__ import annotations

import functools
import math
from datetime import timedelta

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lifecycle.bias import WindowFairness, intersections, window_fairness
from lifecycle.distribution import Categories, WindowState
from lifecycle.drift import MIN_BLOCKS
from lifecycle.errors import DataError
from lifecycle.estimation import ScoreCalibration, fit_score_calibration
from lifecycle.evaluation import Estimate
from lifecycle.intrusion import MOST_QUERIES, Familiarity, Space
from lifecycle.metrics import NAMES, ScoredRows
from lifecycle.multivariate import Embedding, Kernel
from lifecycle.performance import measure_performance, relative_loss
from lifecycle.spec import ModelSpec

Floats = NDArray[np.float64]

SCORE, LABEL, AT = "prodecks_score", "prodecks_label", "prodecks_at"
"""Columns of a reference beside the raw features and groups: probability, outcome (0 or 1), moment."""
MOST_ROWS = 100_000
"""Rows a reference keeps; of a larger hold-out a sample is taken."""
MOST_EMBEDDED = 20_000
"""Rows of a window that are compared as wholes, evenly chosen: enough to see a shift of a tenth of a deviation."""
MIN_BLOCK_ROWS = 100
_BINS = 20


def reference_rows(spec: ModelSpec, holdout: pd.DataFrame, scores: ArrayLike) -> pd.DataFrame:
    """What is kept of a hold-out: features, groups, time, label and score, and nobody's key.

    Parameters
    ----------
    spec
        The model file.
    holdout
        Rows of a snapshot.
    scores
        Shape (rows,): the version's.
    """
    columns = [*spec.feature_names, *(attribute.column for attribute in spec.sensitive)]
    rows = holdout[list(dict.fromkeys(columns))].copy()
    rows[AT] = holdout[spec.source.timestamp]
    rows[LABEL] = holdout[spec.label.column].astype("int8")
    rows[SCORE] = np.asarray(scores, dtype=np.float64)
    if len(rows) > MOST_ROWS:
        rows = rows.sample(MOST_ROWS, random_state=spec.training.seed)
    return rows.sort_values(AT, kind="stable", ignore_index=True)


class Reference:
    """A reference and what is derived from it, each when it is first asked for.

    Parameters
    ----------
    spec
        The model file.
    version
        Whose.
    rows
        From `reference_rows`.
    threshold
        A score at or above it is a positive decision.
    window
        Length of a monitoring window: the reference is cut into as long blocks, whose differences say what is usual.

    Raises
    ------
    DataError
        Rows that are none of a reference: empty, or without score, label or time.
    """

    def __init__(self, spec: ModelSpec, version: str, rows: pd.DataFrame, threshold: float, window: timedelta) -> None:
        gone = [name for name in (SCORE, LABEL, AT) if name not in rows.columns]
        if gone or rows.empty:
            raise DataError(
                f"reference of {spec.name} version {version}: {f'no column {gone[0]}' if gone else 'no rows'}; "
                "accepted: the file that was registered with it"
            )
        self.spec, self.version, self.rows, self.threshold, self._window = spec, version, rows, threshold, window
        # A feature that was of another type when the version was made is unknown to it.
        numbers = {name for name in rows.columns if pd.api.types.is_numeric_dtype(rows[name])}
        texts = set(rows.columns) - numbers
        self.numeric = [feature.name for feature in spec.numeric if feature.name in numbers]
        self.categorical = [feature.name for feature in spec.categorical if feature.name in texts]
        self.labels: Floats = rows[LABEL].to_numpy(dtype=np.float64)
        self.scores: Floats = rows[SCORE].to_numpy(dtype=np.float64)

    @functools.cached_property
    def state(self) -> WindowState:
        """Features, then the score."""
        return self._state(self.rows)

    @functools.cached_property
    def label_state(self) -> WindowState:
        """The label alone."""
        return label_state(self.labels)

    @functools.cached_property
    def blocks(self) -> list[WindowState]:
        """States of the reference's windows; empty where there are too few to say what is usual."""
        return [self._state(self.rows.iloc[places]) for places in self._places]

    @functools.cached_property
    def label_blocks(self) -> list[WindowState]:
        """The same of the label."""
        return [label_state(self.labels[places]) for places in self._places]

    @functools.cached_property
    def kernel(self) -> Kernel:
        """In which rows are compared as wholes."""
        return Kernel.of(self._features, self.spec.training.seed)

    @functools.cached_property
    def embedding(self) -> Embedding:
        """The reference in the kernel's space; of a large one, rows that are evenly chosen."""
        blocked = np.concatenate([np.empty(0, dtype=np.intp), *self._places])
        rest = np.setdiff1d(np.arange(len(self.rows)), blocked)
        embeddings = [*self.block_embeddings, self.kernel.embed(self.rows.iloc[rest[:: self._every]])]
        return functools.reduce(Embedding.merge, embeddings)

    @functools.cached_property
    def block_embeddings(self) -> list[Embedding]:
        """The reference's windows in the kernel's space."""
        return [self.kernel.embed(self.rows.iloc[places[:: self._every]]) for places in self._places]

    @functools.cached_property
    def space(self) -> Space:
        """In which distances of rows mean something."""
        return Space.of(self._features)

    @functools.cached_property
    def ordinary(self) -> pd.DataFrame:
        """Rows in random order."""
        return self.rows.sample(frac=1, random_state=self.spec.training.seed)

    @functools.cached_property
    def ordinary_points(self) -> Floats:
        """Some of them as points of `space`."""
        return self.space.points(self.ordinary.head(2 * MOST_QUERIES))

    @functools.cached_property
    def familiarity(self) -> Familiarity:
        """What usual rows look like."""
        return Familiarity.of(self.space, self.ordinary.head(10 * MOST_QUERIES))

    @functools.cached_property
    def performance(self) -> dict[str, Estimate]:
        """Every measure with its interval."""
        return measure_performance(
            self.labels, self.scores, self.threshold, self.spec.business, seed=self.spec.training.seed
        ).metrics

    @functools.cached_property
    def calibration(self) -> ScoreCalibration | None:
        """What scores meant; None where labels or scores do not say."""
        try:
            return fit_score_calibration(self.labels, self.scores)
        except DataError:
            return None

    @functools.cached_property
    def fairness(self) -> dict[str, WindowFairness]:
        """Each sensitive attribute and combination."""
        attributes = {one.name: self.rows[one.column] for one in self.spec.sensitive if one.column in self.rows}
        decisions = self.scores >= self.threshold
        return {
            name: window_fairness(
                name, groups, self.labels, decisions, self.spec.evaluation, seed=self.spec.training.seed
            )
            for name, groups in intersections(attributes).items()
        }

    @functools.cached_property
    def importances(self) -> dict[str, float]:
        """How much the score goes with each feature: the share of its variance that the feature's bins explain, 0..1.

        The correlation ratio, which is the first-order Sobol index where features are independent (Saltelli and others,
        2008, "Global Sensitivity Analysis").
        """
        found: dict[str, float] = {}
        spread = float(np.var(self.scores))
        for name in (*self.numeric, *self.categorical):
            column = self.rows[name]
            if name in self.numeric:
                column = pd.Series(pd.qcut(column.rank(), _BINS, labels=False, duplicates="drop"), index=column.index)
            codes, distinct = pd.factorize(column)
            groups = np.where(codes < 0, len(distinct), codes)
            counts = np.bincount(groups, minlength=len(distinct) + 1)
            means = np.bincount(groups, self.scores, len(distinct) + 1) / np.maximum(counts, 1)
            between = float(np.average(np.square(means - self.scores.mean()), weights=counts))
            # What as many groups explain by chance is taken off.
            chance = spread * np.count_nonzero(counts) / max(1, len(self.rows))
            found[name] = max(0.0, between - chance) / spread if spread > 0 else 0.0
        return found

    def own_losses(self, measure: str) -> tuple[float, ...]:
        """Relative loss of each of the reference's windows against the whole, NaN where there is none."""
        whole = self.performance[measure].value
        place = NAMES.index(measure)
        losses = []
        for places in self._places:
            view = ScoredRows(self.labels[places], self.scores[places], self.threshold, self.spec.business)
            loss = relative_loss(measure, whole, float(view.measure()[place]))
            losses.append(math.nan if loss is None else loss)
        return tuple(losses)

    @property
    def block_rows(self) -> list[int]:
        """Rows of each of the reference's windows."""
        return [len(places) for places in self._places]

    @property
    def _every(self) -> int:
        return max(1, len(self.rows) // MOST_EMBEDDED)

    @functools.cached_property
    def _features(self) -> WindowState:
        columns = {name: state for name, state in self.state.columns.items() if name != SCORE}
        return WindowState(self.state.rows, columns)

    @functools.cached_property
    def _places(self) -> list[NDArray[np.intp]]:
        """Rows of each whole block; none where fewer than `MIN_BLOCKS` are large enough."""
        at = self.rows[AT]
        number = ((at - at.min()) // self._window).to_numpy()
        blocks = [np.flatnonzero(number == one) for one in np.unique(number)]
        # The last one is rarely a whole window; what is usual of windows is not learned from its few rows.
        least = max(MIN_BLOCK_ROWS, float(np.median([len(block) for block in blocks])) / 2)
        large = [block for block in blocks if len(block) >= least]
        return large if len(large) >= MIN_BLOCKS else []

    def _state(self, rows: pd.DataFrame) -> WindowState:
        return WindowState.of(rows, [*self.numeric, SCORE], self.categorical)


def label_state(labels: Floats) -> WindowState:
    """The state of outcomes that have arrived, as categories ``0`` and ``1``."""
    known = labels[~np.isnan(labels)]
    return WindowState(len(known), {"label": Categories.of(pd.Series(np.where(known == 1, "1", "0"), dtype=object))})
