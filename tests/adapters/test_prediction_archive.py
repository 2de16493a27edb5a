"""The archive and the log together hold every record once, whatever was compacted, killed in between, or being read."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters import prediction_archive
from adapters.prediction_archive import Compacted, Partition, PredictionArchive, Tail
from adapters.prediction_log import (
    MAGIC,
    Entry,
    Outcome,
    Prediction,
    PredictionLog,
    Record,
    encode,
    read,
    segments,
)
from lifecycle.errors import BusyError, ConfigError, UnavailableError
from tests.adapters.test_prediction_log import kill

pytestmark = pytest.mark.requirement("R2.3", "R5.2")
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
NOW = MIDNIGHT.timestamp()
HOUR = 3_600.0


def prediction(request_id: str, at: float = NOW, **other: Any) -> Prediction:
    values: dict[str, Any] = {
        "model": "churn", "version": "1", "role": "live", "client": "c", "entity": f"e-{request_id}",
        "features": {"x": 0.5, "kind": "Köln", "none": None}, "score": 0.25, "decision": 0, "latency_ms": 1.25,
    }  # fmt: skip
    return Prediction(request_id=request_id, at=at, **{**values, **other})


def outcome(request_id: str, label: int = 1, at: float = NOW, **other: Any) -> Outcome:
    values: dict[str, Any] = {"entity": "", "model": "churn", "observed_at": at, "client": "c"}
    return Outcome(request_id=request_id, label=label, at=at, **{**values, **other})


def write(serving: Path, *lots: list[Record], through: float = math.inf) -> PredictionLog:
    """Each lot a segment of its own, and an open newest one with nothing in it; the log stays open.

    `through`: answers up to here are known to have left.
    """
    last = 0
    for lot in [*lots, []]:
        log = PredictionLog.open(serving / "log", first=PredictionArchive(serving).through + 1)
        if lot:
            last = log.append([encode(record) for record in lot], 0)
            log._write(0, 0, int(min(last, through)), b"")
        else:
            log._write(0, 0, 0, b"")
        kill(log)
    return log


def recorded(serving: Path) -> list[Entry]:
    return list(PredictionArchive(serving).entries())


def archived(serving: Path, kind: str = "predictions") -> pd.DataFrame:
    """What DuckDB reads, knowing nothing of this code."""
    pattern = serving / "archive" / kind / "*" / "*" / "*.parquet"
    query = f"SELECT * FROM read_parquet('{pattern}', hive_partitioning = true, union_by_name = true) ORDER BY sequence"
    return duckdb.sql(query).df()


def test_finished_segments_become_files_by_model_and_day_that_duckdb_and_pandas_read(tmp_path: Path):
    late = NOW + 25 * HOUR
    write(
        tmp_path,
        [prediction("a"), prediction("b", late), outcome("a", at=late)],
        [prediction("c", late, version="2", features={"x": "much", "y": 2.0}), prediction("d", model="other")],
    )
    assert PredictionArchive(tmp_path).compact() == Compacted(5, 2, 4)
    assert [path.name for path in segments(tmp_path / "log")] == [f"{6:020d}.log"]
    rows = archived(tmp_path)
    assert list(rows.request_id) == ["a", "b", "c", "d"]
    assert list(rows.model) == ["churn", "churn", "churn", "other"]
    assert [str(day)[:10] for day in rows.day] == ["2026-03-02", "2026-03-03", "2026-03-03", "2026-03-02"]
    assert list(rows["numeric_x"].fillna(-1)) == [0.5, 0.5, -1, 0.5]
    assert list(rows["categorical_x"].fillna("")) == ["", "", "much", ""]
    assert rows["numeric_y"].sum() == 2
    assert [list(one) for one in rows.missing] == [["none"], ["none"], [], ["none"]]
    assert pd.Timestamp(rows["at"][0]).timestamp() == NOW
    (labelled,) = archived(tmp_path, "outcomes").itertuples()
    assert (labelled.request_id, labelled.label) == ("a", 1)
    by_pandas = pd.read_parquet(tmp_path / "archive" / "predictions" / "model=churn")
    assert sorted(by_pandas.request_id) == ["a", "b", "c"]


def test_the_query_of_the_serving_guide_runs(tmp_path: Path):
    features = {"distance": 100.0, "wind_gust": None}
    write(
        tmp_path,
        [prediction("a", model="flight_delay", features=features), outcome("a", model="flight_delay")],
        [prediction("b", model="flight_delay", version="2", features={"distance": 300.0, "carrier": "AA"})],
    )
    PredictionArchive(tmp_path).compact()
    guide = (Path(__file__).resolve().parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    query = guide.split("```sql")[1].split("```")[0].replace("var/serving", str(tmp_path))
    assert sorted(duckdb.sql(query).fetchall()) == [("1", 0.25, 1.0, 100.0, 1), ("2", 0.25, None, 300.0, 0)]


def test_every_field_comes_back_as_it_went_in(tmp_path: Path):
    written: list[Record] = [
        prediction("a", 1_772_409_601.123457, features={"x": -0.0, "none": None, "kind": ""}, score=1 / 3),
        prediction("b", NOW + 0.1 + 0.2, role="shadow", score=None, decision=None, error="failed", features={}),
        outcome("", entity="e-a", observed_at=1.5, until=0.7),
        outcome("a", label=0, at=NOW + 0.000_000_3),
    ]
    write(tmp_path, written)
    PredictionArchive(tmp_path).compact()
    assert recorded(tmp_path) == [Entry(place + 1, one, True) for place, one in enumerate(written)]
    bare = list(PredictionArchive(tmp_path).entries(features=False))
    assert [entry.record.request_id for entry in bare] == ["a", "b", "", "a"]


def test_what_is_written_to_or_not_settled_stays_in_the_log(tmp_path: Path):
    log = PredictionLog.open(tmp_path / "log", segment_bytes=100)
    archive = PredictionArchive(tmp_path)
    log.append([encode(prediction("a"))], 0)
    assert archive.compact() == Compacted(0, 0, 0)  # it is the one being written
    log.append([encode(prediction("b"))], 0)
    assert archive.compact() == Compacted(0, 0, 0)  # nobody knows yet whether a's answer left
    log.append([encode(prediction("c"))], 1)
    assert archive.compact() == Compacted(1, 1, 1)
    log.close()
    assert [(entry.sequence, entry.record.request_id) for entry in recorded(tmp_path)] == [(1, "a"), (2, "b"), (3, "c")]
    assert archive.compact() == Compacted(2, 2, 1)
    assert archive.compact() == Compacted(0, 0, 0)


def test_marks_of_what_was_not_acknowledged_survive(tmp_path: Path):
    write(tmp_path, [prediction("a"), prediction("b"), prediction("c")], [prediction("d")], through=1)
    before = recorded(tmp_path)
    assert [entry.confirmed for entry in before] == [True, False, False, False]
    PredictionArchive(tmp_path).compact()
    assert recorded(tmp_path) == before
    assert list(archived(tmp_path).confirmed) == [True, False, False, False]


def test_marks_survive_openings_that_write_nothing_else(tmp_path: Path):
    write(tmp_path, [prediction("a"), prediction("b")], through=1)
    for _ in range(3):
        PredictionLog.open(tmp_path / "log").close()
    log = PredictionLog.open(tmp_path / "log")
    log.append([encode(prediction("c"))], 0)
    log.close()
    assert [entry.confirmed for entry in read(tmp_path / "log")] == [True, False, True]


def test_numbers_go_on_where_the_archive_ends(tmp_path: Path):
    """A gateway that was killed as it began a segment leaves one that is empty: the numbers before it are in the archive."""
    write(tmp_path, [prediction("a"), prediction("b")])
    PredictionArchive(tmp_path).compact()
    (left,) = segments(tmp_path / "log")
    left.write_bytes(MAGIC)
    log = PredictionLog.open(tmp_path / "log")
    assert log.append([encode(prediction("c"))], 0) == 3
    log.close()
    shutil.rmtree(tmp_path / "log")
    log = PredictionLog.open(tmp_path / "log", first=PredictionArchive(tmp_path).through + 1)
    assert log.append([encode(prediction("d"))], 0) == 3
    log.close()
    assert [entry.record.request_id for entry in recorded(tmp_path)] == ["a", "b", "d"]


def test_a_log_put_back_from_a_backup_takes_no_number_twice(tmp_path: Path):
    write(tmp_path, [prediction("a"), prediction("b")])
    shutil.copytree(tmp_path / "log", tmp_path / "backup")
    write(tmp_path, [prediction("c")])
    archive = PredictionArchive(tmp_path)
    archive.compact()
    shutil.rmtree(tmp_path / "log")
    (tmp_path / "backup").rename(tmp_path / "log")
    write(tmp_path, [prediction("d")])
    archive.compact()
    assert [(entry.sequence, entry.record.request_id) for entry in recorded(tmp_path)] == [
        (1, "a"), (2, "b"), (3, "c"), (4, "d"),
    ]  # fmt: skip
    assert len(segments(tmp_path / "log")) == 1


def test_a_segment_somebody_moved_away_costs_its_records_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write(tmp_path, [prediction("a")], [prediction("b")], [prediction("c")])
    segments(tmp_path / "log")[0].unlink()
    assert [entry.record.request_id for entry in recorded(tmp_path)] == ["b", "c"]
    assert "records 1 to 1 are neither in the archive nor in the log" in caplog.text


# Killed between any two writes

STEPS = {
    "fsync",
    "fdatasync",
    "replace",
    "unlink",
    "rename",
    "mkdir",
    "rmdir",
    "write",
    "write_batch",
    "close",
    "flock",
}


def dies(serving: str, step: int) -> None:
    """Compact, and be killed at one of the steps that touch the disk."""
    count = 0

    def trace(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        name = frame.f_code.co_name if event == "call" else getattr(argument, "__name__", "")
        if event in ("call", "c_call", "c_return") and name in STEPS:
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

    archive = PredictionArchive(Path(serving))
    sys.setprofile(trace)
    archive.compact()


def kill_at_each_step(tmp_path: Path, stride: int) -> int:
    """Kill a compaction at every so many steps until it gets to its end; how many steps there are."""
    whole = tmp_path / "whole"
    write(
        whole,
        [prediction("a"), outcome("a"), prediction("b", model="other")],
        [prediction("c", NOW + 25 * HOUR)],
        [prediction("d")],
        through=4,
    )
    expected = recorded(whole)
    assert [entry.confirmed for entry in expected] == [True, True, True, True, False]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pyarrow.parquet", __name__])
    for step in itertools.count(1, stride):
        serving = tmp_path / str(step)
        shutil.copytree(whole, serving)
        process = context.Process(target=dies, args=(str(serving), step))
        process.start()
        process.join(60)
        assert recorded(serving) == expected, step
        found = archived(serving) if list(serving.glob("archive/*/*/*/*.parquet")) else pd.DataFrame()
        if "sequence" in found:
            assert found.sequence.is_unique  # who reads the files alone meets no record twice either
        PredictionArchive(serving).compact()
        assert recorded(serving) == expected, step
        assert len(segments(serving / "log")) == 1
        assert not list(serving.glob("archive/**/*.new"))
        assert list(archived(serving).sequence) == [1, 3, 4, 5]
        if process.exitcode == 0:
            return step
        assert process.exitcode == -signal.SIGKILL
    raise AssertionError


def test_a_compaction_killed_here_and_there_neither_loses_a_record_nor_doubles_one(tmp_path: Path):
    assert kill_at_each_step(tmp_path, 19) > 100


@pytest.mark.slow
def test_a_compaction_killed_at_any_step_neither_loses_a_record_nor_doubles_one(tmp_path: Path):
    assert kill_at_each_step(tmp_path, 1) > 100


def test_other_stretches_after_a_kill_are_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What a killed compaction left has other bounds than what the next one makes."""
    write(tmp_path, [prediction("a")], [prediction("b")])
    with monkeypatch.context() as killed:
        killed.setattr(PredictionArchive, "_set_through", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        (tmp_path / "archive").mkdir()
        (tmp_path / "archive" / "state.json").write_text('{"format": 1, "through": 0}')
        with pytest.raises(KeyboardInterrupt):
            PredictionArchive(tmp_path).compact()
    assert len(archived(tmp_path)) == 2
    write(tmp_path, [prediction("c")])
    assert [entry.record.request_id for entry in recorded(tmp_path)] == ["a", "b", "c"]
    PredictionArchive(tmp_path).compact()
    assert list(archived(tmp_path).request_id) == ["a", "b", "c"]


def test_an_archive_that_lost_its_state_is_refused_and_not_thrown_away(tmp_path: Path):
    write(tmp_path, [prediction("a")])
    archive = PredictionArchive(tmp_path)
    archive.compact()
    state = tmp_path / "archive" / "state.json"
    kept = state.read_bytes()
    state.unlink()
    with pytest.raises(ConfigError, match="missing beside Parquet files"):
        archive.compact()
    for content, problem in ((b"{", "damaged"), (b'{"format": 9, "through": 1}', "format 9"), (b"[]", "damaged")):
        state.write_bytes(content)
        with pytest.raises(ConfigError, match=problem):
            archive.holdings()
    state.write_bytes(kept)
    assert len(recorded(tmp_path)) == 1


def test_a_disk_that_is_full_loses_nothing(tmp_path: Path):
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    import subprocess

    write(tmp_path, [prediction(str(number), features={"text": os.urandom(300).hex()}) for number in range(500)])
    before = recorded(tmp_path)
    disk = tmp_path / "archive"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
    try:
        with pytest.raises(UnavailableError, match="space"):
            PredictionArchive(tmp_path).compact()
        assert recorded(tmp_path) == before
    finally:
        subprocess.run(["umount", disk], check=True)
    PredictionArchive(tmp_path).compact()
    assert recorded(tmp_path) == before


def test_two_compactions_at_once_are_told_apart(tmp_path: Path):
    archive = PredictionArchive(tmp_path)
    assert archive.compacted_at is None
    with archive._alone(), pytest.raises(BusyError, match="held by another process"):
        PredictionArchive(tmp_path).compact()
    assert archive.compacted_at is not None


def test_a_damaged_segment_is_not_compacted_and_not_deleted(tmp_path: Path):
    write(tmp_path, [prediction("a")], [prediction("b")])
    path = segments(tmp_path / "log")[0]
    content = path.read_bytes()
    path.write_bytes(content[:40] + b"?" + content[41:])
    with pytest.raises(ConfigError, match="damaged"):
        PredictionArchive(tmp_path).compact()
    assert len(segments(tmp_path / "log")) == 3


def test_records_wait_in_bounded_memory_and_large_logs_become_several_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sizes: list[int] = []
    real = prediction_archive.batch_of

    def batch(entries: list[Entry], schema: pa.Schema) -> pa.RecordBatch:
        sizes.append(len(entries))
        return real(entries, schema)

    monkeypatch.setattr(prediction_archive, "batch_of", batch)
    monkeypatch.setattr(prediction_archive, "BUFFER_BYTES", 2_000)
    monkeypatch.setattr(prediction_archive, "STRETCH_BYTES", 30_000)
    lots = [
        [prediction(f"{lot}-{n}", NOW + n * HOUR, model="churn" if n % 3 else "other") for n in range(100)]
        for lot in range(4)
    ]
    write(tmp_path, *lots)
    before = recorded(tmp_path)
    assert PredictionArchive(tmp_path).compact().files > 4 * 2
    assert max(sizes) < 50
    assert recorded(tmp_path) == before


# Reading while it is compacted

Action = Callable[[], object]


def test_a_reader_misses_nothing_when_segments_leave_while_it_reads(tmp_path: Path):
    write(tmp_path, [prediction("a")], [prediction("b")], [prediction("c")], [prediction("d")])
    archive = PredictionArchive(tmp_path)
    for place in range(4):
        serving = tmp_path / str(place)
        shutil.copytree(tmp_path / "log", serving / "log")
        reader = PredictionArchive(serving).entries()
        found = [next(reader).record.request_id for _ in range(place)]
        PredictionArchive(serving).compact()
        assert found + [entry.record.request_id for entry in reader] == ["a", "b", "c", "d"]
    assert archive.through == 0


def test_a_tail_reads_each_record_once_whatever_leaves_the_log(tmp_path: Path):
    write(tmp_path, [prediction("old", NOW - 100 * HOUR), prediction("a")])
    archive = PredictionArchive(tmp_path)
    archive.compact()
    tail = Tail(archive, "churn", NOW - HOUR)
    assert [one.request_id for one in tail.new()] == ["a"]
    write(tmp_path, [prediction("x", model="other"), prediction("b")], [outcome("b")])
    assert [one.request_id for one in tail.new()] == ["b", "b"]
    archive.compact()
    assert list(tail.new()) == []
    write(tmp_path, [prediction("c")], [prediction("d")])
    archive.compact()
    write(tmp_path, [prediction("e")])
    assert [one.request_id for one in tail.new()] == ["c", "d", "e"]
    assert list(tail.new()) == []


def test_a_tail_of_nothing_waits(tmp_path: Path):
    tail = Tail(PredictionArchive(tmp_path), "churn")
    assert list(tail.new()) == []
    write(tmp_path, [prediction("a")])
    PredictionArchive(tmp_path).compact()
    assert [one.request_id for one in tail.new()] == ["a"]


@pytest.mark.parametrize("compacted", [False, True])
def test_a_tail_of_a_long_record_begins_with_its_first_and_its_newest(tmp_path: Path, compacted: bool):
    archive = PredictionArchive(tmp_path)
    write(tmp_path, [prediction("before", NOW - 2 * HOUR)])
    for lot in range(10):
        write(tmp_path, [prediction(f"{lot}-{n}") for n in range(20)])
        if compacted:
            archive.compact()
    tail = Tail(archive, "churn", NOW - HOUR, most=60)
    found = [one.request_id for one in tail.new()]
    assert found[:30] == [f"{lot}-{n}" for lot in range(2) for n in range(20)][:30]
    assert found[-20:] == [f"9-{n}" for n in range(20)]
    assert len(found) == len(set(found)) <= 90
    write(tmp_path, [prediction("new")])
    assert [one.request_id for one in tail.new()] == ["new"]


@pytest.mark.parametrize(("most", "least", "length"), [(0, 0, 2), (25, 20, 35), (60, 50, 75), (1_000, 100, 102)])
def test_the_newest_predictions_are_found_without_reading_all(tmp_path: Path, most: int, least: int, length: int):
    lots = [[prediction(f"{lot}-{n}") for n in range(20)] for lot in range(5)]
    archive = PredictionArchive(tmp_path)
    for lot in lots:
        write(tmp_path, lot)
        archive.compact()
    write(tmp_path, [prediction("new"), outcome("new")])
    found = [entry.record.request_id for entry in archive.recent(most)]
    assert found[-2:] == ["new", "new"]
    assert least <= len(found) - 2
    assert len(found) <= length


# Windows

ANYTIME = st.sampled_from([NOW + hours * HOUR for hours in (-30, -1, 0, 0.123456789, 25)])
IDS = st.sampled_from(["r1", "r2"])
VALUES = st.sampled_from([None, -0.0, 1.5, "", "Köln"])
PREDICTIONS = st.builds(
    prediction,
    IDS,
    ANYTIME,
    model=st.sampled_from(["churn", "churn", "other"]),
    role=st.sampled_from(["live", "candidate", "shadow"]),
    version=st.sampled_from(["1", "2"]),
    entity=st.sampled_from(["e1", "e2"]),
    features=st.dictionaries(st.sampled_from(["x", "y", "kind"]), VALUES),
    score=st.one_of(st.none(), st.floats(0, 1)),
)
OUTCOMES = st.builds(
    outcome,
    st.one_of(IDS, st.just("")),
    st.integers(0, 1),
    ANYTIME,
    entity=st.sampled_from(["e1", "e2"]),
    model=st.sampled_from(["churn", "churn", "other"]),
    until=st.one_of(st.none(), ANYTIME),
)
LOTS = st.lists(st.lists(st.one_of(PREDICTIONS, OUTCOMES), min_size=1, max_size=6), min_size=1, max_size=5)


def expected_labels(records: list[Entry], start: float, end: float) -> list[tuple[int, int | None]]:
    """The window by the definition, in plain Python."""
    mine = [entry for entry in records if entry.record.model == "churn"]
    made = [(entry.sequence, entry.record) for entry in mine if isinstance(entry.record, Prediction)]
    labels: dict[str, int] = {}
    for entry in mine:
        one = entry.record
        if not isinstance(one, Outcome) or one.at < start:
            continue
        name = one.request_id
        if not name:
            moment = one.observed_at if one.until is None else one.until
            met = [
                (found.at, sequence, found.request_id)
                for sequence, found in made
                if found.entity == one.entity and found.role != "shadow" and start <= found.at <= moment
            ]
            name = max(met)[2] if met else ""
        if name:
            labels.setdefault(name, one.label)
    return [(sequence, labels.get(one.request_id)) for sequence, one in made if start <= one.at < end]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lots=LOTS, cuts=st.sets(st.integers(0, 4)), window=st.tuples(ANYTIME, ANYTIME))
