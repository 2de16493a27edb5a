"""`run.py operate`: reads the prediction log, judges every rollout, moves traffic, and sets right what disagrees (R8.1)."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapters.model_files import ROOT
from adapters.prediction_log import Follower, Prediction
from adapters.registry import Registry
from adapters.rollout_store import Change, RolloutStore
from cli.model_server import ModelServers
from cli.rollouts import Deployment, settle
from cli.serve import serving_folder
from cli.workspace import Workspace
from lifecycle.errors import BusyError, ConfigError, ProDecksError
from lifecycle.findings import Verdict
from lifecycle.observations import Answer, Watch
from lifecycle.rollout import OPEN, Stage, advance

ACTOR = "operate"
KEY = "PRODECKS_GATEWAY_KEY"
"""API key with the role operate, where the gateway asks for one."""
READ_BACK_S = 3.0


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
        from adapters.ops_store import OpsStore

        self._servers, self._followed = servers, ThreadPoolExecutor(1, "model-servers")
        self._following: Future[None] | None = None
        self._workspace, self._tell, self._gateway = workspace, tell, gateway
        self._rollouts = RolloutStore(OpsStore.open(workspace.services.ops))
        self._deployments: dict[str, Deployment] = {}
        self._watches: dict[str, Watch] = {}
        self._followers: dict[str, Follower] = {}

    def tick(self) -> int:
        """Look at every model once; how many changes were made."""
        changes = 0
        for model in self._rollouts.models():
            try:
                changes += self._model(model)
            except BusyError:
                continue  # a person was quicker; the next tick sees what they did
            except ProDecksError as error:
                # One model's trouble keeps nobody from watching the others.
                self._tell(f"{model}: {error}")
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
        if deployment.carry_out(change):
            self._tell(f"{model}: routing table {change.generation} written")
        if change.state.stage is Stage.AWAITING_APPROVAL:
            settle(deployment, change)
            return 0
        if change.state.stage not in OPEN:
            self._watches.pop(model, None)
            return 0
        findings = self._watch(model, deployment, change).findings()
        following = advance(change.state, deployment.spec.rollout, findings, datetime.now(UTC))
        if following is change.state:
            return 0
        made = deployment.put(change, following, ACTOR)
        told = "; ".join(made.state.reasons)
        followed = self._read_back(model, made.generation)
        self._tell(f"{model} version {made.state.candidate}: {made.state.stage.value} ({followed}): {told}")
        for finding in findings:
            if finding.verdict is Verdict.FAIL:
                self._tell(f"  {finding.reason} ({finding.window})")
        return 1

    def _read_back(self, model: str, generation: int) -> str:
        """Ask the gateway until it follows a routing table; what it answers, in words. A change stands on record either way."""
        until = time.monotonic() + READ_BACK_S
        answer = "not read back"
        while time.monotonic() < until:
            try:
                state = gateway_state(self._gateway)
            except (OSError, ValueError) as error:
                return f"not read back: {self._gateway}: {error}"
            problem = state["problems"].get(model)
            if problem is not None:
                return f"not followed by the gateway: {problem}"
            if state["models"].get(model, {}).get("routing", {}).get("generation", 0) >= generation:
                return "read back from the gateway"
            time.sleep(0.05)
            answer = f"not followed by the gateway within {READ_BACK_S:g} s"
        return answer

    def _watch(self, model: str, deployment: Deployment, change: Change) -> Watch:
        """The watch over a rollout's step, with everything read that the log holds by now."""
        watch = self._watches.get(model)
        state = change.state
        same = watch is not None and (watch.state.rollout_id, watch.state.stage, watch.state.step, watch.state.since) == (
            state.rollout_id, state.stage, state.step, state.since,
        )  # fmt: skip
        if watch is None or not same:
            watch = self._watches[model] = Watch(state, deployment.spec.rollout, deployment.spec.business)
            self._followers[model] = Follower(serving_folder() / "log")
        for record in self._followers[model].new():
            if record.model != model:
                continue
            if isinstance(record, Prediction):
                shadow = record.role == "shadow"
                answer = Answer(record.version, record.at, record.score, record.decision, record.latency_ms, shadow)
                watch.answered(record.request_id, answer)
            elif record.request_id:
                watch.labelled(record.request_id, record.label)
        return watch


def gateway_state(address: str) -> dict[str, Any]:
    """What a gateway says is in force; OSError when it does not answer, ValueError when it is no gateway."""
    if not address.startswith(("http://", "https://")):
        raise ValueError("accepted: an http or https address")
    key = os.environ.get(KEY, "")
    request = urllib.request.Request(f"{address.rstrip('/')}/operate/state", headers={"X-API-Key": key} if key else {})  # noqa: S310 - checked above
    with urllib.request.urlopen(request, timeout=2) as answer:  # noqa: S310
        state: dict[str, Any] = json.load(answer)
    if not isinstance(state, dict) or not {"models", "problems"} <= set(state):
        raise ValueError("answers, and is no gateway")
    return state


def operate(
    stack: str, every: float, once: bool, gateway: str, tf_serving: str | None = None, models: Path | None = None
) -> int:
    """Watch until stopped, or look once; the exit code.

    Raises
    ------
    ConfigError
        The gateway's address or TensorFlow Serving's is none.
    """
    if not gateway.startswith(("http://", "https://")):
        raise ConfigError(f"--gateway {gateway!r}; accepted: an http or https address")
    if (tf_serving is None) != (models is None):
        raise ConfigError("--tf-serving and --tf-serving-models belong together; accepted: both or neither")
    workspace = Workspace.open(stack)
    servers = None
    if tf_serving is not None and models is not None:
        servers = ModelServers(Registry(workspace.services.registry), tf_serving, models)

    def tell(line: str) -> None:
        sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {line}\n")
        sys.stderr.flush()

    operator = Operator(workspace, tell, gateway, servers)
    if once:
        made = operator.tick()
        operator.settle()
        tell(f"{made} changes")
        return 0
    tell(f"operating every {every:g} s from {ROOT.name}; Ctrl-C stops it")
    try:
        while True:
            operator.tick()
            time.sleep(every)
    except KeyboardInterrupt:
        return 0
