"""The ids of the images for which a query is true.

Blocks whose postings are current are evaluated as bit masks, a million images at a time. Blocks that have changed are
read by the SQL of `db.search.conditions`, and so are all images of a model without postings.

Postings do not answer all terms: not scores below their floor, and nothing about uris and files. In the query such a
term is replaced by a constant, so that the masks find a superset of the images; SQL then checks the whole query on
these. If they are many, SQL reads the blocks instead.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Select, func, select

from db.arrays.batches import batched
from db.arrays.types import Int64Array
from db.ledger.changed_blocks import BLOCK_BITS
from db.ledger.models import Model
from db.names.plural import counted
from db.postings.block_format import BLOCK, Bits
from db.postings.lookup import TagPostings, neighbours, read_postings, read_present
from db.postings.state import State, in_blocks, read_state
from db.schema import predictions
from db.scores import NEVER, to_probability
from db.search.conditions import condition, source
from db.search.tree import And, BestIn, Node, Not, Or, Reaches, leaves
from db.sql.gone_scope import tagged
from db.sql.in_list import in_list
from db.sql.scores.conditions import ScoreOf
from db.sql.streams import plan_for_all_rows, stream_in_order

FEW = 20_000
"""Most ids in the condition of an export; SQL reads all images for more."""
_MANY = 4
"""SQL reads all images of some blocks if at least one in so many has to be checked."""
_IDS_AT_ONCE = 5_000
_FALSE = Reaches((), ())
_TRUE = And(())

_NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class _Part:
    """Neighbouring blocks, and what their postings say."""

    where: tuple[ColumnElement[bool], ...] = ()
    """The condition on `predictions` that SQL has to add to that of the query."""
    ids: Int64Array | None = None
    """The images, ascending. None: SQL finds them."""
    scores: Int64Array = field(default_factory=_NONE.copy)
    """(images,) of the tag to sort by; -1 if the postings do not have it."""


def matching_ids(connection: Connection, model: Model, tree: Node) -> Iterator[Int64Array]:
    """The ids in ascending order, some at a time."""
    for part in _parts(connection, model, tree):
        if part.ids is not None:
            yield part.ids
        else:
            query = _query(connection, model, tree, part, predictions.c.image_id).order_by(predictions.c.image_id)
            for rows in stream_in_order(connection, query, _IDS_AT_ONCE):
                yield np.fromiter((image_id for (image_id,) in rows), dtype=np.int64, count=len(rows))


def few_ids(connection: Connection, model: Model, tree: Node) -> list[int] | None:
    """The ids of at most `FEW` images, ascending; None if there are more, or postings do not give them."""
    found = _NONE
    for part in _parts(connection, model, tree):
        if part.ids is None or found.size + part.ids.size > FEW:
            return None
        found = np.concatenate([found, part.ids])
    return found.tolist()


def number_of_matches(connection: Connection, model: Model, tree: Node) -> int:
    """The number of the images."""
    return sum(
        part.ids.size
        if part.ids is not None
        else connection.scalar(_query(connection, model, tree, part, func.count())) or 0
        for part in _parts(connection, model, tree)
    )


def sorted_matches(
    connection: Connection, model: Model, tree: Node, tag_id: int, *, descending: bool, limit: int | None
) -> Int64Array:
    """The ids by the score of a tag. Ties are by id, and so are images whose score is not stored, which come last.

    Args:
        limit: the number of ids that are needed.
    """
    columns = (predictions.c.image_id, func.coalesce(ScoreOf(tag_id), -1))
    floor = read_state(connection, model.id).floor
    found: list[tuple[Int64Array, Int64Array]] = []
    unknown: list[Int64Array] = []
    for part in _parts(connection, model, tree, tag_id):
        if part.ids is None:
            found.append(_pairs(connection.execute(_query(connection, model, tree, part, *columns)).all()))
        else:
            is_known = part.scores >= 0
            found.append((part.ids[is_known], part.scores[is_known]))
            unknown.append(part.ids[~is_known])
    # A score that the postings do not have is below their floor.
    number_above = sum(int(np.count_nonzero(scores >= floor)) for _ids, scores in found)
    if not descending or limit is None or limit > number_above:
        for ids in batched(np.concatenate([_NONE, *unknown]).tolist(), _IDS_AT_ONCE):
            query = select(*columns).where(predictions.c.model_id == model.id)
            rows = connection.execute(query.where(in_list(connection, predictions.c.image_id, ids))).all()
            found.append(_pairs(rows))
    all_ids, all_scores = (np.concatenate([_NONE, *arrays]) for arrays in zip((_NONE, _NONE), *found, strict=True))
    order = np.lexsort((all_ids, np.where(all_scores < 0, NEVER, -all_scores if descending else all_scores)))
    ordered: Int64Array = all_ids[order][:limit]
    return ordered


def explain(connection: Connection, model: Model, tree: Node) -> str:
    """Which way a search goes, in a sentence or two."""
    state = read_state(connection, model.id)
    if not state.built:
        return "The scores of all images are read: there are no postings. `tagonce index` builds them."
    ways = [f"postings from {to_probability(state.floor):g} on, of {counted(len(state.current), 'block')}"]
    if state.changed:
        ways.append(
            f"the scores of all images of {counted(len(state.changed), 'block')} that changed since `tagonce index`"
        )
    said = f"Read: {'; '.join(ways)}. A block is {BLOCK:,} images."
    if (wide := widened(tree, state.floor)) != tree:
        said += (
            " Postings cannot answer the whole query: it has thresholds below theirs, or asks for more than tags; "
            + (
                "the scores of all images are read instead."
                if wide == _TRUE
                else "SQL checks the images that they find."
            )
        )
    return said


def widened(node: Node, floor: int, *, positive: bool = True) -> Node:
    """A query that postings can answer, and that is true at least where `node` is.

    Args:
        floor: of the postings.
        positive: False below an odd number of negations: then it is true at most where `node` is.
    """
    constant = _TRUE if positive else _FALSE
    match node:
        case Reaches():
            return node if min(node.lows, default=NEVER) >= floor else constant
        case BestIn() if positive:
            # The best tag reaches its threshold; it may do so and not be the best one.
            low_of = dict(zip(node.group.tag_ids, node.group.lows, strict=True))
            lows = tuple(low_of[tag_id] for tag_id in node.tag_ids)
            return widened(Reaches(node.tag_ids, lows), floor)
        case Not():
            return Not(widened(node.part, floor, positive=not positive))
        case And() | Or():
            return type(node)(tuple(widened(part, floor, positive=positive) for part in node.parts))
        case _:
            return constant


def _parts(connection: Connection, model: Model, tree: Node, sort: int | None = None) -> Iterator[_Part]:
    state = read_state(connection, model.id)
    if not state.built:
        yield _Part()
        return
    wide = widened(tree, state.floor)
    tag_ids = sorted({tag_id for leaf, _ in leaves(wide) for tag_id in leaf.tag_ids})
    low = min((low for leaf, _ in leaves(wide) for low in leaf.lows), default=NEVER)
    for is_current, blocks in _runs(state):
        if not is_current:
            yield _Part((in_blocks(blocks),))
            continue
        present = read_present(connection, model.id, blocks)
        postings = read_postings(connection, model.id, tag_ids, blocks, low)
        positions = np.flatnonzero(present & _mask(wide, postings, present.size))
        ids = positions + (blocks[0] << BLOCK_BITS)
        if wide == tree:
            part = _Part(ids=ids)
            if sort is not None:
                table = np.full(present.size, -1, dtype=np.int64)
                images, values = read_postings(connection, model.id, [sort], blocks, 0).of(sort)
                table[images] = values
                part = _Part(ids=ids, scores=table[positions])
            yield part
        elif ids.size * _MANY > np.count_nonzero(present):
            yield _Part((in_blocks(blocks),))
        else:
            for some in batched(ids.tolist(), _IDS_AT_ONCE):
                yield _Part((in_list(connection, predictions.c.image_id, some),))


def _mask(node: Node, postings: TagPostings, size: int) -> Bits:
    """(size,) whether a query that postings can answer is true for each image."""
    match node:
        case Reaches():
            mask = np.zeros(size, dtype=np.bool_)
            if node.tag_ids:
                mask[postings.reaching(node.tag_ids, node.lows, node.high)] = True
            return mask
        case Not():
            return ~_mask(node.part, postings, size)
        case And():
            return reduce(np.logical_and, (_mask(part, postings, size) for part in node.parts), np.ones(size, np.bool_))
        case Or():
            return reduce(np.logical_or, (_mask(part, postings, size) for part in node.parts), np.zeros(size, np.bool_))
        case _:
            raise AssertionError(f"postings cannot answer {node}")


def _query(connection: Connection, model: Model, tree: Node, part: _Part, *columns: Any) -> Select[Any]:
    """SQL for the images of a part."""
    plan_for_all_rows(connection)
    where = (tagged(connection, model.id), *part.where, condition(connection, model.id, tree))
    return select(*columns).select_from(source(tree)).where(*where)


def _pairs(rows: Sequence[Any]) -> tuple[Int64Array, Int64Array]:
    columns = np.array([tuple(row) for row in rows], dtype=np.int64).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


def _runs(state: State) -> list[tuple[bool, list[int]]]:
    """(whether their postings are current, neighbouring blocks), ascending."""
    runs = [
        (is_current, run)
        for is_current, blocks in ((True, state.current), (False, state.changed))
        for run in neighbours(blocks)
    ]
    return sorted(runs, key=lambda item: item[1])
