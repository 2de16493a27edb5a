"""What is deployed beside the gateway is read, tested and run by the real Prometheus and Alertmanager."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from cli.alerting import load_policies
from tests.alerts.receivers import ROUTING_KEY, Receivers, serving_plainly

pytestmark = [pytest.mark.slow, pytest.mark.requirement("R6.1", "R6.2", "R6.3", "R6.4", "R6.5")]
ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
RULES, ROUTES, TESTS = (MONITORING / name for name in ("prometheus-rules.yml", "alertmanager.yml", "prometheus-rules.test.yml"))  # fmt: skip


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        reason = f"no {name} found; accepted: Debian's packages prometheus and prometheus-alertmanager"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def run(*command: str) -> str:
    done = subprocess.run([program(command[0]), *command[1:]], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def read(path: Path) -> Any:
    return YAML(typ="safe").load(path)


def test_promtool_reads_the_rules_and_each_fires_when_it_should_and_not_before() -> None:
    run("promtool", "check", "rules", str(RULES))
    assert "SUCCESS" in run("promtool", "test", "rules", str(TESTS))


def test_every_query_is_in_a_rule_test() -> None:
    queries = {rule["labels"]["query"] for rule in read(RULES)["groups"][0]["rules"]}
    text = TESTS.read_text(encoding="utf-8")
    assert {query for query in queries if query not in text} == set()


def test_amtool_reads_the_routes() -> None:
    assert "SUCCESS" in run("amtool", "check-config", str(ROUTES))


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (("alertname=model_down", "priority=P0", "model=flight_delay"), "models-P0"),
        (("alertname=data_drift", "priority=P1"), "models-P1"),
        (("alertname=resource_use", "priority=P2"), "models-P2"),
        (("alertname=information", "priority=P3"), "models-P3"),
        (("alertname=anything",), "models-P3"),  # the default that always exists
    ],
)
def test_amtool_routes_an_alert_to_its_receiver(labels: tuple[str, ...], receiver: str) -> None:
    found = run("amtool", "config", "routes", "test", f"--config.file={ROUTES}", *labels)
    assert found.strip() == receiver


def test_a_tree_of_routes_is_routed_as_the_policy_routes_it(tmp_path: Path) -> None:
    from docs.generate.monitoring import dumped
    from lifecycle.alerting import AlertingPolicy, Priority, Route
    from lifecycle.cluster_alerts import alertmanager_config, receiver_of

    policy, oncall = load_policies(ROOT / "configs" / "policies")
    teams = dict.fromkeys(("models", "security", "members", "chiefs"), oncall.teams["models"])
    route = Route.model_validate(
        {"team": "models", "routes": [
            {"team": "security", "rules": ["security_*"], "routes": [{"team": "chiefs", "priorities": ["P0"]}]},
            {"team": "members", "models": ["churn", "member.*"]},
        ]}
    )  # fmt: skip
    work = [
        {"name": "a", "models": ["churn"], "holds": ["P1"], "days": ["friday"], "start": "22:00", "end": "02:00"},
        {"name": "b", "holds": ["P2"], "days": ["monday", "sunday"], "start": "02:00", "end": "00:00"},
        {"name": "c", "holds": ["P2"], "start": "2026-01-01T00:00Z", "end": "2026-01-02T00:00Z"},
    ]
    changed = AlertingPolicy.model_validate({**policy.model_dump(mode="json"), "maintenance": work, "route": route})
    path = tmp_path / "alertmanager.yml"
    path.write_text(dumped(alertmanager_config(changed, oncall.model_copy(update={"teams": teams}))))
    run("amtool", "check-config", str(path))
    for model in ("churn", "member.x", "memberzx", "flight_delay"):
        for rule in ("security_breach", "data_drift"):
            for priority in Priority:
                labels = (f"alertname={rule}", f"priority={priority}", f"model={model}")
                found = run("amtool", "config", "routes", "test", f"--config.file={path}", *labels).strip()
                assert found == receiver_of(route.team_of(model, rule, priority), priority), labels


# The real ones, run


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def process(*command: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    started = subprocess.Popen(command, text=True, **options)
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def wait_for(what: Any, seconds: float = 60) -> Any:
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.2)
    return found


def asked(address: str) -> Any:
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return json.load(answer)
    except OSError:
        return None


def quicker(tree: Any) -> Any:
    """The same file with its waits in seconds: what is waited for stays as it is."""
    if isinstance(tree, dict):
        waits = {"for": "2s", "group_wait": "1s", "group_interval": "1s"}
        return {name: waits.get(name, quicker(value)) for name, value in tree.items()}
    return [quicker(one) for one in tree] if isinstance(tree, list) else tree


def test_a_gateway_that_dies_is_paged_through_prometheus_and_alertmanager_and_cleared_when_it_is_back(tmp_path: Path) -> None:  # fmt: skip
    prometheus, alertmanager = program("prometheus"), program("prometheus-alertmanager")
    gateway_port, prometheus_port, alertmanager_port = free_port(), free_port(), free_port()
    receivers = Receivers()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PRODECKS_")}
    environment |= {"PRODECKS_VAR": str(tmp_path / "var")}
    serve = (sys.executable, "run.py", "serve", "--port", str(gateway_port))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    writer = YAML()

    with serving_plainly(receivers) as port:
        (tmp_path / "pagerduty-models").write_text(ROUTING_KEY)
        (tmp_path / "slack-url").write_text(f"http://127.0.0.1:{port}/services/x")
        (tmp_path / "smtp-password").write_text("none")
        writer.dump(quicker(read(RULES)), tmp_path / "rules.yml")
        routes = quicker(read(ROUTES))
        routes = json.loads(json.dumps(routes).replace("/etc/alertmanager/secrets", str(tmp_path)))
        routes["global"]["pagerduty_url"] = f"http://127.0.0.1:{port}/v2/enqueue"
        writer.dump(routes, tmp_path / "alertmanager.yml")
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager_port}"]}]}]},
            "scrape_configs": [
                {"job_name": "prodecks-gateway", "static_configs": [{"targets": [f"127.0.0.1:{gateway_port}"]}]}
            ],
        }
        writer.dump(config, tmp_path / "prometheus.yml")
        with (
            process(
                alertmanager, f"--config.file={tmp_path / 'alertmanager.yml'}", f"--storage.path={tmp_path / 'am'}",
                f"--web.listen-address=127.0.0.1:{alertmanager_port}", "--cluster.listen-address=", **quiet,
            ),
            process(
                prometheus, f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{prometheus_port}", **quiet,
            ),
        ):  # fmt: skip
            query = f"http://127.0.0.1:{prometheus_port}/api/v1/query?query="

            def up() -> str | None:
                answer = asked(query + "up")
                return answer["data"]["result"][0]["value"][1] if answer and answer["data"]["result"] else None

            with process(*serve, cwd=ROOT, env=environment, **quiet):
                wait_for(lambda: up() == "1")
                assert asked(query + "prodecks_memory_bytes")["data"]["result"]
                assert "pagerduty" not in receivers.channels()
            wait_for(lambda: "pagerduty" in receivers.channels())
            page = receivers.of("pagerduty")[0]
            assert (page["event_action"], page["payload"]["severity"]) == ("trigger", "critical")
            assert "[P0] every model is completely down" in page["payload"]["summary"]
            assert page["payload"]["custom_details"]["runbook"] == "docs/runbooks/model_down.md"
            with process(*serve, cwd=ROOT, env=environment, **quiet):
                wait_for(lambda: "resolved" in receivers.incidents.values())
    assert re.fullmatch(r"[0-9a-f]{64}", page["dedup_key"])
    assert threading.active_count() < 50
