"""The ops store's tables as SQLAlchemy knows them; migrations bring a database to this shape, and a test compares."""

from __future__ import annotations

import enum
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from typing_extensions import override

from lifecycle.alerting import Channel, Priority
from lifecycle.alerts import AlertState, Kind
from lifecycle.aliases import Alias
from lifecycle.delivery import Delivered
from lifecycle.records import RunState, TriggerKind, VersionState
from lifecycle.redaction import plain, redacted
from lifecycle.rollout import Stage


class UtcDateTime(sa.TypeDecorator[datetime]):
    """A moment: timezone-aware in, UTC out, whatever the database or its session make of time zones."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    @override
    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone; accepted: a timezone-aware moment")
        moment = value.astimezone(UTC)
        # SQLite keeps text and no zone: naive UTC sorts rightly there.
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    @override
    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class FreeText(sa.TypeDecorator[str]):
    """What people and errors wrote: kept without secrets and without characters that databases refuse."""

    impl = sa.Text
    cache_ok = True

    @override
    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else redacted(value)


class Details(sa.TypeDecorator[Any]):
    """JSON without secrets."""

    impl = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
    cache_ok = True

    @override
    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:
        return plain(value)


def _one_of(column: str, values: type[enum.StrEnum]) -> sa.CheckConstraint:
    accepted = ", ".join(f"'{value.value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({accepted})", name=column)


metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

triggers = sa.Table(
    "triggers",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("pipeline", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("reason", FreeText, nullable=False),
    sa.Column("requested_by", FreeText, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    _one_of("kind", TriggerKind),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("trigger_id", sa.Integer, sa.ForeignKey("triggers.id"), nullable=False),
    sa.Column("pipeline", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("stack", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("as_of", UtcDateTime, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("finished_at", UtcDateTime),
    sa.Column("lease", sa.Float, nullable=False),  # seconds
    sa.Column("lease_until", UtcDateTime, nullable=False),
    sa.Column("detail", FreeText, nullable=False),
    sa.Column("facts", Details, nullable=False),
    _one_of("state", RunState),
    sa.Index("ix_runs_model_started_at", "model", "started_at"),
    # At most one live run of a pipeline for a model, whoever asks and however many at once.
    sa.Index(
        "uq_runs_live",
        "pipeline",
        "model",
        unique=True,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    ),
)

findings = sa.Table(
    "findings",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("version", sa.Text),
    sa.Column("measure", FreeText, nullable=False),
    sa.Column("subject", FreeText, nullable=False),
    sa.Column("value", sa.Float),
    sa.Column("threshold", sa.Float),
    sa.Column("direction", sa.Text, nullable=False),
    sa.Column("window", FreeText, nullable=False),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("reason", FreeText, nullable=False),
    sa.Column("count", sa.BigInteger),
    sa.Column("interval_low", sa.Float),
    sa.Column("interval_high", sa.Float),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.UniqueConstraint("run_id", "phase", "position"),
    sa.Index("ix_findings_model_at", "model", "at"),
    sa.Index("ix_findings_at", "at"),
)

versions = sa.Table(
    "versions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("snapshot", sa.Text, nullable=False),
    sa.Column("config_hash", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reasons", Details, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("config", Details),  # the model file it was made from; null: registered before it was kept
    sa.UniqueConstraint("model", "version"),
    _one_of("state", VersionState),
)

approvals = sa.Table(
    "approvals",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("person", FreeText, nullable=False),
    sa.Column("approved", sa.Boolean, nullable=False),
    sa.Column("reason", FreeText, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("environment", sa.Text, nullable=False),
    sa.Column("substance", sa.Text, nullable=False),  # of what was approved: Manifest.substance
    sa.ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
)

rollout_changes = sa.Table(
    "rollout_changes",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),  # of the model's routing table in the environment, from 1
    sa.Column("rollout_id", sa.Text, nullable=False),
    sa.Column("candidate", sa.Text, nullable=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("state", Details, nullable=False),
    sa.Column("weights", Details, nullable=False),  # version: share of traffic
    sa.Column("requested_by", FreeText, nullable=False),
    sa.Column("actor", FreeText, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("environment", sa.Text, nullable=False),
    sa.Column("evidence", Details, nullable=False),  # what the rollout began on
    sa.Column("findings", Details, nullable=False),  # what was measured at this change
    sa.ForeignKeyConstraint(["model", "candidate"], ["versions.model", "versions.version"]),
    # Of two who change a rollout from the same state, the second finds its generation taken.
    sa.UniqueConstraint("environment", "model", "generation"),
    _one_of("stage", Stage),
)

aliases = sa.Table(
    "aliases",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("alias", sa.Text, nullable=False),
    sa.Column("version", sa.Text),  # null: nobody has the part any more
    sa.Column("actor", FreeText, nullable=False),
    sa.Column("reason", FreeText, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("environment", sa.Text, nullable=False),
    sa.Column("mirrored_at", UtcDateTime),  # when the model registry was first seen to hold it
    sa.ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
    _one_of("alias", Alias),
    sa.Index("ix_aliases_environment_model_id", "environment", "model", "id"),
)

overrides = sa.Table(
    "overrides",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("gate", sa.Text, nullable=False),
    sa.Column("person", FreeText, nullable=False),
    sa.Column("reason", FreeText, nullable=False),
    sa.Column("granted_at", UtcDateTime, nullable=False),
    sa.Column("until", UtcDateTime, nullable=False),
    sa.Index("ix_overrides_model_until", "model", "until"),
)

alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("priority", sa.Text, nullable=False),
    sa.Column("opened_at", UtcDateTime, nullable=False),
    sa.Column("resolved_at", UtcDateTime),
    sa.Column("body", Details, nullable=False),  # all of it, as lifecycle.alerts.Alert reads it
    _one_of("state", AlertState),
    _one_of("priority", Priority),
    sa.Index("ix_alerts_model_opened_at", "model", "opened_at"),
    # One cause of one model is one alert, whoever decides it and however many at once.
    sa.Index(
        "uq_alerts_live",
        "model",
        "rule",
        unique=True,
        sqlite_where=sa.text("state <> 'resolved'"),
        postgresql_where=sa.text("state <> 'resolved'"),
    ),
)

alert_events = sa.Table(
    "alert_events",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("alert_id", sa.Text, sa.ForeignKey("alerts.id"), nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("actor", FreeText, nullable=False),
    sa.Column("detail", Details, nullable=False),
    sa.Index("ix_alert_events_alert_id_id", "alert_id", "id"),
)

notifications = sa.Table(
    "notifications",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("notice", sa.Text, nullable=False),
    sa.Column("alert_id", sa.Text, sa.ForeignKey("alerts.id"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("priority", sa.Text, nullable=False),
    sa.Column("level", sa.Integer, nullable=False),
    sa.Column("channel", sa.Text, nullable=False),
    sa.Column("person", sa.Text, nullable=False),
    sa.Column("instead_of", sa.Text),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("due", UtcDateTime, nullable=False),
    sa.Column("claimed_until", UtcDateTime),  # somebody is sending it
    sa.Column("detail", FreeText, nullable=False),
    sa.Column("told", Details, nullable=False),  # the alert as it was when this was decided
    sa.Column("at", UtcDateTime, nullable=False),
    _one_of("kind", Kind),
    _one_of("priority", Priority),
    _one_of("channel", Channel),
    _one_of("state", Delivered),
    # A notice that is decided twice is sent once.
    sa.UniqueConstraint("notice", "channel", "person"),
    sa.Index("ix_notifications_state_due", "state", "due"),
    sa.Index("ix_notifications_alert_id_id", "alert_id", "id"),
)

silences = sa.Table(
    "silences",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("model", sa.Text),  # null: any
    sa.Column("rule", sa.Text),  # null: any
    sa.Column("person", FreeText, nullable=False),
    sa.Column("reason", FreeText, nullable=False),
    sa.Column("start", UtcDateTime, nullable=False),
    sa.Column("until", UtcDateTime, nullable=False),
)

alert_cursor = sa.Table(
    "alert_cursor",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),  # 1: there is one row
    sa.Column("at", UtcDateTime, nullable=False),  # of the newest finding that was looked at
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("actor", FreeText, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("subject", FreeText, nullable=False),
    sa.Column("model", sa.Text),
    sa.Column("detail", Details, nullable=False),
    sa.Index("ix_audit_model_id", "model", "id"),
    sqlite_autoincrement=True,
)
