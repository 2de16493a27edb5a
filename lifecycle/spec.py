"""The model file: everything that is particular to one production model, typed and closed (R1.3).

A model is a YAML file and no code. Unknown keys are errors, units stand in the value or the key, and a
threshold that could never be crossed is refused. Defaults are the plan's numbers (docs/requirements.md).
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from dateutil.relativedelta import relativedelta
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, field_validator, model_validator
from pydantic_core import core_schema

from lifecycle.findings import Direction, Severity
from lifecycle.measures import FAIRNESS, MEASURES


@dataclass(frozen=True, slots=True)
class Unit:
    """What a number counts or measures, for the reference page; every number of the file has one."""

    name: str


Share = Annotated[float, Field(ge=0, le=1), Unit("share")]
OpenShare = Annotated[float, Field(gt=0, lt=1), Unit("share")]
Count = Annotated[int, Field(ge=1)]
Rows = Annotated[Count, Unit("rows")]
Money = Annotated[float, Unit("the file's currency")]
MeasureValue = Annotated[float, Unit("the measure's own")]
FeatureValue = Annotated[float, Unit("the feature's own")]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
GATEWAY = "gateway"
"""What monitoring calls what all models share; no model's name."""
Column = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]


class Duration(str):
    """A span of time as people write it: ``15m``, ``24h``, ``7d``, ``2w``, ``6mo``, ``1y``."""

    _PATTERN = re.compile(r"^(\d+)(m|h|d|w|mo|y)$")
    _KEYWORD: ClassVar[dict[str, str]] = {
        "m": "minutes",
        "h": "hours",
        "d": "days",
        "w": "weeks",
        "mo": "months",
        "y": "years",
    }

    def __new__(cls, text: str) -> Self:
        """Parse; ValueError names what is accepted."""
        if not cls._PATTERN.match(text):
            raise ValueError(f"{text!r} is not a duration; accepted: a whole number and m, h, d, w, mo or y, as in 6mo")
        return super().__new__(cls, text)

    @property
    def offset(self) -> relativedelta:
        """Calendar offset: six months before 31 August is the last day of February."""
        match = self._PATTERN.match(self)
        assert match is not None
        span: dict[str, Any] = {self._KEYWORD[match[2]]: int(match[1])}
        return relativedelta(**span)

    def before(self, moment: datetime) -> datetime:
        """The moment this span earlier."""
        return moment - self.offset

    def after(self, moment: datetime) -> datetime:
        """The moment this span later."""
        return moment + self.offset

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls, core_schema.str_schema(), serialization=core_schema.to_string_ser_schema()
        )


