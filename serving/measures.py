"""What the gateway tells Prometheus: latency fit for P50, P95 and P99, requests, errors, in flight, CPU, memory (R5.1)."""

from __future__ import annotations

import contextlib
import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

# From a tenth of a millisecond to ten seconds, about 1.5 apart: a quantile is told to within a quarter.
BUCKETS = tuple(round(0.0001 * 1.5**step, 7) for step in range(29))
_BY_VERSION = ("model", "version", "role")
_EDGES = [*map(str, BUCKETS), "+Inf"]


@dataclass(slots=True)
class Tally:
    """What one version did in one part; counted by the event loop alone, so that it needs no lock.

    Parameters
    ----------
    rows, errors
        Rows answered, and rows it could not answer.
    seconds
        Sum of its requests' times.
    requests
        Requests by bucket, the last one without a bound.
    """

    rows: int = 0
    errors: int = 0
    seconds: float = 0.0
    requests: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))

    def took(self, seconds: float) -> None:
        """Count a request."""
        self.seconds += seconds
        self.requests[bisect_left(BUCKETS, seconds)] += 1


class _Tallies(Collector):
    """All tallies, as Prometheus reads them."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str, str], Tally] = {}

    def collect(self) -> Iterator[Metric]:
        latency = HistogramMetricFamily(
            "prodecks_request_seconds", "From the request's last byte to its answer.", labels=_BY_VERSION
        )
        rows = CounterMetricFamily("prodecks_rows", "Rows answered.", labels=_BY_VERSION)
        errors = CounterMetricFamily("prodecks_errors", "Rows a version could not answer.", labels=_BY_VERSION)
        for labels, tally in list(self.kept.items()):
            upto = map(float, accumulate(tally.requests))
            latency.add_metric(labels, list(zip(_EDGES, upto, strict=True)), tally.seconds)
            rows.add_metric(labels, tally.rows)
            errors.add_metric(labels, tally.errors)
        yield from (latency, rows, errors)


class Measures:
    """Counters of one gateway, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._tallies = _Tallies()
        self.registry.register(self._tallies)
        self.in_flight = 0
        """Requests being answered."""
        self.refused = Counter(
            "prodecks_refused", "Requests not let in or not valid.", ("status",), registry=self.registry
        )
        self.unrecorded = Counter(
            "prodecks_unrecorded", "Rows the prediction log did not take.", registry=self.registry
        )
        self.shadow_dropped = Counter(
            "prodecks_shadow_dropped", "Rows a shadow did not score, being behind.", ("model",), registry=self.registry
        )
        in_flight = Gauge("prodecks_in_flight", "Requests being answered.", registry=self.registry)
        in_flight.set_function(lambda: self.in_flight)
        self.loaded = Gauge(
            "prodecks_version_loaded", "1 for each version in memory.", _BY_VERSION, registry=self.registry
        )
        self.problems = Gauge(
            "prodecks_table_problem", "1 while a routing table cannot be followed.", ("model",), registry=self.registry
        )
        self.cpu = Gauge(
            "prodecks_cpu_share", "Processor share since last asked, 1 is one core.", registry=self.registry
        )
        self.memory = Gauge("prodecks_memory_bytes", "Resident memory.", registry=self.registry)
        self.memory_share = Gauge(
            "prodecks_memory_share", "Resident memory, of what the machine or container has.", registry=self.registry
        )
        self._process = psutil.Process()
        self._memory = _memory_limit()
        self._cpu_at = (time.monotonic(), self._cpu_seconds())

    def tally(self, model: str, version: str, role: str) -> Tally:
        """Where a version's rows in a part are counted."""
        labels = (model, version, role)
        found = self._tallies.kept.get(labels)
        if found is None:
            found = self._tallies.kept[labels] = Tally()
        return found

    def page(self) -> bytes:
        """Prometheus' text format."""
        now, spent = time.monotonic(), self._cpu_seconds()
        since, before = self._cpu_at
        if now > since:
            self.cpu.set((spent - before) / (now - since))
            self._cpu_at = (now, spent)
        resident = self._process.memory_info().rss
        self.memory.set(resident)
        self.memory_share.set(resident / self._memory)
        return generate_latest(self.registry)

    def _cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


def _memory_limit() -> int:
    """Bytes that this process may use: the machine's, or its control group's where that is less."""
    total = int(psutil.virtual_memory().total)
    with contextlib.suppress(OSError, ValueError):
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return total  # no control group, or one without a limit
