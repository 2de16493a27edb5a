"""Profile a table of the source, all of it pushed down but a sample of rows, to draft a model file from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.source_database import SourceDatabase, md5_of, open_source, utc_of
from lifecycle.profiling import ColumnProfile, Kind, TableProfile

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa


def profile_table(url: str, table: str, sample_rows: int = 50_000, seed: int = 0) -> TableProfile:
    """Count, bound and sample the columns of a table or view.

    Parameters
    ----------
    url, table
        The source, and what to profile there.
    sample_rows
        About how many rows are sampled, by a hash of the whole row: the same rows each time.
    seed
        Of the sample.

    Raises
    ------
    ConfigError, DataError, UnavailableError
        As `adapters.source.fetch`.
    """
    with open_source(url) as source:
        rows = source.table(table, list(source.schema(table).names), "--table")
        kinds = {name: _kind(kind) for name, kind in rows.schema().items()}
        usable = [name for name, kind in kinds.items() if kind != "other"]
        # v0, v1, ... stand for the names: a column may be called anything.
        clean = rows.select(**{f"v{i}": _clean(rows, name, kinds[name]) for i, name in enumerate(usable)})
        facts = source.row(clean.aggregate(total=clean.count(), **_facts(clean, [kinds[name] for name in usable])))
        total = int(facts["total"])
        sample = source.arrow(_sampled(clean, total, sample_rows, seed))
        distinct = _distinct(source, clean, sample, facts)
    columns = []
    for name, kind in kinds.items():
        described = str(rows[name].type())
        if kind == "other":
            columns.append(ColumnProfile(name, kind, total, 0, 0, type=described))
            continue
        place = f"v{usable.index(name)}"
        low, high = facts.get(f"low_{place}"), facts.get(f"high_{place}")
        columns.append(
            ColumnProfile(
                name,
                kind,
                rows=total,
                missing=total - int(facts[f"present_{place}"]),
                distinct=distinct[place],
                low=None if low is None else float(low),
                high=None if high is None else float(high),
                infinite=int(facts.get(f"infinite_{place}") or 0),
                longest=int(facts.get(f"longest_{place}") or 0),
                type=described,
            )
        )
    frame = sample.rename_columns(usable).to_pandas()
    for name in usable:
        if kinds[name] == "time":
            frame[name] = frame[name].astype("datetime64[us]").dt.tz_localize("UTC")
        elif kinds[name] in ("number", "integer"):
            frame[name] = frame[name].astype("float64")
    return TableProfile(table, total, tuple(columns), frame)


def _kind(kind: Any) -> Kind:
    if kind.is_boolean():
        return "boolean"
    if kind.is_integer():
        return "integer"
    if kind.is_floating() or kind.is_decimal():
        return "number"
    if kind.is_timestamp() or kind.is_date():
        return "time"
    return "text" if kind.is_string() or kind.is_uuid() else "other"


def _clean(rows: ir.Table, name: str, kind: Kind) -> ir.Value:
    """A column in the one type of its kind, NaN as null."""
    column = rows[name]
    if kind == "time":
        return utc_of(rows, name, "")
    if kind in ("text", "boolean"):
        return column if column.type().is_string() else column.cast("string")
    if kind == "integer":
        return column.cast("int64")
    number = column.cast("float64")
    return number.isnan().ifelse(None, number)


def _facts(clean: ir.Table, kinds: list[Kind]) -> dict[str, ir.Value]:
    """Aggregates of every column: how many values, and their bounds."""
    facts: dict[str, ir.Value] = {}
    for place, kind in zip(clean.columns, kinds, strict=True):
        column = clean[place]
        facts[f"present_{place}"] = column.count()
        if kind in ("number", "integer"):
            number = column.cast("float64")
            finite = ~number.isinf() if kind == "number" else None
            facts[f"low_{place}"] = number.min(where=finite)
            facts[f"high_{place}"] = number.max(where=finite)
            if kind == "number":
                facts[f"infinite_{place}"] = number.isinf().sum().cast("int64")
        elif kind == "text":
            facts[f"longest_{place}"] = column.length().max()
    return facts


def _sampled(clean: ir.Table, total: int, wanted: int, seed: int) -> ir.Table:
    if total <= wanted:
        return clean
    parts = [clean[place].cast("string").fill_null("") for place in clean.columns]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.concat("|", part)
    ticket = md5_of(whole.concat(f"|{seed}")).substr(0, 8)
    return clean.filter(ticket < f"{int(wanted / total * 16**8):08x}")


def _distinct(source: SourceDatabase, clean: ir.Table, sample: pa.Table, facts: dict[str, Any]) -> dict[str, int]:
    """Distinct values: of the sample, and of the whole table where the sample is not all of it and says many."""
    import pyarrow.compute as pc

    found = {place: int(pc.count_distinct(sample.column(place)).as_py()) for place in clean.columns}
    if len(sample) < facts["total"]:
        many = [place for place in clean.columns if found[place] > 0.1 * len(sample)]
        if many:
            exact = source.row(clean.aggregate(**{place: clean[place].nunique() for place in many}))
            found |= {place: int(count) for place, count in exact.items()}
    return found
