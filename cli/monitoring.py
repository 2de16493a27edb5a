"""`python run.py --pipeline monitor`: every served model's traffic looked at, what is wrong told and on record (R5.1 to R5.7)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from adapters.model_files import model_names, nearest
from adapters.ops_store import OpsStore
from adapters.services import models_folder
from cli.models import chosen
from cli.progress import showing_progress
from cli.serve import serving_folder
from cli.show import console, number, print_json, table, verdict
from cli.training import parse_moment
from cli.workspace import Workspace
from lifecycle.errors import ConfigError
from lifecycle.findings import Finding, Verdict
from lifecycle.monitoring import AREAS
from lifecycle.spec import GATEWAY, Duration


@dataclass(frozen=True, slots=True)
class MonitorRequest:
    """What was asked for on the command line.

    Parameters
    ----------
    models
        Names, or ``all``.
    stack, environment
        Where, and whose traffic; None for the stack's environment.
    window
        Length of the window; None for each model file's.
    as_of
        ISO 8601 end of the window; None for now, by the clock: traffic carries the gateway's.
    gateway
        Its address; None for the environment's port on this machine.
    reason, requested_by
        Kept on record.
    """

    models: list[str]
    stack: str
    environment: str | None
    window: str | None
    as_of: str | None
    gateway: str | None
    reason: str
    requested_by: str


def run_monitoring(request: MonitorRequest, *, as_json: bool) -> int:
    """Monitor models; 0 whatever was found, else the exit code of the worst failure to look.

    Raises
    ------
    ConfigError
        Unknown model or stack, a window or moment that is none.
    """
    workspace = Workspace.open(request.stack, request.environment)
    names = chosen(request.models)
    known = model_names(models_folder())
    for name in names:
        if name not in known:
            raise ConfigError(f"unknown model {name!r}; {nearest(name, known)}")
    if not names:
        raise ConfigError(f"no model file in {models_folder()}; accepted: at least one, as run.py new-model drafts it")
    gateway = workspace.gateway(request.gateway)
    if "all" in request.models:
        names = [*names, GATEWAY]
    window, as_of = _window(request.window), _as_of(request.as_of)
    OpsStore.open(workspace.services.ops)  # its schema, before several models ask for it
    with showing_progress("setting up the stack"):
        workspace.apply_stack()
    from pipelines.monitor import run_monitor_pipeline

    place = {
        "serving": str(serving_folder(workspace.environment)),
        "environment": workspace.environment.name,
        "gateway": gateway,
    }
    asked = {"stack": request.stack, "reason": request.reason, "requested_by": request.requested_by}
    with showing_progress("monitor"):
        results = run_monitor_pipeline(names, window=window, as_of=as_of, place=place, asked=asked)
    if as_json:
        print_json(results[0] if len(results) == 1 else results)
    else:
        _print(results)
    return max((one["exit_code"] for one in results if one["state"] == "failed"), default=0)


def _window(text: str | None) -> str:
    if text is None:
        return ""
    try:
        length = Duration(text)
    except ValueError as error:
        raise ConfigError(f"--window {error}") from None
    if length.after(datetime(2000, 1, 1)) == datetime(2000, 1, 1):
        raise ConfigError(f"--window {text} is no time at all; accepted: at least 1m")
    return str(length)


def _as_of(text: str | None) -> datetime:
    now = datetime.now(UTC)
    if text is None:
        return now
    moment = parse_moment(text)
    if moment > now:
        raise ConfigError(f"--as-of {text} lies in the future; accepted: a moment that has been")
    return moment


def _print(results: list[dict[str, Any]]) -> None:
    out = console()
    if len(results) > 1:
        out.print(table("monitoring", ("model", *AREAS, "rows#"), map(_row, results)))
        out.print()
    for one in results:
        if one["state"] in ("failed", "skipped"):
            out.print(f"{one['model']}: {one['state']}: {one['detail']}", markup=False)
            continue
        if len(results) > 1 and Verdict[one["verdict"]] is Verdict.PASS:
            continue
        findings = [
            (told["area"], Finding.from_dict({key: value for key, value in told.items() if key != "area"}))
            for told in one["findings"]
        ]
        notable = [(area, finding) for area, finding in findings if finding.verdict is not Verdict.PASS]
        title = f"{one['model']}, {one['window']}"
        rows = [
            (area, verdict(finding.verdict), finding.measure, finding.subject, number(finding.value), _asked(finding))
            for area, finding in sorted(notable, key=lambda found: -found[1].verdict)
        ]
        out.print(table(title, ("area", "verdict", "measure", "on", "value#", "asked"), rows))
        for _, finding in notable[:5]:
            out.print(f"  {finding.reason}", markup=False)
        again = f" (nothing new: as on record from run {one['run']})" if one["state"] == "unchanged" else ""
        out.print(f"{one['detail']}{again}", markup=False)
        out.print(f"details     python run.py runs show {one['run']}", markup=False)
        out.print()
    out.print("then        python run.py alerts tick", markup=False)
    out.print("look        python run.py dashboard", markup=False)


def _row(one: dict[str, Any]) -> tuple[Any, ...]:
    if "findings" not in one:
        return (one["model"], one["state"], *[""] * len(AREAS))
    by_area = {area: [Verdict[told["verdict"]] for told in one["findings"] if told["area"] == area] for area in AREAS}
    return (one["model"], *(verdict(max(found)) if found else "–" for found in by_area.values()), f"{one['rows']:,}")


def _asked(finding: Finding) -> str:
    return "" if finding.threshold is None else f"{finding.direction.sign} {number(finding.threshold)}"
