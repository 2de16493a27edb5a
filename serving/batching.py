"""Scores what waits together, puts it on record in one durable group, and only then answers (R5.1, R4.3)."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import numpy as np

from adapters.prediction_log import Outcome, Prediction, PredictionLog, encode
from lifecycle.errors import UnavailableError
from lifecycle.redaction import redacted
from lifecycle.traffic import Role
from serving.dialects import Scored
from serving.lanes import ROWS_IN_LOOP, LaneFullError
from serving.measures import Measures
from serving.versions import Loaded

ROWS_A_GROUP = 4_096
QUICK_S = 0.002
"""A log that takes groups in less time is written from the loop: handing over to a thread and back costs about as much."""
FORGETS = 0.95
"""What a slow write counts for after each one that followed: one of 20 ms keeps the loop from writing for 45 groups."""

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
        Called with the scored rows, `VersionFailed` or `Unrecorded`; None for a shadow, which nobody waits for.
    """

    loaded: Loaded
    role: Role
    rows: Sequence[Any]
    entities: Sequence[str]
    ids: Sequence[str]
    client: str
    received: float
    done: Callable[[list[Scored] | VersionFailed | Unrecorded], None] | None


class VersionFailed(Exception):
    """A version could not score; the failure is on record."""


@dataclass(slots=True)
class _Group:
    """What is put on record together."""

    records: list[bytes]
    answers: list[tuple[Job, list[Scored] | None]]
    outcomes: list[asyncio.Future[None]]


@dataclass(slots=True)
class Batcher:
    """One queue for all versions of a gateway: what waits while a group is written makes up the next one.

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
    _outcomes: deque[tuple[list[bytes], asyncio.Future[None]]] = field(default_factory=deque)
    _at_work: bool = False
    _idle: asyncio.Event = field(default_factory=asyncio.Event)
    _answered: int = 0
    _sent_before: int = 0
    _slowest: float = QUICK_S
    _to_write: SimpleQueue[tuple[_Group, int] | None] = field(default_factory=SimpleQueue)
    _writer: threading.Thread | None = None
    _scorer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "scoring"))
    _shadow_records: list[bytes] = field(default_factory=list)
    _away: set[asyncio.Task[None]] = field(default_factory=set)
    _back: deque[tuple[Job, list[Scored] | None, list[bytes]]] = field(default_factory=deque)

    def start(self) -> None:
        """Begin to answer, in the running loop."""
        loop = asyncio.get_running_loop()
        self._writer = threading.Thread(target=self._write, args=(loop,), name="prediction-log", daemon=True)
        self._writer.start()
        self._idle.set()

    def answer(self, *jobs: Job) -> None:
        """Queue jobs; each is told through `Job.done` once it is on record, or cannot be."""
        for job in jobs:
            if job.loaded.apart:
                self._send_away(job)
            else:
                self._waiting.append(job)
        if self._waiting:
            self._wake()

    def shadow(self, job: Job) -> None:
        """Score rows beside the live version, when there is time; those that come too fast are dropped and counted."""
        self._send_away(job)

    async def record(self, outcomes: Sequence[Outcome]) -> None:
        """Put outcomes on record; Unrecorded when the log does not take them."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outcomes.append(([encode(one) for one in outcomes], done))
        self._wake()
        await done

    async def close(self) -> None:
        """Answer what waits, and close the log."""
        while self._away:
            await asyncio.wait(self._away)
        await self._idle.wait()
        await asyncio.sleep(0)  # the last answers leave
        self._to_write.put(None)
        if self._writer is not None:
            await asyncio.to_thread(self._writer.join)
        self._scorer.shutdown(wait=True)
        self.predictions.close()

    def _wake(self) -> None:
        """Form a group in the next turn of the loop, so that all requests read in this one are in it."""
        if not self._at_work:
            self._at_work = True
            self._idle.clear()
            asyncio.get_running_loop().call_soon(self._form)

    def _form(self) -> None:
        jobs: list[Job] = []
        rows = 0
        while self._waiting and (not jobs or rows + len(self._waiting[0].rows) <= ROWS_A_GROUP):
            jobs.append(self._waiting.popleft())
            rows += len(jobs[-1].rows)
        outcomes = list(self._outcomes)
        self._outcomes.clear()
        shadows, self._shadow_records = self._shadow_records, []
        by_version: dict[int, list[Job]] = {}
        for job in jobs:
            by_version.setdefault(id(job.loaded), []).append(job)
        records = [*itertools.chain.from_iterable(one for one, _ in outcomes), *shadows]
        group = _Group(records, [], [done for _, done in outcomes])
        while self._back:
            job, made, told = self._back.popleft()
            group.answers.append((job, made))
            group.records += told
        if rows <= ROWS_IN_LOOP:
            for together in by_version.values():
                _add(group, together, *_scores(together))
            self._put(group)
        else:
            asyncio.get_running_loop().create_task(self._form_large(group, list(by_version.values())))

    async def _form_large(self, group: _Group, by_version: list[list[Job]]) -> None:
        loop = asyncio.get_running_loop()
        for together in by_version:
            _add(group, together, *await loop.run_in_executor(self._scorer, _scores, together))
        self._put(group)

    def _put(self, group: _Group) -> None:
        if not group.records:
            self._settle(group, None, None)
            return
        # The answers of the group before the last have left: a whole turn of the loop lies between.
        through, self._sent_before = self._sent_before, self._answered
        if self._slowest < QUICK_S:
            self._settle(group, *self._append(group, through))
        else:
            self._to_write.put((group, through))

    def _write(self, loop: asyncio.AbstractEventLoop) -> None:
        """Append groups while the log is not quick, in the writer's thread."""
        while (told := self._to_write.get()) is not None:
            loop.call_soon_threadsafe(self._settle, told[0], *self._append(*told))

    def _append(self, group: _Group, through: int) -> tuple[int | None, str | None]:
        """Put a group on record: the sequence of its last record, or what failed."""
        began = time.monotonic()
        try:
            return self.predictions.append(group.records, through), None
        except UnavailableError as error:
            return None, str(error)
        except Exception as error:  # noqa: BLE001 - an answer that is not on record is refused, whatever the reason
            return None, f"{type(error).__name__}: {error}"
        finally:
            self._slowest = max(time.monotonic() - began, FORGETS * self._slowest)

    def _settle(self, group: _Group, last: int | None, failure: str | None) -> None:
        """Answer a group that is on record, or that cannot be."""
        if last is not None:
            self._answered = last
        if failure is not None:
            self.measures.unrecorded.inc(len(group.records))
            log.warning("not on record: %s", failure)
        now = time.monotonic()
        for job, made in group.answers:
            try:
                self._settle_job(job, made, failure, now)
            except Exception:  # one answer that cannot be given holds up no other
                log.exception("an answer was not given")
        for done in group.outcomes:
            if not done.done():
                if failure is None:
                    done.set_result(None)
                else:
                    done.set_exception(Unrecorded(failure))
        self._at_work = False
        if self._waiting or self._outcomes or self._shadow_records or self._back:
            self._wake()
        else:
            self._idle.set()

    def _settle_job(self, job: Job, made: list[Scored] | None, failure: str | None, now: float) -> None:
        manifest = job.loaded.manifest
        tally = self.measures.tally(manifest.model, manifest.version, job.role)
        if made is None:
            tally.errors += len(job.rows)
        else:
            tally.rows += len(job.rows)
        tally.took(now - job.received)
        if job.done is None:
            return
        if failure is not None and not self.answer_unrecorded:
            job.done(Unrecorded(failure))
        elif made is None:
            job.done(VersionFailed(f"{manifest.model} version {manifest.version} failed"))
        else:
            job.done(made)

    def _send_away(self, job: Job) -> None:
        """Let a version score in its lane while others answer."""
        task = asyncio.get_running_loop().create_task(self._score_away(job))
        self._away.add(task)
        task.add_done_callback(self._away.discard)

    async def _score_away(self, job: Job) -> None:
        """Score in the version's lane; the rows join the next group that is recorded."""
        scores, error = None, ""
        try:
            scores = await job.loaded.lane.score(job.rows)
        except LaneFullError as full:
            if job.done is None:
                self.measures.shadow_dropped.labels(job.loaded.manifest.model).inc(len(job.rows))
                return
            error = _told(full)
        except Exception as failed:  # noqa: BLE001 - whatever a model does, its failure is counted and answered
            error = _told(failed) if job.loaded.remote else _failed(job.loaded, failed)
        made, records = _answers(job, None if scores is None else scores.tolist(), error, time.time())
        if job.done is None:
            self._shadow_records += records
        else:
            self._back.append((job, made, records))
        self._wake()


