"""Builds and drops the index by tag that searches use: optional, one a model, over the scores at or above one score."""

from sqlalchemy.exc import DBAPIError

from db.database import Database
from db.errors import DatabaseError
from db.ledger.models import Model
from db.sql.tag_index_ddl import builds_concurrently, creation, indexes, removal


def create(database: Database, model: Model, score: int) -> bool:
    """Build the index, in place of one at another score; writers go on meanwhile. False when it is there already.

    Raises:
        DatabaseError: the database refuses; what was there before is there still.
    """
    with database.read() as connection:
        present = indexes(connection, model.id)
    built = not present.get(score, False)
    if built:
        if score in present:  # PostgreSQL keeps what an interrupted build left, and never uses it
            _run(database, removal(database.dialect, model.id, score))
        _run(database, creation(database.dialect, model.id, score))
    for other in present.keys() - {score}:
        _run(database, removal(database.dialect, model.id, other))
    return built


def drop(database: Database, model: Model) -> bool:
    """Remove the index. False when there is none."""
    with database.read() as connection:
        present = indexes(connection, model.id)
    for score in present:
        _run(database, removal(database.dialect, model.id, score))
    return bool(present)


def _run(database: Database, statement: str) -> None:
    if not builds_concurrently(database.dialect):
        with database.write() as connection:
            connection.exec_driver_sql(statement)
        return
    try:
        # `concurrently` lets nobody wait, and stands in no transaction.
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(statement)
    except DBAPIError as error:
        raise DatabaseError(
            f"The database {database.label} refuses {statement.partition(' on ')[0]}: {error.orig}"
        ) from error
