"""A window of a model's traffic, counted part by part so that it may be larger than memory (R5.1 to R5.7)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lifecycle.distribution import SKETCH, WindowState
from lifecycle.findings import Finding
from lifecycle.intrusion import MIN_QUERIES, MOST_QUERIES
from lifecycle.multivariate import Embedding
from lifecycle.reference import MOST_EMBEDDED, SCORE, Reference
from lifecycle.spec import Duration, ModelSpec
from lifecycle.window_quality import judge_schema

Floats = NDArray[np.float64]

EXACT_ROWS = 2_000_000
"""Up to so many rows every number is kept; of more, a sketch that states its error."""
MOST_CLIENTS = 100
"""Clients whose queries are kept to be looked at one by one."""
_ROW = {
    "at": np.int64,
    "version": np.int32,
    "client": np.int32,
    "score": np.float64,
    "decision": np.int8,
    "label": np.float32,
    "latency_ms": np.float32,
    "failed": np.bool_,
    "key": np.uint64,
}


@dataclass(frozen=True, slots=True)
class Window:
    """``[start, end)``, in UTC: no hour of it is missing or doubled when summer time begins or ends."""

    start: datetime
    end: datetime

    @classmethod
    def before(cls, end: datetime, length: Duration) -> Window:
        """The window of a length that ends at a moment."""
        moment = end.astimezone(UTC)
        return cls(length.before(moment), moment)

    @property
    def length(self) -> timedelta:
        """From start to end."""
        return self.end - self.start

    @property
    def words(self) -> str:
        """As people read it."""
        return f"{self.start:%Y-%m-%d %H:%M} to {self.end:%Y-%m-%d %H:%M} UTC"

    def earlier(self, count: int, length: Duration) -> list[Window]:
        """As many windows before this one, oldest first."""
        found = [self]
        for _ in range(count):
            found.append(Window.before(found[-1].start, length))
        return found[:0:-1]


class Names:
    """Texts as small numbers, in order of appearance."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._place: dict[str, int] = {}

    def codes(self, values: pd.Series[str]) -> NDArray[np.int32]:
        """Each row's number; a missing text counts as the empty one."""
        codes, found = pd.factorize(values.fillna(""))
        for name in found:
            if name not in self._place:
                self._place[name] = len(self.names)
                self.names.append(str(name))
        places = np.array([self._place[name] for name in found], dtype=np.int32)
        return places[codes] if len(codes) else np.empty(0, dtype=np.int32)


@dataclass
class Arrivals:
    """When a model was asked and by whom, in this window and in those before; answers of a shadow do not count.

    Parameters
    ----------
    windows
        The earlier ones, oldest first, then this one.
    rows
        Of each window.
    longest_gap
        Longest time without a prediction inside each window, in seconds.
    by_client
        Client: queries in each window.
    by_version
        Version: rows in this window.
    newest
        Unix nanoseconds of the newest prediction of all, also after this window; None without any.
    step_back
        Seconds that the clock went back at most, in the order of the record.
    """

    windows: Sequence[Window]
    rows: NDArray[np.int64] = field(init=False)
    longest_gap: Floats = field(init=False)
    by_client: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    by_version: dict[str, int] = field(default_factory=dict)
    newest: int | None = None
    step_back: float = 0.0

    def __post_init__(self) -> None:
        count = len(self.windows)
        self.rows = np.zeros(count, dtype=np.int64)
        self.longest_gap = np.zeros(count)
        self._edges = np.array(
            [unix_nanoseconds(one.start) for one in self.windows] + [unix_nanoseconds(self.windows[-1].end)]
        )
        self._seen: list[NDArray[np.int64]] = []

    def add(self, frame: pd.DataFrame) -> None:
        """Count a part: ``sequence``, ``at`` in Unix nanoseconds, ``client``, ``version``, ``role``."""
        frame = frame[frame["role"] != "shadow"].sort_values("sequence")
        if frame.empty:
            return
        at = frame["at"].to_numpy(dtype=np.int64)
        self.newest = max(int(at.max()), self.newest or int(at.max()))
        self._seen.append(at)
        place = np.searchsorted(self._edges, at, side="right") - 1
        inside = (place >= 0) & (place < len(self.windows))
        here = inside & (place == len(self.windows) - 1)
        if here.any():
            mine = at[here]
            self.step_back = max(self.step_back, float((np.maximum.accumulate(mine) - mine).max()) / 1e9)
        self.rows += np.bincount(place[inside], minlength=len(self.windows))
        for name, counts in frame.loc[here, "version"].value_counts().items():
            self.by_version[str(name)] = self.by_version.get(str(name), 0) + int(counts)
        codes, names = pd.factorize(frame["client"].fillna(""))
        table = np.zeros((len(names), len(self.windows)), dtype=np.int64)
        np.add.at(table, (codes[inside], place[inside]), 1)
        for name, counts in zip(names, table, strict=True):
            self.by_client[str(name)] = self.by_client.get(str(name), 0) + counts

    def settle(self) -> None:
        """Find the gaps, once every part is in."""
        at = np.sort(np.concatenate(self._seen)) if self._seen else np.empty(0, dtype=np.int64)
        for place, (start, end) in enumerate(zip(self._edges, self._edges[1:], strict=False)):
            inside = at[np.searchsorted(at, start) : np.searchsorted(at, end)]
            self.longest_gap[place] = float(np.diff(np.concatenate([[start], inside, [end]])).max()) / 1e9
        self._seen = []

    @property
    def past(self) -> list[int]:
        """Rows of the earlier windows since the first prediction on record."""
        return [int(count) for count in self.rows[self._first : -1]]

    @property
    def past_gaps(self) -> Floats:
        """Longest gaps of the same windows."""
        return self.longest_gap[self._first : -1]

    @property
    def usual_queries(self) -> dict[str, list[int]]:
        """Client: its queries in the earlier windows, of those that asked in any of them."""
        return {
            name: [int(count) for count in counts[self._first : -1]]
            for name, counts in self.by_client.items()
            if counts[self._first : -1].sum()
        }

    @property
    def _first(self) -> int:
        """The first whole window with traffic: the one in which a model was deployed says nothing of its volume."""
        found = np.flatnonzero(self.rows)
        return int(found[0]) if len(found) else len(self.rows) - 1


