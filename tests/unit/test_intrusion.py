"""Attacks that are really mounted are found among ordinary clients, and ordinary clients are not taken for attacks."""

import numpy as np
import pandas as pd
import pytest

from lifecycle.distribution import WindowState
from lifecycle.findings import Verdict
from lifecycle.intrusion import (
    MIN_QUERIES,
    MOST_QUERIES,
    Client,
    Familiarity,
    Space,
    coverage,
    judge_clients,
    judge_familiarity,
    judge_refusals,
    spacing,
)

pytestmark = pytest.mark.requirement("R5.7")

NUMBERS, CATEGORIES = [f"x{n}" for n in range(6)], ["k", "l"]
MIX = np.random.default_rng(1).normal(size=(6, 6))


def traffic(rows, seed, corner=0.0):
    """Correlated numbers, skewed categories, a few values missing; a corner is a client's own kind of customers."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, 6)) @ MIX + corner * rng.normal(size=6)
    frame = pd.DataFrame(values, columns=NUMBERS)
    frame.loc[rng.random(rows) < 0.03, "x0"] = np.nan
    frame["k"] = rng.choice(np.array(["a", "b", "c"], object), rows, p=[0.7, 0.25, 0.05])
    frame["l"] = rng.choice(np.array(["p", "q"], object), rows)
    return frame


REFERENCE = traffic(20_000, 0)
SPACE = Space.of(WindowState.of(REFERENCE, NUMBERS, CATEGORIES))
ORDINARY = SPACE.points(REFERENCE.iloc[:4_000])
FAMILIAR = Familiarity.of(SPACE, REFERENCE)


def random_queries(rows, seed):
    """Values drawn evenly between the extremes: what a thief without data asks (Tramer and others, 2016)."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({name: rng.uniform(*REFERENCE[name].quantile([0.01, 0.99]), rows) for name in NUMBERS})
    return frame.assign(k=rng.choice(list("abc"), rows), l=rng.choice(list("pq"), rows))


