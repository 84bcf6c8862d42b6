"""Alembic's entry point. The connection and its transaction are the caller's: see `db.migrate.upgrade`."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
