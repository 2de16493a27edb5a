"""What was asked for is traced to the code that does it and the tests that show it."""

import pytest

from docs.generate.requirements import STATES, contract, mentioned, named_by_code, shown_by_tests

pytestmark = pytest.mark.requirement("R13.3")

SHOWN = [
    "R1.1",
    "R1.2",
    "R1.3",
    "R2.1",
    "R2.2",
    "R3.4",
    "R3.5",
    "R3.6",
    "R3.7",
    "R3.8",
    "R5.6",
    "R7.3",
    "R11.1",
    "R13.3",
    "RO.1",
    "RO.2",
    "RO.3",
    "RO.4",
]


def code() -> dict[str, set[str]]:
    listed = {name: set(one.files) for name, one in contract().items() if one.files}
    found = named_by_code()
    return {name: found.get(name, set()) | listed.get(name, set()) for name in found.keys() | listed.keys()}


def test_nothing_names_a_requirement_that_was_never_asked_for():
    known = set(contract())
    assert set(named_by_code()) - known == set()
    assert set(shown_by_tests()) - known == set()


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_said_to_be_there_has_code_and_a_test(name: str):
    assert contract()[name].state in ("shown", "partial")
    assert code().get(name), f"no code names {name}"
    assert shown_by_tests().get(name), f"no test is marked with {name}"


def test_a_requirement_that_is_done_has_both_and_one_in_part_says_which_part():
    tests, doing = shown_by_tests(), code()
    for one in contract().values():
        assert one.state in STATES
        if one.state == "shown":
            assert one.id in doing, f"{one.id} has no code"
            assert one.id in tests, f"{one.id} has no test"
        if one.state == "partial":
            assert one.note, f"{one.id} does not say which part"


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("(R3.4)", {"R3.4"}),
        ("(R3.4 to R3.6, RO.1)", {"R3.4", "R3.5", "R3.6", "RO.1"}),
        ("R 3.4, XR3.4, R3", set()),
    ],
)
def test_ranges_are_spelled_out(text: str, ids: set[str]):
    assert mentioned(text) == ids