def test_a_window_has_the_same_rows_whatever_part_of_it_was_compacted(
    tmp_path_factory: pytest.TempPathFactory, lots: list[list[Record]], cuts: set[int], window: tuple[float, float]
):
    start, end = (datetime.fromtimestamp(math.floor(one), UTC) for one in sorted(window))
    folder = tmp_path_factory.mktemp("window")
    plain, mixed = folder / "plain", folder / "mixed"
    write(plain, *lots)
    for place, lot in enumerate(lots):
        write(mixed, lot)
        if place in cuts:
            PredictionArchive(mixed).compact()
    assert recorded(mixed) == recorded(plain)
    from_log = PredictionArchive(plain).scan("churn", start, end).read_all()
    from_both = PredictionArchive(mixed).scan("churn", start, end).read_all().sort_by("sequence")
    assert from_both.schema == from_log.schema
    assert from_both.equals(from_log)
    told = list(zip(from_both["sequence"].to_pylist(), from_both["label"].to_pylist(), strict=True))
    assert told == expected_labels(recorded(plain), start.timestamp(), end.timestamp())
    shutil.rmtree(folder)


def scanned(serving: Path, hours: float = 24) -> pd.DataFrame:
    return PredictionArchive(serving).scan("churn", MIDNIGHT, MIDNIGHT + timedelta(hours=hours)).read_pandas()


