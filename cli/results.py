"""What people see when a training has ended: the gates, the verdict, the version, and where to look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.panel import Panel
from rich.text import Text

from cli.show import console, findings_table
from lifecycle.findings import Finding, Verdict, worst

if TYPE_CHECKING:
    from cli.training import TrainResult


def print_result(result: TrainResult) -> None:
    """Print one ended training."""
    out, run = console(), result.run
    quality = result.findings.get("quality", [])
    noticed = [finding for finding in quality if finding.verdict is not Verdict.PASS]
    out.print()
    if noticed:
        out.print(findings_table(f"data: {len(quality)} checks, {len(noticed)} to look at", noticed))
        out.print()
    gates = result.findings.get("gates", [])
    out.print(findings_table(f"gates of {run.model}", gates))
    reasons = [finding.reason for finding in gates if finding.verdict in (Verdict.FAIL, Verdict.NO_DATA)]
    lines = [
        Text.assemble(
            ("approved" if result.approved else "rejected", "bold green" if result.approved else "bold red"),
            f": {run.model} version {run.facts.get('version')}"
            + ("" if run.facts.get("created", True) else " (the very same model was registered before)"),
        ),
        *(Text(f"  {reason}") for reason in reasons),
        *(Text(f"  {line}") for line in run.facts.get("remedies", [])),
        Text(f"snapshot {run.facts.get('snapshot')}, as of {run.as_of:%Y-%m-%d}, {result.seconds:.0f} s"),
        *(Text(line) for line in _drift(result.findings.get("drift", []))),
        *(Text(line) for line in _phases(result)),
        Text(f"model card  {run.facts.get('card')}"),
        Text(f"details     python run.py runs show {run.run_id}"),
        Text("look        python run.py dashboard"),
    ]
    out.print()
    style = "green" if worst(gates) in (Verdict.PASS, Verdict.WARN) else "red" if not result.approved else "yellow"
    out.print(Panel(Text("\n").join(lines), border_style=style, expand=False))


def _drift(findings: list[Finding]) -> list[str]:
    drifted = sorted((one for one in findings if one.verdict is Verdict.WARN), key=lambda one: -(one.value or 0))
    if not drifted:
        return []
    names = ", ".join(one.subject for one in drifted[:3]) + (", ..." if len(drifted) > 3 else "")
    return [f"drift       {len(drifted)} of {len(findings)} features of the hold-out, most of all {names}"]


def _phases(result: TrainResult) -> list[str]:
    reused = [name for name, phase in result.phases.items() if phase["reused"]]
    slow = sorted(
        ((phase["seconds"], name) for name, phase in result.phases.items() if not phase["reused"]), reverse=True
    )
    lines = ["time        " + ", ".join(f"{name} {seconds:.0f} s" for seconds, name in slow[:4])]
    if reused:
        lines.append("reused      " + ", ".join(reused))
    return lines
