"""Draft a model file from the profile of a table: what can be a feature, what cannot, and why (R3.5).

The draft trains without edits; what only people know (worth of a decision, owner, label delay) is a neutral value
marked ``to be decided``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from lifecycle.errors import ConfigError, DataError
from lifecycle.leaks import categorical_auc, numeric_auc

Kind = Literal["number", "integer", "text", "boolean", "time", "other"]

LEAK_AUC = 0.95
_COLUMN = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")
_MODEL = re.compile(r"^[a-z][a-z0-9_]{0,62}$")
_ISO_TIME = re.compile(r"^\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?Z?)?$")
_KEY_WORDS = {"id", "key", "uuid", "guid", "no", "nr", "number", "code"}
_FEW = 10  # distinct whole numbers up to here are read as categories
_MANY_TEXTS = 1_000  # distinct texts above here, and above a fifth of the rows, are free text
_WINDOWS = {"6mo": 184, "1y": 366, "2y": 731, "5y": 1_827, "10y": 3_653, "50y": 18_263}


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """What a column of a table looks like.

    Parameters
    ----------
    name
        As the database spells it.
    kind
        Broad type.
    rows, missing, distinct
        Rows of the table; nulls and NaN among them; distinct values (of the sample in a large table, exact for
        what may be a key).
    low, high
        Smallest and largest finite number; None for other kinds.
    infinite
        Rows that hold an infinity.
    longest
        Characters of the longest text; 0 for other kinds.
    type
        The database's own name of the type.
    """

    name: str
    kind: Kind
    rows: int
    missing: int
    distinct: int
    low: float | None = None
    high: float | None = None
    infinite: int = 0
    longest: int = 0
    type: str = ""

    @property
    def present(self) -> int:
        """Rows with a value."""
        return self.rows - self.missing

    @property
    def missing_share(self) -> float:
        """Share of rows without a value, 0 for an empty table."""
        return self.missing / self.rows if self.rows else 0.0

    @property
    def is_unique(self) -> bool:
        """Whether every row has a value of its own."""
        return self.rows > 0 and self.missing == 0 and self.distinct == self.rows


@dataclass(frozen=True, slots=True)
class TableProfile:
    """A table as seen from outside.

    Parameters
    ----------
    table
        Its name.
    rows
        How many it has.
    columns
        In the table's order.
    sample
        A uniform sample of rows: numbers float64, times datetime64[us, UTC], everything else text, None for missing;
        columns of kind ``other`` are left out.
    """

    table: str
    rows: int
    columns: tuple[ColumnProfile, ...]
    sample: pd.DataFrame

    def column(self, name: str) -> ColumnProfile | None:
        """The column of a name; None when there is none."""
        return next((column for column in self.columns if column.name == name), None)


@dataclass(slots=True)
class _Draft:
    """What the file will say, as it is decided."""

    features: list[str] = field(default_factory=list)
    derived: dict[str, str] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    after_event: list[str] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    def named(self, column: ColumnProfile, expression: str | None = None) -> str:
        """A name the model file accepts; a derived column where the table's own will not do."""
        if _COLUMN.match(column.name) and expression is None:
            return column.name
        if expression is not None and _COLUMN.match(column.name):
            stem = f"{column.name}_read"[:55]
        else:
            stem = self._stem(column.name)
        name, number = stem, 2
        while name.casefold() in self.taken:  # databases do not tell names apart by case
            name, number = f"{stem}_{number}", number + 1
        self.taken.add(name.casefold())
        self.derived[name] = expression or _sql(column.name)
        return name

    @staticmethod
    def _stem(name: str) -> str:
        stem = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower() or "column"
        return f"c_{stem}"[:55] if stem[0].isdigit() else stem[:55]


