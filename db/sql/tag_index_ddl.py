"""The index by tag of a model: its name, its definition in each dialect, and whether it exists.

PostgreSQL: GIN over the slice of each row at or above a score. SQLite: a partial index on `tag_scores`, by tag. The
name has the model and the score of the index, so that no table has to store them.
"""

import re

from sqlalchemy import Connection, text


def indexed_score(connection: Connection, model_id: int) -> int | None:
    """The lowest score in the index of a model; None without a usable index."""
    return min((score for score, usable in indexes(connection, model_id).items() if usable), default=None)


def indexed_slice(score: int) -> str:
    """PostgreSQL: the indexed expression. A query uses the index only if it has the same expression."""
    return f"predictions.tag_ids[width_bucket('{score - 1}'::smallint, predictions.scores) + 1 :]"


def _name(model_id: int, score: int) -> str:
    return f"search_model_{model_id}_score_{score}"


def indexes(connection: Connection, model_id: int) -> dict[int, bool]:
    """The indexes of a model: lowest score to whether the index is usable."""
    if connection.dialect.name == "postgresql":
        query = (
            "select c.relname, i.indisvalid from pg_index i join pg_class c on c.oid = i.indexrelid "
            "where i.indrelid = 'predictions'::regclass"
        )
    else:
        query = "select name, 1 from sqlite_master where type = 'index' and tbl_name = 'tag_scores'"
    found = {}
    for name, usable in connection.execute(text(query)):
        if match := re.fullmatch(_name(model_id, 0).removesuffix("0") + "([0-9]+)", name):
            found[int(match[1])] = bool(usable)
    return found


def creation(dialect: str, model_id: int, score: int) -> str:
    """The statement that creates the index."""
    # The numbers are our own, and DDL accepts no parameters.
    name = _name(model_id, score)
    if dialect == "postgresql":
        return (
            f"create index concurrently {name} on predictions using gin (({indexed_slice(score)})) "
            f"where model_id = {model_id}"
        )
    return (
        f"create index {name} on tag_scores (tag_id, score, image_id) where model_id = {model_id} and score >= {score}"
    )


def removal(dialect: str, model_id: int, score: int) -> str:
    """The statement that drops the index."""
    concurrently = "concurrently " if dialect == "postgresql" else ""
    return f"drop index {concurrently}if exists {_name(model_id, score)}"


def builds_concurrently(dialect: str) -> bool:
    """Whether writers can continue while the index is built. Such a statement runs outside a transaction."""
    return dialect == "postgresql"
