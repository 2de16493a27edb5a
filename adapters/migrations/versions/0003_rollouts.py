"""Every change of every rollout, in the order of the routing tables that follow from them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Create the table of changes."""
    op.create_table(
        "rollout_changes",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("rollout_id", sa.Text, nullable=False),
        sa.Column("candidate", sa.Text, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("state", JSON, nullable=False),
        sa.Column("weights", JSON, nullable=False),
        sa.Column("requested_by", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "stage IN ('awaiting_approval', 'shadow', 'canary', 'live', 'rolled_back', 'withdrawn', 'superseded')",
            name=op.f("ck_rollout_changes_stage"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollout_changes")),
        sa.ForeignKeyConstraint(
            ["model", "candidate"], ["versions.model", "versions.version"], name=op.f("fk_rollout_changes_model")
        ),
        sa.UniqueConstraint("model", "generation", name=op.f("uq_rollout_changes_model_generation")),
    )
