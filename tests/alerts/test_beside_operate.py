"""Alerting beside `operate`: what goes wrong is told and stops nothing, and any number may look at once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.ops_store import OpsStore
from cli.alerting import Alerting, AlertingBeside, require_heard
from lifecycle.delivery import Delivered
from lifecycle.errors import ConfigError, UnavailableError, UnheardError
from tests.alerts.conftest import Bench
from tests.alerts.receivers import PAGERDUTY, TWILIO, Receivers

pytestmark = pytest.mark.requirement("R6.1", "R6.5")


def test_what_goes_wrong_is_told_when_it_begins_or_changes_and_when_it_is_over(bench: Bench):
    causes: list[Exception | None] = [
        ConfigError("alerting.yaml: no such rule"), ConfigError("alerting.yaml: no such rule"),
        UnavailableError("the ops store does not answer"), RuntimeError("password=hunter22"), None, None,
    ]  # fmt: skip
    told: list[str] = []

    def alerting(warn: Callable[[str], None]) -> Alerting:
        if (cause := causes.pop(0)) is not None:
            raise cause
        return bench.alerting()

    beside = AlertingBeside(alerting, told.append)
    bench.find("availability", 0.0)
    assert [beside.look() for _ in range(len(causes))] == [()] * 6
    assert told[:2] == ["alerting: alerting.yaml: no such rule", "alerting: the ops store does not answer"]
    assert told[2].startswith("alerting: RuntimeError: ")
    assert "hunter22" not in told[2]
    assert told[3:] == ["alerting: well again"]
    assert bench.heard() == ["pagerduty", "phone", "sms"]


def test_a_model_file_that_is_wrong_is_told_once_and_alerts_go_on(bench: Bench):
    def alerting(warn: Callable[[str], None]) -> Alerting:
        warn("models/m.yaml: tier is third")
        return bench.alerting()

    told: list[str] = []
    beside = AlertingBeside(alerting, told.append)
    bench.find("availability", 0.0)
    beside.look()
    beside.look()
    assert told == ["alerting: models/m.yaml: tier is third"]
    assert bench.heard() == ["pagerduty", "phone", "sms"]


def test_a_p0_that_nobody_heard_is_handed_back(bench: Bench):
    bench.policy = bench.policy.model_copy(
        update={"delivery": bench.policy.delivery.model_copy(update={"attempts": 1, "fallback": ()})}
    )
    bench.receivers.down |= {TWILIO, PAGERDUTY}
    bench.find("availability", 0.0)
    unheard = AlertingBeside(lambda _: bench.alerting(), lambda _: None).look()
    assert [line.split()[1:] for line in unheard] == [["m", "model_down"]]
    with pytest.raises(UnheardError, match="m model_down; accepted: one working channel"):
        require_heard(unheard)


def test_it_looks_again_and_again_until_it_is_stopped(bench: Bench):
    looks = threading.Semaphore(0)

    def alerting(warn: Callable[[str], None]) -> Alerting:
        looks.release()
        return bench.alerting()

    beside = AlertingBeside(alerting, lambda _: None, every=0.01)
    beside.start()
    assert all(looks.acquire(timeout=30) for _ in range(3))
    beside.stop()
    while looks.acquire(blocking=False):
        pass
    assert not looks.acquire(timeout=0.2)


@pytest.mark.parametrize("url", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_many_who_look_at_once_open_one_alert_and_tell_each_person_once(
    receivers: Receivers, tmp_path: Path, request: pytest.FixtureRequest, url: str
):
    url = f"sqlite:///{tmp_path / 'ops.db'}" if url == "sqlite" else request.getfixturevalue("postgres_url")
    bench = Bench(OpsStore.open(url), receivers, tmp_path)
    bench.find("availability", 0.0)
    ready, unheard = threading.Barrier(4), []

    def look() -> None:
        alerting = Bench(OpsStore.open(url), receivers, tmp_path).alerting()
        ready.wait(30)
        unheard.append(alerting.tick().unheard)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert unheard == [()] * 4
    sent = bench.store.outbox([bench.one.alert_id])
    assert Counter((one.notification.state, one.notification.attempts) for one in sent) == {(Delivered.DELIVERED, 1): 3}
    assert bench.heard() == ["pagerduty", "phone", "sms"]
