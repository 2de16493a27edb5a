"""Who is on call: teams of four levels, each with a rota by week in the team's own clock (R6.6)."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AwareDatetime, Field, field_validator, model_validator

from lifecycle.alerting import LEVELS, Channel, inside, known_zone
from lifecycle.spec import Name, Section

WEEK = timedelta(weeks=1)


class Person(Section):
    """How somebody is reached, and how they read."""

    name: str = Field(min_length=1, description="As colleagues call them.")
    email: str | None = Field(None, pattern=r"^[^@\s,?/]+@[^@\s,?/]+$", description="E-mail address.")
    phone: str | None = Field(None, pattern=r"^\+[0-9]{7,15}$", description="For calls and SMS, as in +982112345678.")
    language: Literal["en", "fa"] = Field("en", description="English or Persian.")
    calendar: Literal["gregorian", "jalali"] = Field("gregorian", description="Dates in messages.")
    timezone: str = Field("Asia/Tehran", description="Clock of dates in messages; IANA name.")

    @field_validator("timezone")
    @classmethod
    def _zone_exists(cls, name: str) -> str:
        return known_zone(name)

    def contact(self, channel: Channel) -> str | None:
        """Address for a personal channel; None without one."""
        return self.email if channel is Channel.EMAIL else self.phone


class Swap(Section):
    """Somebody else takes over for a while."""

    person: Name = Field(description="Who does.")
    start: AwareDatetime = Field(description="From this moment, with its time zone.")
    end: AwareDatetime = Field(description="Until this one, not included.")


class Hours(Section):
    """When a level is on duty; outside, the next one that is hears instead."""

    start: time = Field(description="Local time, as in 08:00.")
    end: time = Field(description="Local time, not included; earlier than start: the next day's.")


class LevelOnCall(Section):
    """One level of escalation."""

    role: str = Field(min_length=1, description="What they are.")
    rota: list[Name] = Field(min_length=1, description="Who is on call week by week, from the team's first week on.")
    hours: Hours | None = Field(None, description="When this level is on duty; always, if absent.")
    swaps: list[Swap] = Field(default_factory=list, description="Exceptions; the last that holds counts.")


class Team(Section):
    """Who hears, level by level."""

    timezone: str = Field("Asia/Tehran", description="Clock of the rota and the hours; IANA name.")
    first_week: datetime = Field(description="Local date and time at which the first of each rota takes over.")
    levels: list[LevelOnCall] = Field(
        min_length=LEVELS, max_length=LEVELS, description="1 ML engineer on call, 2 senior, 3 head of AI, 4 CTO (R6.6)."
    )

    @field_validator("timezone")
    @classmethod
    def _zone_exists(cls, name: str) -> str:
        return known_zone(name)

    @model_validator(mode="after")
    def _somebody_always(self) -> Self:
        if self.first_week.tzinfo is not None:
            raise ValueError("first_week has a time zone; accepted: local time, in the team's")
        if self.levels[-1].hours is not None:
            raise ValueError(f"level {LEVELS} has hours; accepted: always on duty, so that somebody is")
        return self


class OnCall(Section):
    """`configs/policies/oncall.yaml`."""

    people: dict[Name, Person] = Field(min_length=1, description="Everybody who may be told.")
    teams: dict[Name, Team] = Field(min_length=1, description="As routes name them.")

    @model_validator(mode="after")
    def _everybody_is_known(self) -> Self:
        for name, team in self.teams.items():
            for number, level in enumerate(team.levels, start=1):
                named = [*level.rota, *(swap.person for swap in level.swaps)]
                unknown = [one for one in named if one not in self.people]
                if unknown:
                    raise ValueError(
                        f"team {name}, level {number}: {', '.join(unknown)}; accepted: {', '.join(self.people)}"
                    )
        return self

    def on_duty(self, team: str, level: int, now: datetime) -> tuple[int, str]:
        """Who hears when a level is called: the level that is on duty from there on, and its person.

        Parameters
        ----------
        level
            1 to 4. Past its hours the next level that is on duty hears; the last one always is.
        now
            Timezone-aware.
        """
        chosen = self.teams[team]
        local = now.astimezone(ZoneInfo(chosen.timezone))
        for number in range(level, LEVELS):
            hours = chosen.levels[number - 1].hours
            if hours is None or inside(local.time(), hours.start, hours.end):
                break
        else:
            number = LEVELS
        one = chosen.levels[number - 1]
        swapped = [swap.person for swap in one.swaps if swap.start <= now < swap.end]
        # Weeks of the clock on the wall: a handover at nine stays at nine when summer time begins.
        week = (local.replace(tzinfo=None) - chosen.first_week) // WEEK
        return number, swapped[-1] if swapped else one.rota[week % len(one.rota)]
