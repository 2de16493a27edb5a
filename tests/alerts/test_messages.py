"""What people read: both languages, both calendars, clocks that change, and no secret of an account anywhere."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.alert_text import Story, moment, rendered
from adapters.notifiers import ACCOUNTS, Notifiers
from lifecycle.alerting import Channel, Priority
from lifecycle.alerts import Alert, AlertState, Kind, Member
from lifecycle.errors import ConfigError
from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.messages import Message
from lifecycle.oncall import Person
from tests.alerts.conftest import SHIPPED

NOW = datetime(2026, 3, 21, 8, 30, tzinfo=UTC)
ENGLISH = Person(name="A", timezone="Europe/Berlin")
PERSIAN = Person(name="ب", language="fa", calendar="jalali")


def member(subject: str = "carrier", value: float | None = 0.2, **changes: object) -> Member:
    finding = Finding("kl_divergence", subject, value, 0.1, Direction.AT_MOST, "last 7 days", Verdict.WARN, "far")
    return Member(replace(finding, **changes), NOW, NOW, NOW, Priority.P1)


def alert(*members: Member, rule: str = "data_drift") -> Alert:
    return Alert("0a1b2c3d4e", "flight_delay", rule, AlertState.OPEN, Priority.P1, NOW, NOW, members or (member(),))


STORY = Story(Kind.OPENED, Priority.P1, 1, "ML engineer on call")


@pytest.mark.requirement("R6.5")
def test_an_english_reader_gets_all_of_it():
    story = replace(
        STORY, kind=Kind.ESCALATED, level=2, values=(0.02, 0.05, 0.2), done=[(NOW, "rollout rolled_back flight_delay 4")],
        folded=[alert(member(), rule="bias_up")], picture=True,
    )  # fmt: skip
    made = rendered(alert(*(member(name) for name in "abcdefg")), story, SHIPPED, ENGLISH)
    assert made.title == "[P1, escalated] flight_delay: its inputs have drifted (a, b, c, ...)"
    for part in (
        "Since: 2026-03-21 09:30 (+01:00)", "kl_divergence (a): 0.2, accepted ≤ 0.1 [last 7 days]", "and 2 more", "▁▂█ now",
        "Likely cause: The world,", "Follows from it: flight_delay has become less fair (carrier)",
        "Done so far: 2026-03-21 09:30 (+01:00) rollout rolled_back flight_delay 4", "Level: 2 (ML engineer on call)",
        "Runbook: docs/runbooks/data_drift.md", "alerts ack 0a1b2c3d4e",
    ):  # fmt: skip
        assert part in made.text
    assert made.picture is not None
    assert made.facts["trend"] == "▁▂█"


@pytest.mark.requirement("R6.5")
def test_a_persian_reader_gets_jalali_dates_persian_digits_and_latin_names_that_keep_their_direction():
    made = rendered(alert(), STORY, SHIPPED, PERSIAN)
    assert "از: \u2068۱۴۰۵/۰۱/۰۱ ۱۲:۰۰ (+۰۳:۳۰)\u2069" in made.text  # the first day of the year
    assert "\u2068flight_delay\u2069: توزیع ورودی‌ها تغییر کرده است" in made.title
    assert "dir='rtl'" in made.html
    assert "\u2068" not in made.short
    assert made.speech.startswith("P1 alert, opened. flight_delay: its inputs have drifted")


@pytest.mark.parametrize(
    ("at", "shown"),
    [
        ("2026-03-29T00:59Z", "2026-03-29 01:59 (+01:00)"),
        ("2026-03-29T01:00Z", "2026-03-29 03:00 (+02:00)"),
        ("2026-10-25T00:30Z", "2026-10-25 02:30 (+02:00)"),
        ("2026-10-25T01:30Z", "2026-10-25 02:30 (+01:00)"),
    ],
)
def test_the_hour_that_comes_twice_is_told_apart(at, shown):
    assert moment(datetime.fromisoformat(at), ENGLISH) == shown


@settings(max_examples=25)
@given(
    st.sampled_from(list(Kind)), st.sampled_from([ENGLISH, PERSIAN]), st.sampled_from([rule.name for rule in SHIPPED.rules] + ["lost"]),
    st.one_of(st.none(), st.floats(allow_nan=False)), st.text(max_size=200), st.lists(st.floats(), max_size=3),
)  # fmt: skip
def test_whatever_was_found_can_be_told(kind, reader, rule, value, subject, values):
    story = replace(STORY, kind=kind, values=values, picture=True)
    over = replace(alert(member(subject, value, count=3), rule=rule), resolved_at=NOW)
    made = rendered(over, story, SHIPPED, reader)
    assert made.title
    assert made.text
    assert len(made.short) <= 160
    assert rendered(replace(over, members=()), story, SHIPPED, reader).title


# Accounts


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PRODECKS_SLACK_URL", "not-an-address-s3cret"),
        ("PRODECKS_SLACK_URL", "jsons://host/s3cret"),
        ("PRODECKS_TWILIO_URL", "twilio://s3cret"),
        ("PRODECKS_SMTP_URL", "https://s3cret@host"),
        ("PRODECKS_PAGERDUTY_URL", "pagerduty://"),
        ("PRODECKS_WEBHOOK_URL", "nothing://s3cret"),
    ],
)
def test_an_account_that_cannot_be_read_is_refused_without_its_secret(monkeypatch, caplog, tmp_path, variable, value):
    for name, _, _ in ACCOUNTS.values():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=f"{variable} cannot be read; accepted: ") as refused:
        Notifiers.from_environment(tmp_path / "alerts.log")
    assert "s3cret" not in str(refused.value) + caplog.text


MESSAGE = Message("title", "text", "<p>text</p>", "short", "speech", {"alert": "a", "priority": "P0"})


def test_a_channel_without_an_account_says_which_variable_is_missing(tmp_path):
    answer = Notifiers({}, tmp_path / "alerts.log").send(Channel.SLACK, None, MESSAGE, Kind.OPENED)
    assert (answer.ok, answer.detail) == (False, "no account; set PRODECKS_SLACK_URL")


def test_the_file_and_the_terminal_take_what_they_are_given_and_say_when_they_cannot(tmp_path: Path):
    terminal = StringIO()
    notifiers = Notifiers({}, tmp_path / "deep" / "alerts.log", terminal)
    assert notifiers.send(Channel.TERMINAL, None, MESSAGE, Kind.OPENED).ok
    assert notifiers.send(Channel.FILE, None, MESSAGE, Kind.OPENED).ok
    assert terminal.getvalue() == "title\ntext\n"
    (tmp_path / "file").write_text("")
    answer = Notifiers({}, tmp_path / "file" / "alerts.log").send(Channel.FILE, None, MESSAGE, Kind.OPENED)
    assert (answer.ok, "file: " in answer.detail) == (False, True)
