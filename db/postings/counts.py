"""Counts over a collection from what its blocks have stored.

Blocks that have changed are counted from their rows. Stored counts include images that are gone; where the transaction
excludes these, they are counted from their rows, and subtracted.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sqlalchemy import ColumnElement, Connection, and_, func, select

from db.arrays.types import Int16Array, Int64Array
from db.ledger.models import Model
from db.postings import block_format
from db.postings.block_format import TAGS_OF_GROUP
from db.postings.build import STEP
from db.postings.lookup import neighbours
from db.postings.state import State, in_blocks, read_state
from db.schema import gone, low_scores, posting_blocks, posting_counts, predictions
from db.scope import Gone
from db.scores import NEVER
from db.sql.gone_scope import scope_of, tagged
from db.sql.in_list import in_list
from db.sql.rows.posting_rows import read_scores
from db.sql.scores.tag_sums import TagSums, tag_sums

_MANY = 10_000
"""Images that are gone, from which number on the database joins them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the counts of a collection come from."""

    state: State
    added: ColumnElement[bool]
    """The condition on `predictions` of the images whose rows are read."""
    subtracted: ColumnElement[bool] | None
    """The condition of the images that the stored counts include, and the transaction's scope excludes."""


def plan(connection: Connection, model_id: int) -> Plan | None:
    """How to count the images of a model; None if all rows must be read."""
    scope = scope_of(connection)
    state = read_state(connection, model_id)
    if not state.built or scope is Gone.ONLY:
        return None
    subtracted = _marked(connection, model_id, state) if scope is Gone.EXCLUDE else None
    return Plan(state, and_(tagged(connection, model_id), in_blocks(state.changed)), subtracted)


def _marked(connection: Connection, model_id: int, state: State) -> ColumnElement[bool] | None:
    """The condition of the images of current blocks that are gone; None without any."""
    marked = select(gone.c.image_id)
    ids = list(connection.scalars(marked.limit(_MANY)))
    if not ids:
        return None
    # A list, and not `exists`: SQLite would look at all images, and PostgreSQL does not know how few are marked.
    is_gone = (
        in_list(connection, predictions.c.image_id, ids) if len(ids) < _MANY else predictions.c.image_id.in_(marked)
    )
    return and_(predictions.c.model_id == model_id, is_gone, in_blocks(state.current))


def sums_of_tags(connection: Connection, model: Model, lows: Int16Array) -> TagSums:
    """The images of the transaction's scope that keep each tag.

    Args:
        lows: (tags,) the lowest score of each tag that counts; NEVER for none.
    """
    found = plan(connection, model.id)
    if found is None or int(lows.min(initial=NEVER)) < found.state.floor:
        return tag_sums(connection, model.id, lows, tagged(connection, model.id))
    sums = tag_sums(connection, model.id, lows, found.added)
    if found.subtracted is not None:
        too_many = tag_sums(connection, model.id, lows, found.subtracted)
        sums = TagSums(sums.images - too_many.images, sums.scores - too_many.scores)
    on_grid = lows % STEP == 0
    _add_stored(connection, model.id, found.state, np.where(on_grid, lows, NEVER), sums)
    if (~on_grid & (lows < NEVER)).any():
        _add_postings(connection, model.id, found.state, np.where(on_grid, NEVER, lows).astype(np.int16), sums)
    return sums


def number_of_images(connection: Connection, model_id: int, found: Plan) -> int:
    """Images of the transaction's scope that have a prediction."""
    stored = select(func.coalesce(func.sum(posting_blocks.c.images), 0)).where(
        posting_blocks.c.model_id == model_id, in_list(connection, posting_blocks.c.block, found.state.current)
    )
    number = (connection.scalar(stored) or 0) + _rows(connection, found.added)
    return int(number) - (_rows(connection, found.subtracted) if found.subtracted is not None else 0)