def _scores(jobs: Sequence[Job]) -> tuple[np.ndarray[Any, Any] | None, str]:
    """Score jobs of one version together; no scores, and why, when it fails."""
    loaded = jobs[0].loaded
    rows = jobs[0].rows if len(jobs) == 1 else [row for job in jobs for row in job.rows]
    try:
        return loaded.score(rows), ""
    except Exception as error:  # noqa: BLE001 - whatever a model does, its failure is counted and answered
        return None, _failed(loaded, error)


def _failed(loaded: Loaded, error: Exception) -> str:
    told = _told(error)
    log.warning("%s version %s failed: %s", loaded.manifest.model, loaded.manifest.version, told)
    return told


def _told(error: Exception) -> str:
    return redacted(f"{type(error).__name__}: {str(error)[:500]}")


def _add(group: _Group, jobs: Sequence[Job], scores: np.ndarray[Any, Any] | None, error: str) -> None:
    values = None if scores is None else scores.tolist()
    now, start = time.time(), 0
    for job in jobs:
        made, records = _answers(job, None if values is None else values[start : start + len(job.rows)], error, now)
        start += len(job.rows)
        group.answers.append((job, made))
        group.records += records


def _answers(
    job: Job, scores: Sequence[float] | None, error: str, now: float
) -> tuple[list[Scored] | None, list[bytes]]:
    """What a job's rows are answered, None when one of them failed, and their records; `now` in Unix seconds."""
    manifest, reader, role = job.loaded.manifest, job.loaded.rows, job.role.value
    latency = (time.monotonic() - job.received) * 1_000
    made: list[Scored] = []
    records: list[bytes] = []
    values = [None] * len(job.rows) if scores is None else scores
    for row, entity, name, score in zip(job.rows, job.entities, job.ids, values, strict=True):
        known = score is not None and 0 <= score <= 1
        decision = int(score >= manifest.threshold) if known else None
        if known:
            made.append(Scored(score, decision or 0, manifest.version, role, name))
        records.append(
            encode(
                Prediction(
                    request_id=name,
                    at=now,
                    model=manifest.model,
                    version=manifest.version,
                    role=role,
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
