"""An index by tag for `db.search.execute`: optional, one a model, over the scores at or above one score.

PostgreSQL: GIN over that slice of each row. SQLite: the part of `tag_scores` at or above the score, by tag. What the
index is for stands in its name, so that a search needs no table to look it up in.
"""

import re

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from db.database import Database
from db.errors import DatabaseError
from db.ledger.models import Model


def indexed_score(connection: Connection, model: Model) -> int | None:
    """From which score on searches find the tags of a model by index; None without an index."""
    scores = [score for score, usable in _found(connection, model).items() if usable]
    return min(scores, default=None)


def create(database: Database, model: Model, score: int) -> bool:
    """Build the index, in place of one at another score; writers go on meanwhile. False when it is there already.

    Raises:
        DatabaseError: the database refuses; what was there before is there still.
    """
    with database.read() as connection:
        present = _found(connection, model)
    built = not present.get(score, False)
    if built:
        if score in present:  # PostgreSQL keeps what an interrupted build left, and never uses it
            _run(database, _drop(database, model, score))
        _run(database, _create(database, model, score))
    for other in present.keys() - {score}:
        _run(database, _drop(database, model, other))
    return built


def drop(database: Database, model: Model) -> bool:
    """Remove the index. False when there is none."""
    with database.read() as connection:
        present = _found(connection, model)
    for score in present:
        _run(database, _drop(database, model, score))
    return bool(present)


def indexed_slice(score: int) -> str:
    """PostgreSQL: the indexed expression. The planner wants it in a query as it is in the index."""
    return f"predictions.tag_ids[width_bucket('{score - 1}'::smallint, predictions.scores) + 1 :]"


def _name(model: Model, score: int) -> str:
    return f"search_model_{model.id}_score_{score}"


def _found(connection: Connection, model: Model) -> dict[int, bool]:
    """Score to whether the index can be used."""
    if connection.dialect.name == "postgresql":
        query = (
            "select c.relname, i.indisvalid from pg_index i join pg_class c on c.oid = i.indexrelid "
            "where i.indrelid = 'predictions'::regclass"
        )
    else:
        query = "select name, 1 from sqlite_master where type = 'index' and tbl_name = 'tag_scores'"
    found = {}
    for name, usable in connection.execute(text(query)):
        if match := re.fullmatch(_name(model, 0).removesuffix("0") + "([0-9]+)", name):
            found[int(match[1])] = bool(usable)
    return found


def _create(database: Database, model: Model, score: int) -> str:
    # Numbers of ours, and statements that take no parameters.
    name = _name(model, score)
    if database.dialect == "postgresql":
        return (
            f"create index concurrently {name} on predictions using gin (({indexed_slice(score)})) "
            f"where model_id = {model.id}"
        )
    return (
        f"create index {name} on tag_scores (tag_id, score, image_id) where model_id = {model.id} and score >= {score}"
    )


def _drop(database: Database, model: Model, score: int) -> str:
    concurrently = "concurrently " if database.dialect == "postgresql" else ""
    return f"drop index {concurrently}if exists {_name(model, score)}"


def _run(database: Database, statement: str) -> None:
    if database.dialect == "sqlite":
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
