"""The formats of a block's derived data, and of blocks themselves.

    block          65,536 neighbouring image ids: image_id >> 16
    present        bit i of byte i // 8, from the lowest: whether the image i of the block has a prediction
    pieces         a tag's images and scores, ascending by score, at most 320 in one row of `postings`
    counts         for each tag, images at or above a threshold, and the sum of their scores
    low scores     for each of 64 tags, images in each step of 0.001 below the floor of the postings
    neighbours     the pairs of `db.postings.unchanged_images`

All but the pieces are compressed by zlib. Integers are little-endian.
"""

import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from db.arrays.types import Int32Array, Int64Array, UInt64Array
from db.ledger.changed_blocks import BLOCK_BITS

BLOCK = 1 << BLOCK_BITS
"""Images of a block."""
PIECE = 320
"""Images in a piece. Six pieces fill a page of PostgreSQL, three one of SQLite; larger ones leave more of it empty."""

TAGS_OF_GROUP = 64
"""Tags in a row of `low_scores`."""
FINE_STEP = 10
"""Ten-thousandths of a step below the floor."""

_LEVEL = 1
"""Level 6 of zlib saves 2 % of the counts, in 1.7 times the time."""
_SCORE_BITS = 14

Bits = npt.NDArray[np.bool_]


class Piece(NamedTuple):
    """A row of `postings`."""

    tag_id: int
    piece: int
    highest: int
    images: bytes
    scores: bytes


def posting_key(tag_ids: Int32Array, scores: npt.NDArray[np.integer], images: npt.NDArray[np.integer]) -> UInt64Array:
    """(postings,) numbers that sort by tag, score and image.

    Args:
        images: positions in the block.
    """
    key = tag_ids.astype(np.uint64)
    key <<= _SCORE_BITS
    key |= scores.astype(np.uint64)
    key <<= BLOCK_BITS
    key |= images.astype(np.uint64)
    return key


def from_keys(keys: UInt64Array) -> tuple[Int64Array, Int64Array, npt.NDArray[np.uint16]]:
    """(tag ids, scores, positions in the block) of keys."""
    tag_ids = (keys >> BLOCK_BITS + _SCORE_BITS).astype(np.int64)
    return tag_ids, (keys >> BLOCK_BITS & (1 << _SCORE_BITS) - 1).astype(np.int64), keys.astype(np.uint16)


def pieces(keys: UInt64Array) -> Iterator[Piece]:
    """The pieces of a block.

    Args:
        keys: of all postings, ascending.
    """
    tag_ids, scores, positions = from_keys(keys)
    images, stored = (values.astype("<u2").tobytes() for values in (positions, scores))
    starts = np.flatnonzero(np.diff(tag_ids, prepend=-1))
    sizes = np.diff(starts, append=tag_ids.size)
    numbers = -(-sizes // PIECE)
    first = np.cumsum(numbers) - numbers
    within = np.arange(numbers.sum()) - np.repeat(first, numbers)
    begins = np.repeat(starts, numbers) + within * PIECE
    ends = np.minimum(begins + PIECE, np.repeat(starts + sizes, numbers))
    for tag_id, piece, highest, begin, end in zip(
        tag_ids[begins].tolist(),
        within.tolist(),
        scores[ends - 1].tolist(),
        (begins * 2).tolist(),
        (ends * 2).tolist(),
        strict=True,
    ):
        yield Piece(tag_id, piece, highest, images[begin:end], stored[begin:end])


def numbers(blobs: Sequence[bytes]) -> npt.NDArray[np.uint16]:
    """The images or scores of several pieces, one after the other."""
    return np.frombuffer(b"".join(blobs), dtype="<u2")


def encode_present(present: Bits) -> bytes:
    """(BLOCK,) bits."""
    return zlib.compress(np.packbits(present, bitorder="little").tobytes(), _LEVEL)


def decode_present(data: bytes) -> Bits:
    return np.unpackbits(np.frombuffer(zlib.decompress(data), dtype=np.uint8), bitorder="little").view(np.bool_)


def encode_integers(values: npt.NDArray[np.integer]) -> bytes:
    """Integers below 2 ** 32, of any shape. Bytes of equal weight lie together, where they compress better."""
    planes = np.ascontiguousarray(values.astype("<u4").reshape(-1).view(np.uint8).reshape(-1, 4).T)
    return zlib.compress(planes.tobytes(), _LEVEL)


def decode_integers(data: bytes) -> Int64Array:
    """(values,)"""
    planes = np.frombuffer(zlib.decompress(data), dtype=np.uint8).reshape(4, -1)
    return np.ascontiguousarray(planes.T).view("<u4").reshape(-1).astype(np.int64)


def low_steps(model_floor: int, floor: int) -> range:
    """The steps below the floor of the postings that can have scores, counted from 0.

    Args:
        model_floor: lower scores are not stored, in ten-thousandths.
    """
    return range(model_floor // FINE_STEP, max(-(-floor // FINE_STEP), model_floor // FINE_STEP))