class Section(BaseModel):
    """A closed, frozen part of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Tier(enum.StrEnum):
    """How much depends on the model; sets how often it is retrained (R3.1)."""

    MAIN = "main"
    SECONDARY = "secondary"


class Sensitivity(enum.StrEnum):
    """Who has to approve a deployment (R4.5)."""

    NON_SENSITIVE = "non_sensitive"
    SENSITIVE = "sensitive"
    CRITICAL = "critical"


class Owner(Section):
    """Who answers for the model."""

    team: str = Field(min_length=1, description="Team that owns the model.")
    contact: str = Field(min_length=1, description="Where that team is reached: an address or a channel.")


class Join(Section):
    """A second table, joined as it was known when the prediction was made."""

    table: Column = Field(description="Table of the source.")
    keys: list[Column] = Field(min_length=1, description="Columns equal on both sides.")
    columns: dict[Column, Column] = Field(min_length=1, description="Columns taken: new name: column of the table.")
    timestamp: Column | None = Field(
        None, description="When the row was true; with it the join is point-in-time, without it plain look-up."
    )
    known_after: Duration = Field(
        Duration("0m"), description="How long after its timestamp a row becomes known; younger rows are not joined."
    )
    max_age: Duration | None = Field(None, description="Rows older than this at prediction time count as missing.")

    @model_validator(mode="after")
    def _times_need_a_timestamp(self) -> Self:
        if self.timestamp is None and (self.known_after != "0m" or self.max_age is not None):
            raise ValueError("known_after and max_age need the join's timestamp")
        return self


class Source(Section):
    """Where the rows come from."""

    table: Column = Field(description="Table or view with one row for each prediction.")
    timestamp: Column = Field(description="When the prediction was due (UTC): orders rows, bounds windows and joins.")
    entity_key: Column = Field(description="Unique key of a row.")
    derived: dict[Column, str] = Field(
        default_factory=dict,
        description="Computed in the database: name: SQL expression in DuckDB's dialect, translated for others.",
    )
    joins: list[Join] = Field(default_factory=list, description="Further tables.")
    where: str | None = Field(None, description="SQL condition on the rows, same dialect.")
    window: Duration = Field(Duration("6mo"), description="How far back before as-of a training looks (R3.4).")
    max_rows: Rows = Field(1_000_000, description="Above it, a seeded uniform sample is taken in the database (R3.4).")


class Label(Section):
    """What is predicted; binary."""

    column: Column = Field(description="Column that holds the outcome.")
    positive: Annotated[int | str | bool, Unit("none")] = Field(
        1, description="Value that counts as the positive class."
    )
    delay: Duration = Field(
        Duration("0m"), description="After this the outcome is known; younger rows are not trained on."
    )
    meaning: str = Field(min_length=1, description="The positive class in words.")


class NumericFeature(Section):
    """A number; null means missing."""

    name: Column = Field(description="Column, derived column or joined column.")
    type: Literal["numeric"] = Field(description="numeric: a number.")
    unit: str | None = Field(None, description="Unit people read, for example mi or USD.")
    min: FeatureValue | None = Field(None, description="Smallest value that can be true.")
    max: FeatureValue | None = Field(None, description="Largest value that can be true.")
    max_missing: Share = Field(0.05, description="Share of nulls above which quality complains.")
    meaning: str = Field("", description="What the column says, in words.")

    @model_validator(mode="after")
    def _range_is_ordered(self) -> Self:
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise ValueError(f"min {self.min:g} is not below max {self.max:g}")
        return self


class CategoricalFeature(Section):
    """A category, read as text whatever its database type; null means missing."""

    name: Column = Field(description="Column, derived column or joined column.")
    type: Literal["categorical"] = Field(description="categorical: one of several values.")
    values: list[str] | None = Field(None, description="Closed list of accepted values; open when absent.")
    labels: dict[str, str] = Field(default_factory=dict, description="Value: what people read.")
    max_missing: Share = Field(0.05, description="Share of nulls above which quality complains.")
    meaning: str = Field("", description="What the column says, in words.")


Feature = Annotated[NumericFeature | CategoricalFeature, Field(discriminator="type")]


class SensitiveAttribute(Section):
    """A subgroup column that fairness is judged over; a model input only if it is also a feature."""

    name: Name = Field(description="What the groups are: gender, experience, region.")
    column: Column = Field(description="Column (or derived column) with the group.")
    labels: dict[str, str] = Field(default_factory=dict, description="Value: what people read.")


class Expectation(Section):
    """A free-form Great Expectations expectation beside those drawn from the features."""

    type: str = Field(
        pattern=r"^[A-Z][A-Za-z]+$",
        description="Great Expectations class, e.g. ExpectColumnPairValuesAToBeGreaterThanB.",
    )
    arguments: dict[str, Any] = Field(default_factory=dict, description="Its arguments.")
    severity: Severity = Field(Severity.ERROR, description="error stops the run, warning is told.")


class Quality(Section):
    """What a fetch must look like before anything is trained on it (R5.5)."""

    min_rows: Rows = Field(1_000, description="Fewer rows stop the run.")
    freshness: Duration = Field(Duration("7d"), description="The newest row may be this old at as-of.")
    max_missing_severity: Severity = Field(Severity.WARNING, description="What too many nulls mean.")
    range_severity: Severity = Field(Severity.ERROR, description="What a value outside a declared range means.")
    range_mostly: Share = Field(1.0, description="Share of values that must be inside declared ranges and lists.")
    max_text_length: Annotated[Count, Unit("characters")] = Field(
        1_000, description="A longer value in the key, a category or a group is taken for damage."
    )
    leak_auc: Annotated[float, Field(gt=0.5, le=1), Unit("ROC AUC")] = Field(
        0.95, description="A single feature that ranks the label better than this is reported as a suspected leak."
    )
    expectations: list[Expectation] = Field(default_factory=list, description="Further checks, free-form.")


class SplitStrategy(enum.StrEnum):
    """How the hold-out is taken."""

    TIME = "time"
    STRATIFIED = "stratified"
    GROUPED = "grouped"


class Split(Section):
    """Hold-out and folds."""

    strategy: SplitStrategy = Field(SplitStrategy.TIME, description="time: the newest rows; stratified; or grouped.")
    holdout: OpenShare = Field(0.2, description="Share of rows held out for evaluation.")
    folds: Annotated[int, Field(ge=2, le=20), Unit("folds")] = Field(
        5, description="Cross-validation folds inside the training part."
    )
    group: Column | None = Field(None, description="Column whose values stay on one side, for grouped.")

    @model_validator(mode="after")
    def _group_goes_with_grouped(self) -> Self:
        if (self.strategy is SplitStrategy.GROUPED) != (self.group is not None):
            raise ValueError("group is given exactly when strategy is grouped")
        return self


class Range(Section):
    """A searched interval."""

    low: Annotated[float, Unit("the parameter's own")] = Field(description="Smallest value tried.")
    high: Annotated[float, Unit("the parameter's own")] = Field(description="Largest value tried.")
    log: bool = Field(False, description="Whether values are drawn evenly on a logarithmic scale.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high or (self.log and self.low <= 0):
            raise ValueError(
                f"low {self.low:g}, high {self.high:g}: accepted: low not above high, and above 0 with log"
            )
        return self


class Search(Section):
    """The network's search space."""

    learning_rate: Range = Field(Range(low=5e-4, high=1e-2, log=True), description="Step size of the optimiser.")
    weight_decay: Range = Field(Range(low=1e-6, high=1e-2, log=True), description="How strongly weights shrink.")
    dropout: Range = Field(Range(low=0.0, high=0.4), description="Share of hidden units left out of a step.")
    units: list[Annotated[Count, Unit("units")]] = Field(
        [64, 128, 256], min_length=1, description="Choices for the width of a hidden layer."
    )
    layers: list[Annotated[int, Field(ge=1, le=6), Unit("layers")]] = Field(
        [1, 2, 3], min_length=1, description="Choices for the depth."
    )
    bins: list[Annotated[int, Field(ge=2, le=256), Unit("bins")]] = Field(
        [16, 48], min_length=1, description="Choices for the piecewise-linear bins of a number."
    )


