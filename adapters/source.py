"""Fetch training data from a SQL source, DuckDB or PostgreSQL through the same model file (R3.4).

The window, the label delay, the point-in-time joins and the sample are computed inside the database; only the rows and
columns a training needs leave it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pandas as pd

from adapters.source_database import SourceDatabase, first_line, md5_of, open_source, utc_of
from adapters.source_expressions import RowExpression, missing_column, row_expression
from lifecycle.errors import ConfigError, DataError, ProDecksError
from lifecycle.snapshot import FetchCounts, Snapshot, content_name
from lifecycle.spec import Duration, Join, ModelSpec

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

MAX_TEXT_BYTES = 65_536
"""A longer text is no category and no key: refused before it fills the memory."""

# Arguments of Great Expectations expectations that name columns.
_COLUMN_ARGUMENTS = ("column", "column_A", "column_B", "column_list")


def fetch(
    spec: ModelSpec, url: str, as_of: datetime, seed: int, *, between: tuple[datetime, datetime] | None = None
) -> Snapshot:
    """Fetch the rows a training or an evaluation may use, as they were known at a moment.

    A row counts when its timestamp lies in ``[as_of - window, as_of)``, or in `between`; its label is known when the timestamp is not
    after ``as_of - label.delay`` (calendar arithmetic, on the safe side where months differ in length) and the label is
    not null. Above ``source.max_rows`` the rows with the smallest ``md5(key:seed)`` are taken: a uniform sample that
    depends on nothing but keys and seed. Rows of one key stay together.

    Parameters
    ----------
    spec
        The model file.
    url
        ``duckdb:///path`` or ``postgresql://...``.
    as_of
        Timezone-aware; nothing from then on is seen.
    seed
        Of the sample.
    between
        First moment and end of another window, timezone-aware.

    Returns
    -------
    Snapshot
        Equal data gives an equal snapshot, whichever database it came from.

    Raises
    ------
    ConfigError
        The URL, an expression or a clash of names in the model file.
    DataError
        Missing table or column, empty window, no known label, one class only, ambiguous look-up.
    UnavailableError
        The source does not answer.
    """
    if as_of.tzinfo is None:
        raise ConfigError(f"as-of {as_of.isoformat()} has no time zone; accepted: a UTC time, as in 2013-07-01T00:00Z")
    as_of = as_of.astimezone(UTC)
    start, end = between or (spec.source.window.before(as_of), as_of)
    if start >= end:
        raise ConfigError(
            f"a window from {start.isoformat()} to {end.isoformat()}; accepted: a beginning before its end"
        )
    columns = _columns(spec)
    with open_source(url) as source:
        plan = _Plan(source, spec, columns)
        try:
            counts, rows = _kept(plan, (start, min(end, as_of)), as_of, seed)
            table = source.arrow(_output(plan, rows))
        except ProDecksError:
            raise
        except Exception:
            plan.blame()  # tells which expression it was, if it was one
            raise
    frame = _frame(table, plan)
    _two_classes(frame, spec)
    return Snapshot(content_name(frame), frame, as_of, start, replace(counts, rows=len(frame)))


def newest_row(spec: ModelSpec, url: str) -> datetime:
    """Timestamp of the newest row of the model's table (after ``where``): the as-of of a historic database.

    Raises
    ------
    DataError
        The table has no row, or as `fetch`.
    """
    import ibis

    with open_source(url) as source:
        plan = _Plan(source, spec, [_Column(spec.source.timestamp, "timestamp")])
        rows = plan.early.filter(plan.early[spec.source.timestamp] < ibis.timestamp("9999-01-01"))
        newest = source.row(rows.aggregate(newest=rows[spec.source.timestamp].max()))["newest"]
    if newest is None:
        raise DataError(f"{spec.source.table} in {source.name} has no row with a {spec.source.timestamp}")
    return pd.Timestamp(newest).to_pydatetime().replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the snapshot and what it is there: key, timestamp, numeric, text, raw or label."""

    name: str
    role: str


