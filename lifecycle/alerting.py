"""The alerting policy: which findings are an alert, how urgent it is, who hears of it how soon and how (R6.1 to R6.6)."""

from __future__ import annotations

import enum
import math
from datetime import datetime, time, timedelta
from fnmatch import fnmatchcase
from string import Template
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AwareDatetime, Field, field_validator, model_validator

from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.spec import Count, Duration, Name, Section, Share, Unit

LEVELS = 4
"""Levels of escalation (R6.6)."""
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
PLACEHOLDERS = frozenset({"model", "value", "threshold", "measure", "subjects", "window", "count"})
"""What a rule's texts may name as ``$name``."""

Day = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
Glob = Annotated[str, Field(min_length=1)]
Seconds = Annotated[float, Field(gt=0), Unit("s")]
Threshold = Annotated[float, Unit("the measure's own")]


class Priority(enum.StrEnum):
    """How urgent an alert is, most urgent first (R6.1 to R6.4); the smaller text is the more urgent."""

    P0 = "P0"
    P1 = "P1"
    P2 = "P2"
    P3 = "P3"


class Channel(enum.StrEnum):
    """How somebody is told (R6.5)."""

    PHONE = "phone"
    SMS = "sms"
    PAGERDUTY = "pagerduty"
    EMAIL = "email"
    SLACK = "slack"
    WEBHOOK = "webhook"
    TERMINAL = "terminal"
    FILE = "file"


LOCAL = (Channel.TERMINAL, Channel.FILE)
"""Where alerts go while no account is set up."""
PERSONAL = frozenset({Channel.PHONE, Channel.SMS, Channel.EMAIL})
"""Channels that reach one person; the others reach a room."""


class Response(Section):
    """What a priority asks for."""

    respond_within: Duration = Field(
        description="Somebody has to have acknowledged by then; else the next level hears."
    )
    channels: list[Channel] = Field(min_length=1, description="All of them are used (R6.5).")
    escalates_to: Annotated[int, Field(ge=1, le=LEVELS), Unit("level")] = Field(
        LEVELS, description="Highest level that hears."
    )
    repeats: bool = Field(
        False, description="Whether the highest level hears again and again until it is acknowledged."
    )

    @field_validator("respond_within")
    @classmethod
    def _is_a_span(cls, span: Duration) -> Duration:
        if span.after(datetime(2000, 1, 1)) == datetime(2000, 1, 1):
            raise ValueError(f"{span} is no time at all; accepted: at least 1m")
        return span


class Level(Section):
    """A finding that is this bad has this priority; exactly one of above, below and verdicts says how bad."""

    priority: Priority = Field(description="P0 to P3.")
    above: Threshold | None = Field(None, description="The value is above it.")
    below: Threshold | None = Field(None, description="The value is below it.")
    verdicts: list[Literal["warn", "fail", "no_data"]] | None = Field(
        None, min_length=1, description="The finding's verdict is one of these."
    )

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        given = [name for name in ("above", "below", "verdicts") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"{' and '.join(given) or 'no condition'}; accepted: one of above, below, verdicts")
        return self

    def met_by(self, finding: Finding, margin: float = 0.0) -> bool:
        """Whether a finding is this bad.

        Parameters
        ----------
        margin
            Share of the threshold that a value has to be better by before it is not; for what is this bad already.
        """
        value = finding.value if finding.value is not None and math.isfinite(finding.value) else None
        if self.above is not None:
            return value is not None and value > self.above - margin * abs(self.above)
        if self.below is not None:
            return value is not None and value < self.below + margin * abs(self.below)
        if finding.verdict.name.lower() in (self.verdicts or ()):
            return True
        # A value just inside an upper bound has not recovered; a lower bound like 0.62 of AUC has no such scale.
        bound = finding.threshold
        near = finding.verdict is Verdict.PASS and finding.direction is Direction.AT_MOST
        if margin and near and "fail" in (self.verdicts or ()) and value is not None and bound is not None:
            return value > bound - margin * abs(bound)
        return False


