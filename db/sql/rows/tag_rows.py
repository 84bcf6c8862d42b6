"""Inserts the tags of a model."""

import json
from collections.abc import Sequence

from sqlalchemy import Connection, text

_POSTGRESQL = """
    insert into tags (model_id, tag_id, name, category)
    select :model_id, position - 1, tag ->> 0, tag ->> 1
    from json_array_elements(cast(:tags as json)) with ordinality as found (tag, position)
"""
_SQLITE = """
    insert into tags (model_id, tag_id, name, category)
    select :model_id, key, json_extract(value, '$[0]'), json_extract(value, '$[1]') from json_each(:tags)
"""


def insert_tags(connection: Connection, model_id: int, tags: Sequence[tuple[str, str | None]]) -> None:
    """Insert rows of `tags` in one statement. A round trip for each row takes a minute on a distributed database.

    Args:
        tags: name and category, by output position.
    """
    statement = _POSTGRESQL if connection.dialect.name == "postgresql" else _SQLITE
    connection.execute(text(statement), {"model_id": model_id, "tags": json.dumps(tags)})
