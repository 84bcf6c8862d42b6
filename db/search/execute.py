"""Executes searches: the images for which a query is true, with what is shown of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, null, select

from db.arrays.batches import batched
from db.arrays.csr import offsets_of
from db.arrays.types import Int16Array
from db.ledger.models import Model
from db.schema import files, images, predictions
from db.scores import NEVER, to_probability
from db.search import conditions, matches
from db.search.tree import Node, leaves
from db.sql.current_file import is_file_of
from db.sql.in_list import in_list
from db.sql.scores.conditions import ScoreOf
from db.sql.scores.packed import packed, unpack

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
    ids: Iterator[int]
    if sort is None:
        ids = (image_id for some in matches.matching_ids(connection, model, tree) for image_id in some.tolist())
    else:
        ordered = matches.sorted_matches(connection, model, tree, sort, descending=descending, limit=limit)
        ids = iter(ordered.tolist())
    for some in batched(islice(ids, limit), IMAGES_AT_ONCE):
        yield from _hits(connection, model, some, sort, show)


def count(connection: Connection, model: Model, tree: Node) -> int:
    """The number of images that `search` finds."""
    return matches.number_of_matches(connection, model, tree)


def condition(connection: Connection, model: Model, tree: Node) -> ColumnElement[bool]:
    """A query as a condition on `predictions` and `images`, for `read_tag_batches`. It does not select the model."""
    ids = matches.few_ids(connection, model, tree)
    if ids is not None:
        return in_list(connection, predictions.c.image_id, ids)
    return conditions.condition(connection, model.id, tree)


def scores_to_show(tree: Node, model: Model, tags: int) -> Int16Array:
    """(tags,) the lowest score at which each tag is reported with a hit, in ten-thousandths; NEVER for most tags.

    A tag that the query names is reported whenever it is stored. A tag that a pattern or category matches is reported
    if it makes the query true.
    """
    scores = np.full(tags, NEVER, dtype=np.int16)
    for leaf, positive in leaves(tree):
        tag_ids = list(leaf.tag_ids)
        if len(tag_ids) == 1:
            scores[tag_ids] = model.floor
        elif positive:
            scores[tag_ids] = np.minimum(scores[tag_ids], leaf.lows)
    return scores


def _hits(
    connection: Connection, model: Model, ids: Sequence[int], sort: int | None, show: Int16Array | None
) -> Iterator[Hit]:
    """The hits of some images, in the order of `ids`."""
    columns: list[ColumnElement[Any]] = [
        images.c.id,
        images.c.uri,
        files.c.width,
        files.c.height,
        (ScoreOf(sort) if sort is not None else null()).label("score"),
    ]
    if show is not None:
        columns += packed(connection, int(show.min(initial=NEVER)))
    query = (
        select(*columns)
        .select_from(predictions.join(images, images.c.id == predictions.c.image_id).outerjoin(files, is_file_of()))
        .where(predictions.c.model_id == model.id, in_list(connection, predictions.c.image_id, ids))
    )
    rows = connection.execute(query).all()
    tags = _tags_to_show(connection, rows, show) if show is not None else [()] * len(rows)
    found = {row.id: (row, shown) for row, shown in zip(rows, tags, strict=True)}
    for image_id in ids:
        # An image that was deleted by hand has postings, and no row.
        if image_id in found:
            row, shown = found[image_id]
            probability = None if row.score is None else to_probability(row.score)
            yield Hit(row.id, row.uri, row.width, row.height, probability, shown)


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