def test_a_label_that_comes_weeks_later_joins_and_the_first_of_two_counts(tmp_path: Path):
    weeks = NOW + 500 * HOUR
    write(tmp_path, [prediction("a"), prediction("b"), prediction("a", role="shadow", version="2")])
    PredictionArchive(tmp_path).compact()
    write(tmp_path, [outcome("a", 1, weeks)])
    PredictionArchive(tmp_path).compact()
    write(tmp_path, [outcome("a", 0, weeks)])
    found = scanned(tmp_path)
    assert list(found.label.fillna(-1)) == [1, -1, 1]
    assert found.labelled_at[0].timestamp() == weeks
    assert list(found["numeric_x"]) == [0.5, 0.5, 0.5]
    assert list(found["categorical_kind"]) == ["Köln", "Köln", "Köln"]


@pytest.mark.parametrize("compacted", [False, True])
def test_a_scan_reads_only_the_features_that_are_asked_for(tmp_path: Path, compacted: bool):
    write(tmp_path, [prediction("a"), outcome("a", 1, NOW)])
    if compacted:
        PredictionArchive(tmp_path).compact()
    found = (
        PredictionArchive(tmp_path).scan("churn", MIDNIGHT, MIDNIGHT + timedelta(hours=24), only={"kind"}).read_all()
    )
    assert [name for name in found.column_names if name.startswith(("numeric_", "categorical_"))] == [
        "categorical_kind"
    ]
    assert found["categorical_kind"].to_pylist() == ["Köln"]
    assert found["label"].to_pylist() == [1]


