"""What a model server is to hold: which versions, and which labels may point at them by now (R4.1).

TensorFlow Serving takes one config for all of its models at once, refuses it whole when a label points at a version that
is not available yet, and forgets all of it when it restarts. So the config is drawn from the routing tables and from
what the server says of itself, at every look: first the versions, then, once they answer, their labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lifecycle.traffic import Role, Routing

AVAILABLE = "AVAILABLE"
_ON_THE_WAY = frozenset({"START", "LOADING", AVAILABLE})


@dataclass(frozen=True, slots=True)
class Seen:
    """What a model server says of one model.

    Parameters
    ----------
    states
        Version: its state in the server's words; a version it never heard of is not there.
    labels
        Label: the version it points at.
    failures
        Version that could not be loaded: why.
    """

    states: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model's part of a server's config.

    Parameters
    ----------
    model
        Its name.
    versions
        Versions to hold, in rising order.
    labels
        Label: version.
    """

    model: str
    versions: tuple[str, ...]
    labels: Mapping[str, str]


LABELS = tuple(role.value for role in Role)
"""The parts a version can play, as labels."""


def next_config(routings: Iterable[Routing], seen: Mapping[str, Seen]) -> tuple[ServedModel, ...] | None:
    """Draw the config that a server takes now and that brings it closer to the routing tables.

    Parameters
    ----------
    routings
        Routing tables of all models of the server: what is not named is unloaded.
    seen
        Model: what the server says of it; a model it does not know may be left out.

    Returns
    -------
    tuple of ServedModel or None
        All models, by name; None when there is nothing to send. A label only ever points at a version that is available:
        until its new one is, it stays where it is, and that version stays loaded.
    """
    config = tuple(
        _served(routing, seen.get(routing.model, Seen())) for routing in sorted(routings, key=lambda one: one.model)
    )
    return config if any(_differs(one, seen.get(one.model, Seen())) for one in config) else None


def _served(routing: Routing, seen: Seen) -> ServedModel:
    parts = {
        Role.LIVE: routing.live,
        Role.CANDIDATE: routing.candidate,
        Role.PREVIOUS: routing.previous,
        Role.SHADOW: routing.shadow,
    }
    labels = {}
    for role, version in parts.items():
        before = seen.labels.get(role.value)
        if version is not None and seen.states.get(version) == AVAILABLE:
            labels[role.value] = version
        elif version is not None and before is not None and seen.states.get(before) == AVAILABLE:
            labels[role.value] = before
    return ServedModel(routing.model, tuple(sorted({*routing.warm, *labels.values()}, key=int)), labels)


def _differs(wanted: ServedModel, seen: Seen) -> bool:
    # Asking again for a version that failed to load does not load it: TensorFlow Serving has tried several times.
    missing = any(seen.states.get(one) not in _ON_THE_WAY and one not in seen.failures for one in wanted.versions)
    left_over = any(state in _ON_THE_WAY and one not in wanted.versions for one, state in seen.states.items())
    return missing or left_over or dict(wanted.labels) != dict(seen.labels)
