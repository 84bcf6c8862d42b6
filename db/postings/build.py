"""Builds the postings of a model, block by block.

A block is read in one snapshot, together with the marks of writers in that snapshot (`db.ledger.changed_blocks`) and
the version of its postings. One transaction then replaces the postings, if the version is still the same, and deletes
these marks. A writer that was not committed at the time of the snapshot has left another mark, so the block
stays changed. A builder can be killed at any moment, and several can run at once: the slower one discards its work.
"""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, delete, insert, select, update

from db.arrays.batches import prefetched
from db.arrays.score_batch import ScoreBatch
from db.arrays.types import Int32Array, Int64Array, UInt64Array
from db.database import Database
from db.ledger import models
from db.ledger.changed_blocks import BLOCK_BITS
from db.ledger.models import Model
from db.policy.policies import category_numbers
from db.postings import block_format
from db.postings.block_format import BLOCK, Bits
from db.postings.state import in_blocks, read_state
from db.postings.unchanged_images import UnchangedCounter
from db.schema import changed_blocks, low_scores, posting_blocks, posting_counts, postings, predictions
from db.scope import Gone
from db.scores import SCALE
from db.sql.gone_scope import tagged
from db.sql.in_list import in_list
from db.sql.rows.posting_rows import delete_pieces, insert_pieces
from db.sql.rows.upsert import insert_into
from db.sql.scores.packed import packed, unpack
from db.sql.streams import stream_in_order

FLOOR = 1_000
"""The floor of postings by default: a third of the scores of a tagger are at or above 0.1."""
STEP = 100
"""Ten-thousandths between two thresholds with stored counts."""
_IMAGES_AT_ONCE = 2_000


@dataclass(frozen=True, slots=True)
class Contents:
    """What is derived from the predictions of a block."""

    present: Bits
    """(BLOCK,) whether each image has a prediction."""
    keys: UInt64Array
    """(postings,) ascending, from `posting_key`."""
    low_scores: Int32Array
    """(tags, steps) images in each of `block_format.low_steps`."""
    pairs: Int64Array
    """Of an `UnchangedCounter`."""


def floor_of(model: Model, wanted: int | None, present: int = 0) -> int:
    """The floor of a model's postings.

    Args:
        wanted: in ten-thousandths; None for the present one, or the default.
        present: 0 without postings.
    """
    return max(wanted or present or FLOOR, model.floor)


