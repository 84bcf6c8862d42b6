"""Moves the rows of SQLite from a row per tag to packed rows, between the migrations 0007 and 0008, in pieces.

A piece is one transaction that deletes the old rows of some images and inserts the packed ones. So an interrupted
migration goes on where it stopped, several processes may take turns, and SQLite reuses the pages of the old rows: the
file does not grow.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, text

from db.errors import DatabaseError

LEVEL = "0007"
"""The migration after which rows are moved."""
IMAGES_AT_ONCE = 1_000
"""A piece takes some tenths of a second, in which other writers wait."""
NARROW, WIDE = 2, 3
"""Bytes of a number: `db.sql.formats.blob_format` as of this migration."""

_SPACE = 64 << 20
"""Bytes for the write-ahead log, which reached 58 MB for a million images. It is longer while a reader needs it."""
_SHARE = 20
"""One part in so many of the file, for the indexes of the earlier migrations."""

_REWRITTEN = 400
"""Bytes for each image: 0009 writes the rows of `images` anew, which took 270 MB of log for a million."""

_READ = """
    select p.model_id, p.image_id, p.image_version, p.predicted_at,
        (select group_concat(s.score << 16 | s.tag_id) from tag_scores s
            where s.model_id = p.model_id and s.image_id = p.image_id)
    from predictions p where p.model_id = (select min(model_id) from predictions) order by p.image_id limit ?
"""
_IS_WIDE = "select exists (select 1 from tags where model_id = ? and tag_id >= 16384)"
# An older worker that was not stopped may have written its last chunk to the old tables: that result is the newer one.
_WRITE = """
    insert or replace into predictions_packed (model_id, image_id, image_version, predicted_at, tag_ids, scores)
    values (?, ?, ?, ?, ?, ?)
"""
# A trigger deletes the scores too.
_DELETE = "delete from predictions where model_id = ? and image_id <= ?"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the rows are moved."""

    done: int
    """Images with a packed row."""
    total: int
    """Images with results, each counted once a model."""
    needed: int
    """Bytes of free disk space that the migration needs."""
    free: int
    """Bytes of free disk space at the beginning."""

    @property
    def plan(self) -> str:
        """What is about to be done, as a sentence for people."""
        return (
            f"The database is upgraded: {self.total - self.done:,} of {self.total:,} images are converted to packed "
            "rows, in pieces. It may be interrupted, and goes on when the command is repeated. It needs "
            f"{self.needed / 1e6:,.0f} MB of free disk space; {self.free / 1e6:,.0f} MB are free."
        )


def is_missing(connection: Connection, present: str | None) -> bool:
    """Whether the database needs this step. `present`: the last migration it has had; None for an empty database."""
    return connection.dialect.name == "sqlite" and (present is None or present <= LEVEL)


def begun(connection: Connection, present: str | None) -> Progress | None:
    """What there is to move, before anything is written; None without such rows.

    Args:
        present: the last migration that the database has had.

    Raises:
        DatabaseError: the disk has too little free space.
    """
    if present is None or not is_missing(connection, present):
        return None
    left = connection.scalar(text("select count(*) from predictions")) or 0
    if not left:
        return None
    file = Path(connection.scalar(text("select file from pragma_database_list where name = 'main'")) or "")
    images = connection.scalar(text("select count(*) from images")) or 0
    needed = _SPACE + _REWRITTEN * images + file.stat().st_size // _SHARE
    free = shutil.disk_usage(file.parent).free
    if free < needed:
        raise DatabaseError(
            f"The upgrade of the database {file} needs {needed / 1e6:,.0f} MB of free disk space, and {file.parent} "
            f"has {free / 1e6:,.0f} MB. Nothing was changed. Free some space and repeat the command."
        )
    done = moved(connection) if present == LEVEL else 0
    return Progress(done, done + left, needed, free)


def moved(connection: Connection) -> int:
    """The number of images moved so far; nearly, if some were moved twice or forgotten."""
    return connection.scalar(text("select max(rowid) from predictions_packed")) or 0


def move_piece(connection: Connection) -> bool:
    """Move the rows of some images. Returns False if there was none left."""
    rows = connection.exec_driver_sql(_READ, (IMAGES_AT_ONCE,)).all()
    if not rows:
        return False
    model_id, last = rows[-1][:2]
    is_wide = connection.exec_driver_sql(_IS_WIDE, (model_id,)).scalar()
    blobs = _packed([row[-1] or "" for row in rows], WIDE if is_wide else NARROW)
    # First the old rows: their pages are free for the new ones.
    connection.exec_driver_sql(_DELETE, (model_id, last))
    connection.exec_driver_sql(_WRITE, [(*row[:-1], *pair) for row, pair in zip(rows, blobs, strict=True)])
    return True


def _packed(joined: Sequence[str], width: int) -> list[tuple[bytes, bytes]]:
    """The blobs of tag ids and scores of each image, from its numbers `score << 16 | tag id` as text."""
    counts = [one.count(",") + 1 if one else 0 for one in joined]
    numbers = np.fromstring(",".join(filter(None, joined)), dtype=np.int64, sep=",")
    # Within an image by score, ties by tag id.
    keys = np.sort(np.repeat(np.arange(len(joined), dtype=np.int64), counts) << 32 | numbers)
    ends = np.cumsum([0, *counts]).tolist()
    tag_ids, scores = _encode(keys & 0xFFFF, width), _encode(keys >> 16 & 0xFFFF, NARROW)
    return [
        (tag_ids[width * start : width * end], scores[NARROW * start : NARROW * end]) for start, end in pairwise(ends)
    ]


def _encode(values: Any, width: int) -> bytes:
    shifts = np.arange(7 * (width - 1), -1, -7)
    numbers = (values[:, np.newaxis] >> shifts & 0x7F).astype(np.uint8)
    numbers[:, 0] |= 0x80
    data: bytes = numbers.tobytes()
    return data
