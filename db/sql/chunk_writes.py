"""Writes the results of a chunk. On PostgreSQL one statement writes all rows, which SQLAlchemy cannot express."""

import json
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, bindparam, insert, text, update

from db.arrays.types import Int16Array
from db.schema import images, predictions, tag_scores
from db.sql.driver_errors import as_sqlalchemy_errors

Facts = tuple[int, int, int, int, str, bytes]
"""Image id, bytes, width, height, format, sha256."""

PredictionRow = tuple[int, int, str, datetime, Int16Array, Int16Array]
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
    "copy predictions (model_id, image_id, image_version, predicted_at, tag_ids, scores) from stdin (format binary)"
)
_TYPES = ("int8", "int8", "text", "timestamptz", "int2[]", "int2[]")


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
    """Insert rows of `predictions` with their scores. None of the rows may exist."""
    if connection.dialect.name == "postgresql":
        _copy(connection, rows)
        return
    keys = ("model_id", "image_id", "image_version", "predicted_at")
    connection.execute(insert(predictions), [dict(zip(keys, row[:4], strict=True)) for row in rows])
    scores = [
        {"model_id": model_id, "image_id": image_id, "tag_id": tag_id, "score": score}
        for model_id, image_id, _version, _time, tag_ids, scores in rows
        for tag_id, score in zip(tag_ids.tolist(), scores.tolist(), strict=True)
    ]
    if scores:
        connection.execute(insert(tag_scores), scores)


def _copy(connection: Connection, rows: Sequence[PredictionRow]) -> None:
    driver = connection.connection.driver_connection
    with (
        as_sqlalchemy_errors(connection, _COPY_PREDICTIONS),
        driver.cursor() as cursor,  # type: ignore[union-attr]  # None only for a closed connection
        cursor.copy(_COPY_PREDICTIONS) as copy,
    ):
        copy.set_types(_TYPES)
        for row in rows:
            copy.write_row(row)
