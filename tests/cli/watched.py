"""A place whose model answers traffic that is made by hand: a registered version with its reference, a log, outcomes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from adapters.prediction_archive import PredictionArchive
from adapters.prediction_log import Outcome, Prediction, PredictionLog, encode
from adapters.reference_file import encode as encode_reference
from adapters.registry import REFERENCE, Registry
from lifecycle.aliases import Alias
from tests.cli.conftest import MODEL
from tests.cli.hand_made import World, register, twin
from tests.people import holdout

WATCHED = (
    MODEL.replace("sensitive:", "  - {name: gender, type: categorical, values: [f, m]}\nsensitive:")
    + "monitoring: {window: 7d}\n"
)


def keep_reference(registry: Registry, version: str, rows: pd.DataFrame) -> None:
    """Attach a reference as registration does."""
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=registry.url, registry_uri=registry.url)
    run = client.get_model_version("churn", version).run_id
    registry.attach(run, {REFERENCE: encode_reference(rows)})


@dataclass
class Watched:
    """A world with traffic."""

    world: World

    @classmethod
    def make(cls, folder: Path, versions: Mapping[str, bytes] | None = None) -> Watched:
        twins = versions or {"1": twin(), "2": twin(0.1)}
        world = World.make(folder / "place", register(folder / "registry", twins), WATCHED, versions=twins)
        watched = cls(world)
        keep_reference(world.registry, "1", holdout(world.spec))
        world.ops.assign_aliases(
            "churn", lambda _: {Alias.CHAMPION: "1"}, actor="Ali", reason="r", now=datetime.now(UTC),
            environment="development",
        )  # fmt: skip
        return watched

    @property
    def serving(self) -> Path:
        return self.world.place.var / "serving"

    def answer(
        self, frame: pd.DataFrame, start: datetime, end: datetime, *, version: str = "1", labels: float = 1.0,
        clients: Iterable[str] = ("app",), name: str = "r",
    ) -> None:  # fmt: skip
        """Put predictions on record, evenly over a span, and the outcomes of a share of them."""
        names = list(clients)
        step = (end - start) / len(frame)
        records: list[bytes] = []
        for place, row in enumerate(frame.to_dict("records")):
            at = (start + place * step).timestamp()
            features = {key: row[key] for key in ("activity", "visits", "plan", "gender")}
            request = f"{name}-{start.timestamp():.0f}-{place}"
            records.append(
                encode(
                    Prediction(
                        request, at, "churn", version, "live", names[place % len(names)], f"M{place}", features,
                        float(row["score"]), int(row["score"] >= 0.5), 3.0 + place % 5,
                    )
                )
            )  # fmt: skip
            if place < labels * len(frame):
                records.append(encode(Outcome(request, "", "churn", int(row["churned"]), at, at + 60, "crm")))
        self.write(records)

    def write(self, records: list[bytes]) -> None:
        log = PredictionLog.open(
            self.serving / "log", segment_bytes=200_000, first=PredictionArchive(self.serving).through + 1
        )
        try:
            for first in range(0, len(records), 500):
                log.append(records[first : first + 500], 0)
        finally:
            log.close()
