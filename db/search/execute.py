"""Executes searches: SQL over stored scores finds the images for which a query is true."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, assert_never

import numpy as np
from sqlalchemy import ColumnElement, Connection, and_, false, func, not_, null, or_, select, true

from db.arrays.csr import offsets_of
from db.arrays.types import Int16Array
from db.ledger.models import Model
from db.schema import files, images, predictions
from db.scores import NEVER, to_probability
from db.search.tree import And, BestIn, Node, Not, Or, Reaches, Under
from db.sql.conditions import ScoreOf, best_is, can_use_index, reaches
from db.sql.current_file import is_file_of
from db.sql.gone_scope import tagged
from db.sql.packed import packed, unpack
from db.sql.score_sql import begins_with
from db.sql.streams import plan_for_all_rows
from db.sql.tag_index_ddl import indexed_score

IMAGES_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Hit:
    """An image that was found."""

    image_id: int
    uri: str
    width: int | None
    """Pixels, as stored in the file; so is the height."""
    height: int | None
    probability: float | None
    """Of the tag that the hits are sorted by; None if it is not stored, or the hits are not sorted by a tag."""
    tags: tuple[tuple[int, float], ...] = ()
    """(tag id, probability) of the tags to show, most probable first."""


def search(
    connection: Connection,
    model: Model,
    tree: Node,
    *,
    sort: int | None = None,
    descending: bool = True,
    limit: int | None = None,
    show: Int16Array | None = None,
) -> Iterator[Hit]:
    """The images for which a query is true, as a stream.

    Args:
        tree: from `query.parse`.
        sort: id of a tag to sort by. Ties are in the order of registration, and so are all hits if it is None. Images
            whose score of the tag is not stored come last in either direction.
        descending: the direction of `sort`.
        limit: maximum number of images; None for all.
        show: (tags,) the lowest score at which each tag is reported with a hit, from `scores_to_show`.
    """
    score = ScoreOf(sort) if sort is not None else null()
    columns: list[ColumnElement[Any]] = [
        images.c.id,
        images.c.uri,
        files.c.width,
        files.c.height,
        score.label("score"),
    ]
    if show is not None:
        columns += packed(connection, int(show.min(initial=NEVER)))
    query = (
        select(*columns)
        .select_from(predictions.join(images, images.c.id == predictions.c.image_id).outerjoin(files, is_file_of()))
        .where(tagged(connection, model.id), condition(connection, model, tree))
        .limit(limit)
    )
    if sort is not None:
        query = query.order_by((score.desc() if descending else score.asc()).nulls_last())
    plan_for_all_rows(connection)
    query = query.order_by(predictions.c.image_id)
    with connection.execute(query, execution_options={"yield_per": IMAGES_AT_ONCE}) as result:
        for rows in result.partitions():
            tags = _tags_to_show(connection, rows, show) if show is not None else [()] * len(rows)
            for row, shown in zip(rows, tags, strict=True):
                probability = None if row.score is None else to_probability(row.score)
                yield Hit(row.id, row.uri, row.width, row.height, probability, shown)


def count(connection: Connection, model: Model, tree: Node) -> int:
    """The number of images that `search` finds."""
    source = predictions.join(images, images.c.id == predictions.c.image_id) if _asks_for_uris(tree) else predictions
    query = select(func.count()).select_from(source).where(tagged(connection, model.id))
    return connection.scalar(query.where(condition(connection, model, tree))) or 0


def condition(connection: Connection, model: Model, tree: Node) -> ColumnElement[bool]:
    """A query as a condition on `predictions` and `images`, for `read_tag_batches`. It does not select the model."""
    return _Conditions(connection, model.id, indexed_score(connection, model.id)).of(tree)


def scores_to_show(tree: Node, model: Model, tags: int) -> Int16Array:
    """(tags,) the lowest score at which each tag is reported with a hit, in ten-thousandths; NEVER for most tags.

    A tag that the query names is reported whenever it is stored. A tag that a pattern or category matches is reported
    if it makes the query true.
    """
    scores = np.full(tags, NEVER, dtype=np.int16)
    for leaf, positive in _leaves(tree, positive=True):
        tag_ids = list(leaf.tag_ids)
        if len(tag_ids) == 1:
            scores[tag_ids] = model.floor
        elif positive:
            scores[tag_ids] = np.minimum(scores[tag_ids], leaf.lows)
    return scores


class _Conditions:
    """Builds the condition of a tree."""

    def __init__(self, connection: Connection, model_id: int, indexed: int | None) -> None:
        self._connection = connection
        self._model_id = model_id
        self._indexed = indexed

    def of(self, node: Node, *, positive: bool = True) -> ColumnElement[bool]:
        """The condition of a node.

        Args:
            positive: False where an index cannot help, for example below a Not.
        """
        match node:
            case Reaches():
                return self._reaching(node, positive=positive)
            case BestIn():
                group = node.group
                return best_is(self._connection, self._model_id, node.tag_ids, group.tag_ids, group.lows)
            case Under():
                return begins_with(node.prefix)
            case Not():
                return not_(self.of(node.part, positive=False))
            case And():
                return and_(true(), *(self.of(part, positive=positive) for part in node.parts))
            case Or():
                # If the index does not help with one part, all images are read anyway.
                positive = positive and self._narrows(node)
                return or_(*(self.of(part, positive=positive) for part in node.parts))
            case _:
                assert_never(node)

    def _reaching(self, node: Reaches, *, positive: bool) -> ColumnElement[bool]:
        if not node.tag_ids:
            return false()
        use = positive and can_use_index(node.tag_ids, node.lows, self._indexed)
        indexed = self._indexed if use else None
        return reaches(self._connection, self._model_id, node.tag_ids, node.lows, node.high, indexed=indexed)

    def _narrows(self, node: Node) -> bool:
        """Whether the index finds a superset of the images of a node."""
        match node:
            case Reaches():
                return can_use_index(node.tag_ids, node.lows, self._indexed)
            case And():
                return any(self._narrows(part) for part in node.parts)
            case Or():
                return all(self._narrows(part) for part in node.parts)
            case _:
                return False


def _leaves(node: Node, *, positive: bool) -> Iterator[tuple[Reaches, bool]]:
    match node:
        case Reaches():
            yield node, positive
        case Not():
            yield from _leaves(node.part, positive=not positive)
        case And() | Or():
            for part in node.parts:
                yield from _leaves(part, positive=positive)


def _asks_for_uris(node: Node) -> bool:
    match node:
        case And() | Or():
            return any(_asks_for_uris(part) for part in node.parts)
        case Not():
            return _asks_for_uris(node.part)
        case _:
            return isinstance(node, Under)


def _tags_to_show(connection: Connection, rows: Any, show: Int16Array) -> list[tuple[tuple[int, float], ...]]:
    counts, tag_ids, scores = unpack(connection, rows, int(show.min(initial=NEVER)))
    chosen = scores >= show[tag_ids]
    before = offsets_of(chosen)[offsets_of(counts)].tolist()
    pairs = list(zip(tag_ids[chosen].tolist(), scores[chosen].tolist(), strict=True))
    return [
        tuple(
            (tag_id, to_probability(score))
            for tag_id, score in sorted(pairs[start:end], key=lambda pair: (-pair[1], pair[0]))
        )
        for start, end in pairwise(before)
    ]
