"""Everybody is answered by exactly one version, the same one each time, and shares are what the table says."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.errors import ConfigError
from lifecycle.traffic import Role, Routing, assign, point

pytestmark = pytest.mark.requirement("R4.1")
ENTITIES = [f"M{number:06d}" for number in range(100_000)]


def canary(share: float) -> Routing:
    return Routing("m", 1, "1", "2", share)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_a_share_is_even_to_within_sampling_error(share: float):
    met = sum(assign(canary(share), entity)[1] is Role.CANDIDATE for entity in ENTITIES)
    assert abs(met - share * len(ENTITIES)) < 4.5 * math.sqrt(len(ENTITIES) * share * (1 - share))


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_growing_share_only_ever_moves_entities_to_the_candidate(entity: str, one: float, other: float):
    low, high = sorted((one, other))
    if assign(canary(low), entity)[1] is Role.CANDIDATE:
        assert assign(canary(high), entity)[1] is Role.CANDIDATE


@given(st.text(), st.floats(0, 1))
def test_an_entity_always_meets_the_same_version(entity: str, share: float):
    assert assign(canary(share), entity) == assign(canary(share), entity)


@given(st.text())
def test_the_ends_are_nobody_and_everybody(entity: str):
    assert assign(canary(0.0), entity) == ("1", Role.LIVE)
    assert assign(canary(1.0), entity) == ("2", Role.CANDIDATE)
    assert assign(Routing("m", 1, None, "1", 1.0), entity) == ("1", Role.CANDIDATE)
    assert 0 <= point("m", "2", entity) < 1


def test_each_candidate_and_each_model_draws_its_own_entities():
    def drawn(model: str, candidate: str) -> set[str]:
        return {entity for entity in ENTITIES[:20_000] if point(model, candidate, entity) < 0.1}

    first, second, third = drawn("m", "2"), drawn("m", "3"), drawn("n", "2")
    for other in (second, third):
        assert len(first & other) / len(first) == pytest.approx(0.1, abs=0.03)


@given(st.one_of(st.none(), st.just("1")), st.one_of(st.none(), st.just("2")), st.floats(0, 1))
def test_weights_always_add_up_to_one(live: str | None, candidate: str | None, share: float):
    try:
        routing = Routing("m", 1, live, candidate, share)
    except ConfigError:
        return
    assert sum(routing.weights.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"live": None}, "nobody is live"),
        ({"live": None, "candidate": "2", "share": 0.5}, "nobody is live"),
        ({"live": "1", "share": 0.5}, "without a candidate"),
        ({"live": "1", "candidate": "2", "share": 1.01}, "accepted: 0 to 1"),
        ({"live": "1", "candidate": "2", "share": -0.01}, "accepted: 0 to 1"),
        ({"live": "1", "candidate": "2", "share": math.nan}, "accepted: 0 to 1"),
        ({"live": "1", "candidate": "1", "share": 0.5}, "live and candidate"),
        ({"live": "1", "generation": 0}, "from 1"),
    ],
)
def test_a_table_that_would_leave_somebody_out_is_refused(values: dict, problem: str):
    with pytest.raises(ConfigError, match=problem):
        Routing(**{"model": "m", "generation": 1, **values})


def test_a_table_survives_json():
    routing = Routing("m", 3, "1", "2", 0.25, "3", "0")
    assert Routing.from_dict(routing.to_dict()) == routing
    assert routing.warm == {"1": Role.LIVE, "2": Role.CANDIDATE, "0": Role.PREVIOUS, "3": Role.SHADOW}


def test_an_override_names_a_version_in_memory_with_the_part_it_plays():
    routing = Routing("m", 1, "1", "2", 0.5, shadow="3", previous="1")
    assert assign(routing, "e", "1") == ("1", Role.LIVE)
    assert assign(routing, "e", "3") == ("3", Role.SHADOW)
    with pytest.raises(ConfigError, match="'9' of m is not in memory; accepted: 1, 2, 3"):
        assign(routing, "e", "9")
