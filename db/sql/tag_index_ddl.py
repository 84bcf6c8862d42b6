"""The index by tag of a model on PostgreSQL: its name, its definition, and whether it exists.

It is GIN over the slice of each row at or above a score. The name has the model and the score of the index, so that no
table has to store them. SQLite has no index into blobs; a search there reads the rows of all images.
"""

import re

from sqlalchemy import Connection, text


def indexed_score(connection: Connection, model_id: int) -> int | None:
    """The lowest score in the index of a model; None without a usable index."""
    return min((score for score, usable in indexes(connection, model_id).items() if usable), default=None)


def indexed_slice(score: int, column: str) -> str:
    """The indexed expression. A query uses the index only if it has the same expression.

    Args:
        column: from `tag_ids_column`.
    """
    return f"predictions.{column}[width_bucket('{score - 1}'::smallint, predictions.scores) + 1 :]"


def _name(model_id: int, score: int) -> str:
    return f"search_model_{model_id}_score_{score}"


def indexes(connection: Connection, model_id: int) -> dict[int, bool]:
    """The indexes of a model: lowest score to whether the index is usable."""
    if not is_possible(connection.dialect.name):
        return {}
    query = (
        "select c.relname, i.indisvalid from pg_index i join pg_class c on c.oid = i.indexrelid "
        "where i.indrelid = 'predictions'::regclass"
    )
    found = {}
    for name, usable in connection.execute(text(query)):
        if match := re.fullmatch(_name(model_id, 0).removesuffix("0") + "([0-9]+)", name):
            found[int(match[1])] = bool(usable)
    return found


def creation(model_id: int, score: int, column: str) -> str:
    """The statement that creates the index. It runs outside a transaction, and writers continue meanwhile.

    Args:
        column: from `tag_ids_column`.
    """
    # The numbers are our own, and DDL accepts no parameters.
    return (
        f"create index concurrently {_name(model_id, score)} on predictions "
        f"using gin (({indexed_slice(score, column)})) where model_id = {model_id}"
    )


def removal(model_id: int, score: int) -> str:
    """The statement that drops the index, outside a transaction."""
    return f"drop index concurrently if exists {_name(model_id, score)}"


def is_possible(dialect: str) -> bool:
    """Whether the database can have an index by tag."""
    return dialect == "postgresql"
