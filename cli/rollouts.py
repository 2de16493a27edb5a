"""Rollouts by people: deploy, approve, look, pause, promote, roll back; every change is on record first (R4.5, R8.2)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from adapters.model_files import ROOT, load_file, load_model
from adapters.model_store import ModelStore
from adapters.ops_store import OpsStore
from adapters.registry import Registry
from adapters.rollout_store import Change, RolloutStore
from adapters.services import models_folder
from cli.release import route
from cli.serve import serving_folder
from cli.show import console, findings_table, print_json, table
from cli.training import parse_moment
from cli.workspace import Workspace
from lifecycle.approvals import ApprovalPolicy, Approver, Standing, Word, standing, stricter
from lifecycle.changes import ChangeSize
from lifecycle.errors import ConfigError, UnavailableError
from lifecycle.findings import Finding
from lifecycle.promotion import PromotionPolicy
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
from steps.mirror_aliases import mirror_aliases
from steps.version_files import substance_of

POLICIES = ROOT / "configs" / "policies"


class Deployment:
    """One model's rollouts in one environment, with what is needed to change them.

    Parameters
    ----------
    workspace, model
        Where, and which.
    """

    def __init__(self, workspace: Workspace, model: str) -> None:
        self.workspace = workspace
        self.spec: ModelSpec = load_model(model, workspace.environment, models_folder())
        self.ops = OpsStore.open(workspace.services.ops)
        self.registry = Registry(workspace.services.registry)
        self.environment = workspace.environment.name
        self.rollouts = RolloutStore(self.ops, self.environment)
        self.policy = load_file(POLICIES / "approval.yaml", ApprovalPolicy, workspace.environment.approval)
        self.promotion = load_file(POLICIES / "promotion.yaml", PromotionPolicy, {})

    def current(self) -> Change:
        """How the newest rollout stands; ConfigError before the first."""
        found = self.rollouts.current(self.spec.name)
        if found is None:
            raise ConfigError(
                f"{self.spec.name} was never deployed in {self.environment}; accepted: run.py --pipeline deploy first"
            )
        return found

    def put(self, before: Change, state: RolloutState, actor: str, findings: Sequence[Finding] = ()) -> Change:
        """Put a change on record with what it was decided by, then carry it out.

        Raises
        ------
        BusyError
            Somebody else was quicker: nothing is on record.
        UnavailableError
            The ops store does not answer; or it did, and what follows could not be carried out, as the message then says.
        """
        now = datetime.now(UTC)
        change = self.rollouts.change(before, state, self.spec.rollout, actor=actor, now=now, findings=findings)
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

    def carry_out(self, change: Change) -> list[str]:
        """Make registry and routing table agree with what is on record; what had to be done, in words."""
        return self.route(change) + self.mirror()

    def route(self, change: Change) -> list[str]:
        """Make the routing table agree with what is on record; what had to be done, in words."""
        store = ModelStore(serving_folder(self.workspace.environment))
        written = route(self.spec, change, self.ops, self.registry, store)
        return [f"routing table {change.generation} written"] if written else []

    def mirror(self) -> list[str]:
        """Make the registry's aliases agree with what is on record; what had to be done, in words."""
        return mirror_aliases(self.ops, self.registry, self.spec.name, self.environment, datetime.now(UTC))

    def approver(self, change: Change) -> Approver:
        """Who has to agree to a rollout: never fewer than when it was asked for."""
        size = ChangeSize(change.evidence.get("change", {}).get("size", ChangeSize.LARGE))
        then = Approver(change.evidence.get("approver", Approver.NOBODY))
        return stricter(then, self.policy.approver(self.spec.sensitivity, size))

    def standing(self, change: Change, now: datetime) -> Standing:
        """How the approval of a rollout stands; what was said before it was asked for does not count."""
        begun = next(
            one.at for one in reversed(self.rollouts.history(self.spec.name))
            if one.state.rollout_id == change.state.rollout_id
        )  # fmt: skip
        said = self.rollouts.approvals(self.spec.name, change.state.candidate)
        words = [Word(one.person, one.approved, one.at, one.substance) for one in said if one.at >= begun]
        begun_with = change.evidence.get("substance", "")
        team = self.spec.owner.team
        found = standing(self.policy, self.approver(change), team, change.requested_by, words, begun_with, now)
        # The registry is asked once the words decide, not at every look.
        problem = self.differs(change) if found.granted else None
        return found if problem is None else Standing(False, False, f"{found.reason}, but {problem}")

    def differs(self, change: Change) -> str | None:
        """Whether the registry holds other content for the version than the rollout began with, in words."""
        begun_with = change.evidence.get("substance")
        if begun_with is None or substance_of(self.registry, self.spec, change.state.candidate) == begun_with:
            return None
        return (
            f"version {change.state.candidate} in the registry is not what was asked about; accepted: that very content, "
            "or a deployment asked for anew"
        )


