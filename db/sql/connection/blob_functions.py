"""SQL functions on the packed rows of SQLite. The views need none of them, so that other programs can read the file."""

import sqlite3

import numpy as np

from db.sql.formats.blob_format import NARROW, decode, encode_one


def register(connection: sqlite3.Connection) -> None:
    """Make the functions known to a connection."""
    for function in (tagonce_score, tagonce_any_reaches, tagonce_best):
        arguments = function.__code__.co_argcount
        connection.create_function(function.__name__, arguments, function, deterministic=True)


def tagonce_score(tag_ids: bytes, scores: bytes, tag_id: int) -> int | None:
    """The score of a tag; None if it is not stored."""
    width = _width(tag_ids, scores)
    at = tag_ids.find(encode_one(tag_id, width))
    if at < 0:
        return None
    first, second = scores[at // width * NARROW :][:NARROW]
    return (first & 0x7F) << 7 | second


def tagonce_any_reaches(tag_ids: bytes, scores: bytes, lows: bytes, high: int) -> bool:
    """Whether some tag has low <= score < high.

    Args:
        lows: (tags,) int16, the lowest score of each tag id.
    """
    table = np.frombuffer(lows, dtype=np.int16)
    tags, found = decode(tag_ids), decode(scores)
    known = tags < table.size
    reached = found[known]
    return bool(((reached >= table[tags[known]]) & (reached < high)).any())


def tagonce_best(tag_ids: bytes, scores: bytes, lows: bytes) -> int | None:
    """The most probable tag that reaches its lowest score, of equally probable ones the first; None if none does.

    Args:
        lows: (tags,) int16, the lowest score of each tag id.
    """
    table = np.frombuffer(lows, dtype=np.int16)
    tags, found = decode(tag_ids), decode(scores)
    known = tags < table.size
    tags, found = tags[known], found[known]
    kept = found >= table[tags]
    tags, found = tags[kept], found[kept]
    return int(tags[found == found.max()].min()) if found.size else None


def _width(tag_ids: bytes, scores: bytes) -> int:
    """Bytes of a tag id."""
    return NARROW * len(tag_ids) // len(scores) if scores else NARROW
