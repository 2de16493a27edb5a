"""A past window sent to a gateway: every row answered and labelled once, and what cannot be sent is an answer."""

from __future__ import annotations

import pytest

from adapters.prediction_log import Outcome, Prediction, read
from tests.cli.conftest import Place
from tests.cli.test_serve import serving

WINDOW = ("--from", "2024-02-01", "--to", "2024-02-08")


@pytest.mark.requirement("R7.3")
def test_a_windows_rows_are_answered_and_their_labels_recorded(promoted: Place):
    before = max((entry.sequence for entry in read(promoted.var / "serving" / "log")), default=0)
    with serving(promoted) as gateway:
        told = promoted.run("traffic", "churn", *WINDOW, "--rate", "200", "--gateway", gateway.address, "--json")
        assert told.code == 0, told.err
        few = promoted.run(
            "traffic", "churn", *WINDOW, "--most", "3", "--no-outcomes", "--rate", "200", "--gateway", gateway.address
        )
    rows = 7 * 8  # one every three hours
    assert (told.json["answered"], told.json["versions"]) == (rows, {"1": rows})
    assert (told.json["outcomes"], told.json["refused"]) == ({"recorded": rows}, {})
    assert 0 < told.json["p50_ms"] <= told.json["p99_ms"]
    assert "1: 3" in few.out
    kept = [entry.record for entry in read(promoted.var / "serving" / "log") if entry.sequence > before]
    assert sum(isinstance(one, Prediction) for one in kept) == rows + 3
    assert sum(isinstance(one, Outcome) for one in kept) == rows


def test_what_the_gateway_refuses_is_counted(promoted: Place):
    with serving(promoted, "--rate", "1", "--burst", "1") as gateway:
        told = promoted.run("traffic", "churn", *WINDOW, "--rate", "500", "--gateway", gateway.address, "--json")
    assert told.code == 0, told.err
    assert any(reason.startswith("429: ") for reason in told.json["refused"])


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("--rate", "0"), 2, "requests a second above 0"),
        (("--gateway", "localhost"), 2, "an http or https address"),
        (("--from", "2024-02-02", "--to", "2024-02-01"), 2, "--from before --to"),
        (("--from", "2019-01-01", "--to", "2019-02-01"), 4, "it covers 2024-01-01"),
        (("--gateway", "http://127.0.0.1:9"), 5, "gateway http://127.0.0.1:9"),
    ],
)
def test_what_cannot_be_sent_is_an_answer(promoted: Place, arguments: tuple[str, ...], code: int, problem: str):
    answer = promoted.call("traffic", "churn", *arguments)
    assert answer.code == code, answer
    assert problem in answer.err