class Mitigation(Section):
    """An answer to bias found by a gate, as part of training."""

    method: Literal["reweighing"] = Field(
        description="reweighing: sample weights that make label and group independent (Kamiran and Calders, 2012)."
    )
    attribute: Name = Field(description="Sensitive attribute by its name.")


class Training(Section):
    """How a version is made (R3.5, R3.6)."""

    split: Split = Field(Split(), description="Hold-out and folds.")
    trials: Annotated[Count, Unit("trials")] = Field(20, description="Hyper-parameter trials.")
    search: Search = Field(Search(), description="What the trials choose from.")
    batch_size: Annotated[int, Field(ge=16, le=65_536), Unit("rows")] = Field(
        1_024, description="Rows a gradient step."
    )
    max_epochs: Annotated[Count, Unit("epochs")] = Field(
        30, description="Passes over the data at most; early stopping usually ends before."
    )
    patience: Annotated[Count, Unit("epochs")] = Field(3, description="Epochs without improvement before a fit stops.")
    ensemble: Annotated[int, Field(ge=1, le=32), Unit("networks")] = Field(
        4, description="Networks averaged in the final model."
    )
    min_category_count: Rows = Field(20, description="Rarer categories share the bucket of the unseen.")
    seed: Annotated[int, Field(ge=0, lt=2**31), Unit("none")] = Field(
        0, description="Every random choice follows from it."
    )
    mitigation: Mitigation | None = Field(None, description="Answer to bias that a gate found; none by default.")


