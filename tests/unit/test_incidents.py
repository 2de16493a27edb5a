"""Incidents: answered in time, late, or still running."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.model_files import load_file
from lifecycle.alerting import AlertingPolicy, Priority
from lifecycle.incidents import Incident, share_in_time
from lifecycle.messages import BLOCKS, sparkline

POLICY = load_file(Path(__file__).resolve().parents[2] / "configs" / "policies" / "alerting.yaml", AlertingPolicy, {})
NOW = datetime(2026, 3, 2, 8, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
OPEN = Incident("a", "m", "model_down", Priority.P0, NOW - MINUTE, NOW, None, None)


@pytest.mark.requirement("R13.1")
@pytest.mark.parametrize(
    ("acknowledged", "resolved", "now", "in_time"),
    [
        (15, None, 99, True),
        (16, None, 99, False),
        (None, 14, 99, True),  # it ended by itself
        (20, 14, 99, True),
        (None, None, 15, None),
        (None, None, 16, False),
    ],
)
def test_an_incident_is_answered_within_its_response_time_or_late(acknowledged, resolved, now, in_time):
    one = replace(
        OPEN,
        acknowledged_at=None if acknowledged is None else NOW + acknowledged * MINUTE,
        resolved_at=None if resolved is None else NOW + resolved * MINUTE,
    )
    assert one.in_time(POLICY, NOW + now * MINUTE) is in_time


def test_the_share_counts_what_is_decided():
    quick, late = (replace(OPEN, acknowledged_at=NOW + minutes * MINUTE) for minutes in (1, 60))
    assert share_in_time([quick, late, OPEN], POLICY, NOW) == 0.5
    assert share_in_time([OPEN], POLICY, NOW) is None
    assert share_in_time([], POLICY, NOW) is None


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=30))
def test_a_sparkline_has_a_block_for_each_number(values):
    line = sparkline(values)
    finite = [value for value in values if abs(value) != float("inf") and value == value]
    assert len(line) == len(finite)
    assert set(line) <= set(BLOCKS)
    if finite:
        assert line[finite.index(min(finite))] == BLOCKS[0]
