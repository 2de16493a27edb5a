"""A day is kept until nothing of it is within the span."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.retention import expired, first_day_kept
from lifecycle.spec import Duration

pytestmark = pytest.mark.requirement("R2.5")


@pytest.mark.parametrize(
    ("kept", "now", "first"),
    [
        ("1d", datetime(2026, 3, 10, 0, 0, tzinfo=UTC), date(2026, 3, 9)),
        ("1d", datetime(2026, 3, 10, 23, 59, tzinfo=UTC), date(2026, 3, 9)),
        ("1y", datetime(2024, 2, 29, 12, tzinfo=UTC), date(2023, 2, 28)),
        ("6mo", datetime(2026, 8, 31, tzinfo=UTC), date(2026, 2, 28)),
        ("24h", datetime(2026, 3, 10, 1, tzinfo=timezone(timedelta(hours=3.5))), date(2026, 3, 8)),
    ],
)
def test_a_span_is_counted_by_the_calendar_and_in_utc(kept: str, now: datetime, first: date):
    assert first_day_kept(Duration(kept), now) == first


@given(
    st.lists(st.dates(date(2000, 1, 1), date(2030, 1, 1))),
    st.sampled_from(["1d", "36h", "2w", "6mo", "1y"]),
    st.datetimes(datetime(2010, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
)
def test_a_day_expires_exactly_when_its_last_moment_is_out_of_the_span(days: list[date], kept: str, now: datetime):
    gone = expired(days, Duration(kept), now)
    assert gone == sorted(set(gone))
    for day in days:
        ends = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
        assert (day in gone) == (ends <= Duration(kept).before(now).replace(hour=0, minute=0, second=0, microsecond=0))


def test_nothing_expires_of_nothing():
    assert expired([], Duration("1d"), datetime(2026, 3, 10, tzinfo=UTC)) == []
