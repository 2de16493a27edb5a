"""The ops store: one record of runs, what started them, findings, versions, overrides, and an append-only audit trail.

SQLite file on one host, PostgreSQL by URL elsewhere. Every change and its audit row are one transaction. Moments
come in as arguments and go out in UTC. Nothing here is retried or cached: a call either happened, or raised.
"""

from __future__ import annotations

import itertools
import logging
import math
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa

from adapters import processes
from adapters.ops_tables import aliases, audit, findings, metadata, overrides, runs, triggers, versions
from lifecycle.aliases import Alias, Assignment
from lifecycle.errors import BusyError, ConfigError, UnavailableError
from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.leases import Owner, lease_end, shown, takeover_reason
from lifecycle.overrides import check_override
from lifecycle.promotion import FIRST_TRIALS
from lifecycle.records import (
    AuditRecord,
    FindingRecord,
    OverrideRecord,
    RunRecord,
    RunState,
    TriggerKind,
    VersionRecord,
    VersionState,
)
from lifecycle.redaction import MASK, plain, redacted

MIGRATIONS = Path(__file__).resolve().parent / "migrations"
# Its own name: MLflow, Optuna and ZenML keep an alembic_version too, and may share a server with us.
VERSION_TABLE = "ops_store_version"
NO_ROOM = 256 * 1024  # bytes; what a write-ahead log needs to begin with
WAIT_S = 30  # for somebody else's lock, before the store counts as unavailable
CONNECT_S = 10
RACES = 20  # starts lost in a row before giving up; each is a run that came and went
_ADVISORY_LOCK = 0x6F707373746F7265  # any constant number; held while a PostgreSQL schema is migrated
_migrating = threading.Lock()  # Alembic's context is one per process

_FINISHED = frozenset({RunState.SUCCEEDED, RunState.REJECTED, RunState.FAILED, RunState.INTERRUPTED})


