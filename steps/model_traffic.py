"""What monitoring reads of a model: its traffic with labels, references, metrics, refusals; nothing is decided here."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from adapters.gateway_metrics import read_metrics
from adapters.ops_store import OpsStore
from adapters.prediction_archive import PredictionArchive
from adapters.prediction_columns import CATEGORICAL, NUMERIC, is_feature
from adapters.reference_file import decode
from adapters.registry import REFERENCE, Registry
from adapters.security_log import refused_by_address
from adapters.services import var_folder
from lifecycle.aliases import Alias
from lifecycle.drift import MIN_ROWS
from lifecycle.errors import ProDecksError
from lifecycle.estimation import EstimateCheck
from lifecycle.evaluation import Estimate
from lifecycle.monitoring import PAST_WINDOWS, Metric, Seen
from lifecycle.observed import Arrivals, Observed, Window
from lifecycle.records import RunRecord
from lifecycle.reference import Reference
from lifecycle.spec import Duration, ModelSpec

if TYPE_CHECKING:
    import pyarrow as pa

PART_ROWS = 250_000
LATER = timedelta(days=366)
"""How far ahead a clock that is wrong is looked for."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where monitoring reads.

    Parameters
    ----------
    serving
        The gateway's folder.
    environment
        Whose traffic it is.
    gateway
        Address of the gateway; None where there is none to ask.
    now
        The clock's.
    """

    serving: Path
    environment: str
    gateway: str | None
    now: datetime


def gather(
    spec: ModelSpec, as_of: datetime, length: Duration, place: Place, ops: OpsStore, registry: Registry,
    past: list[RunRecord],
) -> Seen:  # fmt: skip
    """Read all that one look at a model needs.

    Parameters
    ----------
    spec
        The model file.
    as_of
        End of the window.
    length
        Of the window.
    place
        Where.
    past
        Earlier runs for the same environment, newest first.
    """
    window = Window.before(as_of, length)
    archive, damaged = PredictionArchive(place.serving), list[str]()
    arrivals = Arrivals([*window.earlier(PAST_WINDOWS, length), window])
    # The present look also sees records of a future that has not been: a clock that is wrong.
    horizon = window.end + LATER if abs((place.now - window.end).total_seconds()) < 60 else window.end
    for batch in archive.arrivals(spec.name, arrivals.windows[0].start, horizon, damaged):
        arrivals.add(_plain(batch))
    arrivals.settle()
    main = _main(arrivals, ops.aliases(spec.name, place.environment).get(Alias.CHAMPION))
    references, no_reference = _references(spec, arrivals, main, length, registry, as_of)
    current = _observed(spec, window, archive, references.get(main or ""), int(arrivals.rows[-1]), damaged)
    matured = current
    end = spec.label.delay.before(window.end)
    if end < window.end:
        labelled = Window.before(end, length)
        matured = _observed(spec, labelled, archive, None, int(arrivals.rows[-1]), damaged, features=False)
    earlier = [one for one in past if datetime.fromisoformat(one.facts["end"]) <= window.start]
    return Seen(
        spec=spec,
        as_of=as_of,
        arrivals=arrivals,
        current=current,
        matured=matured,
        main=main,
        references=references,
        no_reference=no_reference,
        damaged=damaged,
        past_latency_ms=[
            one.facts["latency_p95_ms"] for one in earlier[:PAST_WINDOWS] if one.facts.get("latency_p95_ms")
        ],
        past_checks=_checks(past, main, matured.window),
    )


def gather_gateway(window: Window, place: Place) -> tuple[list[Metric], dict[str, int]]:
    """What the gateway says of itself at the window's end, and how many requests of each address it refused in it."""
    metrics = read_metrics(window.end, place.now, place.gateway)
    return metrics, refused_by_address(place.serving, window.start, window.end)


