"""Alerting under a clock of its own, with real receivers at the other end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from adapters.alert_store import AlertStore
from adapters.notifiers import ACCOUNTS, Notifiers
from adapters.ops_store import OpsStore
from cli.alerting import Alerting, Look, load_policies
from lifecycle.alerting import AlertingPolicy
from lifecycle.alerts import Alert
from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.oncall import OnCall
from lifecycle.spec import Duration
from tests.alerts.receivers import Receivers, running

NOW = datetime(2026, 3, 2, 8, tzinfo=UTC)  # Monday, 11:30 in Tehran
SHIPPED, SHIPPED_ONCALL = load_policies(Path(__file__).resolve().parents[2] / "configs" / "policies")
PHONES = {"engineer_a": "+982155500101", "senior": "+982155500102", "head": "+982155500103", "cto": "+982155500104"}
ONCALL = OnCall.model_validate(
    {
        **SHIPPED_ONCALL.model_dump(mode="json"),
        "people": {
            name: {**person.model_dump(mode="json"), "phone": PHONES.get(name, "+982155500109")}
            for name, person in SHIPPED_ONCALL.people.items()
        },
    }
)


@dataclass
class Bench:
    """One model's findings, one clock, one alerting.

    Parameters
    ----------
    receivers
        Who hears.
    terminal
        What the channel ``terminal`` wrote.
    """

    ops: OpsStore
    receivers: Receivers
    folder: Path
    policy: AlertingPolicy = SHIPPED
    oncall: OnCall = ONCALL
    now: datetime = NOW
    terminal: StringIO = field(default_factory=StringIO)
    _runs: int = 0

    @property
    def store(self) -> AlertStore:
        return AlertStore(self.ops)

    @property
    def one(self) -> Alert:
        (alert,) = self.store.alerts(over=True)
        return alert

    def alerting(self) -> Alerting:
        notifiers = Notifiers.from_environment(self.folder / "alerts.log", self.terminal)
        return Alerting(self.ops, notifiers, self.policy, self.oncall, {"m": Duration("2d")}, lambda: self.now)

    def find(self, measure: str, value: float | None, pipeline: str = "monitor", **changes: Any) -> None:
        """One monitoring run that found one thing."""
        usual: dict[str, Any] = {
            "measure": measure, "subject": "all rows", "value": value, "threshold": 0.1, "direction": Direction.AT_MOST,
            "window": "last 7 days", "verdict": Verdict.FAIL, "reason": f"{measure} is {value}",
        }  # fmt: skip
        self._runs += 1
        run = self.ops.start_run(
            pipeline=pipeline, model="m", stack="local", trigger_kind="schedule", reason="hourly", requested_by="cron",
            as_of=self.now, now=self.now, lease=timedelta(minutes=5),
        )  # fmt: skip
        self.ops.record_findings(run.run_id, "watch", [Finding(**{**usual, **changes})], self.now, "m", "1")
        self.ops.finish_run(run.run_id, "succeeded", "done", self.now)

    def look(self, **later: float) -> Look:
        """Let time pass, then look."""
        self.now += timedelta(**later)
        return self.alerting().tick()

    def heard(self) -> list[str]:
        """Channels that were reached since the last time, sorted."""
        found = sorted(self.receivers.channels())
        self.receivers.received.clear()
        return found


@pytest.fixture(scope="session")
def running_receivers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receivers]:
    with running(tmp_path_factory.mktemp("receivers")) as receivers:
        yield receivers


@pytest.fixture
def receivers(running_receivers: Receivers, monkeypatch: pytest.MonkeyPatch) -> Receivers:
    """The receivers, with nothing received yet, and this process's accounts with them."""
    running_receivers.clear()
    for variable in {variable for variable, _, _ in ACCOUNTS.values()} | {"https_proxy", "HTTP_PROXY", "http_proxy"}:
        monkeypatch.delenv(variable, raising=False)
    for name, value in running_receivers.environment.items():
        monkeypatch.setenv(name, value)
    return running_receivers


@pytest.fixture
def bench(receivers: Receivers, tmp_path: Path) -> Bench:
    return Bench(OpsStore.open(f"sqlite:///{tmp_path / 'ops.db'}"), receivers, tmp_path)