class Gate(Section):
    """A condition a candidate must meet.

    Three forms: a bound on the measure itself (`min` or `max`), a bound over the groups of sensitive
    attributes (`over`, fairness measures), or a smallest difference to a baseline (`against`), judged on
    the unfavourable end of the paired confidence interval.
    """

    metric: str = Field(description="Measure by its name: one of those listed at the end of the page.")
    min: MeasureValue | None = Field(None, description="Smallest accepted value.")
    max: MeasureValue | None = Field(None, description="Largest accepted value.")
    over: list[Name] | None = Field(None, description="Sensitive attributes, for fairness measures.")
    against: Literal["champion", "prior", "logistic_regression"] | None = Field(None, description="Baseline.")
    min_difference: MeasureValue | None = Field(
        None, description="Smallest accepted improvement over the baseline (negative: largest accepted loss)."
    )
    severity: Severity = Field(Severity.ERROR, description="error rejects the candidate, warning is told.")

    @property
    def name(self) -> str:
        """Identifies the gate in its file, for overrides and reports."""
        return f"{self.metric} against {self.against}" if self.against else self.metric

    @property
    def threshold(self) -> float:
        """The bound, whichever form."""
        bound = self.min_difference if self.against else self.min if self.min is not None else self.max
        assert bound is not None
        return bound

    @property
    def direction(self) -> Direction:
        """Which side of the threshold is accepted."""
        return Direction.AT_MOST if self.max is not None else Direction.AT_LEAST

    @field_validator("metric")
    @classmethod
    def _metric_is_known(cls, metric: str) -> str:
        if metric not in MEASURES:
            raise ValueError(f"unknown metric {metric!r}; accepted: {', '.join(MEASURES)}")
        return metric

    @model_validator(mode="after")
    def _one_reachable_bound(self) -> Self:
        if self.metric not in MEASURES:  # reported by the field
            return self
        measure = MEASURES[self.metric]
        wanted = "min_difference" if self.against else "min or max, and only one"
        given = [name for name in ("min", "max", "min_difference") if getattr(self, name) is not None]
        if len(given) != 1 or (given[0] == "min_difference") != (self.against is not None):
            raise ValueError(f"{self.metric} has {' and '.join(given) or 'no bound'}; accepted: {wanted}")
        if (self.metric in FAIRNESS) != (self.over is not None) or self.over == []:
            raise ValueError(f"{self.metric}: over is given exactly for fairness measures ({', '.join(FAIRNESS)})")
        if self.metric in FAIRNESS and self.against is not None:
            raise ValueError(f"{self.metric}: a fairness measure is bounded by max, not against a baseline")
        width = measure.high - measure.low
        low, high = (-width, width) if self.against else (measure.low, measure.high)
        # A minimum at the lower end, or a maximum at the upper end, is met by everything and could never fire.
        reachable = (
            low < self.threshold <= high if self.direction is Direction.AT_LEAST else low <= self.threshold < high
        )
        if not reachable:
            raise ValueError(
                f"{given[0]} {self.threshold:g} can never {'fire' if low <= self.threshold <= high else 'be met'}; "
                f"accepted: between {low:g} and {high:g}, the end that everything meets excluded"
            )
        return self


class FirstVersion(Section):
    """The rule while there is no champion: champion gates compare with this baseline instead."""

    against: Literal["prior", "logistic_regression"] = Field(
        "logistic_regression", description="Baseline in the champion's place."
    )


class Evaluation(Section):
    """How a candidate is judged (R3.7, R5.6)."""

    gates: list[Gate] = Field(min_length=1, description="Conditions, all of them to be met.")
    first_version: FirstVersion = Field(FirstVersion(), description="What holds while there is no champion.")
    slices: list[Column] = Field(default_factory=list, description="Features whose values are reported one by one.")
    min_group_rows: Rows = Field(200, description="Smaller groups and slices are NO_DATA.")
    min_group_class_rows: Rows = Field(
        50,
        description="Fewer positives (for recall) or positive decisions (for precision) in a group are NO_DATA.",
    )
    min_rows: Rows = Field(500, description="A smaller hold-out judges nothing.")
    bootstrap: Annotated[int, Field(ge=100, le=10_000), Unit("resamples")] = Field(
        500, description="Bootstrap resamples."
    )
    confidence: OpenShare = Field(0.95, description="Level of the intervals.")

    @model_validator(mode="after")
    def _gates_are_distinct(self) -> Self:
        names = [gate.name for gate in self.gates]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"gate {doubled[0]!r} stands twice; accepted: one owner for each threshold")
        return self


class Business(Section):
    """What a decision is worth (R5.2); the decision threshold maximises it on validation data."""

    currency: str = Field(pattern=r"^[A-Z]{3}$", description="ISO 4217 code.")
    decision: str = Field(min_length=1, description="What is done when the model says positive.")
    true_positive: Money = Field(description="Worth of a right positive decision.")
    false_positive: Money = Field(description="Worth (usually negative) of a wrong positive decision.")
    true_negative: Money = Field(0.0, description="Worth of a right negative decision.")
    false_negative: Money = Field(0.0, description="Worth (usually negative) of a missed positive.")

    @model_validator(mode="after")
    def _being_right_pays(self) -> Self:
        if self.true_positive <= self.false_negative or self.true_negative <= self.false_positive:
            raise ValueError(
                "being right is worth no more than being wrong; accepted: true_positive > false_negative "
                "and true_negative > false_positive"
            )
        return self