class OpsStore:
    """An open ops store; made by `open`. It may be shared by threads and carried over a fork.

    Every method raises UnavailableError when the database does not answer, is read-only, or has no room left.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._name, self._password = _shown_url(engine.url), engine.url.password

    def __repr__(self) -> str:
        return f"OpsStore({self._name})"

    @classmethod
    def open(cls, url: str) -> Self:
        """Connect and bring the schema up to date, whoever else does so at the same moment.

        Parameters
        ----------
        url
            ``sqlite:///path/ops.db`` (folder and file are made) or ``postgresql://user:password@host/database``.

        Raises
        ------
        ConfigError
            No such kind of URL, a database that other tables live in, or one newer than this code.
        UnavailableError
            It cannot be reached or written to; the message never holds the URL's password.
        """
        store = cls(_engine(url))
        path = store._engine.url.database if store._engine.dialect.name == "sqlite" else None
        if path is not None:
            store._make_room(Path(path))
        if not store._is_current():
            if path is None:
                store._migrate()
            else:
                with store._file_lock(Path(path)):
                    store._migrate()
        store._check_writable()
        return store

    # Runs

    def start_run(
        self,
        *,
        pipeline: str,
        model: str,
        stack: str,
        trigger_kind: TriggerKind | str,
        reason: str,
        requested_by: str,
        as_of: datetime,
        now: datetime,
        lease: timedelta,
        owner: str | None = None,
    ) -> RunRecord:
        """Start a run: at most one of a pipeline for a model is live, which the database itself holds to.

        A live run whose lease ended, or whose process on this host is gone, is marked abandoned and the new
        one starts.

        Parameters
        ----------
        trigger_kind, reason, requested_by
            What asked for it, why, and who; none may be empty.
        as_of
            The moment whose knowledge the run works with.
        lease
            How long it may stay silent; `heartbeat` extends it by as much.
        owner
            Who holds it; this process by default. Any text of your own is judged by its lease alone.

        Raises
        ------
        BusyError
            Another is live: which, whose, since when, and what to do.
        ConfigError
            An empty reason or requester, an unknown kind, a lease that is not above 0.
        """
        kind = _known(TriggerKind, trigger_kind, "trigger kind")
        for name, text in (("reason", reason), ("requested_by", requested_by)):
            if not text.strip():
                raise ConfigError(f"start of {pipeline} of {model}: {name} is empty; accepted: some text")
        holder = str(processes.this_process()) if owner is None else owner
        run_id = f"{pipeline}-{model}-{uuid.uuid4().hex[:12]}"
        row = {
            "id": run_id,
            "pipeline": pipeline,
            "model": model,
            "stack": stack,
            "state": RunState.RUNNING.value,
            "as_of": as_of,
            "owner": holder,
            "started_at": now,
            "lease": lease.total_seconds(),
            "lease_until": lease_end(now, lease),
            "detail": "",
            "facts": {},
        }
        trigger = {
            "kind": kind.value,
            "pipeline": pipeline,
            "model": model,
            "reason": reason,
            "requested_by": requested_by,
            "at": now,
        }
        attempts = itertools.count(1)
        while True:
            try:
                self._insert_run(row, trigger)
            except sa.exc.IntegrityError:
                # Somebody started between our look and our insert; look again, and name them.
                if next(attempts) == RACES:
                    raise
            else:
                return self.run(run_id)

    def heartbeat(self, run_id: str, now: datetime) -> datetime:
        """Extend a run's lease to its length from now; returns its end. A finished run is left as it is.

        Raises
        ------
        BusyError
            The run was taken over: stop, its results will not be accepted.
        ConfigError
            No such run.
        """
        with self.writing() as connection:
            run = _run(connection, run_id, lock=True)
            _refuse_abandoned(run)
            if run.state is not RunState.RUNNING:
                return run.lease_until
            until = max(run.lease_until, now + timedelta(seconds=run.lease))
            connection.execute(sa.update(runs).where(runs.c.id == run_id).values(lease_until=until))
            return until

    def set_run_facts(self, run_id: str, facts: Mapping[str, Any], now: datetime) -> RunRecord:
        """Add what a live run has learned (snapshot, MLflow run, version); a key given again takes the new value.

        Raises
        ------
        BusyError
            The run was taken over.
        ConfigError
            No such run, or it has finished.
        """
        with self.writing() as connection:
            run = _live_run(connection, run_id)
            added = plain(dict(facts))
            merged = run.facts | added
            if merged != run.facts:
                connection.execute(sa.update(runs).where(runs.c.id == run_id).values(facts=merged))
                write_audit(connection, now, _acting(run_id), "run facts set", run_id, run.model, added)
        return self.run(run_id)

    def finish_run(self, run_id: str, state: RunState | str, detail: str, now: datetime) -> RunRecord:
        """End a run: succeeded, rejected, failed or interrupted, and how. Saying the same again changes nothing.

        Raises
        ------
        BusyError
            The run was taken over.
        ConfigError
            No such run, a state that is no end, or a run that ended otherwise before.
        """
        end = _known(RunState, state, "state")
        if end not in _FINISHED:
            accepted = ", ".join(sorted(state.value for state in _FINISHED))
            raise ConfigError(f"a run does not finish as {end.value!r}; accepted: {accepted}")
        with self.writing() as connection:
            run = _run(connection, run_id, lock=True)
            _refuse_abandoned(run)
            if run.state is RunState.RUNNING:
                connection.execute(
                    sa.update(runs).where(runs.c.id == run_id).values(state=end.value, detail=detail, finished_at=now)
                )
                write_audit(connection, now, _acting(run_id), f"run {end.value}", run_id, run.model, {"detail": detail})
            elif run.state is not end:
                raise ConfigError(f"run {run_id} already ended as {run.state.value}; accepted: no second ending")
        return self.run(run_id)

    def run(self, run_id: str) -> RunRecord:
        """One run; ConfigError when there is none of that name."""
        with self.reading() as connection:
            return _run(connection, run_id)

    def runs(self, model: str | None = None, limit: int = 20) -> list[RunRecord]:
        """Newest first."""
        query = _RUNS.order_by(runs.c.started_at.desc(), runs.c.trigger_id.desc()).limit(limit)
        if model is not None:
            query = query.where(runs.c.model == model)
        with self.reading() as connection:
            return [_run_record(row) for row in connection.execute(query)]

    # Findings

    def record_findings(
        self,
        run_id: str,
        phase: str,
        found: Sequence[Finding],
        now: datetime,
        model: str,
        version: str | None = None,
    ) -> None:
        """Keep the findings of one phase of a live run; written again, the later writing stands alone.

        A value or interval that is NaN is kept as none.

        Raises
        ------
        BusyError
            The run was taken over.
        ConfigError
            No such run, it has finished, or it is another model's.
        """
        rows = [
            _finding_row(finding)
            | {"run_id": run_id, "phase": phase, "position": position, "model": model, "version": version}
            for position, finding in enumerate(found)
        ]
        mine = sa.and_(findings.c.run_id == run_id, findings.c.phase == phase)
        with self.writing() as connection:
            run = _live_run(connection, run_id)
            if run.model != model:
                raise ConfigError(f"findings of {model} in run {run_id}; accepted: its own model, {run.model}")
            before = connection.execute(sa.select(findings).where(mine).order_by(findings.c.position)).all()
            wanted = [finding_record(row | {"at": now}) for row in rows]
            kept = [finding_record(row._asdict()) for row in before]
            if [(record.version, record.finding) for record in kept] == [
                (record.version, record.finding) for record in wanted
            ] and before:
                return
            connection.execute(sa.delete(findings).where(mine))
            if rows:
                connection.execute(sa.insert(findings), [row | {"at": now} for row in rows])
            verdicts = {verdict.label: sum(f.verdict is verdict for f in found) for verdict in Verdict}
            write_audit(
                connection,
                now,
                _acting(run_id),
                "findings replaced" if before else "findings recorded",
                run_id,
                model,
                {"phase": phase, "version": version} | {label: n for label, n in verdicts.items() if n},
            )

    def findings(
        self, run_id: str | None = None, model: str | None = None, phase: str | None = None
    ) -> list[FindingRecord]:
        """Findings in the order they were written; each argument narrows."""
        query = sa.select(findings).order_by(findings.c.at, findings.c.run_id, findings.c.phase, findings.c.position)
        for column, value in ((findings.c.run_id, run_id), (findings.c.model, model), (findings.c.phase, phase)):
            if value is not None:
                query = query.where(column == value)
        with self.reading() as connection:
            return [finding_record(row._asdict()) for row in connection.execute(query)]

    # Versions

    def record_version(
        self,
        model: str,
        version: str,
        run_id: str,
        snapshot: str,
        config_hash: str,
        state: VersionState | str,
        reasons: Sequence[str],
        now: datetime,
        config: Mapping[str, Any] | None = None,
    ) -> VersionRecord:
        """Keep a registered version and what was decided about it. Saying the same again changes nothing.

        Parameters
        ----------
        config
            The model file it was made from, as plain values.

        Raises
        ------
        BusyError
            The run was taken over.
        ConfigError
            No such live run, another model's run, or a version on record with other facts.
        """
        decided = _known(VersionState, state, "version state")
        wanted = VersionRecord(
            model, str(version), run_id, snapshot, config_hash, decided, tuple(map(redacted, reasons)), now
        )
        same = sa.and_(versions.c.model == model, versions.c.version == wanted.version)
        with self.writing() as connection:
            run = _live_run(connection, run_id)
            if run.model != model:
                raise ConfigError(f"version of {model} from run {run_id}; accepted: its own model, {run.model}")
            row = connection.execute(sa.select(versions).where(same)).one_or_none()
            if row is not None:
                known = _version_record(row)
                if _without_time(known) != _without_time(wanted):
                    raise ConfigError(
                        f"version {version} of {model} is already on record, {known.state.value}, from run "
                        f"{known.run_id}; accepted: a version number of its own"
                    )
                return known
            connection.execute(
                sa.insert(versions).values(
                    model=model,
                    version=wanted.version,
                    run_id=run_id,
                    snapshot=snapshot,
                    config_hash=config_hash,
                    state=decided.value,
                    reasons=list(wanted.reasons),
                    at=now,
                    config=None if config is None else dict(config),
                )
            )
            write_audit(
                connection,
                now,
                _acting(run_id),
                f"version {decided.value}",
                f"{model} {wanted.version}",
                model,
                {"run": run_id, "snapshot": snapshot, "config_hash": config_hash, "reasons": list(wanted.reasons)},
            )
            return _version_record(connection.execute(sa.select(versions).where(same)).one())

    def judge_version(
        self, model: str, version: str, run_id: str, state: VersionState | str, reasons: Sequence[str], now: datetime
    ) -> None:
        """Put a later run's decision about a version on record; the same decision again changes nothing.

        Raises
        ------
        BusyError
            The run was taken over.
        ConfigError
            No such live run, or no such version.
        """
        decided = _known(VersionState, state, "version state")
        told = list(map(redacted, reasons))
        same = sa.and_(versions.c.model == model, versions.c.version == str(version))
        with self.writing() as connection:
            _live_run(connection, run_id)
            row = connection.execute(sa.select(versions).where(same)).one_or_none()
            if row is None:
                raise ConfigError(f"{model} has no version {version!r} on record; accepted: a registered one")
            known = _version_record(row)
            if (known.state, list(known.reasons)) == (decided, told):
                return
            connection.execute(sa.update(versions).where(same).values(state=decided.value, reasons=told, at=now))
            write_audit(
                connection,
                now,
                _acting(run_id),
                f"version {decided.value}",
                f"{model} {version}",
                model,
                {"run": run_id, "before": known.state.value, "reasons": told},
            )

    def versions(self, model: str) -> list[VersionRecord]:
        """Versions of a model, newest first."""
        query = sa.select(versions).where(versions.c.model == model).order_by(versions.c.id.desc())
        with self.reading() as connection:
            return [_version_record(row) for row in connection.execute(query)]

    def config(self, model: str, version: str) -> dict[str, Any] | None:
        """The model file a version was made from, as plain values; None when it is not on record."""
        query = sa.select(versions.c.config).where(versions.c.model == model, versions.c.version == version)
        with self.reading() as connection:
            found: dict[str, Any] | None = connection.execute(query).scalar_one_or_none()
            return found

    # Aliases

    def assign_aliases(
        self,
        model: str,
        decide: Callable[[Mapping[Alias, str]], Mapping[Alias, str | None]],
        *,
        actor: str,
        reason: str,
        now: datetime,
        environment: str = FIRST_TRIALS,
    ) -> dict[Alias, str]:
        """Give versions their parts, and tell who has which afterwards.

        Parameters
        ----------
        model
            Model's name.
        decide
            Given who has which part, tells what changes (None: nobody any more). It is called with the record
            locked, so that of two who decide at once the second sees what the first did.
        actor, reason
            Who did it, and why.
        now
            The moment.
        environment
            Where.

        Raises
        ------
        ConfigError
            Nobody named, no reason, or a version that is not on record; and what `decide` raises.
        """
        if not actor.strip() or not reason.strip():
            raise ConfigError(f"actor {actor!r}, reason {reason!r}; accepted: both given, not blank")
        with self.writing() as connection:
            # PostgreSQL lets writers side by side: the rows of the model's versions stand for the whole record.
            known = set(
                connection.execute(
                    sa.select(versions.c.version)
                    .where(versions.c.model == model)
                    .order_by(versions.c.id)
                    .with_for_update()
                ).scalars()
            )
            before = aliases_of(connection, model, environment)
            for alias, version in decide(before).items():
                if version is not None and version not in known:
                    raise ConfigError(f"{model} has no version {version!r} on record; accepted: a registered one")
                assign_alias(connection, model, environment, alias, version, before.get(alias), actor, reason, now)
            return aliases_of(connection, model, environment)

    def aliases(self, model: str, environment: str = FIRST_TRIALS) -> dict[Alias, str]:
        """Version of each part that is taken in an environment."""
        with self.reading() as connection:
            return aliases_of(connection, model, environment)

    def alias_assignments(self, model: str, environment: str = FIRST_TRIALS) -> dict[Alias, list[Assignment]]:
        """Every assignment of each part, oldest first."""
        query = (
            sa.select(aliases)
            .where(aliases.c.model == model, aliases.c.environment == environment)
            .order_by(aliases.c.id)
        )
        found: dict[Alias, list[Assignment]] = {}
        with self.reading() as connection:
            for row in connection.execute(query):
                one = Assignment(row.id, row.version, row.mirrored_at is not None)
                found.setdefault(Alias(row.alias), []).append(one)
        return found

    def mark_mirrored(self, assignments: Sequence[Assignment], now: datetime) -> None:
        """Keep that the model registry was seen to hold these."""
        ids = [one.assignment_id for one in assignments]
        with self.writing() as connection:
            mine = sa.and_(aliases.c.id.in_(ids), aliases.c.mirrored_at.is_(None))
            connection.execute(sa.update(aliases).where(mine).values(mirrored_at=now))

    # Overrides

    def grant_override(
        self, *, model: str, gate: str, person: str, reason: str, until: datetime, now: datetime, max_days: float
    ) -> OverrideRecord:
        """Let one gate of a model pass until a moment, on a person's word.

        Raises
        ------
        ConfigError
            Nobody named, no reason, an end that is past or more than `max_days` ahead.
        """
        check_override(gate=gate, person=person, reason=reason, until=until, now=now, max_days=max_days)
        row = {
            "model": model,
            "gate": gate,
            "person": person,
            "reason": reason,
            "granted_at": now,
            "until": until,
        }
        with self.writing() as connection:
            inserted = connection.execute(sa.insert(overrides).values(row)).inserted_primary_key
            assert inserted is not None
            write_audit(
                connection,
                now,
                person,
                "override granted",
                f"{model} gate {gate}",
                model,
                {"override": inserted[0], "reason": reason, "until": until},
            )
            return _override_record(connection.execute(sa.select(overrides).where(overrides.c.id == inserted[0])).one())

    def overrides(self, model: str) -> list[OverrideRecord]:
        """Every override that was ever granted for a model, newest first."""
        query = sa.select(overrides).where(overrides.c.model == model).order_by(overrides.c.id.desc())
        with self.reading() as connection:
            return [_override_record(row) for row in connection.execute(query)]

    def overrides_in_force(self, model: str, now: datetime) -> list[OverrideRecord]:
        """Overrides of a model that hold now, newest first."""
        return [override for override in self.overrides(model) if override.in_force(now)]

    # Audit

    def audit_trail(self, model: str | None = None, limit: int = 100) -> list[AuditRecord]:
        """Who or what did what, newest first."""
        query = sa.select(audit).order_by(audit.c.id.desc()).limit(limit)
        if model is not None:
            query = query.where(audit.c.model == model)
        with self.reading() as connection:
            return [
                AuditRecord(row.id, row.at, row.actor, row.action, row.subject, row.model, row.detail)
                for row in connection.execute(query)
            ]

    # How it is done

    def _insert_run(self, row: dict[str, Any], trigger: dict[str, Any]) -> None:
        with self.writing() as connection:
            self._clear_the_way(connection, row["pipeline"], row["model"], row["id"], row["started_at"])
            inserted = connection.execute(sa.insert(triggers).values(trigger)).inserted_primary_key
            assert inserted is not None
            connection.execute(sa.insert(runs).values(row | {"trigger_id": inserted[0]}))
            detail = {key: row[key] for key in ("pipeline", "stack", "as_of")}
            detail |= {"trigger": trigger["kind"], "reason": trigger["reason"], "owner": shown(row["owner"])}
            write_audit(
                connection, row["started_at"], trigger["requested_by"], "run started", row["id"], row["model"], detail
            )

    def _clear_the_way(
        self, connection: sa.Connection, pipeline: str, model: str, successor: str, now: datetime
    ) -> None:
        """Mark the live run abandoned where that is allowed; BusyError where it is not."""
        live = runs.c.state == RunState.RUNNING.value
        row = connection.execute(
            _RUNS.where(runs.c.pipeline == pipeline, runs.c.model == model, live).with_for_update(of=runs)
        ).one_or_none()
        if row is None:
            return
        run = _run_record(row)
        holder = Owner.parse(run.owner)
        why = takeover_reason(run.owner, holder is not None and processes.has_died(holder), run.lease_until, now)
        if why is None:
            raise BusyError(
                f"{pipeline} of {model} is already running: run {run.run_id} by {shown(run.owner)} since "
                f"{run.started_at:%Y-%m-%d %H:%M:%S} UTC ({run.reason}); accepted: wait until it ends, or stop it "
                f"there and start again; without a sign of it, it may be taken over after "
                f"{run.lease_until:%Y-%m-%d %H:%M:%S} UTC"
            )
        connection.execute(
            sa.update(runs)
            .where(runs.c.id == run.run_id)
            .values(state=RunState.ABANDONED.value, detail=why, finished_at=now)
        )
        write_audit(
            connection,
            now,
            _acting(successor),
            "run abandoned",
            run.run_id,
            model,
            {"reason": why, "taken over by": successor},
        )

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection for reading; UnavailableError when the database does not answer."""
        with self._answering(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that writes, committed at its end; UnavailableError when the database does not take it."""
        with (
            self._answering(),
            self._engine.connect().execution_options(ops_store_writes=True) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Tell what the database refuses as UnavailableError, without the driver's chain and its parameters."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            if not _is_outage(error):
                raise
            raise UnavailableError(f"ops store {self._name}: {self._told(error.orig)}") from None
        except OSError as error:
            raise UnavailableError(f"ops store {self._name}: {error.strerror or error}") from None

    def _told(self, error: BaseException | None) -> str:
        """Name a full disk as such: SQLite calls it a disk I/O error when not even its journal finds room."""
        path = self._engine.url.database if self._engine.dialect.name == "sqlite" else None
        if path and path != ":memory:" and shutil.disk_usage(Path(path).parent).free < NO_ROOM:
            return "no room left on the disk; free some and run the same command again"
        return self._without_password(error)

    def _without_password(self, error: BaseException | None) -> str:
        text = " ".join(str(error).split())
        return redacted(
            text.replace(self._password, MASK) if isinstance(self._password, str) and self._password else text
        )

    def _make_room(self, path: Path) -> None:
        with self._answering():
            path.parent.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def _file_lock(self, path: Path) -> Iterator[None]:
        from filelock import FileLock, Timeout

        try:
            with self._answering():
                lock = FileLock(f"{path}.lock", timeout=2 * WAIT_S)
                lock.acquire()
        except Timeout:
            raise UnavailableError(
                f"ops store {self._name}: another process has been migrating it for over {2 * WAIT_S} s; "
                f"accepted: wait, or stop the holder of {path}.lock"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _is_current(self) -> bool:
        """Whether the schema is the code's; ConfigError when it is not one we can migrate."""
        with self.reading() as connection:
            return self._revision(connection) == _head()

    def _revision(self, connection: sa.Connection) -> str | None:
        names = set(sa.inspect(connection).get_table_names())
        if VERSION_TABLE not in names:
            foreign = sorted(names & set(metadata.tables))
            if foreign:
                raise ConfigError(
                    f"{self._name} already holds tables of something else ({', '.join(foreign)}); "
                    "accepted: a database of its own for the ops store"
                )
            return None
        version_table = sa.table(VERSION_TABLE, sa.column("version_num"))
        revision = connection.execute(sa.select(version_table.c.version_num)).scalar_one_or_none()
        known = {script.stem.split("_")[0] for script in (MIGRATIONS / "versions").glob("[0-9]*.py")}
        if revision is not None and revision not in known:
            raise ConfigError(
                f"ops store {self._name} is at schema {revision!r}, newer than this code, which knows up to "
                f"{_head()!r}; accepted: a newer revision of the code, or another database"
            )
        return revision

    def _migrate(self) -> None:
        """Bring the schema to head in one transaction that nobody else can be in at the same time."""
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)
        if self._engine.dialect.name == "sqlite":
            self._switch_to_wal()
        with _migrating, self.writing() as connection:
            if self._engine.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
            if self._revision(connection) == _head():  # somebody was quicker
                return
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def _switch_to_wal(self) -> None:
        """Readers and a writer side by side; kept in the file, so done once, and not inside a transaction."""
        with self._answering(), self._engine.connect() as connection:
            raw = connection.connection.driver_connection
            assert raw is not None
            connection.rollback()
            try:
                raw.execute("PRAGMA journal_mode=WAL")
            except self._engine.dialect.loaded_dbapi.Error as error:
                raise UnavailableError(f"ops store {self._name}: {self._told(error)}") from None

    def _check_writable(self) -> None:
        """Find out at the start, not after an hour's training."""
        with self.writing() as connection:  # SQLite takes the write lock here, or refuses
            if (
                self._engine.dialect.name == "postgresql"
                and connection.execute(sa.text("SHOW transaction_read_only")).scalar_one() == "on"
            ):
                raise UnavailableError(f"ops store {self._name}: the database is read-only; accepted: the primary")