class Told(Section):
    """A text in both languages; ``$model``, ``$value``, ``$threshold``, ``$measure``, ``$subjects``, ``$window``, ``$count``."""

    en: str = Field(min_length=1, description="In English.")
    fa: str = Field(min_length=1, description="In Persian.")

    @field_validator("en", "fa")
    @classmethod
    def _placeholders_exist(cls, text: str) -> str:
        template = Template(text)
        unknown = sorted(set(template.get_identifiers()) - PLACEHOLDERS)
        if unknown or not template.is_valid():
            accepted = ", ".join(f"${name}" for name in sorted(PLACEHOLDERS))
            raise ValueError(f"{text!r} names {', '.join(unknown) or 'a stray $'}; accepted: {accepted}, $$")
        return text


class Query(Section):
    """What Prometheus watches by itself, also while our own processes are down."""

    name: Name = Field(description="What it looks at; a label of its alerts.")
    priority: Priority = Field(description="P0 to P3.")
    expr: str = Field(min_length=1, description="PromQL; every series of its result is an alert.")
    held_for: Duration = Field(Duration("1m"), description="How long it has to hold; not in months.")

    @field_validator("held_for")
    @classmethod
    def _prometheus_knows_it(cls, span: Duration) -> Duration:
        if span.endswith("mo"):
            raise ValueError(f"{span} is a calendar's span; accepted: m, h, d, w or y")
        return span


class Rule(Section):
    """One cause of alerts. All findings of a model that it covers are one alert, as urgent as the worst of them."""

    name: Name = Field(description="The runbook is docs/runbooks/NAME.md.")
    measures: list[Glob] = Field(min_length=1, description="Measures of findings, with * for any text.")
    subjects: list[Glob] = Field(default_factory=lambda: ["*"], min_length=1, description="Their subjects, likewise.")
    levels: list[Level] = Field(min_length=1, description="Most urgent first; the first that is met counts.")
    waits: bool = Field(
        False, description="Opens only after the model file's monitoring.no_data_limit; such a rule sees NO_DATA alone."
    )
    under: list[Name] = Field(
        default_factory=list,
        description="Rules whose alert explains this one: while one is open it is folded under it and pages nobody.",
    )
    title: Told = Field(description="What is wrong, in one line.")
    likely: Told = Field(description="Most likely cause, and what to look at first.")
    prometheus: list[Query] = Field(default_factory=list, description="What Prometheus watches of it in the cluster.")

    @model_validator(mode="after")
    def _levels_fall(self) -> Self:
        order = [level.priority for level in self.levels]
        if order != sorted(order):
            raise ValueError(f"levels {', '.join(order)}; accepted: most urgent first")
        if self.waits != all(level.verdicts == ["no_data"] for level in self.levels):
            raise ValueError(
                f"waits is {str(self.waits).lower()}; accepted: true where every level is no_data, and only there"
            )
        return self

    def covers(self, finding: Finding) -> bool:
        """Whether a finding is this rule's matter."""
        return any(fnmatchcase(finding.measure, glob) for glob in self.measures) and any(
            fnmatchcase(finding.subject, glob) for glob in self.subjects
        )

    def priority_of(self, finding: Finding, before: Priority | None = None, margin: float = 0.0) -> Priority | None:
        """How urgent a finding is; None where it is fine.

        Parameters
        ----------
        before
            How urgent it was: it gets less urgent only by more than the margin.
        margin
            Share of the threshold.
        """
        for level in self.levels:
            was_as_bad = before is not None and level.priority >= before
            if level.met_by(finding, margin if was_as_bad else 0.0):
                return level.priority
        return None


class Recovery(Section):
    """When an alert is over, and what keeps it from coming and going."""

    margin: Share = Field(0.1, description="A value has to be better than its threshold by this share of it.")
    good_looks: Annotated[Count, Unit("findings")] = Field(2, description="So many good findings in a row end it.")
    reopen_within: Duration = Field(
        Duration("1h"), description="Coming back so soon, it is the same alert and not a new one."
    )
    flaps: Annotated[Count, Unit("times")] = Field(
        3, description="Reopened so often within flap_window, it is flapping."
    )
    flap_window: Duration = Field(Duration("1d"), description="See flaps.")
    flap_quiet: Duration = Field(Duration("6h"), description="A flapping alert ends only after being good for so long.")


