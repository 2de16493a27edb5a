"""A latency is counted in the bucket whose edge it does not exceed, as Prometheus asks for."""

from __future__ import annotations

import pytest

from serving.measures import BUCKETS, Measures

pytestmark = pytest.mark.requirement("R5.1")


@pytest.mark.parametrize(
    ("seconds", "edge"),
    [
        (0.0, BUCKETS[0]),
        (BUCKETS[0], BUCKETS[0]),
        (BUCKETS[3], BUCKETS[3]),
        (BUCKETS[3] + 1e-9, BUCKETS[4]),
        (60.0, float("inf")),
    ],
)
def test_a_request_counts_from_the_first_edge_it_does_not_exceed(seconds: float, edge: float):
    measures = Measures()
    measures.tally("m", "1", "live").took(seconds)
    (latency,) = (one for one in measures.registry.collect() if one.name == "prodecks_request_seconds")
    told = {float(one.labels["le"]): one.value for one in latency.samples if one.name.endswith("_bucket")}
    assert told == {bucket: float(bucket >= edge) for bucket in (*BUCKETS, float("inf"))}
    totals = {one.name: one.value for one in latency.samples if not one.name.endswith("_bucket")}
    assert totals == {"prodecks_request_seconds_count": 1.0, "prodecks_request_seconds_sum": seconds}


def test_versions_and_parts_are_counted_apart_and_once():
    measures = Measures()
    measures.tally("m", "1", "live").rows += 2
    measures.tally("m", "1", "live").rows += 3
    measures.tally("m", "2", "live").errors += 1
    page = measures.page().decode()
    assert 'prodecks_rows_total{model="m",role="live",version="1"} 5.0' in page
    assert 'prodecks_errors_total{model="m",role="live",version="2"} 1.0' in page
    assert 'prodecks_rows_total{model="m",role="live",version="2"} 0.0' in page