def perturbed_queries(rows, seed):
    """A few rows, and steps away from each, and from these again: Jacobian-based augmentation (Papernot and others, 2017)."""
    rng = np.random.default_rng(seed)
    asked = traffic(rows // 16, seed)
    step = 0.1 * REFERENCE[NUMBERS].std().to_numpy()
    while len(asked) < rows:
        further = asked.copy()
        further[NUMBERS] += step * rng.choice([-1, 1], (len(asked), len(NUMBERS)))
        asked = pd.concat([asked, further], ignore_index=True)
    return asked.iloc[:rows]


def searching_queries(rows, seed):
    """Bisections between two rows for the place where the decision turns (Lowd and Meek, 2005)."""
    rng = np.random.default_rng(seed)
    ends = traffic(2 * (rows // 10 + 1), seed).fillna(0.0)
    first, second = ends.iloc[::2], ends.iloc[1::2]
    parts = []
    low, high = np.zeros(len(first)), np.ones(len(first))
    for _ in range(10):
        middle = (low + high) / 2
        part = first.reset_index(drop=True).copy()
        part[NUMBERS] = first[NUMBERS].to_numpy() * (1 - middle[:, None]) + second[NUMBERS].to_numpy() * middle[:, None]
        parts.append(part)
        up = rng.random(len(middle)) < 0.5
        low, high = np.where(up, middle, low), np.where(up, high, middle)
    return pd.concat(parts, keys=range(10)).swaplevel().sort_index().iloc[:rows]


def client(name, frame, refused=0):
    return Client(name, len(frame), refused, SPACE.points(frame))


def ordinary_clients(count, seed):
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.normal(4.5, 0.6, count)).astype(int)
    return [client(f"c{n}", traffic(size, 1_000 * seed + n, corner=0.5)) for n, size in enumerate(sizes)]


@pytest.mark.parametrize("attack", [random_queries, perturbed_queries, searching_queries])
def test_an_attempt_to_copy_the_model_is_found_among_ordinary_clients(attack):
    for seed in range(3):
        clients = [*ordinary_clients(25, 10 + seed), client("thief", attack(1_500, seed))]
        found = judge_clients(clients, ORDINARY, window="w")
        told = {(f.subject, f.measure) for f in found if f.verdict is Verdict.FAIL}
        assert told == {("thief", "query_spacing_distance")}


def test_copying_with_real_rows_warns_of_its_breadth():
    clients = [*ordinary_clients(25, 20), client("thief", traffic(1_500, 5))]
    found = {f.measure: f.verdict for f in judge_clients(clients, ORDINARY, window="w") if f.subject == "thief"}
    assert found == {
        "query_volume_ratio": Verdict.WARN,
        "query_spacing_distance": Verdict.PASS,
        "input_coverage": Verdict.WARN,
    }


def test_ordinary_clients_are_seldom_told():
    """40 windows of 15 clients with corners of their own: at most one window in a hundred, as stated."""
    weeks = np.exp(np.random.default_rng(0).normal(4.5, 0.6, (15, 5))).astype(int)
    past = {f"c{n}": counts for n, counts in enumerate(weeks)}
    alarms = 0
    for seed in range(100, 140):
        found = judge_clients(ordinary_clients(15, seed), ORDINARY, window="w", usual_queries=past)
        assert not any(f.verdict is Verdict.FAIL for f in found)
        alarms += any(f.verdict is Verdict.WARN for f in found)
    assert alarms <= 3  # 40 windows at 1 %: four or more come by chance once in a thousand times


def test_a_client_is_measured_by_its_own_past_and_a_new_one_by_the_others():
    big = client("big", traffic(1_500, 3))
    past = {"big": [1_400, 1_600, 1_500], "small": [10, 12, 9], "other": [11, 10, 12]}
    (volume,) = judge_clients([big], ORDINARY, window="w", usual_queries=past)
    assert volume.verdict is Verdict.PASS
    new = judge_clients([client("new", traffic(1_500, 3))], ORDINARY, window="w", usual_queries=past)
    assert new[0].verdict is Verdict.WARN
    own = judge_clients(
        [client("small", traffic(400, 3))],
        random_points := SPACE.points(random_queries(4_000, 9)),
        window="w",
        usual_queries=past,
        usual_points={"small": ORDINARY},
    )
    assert [f.verdict for f in own if f.measure == "query_spacing_distance"] == [Verdict.PASS]
    other = judge_clients([client("small", traffic(400, 3))], random_points, window="w", usual_queries=past)
    assert [f.verdict for f in other if f.measure == "query_spacing_distance"] == [Verdict.FAIL]


def test_too_few_queries_and_no_clients_prove_nothing():
    assert judge_clients([], ORDINARY, window="w") == []
    few = judge_clients([client("a", traffic(MIN_QUERIES - 1, 0))], ORDINARY, window="w", usual_queries={"b": [1, 1]})
    assert [f.measure for f in few] == ["query_volume_ratio"]
    idle = judge_clients([client("a", traffic(0, 0))], ORDINARY, window="w")
    assert idle[0].verdict is Verdict.NO_DATA
    lone = judge_clients([client("a", traffic(200, 0))], ORDINARY[:50], window="w", usual_queries={"b": [1, 1]})
    assert [f.verdict for f in lone if f.measure == "query_spacing_distance"] == [Verdict.NO_DATA]


def test_inputs_unlike_any_before_are_found_and_ordinary_ones_are_not():
    ordinary = FAMILIAR.p_values(traffic(5_000, 7))
    assert judge_familiarity(ordinary, window="w").verdict is Verdict.PASS
    assert np.mean(ordinary <= 0.1) == pytest.approx(0.1, abs=0.02)
    broken = traffic(500, 8)
    broken.loc[:24, NUMBERS] = traffic(25, 9)[NUMBERS].to_numpy()[:, ::-1]  # columns swapped: each alone is usual
    broken.loc[25:34, "k"] = "never seen"
    broken.loc[35, "x1"] = np.inf
    p_values = FAMILIAR.p_values(broken)
    assert (p_values[25:35] <= 0.005).all()
    assert p_values[35] <= 0.001
    found = judge_familiarity(p_values, window="w")
    assert found.verdict is Verdict.WARN
    assert found.value >= 0.02


def test_adversarial_steps_off_the_data_are_found():
    """Each number moved by a deviation in the direction that raises a linear score: a fast gradient sign step."""
    rows = traffic(300, 4)
    weights = np.random.default_rng(3).normal(size=len(NUMBERS))
    moved = rows.assign(
        **{n: rows[n] + 1.5 * REFERENCE[n].std() * np.sign(w) for n, w in zip(NUMBERS, weights, strict=True)}
    )
    assert judge_familiarity(FAMILIAR.p_values(moved), window="w").verdict is Verdict.WARN
    assert judge_familiarity(FAMILIAR.p_values(rows), window="w").verdict is Verdict.PASS


def test_a_few_odd_rows_are_chance_and_none_at_all_no_data():
    assert judge_familiarity(np.array([0.0005] + [0.5] * 20), window="w").verdict is Verdict.PASS
    assert judge_familiarity(np.array([]), window="w").verdict is Verdict.NO_DATA


def test_categories_alone_have_a_familiarity_too():
    frame = pd.DataFrame({"k": ["a"] * 999 + ["b"]})
    space = Space.of(WindowState.of(frame, [], ["k"]))
    familiar = Familiarity.of(space, frame)
    assert familiar.p_values(pd.DataFrame({"k": ["a", "b", "z", None]})).tolist() == [1.0, 2 / 1001, 1 / 1001, 2 / 1001]


def test_spacing_and_coverage_are_what_they_say():
    points = np.array([[0.0], [3.0], [1.0], [1.0]])
    assert spacing(points).tolist() == [3.0, 1.0, 0.0]
    assert spacing(points[:1]).tolist() == []
    assert len(spacing(np.zeros((MOST_QUERIES + 500, 1)))) == MOST_QUERIES - 1
    assert coverage(points[:0], ORDINARY) == 0
    assert coverage(SPACE.points(traffic(1_000, 12)), ORDINARY) == pytest.approx(0.5, abs=0.05)
    assert coverage(SPACE.points(traffic(1_000, 12).assign(k="c", x0=9)), ORDINARY) < 0.1


def test_refused_requests_are_told_where_they_are_more_than_chance():
    nothing = np.zeros((0, 1))
    clients = [
        Client("ordinary", 5_000, 20, nothing),
        Client("prober", 3, 60, nothing),
        Client("one slip", 4, 1, nothing),
        Client("silent", 0, 0, nothing),
    ]
    found = {f.subject: f for f in judge_refusals(clients, 0.005, window="w")}
    assert {name: f.verdict for name, f in found.items()} == {
        "ordinary": Verdict.PASS,
        "prober": Verdict.FAIL,
        "one slip": Verdict.PASS,
        "silent": Verdict.NO_DATA,
    }
    assert "say nothing" in found["one slip"].reason
