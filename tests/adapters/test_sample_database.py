"""Rules of the sample database: made once, whole or not at all, and made anew when the data changed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from adapters.sample_database import ensure_sample_database, load_into_postgresql
from lifecycle.errors import DataError, UnavailableError

pytestmark = pytest.mark.requirement("R3.4")

DATA = Path(__file__).parents[2] / "data"
ROWS = {"flights": 336_776, "weather": 26_115, "planes": 3_322, "airlines": 16, "acs_people": 277_677}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_sample_database(tmp_path_factory.mktemp("sample") / "var" / "sample.duckdb", DATA)


def rows_of(path: Path, sql: str) -> list[tuple]:
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_every_table_is_whole_and_nothing_is_left_beside_it(database):
    for table, rows in ROWS.items():
        assert rows_of(database, f"SELECT count(*) FROM {table}") == [(rows,)]
    assert sorted(path.name for path in database.parent.iterdir()) == ["sample.duckdb", "sample.duckdb.lock"]


def test_times_are_utc_timestamps_and_missing_numbers_are_null(database):
    assert rows_of(database, "SELECT min(time_hour), max(time_hour) FROM flights") == [
        (datetime(2013, 1, 1, 10), datetime(2014, 1, 1, 4))
    ]
    assert rows_of(database, "SELECT count(*) FROM weather WHERE isnan(wind_gust)") == [(0,)]
    assert rows_of(database, "SELECT count(*) FROM weather WHERE wind_gust IS NULL") == [(26_115 - 5_337,)]


def test_people_are_surveyed_within_their_year_at_the_same_second_on_every_machine(database):
    assert rows_of(database, "SELECT count(*) FROM acs_people WHERE year(surveyed_at) <> year") == [(0,)]
    by_month = rows_of(database, "SELECT month(surveyed_at), count(*) FROM acs_people WHERE year = 2016 GROUP BY 1")
    assert len(by_month) == 12
    assert all(0.95 < rows / (69_126 / 12) < 1.05 for _, rows in by_month)

    def second(person: int) -> int:
        return int(hashlib.md5(str(person).encode()).hexdigest()[:12], 16) % (365 * 86_400)

    surveyed = rows_of(database, "SELECT surveyed_at FROM acs_people WHERE id < 20 ORDER BY id")
    assert [moment for (moment,) in surveyed] == [
        datetime(2015, 1, 1) + timedelta(seconds=second(i)) for i in range(20)
    ]


def test_a_second_call_leaves_the_file_alone(database):
    before = database.stat().st_mtime_ns
    ensure_sample_database(database, DATA)
    assert database.stat().st_mtime_ns == before


def test_changed_data_and_damaged_files_are_made_anew(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for file in DATA.glob("*.parquet"):
        shutil.copy(file, data)
    path = ensure_sample_database(tmp_path / "sample.duckdb", data)
    fewer = tmp_path / "fewer.parquet"
    duckdb.execute(f"COPY (SELECT * FROM '{data}/nycflights13_airlines.parquet' LIMIT 3) TO '{fewer}'")
    (data / "nycflights13_airlines.parquet").unlink()
    fewer.rename(data / "nycflights13_airlines.parquet")
    ensure_sample_database(path, data)
    assert rows_of(path, "SELECT count(*) FROM airlines") == [(3,)]
    path.write_bytes(path.read_bytes()[:5_000])
    ensure_sample_database(path, data)
    assert rows_of(path, "SELECT count(*) FROM airlines") == [(3,)]


def test_two_processes_at_once_both_get_the_whole_database(tmp_path):
    path = tmp_path / "sample.duckdb"
    code = (
        "import sys; from pathlib import Path; from adapters.sample_database import ensure_sample_database as e; "
        "import duckdb; p = e(Path(sys.argv[1]), Path(sys.argv[2])); "
        "print(duckdb.connect(str(p), read_only=True).execute('SELECT count(*) FROM flights').fetchone()[0])"
    )
    command = [sys.executable, "-c", code, str(path), str(DATA)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=DATA.parent) for _ in range(2)]
    assert [process.communicate(timeout=120)[0].strip() for process in both] == ["336776", "336776"]


def test_a_missing_file_is_named_with_what_is_accepted(tmp_path):
    with pytest.raises(DataError, match=r"nycflights13_flights.parquet: No such file.*accepted: .*acs_employment"):
        ensure_sample_database(tmp_path / "sample.duckdb", tmp_path)


def test_a_place_that_cannot_be_written_is_unavailable(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match="cannot be written"):
        ensure_sample_database(tmp_path / "file" / "sample.duckdb", DATA)


@pytest.mark.postgres
def test_postgresql_gets_the_same_tables_and_a_second_load_replaces_them(postgres_url, database):
    import psycopg

    assert load_into_postgresql(postgres_url, DATA) == ROWS
    assert load_into_postgresql(postgres_url, DATA) == ROWS
    with psycopg.connect(postgres_url) as connection:
        there = connection.execute("SELECT id, surveyed_at FROM acs_people ORDER BY id LIMIT 50").fetchall()
        gusts = connection.execute("SELECT count(*), count(wind_gust), sum(wind_gust) FROM weather").fetchall()
    assert there == rows_of(database, "SELECT id, surveyed_at FROM acs_people ORDER BY id LIMIT 50")
    here = rows_of(database, "SELECT count(*), count(wind_gust), sum(wind_gust) FROM weather")
    assert gusts[0][:2] == here[0][:2]
    assert gusts[0][2] == pytest.approx(here[0][2])


@pytest.mark.postgres
def test_a_postgresql_that_is_not_there_is_unavailable():
    with pytest.raises(UnavailableError, match="does not answer"):
        load_into_postgresql("postgresql://nobody:secret@127.0.0.1:1/none", DATA)
