"""Before a version meets users: what it is worth on the rows that came since it was made (R3.7, R4.5)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from zenml import step

from adapters.ops_store import OpsStore
from adapters.registry import Registry
from adapters.services import Services
from adapters.source import fetch
from lifecycle.errors import CandidateRejected, DataError
from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.spec import ModelSpec
from steps.evaluate_version import measure_version
from steps.progress import tell


@step(enable_cache=False)
def check_since_training(
    spec: ModelSpec, version: str, environment: str, as_of: str, run_id: str
) -> Annotated[str, "checked"]:
    """Judge a version on the labelled rows since its training; without any, its gates at registration stand.

    Parameters
    ----------
    spec
        The model file.
    version
        Its number in the registry.
    environment
        Whose live version it is compared with.
    as_of
        ISO 8601 moment, with offset: what is known counts up to it.
    run_id
        The ops store's run.

    Raises
    ------
    CandidateRejected
        It fails a gate there.
    """
    services = Services.from_environment()
    ops, registry = OpsStore.open(services.ops), Registry(services.registry)
    moment = datetime.fromisoformat(as_of)
    made = datetime.fromisoformat(registry.tags(spec.name, version)["as_of"])
    window = f"{made:%Y-%m-%d %H:%M} to {moment:%Y-%m-%d %H:%M}"
    findings = [_nothing(window, "no time has passed since its training")]
    if made < moment:
        try:
            snapshot = fetch(spec, services.source, moment, spec.training.seed, between=(made, moment))
        except DataError as error:
            findings = [_nothing(window, str(error))]
        else:
            _, findings = measure_version(snapshot, version, spec, registry, ops, environment)
    now = datetime.now(UTC)
    ops.record_findings(run_id, "since_training", findings, now, spec.name, version)
    let_pass = {one.gate for one in ops.overrides_in_force(spec.name, now)}
    failed = [one.reason for one in findings if one.verdict is Verdict.FAIL and one.measure not in let_pass]
    if failed:
        raise CandidateRejected(
            f"{spec.name} version {version} was approved at its training and fails on the rows since then, {window}: "
            f"{'; '.join(failed)}; accepted: a newer version, or an override on record"
        )
    tell("check", f"rows since its training: {max(one.verdict for one in findings).label}", 1, 1)
    return version


def _nothing(window: str, why: str) -> Finding:
    return Finding("since_training", "all rows", None, None, Direction.AT_LEAST, window, Verdict.NO_DATA, why, 0)
