"""Scores what waits together, puts it on record in one durable group, and only then answers (R5.1, R4.3)."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adapters.prediction_log import Outcome, Prediction, PredictionLog, encode
from lifecycle.errors import UnavailableError
from lifecycle.redaction import redacted
from lifecycle.traffic import Role
from serving.dialects import Scored
from serving.lanes import Lane, LaneFullError
from serving.measures import Measures
from serving.versions import Loaded

ROWS_IN_LOOP = 256
"""More rows than this are scored in a thread, so that other requests are read meanwhile."""
ROWS_A_GROUP = 4_096
MOST_SHADOW_ROWS = 10_000

log = logging.getLogger("prodecks.gateway")


class Unrecorded(Exception):
    """The prediction log did not take the answers; they are not given."""


@dataclass(slots=True)
class Job:
    """Rows of one request that one version answers.

    Parameters
    ----------
    loaded, role
        Who answers, and as what.
    rows, entities, ids
        Typed rows, whom each is about, and the request id of each.
    client
        Who asks.
    received
        Monotonic seconds when the request was read.
    done
        Resolved with the scored rows, `VersionFailed` or `Unrecorded`; None for a shadow, which nobody waits for.
    """

    loaded: Loaded
    role: Role
    rows: Sequence[Any]
    entities: Sequence[str]
    ids: Sequence[str]
    client: str
    received: float
    done: asyncio.Future[list[Scored]] | None


class VersionFailed(Exception):
    """A version could not score; the failure is on record."""


@dataclass(slots=True)
class Batcher:
    """One queue for all versions of a gateway; `run` empties it until `close`.

    Parameters
    ----------
    predictions
        The prediction log.
    measures
        Where it counts.
    answer_unrecorded
        Policy while the log's disk does not take records: answer all the same, or refuse.
    """

    predictions: PredictionLog
    measures: Measures
    answer_unrecorded: bool = False
    _waiting: deque[Job] = field(default_factory=deque)
    _shadows: deque[Job] = field(default_factory=deque)
    _shadow_rows: int = 0
    _outcomes: deque[tuple[list[bytes], asyncio.Future[None]]] = field(default_factory=deque)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _closing: bool = False
    _answered: int = 0
    _sent_before: int = 0
    _writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "prediction-log"))
    _scorer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "scoring"))
    _shadow_scorer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "shadow"))
    _shadow_task: asyncio.Task[None] | None = None
    _shadow_records: list[bytes] = field(default_factory=list)
    _away: int = 0
    _shadows_away: set[asyncio.Task[None]] = field(default_factory=set)
    _back: deque[tuple[Job, list[Scored] | None, list[bytes]]] = field(default_factory=deque)

    async def answer(self, job: Job) -> list[Scored]:
        """Queue a job and wait for its answer.

        Raises
        ------
        VersionFailed
            The version could not score.
        Unrecorded
            The answer is not on record, so it is not given.
        """
        assert job.done is not None
        if job.loaded.lane is not None:
            await self._score_away(job, job.loaded.lane)
        else:
            self._waiting.append(job)
        self._wake.set()
        return await job.done

    def shadow(self, job: Job) -> None:
        """Score rows beside the live version, when there is time; those that come too fast are dropped and counted."""
        if job.loaded.lane is not None:
            task = asyncio.get_running_loop().create_task(self._score_away(job, job.loaded.lane))
            self._shadows_away.add(task)
            task.add_done_callback(self._shadows_away.discard)
            return
        if self._shadow_rows + len(job.rows) > MOST_SHADOW_ROWS:
            self.measures.shadow_dropped.labels(job.loaded.manifest.model).inc(len(job.rows))
            return
        self._shadow_rows += len(job.rows)
        self._shadows.append(job)
        if self._shadow_task is None or self._shadow_task.done():
            self._shadow_task = asyncio.get_running_loop().create_task(self._score_shadows())

    async def record(self, outcomes: Sequence[Outcome]) -> None:
        """Put outcomes on record; Unrecorded when the log does not take them."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outcomes.append(([encode(one) for one in outcomes], done))
        self._wake.set()
        await done

    async def run(self) -> None:
        """Answer until closed; what waits then is answered first."""
        while not (self._closing and not self._away and not self._ready()):
            await self._wake.wait()
            self._wake.clear()
            while self._ready():
                await self._group()
            if self._closing and not self._away:
                break

    def _ready(self) -> bool:
        return bool(self._waiting or self._outcomes or self._shadow_records or self._back)

    async def close(self) -> None:
        """Let `run` end after what waits, and say that all answers left."""
        self._closing = True
        self._wake.set()

    def shut(self) -> None:
        """Close the log: every answer has been handed over."""
        for pool in (self._writer, self._scorer, self._shadow_scorer):
            pool.shutdown(wait=True)
        self.predictions.close()

    async def _group(self) -> None:
        jobs: list[Job] = []
        rows = 0
        while self._waiting and (not jobs or rows + len(self._waiting[0].rows) <= ROWS_A_GROUP):
            jobs.append(self._waiting.popleft())
            rows += len(jobs[-1].rows)
        outcomes = list(self._outcomes)
        self._outcomes.clear()
        shadows, self._shadow_records = self._shadow_records, []
        by_version: dict[tuple[str, str], list[Job]] = {}
        for job in jobs:
            by_version.setdefault((job.loaded.manifest.model, job.loaded.manifest.version), []).append(job)
        answers: list[tuple[Job, list[Scored] | None]] = []
        records = [*itertools.chain.from_iterable(one for one, _ in outcomes), *shadows]
        while self._back:
            job, made, told = self._back.popleft()
            answers.append((job, made))
            records += told
        for together in by_version.values():
            scores, error = await self._scores(together)
            start = 0
            for job in together:
                part = None if scores is None else scores[start : start + len(job.rows)]
                start += len(job.rows)
                made, told = _answers(job, part, error)
                answers.append((job, made))
                records += told
        failure = await self._append(records)
        for job, made in answers:
            self._settle(job, made, failure)
        for _, done in outcomes:
            if not done.done():
                if failure is None:
                    done.set_result(None)
                else:
                    done.set_exception(Unrecorded(failure))

    async def _scores(self, jobs: Sequence[Job]) -> tuple[np.ndarray[Any, Any] | None, str]:
        loaded = jobs[0].loaded
        rows = [row for job in jobs for row in job.rows]

        def score() -> np.ndarray[Any, Any]:
            return loaded.backend.score(loaded.rows.columns(rows))

        try:
            if len(rows) <= ROWS_IN_LOOP:
                return score(), ""
            return await asyncio.get_running_loop().run_in_executor(self._scorer, score), ""
        except Exception as error:  # noqa: BLE001 - whatever a model does, its failure is counted and answered
            told = _told(error)
            log.warning("%s version %s failed: %s", loaded.manifest.model, loaded.manifest.version, told)
            return None, told

    async def _score_away(self, job: Job, lane: Lane) -> None:
        """Let a version be asked over the network while others answer; its rows join the next group that is recorded."""
        scores, error = None, ""
        self._away += 1
        try:
            scores = await lane.score(job.rows)
        except LaneFullError as full:
            if job.done is None:
                self.measures.shadow_dropped.labels(job.loaded.manifest.model).inc(len(job.rows))
                return
            error = f"{type(full).__name__}: {full}"
        except Exception as failed:  # noqa: BLE001 - whatever a model does, its failure is counted and answered
            error = f"{type(failed).__name__}: {failed}"[:500]
        finally:
            self._away -= 1
            self._wake.set()
        made, records = _answers(job, scores, error)
        if job.done is None:
            self._shadow_records += records
        else:
            self._back.append((job, made, records))

    async def _append(self, records: list[bytes]) -> str | None:
        """Put a group on record; why it is not, or None."""
        if not records:
            return None
        # The answers of the group before the last have left: a whole turn of the loop lies between.
        through, self._sent_before = self._sent_before, self._answered
        try:
            self._answered = await asyncio.get_running_loop().run_in_executor(
                self._writer, self.predictions.append, records, through
            )
        except UnavailableError as error:
            self.measures.unrecorded.inc(len(records))
            log.warning("not on record: %s", error)
            return str(error)
        return None

    def _settle(self, job: Job, made: list[Scored] | None, failure: str | None) -> None:
        manifest = job.loaded.manifest
        labels = (manifest.model, manifest.version, job.role.value)
        if made is None:
            self.measures.errors.labels(*labels).inc(len(job.rows))
        else:
            self.measures.rows.labels(*labels).inc(len(job.rows))
        self.measures.latency.labels(*labels).observe(time.monotonic() - job.received)
        if job.done is None or job.done.done():  # the client has gone
            return
        if failure is not None and not self.answer_unrecorded:
            job.done.set_exception(Unrecorded(failure))
        elif made is None:
            job.done.set_exception(VersionFailed(f"{manifest.model} version {manifest.version} failed"))
        else:
            job.done.set_result(made)

    async def _score_shadows(self) -> None:
        while self._shadows:
            job = self._shadows.popleft()
            self._shadow_rows -= len(job.rows)
            loaded = job.loaded
            scores, error = None, ""
            try:
                scores = await asyncio.get_running_loop().run_in_executor(
                    self._shadow_scorer,
                    lambda loaded=loaded, job=job: loaded.backend.score(loaded.rows.columns(job.rows)),
                )
            except Exception as failed:  # noqa: BLE001 - a shadow's failure is on record and changes nothing else
                error = _told(failed)
            _, records = _answers(job, scores, error)
            self._shadow_records += records
            self._wake.set()