def _columns(spec: ModelSpec) -> list[_Column]:
    """Every column the snapshot has, once, in order; the label last."""
    roles = {spec.source.entity_key: "key", spec.source.timestamp: "timestamp"}
    roles |= {feature.name: "numeric" if feature.type == "numeric" else "text" for feature in spec.features}
    for attribute in spec.sensitive:
        if roles.get(attribute.column) == "numeric":
            raise ConfigError(
                f"sensitive: {attribute.name} is the number {attribute.column}; accepted: a column of groups, "
                "for example bands derived from it"
            )
        roles.setdefault(attribute.column, "text")
    if spec.training.split.group is not None:
        roles.setdefault(spec.training.split.group, "text")
    for expectation in spec.quality.expectations:
        for argument in _COLUMN_ARGUMENTS:
            named = expectation.arguments.get(argument, [])
            for name in [named] if isinstance(named, str) else named:
                roles.setdefault(str(name), "raw")
    roles.pop(spec.label.column, None)
    return [*(_Column(name, role) for name, role in roles.items()), _Column(spec.label.column, "label")]


class _Plan:
    """The rows of a model as expressions: `early`, before the joins, and `joined`, with them."""

    def __init__(self, source: SourceDatabase, spec: ModelSpec, columns: list[_Column]) -> None:
        self.source, self.spec, self.columns = source, spec, columns
        origin = spec.source
        self.base = list(source.schema(origin.table).names)
        joined = [name for join in origin.joins for name in join.columns]
        _distinct([*self.base, *origin.derived, *joined], origin.table)
        derived = {name: row_expression(f"source.derived.{name}", text) for name, text in origin.derived.items()}
        where = None if origin.where is None else row_expression("source.where", origin.where)

        # What needs no joined column is computed before the joins, so that fewer rows are joined.
        self.before: dict[str, RowExpression] = {}
        self.after: dict[str, RowExpression] = {}
        for name, expression in derived.items():
            if expression.usable_with([*self.base, *self.before]):
                self.before[name] = expression
            else:
                expression.sql([*self.base, *self.before, *joined, *self.after], source.dialect)  # says what is missing
                self.after[name] = expression
        known = [*self.base, *self.before]
        everything = [*known, *joined, *self.after]
        early_where = where if where is not None and where.usable_with(known) else None
        self.where_after = None if early_where is not None else where
        if self.where_after is not None:
            self.where_after.sql(everything, source.dialect)
        for column in columns:
            if column.name not in everything:
                raise missing_column(_place(spec, column.name), column.name, everything)
        keys = [key for join in origin.joins for key in join.keys]
        for name in dict.fromkeys([origin.timestamp, origin.entity_key, *keys]):
            if name not in known:
                if name in everything:
                    raise ConfigError(f"source: {name} comes from a join; accepted: a column of {origin.table}")
                raise missing_column(_place(spec, name), name, everything)
        late = [name for part in [*self.after.values(), self.where_after] if part for name in part.columns]
        self.needed = [c.name for c in columns if c.name in known]
        self.needed += [name for name in dict.fromkeys([*keys, *late]) if name in known and name not in self.needed]
        if late:  # columns may be spelt in another case there: keep all
            self.needed = known
        quoted = _quoted(origin.table, source.dialect)
        self.where_before = early_where
        self.sql = _select(quoted, self.base, self.before, early_where, source.dialect)
        try:
            rows = source.query(self.sql)
        except Exception:
            self.blame()
            raise
        self.early = rows.select(self.needed).mutate(**{origin.timestamp: utc_of(rows, origin.timestamp, origin.table)})

    @property
    def late_decision(self) -> bool:
        """Whether the joins are needed to know which rows count."""
        return self.where_after is not None or self.spec.label.column not in self.needed

    def joined(self, rows: ir.Table) -> ir.Table:
        """Rows with the columns of the joins, and what is derived from them."""
        for join in self.spec.source.joins:
            rows = _as_known(self, rows, join) if join.timestamp else _looked_up(self, rows, join)
        if not self.after and self.where_after is None:
            return rows
        inner = f"({self.source.backend.compile(rows)}) AS joined_rows"
        return self.source.query(_select(inner, list(rows.columns), self.after, self.where_after, self.source.dialect))

    def blame(self) -> None:
        """After a failure of the source: raise naming the first expression that fails by itself."""
        done: dict[str, RowExpression] = {}
        quoted = _quoted(self.spec.source.table, self.source.dialect)
        steps: list[tuple[str, dict[str, RowExpression], RowExpression | None]] = []
        for name, expression in self.before.items():
            done = {**done, name: expression}
            steps.append((name, done, None))
        if self.where_before is not None:
            steps.append((self.base[0], done, self.where_before))
        for name, derived, where in steps:
            expression = where or derived[name]
            self.source.recover()
            try:
                rows = self.source.query(_select(quoted, self.base, derived, where, self.source.dialect))
                self.source.row(rows.aggregate(known=rows[name].count()))
            except Exception as error:  # noqa: BLE001 (whatever the database raises is put into words)
                raise DataError(
                    f"{expression.place}: {self.source.name} cannot compute {expression.text!r}: {first_line(error)}"
                ) from None