def draft(
    name: str, profile: TableProfile, label: str, timestamp: str | None = None, entity: str | None = None, seed: int = 0
) -> str:
    """Write a model file for a table.

    Parameters
    ----------
    name
        Of the model.
    profile
        Of the table.
    label
        Column with the outcome.
    timestamp, entity
        Columns with the time the prediction was due and with the key; guessed when only one column can be meant.
    seed
        Of the leak check.

    Returns
    -------
    str
        YAML that the model file's schema accepts, with comments on what was left out.

    Raises
    ------
    ConfigError
        A name the schema does not accept.
    DataError
        No such column, no usable time, key or label; the message says what to pass or to make.
    """
    if not _MODEL.match(name):
        raise ConfigError(f"model name {name!r}; accepted: a small letter, then small letters, digits and _")
    if not _COLUMN.match(profile.table):
        raise ConfigError(
            f"table name {profile.table!r}; accepted: letters, digits and _: make a view with such a name"
        )
    if profile.rows == 0:
        raise DataError(f"table {profile.table} is empty; accepted: a table with rows to learn from")
    out = _Draft(taken={column.name.casefold() for column in profile.columns})
    target = _existing(profile, label, "--label")
    positive, meaning, rarer = _positive(target, profile)
    moment = _timestamp(profile, timestamp, target)
    key = _entity(profile, entity, target, moment)
    moment_name = out.named(moment, f"CAST({_sql(moment.name)} AS TIMESTAMP)" if moment.kind == "text" else None)
    key_name, label_name = out.named(key), out.named(target)
    for column in profile.columns:
        if column.name not in (target.name, moment.name, key.name):
            _decide(out, column, profile, target, positive, seed)
    if not out.features:
        told = "; ".join(f"{column}: {why}" for column, why in out.left_out)
        raise DataError(f"table {profile.table} has no column that can be a feature ({told or 'no other columns'})")
    times = _times(profile, moment)
    window, rows = _window(times, profile.rows)
    strategy, why = _strategy(times, _labels(profile, target, positive), rows)
    holdout = int(0.2 * rows)
    few = rows < 5_000

    lines = [
        f"# Drafted from the table {profile.table} ({profile.rows:,} rows): read it before you rely on it.",
        "# `to be decided` marks what only people know; the values there are neutral.",
        f"name: {_plain(name)}",
        f"description: {_text(f'Probability that {meaning}.')}",
        "owner: # to be decided",
        "  team: to be decided",
        "  contact: to be decided",
        "tier: secondary # to be decided: main models are retrained weekly",
        "sensitivity: sensitive # to be decided; sensitive asks a person before a deployment",
        "",
        "source:",
        f"  table: {_plain(profile.table)}",
        f"  timestamp: {_plain(moment_name)}",
        f"  entity_key: {_plain(key_name)}",
    ]
    if out.derived:
        lines.append(
            "  derived: # other names where the schema does not accept the table's; times held as text; infinities"
        )
        lines += [f"    {_plain(new)}: {_quoted(expression)}" for new, expression in out.derived.items()]
    if window != "6mo":
        lines.append(f"  window: {window} # six months hold too few rows")
    lines += [
        "",
        "label:",
        f"  column: {_plain(label_name)}",
        f"  positive: {positive if isinstance(positive, int) and not isinstance(positive, bool) else _yaml(positive)}"
        f" # {rarer}",
        "  delay: 0m # to be decided: how long after the timestamp the outcome is known",
        f"  meaning: {_text(meaning)}",
    ]
    if out.after_event:
        lines.append(f"after_event: [{', '.join(map(_plain, out.after_event))}] # suspected leaks, see below")
    lines += ["", "features:", *(f"  - {feature}" for feature in out.features)]
    if out.left_out:
        lines += ["", "# Left out:"]
        lines += [f"#   {_comment(column)}: {why}" for column, why in out.left_out]
    lines += ["", "quality:", f"  min_rows: {max(20, min(1_000, rows // 2))}", f"  freshness: {_freshness(times)}"]
    lines += ["", "training:", f"  split: {{strategy: {strategy}, holdout: 0.2, folds: {3 if few else 5}}}{why}"]
    if few:
        lines += ["  trials: 10", "  batch_size: 64", f"  min_category_count: {5 if rows < 1_000 else 20}"]
    lines += ["", "evaluation:"]
    if holdout < 1_000:
        lines += [
            f"  min_rows: {max(10, holdout // 2)} # the table is small: little is proved by so few rows",
            f"  min_group_rows: {max(10, min(200, holdout // 5))}",
            f"  min_group_class_rows: {max(5, min(50, holdout // 20))}",
        ]
    lines += [
        "  gates: # a floor; raise them once the first version shows what can be reached",
        "    - {metric: roc_auc, min: 0.55}",
        "    - {metric: roc_auc, against: prior, min_difference: 0.01}",
        "    - {metric: roc_auc, against: logistic_regression, min_difference: -0.05}",
        "    - {metric: roc_auc, against: champion, min_difference: -0.05}",
        "",
        "business: # to be decided: what a decision is worth",
        "  currency: USD",
        "  decision: to be decided",
        "  true_positive: 1.0",
        "  false_positive: -1.0",
    ]
    return "\n".join(lines) + "\n"