def test_the_first_of_two_labels_is_the_one_recorded_first_whatever_their_days(tmp_path: Path):
    write(tmp_path, [prediction("a"), outcome("a", 1, NOW + 30 * HOUR), outcome("a", 0, NOW)])
    before = scanned(tmp_path)
    PredictionArchive(tmp_path).compact()
    assert list(before.label) == list(scanned(tmp_path).label) == [1]


def test_an_outcome_of_an_entity_belongs_to_its_newest_prediction_up_to_then(tmp_path: Path):
    write(
        tmp_path,
        [prediction("a", NOW, entity="e"), prediction("b", NOW + HOUR, entity="e"), prediction("c", entity="other")],
        [outcome("", 1, NOW + 9 * HOUR, entity="e", until=NOW + HOUR / 2), outcome("", 0, NOW + 9 * HOUR, entity="e")],
    )
    assert list(scanned(tmp_path).label.fillna(-1)) == [1, 0, -1]


def test_a_window_is_what_was_on_record_when_it_was_asked_for(tmp_path: Path):
    write(tmp_path, [prediction("a")])
    reader = PredictionArchive(tmp_path).scan("churn", MIDNIGHT, MIDNIGHT + timedelta(hours=1))
    write(tmp_path, [prediction("b", features={"z": 1.0}), outcome("a")])
    PredictionArchive(tmp_path).compact()
    found = reader.read_pandas()
    assert list(found.request_id) == ["a"]
    assert found.label.isna().all()
    assert "numeric_z" not in found