def _distinct(names: list[str], table: str) -> None:
    # Databases do not tell names apart by case.
    folded = [name.casefold() for name in names]
    doubled = sorted({name for name in names if folded.count(name.casefold()) > 1})
    if doubled:
        raise ConfigError(
            f"source: {doubled[0]!r} is already a column of {table}, derived or joined; "
            f"accepted: a new name for each derived or joined column"
        )


def _place(spec: ModelSpec, name: str) -> str:
    """Where in the model file a column of the source is named."""
    places = {
        spec.source.timestamp: "source.timestamp",
        spec.source.entity_key: "source.entity_key",
        spec.label.column: "label.column",
        **dict.fromkeys((key for join in spec.source.joins for key in join.keys), "source.joins.keys"),
        **{attribute.column: f"sensitive.{attribute.name}" for attribute in spec.sensitive},
        **dict.fromkeys(spec.feature_names, "features"),
    }
    return f"{places.get(name, 'quality.expectations')} ({spec.source.table})"


def _quoted(name: str, dialect: str) -> str:
    from sqlglot import exp

    return exp.to_identifier(name, quoted=True).sql(dialect=dialect)


def _select(
    origin: str, columns: list[str], derived: dict[str, RowExpression], where: RowExpression | None, dialect: str
) -> str:
    """Nested SELECTs, one for each derived column, so that each may use those before it."""
    known = list(columns)
    listed = ", ".join(_quoted(name, dialect) for name in known)
    sql = f"SELECT {listed} FROM {origin}"  # noqa: S608 (identifiers are quoted, expressions were parsed)
    for name, expression in derived.items():
        computed = f"{expression.sql(known, dialect)} AS {_quoted(name, dialect)}"
        sql = f"SELECT *, {computed} FROM ({sql}) AS with_{len(known)}"  # noqa: S608
        known.append(name)
    if where is not None:
        sql = f"SELECT * FROM ({sql}) AS filtered WHERE {where.sql(known, dialect)}"  # noqa: S608
    return sql


def _interval(duration: Duration) -> Any:
    import ibis

    units = ("years", "months", "days", "hours", "minutes")
    spans = {unit: getattr(duration.offset, unit) for unit in units if getattr(duration.offset, unit)}
    return ibis.interval(**spans) if spans else None


def _family(kind: Any) -> str:
    if kind.is_boolean():
        return "boolean"
    if kind.is_numeric():
        return "number"
    return "time" if kind.is_temporal() else "text"


def _right_side(plan: _Plan, rows: ir.Table, join: Join) -> ir.Table:
    """The other table with names that cannot clash: k0.. for keys, c0.. for what is taken, seen when it has a time."""
    asked = [*join.keys, *join.columns.values(), *([join.timestamp] if join.timestamp else [])]
    table = plan.source.table(join.table, asked, f"source.joins.{join.table}")
    for key in join.keys:
        left, right = rows[key].type(), table[key].type()
        if _family(left) != _family(right):
            raise DataError(
                f"source.joins.{join.table}: key {key} is {left} in {plan.spec.source.table} and {right} in "
                f"{join.table}; accepted: keys of one type, for example through a derived CAST"
            )
    named = {f"k{i}": table[key] for i, key in enumerate(join.keys)}
    named |= {f"c{i}": table[column] for i, column in enumerate(join.columns.values())}
    if join.timestamp:
        named["seen"] = utc_of(table, join.timestamp, join.table)
    right = table.select(**named)
    return right.filter([right[f"k{i}"].notnull() for i in range(len(join.keys))])


