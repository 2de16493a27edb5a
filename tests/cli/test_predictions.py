"""The archive by command: what is finished moves, what no file keeps goes on record and is deleted, operate sees to it."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from pathlib import Path

import httpx
import pytest

from adapters.ops_store import OpsStore
from adapters.prediction_archive import PredictionArchive
from adapters.prediction_log import segments
from cli.predictions import Compaction
from cli.workspace import Workspace
from lifecycle.records import AuditRecord
from tests.adapters.test_prediction_archive import outcome, prediction, write
from tests.cli.conftest import MODEL, Place
from tests.cli.test_serve import serving

pytestmark = pytest.mark.requirement("R2.3", "R2.5")
DAY = 86_400.0


def trail(place: Place) -> list[AuditRecord]:
    found = OpsStore.open(f"sqlite:///{place.var / 'ops.db'}").audit_trail("churn")
    return [entry for entry in found if entry.action == "predictions deleted"]


def filled(place: Place, retention: str) -> Path:
    """A log of one old and one new day of the model, and of a model nobody has a file of."""
    (place.models / "churn.yaml").write_text(MODEL + f"retention: {{predictions: {retention}}}\n")
    folder, now = place.var / "serving", time.time()
    write(folder, [prediction("old", now - 40 * DAY), outcome("old", at=now - 40 * DAY), prediction("new", now)])
    write(folder, [prediction("strange", now - 4_000 * DAY, model="strange")])
    return folder


def test_finished_segments_move_and_what_is_kept_no_longer_is_deleted_on_record(place: Place):
    folder = filled(place, "30d")
    told = place.call("predictions", "compact", "--json")
    assert told.code == 0, told.err
    assert (told.json["records"], told.json["left_alone"]) == (4, ["strange"])
    assert [(one["kind"], one["rows"]) for one in told.json["deleted"]] == [("outcomes", 1), ("predictions", 1)]
    assert [entry.record.request_id for entry in PredictionArchive(folder).entries()] == ["new", "strange"]
    audited = trail(place)
    assert {entry.actor for entry in audited} == {"retention policy"}
    assert [entry.detail for entry in reversed(audited)] == told.json["deleted"]
    again = place.call("predictions", "compact")
    assert "0 records of 0 finished segments" in again.out
    assert "strange has no model file" in again.out
    assert len(trail(place)) == 2


def test_what_is_within_the_span_stays(place: Place):
    filled(place, "50d")
    assert place.call("predictions", "compact", "--json").json["deleted"] == []
    listed = place.call("predictions", "list", "--json").json
    assert (listed["through"], listed["log_segments"], len(listed["days"])) == (4, 1, 4)
    mine = place.call("predictions", "list", "--model", "strange").out
    assert "predictions" in mine
    assert "churn" not in mine
    assert "records up to 4" in mine


def test_nothing_is_deleted_that_cannot_be_put_on_record(place: Place):
    folder = filled(place, "30d")
    assert place.call("models", "--json").code == 0
    (place.var).mkdir(exist_ok=True)
    (place.var / "ops.db").write_text("no database")
    told = place.call("predictions", "compact")
    assert told.code != 0
    assert len(list(PredictionArchive(folder).entries())) == 4


def test_a_model_file_that_is_wrong_deletes_nothing_and_is_told(place: Place):
    folder = filled(place, "soon")
    told = place.call("predictions", "compact")
    assert told.code == 2
    assert "retention.predictions" in told.err
    assert len(list(PredictionArchive(folder).entries())) == 4


@pytest.mark.slow
def test_the_gateway_follows_its_policy_and_a_flag_goes_before_it(place: Place):
    policy = place.folder / "serving.yaml"
    policy.write_text("limits: {body_bytes: 100, rate: 1, burst: 2}\n")
    place.extra["PRODECKS_SERVING"] = str(policy)
    with serving(place, "--rate", "1000", "--burst", "1000") as gateway:
        many = [httpx.post(f"{gateway.address}/outcomes", json={"outcomes": []}).status_code for _ in range(20)]
        assert set(many) == {400}
        assert httpx.post(f"{gateway.address}/outcomes", json={"outcomes": [{}] * 100}).status_code == 413
    with serving(place) as gateway:
        several = [httpx.post(f"{gateway.address}/outcomes", json={"outcomes": []}).status_code for _ in range(20)]
        assert 429 in several


def test_a_policy_that_is_wrong_starts_no_gateway(place: Place):
    policy = place.folder / "serving.yaml"
    policy.write_text("limits: {rates: 1}\n")
    place.extra["PRODECKS_SERVING"] = str(policy)
    wrong = place.call("serve", "--port", "0")
    assert wrong.code == 2
    assert "did you mean 'rate'" in wrong.err


@pytest.mark.slow
def test_compaction_beside_operate_is_done_when_it_is_due_and_told_when_it_fails(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    told: list[str] = []
    beside = Compaction(Workspace.open("local"), told.append)
    beside.tick()
    beside.stop()
    archive = PredictionArchive(place.var / "serving")
    assert archive.compacted_at is None  # there is nothing to move
    filled(place, "50d")
    beside.tick()
    beside.wait()
    assert archive.through == 4
    at = archive.compacted_at
    beside.tick()
    beside.wait()
    assert archive.compacted_at == at  # it is not due yet
    os.utime(archive.folder / "lock", (0, 0))
    with archive._alone():
        os.utime(archive.folder / "lock", (0, 0))
        beside.tick()
        beside.wait()
    assert told == []  # somebody else was at it
    (archive.folder / "state.json").write_text("?")
    os.utime(archive.folder / "lock", (0, 0))
    beside.tick()
    assert beside._process is not None
    beside._process.wait(60)
    beside.tick()
    assert len(told) == 1
    assert "predictions were not compacted" in told[0]
    assert "state.json is damaged" in told[0]
    beside.stop()


@pytest.mark.slow
def test_operate_compacts_by_itself_and_goes_on_when_it_cannot(place: Place):
    folder = filled(place, "50d")
    looked = place.run("operate", "--once")
    assert looked.code == 0, looked.err
    assert len(segments(folder / "log")) == 1
    assert PredictionArchive(folder).through == 4
    write(folder, [prediction("later", time.time())])
    assert place.run("operate", "--once").code == 0
    assert PredictionArchive(folder).through == 4  # it is not due yet
    policy = place.folder / "serving.yaml"
    policy.write_text("archive: {every_seconds: 0.1}\n")
    place.extra["PRODECKS_SERVING"] = str(policy)
    (folder / "archive" / "state.json").write_text("?")
    process = place.start("operate", "--every", "0.2")
    assert process.stderr is not None
    told = [process.stderr.readline() for _ in range(3)]
    process.terminate()
    assert process.wait(20) in (0, 130)
    assert sum("predictions were not compacted" in line and "state.json is damaged" in line for line in told) == 2


def test_the_deletion_of_a_day_is_told_by_the_audit_trail_with_its_size(place: Place):
    filled(place, "30d")
    place.call("predictions", "compact")
    with sqlite3.connect(place.var / "ops.db") as connection:
        (subject,) = connection.execute(
            "SELECT subject FROM audit WHERE action = 'predictions deleted' LIMIT 1"
        ).fetchone()
    connection.close()
    assert re.fullmatch(r"outcomes of \d{4}-\d\d-\d\d", subject)
