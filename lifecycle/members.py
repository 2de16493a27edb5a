"""A member-retention table of any size with planted drift, bias, noise and breaks, and the truth about them.

Scale tests need a table larger than any that may be shipped, and a monitor can only be judged against drift whose
onset and size are known. Row `i` depends on the plan, the seed and `i` alone, so that a table of fifty million rows
can be made in parts, and two plans with the same seed differ in nothing but what was planted (R5.3, R5.4, R5.5, R5.6).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from lifecycle.errors import ConfigError

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]

KEY = "member_id"
TIMESTAMP = "observed_at"
OUTCOME = "outcome"
CHURNED = "churned"
RETAINED = "retained"
SENSITIVE = ("gender", "experience", "region")

# Rows drawn from one random stream. Part of the definition of every table: another size is another table.
_BLOCK = 16_384


class Shape(enum.Enum):
    """How a standard normal becomes a feature; every shape rises with it."""

    NORMAL = "normal"
    LOGNORMAL = "lognormal"
    COUNT = "count"
    SHARE = "share"


@dataclass(frozen=True, slots=True)
class Numeric:
    """A number of the table.

    Parameters
    ----------
    name
        Column.
    shape
        Marginal distribution.
    centre, spread
        Mean and standard deviation of the normal, of the logarithm (lognormal, count) or of the log odds (share).
    low, high
        Bounds the values are clipped to.
    loadings
        Correlation with engagement, wealth and friction, the three hidden traits of a member.
    unit
        Unit of the values.
    missing
        Share of nulls, independent of the value.
    """

    name: str
    shape: Shape
    centre: float
    spread: float
    low: float
    high: float
    loadings: tuple[float, float, float]
    unit: str
    missing: float = 0.0

    def values(self, latent: Floats) -> Floats:
        """Feature values of standard normal `latent`; of the same shape, within `low` and `high`."""
        raw = self.centre + self.spread * latent
        if self.shape is Shape.LOGNORMAL:
            raw = np.exp(raw)
        elif self.shape is Shape.COUNT:
            raw = np.floor(np.exp(raw))
        elif self.shape is Shape.SHARE:
            raw = special.expit(raw)
        return np.clip(raw, self.low, self.high)


@dataclass(frozen=True, slots=True)
class Categorical:
    """A category of the table.

    Parameters
    ----------
    name
        Column.
    weights
        Category: its share; they sum to 1.
    loadings
        As for `Numeric`: which hidden traits push towards the later categories.
    missing
        Share of nulls, independent of the value.
    """

    name: str
    weights: Mapping[str, float]
    loadings: tuple[float, float, float] = (0.0, 0.0, 0.0)
    missing: float = 0.0

    @property
    def categories(self) -> list[str]:
        """All values, in order."""
        return list(self.weights)

    def codes(self, latent: Floats) -> npt.NDArray[np.int8]:
        """Positions in `categories` of standard normal `latent`."""
        inner = np.cumsum(list(self.weights.values()))[:-1]
        return np.searchsorted(special.ndtri(inner), latent, side="right").astype(np.int8)


NUMERIC: tuple[Numeric, ...] = (
    Numeric("tenure_months", Shape.LOGNORMAL, 2.8, 0.9, 0.0, 180.0, (0.2, 0.2, -0.1), "month"),
    Numeric("age_years", Shape.NORMAL, 38.0, 11.0, 16.0, 90.0, (0.0, 0.4, 0.0), "year", 0.03),
    Numeric("sessions_30d", Shape.COUNT, 2.2, 0.9, 0.0, 500.0, (0.85, 0.0, 0.0), "1"),
    Numeric("session_minutes", Shape.LOGNORMAL, 2.5, 0.6, 0.1, 600.0, (0.5, 0.0, 0.1), "min"),
    Numeric("days_since_last_session", Shape.COUNT, 1.4, 1.1, 0.0, 180.0, (-0.75, 0.0, 0.1), "day"),
    Numeric("sessions_trend", Shape.NORMAL, 0.0, 0.35, -2.0, 2.0, (0.3, 0.0, -0.3), "1"),
    Numeric("decks_created_90d", Shape.COUNT, 1.5, 1.0, 0.0, 400.0, (0.7, 0.1, 0.0), "1"),
    Numeric("decks_shared_90d", Shape.COUNT, 0.8, 1.0, 0.0, 400.0, (0.6, 0.2, 0.0), "1"),
    Numeric("exports_30d", Shape.COUNT, 0.6, 1.0, 0.0, 300.0, (0.5, 0.1, 0.0), "1"),
    Numeric("collaborators", Shape.COUNT, 0.7, 0.9, 0.0, 200.0, (0.3, 0.4, 0.0), "1"),
    Numeric("storage_mb", Shape.LOGNORMAL, 6.0, 1.4, 0.0, 500_000.0, (0.4, 0.3, 0.0), "MB"),
    Numeric("templates_used_90d", Shape.COUNT, 0.9, 0.8, 0.0, 100.0, (0.4, 0.0, 0.0), "1"),
    Numeric("support_tickets_90d", Shape.COUNT, -0.6, 0.9, 0.0, 60.0, (0.1, 0.0, 0.6), "1"),
    Numeric("satisfaction_score", Shape.NORMAL, 7.0, 1.8, 1.0, 10.0, (0.2, 0.0, -0.6), "1"),
    Numeric("monthly_fee_usd", Shape.LOGNORMAL, 2.7, 0.5, 0.0, 400.0, (0.0, 0.7, 0.0), "USD"),
    Numeric("discount_share", Shape.SHARE, -2.0, 1.0, 0.0, 0.9, (0.0, -0.3, 0.1), "share"),
    Numeric("failed_payments_12m", Shape.COUNT, -0.8, 0.8, 0.0, 12.0, (0.0, -0.4, 0.4), "1"),
    Numeric("days_to_renewal", Shape.LOGNORMAL, 3.8, 1.1, 0.0, 365.0, (0.0, 0.0, 0.0), "day"),
    Numeric("referrals", Shape.COUNT, -0.9, 1.0, 0.0, 50.0, (0.3, 0.0, -0.2), "1"),
    Numeric("email_open_rate", Shape.SHARE, -0.8, 1.1, 0.0, 1.0, (0.5, 0.0, -0.1), "share", 0.08),
)


def _falling(prefix: str, count: int) -> dict[str, float]:
    """Shares that fall as 1 / rank, as the use of templates or trades does."""
    ranks = 1.0 / np.arange(1, count + 1)
    return {f"{prefix}_{rank:02d}": float(share) for rank, share in enumerate(ranks / ranks.sum(), start=1)}


CATEGORICAL: tuple[Categorical, ...] = (
    Categorical("gender", {"female": 0.46, "male": 0.50, "other": 0.04}),
    Categorical("experience", {"0-1": 0.20, "2-4": 0.30, "5-9": 0.28, "10+": 0.22}, (0.1, 0.5, 0.0)),
    Categorical("region", {"north": 0.35, "south": 0.25, "east": 0.25, "west": 0.15}),
    Categorical("plan", {"free": 0.30, "basic": 0.35, "pro": 0.25, "team": 0.10}, (0.2, 0.6, 0.0)),
    Categorical("billing_period", {"monthly": 0.65, "yearly": 0.35}, (0.1, 0.4, 0.0)),
    Categorical("payment_method", {"card": 0.55, "wallet": 0.20, "transfer": 0.15, "invoice": 0.10}, missing=0.02),
    Categorical("acquisition_channel", {"search": 0.4, "ads": 0.2, "referral": 0.2, "social": 0.15, "partner": 0.05}),
    Categorical("device", {"desktop": 0.5, "mixed": 0.3, "mobile": 0.2}),
    Categorical("industry", _falling("industry", 12), missing=0.04),
    Categorical("first_template", _falling("template", 40)),
)
_ALL: tuple[Numeric | Categorical, ...] = (*NUMERIC, *CATEGORICAL)
FEATURES: dict[str, Numeric | Categorical] = {feature.name: feature for feature in _ALL}
_CODES = {feature.name: {value: code for code, value in enumerate(feature.categories)} for feature in CATEGORICAL}
# Members on a mobile device are asked less often: the one column whose nulls depend on another column.
_UNASKED = {"desktop": 0.10, "mixed": 0.15, "mobile": 0.45}


class _Columns:
    """Values and codes of one block as the member's record holds them, nulls as NaN and -1."""

    def __init__(self, numeric: dict[str, Floats], codes: dict[str, npt.NDArray[np.int8]]) -> None:
        self.numeric = numeric
        self.codes = codes

    def number(self, name: str, unknown: float) -> Floats:
        """A numeric column, its nulls read as `unknown`."""
        values = self.numeric[name]
        return np.where(np.isnan(values), unknown, values)

    def equals(self, name: str, category: str) -> Floats:
        """1 where the category is this one, else 0."""
        return np.where(self.codes[name] == _CODES[name][category], 1.0, 0.0)

    def wave(self, name: str, height: float) -> Floats:
        """An effect that differs from category to category without an order, 0 for nulls; within +-`height`."""
        codes = self.codes[name]
        effects: Floats = np.where(codes < 0, 0.0, height * np.sin(12.9898 * (codes + 1.0)))
        return effects


