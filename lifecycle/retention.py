"""What is no longer kept (R2.5)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime

from lifecycle.spec import Duration


def first_day_kept(kept: Duration, now: datetime) -> date:
    """First day of which anything is still within the span.

    Parameters
    ----------
    kept
        How long records are kept.
    now
        The moment, with its time zone.

    Returns
    -------
    date
        In UTC. A day is kept whole as long as its last moment is within the span.

    Examples
    --------
    >>> first_day_kept(Duration("7d"), datetime(2026, 3, 10, 12, tzinfo=UTC))
    datetime.date(2026, 3, 3)
    """
    return kept.before(now.astimezone(UTC)).date()


def expired(days: Iterable[date], kept: Duration, now: datetime) -> list[date]:
    """Days of which nothing is within the span any more, oldest first; as in `first_day_kept`."""
    first = first_day_kept(kept, now)
    return sorted({day for day in days if day < first})