class Delivery(Section):
    """How hard a notification is tried, and what stands in for a channel that fails."""

    attempts: Annotated[Count, Unit("attempts")] = Field(4, description="Then the next channel is used.")
    first_wait: Seconds = Field(10, description="Before the second attempt; it doubles each time.")
    longest_wait: Seconds = Field(300, description="It never waits longer than this.")
    claim: Seconds = Field(120, description="A sender that is silent for so long is taken for dead.")
    fallback: list[Channel] = Field(min_length=1, description="Tried in this order in place of a channel that failed.")


class QuietHours(Section):
    """Hours in which what can wait does; told when they end."""

    start: time = Field(description="Local time, as in 22:00.")
    end: time = Field(description="Local time; earlier than start: the next day's.")
    timezone: str = Field("Asia/Tehran", description="IANA time zone.")
    holds: list[Priority] = Field(description="Priorities that wait.")

    @field_validator("timezone")
    @classmethod
    def _zone_exists(cls, name: str) -> str:
        return known_zone(name)

    def cover(self, now: datetime) -> bool:
        """Whether the clock on the wall is inside, summer time or not."""
        return inside(now.astimezone(ZoneInfo(self.timezone)).time(), self.start, self.end)


class Maintenance(Section):
    """A planned time in which alerts are kept on record and nobody is told; weekly, or once."""

    name: str = Field(min_length=1, description="What is done.")
    models: list[Glob] = Field(default_factory=lambda: ["*"], min_length=1, description="Models it concerns.")
    holds: list[Priority] = Field(description="Priorities that wait until it is over.")
    days: list[Day] | None = Field(None, description="Weekly: on these days.")
    start: time | AwareDatetime = Field(description="Local time of day; once: the moment with its time zone.")
    end: time | AwareDatetime = Field(description="Likewise, not included.")
    timezone: str = Field("Asia/Tehran", description="IANA time zone of a weekly one.")

    @field_validator("timezone")
    @classmethod
    def _zone_exists(cls, name: str) -> str:
        return known_zone(name)

    @model_validator(mode="after")
    def _weekly_or_once(self) -> Self:
        once = [isinstance(one, datetime) for one in (self.start, self.end)]
        if once[0] != once[1] or once[0] == (self.days is not None):
            raise ValueError("accepted: days with two times of day, or no days and two moments")
        if isinstance(self.start, datetime) and isinstance(self.end, datetime) and self.start >= self.end:
            raise ValueError(f"ends at {self.end}, not after its start {self.start}")
        return self

    def cover(self, model: str, now: datetime) -> bool:
        """Whether it is going on for a model."""
        if not any(fnmatchcase(model, glob) for glob in self.models):
            return False
        if isinstance(self.start, datetime) and isinstance(self.end, datetime):
            return self.start <= now < self.end
        assert isinstance(self.start, time)
        assert isinstance(self.end, time)
        local = now.astimezone(ZoneInfo(self.timezone))
        began = local
        if self.start > self.end and local.time() < self.end:
            began = local - timedelta(days=1)  # the part after midnight is the evening before's
        return WEEKDAYS[began.weekday()] in (self.days or ()) and inside(local.time(), self.start, self.end)


