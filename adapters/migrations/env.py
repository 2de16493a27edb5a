"""Run by Alembic for every migration; `OpsStore.open` hands over the connection, inside its own transaction."""

from __future__ import annotations

from alembic import context

from adapters.ops_store import VERSION_TABLE
from adapters.ops_tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
