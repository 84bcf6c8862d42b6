"""Reads postings: the images of some tags in neighbouring blocks, as arrays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from db.arrays.batches import batched
from db.arrays.types import Int32Array, Int64Array
from db.ledger.changed_blocks import BLOCK_BITS
from db.postings import block_format
from db.postings.block_format import BLOCK, Bits
from db.schema import gone, posting_blocks
from db.scope import Gone
from db.scores import NEVER
from db.sql.gone_scope import scope_of
from db.sql.rows.posting_rows import read_pieces

BLOCKS_AT_ONCE = 16
"""A million images. A bit mask of them takes a megabyte."""


@dataclass(frozen=True, slots=True)
class TagPostings:
    """The postings of some tags in neighbouring blocks, ordered by tag; ascending by score within a piece."""

    tag_ids: Int32Array
    """(pieces,)"""
    sizes: Int64Array
    """(pieces,) postings of each piece."""
    images: Int32Array
    """(postings,) positions: the image's id without the first id of the first block."""
    scores: npt.NDArray[np.uint16]
    """(postings,) ten-thousandths."""

    def of(self, tag_id: int) -> tuple[Int32Array, npt.NDArray[np.uint16]]:
        """(images, scores) of one tag."""
        first, last = np.searchsorted(self.tag_ids, [tag_id, tag_id + 1])
        start, end = self.sizes[:first].sum(), self.sizes[:last].sum()
        return self.images[start:end], self.scores[start:end]

    def reaching(self, tag_ids: Sequence[int], lows: Sequence[int], high: int) -> Int32Array:
        """The images in which one of the tags has low <= score < high, in no order, and some of them repeatedly.

        Args:
            lows: (tags,) in ten-thousandths, parallel to `tag_ids`.
        """
        if len(tag_ids) == 1:
            images, scores = self.of(tag_ids[0])
            low: Any = lows[0]
        else:
            table = np.full(max(*tag_ids, int(self.tag_ids.max(initial=0))) + 1, NEVER, dtype=np.int16)
            table[list(tag_ids)] = lows
            images, scores = self.images, self.scores
            low = np.repeat(table[self.tag_ids], self.sizes)
        kept = scores >= low
        if high < NEVER:
            kept &= scores < high
        found: Int32Array = images[kept]
        return found


def neighbours(blocks: Sequence[int], at_once: int = BLOCKS_AT_ONCE) -> Iterator[list[int]]:
    """Runs of neighbouring blocks, at most so many in one.

    Args:
        blocks: ascending.
    """
    for _gap, run in groupby(enumerate(blocks), key=lambda item: item[1] - item[0]):
        yield from batched((block for _, block in run), at_once)


def read_postings(
    connection: Connection, model_id: int, tag_ids: Sequence[int], blocks: Sequence[int], low: int
) -> TagPostings:
    """The postings of some tags.

    Args:
        blocks: neighbours, ascending, all of them current.
        low: scores below it may be left out.
    """
    first = blocks[0]
    rows = [row for some in read_pieces(connection, model_id, tag_ids, (first, blocks[-1] + 1), low) for row in some]
    rows.sort(key=_tag_of)
    sizes = np.fromiter((len(row[3]) // 2 for row in rows), dtype=np.int64, count=len(rows))
    tags = np.fromiter((row[1] for row in rows), dtype=np.int32, count=len(rows))
    starts = np.fromiter((row[0] - first << BLOCK_BITS for row in rows), dtype=np.int32, count=len(rows))
    images = np.repeat(starts, sizes) + block_format.numbers([row[2] for row in rows])
    return TagPostings(tags, sizes, images, block_format.numbers([row[3] for row in rows]))


def read_present(connection: Connection, model_id: int, blocks: Sequence[int]) -> Bits:
    """(blocks * BLOCK,) whether each image has a prediction and is in the transaction's scope.

    Args:
        blocks: neighbours, ascending, all of them current.
    """
    query = select(posting_blocks.c.block, posting_blocks.c.present).where(
        posting_blocks.c.model_id == model_id, posting_blocks.c.block.between(blocks[0], blocks[-1])
    )
    first = blocks[0] << BLOCK_BITS
    present = np.zeros(len(blocks) * BLOCK, dtype=np.bool_)
    for block, data in connection.execute(query):
        start = (block << BLOCK_BITS) - first
        present[start : start + BLOCK] = block_format.decode_present(data)
    scope = scope_of(connection)
    if scope is Gone.INCLUDE:
        return present
    marked = select(gone.c.image_id).where(gone.c.image_id >= first, gone.c.image_id < first + present.size)
    is_gone = np.zeros_like(present)
    is_gone[np.array(connection.scalars(marked).all(), dtype=np.int64) - first] = True
    return present & (is_gone if scope is Gone.ONLY else ~is_gone)


def _tag_of(row: tuple[int, int, bytes, bytes]) -> int:
    return row[1]
