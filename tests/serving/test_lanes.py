"""A version that is slow, or never answers, holds up nobody but itself; one that is quick is scored together with the others."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import serving.versions
from adapters.prediction_log import Prediction
from adapters.prediction_log import read as read_log
from serving.gateway import Gateway
from serving.lanes import MOST_QUICK_CALLS, QUICK_CALLS, SLOW_S, Lane, Pace
from tests.serving.conftest import Opened, Place

pytestmark = [pytest.mark.anyio, pytest.mark.requirement("R4.3", "R8.1")]
OWN = "/models/churn/predict"
BODY = {"rows": [{"x": 1.0, "kind": "a"}]}
CANDIDATE = {"x-prodecks-version": "2"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Stuck:
    """A version that answers once it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.asked: list[int] = []

    def score(self, columns: Any) -> Any:
        self.asked.append(len(columns["x"]))
        assert self.let_go.wait(60)
        return np.full(len(columns["x"]), 0.25)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    made = Stuck()
    yield made
    made.let_go.set()


def put(gateway: Gateway, version: str, backend: Any) -> None:
    object.__setattr__(gateway.models.served["churn"].versions[version], "backend", backend)


async def test_live_answers_leave_while_the_candidate_still_scores(opened: Opened, place: Place, stuck: Stuck):
    place.route(live="1", candidate="2", share=0.5)
    async with asyncio.timeout(60), opened() as (gateway, client):
        put(gateway, "2", stuck)
        waits = [asyncio.create_task(client.post(OWN, json=BODY, headers=CANDIDATE)) for _ in range(5)]
        while not stuck.asked:
            await asyncio.sleep(0.01)
        for _ in range(20):
            told = await client.post(OWN, json=BODY, headers={"x-prodecks-version": "1"})
            assert told.json()["predictions"][0]["version"] == "1"
        assert not any(one.done() for one in waits)
        stuck.let_go.set()
        answers = [one.json()["predictions"][0] for one in await asyncio.gather(*waits)]
    assert {(one["version"], one["score"]) for one in answers} == {("2", 0.25)}
    assert sum(stuck.asked) == 5
    assert len(stuck.asked) <= 2  # what waited went together


async def test_rows_of_a_version_that_never_answers_fail_on_record_and_the_gateway_ends(
    opened: Opened, place: Place, stuck: Stuck, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(serving.versions, "DEADLINE_S", 0.2)
    place.route(live="1", candidate="2", share=0.5)
    async with opened() as (gateway, client):
        put(gateway, "2", stuck)
        lost = await asyncio.gather(*(client.post(OWN, json=BODY, headers=CANDIDATE) for _ in range(3)))
        assert [one.status_code for one in lost] == [500] * 3
        assert (await client.post(OWN, json=BODY, headers={"x-prodecks-version": "1"})).status_code == 200
    records = [entry.record for entry in read_log(place.folder / "log") if isinstance(entry.record, Prediction)]
    assert sorted(one.error for one in records) == ["", *["TimeoutError: no score within 0.2 s"] * 3]
    assert not stuck.let_go.is_set()


async def test_a_version_that_never_answers_when_it_is_loaded_is_not_put_live_and_the_next_table_is_followed(
    opened: Opened, place: Place, stuck: Stuck, monkeypatch: pytest.MonkeyPatch
):
    async with asyncio.timeout(60), opened(follow_seconds=0.05) as (gateway, client):
        with monkeypatch.context() as patch:
            patch.setattr(serving.versions, "TRIAL_S", 0.1)
            patch.setattr(serving.versions, "OnnxModel", lambda content: stuck)
            place.route(live="1", candidate="2", share=0.5)
            while "churn" not in gateway.models.problems:
                await asyncio.sleep(0.02)
        assert "version 2 does not answer a row of missing values: TimeoutError" in gateway.models.problems["churn"]
        assert (await client.post(OWN, json=BODY)).json()["predictions"][0]["version"] == "1"
        following = place.route(live="2", previous="1").generation
        while gateway.models.served["churn"].routing.generation != following:
            await asyncio.sleep(0.02)


async def test_a_quick_version_joins_the_others_and_leaves_them_when_it_turns_slow(opened: Opened, place: Place):
    class Turning:
        slow = 0.0

        def score(self, columns: Any) -> Any:
            time.sleep(self.slow)
            return np.full(len(columns["x"]), 0.5)

    place.route(live="1", candidate="2", share=0.5)
    async with opened() as (gateway, client):
        backend = Turning()
        put(gateway, "2", backend)
        loaded = gateway.models.served["churn"].versions["2"]

        async def asked_until(apart: bool) -> None:
            for _ in range(200):
                assert (await client.post(OWN, json=BODY, headers=CANDIDATE)).status_code == 200
                if loaded.apart is apart:
                    return
            raise AssertionError(loaded.pace)

        assert loaded.apart
        await asked_until(apart=False)
        backend.slow = 5 * SLOW_S
        await asked_until(apart=True)
        assert (await client.post(OWN, json=BODY, headers=CANDIDATE)).status_code == 200
        assert loaded.apart
        backend.slow = 0.0
        await asked_until(apart=False)
        assert loaded.pace.needed == 2 * QUICK_CALLS


async def test_rows_that_nobody_waits_for_any_more_are_not_scored(stuck: Stuck):
    lane = Lane(lambda rows: stuck.score({"x": rows}), calls=1, deadline=0.1)
    with pytest.raises(TimeoutError, match=r"no score within 0\.1 s"):
        await lane.score([1])
    with pytest.raises(TimeoutError):
        await lane.score([2, 3])
    last = asyncio.create_task(lane.score([4, 5, 6]))
    await asyncio.sleep(0)
    stuck.let_go.set()
    assert (await last).tolist() == [0.25] * 3
    assert stuck.asked == [1, 3]


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 5_000)), max_size=300))
def test_a_version_joins_only_after_quick_calls_in_a_row(calls: list[tuple[float, int]]):
    pace, quick = Pace(), 0
    for seconds, rows in calls:
        before = pace.apart
        pace.took(seconds, rows)
        quick = quick + 1 if seconds / max(1, rows / 256) <= SLOW_S else 0
        if before and not pace.apart:
            assert quick >= pace.needed
        assert QUICK_CALLS <= pace.needed <= MOST_QUICK_CALLS


@given(st.integers(1, 50))
def test_a_version_that_is_slow_now_and_then_stalls_the_others_a_few_times_in_all(every: int):
    pace, stalls = Pace(), 0
    for call in range(10_000):
        slow = call % (every + QUICK_CALLS) == 0
        stalls += slow and not pace.apart
        pace.took(0.2 if slow else 0.001, 1)
    assert stalls <= math.log2(MOST_QUICK_CALLS / QUICK_CALLS)


@given(st.floats(0, SLOW_S), st.integers(0, 500))
def test_a_short_stall_of_the_machine_keeps_nobody_apart(usual: float, before: int):
    pace = Pace()
    for _ in range(QUICK_CALLS + before):
        pace.took(usual / 2, 1)
    pace.took(2 * SLOW_S, 1)
    assert not pace.apart
