"""Who becomes champion, challenger and previous, and who does not."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.aliases import Alias, candidacy, promotion
from lifecycle.errors import ConfigError
from lifecycle.records import VersionRecord, VersionState
from lifecycle.spec import Sensitivity

pytestmark = pytest.mark.requirement("R3.8")


def version(number="2", state=VersionState.APPROVED):
    at = datetime(2026, 3, 1, tzinfo=UTC)
    return VersionRecord("m", number, "run", "snapshot", "hash", state, ("gate roc_auc failed",), at)


@pytest.mark.parametrize(
    ("current", "changes"),
    [
        ({}, {Alias.CHAMPION: "2"}),
        ({Alias.CHAMPION: "1"}, {Alias.CHAMPION: "2", Alias.PREVIOUS: "1"}),
        ({Alias.CHALLENGER: "2"}, {Alias.CHAMPION: "2", Alias.CHALLENGER: None}),
        ({Alias.CHALLENGER: "3"}, {Alias.CHAMPION: "2"}),
        ({Alias.CHAMPION: "3", Alias.PREVIOUS: "2"}, {Alias.CHAMPION: "2", Alias.PREVIOUS: "3"}),
        ({Alias.CHAMPION: "2", Alias.PREVIOUS: "1"}, {}),
    ],
)
def test_a_promotion_unseats_the_champion_and_remembers_it(current, changes):
    assert promotion(version(), current, Sensitivity.NON_SENSITIVE) == changes


@pytest.mark.parametrize("state", [VersionState.REJECTED, VersionState.CANDIDATE])
def test_what_the_gates_did_not_approve_is_never_champion(state):
    with pytest.raises(
        ConfigError, match=rf"version 2 is {state.value} \(gate roc_auc failed\); accepted: an approved"
    ):
        promotion(version(state=state), {}, Sensitivity.NON_SENSITIVE)


def test_one_person_does_not_promote_a_critical_model():
    with pytest.raises(ConfigError, match="critical; accepted: a committee's approval"):
        promotion(version(), {}, Sensitivity.CRITICAL)


@given(st.lists(st.tuples(st.sampled_from(["judge", "reject", "promote"]), st.sampled_from("1234"))))
def test_however_it_comes_about_no_version_plays_two_parts(story):
    current: dict[Alias, str] = {}
    for deed, number in story:
        if deed == "promote":
            changes = promotion(version(number), current, Sensitivity.SENSITIVE)
        else:
            changes = candidacy(number, current, approved=deed == "judge")
        current = {part: held for part, held in {**current, **changes}.items() if held is not None}
        assert current.get(Alias.CHAMPION) not in {held for part, held in current.items() if part is not Alias.CHAMPION}
        assert deed != "promote" or current[Alias.CHAMPION] == number


@pytest.mark.parametrize(
    ("approved", "current", "changes"),
    [
        (True, {}, {Alias.CHALLENGER: "2"}),
        (True, {Alias.CHALLENGER: "1", Alias.CHAMPION: "1"}, {Alias.CHALLENGER: "2"}),
        (True, {Alias.CHAMPION: "2"}, {}),
        (False, {}, {}),
        (False, {Alias.CHALLENGER: "1"}, {}),
        (False, {Alias.CHALLENGER: "2"}, {Alias.CHALLENGER: None}),
        (False, {Alias.CHAMPION: "2"}, {}),
    ],
)
def test_only_an_approved_candidate_is_challenger_and_a_gate_unseats_no_champion(approved, current, changes):
    assert candidacy("2", current, approved=approved) == changes