def scores_of_tags(
    connection: Connection, model_id: int, state: State, lows: Int16Array
) -> Iterator[tuple[Int64Array, Int64Array]]:
    """(tag ids, scores) of the postings of current blocks, many at once.

    Args:
        lows: (tags,) lower scores of a tag may be left out; NEVER for tags that are not wanted.
    """
    for blocks in neighbours(state.current):
        for tags, blobs in read_scores(connection, model_id, lows, (blocks[0], blocks[-1] + 1)):
            sizes = np.fromiter(map(len, blobs), dtype=np.int64, count=len(blobs)) // 2
            yield np.repeat(np.array(tags, dtype=np.int64), sizes), block_format.numbers(blobs).astype(np.int64)


def low_counts(
    connection: Connection, model: Model, state: State, tag_ids: list[int] | None
) -> Iterator[tuple[int, range, Int64Array]]:
    """(first tag id, steps, counts) below the floor of each current block.

    After an interrupted change of the floor, blocks have different ones.

    Args:
        tag_ids: only groups that have one of them; None for all.

    Yields:
        steps: `block_format.low_steps` of the block.
        counts: (tags from the first one on, steps)
    """
    of_block = (posting_blocks.c.model_id == low_scores.c.model_id, posting_blocks.c.block == low_scores.c.block)
    query = (
        select(low_scores.c.tag_group, posting_blocks.c.floor, low_scores.c.counts)
        .join_from(low_scores, posting_blocks, and_(*of_block))
        .where(low_scores.c.model_id == model.id, in_list(connection, low_scores.c.block, state.current))
    )
    if tag_ids is not None:
        groups = sorted({tag_id // TAGS_OF_GROUP for tag_id in tag_ids})
        query = query.where(in_list(connection, low_scores.c.tag_group, groups))
    for group, floor, data in connection.execute(query):
        steps = block_format.low_steps(model.floor, floor)
        yield group * TAGS_OF_GROUP, steps, block_format.decode_integers(data).reshape(-1, len(steps))


def stored_pairs(connection: Connection, model_id: int, state: State) -> Int64Array:
    """The sum of the pairs of current blocks: see `db.postings.unchanged_images`."""
    query = select(posting_blocks.c.neighbours).where(
        posting_blocks.c.model_id == model_id, in_list(connection, posting_blocks.c.block, state.current)
    )
    total: Int64Array = np.sum([block_format.decode_integers(data) for data in connection.scalars(query)], axis=0)
    return total


def _add_stored(connection: Connection, model_id: int, state: State, lows: Int16Array, sums: TagSums) -> None:
    """Add the stored counts at thresholds that have them."""
    steps = sorted({int(low) // STEP for low in np.unique(lows) if low < NEVER})
    query = select(posting_counts.c.step, posting_counts.c.counts).where(
        posting_counts.c.model_id == model_id,
        in_list(connection, posting_counts.c.step, steps),
        in_list(connection, posting_counts.c.block, state.current),
    )
    uniform = len(steps) == 1 and int(lows.max(initial=0)) < NEVER
    for step, data in connection.execute(query):
        counts, scores = block_format.decode_integers(data).reshape(2, -1)
        chosen = slice(None) if uniform else lows == step * STEP
        sums.images[chosen] += counts[chosen]
        sums.scores[chosen] += scores[chosen]


def _add_postings(connection: Connection, model_id: int, state: State, lows: Int16Array, sums: TagSums) -> None:
    """Add what the postings say."""
    for tag_ids, scores in scores_of_tags(connection, model_id, state, lows):
        kept = scores >= lows[tag_ids]
        sums.images[:] += np.bincount(tag_ids[kept], minlength=lows.size)
        sums.scores[:] += np.bincount(tag_ids[kept], weights=scores[kept], minlength=lows.size)


def _rows(connection: Connection, where: ColumnElement[bool]) -> int:
    return connection.scalar(select(func.count()).select_from(predictions).where(where)) or 0