# The log odds of churning, a sum of one term for each feature that matters; some look at a second feature. A null has
# its own effect, so that the probability is a function of what the record shows and the best AUC is known.
_TERMS: dict[str, Callable[[_Columns], Floats]] = {
    "tenure_months": lambda c: -0.7 * np.tanh((c.number("tenure_months", 16.0) - 18.0) / 18.0),
    "age_years": lambda c: 0.4 * np.cos((c.number("age_years", 38.0) - 38.0) / 6.0),
    "sessions_30d": lambda c: -0.5 * np.log1p(c.number("sessions_30d", 9.0)) + 1.1,
    "days_since_last_session": lambda c: 0.9 * np.clip(c.number("days_since_last_session", 4.0) - 10.0, 0, 20) / 20.0,
    "sessions_trend": lambda c: -2.0 * np.minimum(c.number("sessions_trend", 0.0), 0.1),
    "decks_shared_90d": lambda c: (
        0.4 - np.clip(c.number("decks_shared_90d", 2.0) / (1.0 + c.number("decks_created_90d", 4.0)), 0.0, 1.5)
    ),
    "collaborators": lambda c: 0.5 - 0.4 * np.log1p(c.number("collaborators", 2.0)),
    "support_tickets_90d": lambda c: (
        0.5 * np.minimum(c.number("support_tickets_90d", 0.0), 4.0) * (c.number("collaborators", 2.0) <= 1.0)
    ),
    "satisfaction_score": lambda c: (
        1.3 * (c.number("satisfaction_score", 7.0) < 5.0)
        - 0.5 * (c.number("satisfaction_score", 7.0) > 8.0)
        + 0.6 * np.isnan(c.numeric["satisfaction_score"])
    ),
    "monthly_fee_usd": lambda c: (
        np.log(np.maximum(c.number("monthly_fee_usd", 15.0), 1.0) / 15.0) * (0.2 + 1.2 * c.equals("plan", "basic"))
    ),
    "discount_share": lambda c: -1.5 * (c.number("discount_share", 0.12) - 0.15),
    "failed_payments_12m": lambda c: (
        0.8 * np.minimum(c.number("failed_payments_12m", 0.0), 3.0) * (1.0 - 0.8 * c.equals("billing_period", "yearly"))
    ),
    "days_to_renewal": lambda c: (
        1.6 * np.exp(-c.number("days_to_renewal", 45.0) / 20.0) * (c.number("satisfaction_score", 5.0) < 6.5)
    ),
    "email_open_rate": lambda c: -0.8 * (c.number("email_open_rate", 0.2) - 0.33),
    "plan": lambda c: 0.5 * c.equals("plan", "free") - 0.4 * c.equals("plan", "team"),
    "payment_method": lambda c: (
        0.4 * c.equals("payment_method", "wallet") - 0.3 * c.equals("payment_method", "invoice")
    ),
    "acquisition_channel": lambda c: (
        0.5 * c.equals("acquisition_channel", "ads") - 0.5 * c.equals("acquisition_channel", "referral")
    ),
    "device": lambda c: c.equals("device", "mobile") * np.where(c.number("exports_30d", 1.0) < 1.0, 0.8, -0.1),
    "industry": lambda c: c.wave("industry", 0.3),
    "first_template": lambda c: c.wave("first_template", 0.5),
}
EFFECTIVE: tuple[str, ...] = tuple(_TERMS)


