"""Where and how a model's packed rows have their tag ids: narrow in models with few tags, wide in others."""

from sqlalchemy import Connection, exists, select

from db.schema import tags
from db.sql.formats.blob_format import LIMITS, NARROW, WIDE

_SCORE, _SMALLINT, _INTEGER = 2, 2, 4
"""Bytes."""
TAGS_OF_SMALLINTS = 32_767
"""Most tags of a model whose ids PostgreSQL stores as `smallint[]`."""


def tag_id_width(connection: Connection, model_id: int) -> int:
    """SQLite: two bytes, or three for a model with larger tag ids."""
    return WIDE if _has_more(connection, model_id, LIMITS[NARROW]) else NARROW


def tag_ids_column(connection: Connection, model_id: int) -> str:
    """PostgreSQL: the column of `predictions` with the tag ids of a model, `smallint[]` or `integer[]`."""
    return "wide_tag_ids" if _has_more(connection, model_id, TAGS_OF_SMALLINTS) else "tag_ids"


def bytes_of_tag(connection: Connection, model_id: int) -> int:
    """Bytes of a tag id and its score in a packed row."""
    if connection.dialect.name == "postgresql":
        return _SCORE + (_SMALLINT if tag_ids_column(connection, model_id) == "tag_ids" else _INTEGER)
    return _SCORE + tag_id_width(connection, model_id)


def _has_more(connection: Connection, model_id: int, number: int) -> bool:
    return bool(connection.scalar(select(exists().where(tags.c.model_id == model_id, tags.c.tag_id >= number))))
