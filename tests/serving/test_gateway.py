"""A request gets the answer of the version whose turn it is, in each dialect; what is invalid is named and nothing is lost."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from adapters.model_store import TWIN, Table
from adapters.prediction_log import Outcome, Prediction
from adapters.prediction_log import read as read_log
from lifecycle.errors import UnavailableError
from serving.gateway import Gateway
from tests.serving.conftest import Opened, Place

pytestmark = [pytest.mark.anyio, pytest.mark.requirement("R2.3")]
OWN = "/models/churn/predict"
ROW = {"x": 1.0, "kind": "a"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def predictions(place: Place) -> list[Prediction]:
    return [entry.record for entry in read_log(place.folder / "log") if isinstance(entry.record, Prediction)]


async def follow(gateway: Gateway, generation: int) -> None:
    """Wait until the gateway follows a routing table."""
    for _ in range(100):
        if gateway.models.served["churn"].routing.generation == generation:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(gateway.state())


TENSOR_X = {"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0]}
TENSOR_KIND = {"name": "kind", "shape": [1], "datatype": "BYTES", "data": ["a"]}


@pytest.mark.parametrize(
    ("path", "body", "scores"),
    [
        (OWN, {"rows": [ROW]}, lambda told: told["predictions"][0]["score"]),
        ("/v1/models/churn:predict", {"instances": [ROW]}, lambda told: told["predictions"][0]["score"]),
        (
            "/v1/models/churn:predict",
            {"instances": [{"x": [1.0], "kind": ["a"]}]},
            lambda told: told["predictions"][0]["score"],
        ),
        (
            "/v1/models/churn/versions/1:predict",
            {"inputs": {"x": [1], "kind": ["a"]}},
            lambda told: told["outputs"]["score"][0],
        ),
        ("/v1/models/churn/labels/stable:predict", {"instances": [ROW]}, lambda told: told["predictions"][0]["score"]),
        ("/v2/models/churn/infer", {"inputs": [TENSOR_X, TENSOR_KIND]}, lambda told: told["outputs"][0]["data"][0]),
        (
            "/v2/models/churn/versions/1/infer",
            {"id": "q1", "inputs": [TENSOR_X, TENSOR_KIND]},
            lambda told: told["outputs"][0]["data"][0],
        ),
    ],
)
async def test_each_dialect_gets_the_models_score(opened: Opened, place: Place, path: str, body: Any, scores: Any):
    async with opened() as (_, client):
        answer = await client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        assert scores(answer.json()) == pytest.approx(sigmoid(2.0))
        assert answer.headers["x-prodecks-version"] == "1"
    (kept,) = predictions(place)
    assert (kept.request_id, kept.features, kept.role, kept.decision) == (
        answer.headers["x-request-id"],
        ROW,
        "live",
        1,
    )


async def test_missing_and_unknown_values_are_answered_and_kept_as_they_came(opened: Opened, place: Place):
    rows = [{"x": None, "kind": None}, {"x": 0, "kind": "Köln"}, {"x": -0.0, "kind": ""}]
    async with opened() as (_, client):
        told = (await client.post(OWN, json={"rows": rows}, headers={"x-request-id": "r"})).json()["predictions"]
    assert [one["score"] for one in told] == [0.5, 0.5, 0.5]
    assert [one["request_id"] for one in told] == ["r/0", "r/1", "r/2"]
    assert [one.features for one in predictions(place)] == rows


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"rows": [ROW, {"x": "1", "kind": "a"}]}, "rows[1].x: is a text; accepted: a number or null"),
        ({"rows": [{"x": True, "kind": "a"}]}, "rows[0].x: is true"),
        ({"rows": [{"x": 1.0, "kind": 3}]}, "rows[0].kind: is a number; accepted: a text or null"),
        ({"rows": [{"kind": "a"}]}, "rows[0].x: is missing"),
        ({"rows": [{**ROW, "kindd": "a"}]}, "rows[0].'kindd': no feature of the model; did you mean 'kind'?"),
        ({"rows": [{**ROW, "member": 7}]}, "rows[0].member: is a number; accepted: a text"),
        ({"rows": [[1.0, "a"]]}, "rows[0]: is a list; accepted: an object"),
        ({"rows": []}, "no rows"),
        ({"rows": [{"x": 1.0, "kind": "k" * 10_001}]}, "a text of 10,001 characters"),
        ({"row": []}, 'accepted: an object {"rows"'),
        ([], 'accepted: an object {"rows"'),
        (7, 'accepted: an object {"rows"'),
    ],
)
async def test_an_invalid_row_is_named_and_no_other_is_answered(opened: Opened, place: Place, body: Any, problem: str):
    async with opened() as (_, client):
        answer = await client.post(OWN, json=body)
    assert answer.status_code == 400
    assert problem in answer.json()["error"]
    assert predictions(place) == []


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"\xff\xfe", b'{"rows": [{"x": NaN, "kind": "a"}]}', b'{"rows": [{"x": Infinity, "kind": "a"}]}',
        b'{"rows": [{"x": 1e999, "kind": "a"}]}', b'{"rows": [{"x": ' + b"9" * 5_000 + b', "kind": "a"}]}',
        b"[" * 100_000, b'{"rows": [{"x": 1, "kind": "\\ud800"}]}', b"\x00" * 100,
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", [OWN, "/v1/models/churn:predict", "/v2/models/churn/infer", "/outcomes"])
async def test_what_is_no_json_or_no_number_is_a_client_error(opened: Opened, path: str, text: bytes):
    async with opened() as (_, client):
        answer = await client.post(path, content=text, headers={"content-type": "application/json"})
        assert answer.status_code == 400, answer.text
        assert (await client.post(OWN, json={"rows": [ROW]})).status_code == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/models/nobody/predict", 404),
        ("/v1/models/churn/versions/2:predict", 404),
        ("/v1/models/churn/labels/canary:predict", 404),
        ("/v1/models/churn/labels/nonsense:predict", 404),
        ("/models/%2e%2e%2fetc/predict", 403),
        ("/v1/models/../../etc/passwd:predict", 403),
        ("/models/churn%01/predict", 404),
    ],
)
async def test_an_unknown_model_version_or_label_is_told_and_a_path_is_no_name(opened: Opened, path: str, status: int):
    async with opened() as (_, client):
        assert (await client.post(path, json={"rows": [ROW]})).status_code == status


async def test_bodies_that_are_too_large_or_no_json_by_their_type_are_refused(opened: Opened):
    async with opened(most_bytes=1_000) as (_, client):
        assert (await client.post(OWN, content=b"x" * 1_001)).status_code == 413

        async def parts():
            for _ in range(20):
                yield b"x" * 100

        assert (await client.post(OWN, content=parts())).status_code == 413
        assert (await client.post(OWN, content=b"{}", headers={"content-type": "text/csv"})).status_code == 415
    async with opened() as (_, client):
        many = await client.post(OWN, json={"rows": [ROW] * 10_001})
        assert many.status_code == 413
        assert "10,001 rows" in many.json()["error"]


@pytest.mark.requirement("R4.1")
async def test_a_canary_gets_its_share_and_each_entity_stays_where_it_is(opened: Opened, place: Place):
    async with opened() as (gateway, client):

        async def met() -> dict[str, str]:
            rows = [{**ROW, "member": f"M{number}"} for number in range(2_000)]
            told = (await client.post(OWN, json={"rows": rows})).json()["predictions"]
            return {row["member"]: one["version"] for row, one in zip(rows, told, strict=True)}

        shares = {}
        for share in (0.1, 0.5, 1.0):
            await follow(gateway, place.route(live="1", candidate="2", share=share).generation)
            shares[share] = await met()
            assert await met() == shares[share]
    moved = [{member for member, version in shares[share].items() if version == "2"} for share in shares]
    assert moved[0] < moved[1] < moved[2]
    assert [len(one) / 2_000 for one in moved] == pytest.approx([0.1, 0.5, 1.0], abs=0.035)


@pytest.mark.requirement("R4.1")
async def test_a_tester_may_ask_for_a_version_in_memory_and_no_other(opened: Opened, place: Place):
    place.route(live="1", previous="2")
    async with opened() as (_, client):
        told = await client.post(OWN, json={"rows": [ROW]}, headers={"x-prodecks-version": "2"})
        assert told.json()["predictions"][0] | {"request_id": ""} == {
            "score": pytest.approx(sigmoid(4.0)), "decision": 1, "version": "2", "request_id": "",
        }  # fmt: skip
        assert (await client.post(OWN, json={"rows": [ROW]}, headers={"x-prodecks-version": "9"})).status_code == 400
    assert predictions(place)[0].role == "previous"


@pytest.mark.requirement("R4.3")
async def test_a_shadow_scores_the_same_rows_for_the_record_alone(opened: Opened, place: Place):
    place.route(live="1", shadow="2")
    async with opened() as (_, client):
        told = await client.post(OWN, json={"rows": [ROW]}, headers={"x-request-id": "r"})
        assert [one["version"] for one in told.json()["predictions"]] == ["1"]
        for _ in range(100):
            if len(predictions(place)) == 2:
                break
            await asyncio.sleep(0.02)
    kept = {one.role: one for one in predictions(place)}
    assert (kept["live"].request_id, kept["shadow"].request_id) == ("r", "r")
    assert kept["shadow"].score == pytest.approx(sigmoid(4.0))


class Failing:
    """A version that fails, or answers nonsense."""

    def __init__(self, answer: float | None) -> None:
        self.answer = answer

    def score(self, columns: Any) -> Any:
        import numpy as np

        if self.answer is None:
            raise RuntimeError("broken inside")
        return np.full(len(columns["x"]), self.answer)


@pytest.mark.requirement("R4.3")
@pytest.mark.parametrize("answer", [None, math.nan, 1.5])
async def test_a_failing_shadow_changes_no_answer(opened: Opened, place: Place, answer: float | None):
    place.route(live="1", shadow="2")
    async with opened() as (gateway, client):
        object.__setattr__(gateway.models.served["churn"].versions["2"], "backend", Failing(answer))
        assert (await client.post(OWN, json={"rows": [ROW]})).status_code == 200
        for _ in range(100):
            if len(predictions(place)) == 2:
                break
            await asyncio.sleep(0.02)
    failed = next(one for one in predictions(place) if one.role == "shadow")
    assert failed.score is None
    assert failed.error


@pytest.mark.parametrize("answer", [None, math.nan, -0.1])
async def test_a_version_that_fails_is_on_record_and_tells_the_client_nothing_of_its_inside(
    opened: Opened, place: Place, answer
):
    async with opened() as (gateway, client):
        object.__setattr__(gateway.models.served["churn"].versions["1"], "backend", Failing(answer))
        told = await client.post(OWN, json={"rows": [ROW]})
        assert told.status_code == 500
        assert "inside" not in told.text
        assert 'prodecks_errors_total{model="churn",role="live",version="1"} 1.0' in (await client.get("/metrics")).text
    (kept,) = predictions(place)
    assert (kept.score, kept.decision) == (None, None)
    assert kept.error


async def test_a_version_that_answers_fewer_rows_than_asked_fails_and_the_next_request_is_answered(
    opened: Opened, place: Place
):
    class Short:
        def score(self, columns: Any) -> Any:
            import numpy as np

            return np.full(len(columns["x"]) - 1, 0.5)

    place.route(live="1", previous="2")
    async with opened() as (gateway, client):
        object.__setattr__(gateway.models.served["churn"].versions["1"], "backend", Short())
        assert (await client.post(OWN, json={"rows": [ROW, ROW]})).status_code == 500
        assert (await client.post(OWN, json={"rows": [ROW]}, headers={"x-prodecks-version": "2"})).status_code == 200
    assert [one.error for one in predictions(place)] == ["ValueError: (1,) scores for 2 rows"] * 2 + [""]


async def test_many_rows_are_scored_beside_the_loop_and_small_requests_are_answered_with_them(
    opened: Opened, place: Place
):
    async with opened() as (_, client):
        large, *small = await asyncio.gather(
            client.post(OWN, json={"rows": [ROW] * 9_000}), *(client.post(OWN, json={"rows": [ROW]}) for _ in range(20))
        )
    assert {one.status_code for one in (large, *small)} == {200}
    assert len(large.json()["predictions"]) == 9_000
    assert len(predictions(place)) == 9_020


async def test_a_log_that_takes_its_time_holds_nobody_else_up(
    opened: Opened, place: Place, monkeypatch: pytest.MonkeyPatch
):
    threads: list[bool] = []
    async with opened() as (gateway, client):
        append = gateway.batcher.predictions.append
        takes = [0.0]

        def slow(records: Sequence[bytes], through: int) -> int:
            threads.append(threading.current_thread() is threading.main_thread())
            time.sleep(takes[0])
            return append(records, through)

        async def ask(times: int) -> None:
            for _ in range(times):
                assert (await client.post(OWN, json={"rows": [ROW]})).status_code == 200

        monkeypatch.setattr(gateway.batcher.predictions, "append", slow)
        monkeypatch.setattr("serving.batching.QUICK_S", 0.05)
        gateway.batcher._slowest = 0.0
        await ask(2)
        assert threads == [True, True], "a quick log is written from the loop"
        takes[0] = 0.5
        await ask(1)
        asked = asyncio.create_task(ask(1))
        await asyncio.sleep(0.1)
        assert (await client.get("/v2/health/live")).status_code == 200
        assert not asked.done(), "the loop answers others while the group is written"
        await asked
        assert threads == [True, True, True, False]
        takes[0] = 0.0
        await ask(60)
        assert threads[-1], "a log that is quick again is written from the loop again"
    assert len(predictions(place)) == len(threads)


@pytest.mark.parametrize(("answer_unrecorded", "status"), [(False, 503), (True, 200)])
async def test_what_cannot_be_put_on_record_is_refused_unless_the_policy_says_otherwise(
    opened: Opened, place: Place, monkeypatch: pytest.MonkeyPatch, answer_unrecorded: bool, status: int
):
    async with opened(answer_unrecorded=answer_unrecorded) as (gateway, client):
        append = gateway.batcher.predictions.append

        def full(*_: Any) -> int:
            raise UnavailableError("no room")

        monkeypatch.setattr(gateway.batcher.predictions, "append", full)
        told = await client.post(OWN, json={"rows": [ROW]})
        assert told.status_code == status
        outcome = {"outcomes": [{"model": "churn", "label": 1, "request_id": "r"}]}
        assert (await client.post("/outcomes", json=outcome)).status_code == 503
        assert "prodecks_unrecorded_total 2.0" in (await client.get("/metrics")).text
        monkeypatch.setattr(gateway.batcher.predictions, "append", append)
        assert (await client.post(OWN, json={"rows": [ROW]})).status_code == 200
    assert len(predictions(place)) == 1


@pytest.mark.requirement("R5.2")
async def test_labels_find_their_prediction_once(opened: Opened, place: Place):
    async with opened() as (_, client):
        rows = {"rows": [{**ROW, "member": "M1"}]}
        await client.post(OWN, json=rows, headers={"x-request-id": "r1"})
        await client.post(OWN, json=rows, headers={"x-request-id": "r2"})

        async def label(**outcome: Any) -> dict[str, str]:
            told = await client.post("/outcomes", json={"outcomes": [{"model": "churn", "label": 1, **outcome}]})
            assert told.status_code == 200, told.text
            return told.json()["outcomes"][0]

        assert await label(request_id="r1") == {"request_id": "r1", "status": "recorded"}
        assert await label(request_id="r1") == {"request_id": "r1", "status": "duplicate"}
        assert await label(request_id="r1", label=0) == {"request_id": "r1", "status": "contradicts"}
        assert await label(entity="M1") == {"request_id": "r2", "status": "recorded"}
        assert await label(request_id="never") == {"request_id": "never", "status": "unknown"}
    kept = [entry.record for entry in read_log(place.folder / "log") if isinstance(entry.record, Outcome)]
    assert [(one.request_id, one.label) for one in kept] == [("r1", 1), ("r2", 1), ("never", 1)]
    async with opened() as (_, client):  # a gateway that was started anew remembers
        assert await label(request_id="r2") == {"request_id": "r2", "status": "duplicate"}


@pytest.mark.parametrize(
    "outcome",
    [
        {"model": "churn", "label": 1},
        {"model": "churn", "label": 1, "request_id": "r", "entity": "e"},
        {"model": "churn", "label": 2, "request_id": "r"},
        {"model": "churn", "label": "1", "request_id": "r"},
        {"model": "churn", "label": 1, "request_id": "r", "at": 1e12},
        {"model": "churn", "label": 1, "request_id": "r", "extra": 1},
    ],
)
async def test_an_invalid_outcome_is_refused(opened: Opened, outcome: Any):
    async with opened() as (_, client):
        assert (await client.post("/outcomes", json={"outcomes": [outcome]})).status_code == 400
        unknown = {"model": "nobody", "label": 1, "request_id": "r"}
        assert (await client.post("/outcomes", json={"outcomes": [unknown]})).status_code == 404


async def test_a_damaged_version_never_becomes_live_and_the_one_before_answers_on(opened: Opened, place: Place):
    async with opened() as (gateway, client):
        path = place.folder / "models" / "churn" / "2" / TWIN
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        place.route(live="2")
        for _ in range(100):
            if gateway.models.problems:
                break
            await asyncio.sleep(0.02)
        assert "twin.onnx is not what was registered" in gateway.models.problems["churn"]
        assert (await client.post(OWN, json={"rows": [ROW]})).json()["predictions"][0]["version"] == "1"
        assert (await client.get("/v2/health/ready")).status_code == 503
        await follow(gateway, place.route(live="1").generation)
        assert (await client.get("/v2/health/ready")).status_code == 200


async def test_no_request_fails_while_all_traffic_moves_back_and_forth(opened: Opened, place: Place):
    async with opened() as (gateway, client):
        stop = asyncio.Event()
        answers: list[int] = []

        async def ask() -> None:
            while not stop.is_set():
                answers.append((await client.post(OWN, json={"rows": [ROW]})).status_code)

        askers = [asyncio.create_task(ask()) for _ in range(4)]
        for number in range(6):
            await follow(gateway, place.route(live="21"[number % 2], previous="12"[number % 2]).generation)
        stop.set()
        await asyncio.gather(*askers)
    assert len(answers) > 20
    assert set(answers) == {200}


async def test_an_older_routing_table_never_replaces_a_newer_one(place: Place):
    newer = place.route(live="1", previous="2")
    place.store.write_table(Table(type(newer)("churn", 1, "2"), {"2": place.digests["2"]}))
    table = place.store.table("churn")
    assert table is not None
    assert table.routing == newer


@pytest.mark.requirement("R5.1")
async def test_prometheus_reads_latency_rows_errors_and_resources_by_version_and_role(opened: Opened, place: Place):
    place.route(live="1", candidate="2", share=0.5)
    async with opened() as (gateway, client):
        rows = [{**ROW, "member": f"M{number}"} for number in range(40)]
        for row in rows:
            assert (await client.post(OWN, json={"rows": [row]})).status_code == 200
        assert (await client.post(OWN, json={"rows": []})).status_code == 400
        object.__setattr__(gateway.models.served["churn"].versions["2"], "backend", Failing(None))
        failed = [(await client.post(OWN, json={"rows": [row]})).status_code for row in rows].count(500)
        page = (await client.get("/metrics")).text
    told = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line[0] != "#"}
    live, candidate = ('{model="churn",role="live",version="1"}', '{model="churn",role="candidate",version="2"}')
    assert told[f"prodecks_rows_total{live}"] + told[f"prodecks_rows_total{candidate}"] == 80 - failed
    assert told[f"prodecks_errors_total{candidate}"] == failed > 0
    assert told[f"prodecks_request_seconds_count{candidate}"] == told[f"prodecks_rows_total{candidate}"] + failed
    edges = [
        (float(key.split('le="')[1].split('"')[0]), value)
        for key, value in told.items()
        if key.startswith("prodecks_request_seconds_bucket") and 'version="1"' in key
    ]
    assert len(edges) > 20
    assert [value for _, value in sorted(edges)] == sorted(value for _, value in edges)
    assert told['prodecks_refused_total{status="400"}'] == 1
    assert told["prodecks_memory_bytes"] > 10_000_000
    assert told["prodecks_cpu_share"] >= 0
    assert told["prodecks_in_flight"] == 1  # this very request for the page
