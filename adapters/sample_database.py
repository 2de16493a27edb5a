"""The sample data of data/ as an embedded DuckDB file, made on first use, or loaded into PostgreSQL."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lifecycle.errors import ConfigError, DataError, UnavailableError

if TYPE_CHECKING:
    import duckdb

# Table: (file, SELECT over it). `time_hour` is text ending in Z in the files: a UTC time. The survey publishes the year
# only; the second within it comes from a hash of `id`, so that it is the same on every machine (data/README.md).
_TABLES: dict[str, tuple[str, str]] = {
    "flights": (
        "nycflights13_flights.parquet",
        "SELECT * REPLACE (CAST(time_hour AS TIMESTAMP) AS time_hour) FROM {file}",
    ),
    "weather": (
        "nycflights13_weather.parquet",
        "SELECT * REPLACE (CAST(time_hour AS TIMESTAMP) AS time_hour) FROM {file}",
    ),
    "planes": ("nycflights13_planes.parquet", "SELECT * FROM {file}"),
    "airlines": ("nycflights13_airlines.parquet", "SELECT * FROM {file}"),
    "acs_people": (
        "acs_employment_ma_2015_2018.parquet",
        """SELECT *, make_timestamp(year, 1, 1, 0, 0, 0) + to_seconds(
               CAST('0x' || substr(md5(CAST(id AS VARCHAR)), 1, 12) AS BIGINT)
               % date_diff('second', make_date(year, 1, 1), make_date(year + 1, 1, 1))
           ) AS surveyed_at FROM {file}""",
    ),
}

_POSTGRESQL_TYPES = {
    "TINYINT": "SMALLINT",
    "SMALLINT": "SMALLINT",
    "INTEGER": "INTEGER",
    "BIGINT": "BIGINT",
    "DOUBLE": "DOUBLE PRECISION",
    "VARCHAR": "TEXT",
    "TIMESTAMP": "TIMESTAMP",
}


def ensure_sample_database(path: Path, data_dir: Path) -> Path:
    """Make the DuckDB file unless it is there and made from these very files.

    The file is built beside its place and renamed into it, under a lock: another process sees the whole database or
    none, and of two that start at once one builds. Readers that still have an older file open keep it.

    Parameters
    ----------
    path
        Where the database file is to be; its folder is made when missing.
    data_dir
        Folder with the Parquet files (data/ of the project).

    Returns
    -------
    Path
        `path`, ready to be opened read-only as ``duckdb:///<path>``.

    Raises
    ------
    DataError
        A file of `data_dir` is missing or cannot be read.
    UnavailableError
        The disk does not take the file.
    """
    import filelock

    fingerprint = _fingerprint(data_dir)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{path}.lock"):
            if _stored_fingerprint(path) != fingerprint:
                _build(path, data_dir, fingerprint)
    except OSError as error:
        raise UnavailableError(f"{path}: the sample database cannot be written: {error.strerror or error}") from error
    return path


def load_into_postgresql(url: str, data_dir: Path) -> dict[str, int]:
    """Load the same tables into a PostgreSQL database, for a staging set-up or a test; existing ones are replaced.

    Parameters
    ----------
    url
        ``postgresql://user:password@host:port/database``.
    data_dir
        Folder with the Parquet files.

    Returns
    -------
    dict of str to int
        Rows loaded, by table. All tables are loaded in one transaction, or none.

    Raises
    ------
    DataError, UnavailableError
        As `ensure_sample_database`; the database does not answer.
    """
    import duckdb
    import psycopg

    _fingerprint(data_dir)  # every file is there
    counts: dict[str, int] = {}
    try:
        with (
            psycopg.connect(url, connect_timeout=10) as target,
            duckdb.connect() as source,
            tempfile.TemporaryDirectory() as folder,
        ):
            _create_tables(source, data_dir)
            csv = Path(folder) / "table.csv"
            for table in _TABLES:
                described = source.execute(f"DESCRIBE {table}").fetchall()
                columns = ", ".join(f'"{name}" {_POSTGRESQL_TYPES[kind]}' for name, kind, *_ in described)
                source.execute(f"COPY {table} TO '{csv}' (FORMAT csv, HEADER false, FORCE_QUOTE *)")
                with target.cursor() as cursor:
                    cursor.execute(f"DROP TABLE IF EXISTS {table}")
                    cursor.execute(f"CREATE TABLE {table} ({columns})")
                    with cursor.copy(f"COPY {table} FROM STDIN (FORMAT csv)") as copy, csv.open("rb") as rows:
                        while block := rows.read(1 << 20):
                            copy.write(block)
                    counts[table] = cursor.rowcount
    except psycopg.OperationalError as error:
        raise UnavailableError(f"PostgreSQL does not answer: {str(error).splitlines()[0]}") from error
    except psycopg.ProgrammingError as error:
        raise ConfigError(f"PostgreSQL refuses the sample tables: {str(error).splitlines()[0]}") from error
    return counts


def _fingerprint(data_dir: Path) -> str:
    """Hash of the files and of what is made from them."""
    digest = hashlib.sha256(repr(_TABLES).encode())
    for file, _ in _TABLES.values():
        try:
            digest.update(hashlib.sha256((data_dir / file).read_bytes()).digest())
        except OSError as error:
            raise DataError(
                f"{data_dir / file}: {error.strerror}; accepted: the sample files of data/, "
                f"{', '.join(sorted({name for name, _ in _TABLES.values()}))}"
            ) from error
    return digest.hexdigest()


def _stored_fingerprint(path: Path) -> str | None:
    """Fingerprint inside a database file; None when there is no readable one."""
    import duckdb

    if not path.exists():
        return None
    try:
        with duckdb.connect(str(path), read_only=True) as database:
            row = database.execute("SELECT fingerprint FROM provenance.made_from").fetchone()
    except duckdb.Error:  # not a database, of another version, or cut short: make it anew
        return None
    return None if row is None else str(row[0])


def _build(path: Path, data_dir: Path, fingerprint: str) -> None:
    import duckdb

    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
    os.close(handle)
    beside = Path(name)
    beside.unlink()  # DuckDB wants to create it
    try:
        with duckdb.connect(str(beside)) as database:
            _create_tables(database, data_dir)
            database.execute("CREATE SCHEMA provenance")
            database.execute("CREATE TABLE provenance.made_from AS SELECT ? AS fingerprint", [fingerprint])
            database.execute("CHECKPOINT")
        beside.replace(path)
    except duckdb.IOException as error:
        raise UnavailableError(f"{path}: the sample database cannot be written: {error}") from error
    finally:
        beside.unlink(missing_ok=True)
        Path(f"{beside}.wal").unlink(missing_ok=True)


def _create_tables(database: duckdb.DuckDBPyConnection, data_dir: Path) -> None:
    """Create every table from its file; NaN, which pandas wrote for a missing number, becomes NULL."""
    import duckdb

    for table, (file, select) in _TABLES.items():
        quoted = "'" + str(data_dir / file).replace("'", "''") + "'"
        try:
            database.execute(f"CREATE TABLE {table} AS {select.format(file=quoted)}")
        except duckdb.Error as error:
            raise DataError(f"{data_dir / file} cannot be read as {table}: {error}") from error
        floats = [name for name, kind, *_ in database.execute(f"DESCRIBE {table}").fetchall() if kind == "DOUBLE"]
        for name in floats:
            database.execute(f'UPDATE {table} SET "{name}" = NULL WHERE isnan("{name}")')  # noqa: S608 (names of ours)
