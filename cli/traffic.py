"""`run.py traffic`: the labelled rows of a past window sent to a gateway as if they came now, then their outcomes (R7.3)."""

from __future__ import annotations

import asyncio
import math
import os
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from adapters.model_files import load_model
from adapters.services import models_folder
from cli.progress import showing_progress
from cli.show import console, print_json, table
from cli.training import as_of_now, parse_moment
from cli.workspace import Workspace
from lifecycle.errors import ConfigError, UnavailableError
from lifecycle.spec import ModelSpec
from steps.progress import tell

if TYPE_CHECKING:
    import httpx
    import pandas as pd

KEY = "PRODECKS_CLIENT_KEY"
"""API key with the roles predict and label, where the gateway asks for one."""
OUTCOMES_A_REQUEST = 100
AT_ONCE = 64


@dataclass(slots=True)
class Sent:
    """What came of the rows that were sent.

    Parameters
    ----------
    versions
        Version: rows it answered.
    refused
        What the gateway said instead of an answer, and how often.
    latencies
        Of each answer, in ms, as the client saw it.
    outcomes
        What the gateway said of each label: recorded, late, duplicate, ...
    seconds
        How long all of it took.
    """

    versions: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values; percentiles are None without an answer."""
        ordered = sorted(self.latencies)
        share = {f"p{p}_ms": ordered[math.ceil(p / 100 * len(ordered)) - 1] if ordered else None for p in (50, 95, 99)}
        told = {name: dict(getattr(self, name)) for name in ("versions", "refused", "outcomes")}
        return {"answered": len(ordered), **told, **share, "seconds": self.seconds}


def send(
    model: str,
    stack: str,
    environment: str | None,
    gateway: str | None,
    *,
    start: str | None,
    end: str | None,
    rate: float,
    most: int | None,
    outcomes: bool,
    as_json: bool,
) -> int:
    """Send a window's rows in the order they happened; the exit code.

    Raises
    ------
    ConfigError
        Unknown model, a window that is none, a rate that is none, an address that is none.
    DataError
        No labelled row in the window.
    UnavailableError
        The gateway does not answer.
    """
    if not (rate > 0 and math.isfinite(rate)):
        raise ConfigError(f"--rate {rate}; accepted: requests a second above 0")
    workspace = Workspace.open(stack, environment)
    address = workspace.gateway(gateway)
    spec = load_model(model, workspace.environment, models_folder())
    workspace.ensure_sample_database()
    rows = _rows(spec, workspace, start, end, most)
    with showing_progress(f"traffic for {model}"):
        sent = asyncio.run(_Client(spec, address, rate).send(rows, outcomes=outcomes))
    told = sent.to_dict()
    if as_json:
        print_json({"model": model, **told})
    else:
        shown = {**told, **{name: _counts(told[name]) for name in ("versions", "refused", "outcomes")}}
        shown |= {name: None if told[name] is None else f"{told[name]:.3g}" for name in ("p50_ms", "p95_ms", "p99_ms")}
        shown["seconds"] = f"{sent.seconds:.1f}"
        console().print(table(f"traffic for {model}", ("what", "value"), ((k, v) for k, v in shown.items() if v)))
    return 0


def _rows(spec: ModelSpec, workspace: Workspace, start: str | None, end: str | None, most: int | None) -> pd.DataFrame:
    from adapters.source import fetch

    as_of = as_of_now(spec, workspace)
    until = as_of if end is None else parse_moment(end, "--to")
    since = spec.monitoring.window.before(until) if start is None else parse_moment(start, "--from")
    if since >= until:
        raise ConfigError(
            f"a window from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M}; accepted: --from before --to"
        )
    frame = fetch(spec, workspace.services.source, as_of, spec.training.seed, between=(since, until)).frame
    frame = frame.sort_values([spec.source.timestamp, spec.source.entity_key], ignore_index=True)
    return frame if most is None else frame.head(most)


class _Client:
    """Sends rows at a rate, whether or not the ones before were answered: a slow server does not slow its clients down."""

    def __init__(self, spec: ModelSpec, gateway: str, rate: float) -> None:
        self._spec, self._gateway, self._rate = spec, gateway, rate
        self._sent = Sent()
        self._run = uuid.uuid4().hex[:8]

    async def send(self, rows: pd.DataFrame, *, outcomes: bool) -> Sent:
        import httpx

        key = os.environ.get(KEY, "")
        limits = httpx.Limits(max_connections=AT_ONCE)
        headers = {"X-API-Key": key} if key else {}
        started = time.perf_counter()
        async with httpx.AsyncClient(base_url=self._gateway, headers=headers, limits=limits, timeout=30) as client:
            try:
                await client.get("/healthz")
                waiting: set[asyncio.Task[str | None]] = set()
                answered: list[str | None] = [None] * len(rows)
                for place, row in enumerate(self._bodies(rows)):
                    await asyncio.sleep(max(0.0, started + place / self._rate - time.perf_counter()))
                    task = asyncio.create_task(self._predict(client, place, row, answered))
                    waiting.add(task)
                    task.add_done_callback(waiting.discard)
                    if place % 100 == 0:
                        tell(
                            "predict",
                            f"{place / (time.perf_counter() - started + 1e-9):.0f} a second",
                            place,
                            len(rows),
                        )
                    if len(waiting) > 10 * AT_ONCE:
                        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.gather(*waiting)
                tell("predict", f"{len(rows):,} rows", len(rows), len(rows))
                if outcomes:
                    await self._label(client, rows[self._spec.label.column].tolist(), answered)
            except httpx.TransportError as error:
                raise UnavailableError(f"gateway {self._gateway}: {str(error) or type(error).__name__}") from None
        self._sent.seconds = time.perf_counter() - started
        return self._sent

    def _bodies(self, rows: pd.DataFrame) -> list[dict[str, Any]]:
        key = self._spec.source.entity_key
        numeric = {feature.name for feature in self._spec.numeric}
        names = list(dict.fromkeys([*self._spec.feature_names, key]))
        columns = {name: rows[name].astype(object).where(rows[name].notna(), None).tolist() for name in names}
        made = []
        for place in range(len(rows)):
            row = {name: columns[name][place] for name in names}
            made.append({name: _plain(value, name in numeric) for name, value in row.items()})
        return made

    async def _predict(
        self, client: httpx.AsyncClient, place: int, row: dict[str, Any], answered: list[str | None]
    ) -> None:
        name = f"{self._spec.name}-{self._run}-{place}"
        began = time.perf_counter()
        told = await client.post(
            f"/models/{self._spec.name}/predict", json={"rows": [row]}, headers={"x-request-id": name}
        )
        if told.status_code == 200:
            self._sent.latencies.append((time.perf_counter() - began) * 1_000)
            self._sent.versions[told.headers["x-prodecks-version"]] += 1
            answered[place] = name
        else:
            self._sent.refused[f"{told.status_code}: {told.json()['error'][:100]}"] += 1

    async def _label(self, client: httpx.AsyncClient, labels: list[Any], answered: list[str | None]) -> None:
        known = [
            {
                "model": self._spec.name,
                "request_id": name,
                "label": int(label),
                "observed_at": datetime.now(UTC).timestamp(),
            }
            for name, label in zip(answered, labels, strict=True)
            if name is not None
        ]
        for start in range(0, len(known), OUTCOMES_A_REQUEST):
            told = await client.post("/outcomes", json={"outcomes": known[start : start + OUTCOMES_A_REQUEST]})
            if told.status_code == 200:
                self._sent.outcomes.update(one["status"] for one in told.json()["outcomes"])
            else:
                self._sent.refused[f"outcomes {told.status_code}: {told.json()['error'][:100]}"] += 1
            tell("outcomes", f"{start:,} labels", start, len(known))


def _plain(value: Any, number: bool) -> float | str | None:
    if value is None:
        return None
    return float(value) if number else str(value)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in sorted(counts.items()))
