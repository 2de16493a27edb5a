"""Rules of a fetch, on DuckDB and on a real PostgreSQL through the same model file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.sample_database import ensure_sample_database, load_into_postgresql
from adapters.source import MAX_TEXT_BYTES, fetch, newest_row
from lifecycle.errors import ConfigError, DataError, ProDecksError, UnavailableError
from lifecycle.snapshot import content_name
from lifecycle.spec import ModelSpec

pytestmark = pytest.mark.requirement("R3.4")

ROOT = Path(__file__).parents[2]
AS_OF = datetime(2020, 7, 1, tzinfo=UTC)
Put = Callable[..., str]


@pytest.fixture(params=["duckdb", pytest.param("postgresql", marks=pytest.mark.postgres)])
def put(request: pytest.FixtureRequest, tmp_path: Path) -> Put:
    """Write frames as tables of a source, and give its URL."""
    if request.param == "duckdb":
        return lambda **tables: put_duckdb(tmp_path / "source.duckdb", **tables)
    url = request.getfixturevalue("postgres_url")
    return lambda **tables: put_postgresql(url, **tables)


def put_duckdb(path: Path, **tables: pd.DataFrame) -> str:
    with duckdb.connect(str(path)) as connection:
        for name, frame in tables.items():
            connection.register("given", pa.Table.from_pandas(frame, preserve_index=False))
            connection.execute(f'CREATE OR REPLACE TABLE "{name}" AS FROM given')
            connection.unregister("given")
    return f"duckdb:///{path}"


def put_postgresql(url: str, **tables: pd.DataFrame) -> str:
    import sqlalchemy

    engine = sqlalchemy.create_engine(url)
    for name, frame in tables.items():
        frame.to_sql(name, engine, index=False, if_exists="replace")
    engine.dispose()
    return url


def rows(number: int = 60, **columns: Any) -> pd.DataFrame:
    """A row an hour, the newest an hour before as-of."""
    at = [AS_OF.replace(tzinfo=None) - timedelta(hours=number - i) for i in range(number)]
    frame = {
        "id": [f"r{i:05d}" for i in range(number)],
        "at": at,
        "x": np.linspace(-1, 1, number),
        "k": [("a", "b", "c")[i % 3] for i in range(number)],
        "y": [i % 2 for i in range(number)],
    }
    return pd.DataFrame({**frame, **columns})


def spec_of(**changes: Any) -> ModelSpec:
    """The model of `rows`; dotted paths written with two underscores change it."""
    content: dict[str, Any] = {
        "name": "m",
        "description": "d",
        "owner": {"team": "t", "contact": "c"},
        "tier": "main",
        "sensitivity": "non_sensitive",
        "source": {"table": "events", "timestamp": "at", "entity_key": "id"},
        "label": {"column": "y", "positive": 1, "meaning": "m"},
        "features": [{"name": "x", "type": "numeric"}, {"name": "k", "type": "categorical"}],
        "evaluation": {"gates": [{"metric": "roc_auc", "min": 0.6}]},
        "business": {"currency": "USD", "decision": "d", "true_positive": 1, "false_positive": -1},
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        section = content
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    return ModelSpec.model_validate(content)


def shipped(name: str) -> ModelSpec:
    return ModelSpec.model_validate(yaml.safe_load((ROOT / "configs" / "models" / f"{name}.yaml").read_text()))


@pytest.fixture(scope="module")
def sample_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"duckdb:///{ensure_sample_database(tmp_path_factory.mktemp('sample') / 's.duckdb', ROOT / 'data')}"


# --- what a snapshot is


def test_a_snapshot_is_typed_sorted_and_counts_what_it_left_out(put):
    frame = rows(6, x=[1, None, 3, 4, 5, 6], k=["a", None, "c", "a", "b", "c"], y=[1, 0, None, 1, 0, 1])
    frame.loc[6] = ["r99999", AS_OF.replace(tzinfo=None), 9, "a", 1]  # at as-of: not seen
    url = put(events=frame.sample(frac=1, random_state=0))
    snapshot = fetch(spec_of(label__delay="2h"), url, AS_OF, 0)
    assert snapshot.counts.to_dict() == {
        "in_window": 6, "not_yet_labelled": 1, "never_labelled": 1, "eligible": 4, "rows": 4,
    }  # fmt: skip
    assert {name: str(kind) for name, kind in snapshot.frame.dtypes.items()} == {
        "id": "object", "at": "datetime64[us, UTC]", "x": "float64", "k": "object", "y": "int8",
    }  # fmt: skip
    assert snapshot.frame["id"].tolist() == ["r00000", "r00001", "r00003", "r00004"]
    assert isinstance(snapshot.frame.index, pd.RangeIndex)
    assert snapshot.frame["k"].tolist() == ["a", None, "a", "b"]
    assert snapshot.frame["x"].isna().tolist() == [False, True, False, False]
    assert snapshot.name == content_name(snapshot.frame)
    assert (snapshot.as_of, snapshot.window_start) == (AS_OF, datetime(2020, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("moment", "seen"),
    [
        ("2019-12-31 23:59:59.999999", False),
        ("2020-01-01 00:00:00", True),
        ("2020-06-30 23:59:59.999999", True),
        ("2020-07-01 00:00:00", False),
        ("2021-01-01 00:00:00", False),
        (None, False),
    ],
)
def test_the_window_holds_its_first_moment_and_not_as_of(put, moment, seen):
    edge = rows(1, id=["edge"], at=pd.to_datetime([moment]))
    frame = pd.concat([rows(4), edge])
    assert ("edge" in fetch(spec_of(), put(events=frame), AS_OF, 0).frame["id"].tolist()) == seen


def test_another_window_is_read_as_it_was_known_and_never_beyond_that_moment(put):
    url = put(events=rows(40))
    whole = fetch(spec_of(), url, AS_OF, 0).frame["at"]
    first, last = whole.iloc[5].to_pydatetime(), whole.iloc[20].to_pydatetime()
    taken = fetch(spec_of(), url, AS_OF, 0, between=(first, last))
    assert taken.frame["at"].tolist() == whole.iloc[5:20].tolist()
    assert taken.window_start == first
    beyond = fetch(spec_of(), url, AS_OF, 0, between=(first, AS_OF + timedelta(days=9)))
    assert beyond.frame["at"].tolist() == whole.iloc[5:].tolist()
    with pytest.raises(ConfigError, match="a beginning before its end"):
        fetch(spec_of(), url, AS_OF, 0, between=(last, first))


@pytest.mark.parametrize(("minutes", "known"), [(60, True), (61, True), (59, False)])
def test_a_label_is_known_once_its_delay_has_passed_and_not_before(put, minutes, known):
    frame = rows(4, at=[datetime(2020, 6, 1)] * 4)
    frame.loc[4] = ["edge", AS_OF.replace(tzinfo=None) - timedelta(minutes=minutes), 0.0, "a", 1]
    snapshot = fetch(spec_of(label__delay="1h"), put(events=frame), AS_OF, 0)
    assert ("edge" in snapshot.frame["id"].tolist()) == known
    assert snapshot.counts.not_yet_labelled == (not known)


@pytest.mark.parametrize(
    ("labels", "positive", "expected"),
    [
        ([1, 0, None, 1], 1, [1, 0, 1]),
        ([1.0, 0.0, float("nan"), 0.0], 1, [1, 0, 0]),
        ([True, False, None, False], True, [1, 0, 0]),
        ([True, False, None, False], 1, [1, 0, 0]),
        ([True, False, None, False], False, [0, 1, 1]),
        (["yes", "no", None, "maybe"], "yes", [1, 0, 0]),
        ([1, 2, 2, 3], 2, [0, 1, 1, 0]),
        ([1, 2, 2, 3], "2", [0, 1, 1, 0]),
    ],
)
def test_the_label_is_one_for_the_positive_value_whatever_its_type(put, labels, positive, expected):
    frame = rows(4, y=pd.Series(labels, dtype=None if isinstance(labels[1], float) else object).infer_objects())
    snapshot = fetch(spec_of(label__positive=positive), put(events=frame), AS_OF, 0)
    assert snapshot.frame["y"].tolist() == expected


def test_nan_and_null_are_one_and_infinity_is_kept_for_quality_to_report(put):
    frame = rows(4, x=[np.nan, np.inf, -np.inf, 1.5])
    assert fetch(spec_of(), put(events=frame), AS_OF, 0).frame["x"].tolist()[1:] == [np.inf, -np.inf, 1.5]
    assert fetch(spec_of(), put(events=frame), AS_OF, 0).frame["x"].isna().tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3, 10], ["1", "2", "3", "10"]),
        ([1.0, 2.5, None, -0.0], ["1", "2.5", None, "0"]),
        ([True, False, True, True], ["true", "false", "true", "true"]),
        (["", "a,b", 'say "x"\nagain', "naïve ☃"], ["", "a,b", 'say "x"\nagain', "naïve ☃"]),
    ],
)
def test_categories_are_the_same_text_whatever_the_database_and_type(put, values, expected):
    assert fetch(spec_of(), put(events=rows(4, k=values)), AS_OF, 0).frame["k"].tolist() == expected


def test_the_key_is_text_and_doubled_keys_are_left_for_quality_to_report(put):
    frame = rows(6, id=[1, 1, 2, 3, 3, 3], at=[datetime(2020, 6, 1)] * 6)
    url = put(events=frame)
    first = fetch(spec_of(), url, AS_OF, 0)
    assert first.frame["id"].tolist() == ["1", "1", "2", "3", "3", "3"]
    put(events=frame.iloc[::-1])
    assert fetch(spec_of(), url, AS_OF, 0).name == first.name


def test_only_what_is_needed_is_taken_sensitive_group_and_expected_columns_included(put):
    frame = rows(10, sex=[1, 2] * 5, team=["u", "v"] * 5, paid=range(10), other=range(10))
    spec = spec_of(
        sensitive=[{"name": "gender", "column": "sex"}],
        training__split={"strategy": "grouped", "group": "team"},
        quality__expectations=[
            {"type": "ExpectColumnPairValuesAToBeGreaterThanB", "arguments": {"column_A": "paid", "column_B": "x"}}
        ],
    )
    taken = fetch(spec, put(events=frame), AS_OF, 0).frame
    assert taken.columns.tolist() == ["id", "at", "x", "k", "sex", "team", "paid", "y"]
    assert (taken["sex"].iloc[0], taken["paid"].iloc[3]) == ("1", 3.0)


def test_newest_row_is_the_latest_timestamp_that_where_leaves(put):
    url = put(events=rows(10))
    assert newest_row(spec_of(), url) == AS_OF - timedelta(hours=1)
    assert newest_row(spec_of(source__where="k = 'a' AND id < 'r00005'"), url) == AS_OF - timedelta(hours=7)
    with pytest.raises(DataError, match=r"events in .* has no row with a at"):
        newest_row(spec_of(source__where="k = 'nothing'"), url)


def test_derived_columns_may_use_earlier_ones_and_names_that_sql_reserves(put):
    frame = rows(10).rename(columns={"x": "order", "k": "Group By"})
    spec = spec_of(
        source__derived={"twice": "2 * order_value", "thrice": "twice + order_value"},
        features=[{"name": "thrice", "type": "numeric"}],
    )
    with pytest.raises(DataError, match=r"source.derived.twice: no column 'order_value'; nearest: order"):
        fetch(spec, put(events=frame), AS_OF, 0)
    spec = spec_of(
        source__derived={"twice": '2 * "order"', "thrice": 'twice + "ORDER"', "kind": 'upper("Group By")'},
        features=[{"name": "thrice", "type": "numeric"}, {"name": "kind", "type": "categorical"}],
    )
    taken = fetch(spec, put(events=frame), AS_OF, 0).frame
    assert np.allclose(taken["thrice"], 3 * frame["order"])
    assert set(taken["kind"]) == {"A", "B", "C"}


# --- the same through both databases


@pytest.mark.postgres
def test_both_shipped_models_give_the_same_snapshot_from_both_databases(sample_url, postgres_url):
    load_into_postgresql(postgres_url, ROOT / "data")
    for name, expected in (("flight_delay", 165_909), ("employment", 29_486)):
        spec = shipped(name)
        moment = newest_row(spec, sample_url)
        assert newest_row(spec, postgres_url) == moment
        here, there = fetch(spec, sample_url, moment, 0), fetch(spec, postgres_url, moment, 0)
        assert here.counts == there.counts
        assert here.counts.rows == expected
        pd.testing.assert_frame_equal(here.frame, there.frame)
        assert here.name == there.name


def test_the_shipped_flights_have_the_label_and_the_weather_of_the_files(sample_url):
    spec = shipped("flight_delay")
    snapshot = fetch(spec, sample_url, datetime(2013, 7, 1, tzinfo=UTC), 0)
    with duckdb.connect(sample_url.removeprefix("duckdb:///"), read_only=True) as connection:
        late = connection.execute(
            "SELECT avg(CAST(arr_delay > 15 AS INT)) FROM flights WHERE arr_delay IS NOT NULL "
            "AND time_hour + to_minutes(minute) <= TIMESTAMP '2013-06-30'"
        ).fetchone()[0]
        weather = connection.execute("SELECT origin, time_hour AS seen, temp FROM weather WHERE temp IS NOT NULL").df()
    assert snapshot.frame["late_arrival"].mean() == pytest.approx(late)
    assert not snapshot.frame["flight_id"].duplicated().any()
    known = weather.assign(known=weather["seen"].astype("datetime64[us]").dt.tz_localize("UTC") + pd.Timedelta("1h"))
    known["known"] = known["known"].astype("datetime64[us, UTC]")
    some = snapshot.frame.iloc[::997].sort_values("scheduled_departure")
    merged = pd.merge_asof(
        some, known.sort_values("known"), left_on="scheduled_departure", right_on="known", by="origin"
    )
    recent = (merged["scheduled_departure"] - merged["known"]) < pd.Timedelta("1h")
    assert recent.mean() > 0.99
    assert (merged["temperature"] == merged["temp"])[recent].all()


# --- the sample


def test_a_sample_is_the_same_each_time_and_another_with_another_seed(put):
    frame = rows(900)
    url = put(events=frame)
    spec = spec_of(source__max_rows=200)
    first = fetch(spec, url, AS_OF, 0)
    assert (first.counts.eligible, first.counts.rows, len(first.frame)) == (900, 200, 200)
    assert first.counts.sampled
    put(events=frame.sample(frac=1, random_state=1))
    assert fetch(spec, url, AS_OF, 0).name == first.name
    assert fetch(spec, url, AS_OF, 1).name != first.name
    assert fetch(spec_of(source__max_rows=900), url, AS_OF, 0).name == fetch(spec_of(), url, AS_OF, 5).name


@pytest.mark.postgres
def test_a_sample_is_the_same_rows_from_both_databases(tmp_path, postgres_url):
    frame, spec = rows(900), spec_of(source__max_rows=200)
    here = fetch(spec, put_duckdb(tmp_path / "s.duckdb", events=frame), AS_OF, 3)
    assert fetch(spec, put_postgresql(postgres_url, events=frame), AS_OF, 3).name == here.name


def test_a_sample_is_uniform_over_time_and_classes(tmp_path):
    url = put_duckdb(tmp_path / "s.duckdb", events=rows(4_000))
    taken = np.concatenate(
        [fetch(spec_of(source__max_rows=400), url, AS_OF, seed).frame["id"].str[1:].astype(int) for seed in range(10)]
    )
    counts = np.bincount(taken // 400, minlength=10)
    assert ((counts - 400) ** 2 / 400).sum() < 27.9  # chi-square, 9 degrees of freedom, one in a thousand
    assert abs((taken % 2).mean() - 0.5) < 0.05


def test_a_sample_never_exceeds_its_limit_and_keeps_rows_of_one_key_together(put):
    frame = rows(300, id=[f"c{i // 3}" for i in range(300)])
    taken = fetch(spec_of(source__max_rows=100), put(events=frame), AS_OF, 0).frame
    assert 90 < len(taken) <= 100
    assert set(taken.groupby("id").size()) == {3}


def test_a_sample_of_one_key_for_all_rows_is_refused(put):
    with pytest.raises(DataError, match="is id one value for many rows"):
        fetch(spec_of(source__max_rows=10), put(events=rows(50, id=["same"] * 50)), AS_OF, 0)


# --- joins

hours = st.integers(0, 12)
left_rows = st.lists(st.tuples(st.sampled_from(["a", "b", None]), hours), min_size=2, max_size=15)
right_rows = st.lists(
    st.tuples(st.sampled_from(["a", "b", None]), st.none() | hours, st.none() | st.integers(0, 5)), max_size=15
)


@given(left_rows, right_rows, st.sampled_from(["0m", "1h", "90m", "1d"]), st.sampled_from([None, "1h", "3h", "1d"]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_point_in_time_join_takes_what_merge_asof_takes_and_never_multiplies_rows(
    tmp_path, left, right, known_after, max_age
):
    start = datetime(2020, 6, 1)
    frame = rows(
        len(left),
        station=pd.Series([k for k, _ in left], dtype=object),
        at=[start + timedelta(hours=h) for _, h in left],
    )
    records = pd.DataFrame(
        {
            "station": pd.Series([k for k, _, _ in right], dtype=object),
            "seen": pd.Series(
                [None if h is None else start + timedelta(hours=h) for _, h, _ in right], dtype="datetime64[us]"
            ),
            "temp": pd.Series([v for _, _, v in right], dtype="float64"),
        }
    )
    spec = spec_of(
        source__joins=[_weather(known_after=known_after, **({"max_age": max_age} if max_age else {}))],
        features=[{"name": "temperature", "type": "numeric"}],
    )
    typed = records.astype({"station": "string"})
    url = put_duckdb(tmp_path / "s.duckdb", events=frame.astype({"station": "string"}), weather=typed)
    taken = fetch(spec, url, AS_OF, 0).frame.set_index("id")["temperature"]
    assert len(taken) == len(frame)

    # Of records with equal key and time the smallest value is taken, missing last.
    one = records.dropna(subset=["station", "seen"]).sort_values(["seen", "temp"], na_position="last")
    one = one.drop_duplicates(["station", "seen"])
    one = one.assign(known=(one["seen"] + pd.Timedelta(known_after.replace("m", "min"))).astype("datetime64[us]"))
    expected = pd.merge_asof(
        frame.dropna(subset=["station"]).astype({"at": "datetime64[us]"}).sort_values("at"),
        one.sort_values("known"),
        left_on="at", right_on="known", by="station",
    ).set_index("id")  # fmt: skip
    if max_age:
        expected.loc[expected["seen"] + pd.Timedelta(max_age) < expected["at"], "temp"] = np.nan
    expected_values = expected["temp"].reindex(taken.index)
    pd.testing.assert_series_equal(taken, expected_values, check_names=False)


def _weather(**changes: Any) -> dict[str, Any]:
    return {"table": "weather", "keys": ["station"], "timestamp": "seen", "columns": {"temperature": "temp"}, **changes}


def weather_case() -> tuple[pd.DataFrame, pd.DataFrame]:
    noon = datetime(2020, 6, 1, 12)
    frame = rows(5, station=["a", "a", "a", "b", None], at=[noon + timedelta(minutes=m) for m in (0, 59, 60, 60, 60)])
    seen = [noon - timedelta(hours=9), noon, noon, noon + timedelta(minutes=30)]
    return frame, pd.DataFrame({"station": ["a"] * 4, "seen": seen, "temp": [1.0, 7.0, 5.0, 9.0]})


def test_weather_is_joined_only_once_it_was_known_and_while_it_is_young(put):
    frame, weather = weather_case()
    spec = spec_of(
        source__joins=[_weather(known_after="1h", max_age="6h")], features=[{"name": "temperature", "type": "numeric"}]
    )
    taken = fetch(spec, put(events=frame, weather=weather), AS_OF, 0).frame.sort_values("id")["temperature"].tolist()
    # 12:00 and 12:59 know only the record of 03:00, too old; 13:00 knows noon's (the smaller of two); b has none
    assert [None if np.isnan(value) else value for value in taken] == [None, None, 5.0, None, None]


def test_a_look_up_adds_columns_and_keeps_rows_without_a_match(put):
    look_up = pd.DataFrame({"k": ["a", "b", None], "seats": [10, 20, 30]})
    spec = spec_of(
        source__joins=[{"table": "planes", "keys": ["k"], "columns": {"places": "seats"}}],
        source__derived={"many": "places > 10"},
        features=[{"name": "places", "type": "numeric"}, {"name": "many", "type": "categorical"}],
    )
    taken = fetch(spec, put(events=rows(6), planes=look_up), AS_OF, 0).frame
    assert taken["places"].tolist()[:2] == [10, 20]
    assert taken["many"].tolist() == ["false", "true", None] * 2


def test_rows_may_be_chosen_by_what_a_join_brings(put):
    look_up = pd.DataFrame({"k": ["a", "b"], "seats": [10, 20]})
    join = {"table": "planes", "keys": ["k"], "columns": {"places": "seats"}}
    spec = spec_of(source__joins=[join], source__where="places >= 10 AND x < 0.5")
    snapshot = fetch(spec, put(events=rows(60), planes=look_up), AS_OF, 0)
    assert set(snapshot.frame["k"]) == {"a", "b"}
    assert snapshot.counts.in_window == len(snapshot.frame)


def test_a_look_up_with_doubled_keys_names_table_key_and_count(put):
    look_up = pd.DataFrame({"k": ["a", "a", "a", "b", "b", "c"], "seats": range(6)})
    spec = spec_of(source__joins=[{"table": "planes", "keys": ["k"], "columns": {"places": "seats"}}])
    with pytest.raises(DataError, match=r"source.joins.planes: 2 keys stand more than once, k=a 3 times; accepted: "):
        fetch(spec, put(events=rows(6), planes=look_up), AS_OF, 0)


# --- what bad input gets


BAD: list[tuple[str, dict[str, Any], type[ProDecksError], str]] = [
    ("missing table", {"source__table": "evnts"}, DataError, r"no table 'evnts' in .*; nearest: events"),
    ("missing timestamp", {"source__timestamp": "att"}, DataError, r"source.timestamp \(events\): no column 'att'; nearest: at"),
    ("missing key", {"source__entity_key": "idd"}, DataError, r"source.entity_key \(events\): no column 'idd'; nearest: id"),
    ("renamed label", {"label__column": "yy"}, DataError, r"label.column \(events\): no column 'yy'; nearest: y"),
    (
        "renamed feature",
        {"features": [{"name": "price", "type": "numeric"}]},
        DataError,
        r"features \(events\): no column 'price'; .*k, note",
    ),
    ("text as number", {"features": [{"name": "k", "type": "numeric"}]}, DataError, r"k is string; accepted for a numeric"),
    ("text as time", {"source__timestamp": "k", "features": [{"name": "x", "type": "numeric"}]}, DataError, r"events.k is string; accepted: a timestamp or a date"),
    ("text label", {"label__column": "k", "label__positive": "zz", "features": [{"name": "x", "type": "numeric"}]}, DataError, r"none of 40 rows are 'zz'; it holds 'a' \(14"),
    ("word for a number", {"label__positive": "yes"}, DataError, r"'yes', but y is int\w+; accepted: a number"),
    ("one class", {"source__where": "y = 1"}, DataError, r"all of 20 rows are 1; it holds '1' \(20 rows\); accepted: a label"),
    ("no label yet", {"label__delay": "1y"}, DataError, r"40 rows in .* but no known label: 40 are younger than .* 1y, 0 have"),
    ("bad syntax", {"source__derived": {"z": "x +"}}, ConfigError, r"source.derived.z: 'x \+' is not SQL"),
    ("two statements", {"source__derived": {"z": "1; DROP TABLE events"}}, ConfigError, r"derived.z: .* has 2 statements"),
    ("a query", {"source__derived": {"z": "(SELECT 1)"}}, ConfigError, r"derived.z: .* contains a query"),
    ("an aggregate", {"source__derived": {"z": "sum(x)"}}, ConfigError, r"derived.z: .* contains an aggregate"),
    ("a window", {"source__derived": {"z": "lag(x) OVER (ORDER BY at)"}}, ConfigError, r"contains a window function"),
    ("the clock", {"source__derived": {"z": "now()"}}, ConfigError, r"no two fetches would agree"),
    ("chance", {"source__where": "random() < 0.5"}, ConfigError, r"source.where: .* chance"),
    ("nothing", {"source__where": " "}, ConfigError, r"source.where: ' ' has 0 statements"),
    ("a statement", {"source__where": "DROP TABLE events"}, ConfigError, r"source.where: .* is not an expression but drop"),
    ("closing the bracket", {"source__where": "1=1) OR (1=1"}, ConfigError, r"source.where: .* is not SQL"),
    ("a foreign table", {"source__where": "pg_user.x = 1"}, ConfigError, r"pg_user.x has a table name"),
    ("unknown function", {"source__derived": {"w": "x + 1", "z": "no_such(x)"}}, DataError, r"source.derived.z: .* cannot compute 'no_such\(x\)'"),
    ("not computable", {"source__derived": {"z": "CAST(k AS INTEGER)"}, "features": [{"name": "z", "type": "numeric"}]}, DataError, r"source.derived.z: .* cannot compute"),
    ("a taken name", {"source__derived": {"X": "x + 1"}}, ConfigError, r"is already a column of events"),
    ("missing look-up", {"source__joins": [{"table": "noten", "keys": ["k"], "columns": {"w": "v"}}]}, DataError, r"no table 'noten' in .*; nearest: notes"),
    ("missing look-up column", {"source__joins": [{"table": "notes", "keys": ["k"], "columns": {"w": "vv"}}]}, DataError, r"source.joins.notes \(notes\): no column 'vv'; nearest: v"),
    ("missing join key", {"source__joins": [{"table": "notes", "keys": ["kk"], "columns": {"w": "v"}}]}, DataError, r"no column 'kk'; nearest: k"),
    ("keys of two types", {"source__joins": [{"table": "notes", "keys": ["note"], "columns": {"w": "v"}}]}, DataError, r"key note is int\w+ in events and string in notes"),
    ("a group that is a number", {"sensitive": [{"name": "g", "column": "x"}]}, ConfigError, r"sensitive: g is the number x; accepted: a column of groups"),
    ("an expectation's column", {"quality__expectations": [{"type": "ExpectColumnToExist", "arguments": {"column": "notee"}}]}, DataError, r"quality.expectations \(events\): no column 'notee'; nearest: note"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "kind", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_input_gets_rule_value_and_what_is_accepted(bad_source, changes, kind, message):
    with pytest.raises(kind, match=message):
        fetch(spec_of(**changes), bad_source, AS_OF, 0)
    assert fetch(spec_of(), bad_source, AS_OF, 0).counts.rows == 40  # and the next run works


@pytest.fixture(scope="module", params=["duckdb", pytest.param("postgresql", marks=pytest.mark.postgres)])
def bad_source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    tables = {
        "events": rows(40, note=range(40)),
        "notes": pd.DataFrame({"k": ["a", "b"], "v": [1.0, 2.0], "note": ["1", "2"]}),
    }
    if request.param == "duckdb":
        yield put_duckdb(tmp_path_factory.mktemp("bad") / "s.duckdb", **tables)
        return
    server = request.getfixturevalue("postgres_server")
    server.execute("CREATE DATABASE bad_source")
    yield put_postgresql(server.url("bad_source"), **tables)
    server.execute("DROP DATABASE bad_source WITH (FORCE)")


def test_an_empty_window_says_what_the_table_covers(put):
    with pytest.raises(
        DataError,
        match=r"events has no rows in \[2018-07-01 00:00, 2019-01-01 00:00\) UTC; it covers 2020-06-29 12:00:00"
        r" to 2020-06-30 23:00:00; accepted: an as-of whose window of 6mo",
    ):
        fetch(spec_of(), put(events=rows(36)), datetime(2019, 1, 1, tzinfo=UTC), 0)


def test_an_empty_table_says_so(put):
    with pytest.raises(DataError, match="events has no rows with a at"):
        fetch(spec_of(), put(events=rows(4).iloc[:0].astype({"id": "string", "k": "string"})), AS_OF, 0)


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("mysql://u:s3cret@h/db", ConfigError, "scheme 'mysql'; accepted: duckdb:///path"),
        ("source.duckdb", ConfigError, "scheme 'none'; accepted: duckdb:///path"),
        ("duckdb://", ConfigError, "no path to a file"),
        ("duckdb:///no/such/file.duckdb", UnavailableError, "no/such/file.duckdb: no such file"),
        ("postgresql://u:s3cret@127.0.0.1:1/db", UnavailableError, "source 127.0.0.1:1/db does not answer"),
        ("postgresql://u:s3cret@127.0.0.1:port/db", UnavailableError, "does not answer: .*port"),
        ("postgresql://u:s3cret@[::1/db", ConfigError, "PostgreSQL cannot read it"),
        ("postgresql+psycopg2://u:s3cret@127.0.0.1:1/db", UnavailableError, "127.0.0.1:1/db does not answer"),
    ],
)
def test_a_source_that_is_down_or_misspelt_is_told_without_its_password(url, kind, message):
    import traceback

    with pytest.raises(kind, match=message) as caught:
        fetch(spec_of(), url, AS_OF, 0)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in "".join(traceback.format_exception_only(caught.value))


def test_a_file_that_is_no_database_is_unavailable(tmp_path):
    (tmp_path / "x.duckdb").write_bytes(b"not a database" * 1_000)
    with pytest.raises(UnavailableError, match="cannot be opened"):
        fetch(spec_of(), f"duckdb:///{tmp_path / 'x.duckdb'}", AS_OF, 0)


def test_as_of_without_a_zone_is_refused_and_another_zone_is_the_same_moment(put):
    url = put(events=rows(10))
    with pytest.raises(ConfigError, match="has no time zone; accepted: a UTC time"):
        fetch(spec_of(), url, datetime(2020, 7, 1), 0)
    tehran = pd.Timestamp(AS_OF).tz_convert("Asia/Tehran").to_pydatetime()
    assert fetch(spec_of(), url, tehran, 0).name == fetch(spec_of(), url, AS_OF, 0).name


def test_times_with_a_zone_and_dates_are_read_as_utc(put):
    frame = rows(40)
    url = put(events=frame)
    plain = fetch(spec_of(), url, AS_OF, 0)
    put(
        events=frame.assign(
            at=frame["at"].astype("datetime64[us]").dt.tz_localize("UTC").dt.tz_convert("America/New_York")
        )
    )
    assert fetch(spec_of(), url, AS_OF, 0).name == plain.name
    put(events=frame.assign(at=frame["at"].dt.date))
    assert fetch(spec_of(), url, AS_OF, 0).frame["at"].iloc[0] == pd.Timestamp("2020-06-29", tz="UTC")


def test_a_ten_megabyte_text_is_refused_by_name_and_size(put):
    frame = rows(4, k=["a", "b", "c", "x" * 10_000_000])
    with pytest.raises(DataError, match=rf"k holds a text of 10,000,000 bytes; accepted: at most {MAX_TEXT_BYTES:,}"):
        fetch(spec_of(), put(events=frame), AS_OF, 0)


@pytest.mark.postgres
def test_text_that_is_not_utf_8_is_a_clear_error(postgres_server):
    import psycopg2

    postgres_server.execute(
        "CREATE DATABASE raw_bytes ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    try:
        connection = psycopg2.connect(postgres_server.url("raw_bytes"))
        with connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE events (id int, at timestamp, x float8, k text, y int)")
            cursor.execute(
                r"INSERT INTO events SELECT i, '2020-06-01', i, 'ok', i %% 2 FROM generate_series(1, 9) t(i)", ()
            )
            cursor.execute(rb"INSERT INTO events VALUES (10, '2020-06-01', 1, E'caf\xe9', 1)")
        connection.close()
        with pytest.raises(DataError, match=r"(?i)utf-?8"):
            fetch(spec_of(), postgres_server.url("raw_bytes"), AS_OF, 0)
    finally:
        postgres_server.execute("DROP DATABASE raw_bytes WITH (FORCE)")


@pytest.mark.postgres
def test_fetching_needs_no_right_but_to_read(postgres_server, postgres_url):
    put_postgresql(postgres_url, events=rows(40))
    database = postgres_url.rsplit("/", 1)[1]
    postgres_server.execute(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC")  # temporary views included
    postgres_server.execute("CREATE ROLE only_reader LOGIN")
    postgres_server.execute(f"GRANT CONNECT ON DATABASE {database} TO only_reader")
    try:
        import psycopg2

        connection = psycopg2.connect(postgres_url)
        with connection, connection.cursor() as cursor:
            cursor.execute("GRANT SELECT ON events TO only_reader")
        connection.close()
        assert fetch(spec_of(), postgres_url.replace("postgres@", "only_reader@"), AS_OF, 0).counts.rows == 40
    finally:
        connection = psycopg2.connect(postgres_url)
        with connection, connection.cursor() as cursor:
            cursor.execute("DROP OWNED BY only_reader")
        connection.close()
        postgres_server.execute("DROP ROLE only_reader")


def test_many_readers_share_one_file(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    url = put_duckdb(tmp_path / "s.duckdb", events=rows(500))
    with ThreadPoolExecutor(4) as pool:
        names = set(pool.map(lambda _: fetch(spec_of(), url, AS_OF, 0).name, range(8)))
    assert len(names) == 1
