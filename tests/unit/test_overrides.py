"""A failed gate passes only on a person's word, with a reason and a near end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.errors import ConfigError
from lifecycle.overrides import check_override
from lifecycle.records import OverrideRecord

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)


def asked(**changes: Any) -> dict[str, Any]:
    good = {"gate": "roc_auc", "person": "Sara", "reason": "known shift", "until": NOW + timedelta(days=1)}
    return {**good, "now": NOW, "max_days": 7, **changes}


@pytest.mark.parametrize("until", [NOW + TICK, NOW + timedelta(days=7)])
def test_an_end_after_now_and_up_to_the_longest_is_accepted(until: datetime) -> None:
    check_override(**asked(until=until))


def test_an_end_is_compared_as_a_moment_not_as_a_wall_time() -> None:
    elsewhere = timezone(timedelta(hours=3, minutes=30))
    check_override(**asked(until=(NOW + TICK).astimezone(elsewhere)))
    with pytest.raises(ConfigError, match="past"):
        check_override(**asked(until=NOW.astimezone(elsewhere)))


@pytest.mark.parametrize(
    ("until", "message"),
    [
        (
            NOW,
            "override: end 2026-03-01 12:00 UTC is past; "
            "accepted: after 2026-03-01 12:00 UTC and at most 7 days ahead, 2026-03-08 12:00 UTC",
        ),
        (
            NOW + timedelta(days=7) + TICK,
            "override: end 2026-03-08 12:00 UTC is too far ahead; "
            "accepted: after 2026-03-01 12:00 UTC and at most 7 days ahead, 2026-03-08 12:00 UTC",
        ),
        (
            datetime(2026, 3, 2),
            "override: end 2026-03-02 00:00:00 has no time zone; accepted: a moment with its zone, best UTC",
        ),
    ],
)
def test_an_end_that_is_past_or_far_or_without_zone_is_refused(until: datetime, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_override(**asked(until=until))
    assert str(refused.value) == message


@pytest.mark.parametrize("empty", ["", " ", "\t\n"])
@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("gate", "the name of a gate of the model file"),
        ("person", "the name of who answers for it"),
        ("reason", "why the gate may be passed"),
    ],
)
def test_nobody_or_no_reason_grants_nothing(name: str, accepted: str, empty: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_override(**asked(**{name: empty}))
    assert str(refused.value) == f"override: {name} is empty; accepted: {accepted}"


def test_everything_wrong_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        check_override(**asked(person="", reason="", until=NOW))
    lines = str(refused.value).splitlines()
    assert [line.split()[1] for line in lines] == ["person", "reason", "end"]


@given(st.floats(0.01, 1_000), st.floats(-2, 2))
def test_an_override_is_accepted_exactly_within_its_longest_span(max_days: float, share: float) -> None:
    until = NOW + timedelta(days=max_days * share)
    if NOW < until <= NOW + timedelta(days=max_days):
        check_override(**asked(until=until, max_days=max_days))
    else:
        with pytest.raises(ConfigError):
            check_override(**asked(until=until, max_days=max_days))


@pytest.mark.parametrize(("shift", "holds"), [(-TICK, False), (timedelta(0), True), (TICK, True)])
def test_an_override_holds_from_the_moment_it_was_granted(shift: timedelta, holds: bool) -> None:
    override = OverrideRecord(1, "m", "roc_auc", "Sara", "known shift", NOW, NOW + timedelta(days=1))
    assert override.in_force(NOW + shift) is holds


@pytest.mark.parametrize(("shift", "holds"), [(-TICK, True), (timedelta(0), False), (TICK, False)])
def test_an_override_no_longer_holds_at_its_end(shift: timedelta, holds: bool) -> None:
    override = OverrideRecord(1, "m", "roc_auc", "Sara", "known shift", NOW, NOW + timedelta(days=1))
    assert override.in_force(override.until + shift) is holds
