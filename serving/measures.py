"""What the gateway tells Prometheus: latency fit for P50, P95 and P99, requests, errors, in flight, CPU, memory (R5.1)."""

from __future__ import annotations

import time

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# From a tenth of a millisecond to ten seconds, about 1.5 apart: a quantile is told to within a quarter.
BUCKETS = tuple(round(0.0001 * 1.5**step, 7) for step in range(29))


class Measures:
    """Counters of one gateway, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        by_version = ("model", "version", "role")
        self.latency = Histogram(
            "prodecks_request_seconds",
            "From the request's last byte to its answer.",
            by_version,
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.rows = Counter("prodecks_rows", "Rows answered.", by_version, registry=self.registry)
        self.errors = Counter("prodecks_errors", "Rows a version could not answer.", by_version, registry=self.registry)
        self.refused = Counter(
            "prodecks_refused", "Requests not let in or not valid.", ("status",), registry=self.registry
        )
        self.unrecorded = Counter(
            "prodecks_unrecorded", "Rows the prediction log did not take.", registry=self.registry
        )
        self.shadow_dropped = Counter(
            "prodecks_shadow_dropped", "Rows a shadow did not score, being behind.", ("model",), registry=self.registry
        )
        self.in_flight = Gauge("prodecks_in_flight", "Requests being answered.", registry=self.registry)
        self.loaded = Gauge(
            "prodecks_version_loaded", "1 for each version in memory.", by_version, registry=self.registry
        )
        self.problems = Gauge(
            "prodecks_table_problem", "1 while a routing table cannot be followed.", ("model",), registry=self.registry
        )
        self.cpu = Gauge(
            "prodecks_cpu_share", "Processor share since last asked, 1 is one core.", registry=self.registry
        )
        self.memory = Gauge("prodecks_memory_bytes", "Resident memory.", registry=self.registry)
        self._process = psutil.Process()
        self._cpu_at = (time.monotonic(), self._cpu_seconds())

    def page(self) -> bytes:
        """Prometheus' text format."""
        now, spent = time.monotonic(), self._cpu_seconds()
        since, before = self._cpu_at
        if now > since:
            self.cpu.set((spent - before) / (now - since))
            self._cpu_at = (now, spent)
        self.memory.set(self._process.memory_info().rss)
        return generate_latest(self.registry)

    def _cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)
