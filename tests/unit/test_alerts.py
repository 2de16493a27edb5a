"""Alerts as a state machine: opened once, told once, escalated step by step, folded, over, and never cried twice."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.model_files import load_file
from lifecycle.alerting import AlertingPolicy, Channel, Priority
from lifecycle.alerts import (
    Alert,
    AlertState,
    Kind,
    Notice,
    Silence,
    Target,
    World,
    acknowledge,
    decide,
    flapping,
    heard_of,
    resolve,
    targets_of,
    urgency,
)
from lifecycle.delivery import Delivered, Notification, delivered, failed, stand_in, unheard
from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.oncall import OnCall
from lifecycle.records import FindingRecord
from lifecycle.spec import Duration

POLICIES = Path(__file__).resolve().parents[2] / "configs" / "policies"
POLICY = load_file(POLICIES / "alerting.yaml", AlertingPolicy, {})
ONCALL = load_file(POLICIES / "oncall.yaml", OnCall, {})
PHONES = OnCall.model_validate(
    ONCALL.model_dump(mode="json")
    | {"people": {name: person.model_dump(mode="json") | {"phone": "+15550100000"} for name, person in ONCALL.people.items()}}
)  # fmt: skip
ACCOUNTS = frozenset(Channel) - {Channel.TERMINAL, Channel.FILE}
NOW = datetime(2026, 3, 2, 8, tzinfo=UTC)  # Monday, 11:30 in Tehran
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
P0, P1, P2, P3 = Priority
WORLD = World(POLICY, PHONES, ACCOUNTS, limits={"m": Duration("2d")})


def found(measure: str, value: float | None, at: datetime = NOW, **changes: Any) -> FindingRecord:
    usual: dict[str, Any] = {
        "measure": measure, "subject": "all rows", "value": value, "threshold": 0.1, "direction": Direction.AT_MOST,
        "window": "7 days", "verdict": Verdict.PASS, "reason": "because",
    }  # fmt: skip
    model = changes.pop("model", "m")
    return FindingRecord("run", "monitor", model, "1", at, Finding(**{**usual, **changes}))


@dataclass
class Play:
    """Alerts under a clock of their own."""

    world: World = WORLD
    alerts: dict[str, Alert] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)

    def tick(self, now: datetime, *findings: FindingRecord) -> list[Notice]:
        step = decide(self.alerts.values(), findings, self.world, now)
        self.alerts |= {alert.alert_id: alert for alert in step.changed}
        self.notices += step.notices
        return list(step.notices)

    @property
    def one(self) -> Alert:
        (alert,) = self.alerts.values()
        return alert

    def put(self, alert: Alert) -> None:
        self.alerts[alert.alert_id] = alert

    def kinds(self) -> list[Kind]:
        return [notice.kind for notice in self.notices]


def channels(notice: Notice) -> set[str]:
    return {target.channel.value for target in notice.targets}


# Opening and telling


@pytest.mark.requirement("R6.5", "R6.6")
@pytest.mark.parametrize(
    ("record", "priority", "told"),
    [
        (found("degradation", 0.06), P0, {"phone", "sms", "pagerduty"}),
        (found("degradation", 0.03), P1, {"sms", "email", "slack"}),
        (found("degradation", 0.015), P2, {"email", "slack"}),
        (found("score_trend", 1.0, verdict=Verdict.WARN), P3, {"slack"}),
    ],
)
def test_an_alert_opens_once_and_tells_the_first_level_by_the_plans_channels(record, priority, told):
    play = Play()
    (notice,) = play.tick(NOW, record)
    assert (notice.kind, notice.priority, notice.level, channels(notice)) == (Kind.OPENED, priority, 1, told)
    assert {target.person for target in notice.targets} == {"engineer_a"}
    assert play.tick(NOW + MINUTE, record) == []
    assert play.one.state is AlertState.OPEN


def test_findings_of_one_model_and_cause_are_one_alert_as_urgent_as_the_worst():
    play = Play()
    drifts = [found("kl_divergence", 0.2, subject=name, verdict=Verdict.WARN) for name in ("carrier", "dest")]
    (notice,) = play.tick(NOW, *drifts, found("kl_divergence", 0.2, subject="x", model="other", verdict=Verdict.WARN))[
        :1
    ]
    assert sorted(alert.model for alert in play.alerts.values()) == ["m", "other"]
    alert = next(one for one in play.alerts.values() if one.model == "m")
    assert [member.finding.subject for member in alert.members] == ["carrier", "dest"]
    assert notice.priority is P1


def test_what_passes_opens_nothing_and_no_data_ends_nothing():
    play = Play()
    assert play.tick(NOW, found("degradation", 0.001)) == []
    assert play.alerts == {}
    play.tick(NOW, found("degradation", 0.06))
    play.tick(NOW + HOUR, found("degradation", None, NOW + HOUR, verdict=Verdict.NO_DATA))
    assert [alert.state for alert in play.alerts.values() if alert.rule == "performance_degraded"] == [AlertState.OPEN]


# Escalation


@pytest.mark.requirement("R6.6")
@pytest.mark.parametrize(("value", "span"), [(0.06, 15 * MINUTE), (0.03, HOUR), (0.015, 4 * HOUR)])
def test_the_next_level_hears_when_the_response_time_is_over_each_once(value, span):
    world = replace(WORLD, policy=POLICY.model_copy(update={"quiet_hours": []}))
    play = Play(world)
    play.tick(NOW, found("degradation", value))
    levels = []
    moment = NOW
    while moment < NOW + 4 * span:
        moment += MINUTE
        levels += [(notice.level, moment - NOW) for notice in play.tick(moment)]
    expected = [(level, (level - 1) * span) for level in (2, 3, 4)]
    if value == 0.06:
        expected.append((4, 4 * span))  # the last level hears of a P0 until it is acknowledged
    assert levels == expected
    people = [notice.targets[0].person for notice in play.notices]
    assert people[:4] == ["engineer_a", "senior", "head", "cto"]
    assert len({notice.key for notice in play.notices}) == len(play.notices)


@pytest.mark.requirement("R6.4")
def test_information_stays_with_the_first_level():
    play = Play(replace(WORLD, policy=POLICY.model_copy(update={"quiet_hours": []})))
    play.tick(NOW, found("score_trend", 1.0, verdict=Verdict.WARN))
    assert [play.tick(NOW + timedelta(days=day)) for day in range(1, 9)] == [[]] * 8


def test_an_acknowledgement_stops_the_clock_until_it_gets_worse():
    play = Play()
    play.tick(NOW, found("degradation", 0.03))
    play.put(acknowledge(play.one, "Mina", "looking", NOW + MINUTE))
    assert play.tick(NOW + 9 * HOUR) == []
    (worse,) = play.tick(NOW + 10 * HOUR, found("degradation", 0.06, NOW + 10 * HOUR))
    assert (worse.kind, worse.priority, worse.level) == (Kind.RAISED, P0, 1)
    assert (play.one.state, play.one.person) == (AlertState.OPEN, "")
    # Less bad, and as bad again: it was told as P0 already.
    play.put(acknowledge(play.one, "Mina", "looking", NOW + 10 * HOUR))
    assert play.tick(NOW + 11 * HOUR, found("degradation", 0.03, NOW + 11 * HOUR)) == []
    assert play.one.priority is P1
    assert play.tick(NOW + 12 * HOUR, found("degradation", 0.06, NOW + 12 * HOUR)) == []


def test_an_acknowledgement_before_anybody_was_told_is_heard():
    play = Play()
    night = NOW.replace(hour=20)
    play.tick(night, found("degradation", 0.015, night))
    play.put(acknowledge(play.one, "Mina", "seen it", night))
    assert play.tick(night + 12 * HOUR) == []


def test_a_clock_that_runs_backwards_escalates_nothing():
    play = Play()
    play.tick(NOW, found("degradation", 0.06))
    assert play.tick(NOW - 24 * HOUR) == []
    assert [notice.level for notice in play.tick(NOW + 15 * MINUTE)] == [2]


def test_a_level_that_nobody_could_be_told_of_hands_over_at_once():
    play = Play()
    (notice,) = play.tick(NOW, found("degradation", 0.06))
    play.world = replace(WORLD, unheard=frozenset({notice.key}))
    (second,) = play.tick(NOW + MINUTE)
    assert (second.kind, second.level) == (Kind.ESCALATED, 2)
    assert play.tick(NOW + 2 * MINUTE) == []


# Being over


def test_an_alert_ends_by_itself_after_two_good_looks_and_says_so_to_those_who_were_told():
    play = Play()
    play.tick(NOW, found("degradation", 0.06))
    play.tick(NOW + 15 * MINUTE)
    assert play.tick(NOW + 20 * MINUTE, found("degradation", 0.001, NOW + 20 * MINUTE)) == []
    assert play.one.state is AlertState.OPEN
    (over,) = play.tick(NOW + 25 * MINUTE, found("degradation", 0.001, NOW + 25 * MINUTE))
    assert (over.kind, over.alert.state, channels(over)) == (Kind.RESOLVED, AlertState.RESOLVED, {"sms", "pagerduty"})
    assert {target.person for target in over.targets if target.channel is Channel.SMS} == {"engineer_a", "senior"}
    assert sum(target.channel is Channel.PAGERDUTY for target in over.targets) == 1
    assert play.tick(NOW + 2 * HOUR) == []


def test_a_value_just_inside_its_threshold_has_not_recovered():
    play = Play()
    play.tick(NOW, found("degradation", 0.015))
    for hour in range(1, 6):
        play.tick(NOW + hour * HOUR, found("degradation", 0.0095, NOW + hour * HOUR))
    assert play.one.state is AlertState.OPEN


def test_it_is_over_when_all_of_it_is():
    play = Play()
    drifted = {"value": 0.2, "verdict": Verdict.WARN}
    play.tick(NOW, found("psi", **drifted, subject="a"), found("psi", **drifted, subject="b"))
    for hour in (1, 2):
        at = NOW + hour * HOUR
        play.tick(at, found("psi", 0.01, at, subject="a"), found("psi", **drifted, at=at, subject="b"))
    assert [member.finding.subject for member in play.one.wrong(POLICY)] == ["b"]
    for hour in (3, 4):
        play.tick(NOW + hour * HOUR, found("psi", 0.01, NOW + hour * HOUR, subject="b"))
    assert play.one.state is AlertState.RESOLVED


def test_a_bad_finding_of_the_run_that_ended_the_rest_keeps_it_open():
    play = Play()
    play.tick(NOW, found("psi", 0.2, subject="a", verdict=Verdict.WARN))
    at = NOW + HOUR
    play.tick(at, found("psi", 0.01, at, subject="a"))
    at = NOW + 2 * HOUR
    play.tick(at, found("psi", 0.01, at, subject="a"), found("psi", 0.3, at, subject="z", verdict=Verdict.WARN))
    assert play.one.state is AlertState.OPEN


def test_old_findings_read_again_do_not_bring_back_what_is_over():
    play = Play()
    records = [found("degradation", value, NOW + hour * HOUR) for hour, value in enumerate((0.06, 0.001, 0.001))]
    play.tick(NOW + 2 * HOUR, *records)
    play.tick(NOW + 2 * HOUR, *records)
    play.tick(NOW + 2 * HOUR, records[0])
    assert [alert.state for alert in play.alerts.values()] == [AlertState.RESOLVED]


def test_what_a_person_resolved_comes_back_with_a_new_bad_finding_alone():
    play = Play()
    record = found("degradation", 0.06)
    play.tick(NOW, record)
    play.put(resolve(play.one, "Mina", "rolled back", NOW + MINUTE))
    (notice,) = play.tick(NOW + 2 * MINUTE, record)
    assert notice.kind is Kind.RESOLVED
    (again,) = play.tick(NOW + 30 * MINUTE, found("degradation", 0.06, NOW + 30 * MINUTE))
    assert (again.kind, again.alert.round) == (Kind.REOPENED, 1)


def test_long_after_its_end_the_same_trouble_is_a_new_alert():
    play = Play()
    play.tick(NOW, found("degradation", 0.06))
    first = play.one
    play.put(resolve(first, "Mina", "rolled back", NOW + MINUTE))
    play.tick(NOW + 3 * HOUR, found("degradation", 0.06, NOW + 3 * HOUR))
    assert len(play.alerts) == 2
    assert play.alerts[first.alert_id].state is AlertState.RESOLVED


def test_flapping_is_damped():
    play = Play()
    for minute in range(0, 8 * 60, 10):
        # Two good looks, one bad one, all day long.
        at = NOW + minute * MINUTE
        play.tick(at, found("psi", 0.2 if minute % 30 == 0 else 0.01, at, verdict=Verdict.WARN if minute % 30 == 0 else Verdict.PASS))  # fmt: skip
    assert play.kinds().count(Kind.RESOLVED) == POLICY.recovery.flaps
    assert play.kinds().count(Kind.REOPENED) == POLICY.recovery.flaps
    assert flapping(play.one, POLICY, NOW + 2 * HOUR)
    quiet = NOW + 14 * HOUR
    for minute in (0, 10):
        play.tick(quiet + minute * MINUTE, found("psi", 0.01, quiet + minute * MINUTE))
    assert play.one.state is AlertState.RESOLVED


# Folding


def test_a_downstream_alert_is_folded_under_its_cause_and_makes_it_as_urgent():
    play = Play()
    play.tick(NOW, found("psi", 0.2, verdict=Verdict.WARN))
    (notice,) = play.tick(NOW + HOUR, found("degradation", 0.06, NOW + HOUR))
    drift = next(alert for alert in play.alerts.values() if alert.rule == "data_drift")
    effect = next(alert for alert in play.alerts.values() if alert.rule == "performance_degraded")
    assert (effect.under, effect.step) == (drift.alert_id, 0)
    assert (notice.kind, notice.alert.rule, notice.priority) == (Kind.RAISED, "data_drift", P0)
    assert urgency(drift, play.alerts.values()) is P0
    # The cause is over, the effect is not: now it is told for itself.
    play.tick(NOW + 2 * HOUR, found("psi", 0.01, NOW + 2 * HOUR))
    told = play.tick(NOW + 3 * HOUR, found("psi", 0.01, NOW + 3 * HOUR))
    assert {(one.kind, one.alert.rule) for one in told} == {
        (Kind.RESOLVED, "data_drift"),
        (Kind.OPENED, "performance_degraded"),
    }


def test_other_models_fold_for_themselves():
    play = Play()
    play.tick(NOW, found("psi", 0.2, verdict=Verdict.WARN, model="other"))
    (notice,) = play.tick(NOW, found("degradation", 0.06))
    assert notice.alert.under is None


# Nobody is told yet


@pytest.mark.parametrize(("value", "told"), [(0.06, True), (0.03, True), (0.015, False)])
def test_what_can_wait_waits_for_the_end_of_quiet_hours(value, told):
    play, night = Play(), NOW.replace(hour=20)  # 23:30 in Tehran
    assert bool(play.tick(night, found("degradation", value, night))) is told
    if not told:
        assert play.tick(night + 7 * HOUR) == []
        assert [notice.kind for notice in play.tick(night + 7.5 * HOUR)] == [Kind.OPENED]


def test_a_silence_keeps_it_on_record_and_ends():
    silence = Silence(1, "m", "data_drift", "Mina", "summer", NOW, NOW + 59 * MINUTE)
    play = Play(replace(WORLD, silences=(silence,)))
    assert play.tick(NOW, found("psi", 0.2, verdict=Verdict.WARN)) == []
    assert play.one.state is AlertState.OPEN
    (other,) = play.tick(NOW, found("bias_change", 0.2))
    assert other.alert.rule == "bias_up"
    (late,) = play.tick(NOW + 59 * MINUTE)
    assert late.kind is Kind.OPENED


# No data


def test_no_data_for_longer_than_the_models_limit_is_an_alert_of_its_own():
    play, day = Play(), 24 * HOUR
    for hours in range(0, 48, 12):
        at = NOW + hours * HOUR
        assert play.tick(at, found("roc_auc", None, at, verdict=Verdict.NO_DATA)) == []
        assert play.one.state is AlertState.PENDING
    (notice,) = play.tick(NOW + 2 * day, found("roc_auc", None, NOW + 2 * day, verdict=Verdict.NO_DATA))
    assert (notice.alert.rule, notice.priority) == ("no_data", P2)
    for hour in (1, 2):
        play.tick(NOW + 2 * day + hour * HOUR, found("roc_auc", 0.8, NOW + 2 * day + hour * HOUR))
    assert play.one.state is AlertState.RESOLVED


def test_data_that_comes_back_in_time_starts_the_wait_anew():
    play = Play()
    for hours, verdict in [(0, "NO_DATA"), (36, "PASS"), (40, "NO_DATA"), (60, "NO_DATA")]:
        at = NOW + hours * HOUR
        assert play.tick(at, found("roc_auc", 0.8, at, verdict=Verdict[verdict])) == []
    assert [alert.state for alert in play.alerts.values()][-1] is AlertState.PENDING


def test_data_that_comes_and_goes_before_the_limit_is_not_flapping():
    play = Play()
    for minutes in range(0, 600, 10):
        at = NOW + minutes * MINUTE
        gone = minutes % 20 == 0
        play.tick(at, found("roc_auc", None if gone else 0.8, at, verdict=Verdict.NO_DATA if gone else Verdict.PASS))
    assert play.notices == []
    assert play.one.state is AlertState.RESOLVED


def test_a_model_without_a_limit_waits_for_ever():
    play = Play(replace(WORLD, limits={}))
    play.tick(NOW, found("roc_auc", None, verdict=Verdict.NO_DATA))
    assert play.tick(NOW + 1000 * HOUR) == []


def test_a_monitoring_that_stopped_is_noticed():
    play, limits = Play(), {"m": Duration("2d")}
    seen = {"m": NOW, "stranger": NOW}
    for hours in (0, 24, 47):
        now = NOW + hours * HOUR
        assert play.tick(now, *heard_of(seen, limits, now)) == []
    now = NOW + 48 * HOUR
    (notice,) = play.tick(now, *heard_of(seen, limits, now))
    assert notice.alert.members[0].key == ("findings", "monitoring")
    assert play.tick(now + MINUTE, *heard_of(seen, limits, now + MINUTE)) == []
    for hours in (49, 50):
        now = NOW + hours * HOUR
        play.tick(now, *heard_of({"m": now}, limits, now))
    assert play.one.state is AlertState.RESOLVED


# Ways to tell


@pytest.mark.requirement("R6.5")
@pytest.mark.parametrize(
    ("available", "expected"),
    [
        (ACCOUNTS, [("phone", None), ("sms", None), ("pagerduty", None)]),
        ({Channel.SMS, Channel.EMAIL}, [("sms", None), ("email", "phone")]),
        ({Channel.SLACK}, [("slack", "phone")]),
        ({Channel.PAGERDUTY}, [("pagerduty", None)]),
        (set(), [("terminal", None), ("file", None)]),
    ],
)
def test_a_channel_without_an_account_is_stood_in_for_and_somebody_is_always_told(available, expected):
    asked = POLICY.priorities[P0].channels
    found = targets_of(asked, "engineer_a", PHONES, POLICY.delivery.fallback, frozenset(available))
    assert [(one.channel.value, one.instead_of) for one in found] == expected


def test_a_person_without_a_phone_is_told_by_what_they_have():
    found = targets_of(POLICY.priorities[P0].channels, "cto", ONCALL, POLICY.delivery.fallback, ACCOUNTS)
    assert {one.channel for one in found} == {Channel.PAGERDUTY, Channel.SLACK, Channel.EMAIL}


def notification(channel: Channel, **changes: Any) -> Notification:
    made = Notification("n", Kind.OPENED, P0, 1, Target(channel, "engineer_a"), Delivered.PENDING, 0, NOW)
    return replace(made, **changes)


def test_a_failed_delivery_is_tried_again_after_longer_and_longer_waits_and_then_stood_in_for():
    one, waits = notification(Channel.PHONE), []
    while one.state is Delivered.PENDING:
        one = failed(one, "down", POLICY.delivery, NOW)
        waits.append((one.due - NOW).total_seconds())
    assert (one.attempts, waits) == (4, [10, 20, 40, 40])
    target = stand_in(one, [one], WORLD)
    assert target == Target(Channel.SLACK, "engineer_a", Channel.PHONE)
    everything = [notification(channel) for channel in Channel]
    assert stand_in(one, everything, WORLD) is None
    patient = POLICY.delivery.model_copy(update={"attempts": 99})
    assert failed(notification(Channel.SMS, attempts=50), "x", patient, NOW).due == NOW + timedelta(seconds=300)


def test_a_notice_is_unheard_when_every_way_was_tried_to_its_end():
    over = notification(Channel.SMS, state=Delivered.FAILED)
    assert unheard([over]) == {"n"}
    assert unheard([over, notification(Channel.PHONE)]) == frozenset()
    assert unheard([over, delivered(notification(Channel.PHONE), "taken")]) == frozenset()
    assert unheard([replace(over, kind=Kind.RESOLVED)]) == frozenset()
    assert unheard([]) == frozenset()


def test_an_alert_reads_back_equal():
    play = Play()
    play.tick(NOW, found("degradation", 0.06, interval=(0.05, 0.07)))
    play.put(acknowledge(play.one, "Mina", "looking", NOW))
    assert Alert.from_dict(play.one.to_dict()) == play.one
    bare = replace(play.one, told_priority=None, acknowledged_at=None, members=(), reopened=(NOW,))
    assert Alert.from_dict(bare.to_dict()) == bare


# Whatever happens

MEASURES = ("availability", "degradation", "psi", "schema", "bias_change", "roc_auc", "score_trend")
VALUES = st.sampled_from([None, 0.0, 0.005, 0.0095, 0.015, 0.03, 0.06, 0.5, 1.0])


@st.composite
def stories(draw: st.DrawFn) -> list[tuple[datetime, list[FindingRecord]]]:
    moment, told = NOW, []
    for _ in range(draw(st.integers(1, 8))):
        moment += timedelta(minutes=draw(st.integers(1, 600)))
        drawn = draw(st.lists(st.tuples(st.sampled_from(MEASURES), VALUES, st.sampled_from(list(Verdict)), st.sampled_from("ab")), max_size=5, unique_by=lambda one: (one[0], one[3])))  # fmt: skip
        told.append((moment, [found(measure, value, moment, verdict=verdict, subject=subject) for measure, value, verdict, subject in drawn]))  # fmt: skip
    return told


@settings(max_examples=50)
@given(stories())
def test_the_same_findings_twice_change_nothing(story):
    play, heard = Play(), []
    for now, findings in story:
        play.tick(now, *findings)
        heard += findings
        before = dict(play.alerts)
        assert play.tick(now, *findings) == []
        assert play.tick(now, *heard) == []
        assert play.alerts == before


@settings(max_examples=50)
@given(stories())
def test_no_step_of_escalation_is_told_twice_and_none_is_left_out(story):
    play = Play()
    for now, findings in story:
        for minute in range(0, 60, 20):
            play.tick(now + minute * MINUTE, *findings)
    keys = [notice.key for notice in play.notices]
    assert len(set(keys)) == len(keys)
    rounds: dict[tuple[str, int], list[int]] = {}
    for notice in play.notices:
        if notice.kind is not Kind.RESOLVED:
            rounds.setdefault((notice.alert.alert_id, notice.alert.round), []).append(notice.alert.step)
    for steps in rounds.values():
        assert steps == list(range(1, len(steps) + 1))


@settings(max_examples=50)
@given(stories())
def test_every_live_alert_is_told_as_urgently_as_its_worst_finding_unless_held(story):
    play = Play()
    for now, findings in story:
        play.tick(now, *findings)
        live = {alert.alert_id: alert for alert in play.alerts.values() if alert.live}
        keys = [(alert.model, alert.rule) for alert in live.values()]
        assert len(set(keys)) == len(keys)
        for alert in live.values():
            root = alert
            while root.under is not None:
                root = live[root.under]
            assert POLICY.held("m", urgency(root, live.values()), now) or (
                root.told_priority is not None and root.told_priority <= alert.priority
            )


@settings(max_examples=50)
@given(stories(), st.data())
def test_every_p0_is_delivered_or_loud_whatever_channels_fail(story, data):
    world = replace(WORLD, available=frozenset(data.draw(st.sets(st.sampled_from(sorted(ACCOUNTS))))))
    broken = data.draw(st.sets(st.sampled_from(list(Channel))))
    play = Play(world)
    outbox: dict[str, list[Notification]] = {}
    for start, findings in story:
        for minute in range(6):
            now = start + minute * MINUTE
            play.world = replace(world, unheard=unheard(one for rows in outbox.values() for one in rows))
            for notice in play.tick(now, *findings):
                assert notice.targets
                outbox[notice.key] = [
                    Notification(
                        notice.key, notice.kind, notice.priority, notice.level, target, Delivered.PENDING, 0, now
                    )
                    for target in notice.targets
                ]
            for rows in outbox.values():
                for position, one in enumerate(rows):
                    while rows[position].state is Delivered.PENDING:
                        broke = one.target.channel in broken
                        one = failed(one, "down", POLICY.delivery, now) if broke else delivered(one, "taken")
                        rows[position] = one
                        if one.state is Delivered.FAILED and (target := stand_in(one, rows, world)) is not None:
                            rows.append(replace(one, target=target, state=Delivered.PENDING, attempts=0))
    loud = unheard(one for rows in outbox.values() for one in rows)
    for key, rows in outbox.items():
        reached = any(one.state is Delivered.DELIVERED for one in rows)
        assert reached or key in loud or rows[0].kind is Kind.RESOLVED
        # Loud only where it had to be: no working way was left untried.
        if not reached:
            assert {one.target.channel for one in rows} <= broken
            usable = {one for one in world.available - broken if one in POLICY.delivery.fallback}
            assert not usable
