"""`run.py operate`: reads the prediction log, judges every rollout, moves traffic, and sets right what disagrees (R8.1)."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from adapters.model_files import ROOT
from adapters.model_store import ModelStore
from adapters.ops_store import OpsStore
from adapters.prediction_archive import PredictionArchive, Tail
from adapters.prediction_log import Prediction, Record
from adapters.registry import Registry
from adapters.rollout_store import Change, RolloutStore
from cli.alerting import Alerting, AlertingBeside, require_heard
from cli.model_server import ModelServers
from cli.predictions import Compaction
from cli.rollouts import Deployment, settle
from cli.serve import serving_folder
from cli.workspace import Workspace
from lifecycle.errors import BusyError, ConfigError, ProDecksError, UnavailableError
from lifecycle.findings import Finding, Verdict
from lifecycle.observations import PAST_SECONDS, Answer, Watch
from lifecycle.rollout import OPEN, RolloutState, Stage, advance, guard, withdraw
from lifecycle.spec import ModelSpec

ACTOR = "operate"
KEY = "PRODECKS_GATEWAY_KEY"
"""API key with the role operate, where the gateway asks for one."""
READ_BACK_S = 3.0
MOST_PAUSE_S = 5.0
"""Longest wait between two tries of an ops store that does not answer: what R8.1 leaves of its ten seconds."""
MOST_RECORDS = 500_000
"""Of a step with more of them on record, whoever takes it up reads the first half of so many and as many of the newest."""
REGISTRY_PAUSE_S = 30.0
"""The registry is asked again this long after it did not answer: no rollback waits for it."""


@dataclass(slots=True)
class Reading:
    """One version under watch, and how far the log was read for it.

    Parameters
    ----------
    watch
        What counts.
    tail
        What reads.
    newest
        Latest moment among the records that were read, in Unix seconds.
    seen, seen_at
        Moment, and monotonic seconds, at which this process first saw the version's step.
    """

    watch: Watch
    tail: Tail
    newest: float
    seen: datetime
    seen_at: float

    @classmethod
    def begin(cls, serving: Path, state: RolloutState, spec: ModelSpec, now: datetime) -> Reading:
        """Begin a step, or go on with one that another process watched before: the log says how it went."""
        since = state.since.timestamp() - PAST_SECONDS
        tail = Tail(PredictionArchive(serving), state.model, since, MOST_RECORDS)
        return cls(Watch(state, spec.rollout, spec.business), tail, 0.0, now, time.monotonic())

    def read(self) -> list[Finding]:
        """Count what the log holds by now; what it says."""
        for record in self.tail.new():
            self.count(record)
        return self.watch.findings()

    def count(self, record: Record) -> None:
        """Count one record of the model's."""
        if not isinstance(record, Prediction):
            if record.request_id:
                self.watch.labelled(record.request_id, record.label)
            return
        # The log's order is what happened: a clock that was set back hides no answer from the judge.
        self.newest = max(self.newest, record.at)
        shadow = record.role == "shadow"
        answer = Answer(record.version, self.newest, record.score, record.decision, record.latency_ms, shadow)
        self.watch.answered(record.request_id, answer)

    def held(self, now: datetime) -> datetime:
        """The moment, as far as hold times go: a clock that jumps ahead lets no hold time pass."""
        return min(now, self.seen + timedelta(seconds=time.monotonic() - self.seen_at))


