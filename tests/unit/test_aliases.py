"""Who becomes champion, challenger and previous, and who does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.aliases import Alias, Assignment, candidacy, moved_by_hand, registry_name, succession

pytestmark = pytest.mark.requirement("R3.8")


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
    assert succession("2", current, rolled_back=False) == changes


def test_a_champion_that_was_taken_back_is_nothing_to_go_back_to():
    current = {Alias.CHAMPION: "3", Alias.PREVIOUS: "2"}
    assert succession("2", current, rolled_back=True) == {Alias.CHAMPION: "2", Alias.PREVIOUS: None}


@given(st.lists(st.tuples(st.sampled_from(["judge", "reject", "promote"]), st.sampled_from("1234"))))
def test_however_it_comes_about_no_version_plays_two_parts(story):
    current: dict[Alias, str] = {}
    for deed, number in story:
        if deed == "promote":
            changes = succession(number, current, rolled_back=number in "34")
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


@pytest.mark.requirement("R4.4")
@pytest.mark.parametrize(
    ("ours", "held", "by_hand"),
    [
        ([], None, False),
        ([], "1", True),
        (["1"], None, False),  # not yet mirrored
        (["1"], "1", False),  # mirrored, and not yet marked
        (["1"], "2", True),
        (["1*"], "1", False),
        (["1*"], None, True),
        (["1*"], "2", True),
        (["1*", "2"], "1", False),
        (["1*", "2", "3"], "2", False),  # the one before was mirrored and the mark was cut short
        (["1*", "2", "3"], None, True),
        (["1*", "2*"], "1", True),
        (["1*", None], "1", False),
        (["1*", "None*"], "1", True),
    ],
)
def test_only_what_our_own_assignments_do_not_explain_was_moved_by_hand(ours, held, by_hand):
    versions = [(None if one in (None, "None*") else one.rstrip("*"), str(one).endswith("*")) for one in ours]
    assignments = [Assignment(number, version, mirrored) for number, (version, mirrored) in enumerate(versions)]
    assert moved_by_hand(held, assignments) is by_hand


def test_an_alias_in_the_registry_names_its_environment_in_letters_the_registry_takes():
    from mlflow.utils.validation import _validate_model_alias_name

    names = {registry_name(environment, alias) for environment in ("canary", "production") for alias in Alias}
    assert "production-champion" in names
    assert len(names) == 2 * len(Alias)
    for name in names:
        _validate_model_alias_name(name)
