"""Writes the results of a chunk. On PostgreSQL one statement writes all rows, which SQLAlchemy cannot express."""

import json
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, bindparam, insert, text, update

from db.arrays.types import Int16Array, Int32Array
from db.schema import images, predictions
from db.sql.blob_format import NARROW, encode
from db.sql.driver_errors import as_sqlalchemy_errors
from db.sql.tag_id_width import tag_id_width, tag_ids_column

Facts = tuple[int, int, int, int, str, bytes]
"""Image id, bytes, width, height, format, sha256."""

PredictionRow = tuple[int, int, str, datetime, Int32Array, Int16Array]
"""Model id, image id, image version, time, tag ids, scores."""

_UPDATE_FACTS = text(
    """
    update images i
    set bytes = f.bytes, width = f.width, height = f.height, format = f.format, sha256 = decode(f.sha256, 'hex')
    from json_to_recordset(cast(:facts as json))
        as f(id bigint, bytes bigint, width integer, height integer, format text, sha256 text)
    where i.id = f.id and i.sha256 is distinct from decode(f.sha256, 'hex')
    """
)
_COPY_PREDICTIONS = (
    "copy predictions (model_id, image_id, image_version, predicted_at, {}, scores) from stdin (format binary)"
)
_TYPES = ("int8", "int8", "text", "timestamptz")
_TAG_ID_TYPES = {"tag_ids": "int2[]", "wide_tag_ids": "int4[]"}


def update_facts(connection: Connection, facts: Sequence[Facts]) -> None:
    """Update the facts of files whose hash has changed. The caller holds the locks of the rows."""
    if connection.dialect.name == "postgresql":
        # One JSON parameter: psycopg writes arrays element by element in Python, which took as long as the update.
        names = ("id", "bytes", "width", "height", "format")
        rows = [dict(zip(names, one[:-1], strict=True), sha256=one[-1].hex()) for one in facts]
        connection.execute(_UPDATE_FACTS, {"facts": json.dumps(rows)})
        return
    names = ("bytes", "width", "height", "format", "sha256")
    connection.execute(
        update(images)
        .where(images.c.id == bindparam("row_id"), images.c.sha256.is_distinct_from(bindparam("new_sha256")))
        .values({name: bindparam(f"new_{name}") for name in names}),
        [dict(zip(("row_id", *(f"new_{name}" for name in names)), one, strict=True)) for one in facts],
    )


def insert_predictions(connection: Connection, rows: Sequence[PredictionRow]) -> None:
    """Insert rows of `predictions` with their scores, all of one model. None of the rows may exist."""
    if connection.dialect.name == "postgresql":
        _copy(connection, rows)
        return
    names = ("model_id", "image_id", "image_version", "predicted_at", "tag_ids", "scores")
    tag_ids = encode([row[4] for row in rows], tag_id_width(connection, rows[0][0]))
    scores = encode([row[5] for row in rows], NARROW)
    connection.execute(
        insert(predictions),
        [dict(zip(names, (*row[:4], *blobs), strict=True)) for row, *blobs in zip(rows, tag_ids, scores, strict=True)],
    )


def _copy(connection: Connection, rows: Sequence[PredictionRow]) -> None:
    column = tag_ids_column(connection, rows[0][0])
    statement = _COPY_PREDICTIONS.format(column)
    driver = connection.connection.driver_connection
    with (
        as_sqlalchemy_errors(connection, statement),
        driver.cursor() as cursor,  # type: ignore[union-attr]  # None only for a closed connection
        cursor.copy(statement) as copy,
    ):
        copy.set_types((*_TYPES, _TAG_ID_TYPES[column], "int2[]"))
        for row in rows:
            copy.write_row(row)
