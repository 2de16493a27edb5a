"""Who holds a run, for how long, and when another may take it over."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from lifecycle.errors import ConfigError

_OWNER = re.compile(r"(?P<host>[^#]+):(?P<pid>\d+)#(?P<kernel>[^#]+)#(?P<started>[^#]+)")


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, told apart from any other that had or will have its number.

    Parameters
    ----------
    host
        Host name, for people.
    pid
        Process number there.
    kernel
        Which boot and which process namespace the number belongs to: two containers may share a host name
        and still not see each other's processes.
    started
        When the process started, in that kernel's ticks; empty where the system does not tell.
    """

    host: str
    pid: int
    kernel: str
    started: str

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}#{self.kernel}#{self.started or '-'}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Inverse of ``str``; None for any other text, of which nothing can be known but its lease.

        >>> Owner.parse("build7:4242#9f2c.4026531836#1200").pid
        4242
        >>> Owner.parse("the night shift") is None
        True
        """
        match = _OWNER.fullmatch(text)
        if match is None:
            return None
        started = match["started"]
        return cls(match["host"], int(match["pid"]), match["kernel"], "" if started == "-" else started)


def shown(owner: str) -> str:
    """The part of an owner that people read.

    >>> shown("build7:4242#9f2c.4026531836#1200")
    'build7:4242'
    """
    return owner.split("#", 1)[0]


def lease_end(now: datetime, lease: timedelta) -> datetime:
    """When a lease taken now ends; ConfigError for one that is over before it starts."""
    if lease <= timedelta(0):
        raise ConfigError(f"lease of {lease.total_seconds():g} s; accepted: a span above 0")
    return now + lease


def takeover_reason(owner: str, owner_died: bool, lease_until: datetime, now: datetime) -> str | None:
    """Why a live run may be taken over, or None while it may not.

    Parameters
    ----------
    owner
        Who holds it.
    owner_died
        Whether its process is known to be gone; a process on another host never is.
    lease_until
        End of the lease; at that very moment it has ended.
    """
    if owner_died:
        return f"its process {shown(owner)} is gone"
    if now >= lease_until:
        return f"its lease ended at {lease_until:%Y-%m-%d %H:%M:%S} UTC without a sign of {shown(owner)}"
    return None
