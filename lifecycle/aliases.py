"""Which version is which to the rest of the world, and what a succession changes (R2.2, R3.8).

The ops store keeps every assignment, of each environment; the model registry's aliases mirror the newest ones.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


class Alias(enum.StrEnum):
    """A part that one version of a model plays at a time."""

    CHAMPION = "champion"
    """What the newest candidate has to stand up to, and what is served."""
    CHALLENGER = "challenger"
    """The newest approved candidate."""
    PREVIOUS = "previous"
    """The champion before this one: what a rollback goes back to."""


def succession(version: str, current: Mapping[Alias, str], *, rolled_back: bool) -> dict[Alias, str | None]:
    """Decide what changes when another version is live.

    Parameters
    ----------
    version
        The version that is live now.
    current
        Version of each alias that is taken.
    rolled_back
        Whether it is live because the champion was taken back: that one is nothing to go back to.

    Returns
    -------
    dict
        Alias: its new version, None for nobody; empty when the version is champion already.
    """
    champion = current.get(Alias.CHAMPION)
    if champion == version:
        return {}
    changes: dict[Alias, str | None] = {Alias.CHAMPION: version}
    if champion is not None:
        changes[Alias.PREVIOUS] = None if rolled_back else champion
    if current.get(Alias.CHALLENGER) == version:
        changes[Alias.CHALLENGER] = None
    return changes


def candidacy(version: str, current: Mapping[Alias, str], *, approved: bool) -> dict[Alias, str | None]:
    """Decide what changes when the gates have judged a version.

    Parameters
    ----------
    version
        The version that was judged.
    current
        Version of each alias that is taken.
    approved
        Whether the gates let it through.

    Returns
    -------
    dict
        Alias: its new version, None for nobody. A rejected version is no challenger any more; a champion is
        left alone, whatever the gates say of it later: only people and rollbacks unseat it.
    """
    if approved and current.get(Alias.CHAMPION) != version:
        return {Alias.CHALLENGER: version}
    if not approved and current.get(Alias.CHALLENGER) == version:
        return {Alias.CHALLENGER: None}
    return {}


def registry_name(environment: str, alias: Alias) -> str:
    """Name of an environment's alias in the model registry, which allows letters, digits, ``_`` and ``-``."""
    return f"{environment}-{alias.value}"


@dataclass(frozen=True, slots=True)
class Assignment:
    """A version given an alias.

    Parameters
    ----------
    assignment_id
        In the ops store.
    version
        None: nobody has the part any more.
    mirrored
        Whether the registry was seen to hold it.
    """

    assignment_id: int
    version: str | None
    mirrored: bool


def moved_by_hand(held: str | None, assignments: Sequence[Assignment]) -> bool:
    """Tell whether somebody else than we moved an alias in the registry.

    Parameters
    ----------
    held
        Version the registry holds under the alias; None for none.
    assignments
        Ours, oldest first.

    Returns
    -------
    bool
        False when it is what we assigned last, or where an assignment that was not carried out yet, or was cut short,
        left it.
    """
    ours: set[str | None] = {None}
    for one in assignments:
        ours = {one.version} if one.mirrored else ours | {one.version}
    return held not in ours
