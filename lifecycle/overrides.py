"""When a person may let a failed gate pass: with a name, a reason and an end that is near (R7.3)."""

from __future__ import annotations

from datetime import datetime, timedelta

from lifecycle.errors import ConfigError


def check_override(*, gate: str, person: str, reason: str, until: datetime, now: datetime, max_days: float) -> None:
    """Refuse an override that nobody answers for or that never ends.

    Parameters
    ----------
    gate, person, reason
        Which gate, who answers for it, why.
    until
        First moment it no longer holds; timezone-aware.
    max_days
        Longest accepted span from now, in days.

    Raises
    ------
    ConfigError
        With every rule that is broken, not only the first.
    """
    problems = [
        f"{name} is empty; accepted: {accepted}"
        for name, text, accepted in (
            ("gate", gate, "the name of a gate of the model file"),
            ("person", person, "the name of who answers for it"),
            ("reason", reason, "why the gate may be passed"),
        )
        if not text.strip()
    ]
    latest = now + timedelta(days=max_days)
    if until.tzinfo is None:
        problems.append(f"end {until} has no time zone; accepted: a moment with its zone, best UTC")
    elif not now < until <= latest:
        problems.append(
            f"end {until:%Y-%m-%d %H:%M %Z} is {'past' if until <= now else 'too far ahead'}; "
            f"accepted: after {now:%Y-%m-%d %H:%M %Z} and at most {max_days:g} days ahead, {latest:%Y-%m-%d %H:%M %Z}"
        )
    if problems:
        raise ConfigError("\n".join(f"override: {problem}" for problem in problems))
