"""SQL expressions of a model file: one row-wise expression each, in DuckDB's dialect, translated for the source."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lifecycle.errors import ConfigError, DataError

if TYPE_CHECKING:
    from sqlglot import exp

_ACCEPTED = "accepted: one row-wise SQL expression in DuckDB's dialect"
_INTERVALS = {
    "TO_SECONDS": "second",
    "TO_MINUTES": "minute",
    "TO_HOURS": "hour",
    "TO_DAYS": "day",
    "TO_WEEKS": "week",
    "TO_MONTHS": "month",
    "TO_YEARS": "year",
}
_UNREPEATABLE = {
    *("NOW", "TODAY", "GET_CURRENT_TIMESTAMP", "GET_CURRENT_TIME", "TRANSACTION_TIMESTAMP", "CURRENT_LOCALTIMESTAMP"),
    *("RANDOM", "SETSEED", "UUID", "UUIDV4", "UUIDV7", "GEN_RANDOM_UUID", "NEXTVAL", "CURRVAL"),
}
# DuckDB's date parts as functions, and PostgreSQL's field names; both count Monday as ISO day 1 and Sunday as day 0.
_PARTS = {
    "DayOfWeekIso": "ISODOW",
    "DayOfWeek": "DOW",
    "DayOfYear": "DOY",
    "DayOfMonth": "DAY",
    "WeekOfYear": "WEEK",
    "Year": "YEAR",
    "Quarter": "QUARTER",
    "Month": "MONTH",
    "Week": "WEEK",
    "Day": "DAY",
    "Hour": "HOUR",
    "Minute": "MINUTE",
    "Second": "SECOND",
}


@dataclass(frozen=True, slots=True)
class RowExpression:
    """A checked expression.

    Parameters
    ----------
    place
        Where it stands in the model file, for example ``source.derived.day_of_week``.
    text
        As written.
    columns
        Column names it uses, as written.
    """

    place: str
    text: str
    columns: tuple[str, ...]

    def usable_with(self, known: Iterable[str]) -> bool:
        """Whether all its columns are among `known`."""
        names = list(known)
        return all(_resolve(column, names) is not None for column in self.columns)

    def sql(self, known: Iterable[str], dialect: str) -> str:
        """The expression in the dialect of the source, its columns quoted as the source spells them.

        Raises
        ------
        DataError
            It uses a column that is not among `known`.
        """
        from sqlglot import exp

        names = list(known)
        tree = _parsed(self.place, self.text)
        for column in tree.find_all(exp.Column):
            found = _resolve(column.name, names)
            if found is None:
                raise missing_column(self.place, column.name, names)
            column.set("this", exp.to_identifier(found, quoted=True))
        if dialect == "postgres":
            # Innermost first: what a translation wraps has then been translated.
            for node in reversed(list(tree.walk(bfs=False))):
                translated = _for_postgresql(node)
                if node is tree:
                    tree = translated
                elif translated is not node:
                    node.replace(translated)
        return tree.sql(dialect=dialect, comments=False)


def row_expression(place: str, text: str) -> RowExpression:
    """Check that a text is one expression that depends on its row alone.

    Raises
    ------
    ConfigError
        It does not parse, is several statements, a query, an aggregate or a window function, or depends on the clock
        or on chance, so that the same data would not give the same snapshot.
    """
    from sqlglot import exp

    tree = _parsed(place, text)
    columns = list(tree.find_all(exp.Column))
    for column in columns:
        if column.table:
            raise ConfigError(f"{place}: {column.sql()} has a table name; accepted: plain column names")
    return RowExpression(place, text, tuple(dict.fromkeys(column.name for column in columns)))


def nearest(name: str, known: Collection[str], most: int = 3) -> str:
    """The accepted names most like a wrong one, or the first of them, in words."""
    folded = {candidate.casefold(): candidate for candidate in known}
    close = [folded[match] for match in difflib.get_close_matches(name.casefold(), folded, n=most, cutoff=0.5)]
    if close:
        return f"nearest: {', '.join(close)}"
    shown = sorted(known)[:12]
    return f"accepted: {', '.join(shown) or 'none, there is nothing'}{', ...' if len(known) > len(shown) else ''}"


def missing_column(place: str, name: str, known: Collection[str]) -> DataError:
    """The error for a column that is not there (missing, renamed or misspelt)."""
    return DataError(f"{place}: no column {name!r}; {nearest(name, known)}")


def _resolve(name: str, known: list[str]) -> str | None:
    """Spelling of a column in the source: the same, or the only one that differs in case alone."""
    if name in known:
        return name
    alike = [candidate for candidate in known if candidate.casefold() == name.casefold()]
    return alike[0] if len(alike) == 1 else None


def _parsed(place: str, text: str) -> exp.Expr:
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        statements = sqlglot.parse(text, read="duckdb")
    except SqlglotError as error:
        first = str(error).splitlines()[0].replace("\x1b[4m", "").replace("\x1b[0m", "")
        raise ConfigError(f"{place}: {text!r} is not SQL: {first} {_ACCEPTED}") from None
    if len(statements) != 1 or statements[0] is None:
        raise ConfigError(f"{place}: {text!r} has {len([s for s in statements if s])} statements; {_ACCEPTED}")
    tree = statements[0]
    refused: list[tuple[type | tuple[type, ...], str]] = [
        (exp.Query, "a query"),
        (exp.Window, "a window function, which looks at other rows"),
        (exp.AggFunc, "an aggregate, which looks at other rows"),
        ((exp.CurrentDate, exp.CurrentTime, exp.CurrentTimestamp), "the clock, so no two fetches would agree"),
        ((exp.Rand, exp.Uuid), "chance, so no two fetches would agree"),
    ]
    for kind, what in refused:
        found = tree.find(*kind) if isinstance(kind, tuple) else tree.find(kind)
        if found is not None:
            raise ConfigError(f"{place}: {text!r} contains {what} ({found.sql(dialect='duckdb')}); {_ACCEPTED}")
    for call in tree.find_all(exp.Anonymous):
        if call.name.upper() in _UNREPEATABLE:
            raise ConfigError(f"{place}: {text!r} calls {call.name}, so no two fetches would agree; {_ACCEPTED}")
    if not isinstance(tree, (exp.Condition, exp.Interval)):
        raise ConfigError(f"{place}: {text!r} is not an expression but {type(tree).__name__.lower()}; {_ACCEPTED}")
    return tree


def _for_postgresql(node: exp.Expr) -> exp.Expr:
    """What sqlglot leaves in DuckDB's words, in PostgreSQL's."""
    from sqlglot import exp

    def cast(value: exp.Expr, kind: str) -> exp.Expr:
        return exp.Cast(this=value.copy(), to=exp.DataType.build(kind, dialect="postgres"))

    name = type(node).__name__
    called = node.name.upper() if isinstance(node, exp.Anonymous) else "TO_DAYS" if name == "ToDays" else ""
    if called in _INTERVALS:
        amount = node.expressions[0] if isinstance(node, exp.Anonymous) else node.this
        span = exp.Interval(this=exp.Literal.string("1"), unit=exp.var(_INTERVALS[called]))
        return exp.Paren(this=exp.Mul(this=exp.Paren(this=amount.copy()), expression=span))
    if name in _PARTS and node.this is not None:
        moment = node.this.this if type(node.this).__name__ == "TsOrDsToDate" else node.this
        return cast(exp.Extract(this=exp.var(_PARTS[name]), expression=moment.copy()), "bigint")
    if name == "DateFromParts":
        parts = [cast(node.args[part], "int") for part in ("year", "month", "day")]
        return exp.Anonymous(this="MAKE_DATE", expressions=parts)
    if isinstance(node, exp.IntDiv):
        sides = [cast(node.this, "numeric"), cast(node.expression, "numeric")]
        return cast(exp.Anonymous(this="DIV", expressions=sides), "bigint")
    if isinstance(node, exp.Round) and node.args.get("decimals") is not None:
        return cast(exp.Round(this=cast(node.this, "numeric"), decimals=node.args["decimals"]), "double precision")
    if isinstance(node, exp.IsNan):
        nan = cast(exp.Literal.string("NaN"), "double precision")
        return exp.Paren(this=exp.EQ(this=node.this.copy(), expression=nan))
    return node
