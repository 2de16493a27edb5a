"""Labels that come later: which prediction each belongs to, and which are double, late, or of nothing known (R5.2)."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from adapters.prediction_log import Entry, Prediction
from serving.rows import LONGEST_ENTITY, MOST_PROBLEMS, InvalidRequest, counted

MOST_REMEMBERED = 320_000
GENERATIONS = 16
MOST_OF_ENTITY = 8
"""Predictions of one entity remembered in each generation: the newest."""
Status = Literal["recorded", "late", "duplicate", "contradicts", "unknown"]


class OutcomeRow(msgspec.Struct, forbid_unknown_fields=True):
    """One label, of a request id or of an entity at a time."""

    model: str
    label: int
    request_id: str | None = None
    entity: str | None = None
    at: float | None = None
    observed_at: float | None = None


class OutcomeBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /outcomes``."""

    outcomes: list[OutcomeRow]


@dataclass(slots=True)
class _Generation:
    """Predictions that are forgotten together: plain texts and numbers, which the garbage collector need not visit."""

    at: dict[str, float] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    newest: dict[str, str | tuple[str, ...]] = field(default_factory=dict)


class OutcomeIndex:
    """The newest predictions by request id and by entity; older ones are joined from the record.

    Parameters
    ----------
    most
        Predictions remembered, at most and to within one of `GENERATIONS`; the oldest are forgotten together, so that
        forgetting costs no answer its time.
    """

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._room = max(1, most // GENERATIONS)
        self._generations: deque[_Generation] = deque([_Generation()], maxlen=GENERATIONS)
        self._young = self._generations[-1]

    def predicted(self, model: str, request_id: str, entity: str, at: float) -> None:
        """Remember a prediction."""
        young = self._young
        if len(young.at) >= self._room:
            young = self._young = _Generation()
            self._generations.append(young)
        key = f"{model}\0{request_id}"
        young.at[key] = at
        young.labels.pop(key, None)
        if entity != request_id:
            of = f"{model}\0{entity}"
            before = young.newest.get(of)
            if before is None:
                young.newest[of] = key
            else:
                known = before if isinstance(before, tuple) else (before,)
                young.newest[of] = (*known[1 - MOST_OF_ENTITY :], key)

    def restore(self, entries: Iterable[Entry]) -> None:
        """Remember what is on record."""
        for entry in entries:
            record = entry.record
            if isinstance(record, Prediction) and record.role != "shadow":
                self.predicted(record.model, record.request_id, record.entity, record.at)
            elif not isinstance(record, Prediction):
                self.labelled(record.model, record.request_id, record.label)

    def place(self, row: OutcomeRow, late_after: float, now: float) -> tuple[Status, str]:
        """Find a label's prediction.

        Parameters
        ----------
        late_after
            Seconds after the prediction from which a label is late.
        now
            Unix seconds.

        Returns
        -------
        status
            recorded, late (recorded all the same), duplicate (the same label again), contradicts (another label than
            the one on record), or unknown: no such prediction in memory, recorded, to be joined from the record.
        request_id
            The prediction's; empty when unknown and none was given.
        """
        request_id = row.request_id or self._of_entity(row)
        key = f"{row.model}\0{request_id}"
        known = self._holding(key) if request_id else None
        if known is None:
            return "unknown", request_id
        label = known.labels.get(key)
        if label is not None:
            return ("duplicate" if label == row.label else "contradicts"), request_id
        return ("late" if now - known.at[key] > late_after else "recorded"), request_id

    def labelled(self, model: str, request_id: str, label: int) -> None:
        """Remember that a prediction has its label."""
        key = f"{model}\0{request_id}"
        known = self._holding(key)
        if known is not None:
            known.labels[key] = label

    def _holding(self, key: str) -> _Generation | None:
        return next((one for one in reversed(self._generations) if key in one.at), None)

    def _of_entity(self, row: OutcomeRow) -> str:
        """The entity's newest prediction, or its newest up to a moment; empty when it is none of those remembered."""
        until = float("inf") if row.at is None else row.at
        for generation in reversed(self._generations):
            found = generation.newest.get(f"{row.model}\0{row.entity}", ())
            for key in reversed(found if isinstance(found, tuple) else (found,)):
                if generation.at[key] <= until:
                    return key.partition("\0")[2]
        return ""


def read_outcomes(body: bytes) -> list[OutcomeRow]:
    """Parse ``POST /outcomes``; InvalidRequest names row and field."""
    try:
        rows = msgspec.json.decode(body, type=OutcomeBody).outcomes
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        # A key that nobody knows may be anything, a secret too: it is not repeated.
        told = re.sub(r"unknown field `.*`(?= - at `|$)", "an unknown field", str(error), flags=re.DOTALL)
        raise InvalidRequest([f"{told[:300]}; accepted: outcomes of model, label, and request_id or entity"]) from None
    if not rows:
        raise InvalidRequest(["no outcomes; accepted: at least one"])
    counted(len(rows))
    problems: list[str] = []
    now = time.time()
    for place, row in enumerate(rows):
        if len(problems) >= MOST_PROBLEMS:
            break
        if (row.request_id is None) == (row.entity is None):
            problems.append(f"outcomes[{place}]: accepted: request_id or entity, and only one")
        if row.label not in (0, 1):
            problems.append(f"outcomes[{place}].label: accepted: 0 or 1")
        if len(row.request_id or "") > LONGEST_ENTITY or len(row.entity or "") > LONGEST_ENTITY:
            problems.append(f"outcomes[{place}]: accepted: names of at most {LONGEST_ENTITY} characters")
        for name in ("at", "observed_at"):
            moment = getattr(row, name)
            if moment is not None and not 0 <= moment <= now + 86_400:
                problems.append(f"outcomes[{place}].{name}: accepted: Unix seconds that have been")
    if problems:
        raise InvalidRequest(problems)
    return rows
