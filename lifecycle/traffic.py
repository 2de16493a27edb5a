"""Who of a model's users meets which version: a routing table, and an assignment that sticks to each entity (R4.1)."""

from __future__ import annotations

import enum
import hashlib
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Self

from lifecycle.errors import ConfigError

_POINTS = 2**64


class Role(enum.StrEnum):
    """As what a version answers."""

    LIVE = "live"
    CANDIDATE = "candidate"
    PREVIOUS = "previous"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True)
class Routing:
    """A model's routing table.

    Parameters
    ----------
    model
        Which.
    generation
        Rises with every change, from 1: an older table never replaces a newer one.
    live
        Version that answers whoever is not the candidate's; None only while a first version is a candidate.
    candidate
        Version on trial.
    share
        Share of entities that the candidate answers, 0 to 1.
    shadow
        Version that scores the same rows for the record alone.
    previous
        Version kept in memory to go back to.
    """

    model: str
    generation: int
    live: str | None
    candidate: str | None = None
    share: float = 0.0
    shadow: str | None = None
    previous: str | None = None

    def __post_init__(self) -> None:
        """Refuse a table that would leave somebody without an answer.

        Raises
        ------
        ConfigError
            With the rule, the value and what is accepted.
        """
        problems = []
        if self.generation < 1:
            problems.append(f"generation is {self.generation}; accepted: a whole number from 1")
        if not 0 <= self.share <= 1:  # NaN too
            problems.append(f"share is {self.share}; accepted: 0 to 1")
        elif self.candidate is None and self.share:
            problems.append(f"share is {self.share} without a candidate; accepted: 0")
        elif self.live is None and (self.candidate is None or self.share != 1):
            problems.append("nobody is live; accepted: a live version, or a candidate with all of the traffic")
        if self.candidate is not None and self.candidate == self.live:
            problems.append(f"version {self.candidate} is live and candidate; accepted: one part")
        if problems:
            raise ConfigError(f"routing of {self.model}: {'; '.join(problems)}")

    @property
    def weights(self) -> dict[str, float]:
        """Share of each version that answers; they add up to 1."""
        told: dict[str, float] = {}
        if self.live is not None and self.share < 1:
            told[self.live] = 1 - self.share
        if self.candidate is not None and self.share > 0:
            told[self.candidate] = self.share
        return told

    @property
    def warm(self) -> dict[str, Role]:
        """Versions in memory, each with the part it plays; the first part counts when it plays several."""
        told: dict[str, Role] = {}
        for version, role in (
            (self.live, Role.LIVE),
            (self.candidate, Role.CANDIDATE),
            (self.previous, Role.PREVIOUS),
            (self.shadow, Role.SHADOW),
        ):
            if version is not None:
                told.setdefault(version, role)
        return told

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Inverse of `to_dict`; TypeError for other keys, ConfigError for a table that leaves somebody out."""
        return cls(**values)


def assign(routing: Routing, entity: str, override: str | None = None) -> tuple[str, Role]:
    """Which version answers an entity, and as what.

    The same entity gets the same version while the candidate is the same, and a growing share only ever moves
    entities to the candidate. Each candidate draws its own entities.

    Parameters
    ----------
    routing
        The table in force.
    entity
        Whom a request is about.
    override
        A version a tester asked for.

    Raises
    ------
    ConfigError
        The override names a version that is not in memory.
    """
    if override is not None:
        role = routing.warm.get(override)
        if role is None:
            raise ConfigError(
                f"version {override[:40]!r} of {routing.model} is not in memory; accepted: {', '.join(routing.warm)}"
            )
        return override, role
    candidate, share = routing.candidate, routing.share
    if candidate is not None and share > 0 and (share >= 1 or point(routing.model, candidate, entity) < share):
        return candidate, Role.CANDIDATE
    assert routing.live is not None  # held by the table: without one the candidate has all
    return routing.live, Role.LIVE


def point(model: str, candidate: str, entity: str) -> float:
    """Place of an entity in a candidate's draw: uniform in 0 to 1, 1 excluded, and always the same.

    >>> point("flight_delay", "2", "M00001") == point("flight_delay", "2", "M00001")
    True
    """
    drawn = hashlib.blake2b(entity.encode("utf-8", "surrogatepass"), digest_size=8, key=_key(model, candidate)).digest()
    return (int.from_bytes(drawn) >> 11) / (_POINTS >> 11)


@lru_cache(4_096)
def _key(model: str, candidate: str) -> bytes:
    # Keyed, so that whoever names entities cannot tell where a candidate's share lies without knowing the draw.
    return hashlib.blake2b(f"{model}\0{candidate}".encode(), digest_size=16).digest()