def _looked_up(plan: _Plan, rows: ir.Table, join: Join) -> ir.Table:
    """A plain look-up: refused when a key stands twice on the other side, which would multiply rows."""
    right = _right_side(plan, rows, join)
    keys = [f"k{i}" for i in range(len(join.keys))]
    per_key = right.group_by(keys).aggregate(times=right.count())
    doubled = per_key.filter(per_key.times > 1)
    worst = plan.source.arrow(doubled.order_by([doubled.times.desc(), *keys]).limit(1)).to_pylist()
    if worst:
        number = plan.source.row(doubled.aggregate(keys=doubled.count()))["keys"]
        shown = ", ".join(f"{key}={worst[0][f'k{i}']}" for i, key in enumerate(join.keys))
        raise DataError(
            f"source.joins.{join.table}: {number} keys stand more than once, {shown} {worst[0]['times']} times; "
            "accepted: a look-up table with one row for each key (or its timestamp, for a point-in-time join)"
        )
    condition = [rows[key] == right[f"k{i}"] for i, key in enumerate(join.keys)]
    taken = {name: right[f"c{i}"] for i, name in enumerate(join.columns)}
    return rows.left_join(right, condition).select(*[rows[name] for name in rows.columns], **taken)


def _as_known(plan: _Plan, rows: ir.Table, join: Join) -> ir.Table:
    """A point-in-time join: for each row the latest record that was known at its timestamp.

    PostgreSQL has no ASOF join, so it is counted: records (when they became known) and the distinct keys and times of
    the rows stand in one sequence; a running count of records groups each record with the times it is the latest at,
    and the record leads its group.
    """
    import ibis

    moment = plan.spec.source.timestamp
    keys = [f"k{i}" for i in range(len(join.keys))]
    columns = [f"c{i}" for i in range(len(join.columns))]
    records = _right_side(plan, rows, join)
    records = records.filter(records.seen.notnull())
    delay = _interval(join.known_after)
    records = records.mutate(known=records.seen if delay is None else (records.seen + delay).cast("timestamp(6)"))

    # Of records with the same key and time one is taken, the same one in every database.
    def ordered(name: str) -> Any:
        return md5_of(records[name]) if records[name].type().is_string() else records[name]

    copies = ibis.window(group_by=[*keys, "seen"], order_by=[ordered(name) for name in columns])
    records = records.mutate(copy=ibis.row_number().over(copies))
    records = records.filter(records.copy == 0).drop("copy")
    points = rows.select(**{f"k{i}": rows[key] for i, key in enumerate(join.keys)}, at=rows[moment]).distinct()
    points = points.filter([points[key].notnull() for key in keys])
    sequence = ibis.union(
        points.mutate(
            record=ibis.literal(0, "int64"),
            seen=ibis.null("timestamp(6)"),
            **{column: ibis.null(records[column].type()) for column in columns},
        ),
        records.select(
            **{key: records[key].cast(points[key].type()) for key in keys},  # int32 here may be int64 there
            at=records.known,
            record=ibis.literal(1, "int64"),
            seen=records.seen,
            **{column: records[column] for column in columns},
        ),
    )
    until = ibis.window(
        group_by=keys, order_by=[sequence["at"], sequence.record.desc(), sequence.seen], preceding=None, following=0
    )
    sequence = sequence.mutate(place=sequence.record.sum().over(until))
    group = ibis.window(group_by=[*keys, "place"], order_by=sequence.record.desc())
    led = {name: sequence[name].first(include_null=True).over(group) for name in ("seen", *columns)}
    sequence = sequence.select(
        **{f"m{key}": sequence[key] for key in keys}, mat=sequence["at"], record=sequence.record, **led
    )
    matched = sequence.filter((sequence.record == 0) & sequence.seen.notnull())
    if join.max_age is not None:
        matched = matched.filter((matched.seen + _interval(join.max_age)).cast("timestamp(6)") >= matched.mat)
    condition = [rows[key] == matched[f"mk{i}"] for i, key in enumerate(join.keys)] + [rows[moment] == matched.mat]
    taken = {name: matched[f"c{i}"] for i, name in enumerate(join.columns)}
    return rows.left_join(matched, condition).select(*[rows[name] for name in rows.columns], **taken)


