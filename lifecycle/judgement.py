"""A candidate judged: the findings of its gates and what they amount to (R3.7, R7.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lifecycle.findings import Finding
from lifecycle.gates import Decision


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the gates found, and the decision.

    Parameters
    ----------
    findings
        One for each gate, several for a gate over groups.
    decision
        Approved or rejected, with the reasons.
    """

    findings: tuple[Finding, ...]
    decision: Decision

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return {"findings": [finding.to_dict() for finding in self.findings], "decision": self.decision.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Judgement:
        """Inverse of `to_dict`."""
        findings = tuple(Finding.from_dict(finding) for finding in values["findings"])
        return cls(findings, Decision.from_dict(values["decision"]))