def update_postings(
    database: Database,
    model: Model,
    *,
    floor: int | None = None,
    advance: Callable[[int, int], object] = lambda _done, _all: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> int:
    """Build the postings of all blocks that have changed, or whose postings have another floor.

    Args:
        floor: of the postings, in ten-thousandths. None: the present one, or `FLOOR`.
        advance: called with the number of blocks done and to do.
        should_stop: asked before each block.

    Returns:
        The number of blocks built.
    """
    with database.read() as connection:
        state = read_state(connection, model.id)
        categories = category_numbers(models.tag_names(connection, model.id))
        floors = dict(
            connection.execute(
                select(posting_blocks.c.block, posting_blocks.c.floor).where(posting_blocks.c.model_id == model.id)
            ).all()
        )
    wanted = floor_of(model, floor, max(floors.values(), default=0))
    todo = sorted({*state.changed, *(block for block, its_floor in floors.items() if its_floor != wanted)})
    built = 0
    for number, block in enumerate(todo):
        advance(number, len(todo))
        if should_stop():
            break
        built += _build(database, model, block, wanted, UnchangedCounter(categories), categories.size)
    else:
        advance(len(todo), len(todo))
    return built


def drop_postings(database: Database, model: Model) -> bool:
    """Delete the postings of a model; all of its blocks count as changed. Returns False if there were none."""
    of_model = select(posting_blocks.c.block).where(posting_blocks.c.model_id == model.id)
    with database.write() as connection:
        blocks = list(connection.scalars(of_model))
        if blocks:
            connection.execute(insert(changed_blocks), [{"model_id": model.id, "block": block} for block in blocks])
        for table in (postings, posting_counts, low_scores, posting_blocks):
            connection.execute(delete(table).where(table.c.model_id == model.id))
    return bool(blocks)


def read_contents(
    connection: Connection, model: Model, block: int, floor: int, counter: UnchangedCounter, tags: int
) -> Contents:
    """Read the predictions of a block, those of images that are gone included."""
    first = block << BLOCK_BITS
    present = np.zeros(BLOCK, dtype=np.bool_)
    steps = block_format.low_steps(model.floor, floor)
    lows = np.zeros(tags * len(steps), dtype=np.int32)
    keys = [np.zeros(0, dtype=np.uint64)]
    query = (
        select(predictions.c.image_id, *packed(connection, model.floor))
        .where(tagged(connection, model.id), in_blocks([block]))
        .order_by(predictions.c.image_id)
    )
    for rows in prefetched(stream_in_order(connection, query, _IMAGES_AT_ONCE)):
        images = np.fromiter((row[0] - first for row in rows), dtype=np.int64, count=len(rows))
        present[images] = True
        batch = ScoreBatch(*unpack(connection, rows, model.floor))
        counter.add(batch)
        kept = batch.scores >= floor
        keys.append(block_format.posting_key(batch.tag_ids[kept], batch.scores[kept], images[batch.rows[kept]]))
        if steps:
            cells = batch.tag_ids[~kept].astype(np.int64) * len(steps)
            cells += batch.scores[~kept] // block_format.FINE_STEP - steps.start
            np.add.at(lows, cells, np.int32(1))  # a table of all cells for each batch would take longer
    all_keys = np.concatenate(keys)
    all_keys.sort()
    return Contents(present, all_keys, lows.reshape(tags, len(steps)), counter.pairs)


def _build(database: Database, model: Model, block: int, floor: int, counter: UnchangedCounter, tags: int) -> bool:
    """Build one block. Returns False if another process has built it meanwhile."""
    at = (posting_blocks.c.model_id == model.id, posting_blocks.c.block == block)
    marked = select(changed_blocks.c.id).where(changed_blocks.c.model_id == model.id, changed_blocks.c.block == block)
    with database.read(gone=Gone.INCLUDE) as connection:
        version = connection.scalar(select(posting_blocks.c.version).where(*at))
        marks = list(connection.scalars(marked))
        contents = read_contents(connection, model, block, floor, counter, tags)
    values = {
        # From a random one: postings that were dropped and built again must not have a version that they had before.
        "version": secrets.randbits(30) if version is None else version + 1,
        "floor": floor,
        "images": int(np.count_nonzero(contents.present)),
        "present": block_format.encode_present(contents.present),
        "neighbours": block_format.encode_integers(contents.pairs),
    }
    at_block = {"model_id": model.id, "block": block}
    counts = [at_block | {"step": step, "counts": data} for step, data in _counts(contents.keys, floor, tags)]
    group = block_format.TAGS_OF_GROUP
    lows = [
        at_block
        | {
            "tag_group": first // group,
            "counts": block_format.encode_integers(contents.low_scores[first : first + group]),
        }
        for first in range(0, tags, group)
    ]
    with database.write() as connection:
        # The row is inserted or updated if no other builder has done so since the snapshot.
        if version is None:
            inserted = insert_into(connection, posting_blocks).values(at_block | values).on_conflict_do_nothing()
            is_ours = connection.scalar(inserted.returning(posting_blocks.c.version)) is not None
        else:
            updated = update(posting_blocks).where(*at, posting_blocks.c.version == version).values(values)
            is_ours = bool(connection.execute(updated).rowcount)
        if not is_ours:
            return False
        if version is not None:
            delete_pieces(connection, model.id, block)
            for table in (posting_counts, low_scores):
                connection.execute(delete(table).where(table.c.model_id == model.id, table.c.block == block))
        insert_pieces(connection, model.id, block, block_format.pieces(contents.keys))
        connection.execute(insert(posting_counts), counts)
        if contents.low_scores.size:
            connection.execute(insert(low_scores), lows)
        connection.execute(delete(changed_blocks).where(in_list(connection, changed_blocks.c.id, marks)))
    return True


def _counts(keys: UInt64Array, floor: int, tags: int) -> Iterator[tuple[int, bytes]]:
    """(step, counts and sums of scores of all tags) at each threshold that is a multiple of 0.01, from the floor on."""
    tag_ids, scores, _images = block_format.from_keys(keys)
    steps = scores // STEP
    order = np.argsort(steps.astype(np.uint8), kind="stable")
    ends = np.searchsorted(steps[order], np.arange(SCALE // STEP + 2))
    # From the highest step down: a threshold has the counts of the one above it, and those of its own step.
    sums = np.zeros((2, tags), dtype=np.int64)
    for step in range(SCALE // STEP, -(-floor // STEP) - 1, -1):
        chosen = order[ends[step] : ends[step + 1]]
        np.add.at(sums[0], tag_ids[chosen], 1)
        np.add.at(sums[1], tag_ids[chosen], scores[chosen])
        yield step, block_format.encode_integers(sums)
