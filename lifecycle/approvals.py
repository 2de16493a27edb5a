"""Who has to agree before a version meets users: by the model's sensitivity, and never its own requester (R4.5, R10.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import Field

from lifecycle.spec import Count, Section, Sensitivity, Unit


class ApprovalPolicy(Section):
    """How many people have to approve, and for how long their word holds."""

    non_sensitive: Annotated[int, Field(ge=0), Unit("people")] = Field(0, description="For non-sensitive models.")
    sensitive: Annotated[int, Field(ge=1), Unit("people")] = Field(1, description="For sensitive models.")
    critical: Annotated[int, Field(ge=2), Unit("people")] = Field(3, description="For critical models: the quorum.")
    committee: list[str] = Field(
        default_factory=list, description="Who may approve a critical model; empty: whoever did not ask for it."
    )
    valid_days: Annotated[Count, Unit("days")] = Field(14, description="An older approval does not count.")

    def needed(self, sensitivity: Sensitivity) -> int:
        """People who have to approve."""
        return {
            Sensitivity.NON_SENSITIVE: self.non_sensitive,
            Sensitivity.SENSITIVE: self.sensitive,
            Sensitivity.CRITICAL: self.critical,
        }[sensitivity]


@dataclass(frozen=True, slots=True)
class Word:
    """What a person said of a deployment."""

    person: str
    approved: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """How an approval stands.

    Parameters
    ----------
    granted, refused
        Whether enough agreed, or somebody who may speak refused; neither while it waits.
    reason
        In words.
    """

    granted: bool
    refused: bool
    reason: str


def standing(
    policy: ApprovalPolicy, sensitivity: Sensitivity, requested_by: str, words: Sequence[Word], now: datetime
) -> Standing:
    """Count who agreed.

    Parameters
    ----------
    requested_by
        Whose word does not count: nobody approves their own.
    words
        Oldest first; each person's newest counts, while it is valid.
    """
    needed = policy.needed(sensitivity)
    if needed == 0:
        return Standing(True, False, "the policy asks for nobody's approval")
    newest = {word.person.strip().casefold(): word for word in words}
    members = {name.strip().casefold() for name in policy.committee}
    counted = {
        name: word
        for name, word in newest.items()
        if name != requested_by.strip().casefold()
        and now - word.at < timedelta(days=policy.valid_days)
        and not (sensitivity is Sensitivity.CRITICAL and members and name not in members)
    }
    refusals = sorted(word.person for word in counted.values() if not word.approved)
    agreed = sorted(word.person for word in counted.values() if word.approved)
    if refusals:
        return Standing(False, True, f"refused by {', '.join(refusals)}")
    told = f"approved by {', '.join(agreed) or 'nobody yet'}, {len(agreed)} of {needed} needed"
    return Standing(len(agreed) >= needed, False, told)
