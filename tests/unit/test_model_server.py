"""A model server's config is drawn so that it is always taken, and ends where the routing tables are."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.model_server import AVAILABLE, Seen, ServedModel, next_config
from lifecycle.traffic import Routing

pytestmark = pytest.mark.requirement("R4.1")


def live(version: str, **other: str) -> Routing:
    return Routing("churn", 1, version, **other)


def test_a_new_version_is_held_before_it_has_a_label():
    assert next_config([live("1")], {}) == (ServedModel("churn", ("1",), {}),)
    assert next_config([live("1")], {"churn": Seen({"1": "LOADING"})}) is None
    assert next_config([live("1")], {"churn": Seen({"1": AVAILABLE})}) == (ServedModel("churn", ("1",), {"live": "1"}),)
    assert next_config([live("1")], {"churn": Seen({"1": AVAILABLE}, {"live": "1"})}) is None


def test_a_label_stays_where_it_is_until_its_new_version_answers_and_that_version_is_kept():
    seen = Seen({"9": AVAILABLE, "10": "LOADING"}, {"live": "9"})
    assert next_config([live("10")], {"churn": seen}) is None
    config = next_config([live("10")], {"churn": Seen({"9": AVAILABLE}, {"live": "9"})})
    assert config == (ServedModel("churn", ("9", "10"), {"live": "9"}),)
    config = next_config([live("10")], {"churn": Seen({"9": AVAILABLE, "10": AVAILABLE}, {"live": "9"})})
    assert config == (ServedModel("churn", ("10",), {"live": "10"}),)


def test_a_label_on_a_version_that_is_gone_is_let_go():
    seen = Seen({"1": "END", "2": "LOADING"}, {"live": "1"})
    assert next_config([live("2")], {"churn": seen}) == (ServedModel("churn", ("2",), {}),)


def test_a_part_nobody_plays_any_more_has_no_label():
    seen = Seen({"1": AVAILABLE, "2": AVAILABLE}, {"live": "1", "candidate": "2"})
    assert next_config([live("1")], {"churn": seen}) == (ServedModel("churn", ("1",), {"live": "1"}),)


def test_a_version_that_cannot_be_loaded_is_not_asked_for_again_and_again():
    seen = Seen({"1": AVAILABLE, "2": "END"}, {"live": "1"}, {"2": "no saved_model.pb"})
    assert next_config([live("1", shadow="2")], {"churn": seen}) is None


def test_a_version_that_was_unloaded_comes_back():
    seen = Seen({"1": AVAILABLE, "2": "END"}, {"live": "1"})
    config = next_config([live("1", shadow="2")], {"churn": seen})
    assert config == (ServedModel("churn", ("1", "2"), {"live": "1"}),)


def test_one_models_change_names_every_other_model_too():
    seen = {"churn": Seen({"1": AVAILABLE}, {"live": "1"}), "delay": Seen()}
    config = next_config([Routing("delay", 1, "3"), live("1")], seen)
    assert config is not None
    assert [one.model for one in config] == ["churn", "delay"]


def test_without_a_routing_table_nothing_is_sent():
    assert next_config([], {"churn": Seen({"1": AVAILABLE}, {"live": "1"})}) is None


@dataclass
class Server:
    """TensorFlow Serving in a few lines: refuses labels on what is not available, loads when it pleases."""

    states: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    def take(self, config: ServedModel) -> None:
        refused = {one for one in config.labels.values() if self.states.get(one) != AVAILABLE}
        assert not refused, "labels of versions that are not available: the whole config is refused"
        self.labels = dict(config.labels)
        for version in set(self.states) - set(config.versions):
            self.states[version] = "END"
        for version in config.versions:
            if self.states.get(version) not in ("LOADING", AVAILABLE):
                self.states[version] = "LOADING"

    def loaded(self) -> None:
        self.states = {one: AVAILABLE if state == "LOADING" else state for one, state in self.states.items()}


VERSIONS = st.sampled_from(["1", "2", "3", "10"])


@st.composite
def routings(draw: st.DrawFn) -> Routing:
    answering = draw(VERSIONS)
    other = draw(st.none() | VERSIONS)
    candidate = None if other == answering else other
    share = draw(st.sampled_from([0.0, 0.5, 1.0])) if candidate else 0.0
    return Routing("churn", 1, answering, candidate, share, draw(st.none() | VERSIONS), draw(st.none() | VERSIONS))


@given(st.lists(st.tuples(routings(), st.sampled_from(["look", "load", "restart"])), max_size=12), routings())
def test_whatever_happens_no_config_is_refused_and_it_ends_where_the_table_is(happened, last):
    server = Server()

    def look(routing: Routing) -> bool:
        config = next_config([routing], {"churn": Seen(server.states, server.labels)})
        for one in config or ():
            server.take(one)
        return config is not None

    for routing, event in happened:
        look(routing)
        if event == "load":
            server.loaded()
        elif event == "restart":
            server.states, server.labels = {}, {}
    for _ in range(3):
        look(last)
        server.loaded()
    assert not look(last)
    parts = {"live": last.live, "candidate": last.candidate, "shadow": last.shadow, "previous": last.previous}
    assert server.labels == {label: version for label, version in parts.items() if version is not None}
    assert {one for one, state in server.states.items() if state == AVAILABLE} == set(last.warm)