class Route(Section):
    """A branch of the tree that says which team hears; what it does not match goes to the branch above."""

    models: list[Glob] = Field(default_factory=lambda: ["*"], min_length=1, description="Models it takes.")
    rules: list[Glob] = Field(default_factory=lambda: ["*"], min_length=1, description="Rules it takes.")
    priorities: list[Priority] = Field(default_factory=lambda: list(Priority), min_length=1, description="It takes.")
    team: Name = Field(description="Team of oncall.yaml that hears.")
    routes: list[Route] = Field(default_factory=list, description="Finer branches; the first that matches decides.")

    def matches(self, model: str, rule: str, priority: Priority) -> bool:
        """Whether an alert is this branch's."""
        return (
            any(fnmatchcase(model, glob) for glob in self.models)
            and any(fnmatchcase(rule, glob) for glob in self.rules)
            and priority in self.priorities
        )

    def team_of(self, model: str, rule: str, priority: Priority) -> str:
        """The team of the deepest branch that matches, itself as the default."""
        for route in self.routes:
            if route.matches(model, rule, priority):
                return route.team_of(model, rule, priority)
        return self.team


class AlertingPolicy(Section):
    """`configs/policies/alerting.yaml`."""

    pipelines: list[Name] = Field(min_length=1, description="Pipelines whose findings are looked at.")
    runbooks: str = Field("docs/runbooks", description="Where runbooks are read: a folder or an address.")
    priorities: dict[Priority, Response] = Field(description="P0 to P3, each with what it asks for.")
    rules: list[Rule] = Field(min_length=1, description="The first that covers a finding takes it.")
    recovery: Recovery = Field(Recovery(), description="When an alert is over.")
    delivery: Delivery = Field(description="How hard it is tried to tell somebody.")
    quiet_hours: list[QuietHours] = Field(default_factory=list, description="When less urgent ones wait.")
    maintenance: list[Maintenance] = Field(default_factory=list, description="Planned work.")
    route: Route = Field(description="The tree's root, which takes whatever no branch does.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        missing = [priority for priority in Priority if priority not in self.priorities]
        if missing:
            raise ValueError(f"priorities lacks {', '.join(missing)}; accepted: all of {', '.join(Priority)}")
        root = self.route
        if root.models != ["*"] or root.rules != ["*"] or root.priorities != list(Priority):
            raise ValueError(
                "the root of route matches only some alerts; accepted: none of models, rules, priorities there"
            )
        names = [rule.name for rule in self.rules]
        if len(names) != len(set(names)):
            raise ValueError(f"rules {', '.join(names)}; accepted: each name once")
        for position, rule in enumerate(self.rules):
            later = [name for name in rule.under if name not in names[:position]]
            if later:
                raise ValueError(f"rule {rule.name} under {', '.join(later)}; accepted: rules that stand before it")
        return self

    def rules_of(self, finding: Finding) -> list[Rule]:
        """The rule that takes a finding, and those that wait for its data to come back."""
        covering = [rule for rule in self.rules if rule.covers(finding)]
        return [rule for rule in covering if not rule.waits][:1] + [rule for rule in covering if rule.waits]

    def rule(self, name: str) -> Rule | None:
        """A rule by its name; None where the policy has lost it since."""
        return next((rule for rule in self.rules if rule.name == name), None)

    def held(self, model: str, priority: Priority, now: datetime) -> str | None:
        """Why nobody is told yet; None when they are."""
        for work in self.maintenance:
            if priority in work.holds and work.cover(model, now):
                return f"maintenance: {work.name}"
        if any(priority in quiet.holds and quiet.cover(now) for quiet in self.quiet_hours):
            return "quiet hours"
        return None


def inside(moment: time, start: time, end: time) -> bool:
    """Whether a time of day lies from start up to, not including, end, which may be the next day's.

    >>> inside(time(23, 30), time(22), time(7)), inside(time(7), time(22), time(7))
    (True, False)
    """
    moment = moment.replace(tzinfo=None, fold=0)
    return start <= moment < end if start <= end else moment >= start or moment < end


def known_zone(name: str) -> str:
    """Return the name of a time zone; ValueError when there is none of that name."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"time zone {name!r} is not known; accepted: an IANA name, as in Asia/Tehran") from None
    return name


def filled(text: str, facts: dict[str, str]) -> str:
    """A rule's text with its placeholders filled; KeyError or ValueError where that cannot be."""
    return Template(text).substitute(facts)