@dataclass(frozen=True, slots=True)
class Drift:
    """A change of the distribution of one feature (R5.3).

    Parameters
    ----------
    feature
        Name of the feature.
    onset
        When it starts.
    shift
        Numeric features: added to the standard normal behind the feature, at full strength. For a normally
        distributed feature it is the distance in standard deviations.
    scale
        Numeric features: the standard normal is multiplied by it, at full strength; above 0.
    towards
        Categorical features: the category that gains; it may be one the table does not have otherwise.
    share
        Categorical features: share of the rows that become `towards`, at full strength.
    ramp
        Time from onset to full strength; 0 is a step.
    until
        When it is over, from one row to the next; None is never.
    """

    feature: str
    onset: datetime
    shift: float = 0.0
    scale: float = 1.0
    towards: str | None = None
    share: float = 0.0
    ramp: timedelta = timedelta(0)
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class ConceptDrift:
    """A change of what one feature means for the outcome (R5.4).

    Parameters
    ----------
    feature
        One of `EFFECTIVE`.
    onset, ramp, until
        As in `Drift`.
    factor
        What the feature's term in the log odds is multiplied by, at full strength; -1 turns it round.
    """

    feature: str
    onset: datetime
    factor: float
    ramp: timedelta = timedelta(0)
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Bias:
    """A group whose recorded outcomes differ at equal behaviour (R5.6).

    Parameters
    ----------
    attribute
        gender, experience or region.
    group
        One of its categories.
    log_odds
        Added to the group's log odds of churning.
    onset, ramp, until
        As in `Drift`; without an onset it holds at all times.
    """

    attribute: str
    group: str
    log_odds: float
    onset: datetime | None = None
    ramp: timedelta = timedelta(0)
    until: datetime | None = None


