"""The bytes of a tag id in the packed rows of SQLite, a property of the model."""

from sqlalchemy import Connection, exists, select

from db.schema import tags
from db.sql.blob_format import LIMITS, NARROW, WIDE


def tag_id_width(connection: Connection, model_id: int) -> int:
    """Two bytes, or three for a model with larger tag ids."""
    large = exists().where(tags.c.model_id == model_id, tags.c.tag_id >= LIMITS[NARROW])
    return WIDE if connection.scalar(select(large)) else NARROW