def _kept(plan: _Plan, window: tuple[datetime, datetime], as_of: datetime, seed: int) -> tuple[FetchCounts, ir.Table]:
    """Count what the window holds, and the rows to take, joins included."""
    import ibis

    spec, source = plan.spec, plan.source
    moment, label = spec.source.timestamp, spec.label.column

    def literal(time: datetime) -> ir.Value:
        return ibis.timestamp(time.astimezone(UTC).replace(tzinfo=None).isoformat())

    rows = plan.early
    rows = rows.filter((rows[moment] >= literal(window[0])) & (rows[moment] < literal(window[1])))
    if plan.late_decision:
        rows = plan.joined(rows)
    old_enough = rows[moment] <= literal(spec.label.delay.before(as_of))
    known = rows[label].notnull()
    if rows[label].type().is_floating():
        known &= ~rows[label].isnan()
    positive = _is_positive(plan, rows[label])
    counted = source.row(
        rows.aggregate(
            in_window=rows.count(),
            not_yet_labelled=(~old_enough).sum().cast("int64"),
            never_labelled=(old_enough & ~known).sum().cast("int64"),
            eligible=(old_enough & known).sum().cast("int64"),
            positives=(old_enough & known & positive).sum().cast("int64"),
        )
    )
    counted = {name: int(value or 0) for name, value in counted.items()}
    positives = counted.pop("positives")
    rows_taken = rows.filter(old_enough & known)
    _something_to_learn(plan, counted, positives, rows_taken, *window)
    rows_taken = rows_taken.mutate(**{label: ibis.ifelse(_is_positive(plan, rows_taken[label]), 1, 0).cast("int8")})
    if counted["eligible"] > spec.source.max_rows:
        rows_taken = _sampled(plan, rows_taken, seed)
    if not plan.late_decision:
        rows_taken = plan.joined(rows_taken)
    return FetchCounts(**counted, rows=0), rows_taken


def _sampled(plan: _Plan, rows: ir.Table, seed: int) -> ir.Table:
    """The rows with the smallest hashes: only hashes are sorted, never rows."""
    key = rows[plan.spec.source.entity_key].cast("string").fill_null("")
    ticket = md5_of(key.concat(f":{seed}"))
    tickets = rows.select(ticket=ticket)
    first_out = tickets.order_by("ticket").limit(1, offset=plan.spec.source.max_rows)
    limit = plan.source.row(first_out)["ticket"]
    return rows.filter(ticket < limit)


def _is_positive(plan: _Plan, column: ir.Value) -> ir.BooleanValue:
    """The label compared with the model file's positive value, in the column's own type."""
    positive, kind = plan.spec.label.positive, column.type()
    place = f"label.positive is {positive!r}, but {plan.spec.label.column} is {kind}"
    if kind.is_boolean():
        named = {"true": True, "1": True, "false": False, "0": False}
        if str(positive).lower() not in named:
            raise DataError(f"{place}; accepted: true or false")
        return column == named[str(positive).lower()]
    if kind.is_numeric():
        try:
            return column == (int(positive) if not isinstance(positive, str) else float(positive))
        except ValueError:
            raise DataError(f"{place}; accepted: a number") from None
    if kind.is_string():
        return column == (str(positive).lower() if isinstance(positive, bool) else str(positive))
    raise DataError(f"{place}; accepted: a column of numbers, text or booleans")


def _something_to_learn(
    plan: _Plan, counted: dict[str, int], positives: int, rows: ir.Table, start: datetime, end: datetime
) -> None:
    """Refuse a window without rows, without known labels, or with one class only."""
    spec, table = plan.spec, plan.spec.source.table
    window = f"[{start:%Y-%m-%d %H:%M}, {end:%Y-%m-%d %H:%M}) UTC"
    if counted["in_window"] == 0:
        moment = plan.early[spec.source.timestamp]
        covered = plan.source.row(
            plan.early.aggregate(low=moment.min().cast("string"), high=moment.max().cast("string"))
        )
        if covered["low"] is None:
            raise DataError(f"{table} has no rows with a {spec.source.timestamp}")
        raise DataError(
            f"{table} has no rows in {window}; it covers {covered['low']} to {covered['high']}; "
            f"accepted: an as-of whose window of {spec.source.window} meets that range"
        )
    if counted["eligible"] == 0:
        raise DataError(
            f"{table} has {counted['in_window']} rows in {window} but no known label: {counted['not_yet_labelled']} "
            f"are younger than the label delay of {spec.label.delay}, {counted['never_labelled']} have no "
            f"{spec.label.column}; accepted: a later as-of, a longer window"
        )
    if positives in (0, counted["eligible"]):
        label = rows[spec.label.column].cast("string")
        values = rows.select(value=label)
        values = values.group_by("value").aggregate(times=values.count())
        shown = plan.source.arrow(values.order_by([values.times.desc(), "value"]).limit(5)).to_pylist()
        held = ", ".join(f"{row['value']!r} ({row['times']} rows)" for row in shown)
        raise DataError(
            f"label {spec.label.column} has one class in {window}: "
            f"{'none' if positives == 0 else 'all'} of {counted['eligible']} rows are {spec.label.positive!r}; "
            f"it holds {held}; accepted: a label with both outcomes, and label.positive one of its values"
        )


