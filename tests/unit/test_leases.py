"""Who holds a run, and when another may take it over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.errors import ConfigError
from lifecycle.leases import Owner, lease_end, shown, takeover_reason

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)
NAMES = st.text("abcz019.-_:", min_size=1, max_size=20)


@given(NAMES, st.integers(0, 2**22), NAMES, st.one_of(st.just(""), st.integers(0).map(str)))
def test_an_owner_reads_back_equal(host: str, pid: int, kernel: str, started: str) -> None:
    owner = Owner(host, pid, kernel, started)
    assert Owner.parse(str(owner)) == owner


def test_an_owner_is_written_with_a_dash_for_an_unknown_start() -> None:
    assert str(Owner("build7", 42, "9f2c.40", "")) == "build7:42#9f2c.40#-"
    assert str(Owner("build7", 42, "9f2c.40", "77")) == "build7:42#9f2c.40#77"


@pytest.mark.parametrize(
    "text", ["", "build7", "build7:42", "build7:42#k", "build7:42#k#", ":42#k#1", "b:x#k#1", "b:42##1", "a b:42#k#1#2"]
)
def test_a_text_that_names_no_process_exactly_is_no_owner(text: str) -> None:
    assert Owner.parse(text) is None


@pytest.mark.parametrize(
    ("owner", "read"),
    [("build7:42#9f2c.40#77", "build7:42"), ("the night shift", "the night shift"), ("a#b#c", "a"), ("", "")],
)
def test_people_read_host_and_process(owner: str, read: str) -> None:
    assert shown(owner) == read


def test_a_lease_ends_after_its_length() -> None:
    assert lease_end(NOW, timedelta(minutes=5)) == NOW + timedelta(minutes=5)
    assert lease_end(NOW, TICK) == NOW + TICK


@pytest.mark.parametrize("lease", [timedelta(0), -TICK, timedelta(seconds=-90)])
def test_a_lease_that_is_over_before_it_starts_is_refused(lease: timedelta) -> None:
    with pytest.raises(ConfigError) as refused:
        lease_end(NOW, lease)
    assert str(refused.value) == f"lease of {lease.total_seconds():g} s; accepted: a span above 0"


def test_a_live_run_within_its_lease_is_left_alone() -> None:
    assert takeover_reason("build7:42#k#1", False, NOW + TICK, NOW) is None


@pytest.mark.parametrize("late", [timedelta(0), TICK, timedelta(days=400)])
def test_a_lease_has_ended_at_its_very_end(late: timedelta) -> None:
    assert takeover_reason("build7:42#k#1", False, NOW, NOW + late) == (
        "its lease ended at 2026-03-01 12:00:00 UTC without a sign of build7:42"
    )


def test_the_run_of_a_process_that_is_gone_need_not_wait_for_its_lease() -> None:
    assert takeover_reason("build7:42#k#1", True, NOW + timedelta(days=1), NOW) == "its process build7:42 is gone"