def status(model: str, stack: str, environment: str | None, *, as_json: bool) -> None:
    """Print how a model's rollout stands, and what it rests on."""
    deployment = Deployment(Workspace.open(stack, environment), model)
    change = deployment.current()
    waiting = change.state.stage is Stage.AWAITING_APPROVAL
    told = _told(change) | ({"approval": deployment.standing(change, datetime.now(UTC)).reason} if waiting else {})
    if as_json:
        print_json(told)
        return
    told |= {"weights": _weights(change), "reasons": "; ".join(change.state.reasons), **_rests_on(change.evidence)}
    for nested in ("evidence", "findings"):
        told.pop(nested)
    title = f"rollout of {model} in {deployment.environment}"
    out = console()
    out.print(table(title, ("what", "value"), ((key, value) for key, value in told.items() if value)))
    if change.findings:
        out.print(findings_table("what the last change was decided by", change.findings))


def history(model: str, stack: str, environment: str | None, at: str | None, *, as_json: bool) -> None:
    """Print who moved a model's traffic, when, and why; with a moment, which shares held then and who gave them."""
    deployment = Deployment(Workspace.open(stack, environment), model)
    where = deployment.environment
    until = None if at is None else parse_moment(at, "--at")
    found = deployment.rollouts.history(model, limit=None, until=until)
    if until is not None:
        if not found:
            raise ConfigError(f"{model} was not deployed in {where} at {_moment(until)}; accepted: a later moment")
        # How it stood, back to the change that gave the shares: a pause or an approval asked for moves nobody.
        found = [found[0], *itertools.takewhile(lambda one: one.weights == found[0].weights, found[1:])]
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
    title = f"rollouts of {model} in {where}" if until is None else f"{model} in {where} at {_moment(until)}"
    out = console()
    if until is not None:
        out.print(f"{_weights(found[0])} since {_moment(found[-1].at)}, by {found[-1].actor}", markup=False)
    out.print(table(title, columns, rows))


def act(action: str, model: str, by: str, reason: str, stack: str, environment: str | None) -> None:
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
    deployment = Deployment(Workspace.open(stack, environment), model)
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


def say(model: str, by: str, reason: str, stack: str, environment: str | None, *, approved: bool) -> None:
    """Put a person's word on the rollout that waits for it, and let it begin when enough agreed.

    Raises
    ------
    ConfigError
        Nothing waits, the person asked for it or has no say in it, no reason is given, or the registry's content is
        another than what was asked about.
    """
    deployment = Deployment(Workspace.open(stack, environment), model)
    before = deployment.current()
    if before.state.stage is not Stage.AWAITING_APPROVAL:
        raise ConfigError(
            f"version {before.state.candidate} of {model} is {before.state.stage.value}; accepted: one that awaits approval"
        )
    if by.strip().casefold() == before.requested_by.strip().casefold():
        raise ConfigError(f"{by} asked for it; accepted: somebody else's approval")
    approver = deployment.approver(before)
    if not deployment.policy.may_speak(by, approver, deployment.spec.owner.team):
        raise ConfigError(
            f"{by} has no say in it: the {approver.value.replace('_', ' ')} decides; accepted: somebody named for that in "
            "configs/policies/approval.yaml"
        )
    problem = deployment.differs(before)
    if problem is not None:
        raise ConfigError(f"{model}: {problem}")
    substance = before.evidence.get("substance", "")
    deployment.rollouts.approve(model, before.state.candidate, by, approved, reason, datetime.now(UTC), substance)
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


def _rests_on(evidence: Mapping[str, Any]) -> dict[str, str]:
    """What a rollout began on, a line each."""
    told = {}
    if "change" in evidence:
        told["change"] = f"{evidence['change']['size']}: {'; '.join(evidence['change']['reasons'])}"
        told["who agrees"] = evidence["approver"].replace("_", " ")
    brought = evidence.get("track_record")
    if brought:
        told["comes with"] = f"{brought['finding']['reason']}; rollouts {', '.join(brought['rollouts']) or 'none'}"
        judged = [one["reason"] for one in brought["findings"]]
        told["judged there"] = "; ".join(judged) or "by nothing: a first version has nobody beside it"
    if brought and "override" in brought:
        told["override"] = "{person}: {reason}".format(**brought["override"])
    return told


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _told(change: Change) -> dict[str, Any]:
    told = asdict(change) | {"state": change.state.to_dict(), "weights": dict(change.weights)}
    told["findings"] = [one.to_dict() for one in change.findings]
    return {**told.pop("state"), **told, "reasons": list(change.state.reasons)}
