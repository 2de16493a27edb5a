"""Who has to agree follows from the model's sensitivity; nobody agrees to their own, and a word grows old."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from adapters.model_files import ROOT, load_file
from lifecycle.approvals import ApprovalPolicy, Word, standing
from lifecycle.spec import Sensitivity

pytestmark = pytest.mark.requirement("R4.5", "R10.3")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = ApprovalPolicy()


def words(*said: str, age: timedelta = timedelta()) -> list[Word]:
    return [Word(name.lstrip("-"), not name.startswith("-"), NOW - age) for name in said]


@pytest.mark.parametrize(
    ("sensitivity", "said", "granted"),
    [
        (Sensitivity.NON_SENSITIVE, [], True),
        (Sensitivity.SENSITIVE, [], False),
        (Sensitivity.SENSITIVE, ["Mina"], True),
        (Sensitivity.SENSITIVE, ["Ali"], False),  # who asked for it
        (Sensitivity.SENSITIVE, [" ali "], False),
        (Sensitivity.CRITICAL, ["Mina", "Sara"], False),
        (Sensitivity.CRITICAL, ["Mina", "Mina", "mina"], False),
        (Sensitivity.CRITICAL, ["Mina", "Sara", "Reza"], True),
        (Sensitivity.CRITICAL, ["Mina", "Sara", "Ali"], False),
    ],
)
def test_enough_others_have_to_agree(sensitivity: Sensitivity, said: list[str], granted: bool):
    found = standing(POLICY, sensitivity, "Ali", words(*said), NOW)
    assert (found.granted, found.refused) == (granted, False)


def test_one_refusal_is_enough_until_taken_back():
    assert standing(POLICY, Sensitivity.SENSITIVE, "Ali", words("Mina", "-Sara"), NOW).refused
    assert standing(POLICY, Sensitivity.SENSITIVE, "Ali", words("-Sara", "Sara"), NOW).granted
    assert not standing(POLICY, Sensitivity.SENSITIVE, "Ali", words("-Ali"), NOW).refused


@pytest.mark.parametrize(("age", "granted"), [(timedelta(days=14), False), (timedelta(days=14, seconds=-1), True)])
def test_an_old_word_does_not_count(age: timedelta, granted: bool):
    assert standing(POLICY, Sensitivity.SENSITIVE, "Ali", words("Mina", age=age), NOW).granted is granted


def test_a_committee_is_who_the_policy_names():
    policy = ApprovalPolicy(critical=2, committee=["Mina", "Sara"])
    assert not standing(policy, Sensitivity.CRITICAL, "Ali", words("Mina", "Reza"), NOW).granted
    assert standing(policy, Sensitivity.CRITICAL, "Ali", words("mina", "Sara"), NOW).granted
    assert not standing(policy, Sensitivity.CRITICAL, "Ali", words("-Reza"), NOW).refused


@pytest.mark.parametrize(
    "values", [{"sensitive": 0}, {"critical": 1}, {"critical": 0}, {"valid_days": 0}, {"other": 1}]
)
def test_a_policy_that_asks_nobody_for_a_sensitive_model_is_refused(values: dict[str, int]):
    with pytest.raises(ValidationError):
        ApprovalPolicy(**values)


def test_the_shipped_policy_is_the_plans():
    shipped = load_file(ROOT / "configs" / "policies" / "approval.yaml", ApprovalPolicy, {})
    assert [shipped.needed(one) for one in Sensitivity] == [0, 1, 3]