class Operator:
    """Watches every model's rollout.

    Parameters
    ----------
    workspace
        Where.
    tell
        Called with each line worth reading.
    gateway
        Its address: what is in force there is read back after each change.
    servers
        TensorFlow Serving, where it scores.
    """

    def __init__(
        self, workspace: Workspace, tell: Callable[[str], None], gateway: str, servers: ModelServers | None = None
    ) -> None:
        self._servers, self._followed = servers, ThreadPoolExecutor(1, "model-servers")
        self._following: Future[None] | None = None
        self._workspace, self._tell, self._gateway = workspace, tell, gateway
        self._rollouts = RolloutStore(OpsStore.open(workspace.services.ops), workspace.environment.name)
        self._deployments: dict[str, Deployment] = {}
        self._readings: dict[tuple[str, str], Reading] = {}
        self._in_force: dict[str, int] = {}
        self._troubles: dict[str, str] = {}
        self._registry_from = 0.0

    def tick(self) -> int:
        """Look at every model once; how many changes were made.

        Raises
        ------
        UnavailableError
            The ops store does not answer: nothing was looked at.
        """
        changes = 0
        for model in self._rollouts.models():
            try:
                changes += self._model(model)
            except BusyError:
                continue  # a person was quicker; the next tick sees what they did
            except (ProDecksError, OSError) as error:
                # One model's trouble keeps nobody from watching the others.
                self._trouble(model, str(error))
            else:
                self._trouble(model, None)
        if self._servers is not None and (self._following is None or self._following.done()):
            # Beside the judging: a server that loads, or hangs, keeps no bad version among its users.
            self._following = self._followed.submit(self._follow, self._servers)
        return changes

    def settle(self) -> None:
        """Wait for what a look began."""
        self._followed.shutdown(wait=True)

    def _follow(self, servers: ModelServers) -> None:
        try:
            for line in servers.follow():
                self._tell(line)
        except Exception as error:  # noqa: BLE001 - told, whatever it is: nobody waits for this thread's result
            self._tell(f"TensorFlow Serving does not follow: {error}")

    def _model(self, model: str) -> int:
        deployment = self._deployments.get(model)
        if deployment is None:
            deployment = self._deployments[model] = Deployment(self._workspace, model)
        change = deployment.current()
        self._carry_out(deployment, change)
        self._confirm(deployment, change, 0.0)
        now = datetime.now(UTC)
        made: list[Change] = []
        findings: list[Finding] = []
        if change.state.stage in OPEN - {Stage.AWAITING_APPROVAL}:
            reading = self._reading(change.state, deployment.spec, "rollout", now)
            findings = reading.read()
            following = advance(change.state, deployment.spec.rollout, findings, reading.held(now))
            if following is not change.state:
                made = [self._put(deployment, change, following, now, findings)]
        if not made and change.state.stage is not Stage.LIVE:
            live = deployment.live(change)
            if live is not None:
                findings = self._reading(live, deployment.spec, "live", now).read()
                following = guard(change.state, live, deployment.spec.rollout, findings, now)
                if following is not change.state:
                    made = self._live_failed(deployment, change, following, now, findings)
        if made:
            self._confirm(deployment, made[-1], READ_BACK_S)
            for finding in findings:
                if finding.verdict is Verdict.FAIL:
                    self._tell(f"  {finding.reason} ({finding.window})")
        elif change.state.stage is Stage.AWAITING_APPROVAL:
            settle(deployment, change)
        return len(made)

    def _live_failed(
        self,
        deployment: Deployment,
        change: Change,
        following: RolloutState,
        now: datetime,
        findings: Sequence[Finding],
    ) -> list[Change]:
        """Put on record what follows for a live version beside whose successor's rollout it failed."""
        made: list[Change] = []
        if following.rollout_id != change.state.rollout_id and change.state.stage in OPEN:
            # Nothing is held against the one on trial; it was compared with a version that fails.
            ended = withdraw(change.state, now, f"version {following.candidate}, which is live, is rolled back")
            made.append(self._put(deployment, change, ended, now, findings))
        made.append(self._put(deployment, made[-1] if made else change, following, now, findings))
        return made

    def _put(
        self,
        deployment: Deployment,
        before: Change,
        state: RolloutState,
        now: datetime,
        findings: Sequence[Finding],
    ) -> Change:
        # What was decided by the time that passed is on record at the time that clocks show.
        stamped = state if state.since == before.state.since else replace(state, since=now)
        made = deployment.rollouts.change(
            before, stamped, deployment.spec.rollout, actor=ACTOR, now=now, findings=findings
        )
        self._carry_out(deployment, made)
        return made

    def _carry_out(self, deployment: Deployment, change: Change) -> None:
        """Make routing table and aliases follow; what cannot keeps nothing from being judged, which the log is enough for."""
        model = deployment.spec.name
        try:
            for done in deployment.route(change):
                self._tell(f"{model}: {done}")
        except ProDecksError as error:
            self._trouble(f"routing table of {model}", str(error))
        else:
            self._trouble(f"routing table of {model}", None)
        if time.monotonic() < self._registry_from:
            return
        try:
            for done in deployment.mirror():
                self._tell(f"{model}: {done}")
        except BusyError:
            return  # another process sets the same right, or began to and was killed: no rollback waits for that either
        except UnavailableError as error:
            self._registry_from = time.monotonic() + REGISTRY_PAUSE_S
            self._trouble(f"aliases of {model}", str(error))
        else:
            self._trouble(f"aliases of {model}", None)

    def _confirm(self, deployment: Deployment, change: Change, seconds: float) -> None:
        """Tell of a change once the gateway follows it, and until then only that it does not."""
        model, state = deployment.spec.name, change.state
        if self._in_force.get(model) == change.generation:
            return
        reasons = "; ".join(state.reasons)
        answer = "" if not change.weights else self._read_back(model, change.generation, seconds)
        if answer:
            self._trouble(
                f"gateway of {model}",
                f"version {state.candidate} is {state.stage.value} on record, not yet in force: {answer}: {reasons}",
            )
            return
        self._in_force[model] = change.generation
        self._trouble(f"gateway of {model}", None)
        owner = deployment.spec.owner
        asked = any(word in reasons for word in ("has to decide", "is reminded"))
        to = f" [owner: {owner.team}, {owner.contact}]" if asked else ""
        followed = " (read back from the gateway)" if change.weights else ""
        self._tell(f"{model} version {state.candidate}: {state.stage.value}{followed}: {reasons}{to}")

    def _read_back(self, model: str, generation: int, seconds: float) -> str:
        """Ask the gateway until it follows a routing table; empty when it does, else what it answers, in words."""
        until = time.monotonic() + seconds
        while True:
            try:
                state = gateway_state(self._gateway)
            except (OSError, ValueError) as error:
                return f"not read back: {self._gateway}: {error}"
            problem = state["problems"].get(model)
            if problem is not None:
                return f"not followed by the gateway: {problem}"
            if state["models"].get(model, {}).get("routing", {}).get("generation", 0) >= generation:
                return ""
            if time.monotonic() >= until:
                return "not followed by the gateway so far"
            time.sleep(0.05)

    def _reading(self, state: RolloutState, spec: ModelSpec, what: str, now: datetime) -> Reading:
        """The reading of a rollout's step, or of the version that is live beside it."""
        reading = self._readings.get((state.model, what))
        if reading is None or _step(reading.watch.state) != _step(state):
            reading = self._readings[state.model, what] = Reading.begin(
                serving_folder(self._workspace.environment), state, spec, now
            )
        return reading

    def _trouble(self, what: str, problem: str | None) -> None:
        """Tell of a trouble when it begins or changes, and when it is over; not at every look."""
        if problem is None:
            if self._troubles.pop(what, None) is not None:
                self._tell(f"{what}: well again")
        elif self._troubles.get(what) != problem:
            self._troubles[what] = problem
            self._tell(f"{what}: {problem}")


