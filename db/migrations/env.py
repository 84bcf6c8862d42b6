"""Alembic's entry point. The caller provides the connection with its transaction: see `db.migrate.upgrade`."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
