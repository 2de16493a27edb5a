"""No row validates or judges a model that was fitted on it, or on its future."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.errors import DataError
from lifecycle.spec import ModelSpec
from lifecycle.splitting import FIRST_FIT_SHARE, split
from tests.minimal_spec import minimal_spec

pytestmark = pytest.mark.requirement("R3.5", "R3.6")


def spec(**rules: Any) -> ModelSpec:
    return minimal_spec(
        source={"table": "t", "timestamp": "at", "entity_key": "id"},
        training={"split": {"strategy": "time", "holdout": 0.2, "folds": 3, **rules}},
    )


def rows(count: int, minutes: np.ndarray | None = None, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    offsets = rng.integers(0, 10 * count, count) if minutes is None else minutes
    return pd.DataFrame(
        {
            "at": pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(offsets, unit="min"),
            "y": rng.integers(0, 2, count).astype(np.int8),
            "user": [f"u{number}" for number in rng.integers(0, max(count // 5, 2), count)],
        }
    )


def check_partition(frame: pd.DataFrame, found: Any) -> None:
    everything = np.concatenate([found.train, found.holdout])
    assert sorted(everything.tolist()) == list(range(len(frame)))
    train = set(found.train.tolist())
    validated: list[int] = []
    for fit, validate in found.folds:
        assert set(fit.tolist()) <= train
        assert set(validate.tolist()) <= train
        assert not set(fit.tolist()) & set(validate.tolist())
        assert len(fit)
        assert len(validate)
        validated += validate.tolist()
    assert len(validated) == len(set(validated))


@given(st.integers(300, 600), st.integers(2, 5), st.sampled_from([0.1, 0.2, 0.4]), st.integers(0, 9))
def test_by_time_nothing_is_judged_by_what_came_after_it(count, folds, holdout, seed):
    frame = rows(count, seed=seed)
    found = split(frame, spec(folds=folds, holdout=holdout), 0)
    check_partition(frame, found)
    when = frame["at"]
    assert when.iloc[found.train].max() < when.iloc[found.holdout].min()
    for fit, validate in found.folds:
        assert when.iloc[fit].max() < when.iloc[validate].min()
    for (_, earlier), (fit, later) in zip(found.folds, found.folds[1:], strict=False):
        assert when.iloc[earlier].max() < when.iloc[later].min()
        assert set(earlier.tolist()) <= set(fit.tolist())
    assert len(found.holdout) == pytest.approx(holdout * count, abs=0.1 * count + 3)
    assert len(found.folds[0][0]) == pytest.approx(FIRST_FIT_SHARE * len(found.train), abs=0.1 * count + 3)


@given(st.integers(300, 500), st.integers(8, 12), st.integers(0, 9))
def test_by_time_rows_of_one_moment_stay_together(count, moments, seed):
    frame = rows(count, np.random.default_rng(seed + 100).integers(0, moments, count), seed)
    found = split(frame, spec(), 0)
    sides = {}
    for side, positions in (("train", found.train), ("holdout", found.holdout)):
        for moment in frame["at"].iloc[positions].unique():
            assert sides.setdefault(moment, side) == side


def test_by_time_the_order_of_rows_and_the_seed_change_nothing():
    frame = rows(200)
    turned = frame.iloc[::-1].reset_index(drop=True)
    first, other = split(frame, spec(), 0), split(turned, spec(), 5)
    assert set(frame["at"].iloc[first.holdout]) == set(turned["at"].iloc[other.holdout])


@given(st.integers(60, 300), st.integers(2, 5), st.integers(0, 9))
def test_stratified_parts_have_the_same_share_of_positives(count, folds, seed):
    frame = rows(count, seed=3)
    found = split(frame, spec(strategy="stratified", folds=folds), seed)
    check_partition(frame, found)
    for label in (0, 1):
        of_label = (frame["y"] == label).to_numpy()
        assert abs(of_label[found.holdout].sum() - 0.2 * of_label.sum()) <= 1
        sizes = [of_label[validate].sum() for _, validate in found.folds]
        assert max(sizes) - min(sizes) <= 1
    assert sorted(np.concatenate([validate for _, validate in found.folds]).tolist()) == found.train.tolist()


@given(st.integers(100, 300), st.integers(2, 4), st.integers(0, 9))
def test_a_group_is_never_on_both_sides(count, folds, seed):
    frame = rows(count, seed=seed)
    frame.loc[::17, "user"] = None
    found = split(frame, spec(strategy="grouped", group="user", folds=folds), seed)
    check_partition(frame, found)
    users = frame["user"].fillna("nobody").to_numpy()
    assert not set(users[found.train]) & set(users[found.holdout])
    for fit, validate in found.folds:
        assert not set(users[fit]) & set(users[validate])
    assert len(found.holdout) == pytest.approx(0.2 * count, abs=0.1 * count)


@pytest.mark.parametrize("strategy", ["stratified", "grouped"])
def test_random_assignments_follow_the_seed(strategy):
    frame = rows(200)
    asked = spec(strategy=strategy, group="user" if strategy == "grouped" else None)
    first, same, other = (split(frame, asked, seed).holdout.tolist() for seed in (1, 1, 2))
    assert first == same != other


@pytest.mark.parametrize(
    ("change", "rules", "answer"),
    [
        (lambda frame: frame.head(7), {}, "7 rows cannot be split into a hold-out and 3 folds; accepted: at least 8"),
        (lambda frame: frame.head(0), {}, "0 rows cannot be split"),
        (lambda frame: frame.assign(y=np.int8(1)), {}, "all 60 rows have y = 1; accepted: both outcomes"),
        (lambda frame: frame.assign(at=frame["at"].iloc[0]), {}, "1 distinct values of at"),
        (lambda frame: frame.assign(at=frame["at"].where(frame.index > 2)), {}, "3 rows have no at; accepted: none"),
        (lambda frame: frame.assign(user="one"), {"strategy": "grouped", "group": "user"}, "1 distinct values of user"),
        (
            lambda frame: frame.sort_values("at").assign(y=np.repeat([0, 1], 30).astype(np.int8)),
            {},
            "accepted: both outcomes in each part",
        ),
    ],
)
def test_rows_that_cannot_be_split_are_named(change, rules, answer):
    with pytest.raises(DataError, match=answer):
        split(change(rows(60)), spec(**rules), 0)