def _told(error: Exception) -> str:
    return redacted(f"{type(error).__name__}: {str(error)[:500]}")


def _answers(job: Job, scores: np.ndarray[Any, Any] | None, error: str) -> tuple[list[Scored] | None, list[bytes]]:
    manifest, reader = job.loaded.manifest, job.loaded.rows
    now = time.time()
    latency = (time.monotonic() - job.received) * 1_000
    made: list[Scored] = []
    records: list[bytes] = []
    values = [None] * len(job.rows) if scores is None else scores.tolist()
    for row, entity, name, score in zip(job.rows, job.entities, job.ids, values, strict=True):
        known = score is not None and 0 <= score <= 1
        decision = int(score >= manifest.threshold) if known else None
        if known:
            made.append(Scored(score, decision or 0, manifest.version, job.role.value, name))
        records.append(
            encode(
                Prediction(
                    request_id=name,
                    at=now,
                    model=manifest.model,
                    version=manifest.version,
                    role=job.role.value,
                    client=job.client,
                    entity=entity,
                    features=reader.values(row),
                    score=score if known else None,
                    decision=decision,
                    latency_ms=latency,
                    error=error if score is None else "" if known else f"score {score} is no probability",
                )
            )
        )
    return (made if len(made) == len(job.rows) else None), records