class BreakKind(enum.StrEnum):
    """What goes wrong with a column on its way into the table."""

    MISSING = "missing"
    CONSTANT = "constant"
    UNIT = "unit"
    OUTLIERS = "outliers"
    NEW_CATEGORY = "new_category"


@dataclass(frozen=True, slots=True)
class QualityBreak:
    """A fault of recording (R5.5): the outcome follows the true value, the table shows another.

    Parameters
    ----------
    feature
        Name of the feature.
    kind
        missing: nulls; constant: the lowest value or the first category; unit: numbers a thousand times too large;
        outliers: a hundred times the upper bound; new_category: text that is no category, ``#REF!``.
    onset, until
        From when, and until when; None is for ever.
    share
        Share of the rows in that time that are hit.
    """

    feature: str
    kind: BreakKind
    onset: datetime
    until: datetime | None = None
    share: float = 1.0


UNIT_FACTOR = 1_000.0
OUTLIER_FACTOR = 100.0
NOT_A_CATEGORY = "#REF!"


@dataclass(frozen=True, slots=True)
class MemberPlan:
    """What is planted in the table; by default nothing but a label that can be learnt.

    Parameters
    ----------
    drifts, concept_drifts, biases, breaks
        What is planted.
    label_noise
        Share of the recorded outcomes that are wrong, 0 up to and without 0.5.
    base_log_odds
        Added to everybody's log odds; sets the share of members that churn.
    signal
        What the features' terms are multiplied by; 0 makes the outcome pure chance.

    Raises
    ------
    ConfigError
        For a feature, category or group that does not exist, and for sizes outside their range.
    """

    drifts: tuple[Drift, ...] = ()
    concept_drifts: tuple[ConceptDrift, ...] = ()
    biases: tuple[Bias, ...] = ()
    breaks: tuple[QualityBreak, ...] = ()
    label_noise: float = 0.0
    base_log_odds: float = -3.1
    signal: float = 1.0

    def __post_init__(self) -> None:
        problems = [
            *(problem for drift in self.drifts for problem in _drift_problems(drift)),
            *(
                f"concept drift of {drift.feature!r}; accepted: {', '.join(EFFECTIVE)}"
                for drift in self.concept_drifts
                if drift.feature not in EFFECTIVE
            ),
            *(problem for bias in self.biases for problem in _bias_problems(bias)),
            *(problem for fault in self.breaks for problem in _break_problems(fault)),
        ]
        if not 0.0 <= self.label_noise < 0.5:
            problems.append(f"label_noise is {self.label_noise:g}; accepted: from 0 up to and without 0.5")
        if not (math.isfinite(self.base_log_odds) and math.isfinite(self.signal)):
            problems.append("base_log_odds and signal; accepted: finite numbers")
        if problems:
            raise ConfigError("member plan: " + "; ".join(problems))