def test_a_window_without_anything_has_no_rows(tmp_path: Path):
    assert len(scanned(tmp_path)) == 0
    write(tmp_path, [outcome("a")])
    assert len(scanned(tmp_path)) == 0


# Holdings and retention


def test_what_the_archive_holds_is_counted_and_a_day_can_be_deleted(tmp_path: Path):
    write(tmp_path, [prediction("a"), outcome("a"), prediction("b", NOW + 25 * HOUR)])
    archive = PredictionArchive(tmp_path)
    archive.compact()
    held = archive.holdings()
    assert [(one.partition.kind, one.partition.day, one.rows, one.files) for one in held] == [
        ("outcomes", date(2026, 3, 2), 1, 1),
        ("predictions", date(2026, 3, 2), 1, 1),
        ("predictions", date(2026, 3, 3), 1, 1),
    ]
    assert all(one.size > 0 for one in held)
    archive.forget(held[1].partition)
    assert [one.partition for one in archive.holdings()] == [held[0].partition, held[2].partition]
    assert list(scanned(tmp_path, 48).request_id) == ["b"]
    with pytest.raises(UnavailableError, match="cannot be deleted"):
        archive.forget(held[1].partition)


def test_a_day_that_is_deleted_while_it_is_read_is_left_out(tmp_path: Path):
    write(tmp_path, [prediction("a"), prediction("b", NOW + 25 * HOUR)])
    archive = PredictionArchive(tmp_path)
    archive.compact()
    reader = archive.scan("churn", MIDNIGHT, MIDNIGHT + timedelta(hours=48))
    archive.forget(archive.partitions()[0])
    assert list(reader.read_pandas().request_id) == ["b"]
    assert [entry.record.request_id for entry in archive.entries()] == ["b"]


