"""Each row of the plan's tables from finding to all-clear, through the real protocols, under a simulated clock."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from typing import Any

import pytest

from lifecycle.alerting import Channel, Priority
from lifecycle.alerts import AlertState
from lifecycle.errors import UnavailableError
from lifecycle.findings import Verdict
from lifecycle.spec import Duration
from tests.alerts.conftest import PHONES, SHIPPED, SHIPPED_ONCALL, Bench

WARN = {"verdict": Verdict.WARN}
PASS = {"verdict": Verdict.PASS}
AWAKE = SHIPPED.model_copy(update={"quiet_hours": []})
CHANNELS = {
    "P0": ["pagerduty", "phone", "sms"],
    "P1": ["email", "slack", "sms"],
    "P2": ["email", "slack"],
    "P3": ["slack"],
}
ROWS = [
    ("model completely down", "availability", 0.0, {}, "P0", 1.0),
    ("degradation > 5 %", "degradation", 0.06, {}, "P0", 0.0),
    ("security breach", "unauthorized_access", 40.0, {}, "P0", 0.0),
    ("degradation > 2 %", "degradation", 0.03, {}, "P1", 0.0),
    ("drift above its threshold", "wasserstein_distance", 0.2, WARN, "P1", 0.01),
    ("bias up by > 1 %", "bias_change", 0.02, {}, "P1", 0.0),
    ("degradation > 1 %", "degradation", 0.015, {}, "P2", 0.0),
    ("resource use > 80 %", "memory_share", 0.9, {}, "P2", 0.4),
    ("warning signs", "latency_p99_ms", 900.0, WARN, "P2", 0.05),
    ("information, trends", "score_trend", 0.2, WARN, "P3", 0.0),
]


@pytest.mark.requirement("R6.1", "R6.2", "R6.3", "R6.4", "R6.5", "R6.6")
@pytest.mark.parametrize(("measure", "value", "verdict", "priority", "good"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])  # fmt: skip
def test_a_row_of_the_plan_from_finding_to_all_clear(
    bench: Bench, measure: str, value: float, verdict: dict[str, Any], priority: str, good: float
):
    bench.policy = AWAKE
    bench.find(measure, value, **verdict)
    assert bench.look().unheard == ()
    assert bench.heard() == CHANNELS[priority]
    assert bench.one.priority == priority
    # Nothing is cried twice, and the next level hears when the response time is over.
    span = bench.policy.priorities[bench.one.priority].respond_within.after(bench.now) - bench.now
    bench.look(seconds=span.total_seconds() - 1)
    assert bench.heard() == []
    bench.look(seconds=1)
    escalated = [] if priority == "P3" else CHANNELS[priority]
    assert bench.heard() == escalated
    assert bench.one.told == (("engineer_a",) if priority == "P3" else ("engineer_a", "senior"))
    # Whoever takes it stops the clock.
    bench.store.acknowledge(bench.one.alert_id[:6], "Mina", "looking", bench.now)
    bench.look(seconds=min(10 * span.total_seconds(), 20 * 3600))
    assert bench.heard() == []
    # It ends by itself after two good looks; nobody is called for that.
    for _ in range(2):
        bench.now += timedelta(minutes=5)
        bench.find(measure, good, **PASS)
        bench.look()
    assert bench.one.state is AlertState.RESOLVED
    cleared = bench.heard()
    assert set(cleared) == set(CHANNELS[priority]) - {"phone"}
    (incident,) = bench.store.incidents(bench.now - timedelta(days=30))
    assert incident.answered_after == span
    assert incident.in_time(bench.policy, bench.now) is True
    assert bench.look(minutes=1).notices == 0


@pytest.mark.requirement("R6.6")
def test_a_p0_goes_through_all_four_levels_and_rings_the_last_until_it_is_taken(bench: Bench):
    bench.find("availability", 0.0)
    numbers = []
    for minute in range(0, 76, 5):
        bench.look(minutes=5 if minute else 0)
        numbers += [told["To"] for told in bench.receivers.of("phone")]
        bench.receivers.received.clear()
    order = [PHONES[name] for name in ("engineer_a", "senior", "head", "cto", "cto", "cto")]
    assert numbers == order
    steps = [event.detail["level"] for event in bench.store.timeline(bench.one.alert_id) if event.event == "notice"]
    assert steps == [1, 2, 3, 4, 4, 4]


@pytest.mark.requirement("R6.5")
def test_pagerduty_knows_one_incident_by_its_key_from_beginning_to_end(bench: Bench):
    bench.find("availability", 0.0)
    bench.look()
    bench.look(minutes=15)
    alert = bench.one
    assert bench.receivers.incidents[alert.alert_id] == "triggered"
    first, second = bench.receivers.of("pagerduty")
    assert first["dedup_key"] == second["dedup_key"] == alert.alert_id
    assert first["payload"]["severity"] == "critical"
    details = first["payload"]["custom_details"]
    assert (details["model"], details["rule"], details["runbook"]) == ("m", "model_down", "docs/runbooks/model_down.md")
    bench.store.resolve(alert.alert_id, "Mina", "restarted", bench.now)
    bench.look(minutes=1)
    assert bench.receivers.incidents[alert.alert_id] == "resolved"


@pytest.mark.requirement("R6.5")
def test_every_message_says_what_since_when_how_bad_why_what_was_done_and_where_to_read(bench: Bench):
    for value in (0.002, 0.004, 0.008):
        bench.find("degradation", value, **PASS)
        bench.now += timedelta(hours=1)
    bench.find("degradation", 0.03, threshold=0.1)
    bench.ops.start_run(
        pipeline="train", model="m", stack="local", trigger_kind="event", reason="degraded", requested_by="trigger",
        as_of=bench.now, now=bench.now, lease=timedelta(minutes=5),
    )  # fmt: skip
    bench.look()
    (slack,) = bench.receivers.of("slack")
    text = json.dumps(slack, ensure_ascii=False)
    assert "[P1]" in text
    for part in ("3.0%", "≤ ", "2.0%", "▁▁▂█", "docs/runbooks/performance_degraded.md", "alerts ack"):
        assert part in text.replace("۳.۰", "3.0").replace("۲.۰", "2.0"), part
    assert "run started train-m" in text
    assert "۱۴۰۴/۱۲/۱۱ ۱۴:۳۰ (+۰۳:۳۰)" in text  # the engineer on call reads Persian and Jalali dates
    (mail,) = bench.receivers.of("email")
    assert mail["to"] == ["engineer-a@example.com"]
    assert "dir=&#39;rtl&#39;" in mail["html"] or "dir='rtl'" in mail["html"] or 'dir="rtl"' in mail["html"]
    assert mail["picture"].startswith(b"\x89PNG")
    (sms,) = bench.receivers.of("sms")
    assert len(sms["Body"]) <= 160
    assert bench.one.alert_id in sms["Body"]


def test_the_phone_speaks_english_and_spells_the_alerts_name(bench: Bench):
    bench.find("availability", 0.0)
    bench.look()
    (call,) = bench.receivers.of("phone")
    assert call["Twiml"].startswith("<Response><Say>P0 alert, opened. m is completely down.")
    assert " ".join(bench.one.alert_id) in call["Twiml"]


def test_a_webhook_gets_the_facts(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PRODECKS_WEBHOOK_URL", "jsons://hooks.example.com/alerts")
    p3 = AWAKE.priorities[Priority.P3].model_copy(update={"channels": [Channel.WEBHOOK]})
    bench.policy = AWAKE.model_copy(update={"priorities": {**AWAKE.priorities, Priority.P3: p3}})
    bench.find("score_trend", 0.2, **WARN)
    bench.look()
    (told,) = bench.receivers.of("webhook")
    assert (told["alert"], told["priority"], told["value"]) == (bench.one.alert_id, "P3", "0.2")


def test_findings_of_other_pipelines_alert_nobody(bench: Bench):
    bench.find("degradation", 0.5, pipeline="train")
    assert bench.look().changed == 0


def test_monitoring_that_stopped_is_an_alert(bench: Bench):
    bench.find("degradation", 0.001, **PASS)
    bench.look()
    assert bench.look(hours=47).notices == 0
    assert bench.look(hours=1, minutes=1).notices == 1
    assert bench.one.rule == "no_data"


def test_a_silence_outlives_the_process_and_ends(bench: Bench):
    bench.store.silence("m", None, "Mina", "planned", bench.now, bench.now + timedelta(hours=2))
    bench.find("availability", 0.0)
    assert bench.look().notices == 0
    assert bench.look(minutes=119).notices == 0
    bench.look(minutes=1)
    assert bench.heard() == CHANNELS["P0"]


# What goes wrong


def test_slack_down_is_tried_again_and_stood_in_for(bench: Bench):
    bench.receivers.down.add("hooks.slack.com")
    bench.policy = AWAKE
    bench.find("score_trend", 0.2, **WARN)
    waits = [0, 10, 20, 40]
    for seconds in waits:
        assert bench.look(seconds=seconds).failed == 1
    assert bench.heard() == ["email"]
    rows = [one.notification for one in bench.store.outbox([bench.one.alert_id])]
    assert [(one.target.channel, one.state, one.attempts, one.target.instead_of) for one in rows] == [
        ("slack", "failed", 4, None),
        ("email", "delivered", 1, "slack"),
    ]
    assert "503" in rows[0].detail


def test_somebody_who_lost_their_number_since_is_told_otherwise(bench: Bench):
    bench.receivers.down.add("api.twilio.com")
    bench.find("availability", 0.0)
    bench.look()
    bench.oncall = SHIPPED_ONCALL
    bench.look(seconds=10)
    assert bench.heard() == ["email", "pagerduty", "slack"]
    rows = [one.notification for one in bench.store.outbox([bench.one.alert_id])]
    assert [one.detail for one in rows if one.state == "failed"] == [
        "engineer_a has no phone any more",
        "engineer_a has no sms any more",
    ]


def test_slack_that_comes_back_takes_the_message_once(bench: Bench):
    bench.receivers.down.add("hooks.slack.com")
    bench.policy = AWAKE
    bench.find("score_trend", 0.2, **WARN)
    bench.look()
    bench.receivers.down.clear()
    bench.look(seconds=10)
    bench.look(seconds=10)
    assert bench.heard() == ["slack"]


@pytest.mark.parametrize(
    ("variable", "before", "after", "channel"),
    [
        ("PRODECKS_TWILIO_URL", "fedcba98", "0edcba98", "sms"),
        ("PRODECKS_SMTP_URL", "5ecret", "5ecrets", "email"),
        ("PRODECKS_SLACK_URL", "ccccc1", "ccccc2", "slack"),
    ],
)
def test_wrong_credentials_are_told_without_them_and_stood_in_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    variable: str, before: str, after: str, channel: str,
):  # fmt: skip
    right = bench.receivers.environment[variable]
    monkeypatch.setenv(variable, right.replace(before, after))
    bench.find("degradation", 0.03)
    with caplog.at_level(logging.DEBUG):
        for seconds in (0, 10, 20, 40):
            bench.look(seconds=seconds)
    rows = [one.notification for one in bench.store.outbox([bench.one.alert_id])]
    lost = next(one for one in rows if one.target.channel == channel)
    assert (lost.state, lost.attempts) == ("failed", 4)
    assert channel not in bench.heard()
    kept = json.dumps([event.detail for event in bench.store.timeline(bench.one.alert_id)]) + caplog.text + lost.detail
    secret = right.replace(before, after)
    for piece in (secret, after, "0edcba9876543210fedcba9876543210", "mail-5ecrets", "ccccccccccccccccccccccc2"):
        if piece in secret:
            assert piece not in kept


def test_a_p0_that_nobody_could_be_told_of_is_loud_and_the_next_level_hears_at_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
):
    bench.receivers.down |= {"hooks.slack.com", "api.twilio.com", "events.pagerduty.com", "smtp"}
    bench.find("availability", 0.0)
    for seconds in (0, 10, 20, 40, 10, 20, 40):
        look = bench.look(seconds=seconds)
    assert look.unheard == (f"{bench.one.alert_id} m model_down",)
    assert "NOBODY WAS TOLD OF" in caplog.text
    bench.look(seconds=1)
    assert bench.one.step == 2
    bench.receivers.down.clear()
    assert bench.look(seconds=60).unheard == ()
    assert {"phone", "sms", "pagerduty"} <= set(bench.heard())


def test_a_text_that_cannot_be_filled_loses_no_page(bench: Bench, caplog: pytest.LogCaptureFixture):
    rule = AWAKE.rules[0]
    broken = rule.model_copy(update={"title": rule.title.model_copy(update={"en": "$nothing", "fa": "$nothing"})})
    bench.policy = AWAKE.model_copy(update={"rules": [broken, *AWAKE.rules[1:]]})
    bench.find("availability", 0.0)
    bench.look()
    assert bench.heard() == CHANNELS["P0"]
    assert "title of rule model_down cannot be filled: KeyError 'nothing'" in caplog.text


def test_a_channel_that_breaks_in_our_own_code_is_stood_in_for(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    def broken(*arguments: Any, **options: Any) -> None:
        raise OverflowError(bench.receivers.environment["PRODECKS_SMTP_URL"])

    # Only e-mail has a picture; everything else of the message is as it was.
    monkeypatch.setattr("adapters.alert_text._picture", broken)
    for value in (0.002, 0.03):
        bench.find("degradation", value)
        bench.now += timedelta(minutes=1)
    for seconds in (0, 10, 20, 40):
        bench.look(seconds=seconds)
    assert bench.heard() == ["phone", "slack", "sms"]
    lost = next(
        one.notification for one in bench.store.outbox([bench.one.alert_id]) if one.notification.state == "failed"
    )
    assert (lost.target.channel, lost.detail) == ("email", "OverflowError while it was written or sent")


def test_an_ops_store_that_is_gone_ends_the_look(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    bench.find("availability", 0.0)
    alerting = bench.alerting()

    def gone(*arguments: Any) -> None:
        raise UnavailableError("ops store: no room left on the disk")

    with monkeypatch.context() as patched:
        patched.setattr(alerting._store, "values", gone)
        with pytest.raises(UnavailableError):
            alerting.tick()
    bench.look(seconds=SHIPPED.delivery.claim)
    assert bench.heard() == CHANNELS["P0"]


def test_a_rule_that_the_policy_lost_is_still_told_and_ends(bench: Bench):
    bench.find("availability", 0.0)
    bench.receivers.down |= {"api.twilio.com", "events.pagerduty.com", "hooks.slack.com", "smtp"}
    bench.look()
    bench.receivers.down.clear()
    bench.policy = AWAKE.model_copy(update={"rules": AWAKE.rules[1:]})
    bench.look(seconds=10)
    assert set(bench.heard()) == set(CHANNELS["P0"])


class Killed(BaseException):
    """Stands for kill -9: nothing of ours may catch it."""


@pytest.mark.parametrize("moment", ["before sending", "after sending", "between two"])
def test_killed_in_the_middle_of_a_p0_it_is_delivered_at_least_once_and_each_step_is_taken_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, moment: str
):
    bench.find("availability", 0.0)
    alerting = bench.alerting()
    sends = iter(range(10))

    def dying(channel: Any, *arguments: Any) -> Any:
        number = next(sends)
        if moment == "between two" and number == 0:
            return send(channel, *arguments)
        if moment != "before sending":
            send(channel, *arguments)
        raise Killed

    send = alerting._notifiers.send
    monkeypatch.setattr(alerting._notifiers, "send", dying)
    with pytest.raises(Killed):
        alerting.tick()
    # The next process does at once what nobody had begun, and the rest when the claim of the dead has lapsed.
    bench.look(seconds=1)
    bench.look(seconds=SHIPPED.delivery.claim)
    heard = bench.receivers.channels()
    assert set(heard) == set(CHANNELS["P0"])
    assert len(heard) <= 4
    assert len(bench.receivers.incidents) >= 1
    notices = [event for event in bench.store.timeline(bench.one.alert_id) if event.event == "notice"]
    assert len(notices) == 1
    bench.look(minutes=13)
    notices = [event for event in bench.store.timeline(bench.one.alert_id) if event.event == "notice"]
    assert [event.detail["level"] for event in notices] == [1, 2]


def test_without_an_account_the_terminal_and_a_file_are_told(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    for name in bench.receivers.environment:
        monkeypatch.delenv(name)
    bench.find("availability", 0.0)
    look = bench.look()
    assert (look.sent, look.unheard) == (2, ())
    assert "[P0]" in bench.terminal.getvalue()
    (line,) = (bench.folder / "alerts.log").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["rule"] == "model_down"


def test_no_response_time_is_shorter_than_the_attempts_of_a_channel():
    waits = sum(min(SHIPPED.delivery.first_wait * 2**n, SHIPPED.delivery.longest_wait) for n in range(SHIPPED.delivery.attempts - 1))  # fmt: skip
    assert timedelta(seconds=waits) < timedelta(minutes=15)
    assert SHIPPED.priorities[Priority.P0].respond_within == Duration("15m")
