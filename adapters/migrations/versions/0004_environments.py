"""Rollouts, aliases and approvals of each environment, with what a decision rested on.

What was on record before belongs to development, the only environment there was.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
STAGES = "'awaiting_approval', 'shadow', 'canary', 'live', 'rolled_back', 'withdrawn', 'superseded'"


def upgrade() -> None:
    """Add the columns, fill them, and only then require them."""
    checks = {
        "rollout_changes": [sa.CheckConstraint(f"stage IN ({STAGES})", name=op.f("ck_rollout_changes_stage"))],
        "aliases": [
            sa.CheckConstraint("alias IN ('champion', 'challenger', 'previous')", name=op.f("ck_aliases_alias"))
        ],
        "approvals": [],
    }
    added = {
        "rollout_changes": {"environment": sa.Text(), "evidence": JSON, "findings": JSON},
        "aliases": {"environment": sa.Text()},
        "approvals": {"environment": sa.Text(), "substance": sa.Text()},
    }
    before = {"environment": "development", "evidence": {}, "findings": [], "substance": ""}
    for table, columns in added.items():
        for name, kind in columns.items():
            op.add_column(table, sa.Column(name, kind, nullable=True))
        target = sa.table(table, *(sa.column(name, kind) for name, kind in columns.items()))
        op.get_bind().execute(sa.update(target).values({name: before[name] for name in columns}))
        # SQLite copies the table, and knows no check constraint of the one it copies.
        with op.batch_alter_table(table, table_args=checks[table]) as batch:
            for name in columns:
                batch.alter_column(name, nullable=False)
            if table == "rollout_changes":
                batch.drop_constraint(op.f("uq_rollout_changes_model_generation"), type_="unique")
                batch.create_unique_constraint(
                    op.f("uq_rollout_changes_environment_model_generation"), ["environment", "model", "generation"]
                )
            if table == "aliases":
                batch.drop_index("ix_aliases_model_id")
                batch.create_index("ix_aliases_environment_model_id", ["environment", "model", "id"])
    op.add_column("aliases", sa.Column("mirrored_at", sa.DateTime(timezone=True)))
    op.add_column("versions", sa.Column("config", JSON))