def _drift_problems(drift: Drift) -> list[str]:
    feature = FEATURES.get(drift.feature)
    if feature is None:
        return [f"drift of {drift.feature!r}; accepted: {', '.join(FEATURES)}"]
    if isinstance(feature, Numeric):
        if drift.towards is not None or drift.share:
            return [f"drift of the number {drift.feature} by towards or share; accepted: shift and scale"]
        if not drift.scale > 0.0 or not math.isfinite(drift.shift):
            return [f"drift of {drift.feature}: scale {drift.scale:g}, shift {drift.shift:g}; accepted: scale above 0"]
        return []
    if drift.towards is None or not 0.0 < drift.share <= 1.0 or drift.shift or drift.scale != 1.0:
        return [f"drift of the category {drift.feature}; accepted: towards and a share above 0, at most 1, no shift"]
    return []


def _bias_problems(bias: Bias) -> list[str]:
    if bias.attribute not in SENSITIVE:
        return [f"bias over {bias.attribute!r}; accepted: {', '.join(SENSITIVE)}"]
    if bias.group not in _CODES[bias.attribute]:
        return [f"bias of the {bias.attribute} {bias.group!r}; accepted: {', '.join(_CODES[bias.attribute])}"]
    return [] if math.isfinite(bias.log_odds) else [f"bias of {bias.log_odds:g}; accepted: a finite number"]


def _break_problems(fault: QualityBreak) -> list[str]:
    feature = FEATURES.get(fault.feature)
    if feature is None:
        return [f"break of {fault.feature!r}; accepted: {', '.join(FEATURES)}"]
    accepted = {BreakKind.MISSING, BreakKind.CONSTANT} | (
        {BreakKind.UNIT, BreakKind.OUTLIERS} if isinstance(feature, Numeric) else {BreakKind.NEW_CATEGORY}
    )
    if fault.kind not in accepted:
        return [f"{fault.feature} broken by {fault.kind}; accepted: {', '.join(sorted(accepted))}"]
    return [] if 0.0 < fault.share <= 1.0 else [f"break of a share {fault.share:g}; accepted: above 0, at most 1"]