class Observed:
    """What a window of predictions holds: states of what may be large, and a few bytes of each row.

    Parameters
    ----------
    spec
        The model file.
    window
        Which.
    reference
        Of the version that most rows are held against; None without one.
    rows
        How many will come, about.
    features
        Whether features are looked at; else scores, decisions, labels and groups alone.
    """

    def __init__(
        self, spec: ModelSpec, window: Window, reference: Reference | None, rows: int, *, features: bool = True
    ) -> None:
        self.spec, self.window, self.reference = spec, window, reference
        self._size = None if rows <= EXACT_ROWS else SKETCH
        self._features, self._every, self._looked_at = features, max(1, rows // MOST_EMBEDDED), 0
        self.versions, self.clients = Names(), Names()
        self.state: WindowState | None = None
        self.embedding: Embedding | None = None
        self.schema: dict[tuple[str, str], Finding] = {}
        self._p_values: list[Floats] = []
        self._parts: dict[str, list[NDArray[np.generic]]] = {name: [] for name in _ROW}
        self._groups: dict[str, tuple[Names, list[NDArray[np.int32]]]] = {}
        self._asked: dict[int, pd.DataFrame] = {}
        self._joined: dict[str, NDArray[np.generic]] = {}

    def add(self, frame: pd.DataFrame) -> None:
        """Take in a part of the window.

        Parameters
        ----------
        frame
            ``request_id``, ``at`` (Unix nanoseconds), ``version``, ``role``, ``client``, ``score``, ``decision``,
            ``latency_ms``, ``error``, ``label`` (NaN until it comes), and the features that are there under their own
            names; a number that came as text stays text.
        """
        self._joined = {}
        frame = frame[frame["role"] != "shadow"].reset_index(drop=True)
        if frame.empty:
            return
        keys = pd.util.hash_array(frame["request_id"].to_numpy(dtype=object), categorize=False)
        row = {
            "at": frame["at"],
            "version": self.versions.codes(frame["version"]),
            "client": self.clients.codes(frame["client"]),
            "score": frame["score"],
            "decision": frame["decision"].fillna(-1),
            "label": frame["label"],
            "latency_ms": frame["latency_ms"],
            "failed": frame["score"].isna(),
            "key": keys,
        }
        for name, values in row.items():
            self._parts[name].append(np.asarray(values).astype(_ROW[name]))
        for attribute in self.spec.sensitive:
            if attribute.column in frame.columns:
                names, parts = self._groups.setdefault(attribute.name, (Names(), []))
                parts.append(names.codes(frame[attribute.column].astype(object)))
        if self._features:
            self._look(frame)

    def _look(self, frame: pd.DataFrame) -> None:
        for finding in judge_schema(self.spec, frame, window=self.window.words):
            key = (finding.measure, finding.subject)
            before = self.schema.get(key)
            # Of several parts the worst one tells.
            worst = finding if before is None or finding.verdict > before.verdict else before
            seen = 0 if before is None else before.count or 0
            self.schema[key] = replace(worst, count=seen + (finding.count or 0))
        features = readable(self.spec, frame)
        features[SCORE] = frame["score"]
        numeric = [*(feature.name for feature in self.spec.numeric), SCORE]
        categorical = [feature.name for feature in self.spec.categorical]
        state = WindowState.of(features, numeric, categorical, size=self._size)
        self.state = state if self.state is None else self.state.merge(state)
        if self.reference is not None:
            chosen = features.iloc[-self._looked_at % self._every :: self._every]
            self._looked_at += len(features)
            embedding = self.reference.kernel.embed(chosen)
            self.embedding = embedding if self.embedding is None else self.embedding.merge(embedding)
            self._p_values.append(self.reference.familiarity.p_values(features))
        codes = self._parts["client"][-1]
        counts = np.bincount(codes)
        known = [*self.numeric_names, *categorical]
        for client in np.argsort(-counts, kind="stable")[:MOST_CLIENTS]:
            if counts[client] and (client in self._asked or len(self._asked) < MOST_CLIENTS):
                mine = features.loc[codes == client, known].tail(MOST_QUERIES)
                kept = self._asked.get(int(client))
                both = mine if kept is None else pd.concat([kept, mine], ignore_index=True)
                self._asked[int(client)] = both.tail(MOST_QUERIES)

    @property
    def numeric_names(self) -> list[str]:
        """Numeric features."""
        return [feature.name for feature in self.spec.numeric]

    def column(self, name: str) -> NDArray[np.generic]:
        """One of the columns that are kept of each row."""
        if name not in self._joined:
            parts = self._parts[name]
            self._joined[name] = np.concatenate(parts) if parts else np.empty(0, dtype=_ROW[name])
        return self._joined[name]

    @property
    def rows(self) -> int:
        """Rows that a version was asked."""
        return sum(len(part) for part in self._parts["at"])

    @property
    def p_values(self) -> Floats:
        """How usual each row is, by the reference."""
        return np.concatenate(self._p_values) if self._p_values else np.empty(0)

    @property
    def seconds(self) -> float:
        """Length of the window."""
        return self.window.length.total_seconds()

    def of_version(self, version: str | None = None) -> VersionRows:
        """The answered rows of a version, or of all."""
        kept = ~self.column("failed").astype(bool)
        if version is not None:
            place = self.versions.names.index(version) if version in self.versions.names else -1
            kept &= self.column("version") == place
        return VersionRows(
            self.column("score")[kept].astype(np.float64),
            self.column("label")[kept].astype(np.float64),
            self.column("decision")[kept].astype(np.int8),
            {
                # No text at all is no group.
                name: np.array([one or None for one in names.names], dtype=object)[np.concatenate(parts)][kept]
                for name, (names, parts) in self._groups.items()
            },
        )

    def queries(self, client: str) -> pd.DataFrame:
        """The newest queries of a client as far as they were kept, at least `MIN_QUERIES` or none."""
        found = self._asked.get(self.clients.names.index(client)) if client in self.clients.names else None
        return pd.DataFrame() if found is None or len(found) < MIN_QUERIES else found

    def by_client(self) -> Mapping[str, int]:
        """Client: its queries."""
        counts = np.bincount(self.column("client").astype(np.intp), minlength=len(self.clients.names))
        return dict(zip(self.clients.names, map(int, counts), strict=True))


@dataclass(frozen=True, slots=True)
class VersionRows:
    """Answered rows.

    Parameters
    ----------
    scores, labels, decisions
        Shape (rows,); labels are NaN until they come.
    groups
        Sensitive attribute: each row's group; attributes that the record does not hold are absent.
    """

    scores: Floats
    labels: Floats
    decisions: NDArray[np.int8]
    groups: dict[str, NDArray[np.object_]]


def readable(spec: ModelSpec, frame: pd.DataFrame) -> pd.DataFrame:
    """Every feature of the model file as its own type; what is not there, or not readable as it, is missing."""
    columns: dict[str, pd.Series[float] | pd.Series[str]] = {}
    for feature in spec.features:
        there = feature.name in frame.columns
        if feature.type == "numeric":
            empty: object = math.nan
            columns[feature.name] = (
                pd.to_numeric(frame[feature.name], errors="coerce").astype(np.float64)
                if there
                else pd.Series(empty, index=frame.index, dtype=np.float64)
            )
        else:
            columns[feature.name] = frame[feature.name] if there else pd.Series(None, index=frame.index, dtype=object)
    return pd.DataFrame(columns)


def unix_nanoseconds(moment: datetime) -> int:
    """A moment as the prediction record counts it, to the microsecond."""
    return round(moment.timestamp() * 1_000_000) * 1_000