def _existing(profile: TableProfile, name: str, option: str) -> ColumnProfile:
    column = profile.column(name)
    if column is None:
        names = ", ".join(column.name for column in profile.columns)
        raise DataError(f"{option} {name}: no such column in {profile.table}; accepted: {names}")
    if column.kind == "other":
        raise DataError(f"{option} {name} is {column.type}; accepted: numbers, text, booleans and times")
    return column


def _positive(column: ColumnProfile, profile: TableProfile) -> tuple[int | str | bool, str, str]:
    """The positive class, what it means in words, and why it was chosen."""
    place = f"--label {column.name}"
    if column.kind == "time":
        raise DataError(f"{place} is a time; accepted: an outcome with two values, derived from it in a view")
    if column.distinct < 2:
        raise DataError(f"{place} has {column.distinct} distinct values; accepted: at least two")
    counts = profile.sample[column.name].dropna().value_counts()
    whole = column.kind == "integer" or all(float(v).is_integer() for v in counts.index if column.kind == "number")
    if column.distinct > _FEW or (column.kind == "number" and column.distinct > 2 and not whole):
        raise DataError(
            f"{place} has {column.distinct} distinct values ({column.type}): not a class; accepted: an outcome "
            f"with few values, for example a view with `CASE WHEN {_sql(column.name)} > 0 THEN 1 ELSE 0 END`"
        )
    rare = min(counts.index, key=lambda value: (counts[value], str(value)))
    rest = "" if column.distinct == 2 else f"; its {column.distinct} values become this one against the rest"
    if column.kind in ("integer", "number") and whole:
        if column.distinct == 2 and {float(v) for v in counts.index} <= {0.0, 1.0}:
            return 1, f"{column.name} is 1", "1 of 0 and 1"
        return int(rare), f"{column.name} is {int(rare)}", f"the rarest value{rest}"
    if column.kind == "number":
        raise DataError(
            f"{place} holds fractions; accepted: whole numbers, text or booleans, derived from it in a view"
        )
    if column.kind == "boolean":
        return rare == "true", f"{column.name} is {rare}", "the rarer value"
    return str(rare), f"{column.name} is {_comment(str(rare))}", f"the rarest value{rest}"


def _timestamp(profile: TableProfile, name: str | None, label: ColumnProfile) -> ColumnProfile:
    """The column that tells when a prediction was due."""
    if name is not None:
        column = _existing(profile, name, "--timestamp")
        if column.kind == "time" or _is_text_time(column, profile):
            return column
        raise DataError(
            f"--timestamp {name} is {column.type}; accepted: a timestamp, a date, or text as 2024-01-31T12:00:00; "
            "make one in a view, for example make_date(year, month, day)"
        )
    others = [column for column in profile.columns if column.name != label.name]
    times = [column for column in others if column.kind == "time"]
    times = times or [column for column in others if _is_text_time(column, profile)]
    whole = [column for column in times if column.missing == 0]
    if len(whole) == 1 or len(times) == 1:
        return (whole or times)[0]
    if times:
        raise DataError(
            f"table {profile.table} has {len(times)} times; pass --timestamp with the one that says when the "
            f"prediction was due: {', '.join(column.name for column in whole or times)}"
        )
    raise DataError(
        f"table {profile.table} has no time column, and without one nothing shows that a model was trained on the past "
        "only; accepted: a column with the time each row was due (if rows have none, a view that gives each the day it "
        "was recorded, and `strategy: stratified` in the drafted file)"
    )


