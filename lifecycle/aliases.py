"""Which version is which to the rest of the world, and what a promotion changes (R2.2, R3.8).

The ops store keeps every assignment; the model registry's aliases mirror the newest ones.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from lifecycle.errors import ConfigError
from lifecycle.records import VersionRecord, VersionState
from lifecycle.spec import Sensitivity


class Alias(enum.StrEnum):
    """A part that one version of a model plays at a time."""

    CHAMPION = "champion"
    """What the newest candidate has to stand up to, and what is served."""
    CHALLENGER = "challenger"
    """The newest approved candidate."""
    PREVIOUS = "previous"
    """The champion before this one: what a rollback goes back to."""


def promotion(
    version: VersionRecord, current: Mapping[Alias, str], sensitivity: Sensitivity
) -> dict[Alias, str | None]:
    """Decide what changes when a version becomes champion.

    Parameters
    ----------
    version
        The version as it stands on record.
    current
        Version of each alias that is taken.
    sensitivity
        The model's.

    Returns
    -------
    dict
        Alias: its new version, None for nobody; empty when the version is champion already.

    Raises
    ------
    ConfigError
        The gates did not approve the version, or the model is critical: one person's word is not enough there.
    """
    if version.state is not VersionState.APPROVED:
        raise ConfigError(
            f"{version.model} version {version.version} is {version.state.value} ({'; '.join(version.reasons)}); "
            "accepted: an approved version"
        )
    if sensitivity is Sensitivity.CRITICAL:
        raise ConfigError(f"{version.model} is critical; accepted: a committee's approval, not one person's promotion")
    champion = current.get(Alias.CHAMPION)
    if champion == version.version:
        return {}
    changes: dict[Alias, str | None] = {Alias.CHAMPION: version.version}
    if champion is not None:
        changes[Alias.PREVIOUS] = champion
    if current.get(Alias.CHALLENGER) == version.version:
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