def test_a_models_name_is_never_a_path():
    assert Partition("predictions", "../x", date(2026, 3, 2)).folder == "predictions/model=..%2Fx/day=2026-03-02"


@pytest.mark.requirement("R5.5")
def test_what_is_damaged_is_told_once_and_the_rest_is_read(tmp_path: Path):
    day = 24 * HOUR
    write(
        tmp_path,
        [prediction("a"), outcome("a"), prediction("b", NOW + day), prediction("x", model="other")],
        [prediction("c", NOW + 2 * day), outcome("c", at=NOW + 2 * day)],
    )
    archive, end = PredictionArchive(tmp_path), MIDNIGHT + timedelta(days=9)
    archive.compact()
    write(tmp_path, [prediction("d", NOW + 3 * day)], [prediction("e", NOW + 4 * day), outcome("e", at=NOW + 4 * day)])
    (parquet,) = tmp_path.glob("archive/predictions/model=churn/day=2026-03-03/*.parquet")
    parquet.write_bytes(parquet.read_bytes()[:200])
    with segments(tmp_path / "log")[-2].open("r+b") as segment:
        segment.seek(60)
        segment.write(b"\xff\xff")
    damaged: list[str] = []
    rows = archive.scan("churn", MIDNIGHT, end, damaged).read_pandas()
    assert list(rows.request_id) == ["a", "c"]  # the log says nothing any more
    assert list(rows.label) == [1, 1]
    assert len(damaged) == 2
    assert any(parquet.name in one for one in damaged)
    narrow = pd.concat([batch.to_pandas() for batch in archive.arrivals("churn", MIDNIGHT, end, [])])
    assert list(narrow.columns) == ["sequence", "at", "client", "version", "role"]
    assert len(narrow) == 2
    with pytest.raises(ConfigError, match="is damaged"):
        archive.scan("churn", MIDNIGHT, end).read_pandas()


def test_records_about_something_else_may_be_left_out(tmp_path: Path):
    write(tmp_path, [prediction("a"), prediction("x", model="other")], [prediction("y", model="other")])
    assert [entry.record.request_id for entry in read(tmp_path / "log", about="churn")] == ["a"]
