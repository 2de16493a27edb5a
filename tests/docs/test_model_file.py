"""The reference page says everything about every key, and no key is there for nobody."""

from collections import Counter

import pytest

from docs.generate.model_file import FILES, READ_LATER, keys, sections, unread

pytestmark = pytest.mark.requirement("RO.2", "R13.3")

KEYS = [key for root, _ in FILES.values() for section in sections(root) for key in keys(section)]


def test_the_schema_is_walked_to_its_leaves():
    assert {"Gate.min_difference", "Join.max_age", "Rollback.error_rate", "Environment.now", "Component.flavor"} <= {
        f"{key.section.__name__}.{key.name}" for key in KEYS
    }


@pytest.mark.parametrize("key", KEYS, ids=lambda key: f"{key.section.__name__}.{key.name}")
def test_every_key_has_a_meaning_a_type_and_its_numbers_a_unit(key):
    assert key.meaning
    assert key.kind
    assert key.default
    assert key.unit or not key.numbers


@pytest.mark.parametrize("section", [section for root, _ in FILES.values() for section in sections(root)])
def test_every_section_says_what_it_is(section):
    assert section.__doc__


def test_every_key_is_read_by_code_or_by_work_that_is_named():
    assert set(unread()) - set(READ_LATER) == set()


def test_a_key_that_code_reads_by_now_is_not_called_unread():
    shared = {name for name, times in Counter(key.name for key in KEYS).items() if times > 1}
    read_by_now = set(READ_LATER) - set(unread())
    assert {key for key in read_by_now if key.split(".")[1] not in shared} == set()


def test_work_that_will_read_a_key_names_keys_that_exist():
    assert set(READ_LATER) <= {f"{key.section.__name__}.{key.name}" for key in KEYS}
