"""`run.py operate`: reads the prediction log, judges every rollout, moves traffic, and sets right what disagrees (R8.1)."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from adapters.model_files import ROOT
from adapters.prediction_log import Follower, Prediction
from adapters.rollout_store import Change, RolloutStore
from cli.rollouts import Deployment, settle
from cli.serve import serving_folder
from cli.workspace import Workspace
from lifecycle.errors import BusyError, ConfigError, ProDecksError
from lifecycle.findings import Verdict
from lifecycle.observations import Watch
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
    """

    def __init__(self, workspace: Workspace, tell: Callable[[str], None], gateway: str) -> None:
        from adapters.ops_store import OpsStore

        self._workspace, self._tell, self._gateway = workspace, tell, gateway
        self._rollouts = RolloutStore(OpsStore.open(workspace.services.ops), workspace.environment.name)
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
        return changes

    def _model(self, model: str) -> int:
        deployment = self._deployments.get(model)
        if deployment is None:
            deployment = self._deployments[model] = Deployment(self._workspace, model)
        change = deployment.current()
        for done in deployment.carry_out(change):
            self._tell(f"{model}: {done}")
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
        made = deployment.put(change, following, ACTOR, findings)
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
            watch = self._watches[model] = Watch(state, deployment.spec.rollout)
            self._followers[model] = Follower(serving_folder(self._workspace.environment) / "log")
        for record in self._followers[model].new():
            if record.model != model:
                continue
            if isinstance(record, Prediction):
                shadow = record.role == "shadow"
                watch.answered(
                    record.request_id, record.at, record.version, record.latency_ms, record.decision, shadow=shadow
                )
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


def operate(stack: str, environment: str | None, every: float, once: bool, gateway: str | None) -> int:
    """Watch an environment until stopped, or look once; the exit code.

    Raises
    ------
    ConfigError
        The gateway's address is none.
    """
    if gateway is not None and not gateway.startswith(("http://", "https://")):
        raise ConfigError(f"--gateway {gateway!r}; accepted: an http or https address")
    workspace = Workspace.open(stack, environment)

    def tell(line: str) -> None:
        sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {line}\n")
        sys.stderr.flush()

    operator = Operator(workspace, tell, gateway or f"http://127.0.0.1:{workspace.environment.port}")
    if once:
        made = operator.tick()
        tell(f"{made} changes")
        return 0
    tell(f"operating {workspace.environment.name} every {every:g} s from {ROOT.name}; Ctrl-C stops it")
    try:
        while True:
            operator.tick()
            time.sleep(every)
    except KeyboardInterrupt:
        return 0