def digest(seen: Seen) -> str:
    """What tells whether anything was added to a window since it was looked at: 16 hex digits."""
    parts: list[Any] = [seen.window, seen.spec.fingerprint(), seen.main, sorted(seen.references), seen.damaged]
    parts += [seen.arrivals.rows.tolist(), sorted(seen.arrivals.by_version.items())]
    for observed in (seen.current, seen.matured):
        for name in ("key", "label", "score", "at"):
            parts.append(hashlib.sha256(np.ascontiguousarray(observed.column(name)).tobytes()).hexdigest())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def sample(spec: ModelSpec, window: Window, archive: PredictionArchive, rows: int, most: int) -> pd.DataFrame:
    """Rows of a window with features, score, label and decision, about `most` of them, drawn evenly in their order."""
    every = max(1, rows // most)
    parts, seen = [], 0
    for frame in _frames(spec, window, archive, []):
        taken = frame.iloc[(-seen) % every :: every]
        seen += len(frame)
        parts.append(taken[taken["role"] != "shadow"])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _observed(
    spec: ModelSpec, window: Window, archive: PredictionArchive, reference: Reference | None, rows: int,
    damaged: list[str], *, features: bool = True,
) -> Observed:  # fmt: skip
    observed = Observed(spec, window, reference, rows, features=features)
    only = None if features else {attribute.column for attribute in spec.sensitive}
    for frame in _frames(spec, window, archive, damaged, only):
        observed.add(frame)
    return observed


def _frames(
    spec: ModelSpec, window: Window, archive: PredictionArchive, damaged: list[str],
    only: Collection[str] | None = None,
) -> Iterator[pd.DataFrame]:  # fmt: skip
    """The window in parts that fit into memory, features (or `only` some) under their own names."""
    import pyarrow as pa

    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in archive.scan(spec.name, window.start, window.end, damaged, only):
        waiting.append(batch)
        rows += len(batch)
        if rows >= PART_ROWS:
            yield _features(spec, pa.Table.from_batches(waiting), only)
            waiting, rows = [], 0
    if rows:
        yield _features(spec, pa.Table.from_batches(waiting), only)


def _plain(batch: pa.RecordBatch | pa.Table) -> pd.DataFrame:
    """Fixed columns, moments as Unix nanoseconds."""
    import pyarrow as pa

    names = [name for name in batch.schema.names if not is_feature(name)]
    columns = {
        name: batch.column(name).cast(pa.int64()) if pa.types.is_timestamp(batch.schema.field(name).type) else batch.column(name)
        for name in names
    }  # fmt: skip
    return pa.table(columns).to_pandas()


def _features(spec: ModelSpec, table: pa.Table, only: Collection[str] | None) -> pd.DataFrame:
    import pyarrow.compute as pc

    fixed = _plain(table.drop_columns(["missing", "observed_at", "labelled_at", "entity"]))
    named = set(pc.unique(pc.list_flatten(table.column("missing"))).to_pylist())
    columns: dict[str, pd.Series[Any]] = {}
    for feature in spec.features:
        if only is not None and feature.name not in only:
            continue
        mine, other = (NUMERIC, CATEGORICAL) if feature.type == "numeric" else (CATEGORICAL, NUMERIC)
        found = [
            table.column(prefix + feature.name).to_pandas()
            for prefix in (mine, other)
            if prefix + feature.name in table.column_names
            and table.column(prefix + feature.name).null_count < len(table)
        ]
        if len(found) == 2:  # versions read it as two types; what is of the wrong one is for quality to tell
            columns[feature.name] = found[0].astype(object).where(found[0].notna(), found[1])
        elif found:
            columns[feature.name] = found[0]
        elif feature.name in named:
            columns[feature.name] = pd.Series(None, index=fixed.index, dtype=object)
    return pd.concat([fixed, pd.DataFrame(columns, index=fixed.index)], axis=1)


def _main(arrivals: Arrivals, champion: str | None) -> str | None:
    """The live version while it answers, else the one that was asked most."""
    if champion is not None and arrivals.by_version.get(champion, 0) >= MIN_ROWS:
        return champion
    return max(arrivals.by_version, key=lambda name: (arrivals.by_version[name], name), default=champion)


def _references(
    spec: ModelSpec, arrivals: Arrivals, main: str | None, length: Duration, registry: Registry, as_of: datetime
) -> tuple[dict[str, Reference], dict[str, str]]:
    wanted = {name for name, rows in arrivals.by_version.items() if rows >= MIN_ROWS} | ({main} if main else set())
    found: dict[str, Reference] = {}
    missing: dict[str, str] = {}
    for version in sorted(wanted):
        try:
            reference = load_reference(spec, version, as_of - length.before(as_of), registry)
        except ProDecksError as error:
            missing[version] = f"the reference of version {version} cannot be read: {error}"
            continue
        if reference is None:
            missing[version] = f"version {version} has no reference: it was registered before any was kept"
        else:
            found[version] = reference
    return found, missing


def load_reference(spec: ModelSpec, version: str, window: timedelta, registry: Registry) -> Reference | None:
    """A version's reference, from the var folder once it was fetched; None when none was kept.

    Raises
    ------
    ConfigError
        No such version.
    DataError
        The file is none.
    UnavailableError
        The registry does not answer.
    """
    tags = registry.tags(spec.name, version)
    content = hashlib.sha256(tags.get("content", "").encode()).hexdigest()[:16]
    kept = var_folder() / "references" / spec.name / f"{version}-{content}.parquet"
    if not kept.exists():
        with tempfile.TemporaryDirectory() as folder:
            fetched = registry.attached(spec.name, version, REFERENCE, Path(folder))
            if fetched is None:
                return None
            decode(fetched)  # nothing is kept that cannot be read
            kept.parent.mkdir(parents=True, exist_ok=True)
            staged = kept.with_suffix(f".{fetched.stat().st_ino}")
            staged.write_bytes(fetched.read_bytes())
            staged.replace(kept)
    return Reference(spec, version, decode(kept), float(tags["threshold"]), window)


def _checks(past: list[RunRecord], main: str | None, window: Window) -> list[EstimateCheck]:
    """Earlier checks of the version, oldest first; none of a window that overlaps a later one."""
    found: list[EstimateCheck] = []
    covered = window.start
    for run in sorted(past, key=lambda run: run.as_of, reverse=True):
        facts = run.facts
        if facts["main"] != main or not facts["checks"] or datetime.fromisoformat(facts["labels_end"]) > covered:
            continue
        covered = datetime.fromisoformat(facts["labels_start"])
        found += [
            EstimateCheck(one["measure"], one["window"], Estimate(*one["estimated"]), one["measured"], one["rows"])
            for one in facts["checks"]
        ]
    return found[::-1]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep numpy's warnings about windows of one row or one value off the terminal: findings tell of them."""
    with np.errstate(all="ignore"):
        yield
