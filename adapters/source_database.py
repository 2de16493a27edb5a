"""A connection to the source: DuckDB or PostgreSQL behind Ibis, read-only, with its failures in our words."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.source_expressions import missing_column, nearest
from lifecycle.errors import ConfigError, DataError, UnavailableError

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa
    from ibis import Schema

_SCHEMES = "accepted: duckdb:///path/file.duckdb or postgresql://user:password@host:port/database"


class SourceDatabase:
    """An open source.

    Parameters
    ----------
    backend
        Ibis backend, connected.
    dialect
        ``duckdb`` or ``postgres``.
    name
        What people are shown instead of the URL: no password.
    """

    def __init__(self, backend: Any, dialect: str, name: str) -> None:
        self.backend = backend
        self.dialect = dialect
        self.name = name

    def tables(self) -> list[str]:
        """Tables and views of the default schema."""
        rows = self._rows("SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()")
        return sorted(str(name) for (name,) in rows)

    def schema(self, table: str) -> Schema:
        """Columns and types of a table or view; DataError with the nearest names when there is none."""
        return self._whole(table).schema()

    def table(self, name: str, columns: list[str], place: str) -> ir.Table:
        """The columns asked for; DataError with the nearest name for one that is missing."""
        whole = self._whole(name)
        for column in columns:
            if column not in whole.columns:
                raise missing_column(f"{place} ({name})", column, list(whole.columns))
        return whole.select(list(dict.fromkeys(columns)))

    def query(self, sql: str) -> ir.Table:
        """A SELECT in the source's own dialect as a typed table expression; it is described, not run."""
        import ibis
        from ibis.expr import datatypes
        from sqlglot import exp

        # Ibis itself would make a temporary view in PostgreSQL to learn the types, which a read-only standby refuses;
        # and its way in DuckDB calls what DuckDB 2 no longer has.
        if self.dialect == "duckdb":
            described = [(str(name), str(kind)) for name, kind, *_ in self._rows(f"DESCRIBE {sql}")]
            # A type of DuckDB 2 that Ibis does not know and that no cast takes to TIMESTAMP at once.
            finer = [
                exp.to_identifier(n, quoted=True).sql("duckdb") for n, kind in described if kind == "TIMESTAMPTZ_NS"
            ]
            if finer:
                coarser = ", ".join(f"CAST({name} AS TIMESTAMPTZ) AS {name}" for name in finer)
                return self.query(f"SELECT * REPLACE ({coarser}) FROM ({sql}) AS finer")  # noqa: S608
        else:
            with self.backend.con.transaction(), self.backend.con.cursor() as cursor:
                cursor.execute(f"SELECT * FROM ({sql}) AS described LIMIT 0")  # noqa: S608
                columns = cursor.description or []
                cursor.execute(
                    "SELECT format_type(oid, -1) FROM unnest(%s::oid[]) WITH ORDINALITY AS t(oid, n) ORDER BY n",
                    ([column.type_code for column in columns],),
                )
                described = [
                    (column.name, str(kind)) for column, (kind,) in zip(columns, cursor.fetchall(), strict=True)
                ]
        types = {}
        for name, kind in described:
            try:
                types[name] = self.backend.compiler.type_mapper.from_string(kind)
            except (ValueError, TypeError, KeyError):  # a type of the database's own; told when the column is asked for
                types[name] = datatypes.unknown
        return self.backend.sql(sql, schema=ibis.schema(types))

    def _whole(self, table: str) -> ir.Table:
        from sqlglot import exp

        tables = self.tables()
        if table not in tables:
            raise DataError(f"no table {table!r} in {self.name}; {nearest(table, tables)}")
        quoted = exp.to_identifier(table, quoted=True).sql(dialect=self.dialect)
        return self.query(f"SELECT * FROM {quoted}")  # noqa: S608

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self.backend.con.execute(sql).fetchall()
        return rows

    def recover(self) -> None:
        """Make the connection answer again after a query failed."""
        if self.dialect == "duckdb":
            import duckdb

            with suppress(duckdb.TransactionException):  # there is none open when the failure ended it
                self.backend.con.execute("ROLLBACK")
            self.backend.con.execute("BEGIN TRANSACTION")

    def row(self, expression: ir.Table) -> dict[str, Any]:
        """The only row of an aggregate, as plain Python values."""
        rows: list[dict[str, Any]] = self.arrow(expression).to_pylist()
        return rows[0]

    def arrow(self, expression: ir.Table) -> pa.Table:
        """Run a query of text, numbers, booleans and timestamps without zone."""
        if self.dialect == "duckdb":
            return self.backend.to_pyarrow(expression)
        # COPY is several times quicker than rows through the driver, and needs no Python object for a value.
        import pyarrow as pa
        from pyarrow import csv

        schema = expression.schema().to_pyarrow()
        kinds = {
            field.name: pa.timestamp("us")
            if pa.types.is_timestamp(field.type)
            else pa.float64()
            if pa.types.is_decimal(field.type)
            else field.type
            for field in schema
        }
        sql = self.backend.compile(expression)
        with (
            self.backend.con.transaction(),  # a savepoint: after a failure the outer one still answers
            self.backend.con.cursor() as cursor,
            cursor.copy(f"COPY ({sql}) TO STDOUT (FORMAT csv, HEADER false)") as rows,
        ):
            try:
                return csv.read_csv(
                    _Stream(rows),
                    read_options=csv.ReadOptions(column_names=list(kinds), block_size=32 << 20),
                    parse_options=csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
                    convert_options=csv.ConvertOptions(
                        column_types=kinds,
                        null_values=[""],
                        strings_can_be_null=True,
                        quoted_strings_can_be_null=False,
                        true_values=["t"],
                        false_values=["f"],
                    ),
                )
            except pa.ArrowInvalid as error:
                if "Empty CSV" in str(error):
                    return pa.Table.from_arrays([pa.array([], kind) for kind in kinds.values()], names=list(kinds))
                raise


