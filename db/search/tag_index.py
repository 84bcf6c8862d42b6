"""Builds and drops the optional index by tag of a model, which searches on PostgreSQL use.

It has the scores from one score on. SQLite has none.
"""

from sqlalchemy.exc import DBAPIError

from db.database import Database
from db.errors import DatabaseError
from db.ledger.models import Model
from db.sql.tag_id_width import tag_ids_column
from db.sql.tag_index_ddl import creation, indexes, is_possible, removal


def is_available(database: Database) -> bool:
    """Whether the database can have the index."""
    return is_possible(database.dialect)


def create(database: Database, model: Model, score: int) -> bool:
    """Build the index, replacing one at another score. Writers continue meanwhile.

    Args:
        score: the lowest score in the index, in ten-thousandths.

    Returns:
        False if the index already exists, or the database can have none.

    Raises:
        DatabaseError: the database refuses; the previous index remains.
    """
    if not is_available(database):
        return False
    with database.read() as connection:
        present = indexes(connection, model.id)
        column = tag_ids_column(connection, model.id)
    built = not present.get(score, False)
    if built:
        if score in present:  # PostgreSQL keeps the remains of an interrupted build, and never uses them
            _run(database, removal(model.id, score))
        _run(database, creation(model.id, score, column))
    for other in present.keys() - {score}:
        _run(database, removal(model.id, other))
    return built


def drop(database: Database, model: Model) -> bool:
    """Drop the index. Returns False if there is none."""
    with database.read() as connection:
        present = indexes(connection, model.id)
    for score in present:
        _run(database, removal(model.id, score))
    return bool(present)


def _run(database: Database, statement: str) -> None:
    try:
        # `concurrently` blocks no writer, and must run outside a transaction.
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(statement)
    except DBAPIError as error:
        raise DatabaseError(
            f"The database {database.label} refuses {statement.partition(' on ')[0]}: {error.orig}"
        ) from error
