"""What Prometheus, or the gateway itself, says of the gateway's health and resources (R5.1)."""

from __future__ import annotations

import json
import math
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from lifecycle.monitoring import Metric
from lifecycle.redaction import redacted

PROMETHEUS = "PRODECKS_PROMETHEUS_URL"
KEY = "PRODECKS_GATEWAY_KEY"
"""API key with the role operate, where the gateway asks for one."""
TIMEOUT_S = 5.0
MOST_BYTES = 16 * 1024 * 1024

QUERIES = {
    # The newest minutes: a gateway that is down now must not be excused by a week in which it was not.
    "availability": 'avg(avg_over_time(up{job="prodecks-gateway"}[5m]))',
    "cpu_share": "max(avg_over_time(prodecks_cpu_share[10m]))",
    "memory_share": "max(max_over_time(prodecks_memory_share[10m]))",
}
GPU = "max(avg_over_time(DCGM_FI_DEV_GPU_UTIL[10m])) / 100"
"""NVIDIA's exporter; where nothing answers to it there is no graphics processor, and nothing to tell."""


def read_metrics(
    at: datetime, now: datetime, gateway: str | None, environ: Mapping[str, str] = os.environ
) -> list[Metric]:
    """Ask Prometheus where its address is set, else the gateway; each measure once, with a value or the reason why not.

    Parameters
    ----------
    at
        The moment the figures are wanted of.
    now
        The clock's: a gateway knows of no other moment.
    gateway
        Its address; None where there is none to ask.
    environ
        Holds the address of Prometheus, and the gateway's key.
    """
    prometheus = environ.get(PROMETHEUS, "")
    if prometheus:
        found = [_asked(prometheus, measure, query, at) for measure, query in QUERIES.items()]
        gpu = _asked(prometheus, "gpu_share", GPU, at)
        return [*found, gpu] if gpu.value is not None else found
    source = f"the gateway at {gateway}"
    wanted = [measure for measure in QUERIES if measure != "availability"]
    if gateway is None or abs((now - at).total_seconds()) > 3600:
        why = f"{PROMETHEUS} is not set, and the gateway only knows the present"
        return [Metric(measure, None, "nowhere", why) for measure in wanted]
    try:
        page = _get(f"{gateway.rstrip('/')}/metrics", environ.get(KEY, ""))
        values = _parsed(page.decode("utf-8", "replace"))
    except (OSError, ValueError) as error:
        why = f"{PROMETHEUS} is not set, and the gateway does not answer: {_words(error)}"
        return [Metric(measure, None, source, why) for measure in wanted]
    return [_reading(measure, values.get(f"prodecks_{measure}"), source) for measure in wanted]


def _asked(address: str, measure: str, query: str, at: datetime) -> Metric:
    source = "Prometheus"
    asked = urllib.parse.urlencode({"query": query, "time": f"{at.timestamp():.3f}"})
    try:
        told: Any = json.loads(_get(f"{address.rstrip('/')}/api/v1/query?{asked}", ""))
        series = told["data"]["result"]
        values = [float(one["value"][1]) for one in series]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        return Metric(measure, None, source, f"it does not answer to {query}: {_words(error)}")
    if len(values) != 1:
        return Metric(measure, None, source, f"nothing answers to {query}; the metric is missing or has another name")
    return _reading(measure, values[0], source)


def _reading(measure: str, value: float | None, source: str) -> Metric:
    if value is None:
        return Metric(measure, None, source, f"it tells no prodecks_{measure}")
    if not math.isfinite(value):
        return Metric(measure, None, source, f"{measure} is {value}")
    return Metric(measure, value, source)


def _parsed(page: str) -> dict[str, float]:
    from prometheus_client.parser import text_string_to_metric_families

    return {
        sample.name: float(sample.value)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if not sample.labels
    }


def _get(address: str, key: str) -> bytes:
    if not address.startswith(("http://", "https://")):
        raise ValueError("its address is none; accepted: an http or https address")
    request = urllib.request.Request(address, headers={"X-API-Key": key} if key else {})  # noqa: S310 - checked above
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
        return bytes(answer.read(MOST_BYTES))


def _words(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"status {error.code}"
    reason = getattr(error, "reason", None)
    return redacted(str(reason or error)[:200]) or type(error).__name__
