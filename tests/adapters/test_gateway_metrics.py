"""Resources from Prometheus or the gateway: a value, or the reason why there is none."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import pytest

from adapters.gateway_metrics import KEY, PROMETHEUS, read_metrics
from serving.measures import Measures

NOW = datetime(2026, 3, 9, tzinfo=UTC)


@contextmanager
def answering(pages: dict[str, str], status: int = 200) -> Iterator[str]:
    """A server that answers paths, and queries of Prometheus' API by a part of their text."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = urlparse(self.path)
            text = parse_qs(asked.query).get("query", [asked.path])[0]
            page = next((page for part, page in pages.items() if part in text), "")
            self.send_response(status if page else 404)
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def series(*values: str) -> str:
    result = [{"metric": {}, "value": [NOW.timestamp(), value]} for value in values]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})


def values(readings: list) -> dict[str, float | None]:
    return {one.measure: one.value for one in readings}


@pytest.mark.requirement("R2.4", "R5.1")
def test_prometheus_tells_what_is_there_and_of_a_graphics_processor_only_where_there_is_one():
    pages = {"up{": series("1"), "cpu_share": series("0.5"), "memory_share": series("0.25")}
    with answering(pages) as address:
        assert values(read_metrics(NOW, NOW, None, {PROMETHEUS: address})) == {
            "availability": 1.0, "cpu_share": 0.5, "memory_share": 0.25,
        }  # fmt: skip
    with answering({**pages, "GPU": series("0.9")}) as address:
        assert values(read_metrics(NOW, NOW, None, {PROMETHEUS: address}))["gpu_share"] == 0.9


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (series(), "the metric is missing or has another name"),
        (series("NaN"), "is nan"),
        (series("+Inf"), "is inf"),
        ("<html>", "does not answer"),
        ('{"status": "error"}', "does not answer"),
        ("[]", "does not answer"),
    ],
)
def test_what_is_empty_no_number_or_not_prometheus_has_no_value(page: str, reason: str):
    with answering({"up{": page, "share": page}) as address:
        readings = read_metrics(NOW, NOW, None, {PROMETHEUS: address})
    assert {one.measure for one in readings} == {"availability", "cpu_share", "memory_share"}
    for one in readings:
        assert one.value is None
        assert reason in one.reason


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "file:///etc/passwd"])
def test_a_prometheus_that_is_down_or_none_has_no_value(address: str):
    assert set(values(read_metrics(NOW, NOW, None, {PROMETHEUS: address})).values()) == {None}


def test_without_prometheus_the_gateways_own_page_is_read():
    page = Measures().page().decode()
    with answering({"/metrics": page}) as address:
        found = values(read_metrics(NOW, NOW, address, {KEY: "secret"}))
    assert found.keys() == {"cpu_share", "memory_share"}
    assert 0 < (found["memory_share"] or 0) < 1
    with answering({"/metrics": "prodecks_memory_bytes 1\n"}) as address:
        (cpu, _) = read_metrics(NOW, NOW, address, {})
    assert cpu.reason == "it tells no prodecks_cpu_share"


def test_a_gateway_that_refuses_is_silent_or_is_asked_of_the_past_has_no_value():
    with answering({"/metrics": "no"}, 403) as address:
        assert "status 403" in read_metrics(NOW, NOW, address, {})[0].reason
    assert "does not answer" in read_metrics(NOW, NOW, "http://127.0.0.1:1", {})[0].reason
    assert "only knows the present" in read_metrics(NOW - timedelta(days=3), NOW, "http://127.0.0.1:1", {})[0].reason
