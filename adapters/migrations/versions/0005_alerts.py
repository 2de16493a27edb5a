"""Alerts with their timelines, what was sent of them to whom, silences, and how far the findings were read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
MOMENT = sa.DateTime(timezone=True)
PRIORITIES = "priority IN ('P0', 'P1', 'P2', 'P3')"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "alerts",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("priority", sa.Text, nullable=False),
        sa.Column("opened_at", MOMENT, nullable=False),
        sa.Column("resolved_at", MOMENT),
        sa.Column("body", JSON, nullable=False),
        sa.CheckConstraint("state IN ('pending', 'open', 'acknowledged', 'resolved')", name=op.f("ck_alerts_state")),
        sa.CheckConstraint(PRIORITIES, name=op.f("ck_alerts_priority")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
    )
    op.create_index("ix_alerts_model_opened_at", "alerts", ["model", "opened_at"])
    op.create_index(
        "uq_alerts_live",
        "alerts",
        ["model", "rule"],
        unique=True,
        sqlite_where=sa.text("state <> 'resolved'"),
        postgresql_where=sa.text("state <> 'resolved'"),
    )
    op.create_table(
        "alert_events",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("alert_id", sa.Text, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("detail", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_events")),
        sa.ForeignKeyConstraint(["alert_id"], ["alerts.id"], name=op.f("fk_alert_events_alert_id")),
    )
    op.create_index("ix_alert_events_alert_id_id", "alert_events", ["alert_id", "id"])
    op.create_table(
        "notifications",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("notice", sa.Text, nullable=False),
        sa.Column("alert_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("priority", sa.Text, nullable=False),
        sa.Column("level", sa.Integer, nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("person", sa.Text, nullable=False),
        sa.Column("instead_of", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due", MOMENT, nullable=False),
        sa.Column("claimed_until", MOMENT),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("told", JSON, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.CheckConstraint(
            "kind IN ('opened', 'raised', 'reopened', 'escalated', 'resolved')", name=op.f("ck_notifications_kind")
        ),
        sa.CheckConstraint(PRIORITIES, name=op.f("ck_notifications_priority")),
        sa.CheckConstraint(
            "channel IN ('phone', 'sms', 'pagerduty', 'email', 'slack', 'webhook', 'terminal', 'file')",
            name=op.f("ck_notifications_channel"),
        ),
        sa.CheckConstraint("state IN ('pending', 'delivered', 'failed')", name=op.f("ck_notifications_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notifications")),
        sa.ForeignKeyConstraint(["alert_id"], ["alerts.id"], name=op.f("fk_notifications_alert_id")),
        sa.UniqueConstraint("notice", "channel", "person", name=op.f("uq_notifications_notice_channel_person")),
    )
    op.create_index("ix_notifications_state_due", "notifications", ["state", "due"])
    op.create_index("ix_notifications_alert_id_id", "notifications", ["alert_id", "id"])
    op.create_table(
        "silences",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("model", sa.Text),
        sa.Column("rule", sa.Text),
        sa.Column("person", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("start", MOMENT, nullable=False),
        sa.Column("until", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_silences")),
    )
    op.create_table(
        "alert_cursor",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_cursor")),
    )
    op.create_index("ix_findings_at", "findings", ["at"])
