"""Run by Alembic: applies revisions, or compares models with a schema, on the connection that migrate.py opened."""

from __future__ import annotations

from alembic import context

from cudaforge.store.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite changes a column by copying its table
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
