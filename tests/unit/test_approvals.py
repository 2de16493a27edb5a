"""Who has to agree: the stricter of sensitivity and size of the change; nobody to their own; a word grows old and is about one content."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from adapters.model_files import ROOT, environment_names, load_environment, load_file
from lifecycle.approvals import ApprovalPolicy, Approver, Word, standing, stricter
from lifecycle.changes import ChangeSize
from lifecycle.spec import Sensitivity

pytestmark = pytest.mark.requirement("R4.5", "R10.3")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = ApprovalPolicy()
NAMED = ApprovalPolicy.model_validate(
    {
        "teams": {"Travel": {"members": ["Ali", "Mina"], "lead": "Sara"}},
        "committee": {"members": ["Reza", "Nika"], "quorum": 2},
    }
)


def words(*said: str, age: timedelta = timedelta(), substance: str = "s") -> list[Word]:
    return [Word(name.lstrip("-"), not name.startswith("-"), NOW - age, substance) for name in said]


def stands(approver: Approver, said: list[Word], policy: ApprovalPolicy = POLICY, by: str = "Ali"):
    return standing(policy, approver, "Travel", by, said, "s", NOW)


@pytest.mark.parametrize(
    ("approver", "said", "granted"),
    [
        (Approver.NOBODY, [], True),
        (Approver.TEAM, [], False),
        (Approver.TEAM, ["Mina"], True),
        (Approver.TEAM, ["Ali"], False),  # who asked for it
        (Approver.TEAM, [" ali "], False),
        (Approver.TEAM_LEAD, ["Mina"], True),
        (Approver.COMMITTEE, ["Mina", "Sara"], False),
        (Approver.COMMITTEE, ["Mina", "Mina", "mina"], False),
        (Approver.COMMITTEE, ["Mina", "Sara", "Reza"], True),
        (Approver.COMMITTEE, ["Mina", "Sara", "Ali"], False),
    ],
)
def test_enough_others_have_to_agree(approver: Approver, said: list[str], granted: bool):
    found = stands(approver, words(*said))
    assert (found.granted, found.refused) == (granted, False)


def test_one_refusal_is_enough_until_taken_back():
    assert stands(Approver.TEAM, words("Mina", "-Sara")).refused
    assert stands(Approver.TEAM, words("-Sara", "Sara")).granted
    assert not stands(Approver.TEAM, words("-Ali")).refused


@pytest.mark.parametrize(("age", "granted"), [(timedelta(days=14), False), (timedelta(days=14, seconds=-1), True)])
def test_an_old_word_does_not_count(age: timedelta, granted: bool):
    assert stands(Approver.TEAM, words("Mina", age=age)).granted is granted


@pytest.mark.parametrize("said", ["Mina", "-Mina"])
def test_a_word_about_another_content_does_not_count(said: str):
    found = stands(Approver.TEAM, words(said, substance="other"))
    assert (found.granted, found.refused) == (False, False)
    assert "said of another content and not counted: Mina" in found.reason


@pytest.mark.parametrize(
    ("approver", "said", "granted"),
    [
        (Approver.TEAM, "Mina", True),
        (Approver.TEAM, "Sara", True),  # whoever may decide more
        (Approver.TEAM, "Reza", True),
        (Approver.TEAM, "Omid", False),
        (Approver.TEAM_LEAD, "Mina", False),
        (Approver.TEAM_LEAD, "sara", True),
        (Approver.TEAM_LEAD, "Reza", True),  # the lead may have asked for it
        (Approver.TEAM_LEAD, "-Mina", False),
        (Approver.COMMITTEE, "Reza", False),
    ],
)
def test_who_is_named_for_a_part_has_the_say(approver: Approver, said: str, granted: bool):
    found = stands(approver, words(said), NAMED)
    assert (found.granted, found.refused) == (granted, False)
    assert stands(Approver.COMMITTEE, words("Reza", "Nika"), NAMED).granted
    assert not stands(Approver.COMMITTEE, words("Reza", "Sara"), NAMED).granted


def test_a_team_nobody_is_named_for_is_whoever_did_not_ask():
    assert NAMED.may_speak("Omid", Approver.TEAM_LEAD, "Another team")
    assert not NAMED.may_speak("Omid", Approver.COMMITTEE, "Another team")


@given(st.sampled_from(Sensitivity), st.sampled_from(ChangeSize))
def test_the_stricter_of_both_rules_decides(sensitivity: Sensitivity, size: ChangeSize):
    order = list(Approver)
    by_both = (getattr(POLICY.sensitivity, sensitivity), getattr(POLICY.change, size))
    assert order.index(POLICY.approver(sensitivity, size)) == max(order.index(one) for one in by_both)
    assert stricter(*by_both) is stricter(*reversed(by_both))


@pytest.mark.parametrize(
    "values",
    [
        {"sensitivity": {"sensitive": "nobody"}},
        {"sensitivity": {"critical": "team_lead"}},
        {"sensitivity": {"critical": "somebody"}},
        {"committee": {"quorum": 1}},
        {"committee": {"members": ["a", "A ", "b"], "quorum": 3}},
        {"valid_days": 0},
        {"other": 1},
    ],
)
def test_a_policy_that_asks_nobody_for_a_sensitive_model_or_can_never_be_met_is_refused(values: dict[str, Any]):
    with pytest.raises(ValidationError):
        ApprovalPolicy.model_validate(values)


@pytest.mark.requirement("R4.4")
def test_the_shipped_policy_is_the_plans_and_only_where_no_user_is_the_size_of_a_change_asks_nobody():
    asked = {}
    for name in environment_names():
        policy = load_file(
            ROOT / "configs" / "policies" / "approval.yaml", ApprovalPolicy, load_environment(name).approval
        )
        asked[name] = [policy.approver(Sensitivity.NON_SENSITIVE, size).value for size in ChangeSize]
        assert [policy.needed(policy.approver(one, ChangeSize.SMALL)) for one in Sensitivity] == [0, 1, 3]
    by_size = ["nobody", "team_lead", "committee"]
    nobody = ["nobody"] * 3
    assert asked == {"development": nobody, "staging": nobody, "canary": by_size, "production": by_size}
