"""Labels that come later: which prediction each belongs to, and which are double, late, or of nothing known (R5.2)."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import msgspec

from adapters.prediction_log import Entry, Prediction
from serving.rows import LONGEST_ENTITY, MOST_PROBLEMS, InvalidRequest, counted

MOST_REMEMBERED = 500_000
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
class Remembered:
    """A prediction that may still get its label."""

    at: float
    label: int | None = None


class OutcomeIndex:
    """The newest predictions by request id and by entity; older ones are joined from the record.

    Parameters
    ----------
    most
        How many are remembered.
    """

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._by_id: OrderedDict[tuple[str, str], Remembered] = OrderedDict()
        self._by_entity: dict[tuple[str, str], list[tuple[float, str]]] = {}

    def predicted(self, model: str, request_id: str, entity: str, at: float) -> None:
        """Remember a prediction."""
        self._by_id[model, request_id] = Remembered(at)
        if entity != request_id:
            self._by_entity.setdefault((model, entity), []).append((at, request_id))
        while len(self._by_id) > self._most:
            self._by_id.popitem(last=False)
        if len(self._by_entity) > self._most:
            self._by_entity.pop(next(iter(self._by_entity)))

    def restore(self, entries: Iterable[Entry]) -> None:
        """Remember what is on record."""
        for entry in entries:
            record = entry.record
            if isinstance(record, Prediction) and record.role != "shadow":
                self.predicted(record.model, record.request_id, record.entity, record.at)
            elif not isinstance(record, Prediction):
                known = self._by_id.get((record.model, record.request_id))
                if known is not None:
                    known.label = record.label

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
        known = self._by_id.get((row.model, request_id)) if request_id else None
        if known is None:
            return "unknown", request_id
        if known.label is not None:
            return ("duplicate" if known.label == row.label else "contradicts"), request_id
        return ("late" if now - known.at > late_after else "recorded"), request_id

    def labelled(self, model: str, request_id: str, label: int) -> None:
        """Remember that a prediction has its label."""
        known = self._by_id.get((model, request_id))
        if known is not None:
            known.label = label

    def _of_entity(self, row: OutcomeRow) -> str:
        """The entity's newest prediction, or its newest up to a moment."""
        found = self._by_entity.get((row.model, row.entity or ""), [])
        until = float("inf") if row.at is None else row.at
        return next((name for at, name in reversed(found) if at <= until), "")


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