def _entity(profile: TableProfile, name: str | None, label: ColumnProfile, moment: ColumnProfile) -> ColumnProfile:
    """The column that tells rows apart."""
    if name is not None:
        column = _existing(profile, name, "--entity")
        if not column.is_unique:
            raise DataError(
                f"--entity {name} has {column.distinct:,} distinct values and {column.missing:,} nulls in "
                f"{column.rows:,} rows; accepted: a column with one value for each row, or a view that makes one, for "
                f"example {_sql(name)} || '-' || {_sql(moment.name)}"
            )
        return column
    used = (label.name, moment.name)
    unique = [
        column
        for column in profile.columns
        if column.is_unique and column.kind in ("integer", "text") and column.name not in used
    ]
    named = [column for column in unique if _sounds_like_a_key(column.name)]
    if len(named) == 1 or len(unique) == 1:
        return (named or unique)[0]
    if unique:
        names = ", ".join(column.name for column in named or unique)
        raise DataError(f"table {profile.table} has {len(unique)} unique columns; pass --entity with its key: {names}")
    raise DataError(
        f"table {profile.table} has no column with a value of its own for each row; accepted: --entity with such a "
        "column, from a view that joins what makes a row unique, for example customer || '-' || month"
    )


def _decide(
    out: _Draft, column: ColumnProfile, profile: TableProfile, label: ColumnProfile, positive: object, seed: int
) -> None:
    """Make a column a feature, or say why not."""
    reason = _unusable(column, profile)
    if reason is not None:
        out.left_out.append((column.name, reason))
        return
    categorical = column.kind in ("text", "boolean") or (column.kind == "integer" and column.distinct <= _FEW)
    values = profile.sample[column.name]
    target = _labels(profile, label, positive)
    known = target.notna().to_numpy()
    answers = target[known].to_numpy() == 1
    auc = (
        categorical_auc(_as_text(values[known]), answers, seed)
        if categorical
        else numeric_auc(values[known].to_numpy(dtype=np.float64), answers)
    )
    if auc is not None and auc > LEAK_AUC and min(answers.sum(), (~answers).sum()) >= 20:
        why = f"suspected leak: alone it ranks the label with an AUC of {auc:.3f}; a feature only if known beforehand"
        out.left_out.append((column.name, why))
        if _COLUMN.match(column.name):
            out.after_event.append(column.name)
        return
    # An infinity is a division by nothing rather than a quantity: read as missing.
    finite = f"CASE WHEN abs({_sql(column.name)}) < 1e300 THEN {_sql(column.name)} END" if column.infinite else None
    name = _plain(out.named(column, finite))
    without = column.missing_share + column.infinite / column.rows
    share = min(1.0, math.ceil(100 * (1.5 * without + 0.02)) / 100)
    missing = "" if share <= 0.05 else f", max_missing: {share:g}"
    if categorical:
        # The list is left open but for booleans: a category not seen yet is no error by itself.
        closed = ', values: ["false", "true"]' if column.kind == "boolean" else ""
        out.features.append(f"{{name: {name}, type: categorical{closed}{missing}}}")
    else:
        out.features.append(f"{{name: {name}, type: numeric{_range(column)}{missing}}}")


def _unusable(column: ColumnProfile, profile: TableProfile) -> str | None:
    """Why a column cannot be a feature as it is; None when it can."""
    if column.kind == "other":
        return f"its type, {column.type}, is neither number, text nor boolean"
    if column.present == 0:
        return "it has no value"
    if column.distinct <= 1:
        return "constant"
    if column.missing_share > 0.98:
        return f"{column.missing_share:.1%} missing"
    if column.kind == "time" or _is_text_time(column, profile):
        return "a further time: derive from it what was known when the prediction was due (an age, a weekday)"
    near_unique = column.present >= 50 and column.distinct >= 0.95 * column.present
    if column.kind == "text":
        if near_unique:
            return "identifier or free text: nearly every row has its own value"
        if column.longest > 200:
            return f"free text of up to {column.longest} characters"
        if column.distinct > _MANY_TEXTS and column.distinct > 0.2 * column.present:
            return f"free text or a key: {column.distinct:,} distinct values"
    if column.kind == "integer" and near_unique:
        dense = column.low is not None and column.high is not None and column.high - column.low < 1.5 * column.rows
        if dense or _sounds_like_a_key(column.name):
            return "identifier: nearly every row has its own whole number"
    return None


def _range(column: ColumnProfile) -> str:
    """Bounds half a span beyond what was seen; a number never seen below zero stays above it."""
    if column.low is None or column.high is None:
        return ""
    slack = 0.5 * (column.high - column.low) or 1.0
    low = 0.0 if column.low >= 0 and column.low - slack < 0 else _rounded(column.low - slack, math.floor)
    return f", min: {_number(low)}, max: {_number(_rounded(column.high + slack, math.ceil))}"