@dataclass(frozen=True, slots=True)
class Planted:
    """One thing that was planted, for the judge of a monitor.

    Parameters
    ----------
    kind
        drift, concept drift, bias, or break.
    subject
        Feature, or attribute=group.
    onset, until
        From when, until when; None is always, for ever.
    amount
        drift of a number: the Wasserstein distance at full strength over the standard deviation before; drift of a
        category: the total variation distance; concept drift: the factor; bias: the log odds; break: the share.
    detail
        The kind of a break, the category a drift goes to.
    """

    kind: str
    subject: str
    onset: datetime | None
    until: datetime | None
    amount: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Truth:
    """What only the generator knows.

    Parameters
    ----------
    probability
        For each row, the probability of churning before label noise, given all that the record shows and when.
    flipped
        For each row, whether label noise turned the recorded outcome round.
    planted
        Everything that was planted.
    label_noise
        Declared share of wrong outcomes.
    """

    probability: Floats
    flipped: Booleans
    planted: tuple[Planted, ...]
    label_noise: float

    @property
    def recorded_probability(self) -> Floats:
        """For each row, the probability that the table says churned, label noise included."""
        return self.probability * (1.0 - self.label_noise) + (1.0 - self.probability) * self.label_noise

    @property
    def bayes_auc(self) -> float:
        """The AUC on the recorded outcomes that no model can be expected to beat."""
        return expected_auc(self.recorded_probability)


@dataclass(frozen=True, slots=True)
class Members:
    """The table, in the order of its keys, and the truth about its rows in the same order."""

    frame: pd.DataFrame
    truth: Truth = field(repr=False)


def expected_auc(probability: Floats) -> float:
    """Return the expected AUC of a score equal to the probability of each row's label.

    Parameters
    ----------
    probability
        Shape (n,), within 0 and 1.

    Returns
    -------
    float
        Expected right-ordered pairs over expected pairs, ties counting half: 0.5 when all are equal, NaN when
        there can be no positive or no negative row. For thousands of rows it equals the mean AUC over draws of labels.
    """
    values, inverse = np.unique(probability, return_inverse=True)
    positives = np.bincount(inverse, weights=probability, minlength=values.size)
    negatives = np.bincount(inverse, weights=1.0 - probability, minlength=values.size)
    below = np.concatenate([[0.0], np.cumsum(negatives)[:-1]])
    pairs = positives.sum() * negatives.sum()
    return float((positives * (below + negatives / 2.0)).sum() / pairs) if pairs > 0.0 else math.nan


def drift_distance(drift: Drift) -> float:
    """Return how far a drift at full strength moves its feature.

    Returns
    -------
    float
        Numbers: Wasserstein distance over the standard deviation before, 0 and up (feature and drifted feature rise
        with the same latent normal, so the distance is the mean absolute difference). Categories: total variation
        distance, 0 to 1.
    """
    feature = FEATURES[drift.feature]
    if isinstance(feature, Categorical):
        return drift.share * (1.0 - feature.weights.get(drift.towards or "", 0.0))
    latent = special.ndtri((np.arange(200_000) + 0.5) / 200_000)
    before = feature.values(latent)
    after = feature.values(drift.scale * latent + drift.shift)
    return float(np.abs(after - before).mean() / before.std())