class Rollback(Section):
    """When a version leaves by itself (R8.1)."""

    performance_drop: OpenShare = Field(0.20, description="Relative loss of right decisions, and of ROC AUC.")
    error_rate: OpenShare = Field(0.10, description="Share of failed requests.")
    latency_ratio: Annotated[float, Field(gt=1), Unit("ratio")] = Field(
        2.0, description="Latency over the previous version's."
    )
    latency_floor_ms: Annotated[float, Field(ge=0), Unit("ms")] = Field(
        50.0, description="An answer that took no longer is never slow: twice of little is little."
    )
    value_drop: OpenShare = Field(
        0.10, description="Loss of business value a decision, of the span between the worst and the best decision."
    )
    score_shift: OpenShare = Field(
        0.30, description="Largest distance between the candidate's and the live version's score distributions."
    )


class Rollout(Section):
    """How a version reaches its users (R4.1 to R4.3)."""

    strategy: Literal["canary", "blue_green", "shadow"] = Field(
        "canary", description="canary: a growing share; blue_green: all at once; shadow: answers compared, never used."
    )
    steps: list[Annotated[float, Field(gt=0, le=1), Unit("share")]] = Field(
        [0.10, 0.50, 1.0], min_length=1, description="Traffic shares."
    )
    hold: Duration = Field(Duration("1h"), description="Least time at each step.")
    min_requests: Annotated[Count, Unit("requests")] = Field(
        500, description="Least requests at each step before it is judged."
    )
    rollback: Rollback = Field(Rollback(), description="When the version is taken back.")

    @field_validator("steps")
    @classmethod
    def _steps_rise_to_all(cls, steps: list[float]) -> list[float]:
        if steps != sorted(set(steps)) or steps[-1] != 1:
            raise ValueError(f"{steps}; accepted: rising shares of traffic that end at 1.0")
        return steps


class Monitoring(Section):
    """Windows and thresholds of monitoring (R5.1 to R5.6)."""

    window: Duration = Field(Duration("7d"), description="Window a monitoring run looks at.")
    drift: Annotated[float, Field(gt=0), Unit("distance")] = Field(
        0.1, description="Statistical distance above which a feature has drifted (R5.3)."
    )
    concept_drift: OpenShare = Field(
        0.10, description="Relative loss of performance that counts as concept drift (R5.4)."
    )
    bias: OpenShare = Field(0.05, description="Largest accepted difference between groups (R5.6).")
    resource_use: OpenShare = Field(0.80, description="CPU or memory share that warns (R6.3).")
    no_data_limit: Duration = Field(Duration("2d"), description="NO_DATA for longer is itself an alert.")


class Retraining(Section):
    """What starts a training (R3.1, R3.2, R7.2)."""

    schedule: Literal["weekly", "monthly", "by_tier"] = Field(
        "by_tier", description="by_tier: weekly for main, monthly for secondary models (R3.1)."
    )
    on_drift: bool = Field(True, description="Whether drift starts a training (R3.2).")
    on_degradation: bool = Field(True, description="Whether a loss of performance starts one (R3.2).")
    on_new_rows: Rows = Field(100_000, description="This many new labelled rows are enough new data.")
    mode: Literal["full", "incremental", "transfer"] = Field(
        "full", description="full: from scratch; incremental: new rows only; transfer: from another model (R7.2)."
    )


class Retention(Section):
    """How long things are kept (R2.5)."""

    versions: Duration = Field(Duration("2y"), description="Registered versions after they left production.")
    snapshots: Duration = Field(Duration("2y"), description="Training data.")
    predictions: Duration = Field(Duration("1y"), description="The prediction log.")