def _rounded(value: float, towards: object) -> float:
    """Two significant digits, away from the data."""
    if value == 0 or not math.isfinite(value):
        return 0.0
    step = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    assert callable(towards)
    return float(towards(value / step) * step)


def _number(value: float) -> str:
    """A YAML number: YAML reads 1e+20 as text, so large ones are written with a point."""
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    mantissa, _, exponent = f"{value:.6g}".partition("e")
    return mantissa if not exponent else f"{mantissa if '.' in mantissa else mantissa + '.0'}e{exponent}"


def _labels(profile: TableProfile, label: ColumnProfile, positive: object) -> pd.Series[float]:
    """Of the sample: 1 for the positive class, 0 for others, NaN where it is missing."""
    values = profile.sample[label.name]
    wanted = ("true" if positive else "false") if isinstance(positive, bool) else positive
    return (values == wanted).astype("float64").where(values.notna())


def _as_text(values: pd.Series[str]) -> pd.Series[str]:
    return values.astype("object")


def _times(profile: TableProfile, moment: ColumnProfile) -> pd.Series[pd.Timestamp]:
    """Timestamps of the sample, missing ones included."""
    return pd.to_datetime(profile.sample[moment.name], utc=True, format="ISO8601", errors="coerce")


def _window(times: pd.Series[pd.Timestamp], rows: int) -> tuple[str, int]:
    """The shortest window with enough rows before the newest, and about how many it has."""
    ages = (times.max() - times).dt.total_seconds() / 86_400
    enough = min(5_000, rows)
    share = 0.0
    for window, days in _WINDOWS.items():
        share = float((ages <= days).mean())
        if share * rows >= 0.9 * enough:
            return window, int(share * rows)
    return "50y", int(share * rows)


def _strategy(times: pd.Series[pd.Timestamp], labels: pd.Series[float], rows: int) -> tuple[str, str]:
    """Split by time unless the newest fifth would be one day's or one class's rows."""
    known = pd.DataFrame({"at": times, "label": labels}).dropna().sort_values("at", kind="stable")
    newest = known.tail(max(1, len(known) // 5))
    if len(known) and (known["at"] == known["at"].max()).mean() > 0.2:
        return "stratified", " # not by time: a fifth of the rows share the newest timestamp"
    if newest["label"].nunique() < 2 or min(newest["label"].value_counts()) < min(10, rows // 20):
        return "stratified", " # not by time: the newest fifth of the rows has too few of one class"
    return "time", ""


def _freshness(times: pd.Series[pd.Timestamp]) -> str:
    """Twice the largest usual gap between rows, a week at least."""
    gaps = times.dropna().drop_duplicates().sort_values().diff().dropna().dt.total_seconds() / 86_400
    usual = float(gaps.tail(50).max()) if len(gaps) else 0.0
    return f"{max(7, math.ceil(2 * usual))}d"


def _is_text_time(column: ColumnProfile, profile: TableProfile) -> bool:
    """Whether a text column holds ISO 8601 times."""
    if column.kind != "text" or column.name not in profile.sample:
        return False
    values: Sequence[str] = profile.sample[column.name].dropna().head(1_000).tolist()
    return bool(values) and all(_ISO_TIME.match(value) for value in values)


def _sounds_like_a_key(name: str) -> bool:
    words = re.split(r"[^a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower())
    return bool(_KEY_WORDS & set(words))


def _sql(name: str) -> str:
    """An identifier, quoted where SQL would read something else."""
    return '"' + name.replace('"', '""') + '"'


def _yaml(value: object) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else _text(str(value))


def _plain(name: str) -> str:
    """A name, quoted where YAML would read a boolean or nothing."""
    return _text(name) if name.lower() in ("y", "n", "yes", "no", "on", "off", "true", "false", "null") else name


def _quoted(expression: str) -> str:
    """An SQL expression as the YAML scalar that is easiest to read."""
    if expression.isprintable() and "'" not in expression:
        return f"'{expression}'"
    return _text(expression)


def _text(value: str) -> str:
    """A double-quoted YAML scalar."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'


def _comment(value: str) -> str:
    """A name inside a comment, on one line."""
    return "".join(c if c.isprintable() else "?" for c in value)[:80]
