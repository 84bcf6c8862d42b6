"""Writes the results of a chunk: binary COPY on PostgreSQL, the driver's `executemany` on SQLite.

SQLAlchemy cannot express the former. For the latter it converts each value, which takes as long as the insert.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import repeat

from sqlalchemy import Connection

from db.arrays.types import Int16Array, Int32Array
from db.sql.formats import array_format, blob_format, copy_format
from db.sql.formats.array_format import INT2_OID, INT4_OID
from db.sql.formats.blob_format import NARROW
from db.sql.formats.sqlite_time import sqlite_time
from db.sql.rows.copy_rows import copy
from db.sql.scores.tag_id_width import tag_id_width, tag_ids_column

FileRow = tuple[int, int, int, int, str, str, bytes]
"""The columns of `files`: image id, bytes, width, height, image version, format, sha256."""

Result = tuple[int, str, Int32Array, Int16Array]
"""Image id, image version, tag ids, scores."""


_FILES = "image_id, bytes, width, height, image_version, format, sha256"
_ELEMENT_OIDS = {"tag_ids": INT2_OID, "wide_tag_ids": INT4_OID}
_PREDICTIONS = "model_id, image_id, image_version, predicted_at, {}, scores"


def insert_files(connection: Connection, rows: Sequence[FileRow]) -> None:
    """Insert rows of `files`. None of the images may have one."""
    if connection.dialect.name != "postgresql":
        connection.exec_driver_sql(f"insert into files ({_FILES}) values (?, ?, ?, ?, ?, ?, ?)", list(rows))  # noqa: S608
        return
    ids, sizes, widths, heights, versions, formats, hashes = zip(*rows, strict=True)
    columns = [
        *map(copy_format.bigints, (ids, sizes)),
        *map(copy_format.integers, (widths, heights)),
        *map(copy_format.texts, (versions, formats)),
        hashes,
    ]
    copy(connection, f"files ({_FILES})", columns)


def insert_predictions(connection: Connection, model_id: int, now: datetime, rows: Sequence[Result]) -> None:
    """Insert rows of `predictions` of one model, with their scores. None of them may exist."""
    ids, versions, tag_ids, scores = zip(*rows, strict=True)
    if connection.dialect.name != "postgresql":
        connection.exec_driver_sql(
            f"insert into predictions ({_PREDICTIONS.format('tag_ids')}) values (?, ?, ?, ?, ?, ?)",  # noqa: S608
            list(
                zip(
                    repeat(model_id),
                    ids,
                    versions,
                    repeat(sqlite_time(now)),
                    blob_format.encode(tag_ids, tag_id_width(connection, model_id)),
                    blob_format.encode(scores, NARROW),
                    strict=False,
                )
            ),
        )
        return
    column = tag_ids_column(connection, model_id)
    columns = [
        copy_format.bigints([model_id]) * len(rows),
        copy_format.bigints(ids),
        copy_format.texts(versions),
        copy_format.times([now]) * len(rows),
        array_format.encode(tag_ids, _ELEMENT_OIDS[column]),
        array_format.encode(scores, INT2_OID),
    ]
    copy(connection, f"predictions ({_PREDICTIONS.format(column)})", columns)
