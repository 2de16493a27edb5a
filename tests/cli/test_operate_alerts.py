"""`operate` tells people of alerts without another scheduler, and a channel that hangs holds up no rollback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from adapters.alert_store import AlertStore
from lifecycle.delivery import Delivered
from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.rollout import Stage
from tests.cli.conftest import ROOT
from tests.cli.hand_made import FAILING, GOOD, Load, World, operating, register
from tests.cli.test_serve import serving

pytestmark = pytest.mark.requirement("R6.5", "R8.1")


@dataclass
class Hanging:
    """An HTTP receiver that answers once it is let go."""

    address: str = ""
    asked: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    told = Hanging()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            told.asked.set()
            told.let_go.wait(120)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    told.address = f"json://127.0.0.1:{server.server_address[1]}/?rto=100"
    try:
        yield told
    finally:
        told.let_go.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A model with a live version, which a monitoring run found to be down."""
    made = World.make(tmp_path / "world", register(tmp_path / "mlflow"))
    made.deploy(GOOD)
    made.deploy(FAILING, live=True)
    made.carry_out()
    now = datetime.now(UTC)
    run = made.ops.start_run(
        pipeline="monitor", model="churn", stack="local", trigger_kind="schedule", reason="r", requested_by="cron",
        as_of=now, now=now, lease=timedelta(minutes=5),
    )  # fmt: skip
    down = Finding("availability", "all rows", 0.0, 0.99, Direction.AT_LEAST, "5 min", Verdict.FAIL, "it is 0")
    made.ops.record_findings(run.run_id, "service", [down], now, "churn", FAILING)
    made.ops.finish_run(run.run_id, "succeeded", "done", now)
    return made


def test_a_channel_that_hangs_holds_up_no_rollback_and_is_told_in_the_end(world: World, hanging: Hanging):
    world.place.extra["PRODECKS_WEBHOOK_URL"] = hanging.address
    alerts = AlertStore(world.ops)

    def states() -> set[Delivered]:
        return {one.notification.state for one in alerts.outbox([one.alert_id for one in alerts.alerts()])}

    with serving(world.place) as gateway, operating(world, gateway.address):
        assert hanging.asked.wait(60)
        with Load(gateway.address, bad=True).running():
            world.wait(FAILING, Stage.ROLLED_BACK)
            world.wait_told("rolled_back (read back from the gateway)")
        assert not hanging.let_go.is_set()
        assert Delivered.DELIVERED not in states()
        hanging.let_go.set()
        for _ in range(600):
            if Delivered.DELIVERED in states():
                break
            threading.Event().wait(0.1)
    assert Delivered.DELIVERED in states()


def test_a_p0_that_nobody_heard_is_the_exit_code_of_a_single_look(world: World, tmp_path: Path):
    policies = tmp_path / "policies"
    policies.mkdir()
    for name in ("alerting.yaml", "oncall.yaml"):
        text = (ROOT / "configs" / "policies" / name).read_text()
        (policies / name).write_text(text.replace("attempts: 4", "attempts: 1"))
    look = ("operate", "--once", "--gateway", "http://127.0.0.1:9")
    broken = {"PRODECKS_POLICIES": str(policies), "PRODECKS_WEBHOOK_URL": "json://127.0.0.1:1/nobody"}
    answer = world.place.call(*look, **broken)
    assert (answer.code, "nobody could be told of" in answer.err) == (7, True)
    assert "changes" in answer.err  # the rollouts were looked at before
    (policies / "alerting.yaml").write_text("priorities: none")
    answer = world.place.call(*look, **broken)
    assert answer.code == 0
    assert "alerting: " in answer.err
    assert "alerting.yaml" in answer.err
