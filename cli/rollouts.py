"""Rollouts by people: deploy, approve, look, pause, promote, roll back; every change is on record first (R4.5, R8.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from adapters.model_files import ROOT, load_file, load_model
from adapters.model_store import ModelStore
from adapters.ops_store import OpsStore
from adapters.registry import Registry
from adapters.rollout_store import Change, RolloutStore
from adapters.services import models_folder
from cli.release import mirror, route
from cli.serve import serving_folder
from cli.show import console, print_json, table
from cli.training import parse_moment
from cli.workspace import Workspace
from lifecycle.approvals import ApprovalPolicy, Standing, Word, standing
from lifecycle.errors import ConfigError, UnavailableError
from lifecycle.rollout import (
    OVER,
    RolloutState,
    Stage,
    approve,
    guarded,
    live_version,
    pause,
    promote,
    resume,
    roll_back,
)
from lifecycle.spec import ModelSpec

POLICY = ROOT / "configs" / "policies" / "approval.yaml"


class Deployment:
    """One model's rollouts, with what is needed to change them.

    Parameters
    ----------
    workspace, model
        Where, and which.
    """

    def __init__(self, workspace: Workspace, model: str) -> None:
        self.workspace = workspace
        self.spec: ModelSpec = load_model(model, workspace.environment, models_folder())
        self.ops = OpsStore.open(workspace.services.ops)
        self.rollouts = RolloutStore(self.ops)
        self.policy = load_file(POLICY, ApprovalPolicy, {})

    def current(self) -> Change:
        """How the newest rollout stands; ConfigError before the first."""
        found = self.rollouts.current(self.spec.name)
        if found is None:
            raise ConfigError(f"{self.spec.name} was never deployed; accepted: run.py --pipeline deploy first")
        return found

    def put(self, before: Change | None, state: RolloutState, actor: str, requested_by: str = "") -> Change:
        """Put a change on record, then carry it out.

        Raises
        ------
        BusyError
            Somebody else was quicker: nothing is on record.
        UnavailableError
            The ops store does not answer; or it did, and what follows could not be carried out, as the message then says.
        """
        now = datetime.now(UTC)
        change = self.rollouts.change(before, state, self.spec.rollout, actor=actor, now=now, requested_by=requested_by)
        try:
            self.carry_out(change)
        except UnavailableError as error:
            raise UnavailableError(
                f"version {state.candidate} of {self.spec.name} is {state.stage.value} on record, and not everything "
                f"followed yet: {error}; accepted: run.py operate, which carries it out"
            ) from None
        return change

    def live(self, change: Change) -> RolloutState | None:
        """The live version as it has to be guarded, whatever the newest rollout is of; None when nothing is live."""
        version = live_version(change.state)
        found = None if version is None else self.rollouts.went_live(self.spec.name, version)
        if found is None:
            return None
        return guarded(change.state, found.state, self.rollouts.blocked(self.spec.name))

    def carry_out(self, change: Change) -> bool:
        """Make registry and routing table agree with what is on record; whether anything had to be done."""
        written = self.route(change)
        self.mirror()
        return written

    def route(self, change: Change) -> bool:
        """Make the routing table agree with what is on record; whether it had to be written."""
        registry = Registry(self.workspace.services.registry)
        return route(self.spec, change, self.ops, registry, ModelStore(serving_folder()))

    def mirror(self) -> None:
        """Make the registry's aliases agree with what is on record."""
        mirror(self.spec, self.ops, Registry(self.workspace.services.registry))

    def standing(self, change: Change, now: datetime) -> Standing:
        """How the approval of a rollout stands; what was said before it was asked for does not count."""
        begun = next(
            one.at for one in reversed(self.rollouts.history(self.spec.name))
            if one.state.rollout_id == change.state.rollout_id
        )  # fmt: skip
        said = self.rollouts.approvals(self.spec.name, change.state.candidate)
        words = [Word(one.person, one.approved, one.at) for one in said if one.at >= begun]
        return standing(self.policy, self.spec.sensitivity, change.requested_by, words, now)


def status(model: str, stack: str, *, as_json: bool) -> None:
    """Print how a model's rollout stands."""
    deployment = Deployment(Workspace.open(stack), model)
    change = deployment.current()
    waiting = change.state.stage is Stage.AWAITING_APPROVAL
    told = _told(change) | ({"approval": deployment.standing(change, datetime.now(UTC)).reason} if waiting else {})
    if as_json:
        print_json(told)
        return
    console().print(
        table(f"rollout of {model}", ("what", "value"), ((key, value) for key, value in told.items() if value))
    )


