"""Who has to agree before a version meets users: the stricter of the model's sensitivity and the size of the change (R4.5, R10.3).

A word is about one version's substance (`Manifest.substance`) in one environment, grows old, and never counts for what
its speaker asked for.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Self

from pydantic import Field, model_validator

from lifecycle.changes import ChangeSize
from lifecycle.spec import Count, Section, Sensitivity, Unit


class Approver(enum.StrEnum):
    """Who has to agree, the least demanding first."""

    NOBODY = "nobody"
    """Whoever asks for the deployment answers for it."""
    TEAM = "team"
    """One person of the model's team."""
    TEAM_LEAD = "team_lead"
    """The lead of the model's team."""
    COMMITTEE = "committee"
    """A quorum of the AI committee."""


def stricter(one: Approver, other: Approver) -> Approver:
    """The one that asks for more."""
    return max(one, other, key=list(Approver).index)


class BySensitivity(Section):
    """Who agrees by the model's sensitivity (R4.5)."""

    non_sensitive: Approver = Field(Approver.NOBODY, description="Non-sensitive models deploy automatically.")
    sensitive: Approver = Field(Approver.TEAM, description="At least one person.")
    critical: Approver = Field(Approver.COMMITTEE, description="The committee.")

    @model_validator(mode="after")
    def _somebody_is_asked(self) -> Self:
        if self.sensitive is Approver.NOBODY:
            raise ValueError("sensitive is nobody; accepted: team, team_lead or committee")
        if self.critical is not Approver.COMMITTEE:
            raise ValueError(f"critical is {self.critical.value}; accepted: committee")
        return self


class ByChange(Section):
    """Who agrees by the size of the change (R10.3)."""

    small: Approver = Field(Approver.NOBODY, description="The team that asks for it answers for it.")
    medium: Approver = Field(Approver.TEAM_LEAD, description="The team lead.")
    large: Approver = Field(Approver.COMMITTEE, description="The AI committee.")


class Team(Section):
    """Who may speak for a team."""

    members: list[str] = Field(default_factory=list, description="Names; empty: whoever did not ask.")
    lead: str = Field("", description="Name; empty: whoever did not ask.")


class Committee(Section):
    """The AI committee."""

    members: list[str] = Field(default_factory=list, description="Names; empty: whoever did not ask.")
    quorum: Annotated[int, Field(ge=2), Unit("people")] = Field(3, description="So many have to agree.")

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        names = {_folded(name) for name in self.members}
        if names and len(names) < self.quorum:
            raise ValueError(f"quorum is {self.quorum} of {len(names)} members; accepted: at most as many as there are")
        return self


class ApprovalPolicy(Section):
    """Who has to agree, and for how long their word holds."""

    sensitivity: BySensitivity = Field(BySensitivity(), description="By the model's sensitivity (R4.5).")
    change: ByChange = Field(ByChange(), description="By the size of the change (R10.3).")
    teams: dict[str, Team] = Field(default_factory=dict, description="By owner.team of the model file.")
    committee: Committee = Field(Committee(), description="The AI committee.")
    valid_days: Annotated[Count, Unit("days")] = Field(14, description="An older approval does not count.")

    def approver(self, sensitivity: Sensitivity, size: ChangeSize) -> Approver:
        """Who has to agree: the stricter of the two rules."""
        return stricter(getattr(self.sensitivity, sensitivity.value), getattr(self.change, size.value))

    def needed(self, approver: Approver) -> int:
        """People who have to agree."""
        return {Approver.NOBODY: 0, Approver.COMMITTEE: self.committee.quorum}.get(approver, 1)

    def may_speak(self, person: str, approver: Approver, team: str) -> bool:
        """Whether a person's word counts; where nobody is named for the part, everybody's does.

        Whoever could decide a bigger change may decide a smaller one.
        """
        its = self.teams.get(team, Team())
        named = {
            Approver.TEAM: its.members,
            Approver.TEAM_LEAD: [its.lead] if its.lead else [],
            Approver.COMMITTEE: self.committee.members,
        }
        if not named.get(approver):
            return True
        parts = list(Approver)
        enough = [name for part in parts[parts.index(approver) :] for name in named[part]]
        return _folded(person) in {_folded(name) for name in enough}


@dataclass(frozen=True, slots=True)
class Word:
    """What a person said of a deployment; `substance` is that of the version they said it of."""

    person: str
    approved: bool
    at: datetime
    substance: str


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
    policy: ApprovalPolicy,
    approver: Approver,
    team: str,
    requested_by: str,
    words: Sequence[Word],
    substance: str,
    now: datetime,
) -> Standing:
    """Count who agreed.

    Parameters
    ----------
    approver
        Who has to.
    team
        The model's.
    requested_by
        Whose word does not count: nobody approves their own.
    words
        Oldest first; each person's newest counts, while it is valid.
    substance
        `Manifest.substance` of the version as it would be served: a word about another one does not count.
    """
    needed = policy.needed(approver)
    if needed == 0:
        return Standing(True, False, "the policy asks for nobody's approval")
    newest = {_folded(word.person): word for word in words}
    counted = [
        word
        for name, word in newest.items()
        if name != _folded(requested_by)
        and now - word.at < timedelta(days=policy.valid_days)
        and word.substance == substance
        and policy.may_speak(word.person, approver, team)
    ]
    refusals = sorted(word.person for word in counted if not word.approved)
    agreed = sorted(word.person for word in counted if word.approved)
    if refusals:
        return Standing(False, True, f"refused by {', '.join(refusals)}")
    told = f"approved by {', '.join(agreed) or 'nobody yet'}, {len(agreed)} of {needed} needed ({approver.value})"
    others = sorted(word.person for word in newest.values() if word.substance != substance)
    if others:
        told += f"; said of another content and not counted: {', '.join(others)}"
    return Standing(len(agreed) >= needed, False, told)


def _folded(name: str) -> str:
    return name.strip().casefold()
