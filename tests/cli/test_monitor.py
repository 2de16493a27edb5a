"""`--pipeline monitor`, end to end: traffic on record, findings, alerts; and what bad traffic and bad requests get."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adapters.prediction_archive import PredictionArchive
from tests.cli.conftest import Answer
from tests.cli.watched import Watched
from tests.people import DAY, people

WEEK = 7 * DAY
START = datetime(2026, 3, 2, tzinfo=UTC)
MONITOR = ("--pipeline", "monitor", "--model", "churn")
EVERYTHING = ("--pipeline", "monitor", "--model", "all")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """Two quiet weeks in the archive, then one in which a feature is measured otherwise, in the log."""
    made = Watched.make(tmp_path_factory.mktemp("watched"))
    for number in range(2):
        made.answer(people(1_200, number), START + number * WEEK, START + (number + 1) * WEEK)
    PredictionArchive(made.serving).compact()
    drifted = people(1_200, 7)
    made.answer(people(1_200, 7, activity=drifted["activity"] + 2), START + 2 * WEEK, START + 3 * WEEK)
    return made


def look(watched: Watched, weeks: int, *more: str) -> Answer:
    """Monitor the week that ends so many weeks after the start."""
    return watched.world.place.call(*MONITOR, "--as-of", (START + weeks * WEEK).isoformat(), *more)


def wrong(told: dict[str, Any]) -> set[tuple[str, str]]:
    return {(one["measure"], one["subject"]) for one in told["findings"] if one["verdict"] in ("WARN", "FAIL")}


@pytest.mark.requirement("R2.4", "R5.1", "R5.3", "R6.2")
def test_from_traffic_to_an_alert_and_the_same_look_again_changes_nothing(watched: Watched):
    quiet = look(watched, 2, "--json")
    assert quiet.code == 0, quiet.err
    assert (quiet.json["state"], quiet.json["rows"], quiet.json["labelled_share"]) == ("monitored", 1_200, 1.0)
    assert wrong(quiet.json) == set()

    drifted = look(watched, 3)
    assert drifted.code == 0, drifted.err
    for part in ("wasserstein_distance", "activity", "drift", "python run.py alerts tick", "runs show monitor-churn-"):
        assert part in drifted.out
    place, runs = watched.world.place, len(watched.world.ops.runs("churn"))
    ticked = place.call("alerts", "tick", "--json")
    assert ticked.json["notices"] >= 1
    rules = {one["rule"] for one in place.call("alerts", "list", "--json").json}
    assert "data_drift" in rules

    findings, audit = watched.world.ops.findings(model="churn"), watched.world.ops.audit_trail("churn", 10_000)
    again = look(watched, 3, "--json")
    assert (again.code, again.json["state"]) == (0, "unchanged")
    assert ("wasserstein_distance", "activity") in wrong(again.json)
    assert len(watched.world.ops.runs("churn")) == runs
    assert watched.world.ops.findings(model="churn") == findings
    assert watched.world.ops.audit_trail("churn", 10_000) == audit
    assert place.call("alerts", "tick", "--json").json["notices"] == 0

    shown = place.call("runs", "show", again.json["run"], "--json").json
    assert shown["facts"]["versions"] == {"1": 1_200}

    from zenml.client import Client

    kept = {one.name: one for one in Client().list_artifact_versions(size=50, sort_by="desc:created").items}
    assert {f"churn_evidently_{kind}" for kind in ("summary", "drift", "classification")} <= kept.keys()
    page = kept["monitoring"].load()  # the oldest: of the quiet week
    assert "Nothing is wrong" in page


def test_one_model_that_cannot_be_looked_at_keeps_nobody_from_the_others(watched: Watched):
    place = watched.world.place
    (place.models / "broken.yaml").write_text("name: broken\n")
    (place.models / "idle.yaml").write_text(
        (place.models / "churn.yaml").read_text().replace("name: churn", "name: idle")
    )
    try:
        answer = place.call("--pipeline", "monitor", "--model", "all", "--as-of", (START + WEEK).isoformat(), "--json")
    finally:
        for name in ("broken", "idle"):
            (place.models / f"{name}.yaml").unlink()
    assert answer.code == 2, answer.err
    told = {one["model"]: one for one in answer.json}
    assert {name: one["state"] for name, one in told.items()} == {
        "broken": "failed", "churn": "monitored", "gateway": "monitored", "idle": "skipped",
    }  # fmt: skip
    assert "broken.yaml" in told["broken"]["detail"]
    assert watched.world.ops.runs("broken")[0].state.value == "failed"


def test_a_broken_partition_is_a_finding_and_the_other_days_are_used(watched: Watched):
    day = next(watched.serving.glob("archive/predictions/model=churn/day=2026-03-10/*.parquet"))
    content = day.read_bytes()
    day.write_bytes(content[: len(content) // 2])
    try:
        answer = look(watched, 2, "--json")
    finally:
        day.write_bytes(content)
    assert answer.code == 0, answer.err
    (damage,) = [one for one in answer.json["findings"] if one["measure"] == "quality_record"]
    assert damage["verdict"] == "FAIL"
    assert day.name in damage["reason"]
    assert 900 < answer.json["rows"] < 1_200


def test_outcomes_that_come_later_make_a_look_worth_repeating(watched: Watched):
    start = START + 10 * WEEK
    watched.answer(people(400, 3), start, start + WEEK, labels=0.2)
    before = look(watched, 11, "--json").json
    assert ("labelled_share", "all rows") in wrong(before)
    assert any(one["measure"] == "estimated_roc_auc_loss" for one in before["findings"])
    watched.answer(people(300, 4), start, start + WEEK, name="later")
    after = look(watched, 11, "--json").json
    assert (after["state"], after["rows"]) == ("monitored", 700)
    assert after["labelled_share"] > 0.5


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--model", "chrun"), "did you mean 'churn'?"),
        (("--window", "seven days"), "is not a duration"),
        (("--window", "0d"), "is no time at all"),
        (("--as-of", "soon"), "is no moment"),
        (("--as-of", "2999-01-01"), "lies in the future"),
        (("--stack", "lokal"), "lokal"),
        (("--gateway", "nowhere"), "an http or https address"),
        (("--trials", "3"), "--trials does not belong to --pipeline monitor; accepted: --window"),
    ],
)
def test_what_cannot_be_asked_is_an_answer(watched: Watched, arguments: tuple[str, ...], problem: str):
    answer = watched.world.place.call("--pipeline", "monitor", *arguments)
    assert answer.code == 2, answer
    assert problem in answer.err


def test_the_gateway_is_looked_at_once_for_all_models_and_its_silence_is_no_data(watched: Watched):
    told = {one["model"]: one for one in watched.world.place.call(*EVERYTHING, "--gateway", "http://127.0.0.1:1", "--json").json}  # fmt: skip
    (cpu,) = [one for one in told["gateway"]["findings"] if one["measure"] == "cpu_share"]
    assert cpu["verdict"] == "NO_DATA"
    assert "does not answer" in cpu["reason"]
    churn = told["churn"]
    assert churn["rows"] == 0
    assert {one["area"] for one in churn["findings"] if one["verdict"] == "NO_DATA"} >= {"drift", "model", "security"}
    assert not {"cpu_share", "memory_share", "unauthorized_access"} & {one["measure"] for one in churn["findings"]}


def test_a_look_that_was_killed_is_done_again(watched: Watched, monkeypatch: pytest.MonkeyPatch):
    from steps import watch_models

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    before = len(watched.world.ops.findings(model="churn"))
    with monkeypatch.context() as patched:
        patched.setattr(watch_models, "look", killed)
        answer = look(watched, 1, "--window", "3d")
    assert answer.code == 130
    ended = watched.world.ops.runs("churn")[0]
    assert (ended.state.value, len(watched.world.ops.findings(model="churn"))) == ("interrupted", before)
    again = look(watched, 1, "--window", "3d", "--json")
    assert (again.code, again.json["state"]) == (0, "monitored")
    # Later windows had findings, and a look back ends none of them.
    assert "over" not in {one["area"] for one in again.json["findings"]}


def test_a_reference_that_is_gone_is_told_and_the_rest_is_judged(watched: Watched):
    start = START + 20 * WEEK
    watched.answer(people(300, 5), start, start + WEEK, version="2", name="second")
    told = look(watched, 21, "--json").json
    assert told["versions"] == {"2": 300}
    (drift,) = [one for one in told["findings"] if one["measure"] == "drift"]
    assert (drift["verdict"], "registered before any was kept" in drift["reason"]) == ("NO_DATA", True)
    assert {one["measure"] for one in told["findings"] if one["verdict"] == "PASS"} >= {"error_rate", "missing_share"}


def test_refusals_of_the_gateway_reach_the_findings(watched: Watched):
    start = START + 30 * WEEK
    watched.answer(people(300, 6), start, start + WEEK)
    path = Path(watched.serving) / "security.log"
    refused = {"at": (start + DAY).timestamp(), "status": 401, "reason": "unknown key", "address": "10.0.0.9"}
    path.write_text("".join(json.dumps(refused) + "\n" for _ in range(200)) + '{"at": 17')
    place, end = watched.world.place, (start + WEEK).isoformat()
    told = place.call(*EVERYTHING, "--as-of", end, "--json").json
    gateway = next(one for one in told if one["model"] == "gateway")
    assert ("unauthorized_access", "10.0.0.9") in wrong(gateway)
    assert gateway["rows"] == 300
    again = place.call(*EVERYTHING, "--as-of", end, "--json").json
    assert {one["state"] for one in again} == {"unchanged"}
    place.call("alerts", "tick", "--json")
    breaches = [one["model"] for one in place.call("alerts", "list", "--json").json if one["rule"] == "security_breach"]
    assert breaches == ["gateway"]
