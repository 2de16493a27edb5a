"""A version on any labelled window: what its gates say there, and whether it had seen the rows before (R3.7, R5.2)."""

from __future__ import annotations

from datetime import datetime

import pandas as pd

from lifecycle.evaluation import Evaluation
from lifecycle.findings import Direction, Finding, Severity, judge
from lifecycle.gates import judge_gates
from lifecycle.spec import ModelSpec


def judge_window(spec: ModelSpec, evaluation: Evaluation) -> list[Finding]:
    """Judge the gates that a window without a training can: bounds, fairness, and the champion where it was scored.

    A baseline that is fitted on training rows has no place here; its gates are left out, not passed.
    """
    gates = [
        gate
        for gate in spec.evaluation.gates
        if gate.against is None or (gate.against == "champion" and "champion" in evaluation.comparisons)
    ]
    return judge_gates(
        spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update={"gates": gates})}), evaluation
    )


def training_overlap(times: pd.Series[pd.Timestamp], seen: tuple[datetime, datetime], window: str) -> Finding:
    """Tell how many of the rows a version was made from: on them it looks better than it is.

    Parameters
    ----------
    times
        Timestamp of each evaluated row, timezone-aware.
    seen
        First moment and end of the window that the version's snapshot was taken from.
    window
        The evaluated window in words.

    Returns
    -------
    Finding
        ``training_overlap``, a share from 0 to 1: WARN above 0, NO_DATA without a row.
    """
    inside = (times >= seen[0]) & (times < seen[1])
    return judge(
        "training_overlap",
        float(inside.mean()) if len(times) else None,
        0.0,
        Direction.AT_MOST,
        window=window,
        count=len(times),
        severity=Severity.WARNING,
    )
