"""Runs that are cut short, run twice at once, or run out of disk: an answer, a record, and the next run works."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

from tests.cli.conftest import MODEL, ROOT, Place

pytestmark = [pytest.mark.slow, pytest.mark.requirement("R1.2", "R3.6")]

TRAIN = ("--pipeline", "train", "--model", "churn")
BUSY, UNAVAILABLE, INTERRUPTED = 6, 5, 130
TRIALS = 20


@pytest.fixture
def long_place(tmp_path) -> Place:
    """A place whose training takes long enough to be met in the middle."""
    return Place.make(tmp_path, model=MODEL.replace("trials: 1", f"trials: {TRIALS}"))


def finished_trials(place: Place) -> int:
    database = place.var / "tuning.db"
    if not database.exists():
        return 0
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        try:
            asked = "SELECT count(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED')"
            return int(connection.execute(asked).fetchone()[0])
        except sqlite3.OperationalError:  # not yet made, or being written
            return 0


def met_while_tuning(place: Place) -> subprocess.Popen[str]:
    """A training that has finished two trials more than there were."""
    before = finished_trials(place)
    process = place.start(*TRAIN)
    patience = time.monotonic() + 240
    while finished_trials(place) < before + 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < patience, "no trial finished"
        time.sleep(0.1)
    return process


def newest_states(place: Place) -> list[str]:
    return [run["state"] for run in place.run("runs", "--json").json]


def test_a_run_that_is_interrupted_or_killed_is_on_record_and_the_next_one_goes_on_where_it_stopped(long_place: Place):
    for sent in (signal.SIGINT, signal.SIGTERM):
        process = met_while_tuning(long_place)
        process.send_signal(sent)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (INTERRUPTED, ""), err
        assert "interrupted; run the same command to go on where it stopped" in err
        assert "Traceback" not in err
    assert newest_states(long_place) == ["interrupted"] * 2
    process = met_while_tuning(long_place)
    process.kill()
    process.communicate()
    assert 6 <= finished_trials(long_place) < TRIALS
    again = long_place.run(*TRAIN, "--json")
    assert (again.code, again.json["version"]) == (0, "1"), again.err
    assert finished_trials(long_place) == TRIALS
    assert newest_states(long_place) == ["succeeded", "abandoned", "interrupted", "interrupted"]


def test_two_runs_at_once_on_one_model_double_nothing(long_place: Place):
    both = [long_place.start(*TRAIN, "--json") for _ in range(2)]
    ended = [(process.communicate(timeout=500), process.returncode) for process in both]
    codes = sorted(code for _, code in ended)
    assert codes in ([0, 0], [0, BUSY]), ended
    for (_, err), code in ended:
        assert "Traceback" not in err
        assert code == 0 or "churn" in err
    assert [one["version"] for one in long_place.run("models", "versions", "churn", "--json").json] == ["1"]


def test_a_full_disk_is_told_and_the_next_run_works(place: Place):
    unshare = shutil.which("unshare")
    assert unshare, "needs util-linux"
    train = f"{sys.executable} run.py {' '.join(TRAIN)} --json"
    script = f"""
        mkdir {place.var} && mount -t tmpfs -o size=300m none {place.var}
        {train} > {place.folder}/first.json || exit 90
        head -c 400000000 /dev/zero > {place.var}/filler 2>{place.folder}/filled
        {train} --seed 5 --trials 2 > {place.folder}/full.out 2> {place.folder}/full.err
        echo $? > {place.folder}/full.code
        rm {place.var}/filler
        {train} --seed 5 --trials 2 > {place.folder}/next.json || exit 91
        {sys.executable} run.py runs --json > {place.folder}/runs.json
    """
    ended = subprocess.run(
        [unshare, "--map-root-user", "--mount", "sh", "-c", script],
        cwd=ROOT, env=place.environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    err = (place.folder / "full.err").read_text()
    assert int((place.folder / "full.code").read_text()) == UNAVAILABLE, err
    assert "no room left on the disk" in err
    assert "Traceback" not in err
    assert (place.folder / "full.out").read_text() == ""
