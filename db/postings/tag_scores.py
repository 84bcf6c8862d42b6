"""All images that have a tag, with their scores."""

from typing import NamedTuple

import numpy as np
from sqlalchemy import Connection, select

from db.arrays.types import Int64Array
from db.ledger.changed_blocks import BLOCK_BITS
from db.ledger.models import Model
from db.postings.lookup import neighbours, read_postings, read_present
from db.postings.state import in_blocks, read_state
from db.schema import predictions
from db.sql.gone_scope import tagged
from db.sql.scores.conditions import ScoreOf, reaches


class TagScores(NamedTuple):
    """Images in the order of their ids."""

    image_ids: Int64Array
    scores: Int64Array
    """(images,) ten-thousandths."""


def scores_in_range(connection: Connection, model: Model, tag_id: int, low: int, high: int) -> TagScores | None:
    """The images of the transaction's scope with low <= score < high. None if the postings do not have them all."""
    state = read_state(connection, model.id)
    if not state.built or low < state.floor:
        return None
    ids, scores = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for blocks in neighbours(state.current):
        images, found = read_postings(connection, model.id, [tag_id], blocks, low).of(tag_id)
        kept = (found >= low) & (found < high) & read_present(connection, model.id, blocks)[images]
        ids.append(images[kept].astype(np.int64) + (blocks[0] << BLOCK_BITS))
        scores.append(found[kept].astype(np.int64))
    rows = select(predictions.c.image_id, ScoreOf(tag_id)).where(
        tagged(connection, model.id),
        in_blocks(state.changed),
        reaches(connection, model.id, (tag_id,), (low,), high),
    )
    changed = np.array([tuple(row) for row in connection.execute(rows)], dtype=np.int64).reshape(-1, 2)
    all_ids, all_scores = np.concatenate([*ids, changed[:, 0]]), np.concatenate([*scores, changed[:, 1]])
    order = np.argsort(all_ids)
    return TagScores(all_ids[order], all_scores[order])
