"""Figures are drawn from whatever a training can come to, and say where there is no data."""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from adapters import figures
from lifecycle.evaluation import BaselineScores, Estimate, Evaluation, evaluate
from lifecycle.fairness import RATES
from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.remedies import Outcome, Remedy
from tests.minimal_spec import grouped_spec

pytestmark = pytest.mark.requirement("R11.1")

HOSTILE = "$\\frac{1}{0}$ <b>\n" + "ب" * 300
STRANGE = ["", "$x^2$", HOSTILE, "\x00", "名前"]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PARITY, OPPORTUNITY, PREDICTIVE = RATES


@cache
def evaluation(kind: str = "usual") -> Evaluation:
    rng = np.random.default_rng(0)
    labels = {"one class": np.zeros(400, dtype=int)}.get(kind, rng.integers(0, 2, 400))
    scores = np.clip(labels * 0.3 + rng.uniform(0, 0.7, 400), 0, 1)
    if kind == "constant scores":
        scores[:] = 0.5
    if kind == "NaN scores":
        scores[7] = np.nan
    frame = pd.DataFrame({"c": ["u"] * 380 + ["w"] * 20, "g": ["f"] * 200 + ["m"] * 180 + ["x"] * 20})
    if kind == "every group too small":
        frame["g"] = [f"group {place}" for place in range(400)]
        frame["c"] = frame["g"]
    baselines: dict[str, BaselineScores | None] = {
        "prior": BaselineScores(np.full(400, 0.5), 0.5),
        "champion": None,
    }
    return evaluate(
        grouped_spec(), frame, labels, scores, 0.5, {} if kind == "no baseline" else baselines, 0, "hold-out"
    )


def size(picture: bytes) -> tuple[int, int]:
    """Width and height of a PNG."""
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", picture[16:24])
    return int(width), int(height)


def sane(picture: bytes) -> bool:
    """Whether a picture is a PNG of a size that people look at, and not of one colour only."""
    from io import BytesIO

    from PIL import Image

    width, height = size(picture)
    assert 300 <= width <= 1_400, width
    assert 150 <= height <= 2_400, height
    assert len(picture) < 500_000
    return len(np.unique(np.asarray(Image.open(BytesIO(picture)).convert("L")))) > 2


def finding(value: float | None, threshold: float | None = 0.5, **changes: Any) -> Finding:
    verdict = Verdict.NO_DATA if value is None else Verdict.PASS
    return replace(Finding("roc_auc", "all rows", value, threshold, Direction.AT_LEAST, "w", verdict, "r"), **changes)


def trials(**columns: list[Any]) -> pd.DataFrame:
    return pd.DataFrame({"number": [0, 1, 2], "state": ["complete", "pruned", "fail"], **columns})


def remedy(attribute: str = "gender") -> Remedy:
    gaps: dict[str, float | None] = {PARITY: 0.2, OPPORTUNITY: None, PREDICTIVE: 0.1}
    return Remedy(
        attribute,
        "threshold optimiser",
        "demographic_parity",
        PARITY,
        Outcome(gaps, 0.8, 4_000.0, {PARITY: (0.15, 0.25)}),
        Outcome({**gaps, PARITY: 0.01}, 0.75, 3_500.0, {PARITY: (0.0, 0.03)}),
        "EUR",
    )


def test_everything_an_evaluation_holds_is_drawn():
    drawn = figures.evaluation_figures(evaluation(), limits={PARITY: 0.05})
    assert list(drawn) == [
        "roc",
        "precision_recall",
        "calibration",
        "scores",
        "confusion",
        "value",
        "comparisons",
        "slices",
        "fairness_gender",
    ]
    assert all(sane(picture) for picture in drawn.values())


@pytest.mark.parametrize(
    ("kind", "left_out"),
    [
        ("one class", set()),
        ("constant scores", set()),
        ("no baseline", {"comparisons"}),
        ("every group too small", set()),
        ("NaN scores", {"roc", "precision_recall", "calibration", "scores", "confusion", "value"}),
    ],
)
def test_a_hold_out_that_tells_little_is_drawn_as_far_as_it_goes(kind: str, left_out: set[str]):
    drawn = figures.evaluation_figures(evaluation(kind))
    assert left_out.isdisjoint(drawn)
    assert all(sane(picture) for picture in drawn.values())


def test_what_there_is_no_data_for_is_not_drawn():
    bare = Evaluation(0, 0, 0, "w", 0.5, 0.95, 100, 0, "EUR", {})
    assert figures.evaluation_figures(bare) == {}