def generate(plan: MemberPlan, rows: int, seed: int, start: datetime, end: datetime, *, first: int = 0) -> Members:
    """Make rows `first` to `first + rows` of the table that plan, seed, start and end define.

    Parameters
    ----------
    plan
        What is planted.
    rows
        How many rows, 1 or more.
    seed
        Another seed is another table.
    start, end
        Time zone aware; rows are spread evenly over [start, end), in no order.
    first
        Number of the first row, for making a large table in parts.

    Returns
    -------
    Members
        Columns: member_id (str), observed_at (datetime64[us, UTC]), 20 numbers (float64, NaN for null), 10 categories
        (object: str, None for null), outcome (``retained`` or ``churned``).

    Raises
    ------
    ConfigError
        For fewer than one row, a negative first row or seed, a time without zone, or an end not after the start.
    """
    if rows < 1 or first < 0 or seed < 0:
        raise ConfigError(f"rows {rows}, first {first}, seed {seed}; accepted: rows from 1, first and seed from 0")
    if start.tzinfo is None or end.tzinfo is None or end <= start:
        raise ConfigError(f"start {start}, end {end}; accepted: times with a zone, the end after the start")
    blocks = range(first // _BLOCK, (first + rows - 1) // _BLOCK + 1)
    parts: list[tuple[dict[str, npt.NDArray[np.generic]], Floats, Booleans]] = []
    for block in blocks:
        low = max(first - block * _BLOCK, 0)
        high = min(first + rows - block * _BLOCK, _BLOCK)
        columns, probability, flipped = _block(plan, block, seed, start, end)
        taken = {name: values[low:high] for name, values in columns.items()}
        parts.append((taken, probability[low:high], flipped[low:high]))
    columns = {name: np.concatenate([part[0][name] for part in parts]) for name in parts[0][0]}
    instants = pd.Series(columns.pop(TIMESTAMP)).dt.tz_localize("UTC")
    keys = pd.Series([f"m{number:010d}" for number in range(first, first + rows)], dtype=object)
    truth = Truth(
        probability=np.concatenate([part[1] for part in parts]),
        flipped=np.concatenate([part[2] for part in parts]),
        planted=_planted(plan),
        label_noise=plan.label_noise,
    )
    return Members(pd.DataFrame({KEY: keys, TIMESTAMP: instants, **columns}), truth)


def _block(
    plan: MemberPlan, block: int, seed: int, start: datetime, end: datetime
) -> tuple[dict[str, npt.NDArray[np.generic]], Floats, Booleans]:
    """One whole block: columns without the key, probability, flipped. Draws never depend on the plan."""
    rng = np.random.default_rng([seed, block])
    span = int((end - start) / timedelta(microseconds=1))
    instants = _naive(start) + rng.integers(0, span, _BLOCK).astype("timedelta64[us]")
    traits = rng.standard_normal((3, _BLOCK))
    latent = {}
    for name, feature in FEATURES.items():
        loadings = np.array(feature.loadings)
        own = math.sqrt(1.0 - float(loadings @ loadings))
        latent[name] = loadings @ traits + own * rng.standard_normal(_BLOCK)
    chosen = {feature.name: rng.random(_BLOCK) for feature in CATEGORICAL}
    absent = {name: rng.random(_BLOCK) for name, feature in FEATURES.items() if feature.missing}
    unasked_draw = rng.random(_BLOCK)
    broken = [np.random.default_rng([seed, block, number]).random(_BLOCK) for number in range(1, len(plan.breaks) + 1)]
    outcome_draw = rng.random(_BLOCK)
    noise_draw = rng.random(_BLOCK)

    codes = {feature.name: feature.codes(latent[feature.name]) for feature in CATEGORICAL}
    categories = {feature.name: feature.categories for feature in CATEGORICAL}
    moved: dict[str, Floats] = {feature.name: latent[feature.name] for feature in NUMERIC}
    for drift in plan.drifts:
        strength = _strength(instants, drift.onset, drift.ramp, drift.until)
        if drift.towards is None:
            now = moved[drift.feature]
            moved[drift.feature] = now * (1.0 + strength * (drift.scale - 1.0)) + strength * drift.shift
            continue
        if drift.towards not in categories[drift.feature]:
            categories[drift.feature] = [*categories[drift.feature], drift.towards]
        target = categories[drift.feature].index(drift.towards)
        codes[drift.feature][chosen[drift.feature] < strength * drift.share] = target
    numeric = {feature.name: feature.values(moved[feature.name]) for feature in NUMERIC}
    for name, draw in absent.items():
        lost = draw < FEATURES[name].missing
        if name in numeric:
            numeric[name][lost] = np.nan
        else:
            codes[name][lost] = -1
    unasked = np.array([_UNASKED.get(value, 0.0) for value in categories["device"]])
    numeric["satisfaction_score"][unasked_draw < unasked[codes["device"]]] = np.nan

    probability = special.expit(_log_odds(plan, instants, _Columns(numeric, codes)))
    churned = outcome_draw < probability
    flipped = noise_draw < plan.label_noise

    for fault, draw in zip(plan.breaks, broken, strict=True):
        hit = (_strength(instants, fault.onset, timedelta(0), fault.until) > 0.0) & (draw < fault.share)
        _break(fault, hit, numeric, codes, categories)
    columns: dict[str, npt.NDArray[np.generic]] = {TIMESTAMP: instants, **numeric}
    for name, values in categories.items():
        # None stands last, where code -1 finds it
        columns[name] = np.array([*values, None], dtype=object)[codes[name]]
    columns[OUTCOME] = np.array([RETAINED, CHURNED], dtype=object)[(churned ^ flipped).astype(np.intp)]
    return columns, probability, flipped


def _strength(
    instants: npt.NDArray[np.datetime64], onset: datetime | None, ramp: timedelta, until: datetime | None
) -> Floats:
    """Strength of something planted at each instant: 0 before its onset, 1 after its ramp, 0 when it is over."""
    if onset is None:
        strength = np.ones(instants.size)
    else:
        since = (instants - _naive(onset)) / np.timedelta64(1, "us")
        width = ramp / timedelta(microseconds=1)
        strength = np.clip(since / width, 0.0, 1.0) if width > 0.0 else (since >= 0.0).astype(np.float64)
    if until is not None:
        strength = np.where(instants < _naive(until), strength, 0.0)
    return strength


def _naive(moment: datetime) -> np.datetime64:
    """The same instant as numpy counts it: in UTC, without saying so."""
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")


def _log_odds(plan: MemberPlan, instants: npt.NDArray[np.datetime64], columns: _Columns) -> Floats:
    """Log odds of churning of each row."""
    total = np.full(instants.size, plan.base_log_odds)
    for name, term in _TERMS.items():
        weight: Floats | float = plan.signal
        for drift in plan.concept_drifts:
            if drift.feature == name:
                strength = _strength(instants, drift.onset, drift.ramp, drift.until)
                weight = weight * (1.0 + strength * (drift.factor - 1.0))
        total += weight * term(columns)
    for bias in plan.biases:
        strength = _strength(instants, bias.onset, bias.ramp, bias.until)
        total += bias.log_odds * strength * columns.equals(bias.attribute, bias.group)
    return total


def _break(
    fault: QualityBreak,
    hit: Booleans,
    numeric: dict[str, Floats],
    codes: dict[str, npt.NDArray[np.int8]],
    categories: dict[str, list[str]],
) -> None:
    """Spoil the chosen rows of one column in place."""
    feature = FEATURES[fault.feature]
    if isinstance(feature, Numeric):
        column = numeric[feature.name]
        if fault.kind is BreakKind.MISSING:
            column[hit] = np.nan
        elif fault.kind is BreakKind.CONSTANT:
            column[hit] = feature.low
        elif fault.kind is BreakKind.UNIT:
            column[hit] *= UNIT_FACTOR
        else:
            column[hit] = feature.high * OUTLIER_FACTOR
        return
    if fault.kind is BreakKind.NEW_CATEGORY:
        if NOT_A_CATEGORY not in categories[feature.name]:
            categories[feature.name] = [*categories[feature.name], NOT_A_CATEGORY]
        codes[feature.name][hit] = categories[feature.name].index(NOT_A_CATEGORY)
    else:
        codes[feature.name][hit] = -1 if fault.kind is BreakKind.MISSING else 0


def _planted(plan: MemberPlan) -> tuple[Planted, ...]:
    return (
        *(
            Planted("drift", drift.feature, drift.onset, drift.until, drift_distance(drift), drift.towards or "")
            for drift in plan.drifts
        ),
        *(
            Planted("concept drift", drift.feature, drift.onset, drift.until, drift.factor)
            for drift in plan.concept_drifts
        ),
        *(
            Planted("bias", f"{bias.attribute}={bias.group}", bias.onset, bias.until, bias.log_odds)
            for bias in plan.biases
        ),
        *(
            Planted("break", fault.feature, fault.onset, fault.until, fault.share, fault.kind.value)
            for fault in plan.breaks
        ),
    )
