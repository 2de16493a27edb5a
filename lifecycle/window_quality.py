"""Quality of a window of traffic: schema, types, missing values, ranges, outliers, volume, freshness, duplicates (R5.5).

`lifecycle.quality` draws Great Expectations checks for a fetch that is to be trained on; this reads the states that drift
is measured on anyway, so that a window costs no second look, and it knows what the reference looked like.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
from scipy import stats

from lifecycle.distribution import Categories, Numbers, WindowState
from lifecycle.drift import ALPHA, Evidence, judge_distance
from lifecycle.findings import Direction, Finding, Severity, judge
from lifecycle.spec import Feature, ModelSpec, NumericFeature

OUTLIERS = 0.01
"""Largest accepted rise of the share of outliers over the reference's."""
UNSEEN = 0.01
"""Largest accepted share of rows whose category the reference does not have."""
FENCE = 3.0
"""Interquartile ranges beyond the quartiles from which a value is "far out" (Tukey, 1977)."""
DOUBLED = 1.0
"""Largest accepted change of volume, in doublings: half as much or twice as much."""


def judge_schema(spec: ModelSpec, frame: pd.DataFrame, *, window: str) -> list[Finding]:
    """Find columns that are not there, and numbers that are none.

    Parameters
    ----------
    frame
        Rows as they arrived.
    window
        In words.

    Returns
    -------
    list of Finding
        ``column_present`` for each feature, then ``type_mismatch_share`` for each numeric one that is there: the share
        of its values that cannot be read as numbers.
    """
    findings = []
    for feature in spec.features:
        there = feature.name in frame.columns
        findings.append(
            judge(
                "column_present",
                float(there),
                1.0,
                Direction.AT_LEAST,
                window=window,
                subject=feature.name,
                count=len(frame),
                min_count=0,
            )
        )
        if there and isinstance(feature, NumericFeature):
            column = frame[feature.name]
            given = column.notna()
            odd = pd.to_numeric(column[given], errors="coerce").isna() if column.dtype == object else given & False
            findings.append(
                judge(
                    "type_mismatch_share",
                    float(odd.sum() / given.sum()) if given.any() else 0.0,
                    0.0,
                    Direction.AT_MOST,
                    window=window,
                    subject=feature.name,
                    count=len(frame),
                )
            )
    return findings


def judge_values(
    spec: ModelSpec, current: WindowState, reference: WindowState | None, *, window: str, alpha: float = ALPHA
) -> list[Finding]:
    """Judge each feature's missing values, values outside what the model file declares, and outliers.

    Parameters
    ----------
    current
        The window, with the model's features.
    reference
        What is usual; None leaves outliers out.
    window
        In words.
    alpha
        Chance of any false finding, of each kind that is held against the reference.

    Returns
    -------
    list of Finding
        For each feature ``missing_share``; ``out_of_range_share`` where a range or a closed list is declared (an
        infinity is outside any range). Against the reference ``constant``, 1 where every row has one value though the
        reference's differ; ``outlier_share_rise`` of numbers, over the reference's share beyond the same fences; and
        ``unseen_share`` of categories without a closed list, the rows of values that the reference does not have.
    """
    findings = []
    each = alpha / max(1, len(spec.features))
    for feature in spec.features:
        state = current.columns[feature.name]
        findings.append(
            judge(
                "missing_share",
                state.missing_share,
                feature.max_missing,
                Direction.AT_MOST,
                window=window,
                subject=feature.name,
                count=state.rows,
                severity=spec.quality.max_missing_severity,
            )
        )
        outside = _outside(feature, state)
        present = state.rows - state.missing
        if outside is not None:
            findings.append(
                judge(
                    "out_of_range_share",
                    outside / present if present else None,
                    round(1 - spec.quality.range_mostly, 12),
                    Direction.AT_MOST,
                    window=window,
                    subject=feature.name,
                    count=present,
                    severity=spec.quality.range_severity,
                )
            )
        usual = None if reference is None else reference.columns[feature.name]
        if usual is None:
            continue
        against = [("constant", *_constant(usual, state), 0.0)]
        if isinstance(state, Numbers) and isinstance(usual, Numbers):
            against.append(("outlier_share_rise", *_outliers(usual, state), OUTLIERS))
        if isinstance(state, Categories) and isinstance(usual, Categories) and outside is None:
            against.append(("unseen_share", *_unseen(usual, state), UNSEEN))
        rows = min(usual.known, state.known)
        findings += [
            judge_distance(feature.name, measure, value, limit, rows, window, Evidence(p_value), each)
            for measure, value, p_value, limit in against
        ]
    return findings


