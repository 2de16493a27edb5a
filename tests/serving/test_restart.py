"""A gateway that starts again knows its newest predictions, wherever they lie by now."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from adapters.prediction_archive import PredictionArchive
from adapters.prediction_log import Outcome, segments
from serving.outcomes import GENERATIONS
from tests.serving.conftest import Opened, Place

pytestmark = [pytest.mark.anyio, pytest.mark.requirement("R2.3", "R5.2")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def ask(client: httpx.AsyncClient, name: str) -> None:
    row = {"x": 1.0, "kind": "a", "member": f"member-{name}"}
    answer = await client.post("/models/churn/predict", json={"rows": [row]}, headers={"x-request-id": name})
    assert answer.status_code == 200, answer.text


async def label(client: httpx.AsyncClient, **outcome: Any) -> dict[str, str]:
    told = await client.post("/outcomes", json={"outcomes": [{"model": "churn", "label": 1, **outcome}]})
    found: dict[str, str] = told.json()["outcomes"][0]
    return found


async def test_outcomes_of_what_went_to_the_archive_are_placed_as_before(opened: Opened, place: Place):
    archive = PredictionArchive(place.folder)
    async with opened() as (_, client):
        for name in ("a", "b", "c"):
            await ask(client, name)
        assert (await label(client, request_id="a"))["status"] == "recorded"
    async with opened() as (_, client):
        await ask(client, "d")
    assert archive.compact().records == 4
    assert len(segments(archive.log)) == 1
    async with opened() as (_, client):
        assert (await label(client, request_id="a"))["status"] == "duplicate"
        assert (await label(client, request_id="a", label=0))["status"] == "contradicts"
        assert await label(client, request_id="b") == {"request_id": "b", "status": "recorded"}
        assert await label(client, entity="member-c") == {"request_id": "c", "status": "recorded"}
        assert (await label(client, request_id="never"))["status"] == "unknown"
        await ask(client, "e")
    found = list(archive.entries())
    assert [entry.sequence for entry in found] == list(range(1, len(found) + 1))
    assert [entry.record.request_id for entry in found] == ["a", "b", "c", "a", "d", "b", "c", "never", "e"]


async def test_only_the_newest_are_remembered(opened: Opened, place: Place):
    async with opened(remembered=GENERATIONS) as (_, client):
        for number in range(GENERATIONS + 2):
            await ask(client, f"r{number}")
    async with opened(remembered=GENERATIONS) as (_, client):
        assert (await label(client, request_id="r0"))["status"] == "unknown"
        assert (await label(client, request_id="r2"))["status"] == "recorded"


async def test_an_outcome_of_an_unknown_entity_keeps_the_moment_it_is_about(opened: Opened, place: Place):
    async with opened() as (_, client):
        assert await label(client, entity="nobody", at=5.0) == {"request_id": "", "status": "unknown"}
    (entry,) = PredictionArchive(place.folder).entries()
    assert isinstance(entry.record, Outcome)
    assert (entry.record.entity, entry.record.until) == ("nobody", 5.0)