class _Stream(io.RawIOBase):
    """The bytes of a COPY as a file to read."""

    def __init__(self, chunks: Any) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wanted = len(buffer)
        parts, length = [self._rest], len(self._rest)
        while length < wanted and (chunk := next(self._chunks, None)) is not None:
            parts.append(bytes(chunk))
            length += len(chunk)
        read = b"".join(parts)
        taken = min(wanted, length)
        buffer[:taken] = read[:taken]
        self._rest = read[taken:]
        return taken


def utc_of(table: ir.Table, name: str, place: str) -> ir.Value:
    """A time column as a timestamp without zone, in UTC (the session's zone), to the microsecond."""
    column = table[name]
    kind = column.type()
    if not (kind.is_timestamp() or kind.is_date()):
        raise DataError(
            f"{place}.{name} is {kind}; accepted: a timestamp or a date, for example through source.derived "
            f"with CAST({name} AS TIMESTAMP)"
        )
    return column.cast("timestamp(6)")


def md5_of(text: ir.StringValue) -> ir.StringValue:
    """The hash that both databases compute alike, as 32 hex digits."""
    import ibis

    @ibis.udf.scalar.builtin
    def md5(text: str) -> str:  # both databases have it
        raise NotImplementedError

    return md5(text)


@contextmanager
def open_source(url: str) -> Iterator[SourceDatabase]:
    """Open a source for reading; everything read inside sees one state of the database.

    Parameters
    ----------
    url
        ``duckdb:///path/file.duckdb`` (three slashes and a relative path, or four and an absolute one) or
        ``postgresql://user:password@host:port/database``.

    Raises
    ------
    ConfigError
        The URL has another scheme, or cannot be read as one.
    UnavailableError
        The source does not answer, or stops doing so.
    DataError
        The source refuses a query, or its data cannot be read.
    """
    scheme = url.split("://", 1)[0].split("+", 1)[0] if "://" in url else ""
    if scheme == "duckdb":
        with _duckdb(url) as source:
            yield source
    elif scheme in ("postgresql", "postgres"):
        with _postgresql(url, scheme) as source:
            yield source
    else:
        raise ConfigError(f"source URL with scheme {scheme or 'none'!r}; {_SCHEMES}")


@contextmanager
def _duckdb(url: str) -> Iterator[SourceDatabase]:
    import duckdb
    import ibis
    import pyarrow as pa

    if not url.startswith("duckdb:///") or url == "duckdb:///":
        raise ConfigError(f"source URL {url}: no path to a file; {_SCHEMES}")
    path = Path(url.removeprefix("duckdb:///"))
    if not path.is_file():
        raise UnavailableError(f"source {path}: no such file; accepted: a DuckDB database file")
    try:
        connection = duckdb.connect(str(path), read_only=True)
    except duckdb.Error as error:
        raise UnavailableError(f"source {path} cannot be opened: {first_line(error)}") from error
    try:
        connection.execute("BEGIN TRANSACTION")
        # The pushed-down queries sort at the end anyway; without this DuckDB buffers whole tables.
        connection.execute("SET preserve_insertion_order = false")
        yield SourceDatabase(ibis.duckdb.from_connection(connection), "duckdb", str(path))
    except (duckdb.IOException, duckdb.OutOfMemoryException, duckdb.FatalException) as error:
        raise UnavailableError(f"source {path} does not answer: {first_line(error)}") from error
    except (duckdb.Error, pa.ArrowException) as error:
        raise DataError(f"source {path} refuses the query: {first_line(error)}") from error
    finally:
        connection.close()


@contextmanager
def _postgresql(url: str, scheme: str) -> Iterator[SourceDatabase]:
    import ibis
    import psycopg
    import pyarrow as pa
    from psycopg.conninfo import conninfo_to_dict

    # libpq knows no driver names; SQLAlchemy's postgresql+psycopg:// is understood as well.
    address = f"{scheme}://{url.split('://', 1)[1]}"
    try:
        parts = conninfo_to_dict(address)
    except psycopg.ProgrammingError:
        # Its text may repeat the URL, password and all.
        raise ConfigError(f"source URL: PostgreSQL cannot read it; {_SCHEMES}") from None
    password = str(parts.get("password") or "")
    name = f"{parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"

    def said(error: Exception) -> str:
        text = first_line(error)
        return text.replace(password, "***") if password else text

    try:
        connection = psycopg.connect(
            address, connect_timeout=10, autocommit=True, application_name="prodecks-mlops", client_encoding="UTF8"
        )
    except psycopg.Error as error:
        raise UnavailableError(f"source {name} does not answer: {said(error)}") from None
    try:
        backend = ibis.postgres.from_connection(connection)
        connection.execute("SET datestyle = 'ISO, YMD'")
        connection.execute("SET extra_float_digits = 1")
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            # Every join here is by equality over many rows. A derived key has no statistics, so the planner takes them
            # for few and loops or sorts on half the key: 75 s for the flights instead of 3. Hashing is always right.
            connection.execute("SET LOCAL enable_nestloop = off")
            connection.execute("SET LOCAL enable_mergejoin = off")
            connection.execute("SET LOCAL work_mem = '256MB'")
            yield SourceDatabase(backend, "postgres", name)
    except psycopg.OperationalError as error:
        raise UnavailableError(f"source {name} does not answer: {said(error)}") from None
    except (psycopg.Error, pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"source {name} refuses the query: {said(error)}") from None
    finally:
        connection.close()


def first_line(error: Exception) -> str:
    """What an error says, shortly."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