def _step(state: RolloutState) -> tuple[str, str, Stage, int, datetime, tuple[str, ...]]:
    return state.rollout_id, state.candidate, state.stage, state.step, state.since, state.blocked


def gateway_state(address: str) -> dict[str, Any]:
    """What a gateway says is in force; OSError when it does not answer, ValueError when it is no gateway."""
    key = os.environ.get(KEY, "")
    request = urllib.request.Request(f"{address.rstrip('/')}/operate/state", headers={"X-API-Key": key} if key else {})  # noqa: S310 - `Workspace.gateway` checks it
    with urllib.request.urlopen(request, timeout=2) as answer:  # noqa: S310
        state: dict[str, Any] = json.load(answer)
    if not isinstance(state, dict) or not {"models", "problems"} <= set(state):
        raise ValueError("answers, and is no gateway")
    return state


def operate(
    stack: str,
    environment: str | None,
    every: float,
    once: bool,
    gateway: str | None,
    tf_serving: str | None = None,
    models: Path | None = None,
) -> int:
    """Watch an environment until stopped, or look once; the exit code.

    Raises
    ------
    ConfigError
        The gateway's address or TensorFlow Serving's is none.
    UnavailableError
        The ops store does not answer when it is first asked, or the only time.
    UnheardError
        It looked once, and a P0 alert reached nobody.
    """
    if (tf_serving is None) != (models is None):
        raise ConfigError("--tf-serving and --tf-serving-models belong together; accepted: both or neither")
    # A registry that hangs must not hold up a rollback; what it did not do is tried again.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    workspace = Workspace.open(stack, environment)
    address = workspace.gateway(gateway)
    servers = None
    if tf_serving is not None and models is not None:
        store = ModelStore(serving_folder(workspace.environment))
        servers = ModelServers(Registry(workspace.services.registry), store, tf_serving, models)

    def tell(line: str) -> None:
        sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {line}\n")
        sys.stderr.flush()

    operator, compaction = Operator(workspace, tell, address, servers), Compaction(workspace, tell)
    ops = OpsStore.open(workspace.services.ops)
    alerting = AlertingBeside(lambda warn: Alerting.open(ops, warn), tell)
    if once:
        made = operator.tick()
        operator.settle()
        tell(f"{made} changes")
        compaction.tick()
        compaction.wait()
        require_heard(alerting.look())
        return 0
    stop = threading.Event()

    def ask_to_stop(*_: object) -> None:
        """End after the look that is under way; asked again, in the middle of it."""
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, ask_to_stop)
    tell(f"operating {workspace.environment.name} every {every:g} s from {ROOT.name}; Ctrl-C stops it")
    failed = 0
    alerting.start()
    try:
        while not stop.is_set():
            try:
                operator.tick()
            except UnavailableError as error:
                failed += 1
                if failed == 1:
                    tell(f"{error}; traffic stays as it is, and nothing is judged meanwhile")
            else:
                if failed:
                    tell(f"the ops store answers again, after {failed} tries")
                failed = 0
            compaction.tick()
            stop.wait(pause(every, failed))
    finally:
        compaction.stop()
        alerting.stop()
    return 0


def pause(every: float, failed: int) -> float:
    """Seconds until the next look: doubled by each try in a row that failed, up to `MOST_PAUSE_S`.

    >>> [pause(1, failed) for failed in range(5)]
    [1, 2, 4, 5.0, 5.0]
    """
    return max(every, min(every * 2 ** min(failed, 10), MOST_PAUSE_S))
