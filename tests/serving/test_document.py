"""The OpenAPI document is kept: whatever is asked within or outside it, answers are those it lists, and none is a 5xx."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import CHECKS, load_all_checks

from serving.access import Access, Principal, Role, hashed
from tests.serving.conftest import Place, listening

pytestmark = pytest.mark.requirement("R2.3")
KEY = "key-of-the-fuzzer"
# What JSON Schema cannot say: as many values in each column as in the others, and as the shape tells; a moment that has been.
BEYOND_SCHEMA = (":predict", "/infer", "/outcomes")
REFUSED = ["400", "401", "403", "404", "405", "408", "413", "415", "429"]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    place = Place(tmp_path_factory.mktemp("fuzzed") / "serving")
    place.add("1")
    place.add("2", shift=2.0)
    place.route(live="1", candidate="2", share=0.5)
    keys = {hashed(KEY): Principal("fuzzer", frozenset({Role.ADMIN}))}
    with listening(place, Access(keys, None, None, None, 1, time.monotonic)) as (host, port):
        yield f"http://{host}:{port}"


def fuzz(address: str, cases: int, *without: str) -> dict[str, int]:
    """Try about so many cases, valid and invalid ones in turn, over all operations; how many answers had each status."""
    load_all_checks()
    positive, skipped = CHECKS.get_one("positive_data_acceptance"), [CHECKS.get_one(name) for name in without]
    headers = {"X-API-Key": KEY}
    config = schemathesis.Config.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": REFUSED}}})
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json", headers=headers, config=config)
    operations = [one.ok() for one in schema.get_all_operations()]
    statuses: dict[str, int] = {}
    session = requests.Session()

    def searched(strategy: st.SearchStrategy[schemathesis.Case], excluded: list[Callable]) -> Callable[[], None]:
        @settings(
            max_examples=max(1, cases // (2 * len(operations))),
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(case=strategy)
        def ask(case: schemathesis.Case) -> None:
            answer = case.call_and_validate(headers=headers, session=session, excluded_checks=excluded)
            statuses[str(answer.status_code)] = statuses.get(str(answer.status_code), 0) + 1

        return ask

    for operation in operations:
        excluded = [*skipped, *([positive] if operation.path.endswith(BEYOND_SCHEMA) else [])]
        for mode in schemathesis.GenerationMode:
            # A page without parameters cannot be asked for in an invalid way.
            with contextlib.suppress(Unsatisfiable):
                searched(operation.as_strategy(generation_mode=mode), excluded)()
    return statuses


def test_a_few_hundred_requests_within_and_outside_the_document_get_the_answers_it_lists(address: str):
    statuses = fuzz(address, 300)
    assert {"200", "400", "404"} <= set(statuses)


@pytest.mark.slow
def test_ten_thousand_requests_within_and_outside_the_document_get_the_answers_it_lists(address: str):
    # The few hundred try each without its key and with another one too; here that would take three times as long.
    statuses = fuzz(address, 12_000, "ignored_auth")
    assert sum(statuses.values()) >= 10_000, statuses
    assert not [status for status in statuses if status.startswith("5")]