class ModelSpec(Section):
    """One production model."""

    name: Name = Field(description="Equal to the file's name without .yaml.")
    description: str = Field(min_length=1, description="What the model predicts, in one sentence.")
    owner: Owner = Field(description="Who answers for the model.")
    tier: Tier = Field(description="How much depends on it: sets how often it is retrained (R3.1).")
    sensitivity: Sensitivity = Field(description="Who has to approve a deployment (R4.5).")
    source: Source = Field(description="Where the rows come from.")
    label: Label = Field(description="What is predicted.")
    features: list[Feature] = Field(min_length=1, description="What the model sees: its signature, in this order.")
    after_event: list[Column] = Field(
        default_factory=list, description="Columns known only after the event: never features."
    )
    sensitive: list[SensitiveAttribute] = Field(default_factory=list, description="Groups fairness is judged over.")
    quality: Quality = Field(Quality(), description="What a fetch must look like.")
    training: Training = Field(Training(), description="How a version is made.")
    evaluation: Evaluation = Field(description="How a candidate is judged.")
    business: Business = Field(description="What a decision is worth.")
    rollout: Rollout = Field(Rollout(), description="How a version reaches its users.")
    monitoring: Monitoring = Field(Monitoring(), description="Windows and thresholds of monitoring.")
    retraining: Retraining = Field(Retraining(), description="What starts a training.")
    retention: Retention = Field(Retention(), description="How long things are kept.")

    @field_validator("name")
    @classmethod
    def _name_is_a_model_s_own(cls, name: str) -> str:
        if name == GATEWAY:
            raise ValueError(f"{name!r} is what monitoring calls the gateway; accepted: another name")
        return name

    @property
    def numeric(self) -> list[NumericFeature]:
        """Numeric features, in the file's order."""
        return [feature for feature in self.features if isinstance(feature, NumericFeature)]

    @property
    def categorical(self) -> list[CategoricalFeature]:
        """Categorical features, in the file's order."""
        return [feature for feature in self.features if isinstance(feature, CategoricalFeature)]

    @property
    def feature_names(self) -> list[str]:
        """All features: the signature of the saved model, in the file's order."""
        return [feature.name for feature in self.features]

    def fingerprint(self, *sections: str) -> str:
        """First 16 hex digits of the sha256 of the named sections (all when none is named).

        Layout, comments and the order of keys in the file do not matter; a default written out is the default.
        """
        content = self.model_dump(mode="json", include=set(sections) or None)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def schedule(self) -> Literal["weekly", "monthly"]:
        """How often it is retrained (R3.1)."""
        if self.retraining.schedule != "by_tier":
            return self.retraining.schedule
        return "weekly" if self.tier is Tier.MAIN else "monthly"

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        names = self.feature_names
        problems: list[str] = []
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            problems.append(f"features: {doubled[0]} stands twice; accepted: each name once")
        forbidden = {
            self.label.column: "the label",
            self.source.entity_key: "the entity key",
            self.source.timestamp: "the timestamp",
            **dict.fromkeys(self.after_event, "listed in after_event (known only after the event)"),
        }
        problems += [
            f"features: {name} is {forbidden[name]}; accepted: columns known when the prediction is made"
            for name in names
            if name in forbidden
        ]
        attributes = [attribute.name for attribute in self.sensitive]
        asked = [name for gate in self.evaluation.gates for name in gate.over or []]
        if self.training.mitigation:
            asked.append(self.training.mitigation.attribute)
        problems += [
            f"{name!r} is not a sensitive attribute; accepted: {', '.join(attributes) or 'none declared'}"
            for name in dict.fromkeys(asked)
            if name not in attributes
        ]
        problems += [
            f"evaluation.slices: {name} is not a categorical feature"
            for name in self.evaluation.slices
            if name not in {feature.name for feature in self.categorical}
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self


class Environment(Section):
    """What differs between development, staging, canary and production: differences only (R4.4)."""

    name: Name = Field(description="Equal to the file's name without .yaml.")
    now: Literal["wall_clock", "newest_row"] = Field(
        "wall_clock",
        description="as-of when none is given: the clock, or the newest row of a historic sample database.",
    )
    port: Annotated[int, Field(ge=1, le=65_535), Unit("port number")] = Field(
        8500, description="Where its gateway listens on one machine that plays several environments."
    )
    folder: Name = Field("serving", description="Folder of its gateway's state, in var.")
    approval: dict[str, Any] = Field(
        default_factory=dict, description="Keys of configs/policies/approval.yaml that differ here, by dotted path."
    )
    overrides: dict[str, Any] = Field(
        default_factory=dict, description="Keys of the model file that differ here, by dotted path."
    )