def history(model: str, stack: str, at: str | None, *, as_json: bool) -> None:
    """Print who moved a model's traffic, when, and why; with a moment, how it stood then."""
    deployment = Deployment(Workspace.open(stack), model)
    until = None if at is None else parse_moment(at, "--at")
    found = deployment.rollouts.history(model, limit=1 if until else 1_000, until=until)
    if until is not None and not found:
        raise ConfigError(f"{model} was not deployed at {until:%Y-%m-%d %H:%M} UTC; accepted: a later moment")
    if as_json:
        print_json([_told(change) for change in found])
        return
    rows = [
        (
            change.generation,
            change.at,
            change.state.candidate,
            change.state.stage.value,
            _weights(change),
            change.actor,
            "; ".join(change.state.reasons),
        )
        for change in found
    ]
    columns = ("#", "since (UTC)", "version", "stage", "traffic", "by", "why")
    console().print(table(f"{model} at {until:%Y-%m-%d %H:%M} UTC" if until else f"rollouts of {model}", columns, rows))


def act(action: str, model: str, by: str, reason: str, stack: str) -> None:
    """Pause, resume, promote or roll back a model's rollout, for a person's reason.

    Raises
    ------
    ConfigError
        No reason, nobody named, or nothing that can be done in its stage.
    BusyError
        Somebody else changed it at the same moment.
    """
    if not reason.strip() or not by.strip():
        raise ConfigError(f"by {by!r}, reason {reason!r}; accepted: both given, not blank")
    deployment = Deployment(Workspace.open(stack), model)
    before = deployment.current()
    now = datetime.now(UTC)
    actions: dict[str, Callable[[RolloutState], RolloutState]] = {
        "pause": lambda state: pause(state, reason),
        "resume": lambda state: resume(state, now, reason),
        "promote": lambda state: promote(state, now, reason),
        "rollback": lambda state: roll_back(state, now, reason),
    }
    acted_on = before.state
    if action == "rollback" and acted_on.stage in OVER:
        # The newest rollout is over: what can still be taken back is the version that is live.
        acted_on = deployment.live(before) or acted_on
    change = deployment.put(before, actions[action](acted_on), by)
    console().print(
        f"{model} version {change.state.candidate}: {change.state.stage.value}{' (paused)' if change.state.paused else ''}, "
        f"traffic {_weights(change)}",
        markup=False,
    )


def say(model: str, by: str, reason: str, stack: str, *, approved: bool) -> None:
    """Put a person's word on the rollout that waits for it, and let it begin when enough agreed.

    Raises
    ------
    ConfigError
        Nothing waits, the person asked for it, or no reason is given.
    """
    deployment = Deployment(Workspace.open(stack), model)
    before = deployment.current()
    if before.state.stage is not Stage.AWAITING_APPROVAL:
        raise ConfigError(
            f"version {before.state.candidate} of {model} is {before.state.stage.value}; accepted: one that awaits approval"
        )
    if by.strip().casefold() == before.requested_by.strip().casefold():
        raise ConfigError(f"{by} asked for it; accepted: somebody else's approval")
    deployment.rollouts.approve(model, before.state.candidate, by, approved, reason, datetime.now(UTC))
    console().print(f"{model} version {before.state.candidate}: {settle(deployment, before)}", markup=False)


def settle(deployment: Deployment, before: Change) -> str:
    """Begin a rollout that enough people approved, or withdraw one that was refused; how it stands, in words."""
    now = datetime.now(UTC)
    found = deployment.standing(before, now)
    if found.granted:
        deployment.put(before, approve(before.state, now, found.reason), "approval policy")
    elif found.refused:
        deployment.put(before, roll_back(before.state, now, found.reason), "approval policy")
    return found.reason


def _weights(change: Change) -> str:
    return ", ".join(f"{version}: {share:.0%}" for version, share in change.weights.items()) or "none"


def _told(change: Change) -> dict[str, Any]:
    told = asdict(change) | {"state": change.state.to_dict(), "weights": dict(change.weights)}
    return {**told.pop("state"), **told, "reasons": list(change.state.reasons)}
