"""Work in processes: all of it is done, and what kills its process fails alone."""

from __future__ import annotations

import os
from concurrent.futures.process import BrokenProcessPool

import pytest

from adapters.worker_pool import spread


def shout(word: str) -> str:
    if word == "die":
        os._exit(9)
    return f"{word.upper()} {os.environ['OPENBLAS_NUM_THREADS']}"


def test_an_item_that_kills_its_process_fails_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    found = dict(spread(shout, ["a", "die", "b", "c"], 2))
    assert isinstance(found.pop("die"), BrokenProcessPool)
    assert found == {"a": "A 1", "b": "B 1", "c": "C 1"}
    assert os.environ["OPENBLAS_NUM_THREADS"] == "7"
