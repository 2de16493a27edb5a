"""The verbs as people and schedulers call them: what they print, and their exit codes."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from adapters.notifiers import ACCOUNTS
from adapters.ops_store import OpsStore
from lifecycle.findings import Direction, Finding, Verdict

POLICIES = Path(__file__).resolve().parents[2] / "configs" / "policies"


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Answer]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    from cli.main import main

    for name in [name for name in os.environ if name.startswith("PRODECKS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PRODECKS_VAR", str(tmp_path / "var"))
    monkeypatch.setenv("PRODECKS_POLICIES", str(tmp_path / "policies"))
    shutil.copytree(POLICIES, tmp_path / "policies")

    def call(*arguments: str) -> Answer:
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "argv", ["run.py", "alerts", *arguments])
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
        return Answer(int(ended.value.code or 0), out.getvalue(), err.getvalue())

    return call


@pytest.fixture
def found(run: Run, tmp_path: Path) -> Run:
    """A model is down, a minute ago."""
    assert run("tick").code == 0
    ops = OpsStore.open(f"sqlite:///{tmp_path / 'var' / 'ops.db'}")
    at = datetime.now(UTC) - timedelta(minutes=1)
    made = ops.start_run(
        pipeline="monitor", model="flight_delay", stack="local", trigger_kind="schedule", reason="r", requested_by="cron",
        as_of=at, now=at, lease=timedelta(hours=1),
    )  # fmt: skip
    down = Finding("availability", "all rows", 0.0, 0.99, Direction.AT_LEAST, "5 min", Verdict.FAIL, "it is 0")
    ops.record_findings(made.run_id, "service", [down], at, "flight_delay")
    ops.finish_run(made.run_id, "succeeded", "done", at)
    return run


@pytest.mark.requirement("R6.1", "R6.5")
def test_an_alert_from_tick_to_the_end_by_hand(found: Run, tmp_path: Path):
    ticked = found("tick", "--json")
    assert (ticked.code, ticked.json["notices"], ticked.json["sent"], ticked.json["unheard"]) == (0, 1, 2, [])
    assert "[P0]" in ticked.err
    assert "model_down" in (tmp_path / "var" / "alerts.log").read_text(encoding="utf-8")
    (alert,) = found("list", "--json", "--model", "flight_delay").json
    assert alert["rule"] in found("list").out
    name = alert["alert_id"]
    shown = found("show", name)
    for part in ("model_down", "availability", "docs/runbooks/model_down.md", "terminal", "engineer_a", "notice"):
        assert part in shown.out
    assert found("ack", name, "--by", "Mina", "--reason", "looking").code == 0
    again = found("ack", name, "--by", "Ali", "--reason", "me too")
    assert (again.code, "is acknowledged by Mina" in again.err) == (2, True)
    assert found("resolve", name, "--by", "Mina", "--reason", "restarted", "--json").json["state"] == "resolved"
    assert found("list", "--json").json == []
    assert found("list", "--all", "--json").json[0]["state"] == "resolved"
    told = found("show", name, "--json").json
    assert [event["event"] for event in told["timeline"]][-1] == "resolved"
    incidents = found("incidents", "--json").json
    assert (incidents["share_in_time"], incidents["incidents"][0]["in_time"]) == (1.0, True)
    assert "100.0% answered in time" in found("incidents", "--last", "7d").out


def test_a_p0_that_reaches_nobody_ends_with_its_own_exit_code(
    found: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # An account whose other end is not there, one attempt, and nothing to fall back on.
    monkeypatch.setenv("PRODECKS_WEBHOOK_URL", "json://127.0.0.1:1/nobody")
    path = tmp_path / "policies" / "alerting.yaml"
    path.write_text(path.read_text().replace("attempts: 4", "attempts: 1"))
    answer = found("tick")
    assert answer.code == 7
    assert "nobody could be told of" in answer.err
    assert "accepted: one working channel" in answer.err
    name = found("list", "--json").json[0]["alert_id"]
    assert "webhook instead of phone" in found("show", name).out
    # Somebody who looked by themselves has heard.
    assert found("ack", name, "--by", "Mina", "--reason", "seen it").code == 0
    assert found("tick").code == 0


def test_a_silence_holds_back_and_is_listed(found: Run):
    made = found("silence", "--model", "flight_delay", "--for", "4h", "--by", "Mina", "--reason", "planned")
    assert (made.code, "silence 1: flight_delay, any rule" in made.out) == (0, True)
    assert found("tick", "--json").json["notices"] == 0
    assert "planned" in found("list").out
    assert (
        found("silence", "--rule", "no_data", "--for", "1d", "--by", "M", "--reason", "r", "--json").json["rule"]
        == "no_data"
    )


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (("show", "nothing"), "no alert begins with 'nothing'"),
        (("silence", "--model", "flight_dela", "--for", "4h", "--by", "M", "--reason", "r"), "did you mean 'flight_delay'"),
        (("silence", "--rule", "datadrift", "--for", "4h", "--by", "M", "--reason", "r"), "did you mean 'data_drift'"),
        (("silence", "--for", "4h", "--by", "M", "--reason", "r"), "a silence of everything"),
        (("silence", "--rule", "no_data", "--for", "soon", "--by", "M", "--reason", "r"), "--for: 'soon' is not a duration"),
        (("incidents", "--last", "x"), "--last: 'x' is not a duration"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_with_what_is_accepted(run: Run, arguments: tuple[str, ...], answer: str):
    refused = run(*arguments)
    assert refused.code == 2
    assert answer in refused.err


def test_check_says_who_is_on_call_and_which_accounts_are_missing(run: Run, monkeypatch: pytest.MonkeyPatch):
    shown = run("check")
    assert shown.code == 0
    for variable, _, _ in ACCOUNTS.values():
        assert f"no account: {variable}" in shown.out
    monkeypatch.setenv("PRODECKS_WEBHOOK_URL", "jsons://hooks.example.com/alerts")
    told = run("check", "--json").json
    assert told["accounts"] == ["webhook"]
    assert told["on_call"]["models"][1:] == ["senior", "head", "cto"]


def test_check_finds_a_route_to_nobody_and_a_policy_that_is_wrong(run: Run, tmp_path: Path):
    path = tmp_path / "policies" / "alerting.yaml"
    text = path.read_text()
    path.write_text(text.replace("route: {team: models}", "route: {team: models, routes: [{team: nobody}]}"))
    assert "route to team 'nobody'; accepted: models" in run("check").err
    path.write_text(text.replace("respond_within: 15m", "respond_within: soon"))
    wrong = run("check")
    assert wrong.code == 2
    assert "alerting.yaml" in wrong.err
    assert "priorities.P0.respond_within" in wrong.err


def test_a_model_file_that_is_wrong_keeps_nobody_from_being_told(
    found: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "broken.yaml").write_text("name: [")
    monkeypatch.setenv("PRODECKS_MODELS", str(tmp_path / "models"))
    assert found("tick", "--json").json["sent"] == 2
