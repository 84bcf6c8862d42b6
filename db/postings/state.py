"""Which blocks of a model have postings that are current, in the snapshot of a transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from sqlalchemy import ColumnElement, Connection, and_, false, literal_column, or_, select, union_all

from db.ledger.changed_blocks import BLOCK_BITS
from db.schema import changed_blocks, posting_blocks, predictions


@dataclass(frozen=True, slots=True)
class State:
    """The blocks of a model that may have predictions, ascending."""

    current: tuple[int, ...]
    """Blocks whose postings describe their predictions."""
    changed: tuple[int, ...]
    """Blocks whose predictions have to be read instead."""
    floor: int
    """The current blocks have postings of the scores from it on, in ten-thousandths."""

    @property
    def built(self) -> bool:
        """Whether there are postings to read."""
        return bool(self.current)


def read_state(connection: Connection, model_id: int) -> State:
    """The state as of the snapshot of the transaction: the rows of its other statements agree with it."""
    built = select(posting_blocks.c.block, posting_blocks.c.floor).where(posting_blocks.c.model_id == model_id)
    marked = select(changed_blocks.c.block, literal_column("-1")).where(changed_blocks.c.model_id == model_id)
    floors: dict[int, int] = {}
    changed: set[int] = set()
    for block, floor in connection.execute(union_all(built, marked.distinct())).all():
        if floor < 0:
            changed.add(block)
        else:
            floors[block] = floor
    current = sorted(floors.keys() - changed)
    return State(tuple(current), tuple(sorted(changed)), max((floors[block] for block in current), default=0))


def in_blocks(blocks: Sequence[int]) -> ColumnElement[bool]:
    """The condition that a row of `predictions` is in one of the blocks.

    Args:
        blocks: ascending.
    """
    if not blocks:
        return false()
    numbers = np.asarray(blocks, dtype=np.int64)
    ends = np.flatnonzero(np.diff(numbers, prepend=-2, append=numbers[-1] + 2) > 1)
    ranges = [(int(numbers[start]), int(numbers[end - 1]) + 1) for start, end in pairwise(ends.tolist())]
    image_id = predictions.c.image_id
    return or_(*(and_(image_id >= low << BLOCK_BITS, image_id < high << BLOCK_BITS) for low, high in ranges))