def test_the_same_evaluation_gives_the_same_picture():
    assert figures.roc_figure(evaluation()) == figures.roc_figure(evaluation())


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_measure_without_a_value_is_no_point(value: float | None):
    holes = {name: Estimate(value, value, value) for name in evaluation().metrics}
    slices = tuple(replace(one, metrics={"roc_auc": Estimate(value)}) for one in evaluation().slices)
    hollow = replace(
        evaluation(), metrics=holes, baselines={"prior": holes}, comparisons={"prior": holes}, slices=slices
    )
    assert all(sane(picture) for picture in figures.evaluation_figures(hollow).values())


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_name_is_drawn_as_text(name: str):
    odd = replace(
        evaluation(),
        currency=name,
        slices=tuple(replace(one, column=name, label=name) for one in evaluation().slices),
    )
    attribute = evaluation().fairness["gender"]
    groups = tuple(replace(one, label=name) for one in attribute.groups)
    assert sane(figures.slices_figure(odd))
    assert sane(figures.value_figure(odd))
    assert sane(figures.fairness_figure(replace(attribute, attribute=name, groups=groups), {}))
    assert sane(figures.gates_figure([finding(0.7, measure=name, subject=name)]))
    assert sane(figures.history_figure(pd.Series([NOW]), [1], holdout_start=None, positive=name))
    assert sane(figures.remedies_figure([remedy(name)]))


def test_a_thousand_slices_are_drawn_to_the_most_that_people_read():
    one = evaluation().slices[0]
    many = replace(evaluation(), slices=tuple(replace(one, label=f"v{place}") for place in range(1_000)))
    assert sane(figures.slices_figure(many))


@pytest.mark.requirement("R5.6")
def test_groups_are_drawn_with_and_without_a_limit_and_without_any_group():
    attribute = evaluation().fairness["gender"]
    banded = figures.fairness_figure(attribute, dict.fromkeys(RATES, 0.05))
    assert sane(banded)
    assert banded != figures.fairness_figure(attribute, {})
    assert sane(figures.fairness_figure(replace(attribute, groups=(), disparities={}), {}))


@pytest.mark.requirement("R5.6")
def test_limits_are_those_of_the_fairness_gates():
    gates = [
        finding(0.7),
        finding(0.1, 0.05, measure=PARITY, subject="gender"),
        finding(None, None, measure=OPPORTUNITY, subject="gender"),
    ]
    assert figures.fairness_limits(gates) == {PARITY: 0.05}


@pytest.mark.requirement("R5.6")
@pytest.mark.parametrize("count", [1, 8])
def test_remedies_are_drawn_with_what_they_change(count: int):
    drawn = figures.remedies_figure([remedy(f"attribute {place}") for place in range(count)], {PARITY: 0.05})
    assert sane(drawn)
    assert drawn != figures.remedies_figure([remedy(f"attribute {place}") for place in range(count)])


@pytest.mark.parametrize(
    "findings",
    [
        [],
        [finding(None)],
        [finding(math.nan, interval=(math.nan, math.nan))],
        [finding(0.7, None)],
        [finding(0.5)],
        [finding(0.7, interval=(0.4, 0.8)), finding(-1e9, 0.0), finding(1e-12, 0.0)],
        [finding(0.1, verdict=Verdict.FAIL), finding(0.4, verdict=Verdict.WARN), finding(None)],
    ],
)
def test_gates_are_drawn_whatever_they_came_to(findings: list[Finding]):
    assert sane(figures.gates_figure(findings))


@pytest.mark.parametrize("days", [0, 1, 30, 200])
def test_a_history_of_any_length_is_drawn(days: int):
    when = pd.Series(pd.date_range(NOW, periods=days, freq="D"))
    assert sane(
        figures.history_figure(when, [place % 2 for place in range(days)], holdout_start=NOW, positive="leaves")
    )


def test_a_history_without_labels_or_times_says_no_data():
    assert sane(figures.history_figure(pd.Series([pd.NaT, NOW]), [1, math.nan], holdout_start=None, positive="yes"))


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame(),
        trials().head(0),
        trials(roc_auc=[0.7, 0.6, math.nan]),
        trials(roc_auc=[math.nan] * 3),
        trials(roc_auc=[0.7, 0.6, math.nan]).head(1),
        trials(roc_auc=[0.7, 0.6, math.nan]).tail(1),
    ],
    ids=["no table", "no trial", "each state", "no value", "one", "failed only"],
)
def test_a_search_is_drawn_however_it_went(table: pd.DataFrame):
    assert sane(figures.trials_figure(table))
