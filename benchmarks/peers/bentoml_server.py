"""BentoML around the twin: ``bentoml serve bentoml_server:Scorer``, batching adaptively where BATCHING is 1."""

# ruff: noqa: D102

import os

import bentoml
from twin import Twin

BATCHING = os.environ["BATCHING"] == "1"


@bentoml.service(workers=1, logging={"access": {"enabled": False}}, traffic={"timeout": 60})
class Scorer:
    """One row a request."""

    def __init__(self):
        self.twin = Twin()

    @bentoml.api(batchable=BATCHING, max_batch_size=64, max_latency_ms=1_000)
    def predict(self, rows: list[dict]) -> list[float]:
        return self.twin.score(rows)