def _output(plan: _Plan, rows: ir.Table) -> ir.Table:
    """The snapshot's columns in types that both databases give alike."""
    shown: dict[str, ir.Value] = {}
    for column in plan.columns:
        value = rows[column.name]
        kind = value.type()
        place = f"{_place(plan.spec, column.name)}: {column.name} is {kind}"
        if column.role in ("timestamp", "label"):
            shown[column.name] = value
        elif column.role == "numeric":
            if kind.is_boolean():
                value = value.cast("int8")
            elif not kind.is_numeric():
                raise DataError(
                    f"{place}; accepted for a numeric feature: numbers and booleans, others by a CAST in source.derived"
                )
            shown[column.name] = value.cast("float64")
        elif kind.is_floating() or kind.is_decimal():
            shown[column.name] = value.cast("float64")  # written as text here: databases write numbers differently
        elif column.role == "raw" and kind.is_numeric():
            shown[column.name] = value.cast("float64")
        elif column.role == "raw" and kind.is_boolean():
            shown[column.name] = value
        elif column.role == "raw" and kind.is_timestamp():
            shown[column.name] = value.cast("timestamp(6)")
        elif kind.is_binary() or kind.is_nested() or kind.is_unknown() or kind.is_interval():
            raise DataError(f"{place}; accepted: numbers, text, booleans and times")
        else:
            shown[column.name] = value if kind.is_string() else value.cast("string")
    return rows.select(**shown)


def _frame(table: pa.Table, plan: _Plan) -> pd.DataFrame:
    """Rows as the snapshot has them: sorted, typed, null and NaN one and the same."""
    import pyarrow as pa
    import pyarrow.compute as pc

    roles = {column.name: column.role for column in plan.columns}
    moment, key = plan.spec.source.timestamp, plan.spec.source.entity_key
    for position, name in enumerate(table.column_names):
        column = table.column(position)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            longest = pc.max(pc.binary_length(column)).as_py() or 0
            if longest > MAX_TEXT_BYTES:
                raise DataError(
                    f"{_place(plan.spec, name)}: {name} holds a text of {longest:,} bytes; accepted: at most "
                    f"{MAX_TEXT_BYTES:,} bytes (free text is no category: shorten it in source.derived)"
                )
        if roles[name] in ("key", "text") and pa.types.is_floating(column.type):
            table = table.set_column(position, name, _numbers_as_text(column))
        elif roles[name] == "label":
            table = table.set_column(position, name, column.cast(pa.int8()))
        elif pa.types.is_timestamp(column.type):
            table = table.set_column(position, name, column.cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC")))
    order = [(moment, "ascending"), (key, "ascending")]
    ordered = table.take(pc.sort_indices(table, order)).combine_chunks()
    if len(ordered) > 1:
        same = [
            pc.equal(ordered.column(name).slice(1), ordered.column(name).slice(0, len(ordered) - 1))
            for name in (moment, key)
        ]
        if pc.any(pc.and_(*same)).as_py():  # doubled keys: the other columns decide, or the name would depend on chance
            rest = [(name, "ascending") for name in table.column_names if name not in (moment, key)]
            ordered = table.take(pc.sort_indices(table, [*order, *rest])).combine_chunks()
    return ordered.to_pandas()


def _numbers_as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Categories that the database holds as floating-point numbers: ``2`` rather than ``2.0``; NaN is missing."""
    import pyarrow as pa

    def text(value: float | None) -> str | None:
        if value is None or value != value:
            return None
        return str(int(value)) if value.is_integer() else repr(value)

    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    words = pa.array([text(value) for value in encoded.dictionary.to_pylist()], pa.string())
    return pa.chunked_array([words.take(encoded.indices)])


def _two_classes(frame: pd.DataFrame, spec: ModelSpec) -> None:
    """A small sample may have lost a rare class."""
    if frame[spec.label.column].nunique() < 2:
        raise DataError(
            f"the sample of {len(frame)} rows (source.max_rows {spec.source.max_rows}) has one class of "
            f"{spec.label.column} only, or no rows (is {spec.source.entity_key} one value for many rows?); "
            "accepted: a larger max_rows, and a key that is unique"
        )
