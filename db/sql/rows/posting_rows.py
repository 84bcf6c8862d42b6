"""Writes and reads the pieces of `postings`: binary COPY on PostgreSQL, the driver's own methods on SQLite."""

import json
import struct
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from sqlalchemy import Connection, Integer, and_, delete, func, select

from db.arrays.batches import batched, prefetched
from db.arrays.types import Int16Array
from db.schema import postings, tags
from db.scores import NEVER
from db.sql.formats import copy_format
from db.sql.in_list import in_list
from db.sql.rows.copy_rows import copy
from db.sql.scores.conditions import FEW, LowOf
from db.sql.streams import stream_in_order, stream_rows

_COLUMNS = "model_id, block, tag_id, piece, highest, images, scores"
_KEY = struct.Struct("!ii")
_TAG = struct.Struct("!i")
_AT_ONCE = 5_000
"""Pieces: 20 MB at most."""

PieceRow = tuple[int, int, int, bytes, bytes]
"""Tag id, piece, highest score, images, scores."""


def insert_pieces(connection: Connection, model_id: int, block: int, rows: Iterable[PieceRow]) -> None:
    """Insert the pieces of a block, which has none."""
    for some in batched(rows, _AT_ONCE):
        if connection.dialect.name == "postgresql":
            tag_ids, pieces, highest, images, scores = zip(*some, strict=True)
            columns: list[Sequence[bytes]] = [
                copy_format.bigints([model_id]) * len(some),
                *(copy_format.integers(values) for values in ([block] * len(some), tag_ids)),
                *(copy_format.smallints(values) for values in (pieces, highest)),
                images,
                scores,
            ]
            copy(connection, f"postings ({_COLUMNS})", columns)
        else:
            connection.exec_driver_sql(
                f"insert into postings ({_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants
                [(model_id, block, *row) for row in some],
            )


def delete_pieces(connection: Connection, model_id: int, block: int) -> None:
    """Delete the pieces of a block."""
    # By the whole key, tag after tag: SQLite would read all postings of the model.
    of_model = select(tags.c.tag_id).where(tags.c.model_id == model_id)
    in_block = (postings.c.model_id == model_id, postings.c.block == block)
    connection.execute(delete(postings).where(*in_block, postings.c.tag_id.in_(of_model)))


def read_pieces(
    connection: Connection, model_id: int, tag_ids: Sequence[int], blocks: tuple[int, int], low: int
) -> Iterator[Sequence[tuple[int, int, bytes, bytes]]]:
    """Pieces as (block, tag id, images, scores), many at once, in any order.

    Args:
        blocks: the first one, and the one after the last.
        low: only pieces with a score at or above it.
    """
    in_blocks = and_(postings.c.block >= blocks[0], postings.c.block < blocks[1], postings.c.highest >= low)
    where = and_(postings.c.model_id == model_id, in_list(connection, postings.c.tag_id, tag_ids), in_blocks)
    if connection.dialect.name != "postgresql":
        query = select(postings.c.block, postings.c.tag_id, postings.c.images, postings.c.scores).where(where)
        yield from stream_in_order(connection, query, _AT_ONCE)
        return
    key = func.int4send(postings.c.block).op("||")(func.int4send(postings.c.tag_id))
    row = key.op("||")(postings.c.images).op("||")(postings.c.scores)
    for rows in stream_rows(connection, select(row.label("piece")).where(where), _AT_ONCE):
        yield [_split(data) for (data,) in rows]


def read_scores(
    connection: Connection, model_id: int, lows: Int16Array, blocks: tuple[int, int]
) -> Iterator[tuple[Sequence[int], Sequence[bytes]]]:
    """The tag ids of many pieces at once, and their scores, of pieces that reach the lowest score of their tag.

    Args:
        lows: (tags,) in ten-thousandths; NEVER for tags that are not wanted.
        blocks: see `read_pieces`.
    """
    columns = postings.c
    where = and_(columns.model_id == model_id, columns.block >= blocks[0], columns.block < blocks[1])
    wanted = np.flatnonzero(lows < NEVER)
    if connection.dialect.name == "postgresql":
        if wanted.size <= FEW:  # otherwise the index is read for all tags
            where = and_(in_list(connection, columns.tag_id, wanted.tolist()), where)
        row = func.int4send(columns.tag_id).op("||")(columns.scores)
        query = select(row.label("piece")).where(where, columns.highest >= LowOf(lows, columns.tag_id))
        for rows in prefetched(stream_rows(connection, query, _AT_ONCE)):
            yield [_TAG.unpack_from(data)[0] for (data,) in rows], [data[_TAG.size :] for (data,) in rows]
        return
    pairs = {str(tag_id): low for tag_id, low in zip(wanted.tolist(), lows[wanted].tolist(), strict=True)}
    low_of = func.json_each(json.dumps(pairs)).table_valued("key", "value")
    of_tag = and_(columns.tag_id == low_of.c.key.cast(Integer), where, columns.highest >= low_of.c.value)
    # An outer join, so that SQLite begins with the tags: a tag without such pieces gives a row of nulls.
    query = select(columns.tag_id, columns.scores).select_from(low_of.outerjoin(postings, of_tag))
    for rows in prefetched(stream_in_order(connection, query, _AT_ONCE)):
        found = [row for row in rows if row[0] is not None]
        yield [tag_id for tag_id, _scores in found], [scores for _tag_id, scores in found]


def _split(data: bytes) -> tuple[int, int, bytes, bytes]:
    middle = (len(data) + _KEY.size) // 2
    return (*_KEY.unpack_from(data), data[_KEY.size : middle], data[middle:])
