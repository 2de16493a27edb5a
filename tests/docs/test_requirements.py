"""Every requirement is traced: what is said to be done has code and a test, and no id is made up."""

import pytest

from docs.generate.requirements import ROOT, STATES, contract, mentioned, named_by_code, shown_by_tests

pytestmark = pytest.mark.requirement("R13.3")

# fmt: off
BUILT = [
    "R1.1", "R1.2", "R1.3", "R2.1", "R2.2", "R3.4", "R3.5", "R3.6", "R3.7", "R3.8", "R5.6", "R7.3", "R11.1", "R13.3",
    "RO.1", "RO.2", "RO.3", "RO.4",
]
# fmt: on


def test_no_docstring_and_no_marker_names_an_unknown_id():
    assert (set(named_by_code()) | set(shown_by_tests())) - set(contract()) == set()


def test_the_contract_is_whole():
    wanted = contract()
    assert len(wanted) == 68
    assert {one.state for one in wanted.values()} == set(STATES)
    assert all(one.text for one in wanted.values())


def test_what_is_said_to_be_there_has_code_and_a_test():
    code, tests = named_by_code(), shown_by_tests()
    said = [one for one in contract().values() if one.state != "later"]
    assert [one.id for one in said if not code.get(one.id) and not one.files] == []
    assert [one.id for one in said if one.id not in tests] == []


@pytest.mark.parametrize("name", BUILT)
def test_what_was_built_is_not_called_later(name):
    assert contract()[name].state in ("shown", "partial")


def test_what_is_there_in_part_says_which_part():
    assert [one.id for one in contract().values() if (one.state == "partial") != bool(one.note)] == []


def test_files_beside_the_code_exist_and_could_not_speak_for_themselves():
    for one in contract().values():
        for file in one.files:
            assert (ROOT / file).is_file(), f"{one.id}: {file}"
            assert not file.endswith(".py"), f"{one.id}: {file} names the id in its docstring instead"


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("fetch (R3.4)", {"R3.4"}),
        ("all of it (R3.4 to R3.6)", {"R3.4", "R3.5", "R3.6"}),
        ("R11.1, RO.2 and RA.3.", {"R11.1", "RO.2", "RA.3"}),
        ("HR3.4 or R3 or version 3.4", set()),
    ],
)
def test_ids_are_read_out_of_a_text(text, ids):
    assert mentioned(text) == ids