def judge_volume(rows: int, past: Sequence[int], *, window: str, alpha: float = ALPHA) -> Finding:
    """Judge how many rows came, beside earlier windows of the same length.

    Parameters
    ----------
    rows
        Rows of this window.
    past
        Rows of earlier windows, empty ones included.
    window
        In words.
    alpha
        Chance of a false finding.

    Returns
    -------
    Finding
        ``volume_doublings``: doublings or halvings from the median of the earlier windows, 0 or above; one more row is
        counted on both sides, so that an empty window has a value. A warning beyond one doubling that is neither the
        chance of counting nor what windows usually do. NO_DATA without an earlier window, or when all were empty.
    """
    usual = float(np.median(past)) if len(past) else 0.0
    if usual == 0:
        return judge(
            "volume_doublings", None, DOUBLED, Direction.AT_MOST, window=window, missing=f"{len(past)} earlier windows"
        )
    counted = stats.poisson.cdf(rows, usual) if rows < usual else stats.poisson.sf(rows - 1, usual)
    own = tuple(abs(math.log2((count + 1) / (usual + 1))) for count in past)
    change = abs(math.log2((rows + 1) / (usual + 1)))
    return judge_distance(
        f"{rows:,} rows, usually {usual:,.0f}",
        "volume_doublings",
        change,
        DOUBLED,
        None,
        window,
        Evidence(min(1.0, 2 * float(counted)), own),
        alpha,
    )


def judge_freshness(newest: datetime | None, as_of: datetime, oldest: timedelta, *, window: str) -> Finding:
    """Judge the age of the newest row.

    Parameters
    ----------
    newest
        Its time; None without a row.
    as_of
        The moment of judging.
    oldest
        Largest accepted age.
    window
        In words.

    Returns
    -------
    Finding
        ``age_of_newest_row`` in days; NO_DATA without a row. A row from the future means a clock that is wrong: it
        fails, whatever its age.
    """
    day = timedelta(days=1)
    age = None if newest is None else (as_of - newest) / day
    if age is not None and age < 0:
        return judge("age_of_newest_row", age, 0.0, Direction.AT_LEAST, window=window)
    return judge("age_of_newest_row", age, oldest / day, Direction.AT_MOST, window=window, missing="no row")


def judge_duplicates(keys: pd.Series[str], *, window: str) -> Finding:
    """Judge how many rows repeat an earlier row's key: ``duplicate_share``, 0 accepted."""
    return judge(
        "duplicate_share",
        float(keys.duplicated().mean()) if len(keys) else None,
        0.0,
        Direction.AT_MOST,
        window=window,
        count=len(keys),
        severity=Severity.WARNING,
    )


def _outside(feature: Feature, state: Numbers | Categories) -> float | None:
    """Rows outside the declared range or list; None when nothing is declared."""
    if isinstance(state, Categories):
        values = getattr(feature, "values", None)
        return None if values is None else float(sum(n for value, n in state.counts.items() if value not in values))
    low, high = getattr(feature, "min", None), getattr(feature, "max", None)
    if low is None and high is None:
        return None
    beyond = float(state.below + state.above)
    if state.known and low is not None and state.low < low:
        beyond += float(state.share_at(low, strictly_below=True)) * state.known
    if state.known and high is not None and state.high > high:
        beyond += (1 - float(state.share_at(high))) * state.known
    return beyond


def _outliers(usual: Numbers, state: Numbers) -> tuple[float | None, float]:
    """Rise of the share far out, and the chance of such a rise; the fences are the reference's."""
    if not usual.known or not state.known:
        return None, math.nan
    first, third = usual.quantile([0.25, 0.75])
    reach = FENCE * (third - first)
    counts = [
        round(float(one.share_at(first - reach, strictly_below=True) + 1 - one.share_at(third + reach)) * one.known)
        for one in (usual, state)
    ]
    rise = counts[1] / state.known - counts[0] / usual.known
    # Exact (Fisher, 1935): outliers are too few for a normal distribution.
    chance = stats.hypergeom.sf(counts[1] - 1, usual.known + state.known, sum(counts), state.known)
    return rise, float(chance)


def _constant(usual: Numbers | Categories, state: Numbers | Categories) -> tuple[float | None, float]:
    """Whether every row has one and the same value, and the chance of it by the reference's share of that value."""
    if not usual.known or not state.known:
        return None, math.nan
    if isinstance(state, Numbers) and isinstance(usual, Numbers):
        same = state.low == state.high
        share = float(usual.share_at(state.low) - usual.share_at(state.low, strictly_below=True))
    else:
        assert isinstance(state, Categories)
        assert isinstance(usual, Categories)
        same = len(state.counts) == 1
        share = usual.counts.get(next(iter(state.counts)), 0) / usual.known
    return float(same), share**state.known


def _unseen(usual: Categories, state: Categories) -> tuple[float | None, float]:
    """Share of rows with a value that the reference does not have, and the chance of so many.

    What is still to be seen of a source is about its share of values that were seen once (Good, 1953).
    """
    if not usual.known or not state.known:
        return None, math.nan
    unseen = sum(count for value, count in state.counts.items() if value not in usual.counts)
    once = sum(count == 1 for count in usual.counts.values())
    expected = min(1.0, (once + 1) / usual.known)
    return unseen / state.known, float(stats.binom.sf(unseen - 1, state.known, expected))