_RUNS = sa.select(runs, triggers.c.kind, triggers.c.reason, triggers.c.requested_by).join_from(runs, triggers)


def _engine(url: str) -> sa.Engine:
    accepted = "accepted: sqlite:///path/ops.db or postgresql://user:password@host:5432/database"
    try:
        # Nothing of a URL that cannot be read is repeated: any part of it may be the password.
        parsed = sa.engine.make_url(url.replace("postgres://", "postgresql://", 1) if url[:9] == "postgres:" else url)
    except (sa.exc.ArgumentError, ValueError):
        raise ConfigError(f"ops store URL cannot be read; {accepted}") from None
    backend = parsed.get_backend_name()
    if backend == "sqlite" and parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        if not parsed.database or parsed.database == ":memory:" or parsed.query:
            raise ConfigError(f"ops store URL names no file, or has options; {accepted}")
        # Every call connects anew, maybe after somebody changed the working directory.
        parsed = parsed.set(database=str(Path(parsed.database).absolute()))
        engine = sa.create_engine(
            parsed, poolclass=sa.pool.NullPool, connect_args={"timeout": WAIT_S, "check_same_thread": False}
        )
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine
    if backend == "postgresql" and parsed.drivername in ("postgresql", "postgresql+psycopg2"):
        if not parsed.database:
            raise ConfigError(f"ops store URL names no database; {accepted}")
        parsed = parsed.set(drivername="postgresql+psycopg2")
        arguments = {} if "connect_timeout" in parsed.query else {"connect_timeout": CONNECT_S}
        # No pool: calls are few, and a connection kept open would not survive a fork or a server's restart.
        engine = sa.create_engine(parsed, poolclass=sa.pool.NullPool, connect_args=arguments)
        sa.event.listen(engine, "begin", _begin_postgresql)
        return engine
    raise ConfigError(f"ops store URL is of kind {parsed.drivername!r}; {accepted}")


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver would begin on its own, too late for a write lock
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA synchronous=FULL")  # an audit row survives a power cut


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("ops_store_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _begin_postgresql(connection: sa.Connection) -> None:
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{WAIT_S}s'")


def _shown_url(url: sa.URL) -> str:
    """The URL without user, password and options."""
    if url.get_backend_name() == "sqlite":
        return f"sqlite:///{url.database}"
    place = f"{url.host or ''}{f':{url.port}' if url.port else ''}"
    return f"postgresql://{place}/{url.database}"


def _is_outage(error: sa.exc.DBAPIError) -> bool:
    """Whether the database, not our statement, is what failed."""
    if isinstance(error, (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.InternalError)):
        # An append-only trigger of PostgreSQL raises P0001, which is a broken rule and no outage.
        return getattr(error.orig, "pgcode", None) != "P0001"
    if type(error) is sa.exc.DatabaseError:  # a file that is no database, or damaged
        return True
    return getattr(error.orig, "pgcode", None) == "42501"  # insufficient privilege


def _head() -> str:
    """The newest revision: migrations are numbered in their file names."""
    return max(path.stem.split("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def write_audit(
    connection: sa.Connection,
    now: datetime,
    actor: str,
    action: str,
    subject: str,
    model: str | None,
    detail: Mapping[str, Any],
) -> None:
    """Add to the audit trail, in the transaction of the change it tells of."""
    connection.execute(
        sa.insert(audit).values(at=now, actor=actor, action=action, subject=subject, model=model, detail=dict(detail))
    )


def assign_alias(
    connection: sa.Connection,
    model: str,
    environment: str,
    alias: Alias,
    version: str | None,
    before: str | None,
    actor: str,
    reason: str,
    now: datetime,
) -> None:
    """Give a version a part, on record, in the transaction of what it follows from; nothing when it has it already."""
    if version == before:
        return
    row = {"model": model, "environment": environment, "alias": alias.value, "version": version}
    connection.execute(sa.insert(aliases).values(**row, actor=actor, reason=reason, at=now))
    detail = {"environment": environment, "before": before, "version": version, "reason": reason}
    write_audit(connection, now, actor, f"alias {alias.value}", f"{model} {version or 'nobody'}", model, detail)


def _acting(run_id: str) -> str:
    return f"run {run_id}"


def _known(kind: type[Any], value: Any, name: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        accepted = ", ".join(member.value for member in kind)
        raise ConfigError(f"{name} is {value!r}; accepted: {accepted}") from None


def _run(connection: sa.Connection, run_id: str, lock: bool = False) -> RunRecord:
    query = _RUNS.where(runs.c.id == run_id)
    row = connection.execute(query.with_for_update(of=runs) if lock else query).one_or_none()
    if row is None:
        raise ConfigError(f"no run {run_id!r} in the ops store; accepted: the id of one that was started")
    return _run_record(row)


def _live_run(connection: sa.Connection, run_id: str) -> RunRecord:
    run = _run(connection, run_id, lock=True)
    _refuse_abandoned(run)
    if run.state is not RunState.RUNNING:
        raise ConfigError(f"run {run_id} already ended as {run.state.value}; accepted: a run that is live")
    return run


def _refuse_abandoned(run: RunRecord) -> None:
    if run.state is RunState.ABANDONED:
        raise BusyError(
            f"run {run.run_id} was taken over at {run.finished_at:%Y-%m-%d %H:%M:%S} UTC because {run.detail}; "
            "accepted: nothing more from it, the run that took over goes on"
        )


def _run_record(row: sa.Row[Any]) -> RunRecord:
    return RunRecord(
        run_id=row.id,
        pipeline=row.pipeline,
        model=row.model,
        stack=row.stack,
        state=RunState(row.state),
        trigger_kind=TriggerKind(row.kind),
        reason=row.reason,
        requested_by=row.requested_by,
        as_of=row.as_of,
        owner=row.owner,
        started_at=row.started_at,
        finished_at=row.finished_at,
        lease=row.lease,
        lease_until=row.lease_until,
        detail=row.detail,
        facts=row.facts,
    )


def _number(value: float | None) -> float | None:
    """As a plain float, none for NaN: SQLite has no NaN, and the driver of PostgreSQL no numpy."""
    return None if value is None or math.isnan(value) else float(value)


def _finding_row(finding: Finding) -> dict[str, Any]:
    low, high = map(_number, finding.interval or (None, None))
    whole = low is not None and high is not None
    return {
        "measure": redacted(finding.measure),
        "subject": redacted(finding.subject),
        "value": _number(finding.value),
        "threshold": _number(finding.threshold),
        "direction": finding.direction.value,
        "window": redacted(finding.window),
        "verdict": finding.verdict.name,
        "reason": redacted(finding.reason),
        "count": None if finding.count is None else int(finding.count),
        "interval_low": low if whole else None,
        "interval_high": high if whole else None,
    }


def finding_record(row: Mapping[str, Any]) -> FindingRecord:
    """A row of the findings table as a value."""
    interval = None if row["interval_low"] is None else (row["interval_low"], row["interval_high"])
    finding = Finding(
        measure=row["measure"],
        subject=row["subject"],
        value=row["value"],
        threshold=row["threshold"],
        direction=Direction(row["direction"]),
        window=row["window"],
        verdict=Verdict[row["verdict"]],
        reason=row["reason"],
        count=row["count"],
        interval=interval,
    )
    return FindingRecord(row["run_id"], row["phase"], row["model"], row["version"], row["at"], finding)


def _version_record(row: sa.Row[Any]) -> VersionRecord:
    return VersionRecord(
        row.model,
        row.version,
        row.run_id,
        row.snapshot,
        row.config_hash,
        VersionState(row.state),
        tuple(row.reasons),
        row.at,
    )


def _without_time(record: VersionRecord) -> tuple[object, ...]:
    return (record.run_id, record.snapshot, record.config_hash, record.state, record.reasons)


def aliases_of(connection: sa.Connection, model: str, environment: str) -> dict[Alias, str]:
    """Version of each part that is taken in an environment."""
    newest = (
        sa.select(sa.func.max(aliases.c.id))
        .where(aliases.c.model == model, aliases.c.environment == environment)
        .group_by(aliases.c.alias)
    )
    rows = connection.execute(sa.select(aliases.c.alias, aliases.c.version).where(aliases.c.id.in_(newest)))
    return {Alias(row.alias): row.version for row in rows if row.version is not None}


def _override_record(row: sa.Row[Any]) -> OverrideRecord:
    return OverrideRecord(row.id, row.model, row.gate, row.person, row.reason, row.granted_at, row.until)
