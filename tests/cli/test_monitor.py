"""`--pipeline monitor`, end to end: traffic on record, findings, alerts; and what bad traffic gets."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pandas as pd
import pytest

from adapters.prediction_archive import PredictionArchive
from tests.cli.watched import DAY, Watched, people

WEEK = 7 * DAY
START = datetime(2026, 3, 2, tzinfo=UTC)
END = START + WEEK
MONITOR = ("--pipeline", "monitor", "--model", "churn")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    from zenml.client import Client
    from zenml.config.global_config import GlobalConfiguration

    for singleton in (Client, GlobalConfiguration):
        singleton._reset_instance()
    yield Watched.make(tmp_path_factory.mktemp("watched"))
    for singleton in (Client, GlobalConfiguration):
        singleton._reset_instance()


def test_traffic(watched: Watched):
    watched.answer(people(1_500, 2), START, END)
    PredictionArchive(watched.serving).compact()
    answer = watched.world.place.call(*MONITOR, "--as-of", END.isoformat())
    print(answer.out, answer.err)
    assert answer.code == 0
    answer = watched.world.place.call(*MONITOR, "--as-of", END.isoformat())
    print(answer.out, answer.err)
    answer = watched.world.place.call("runs", "show", "--help")
    assert 0
