"""The same bytes under another reference: what a model said about them once, it would say again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, select

from db.schema import Int16Array, images, predictions
from db.scores import Scores
from db.sql.in_list import hash_rows, in_list
from db.sql.score_sql import Packed, unpack


@dataclass(frozen=True, slots=True)
class StoredResult:
    """What is stored about some bytes."""

    width: int
    height: int
    format: str
    scores: Scores


def stored_results(connection: Connection, model_id: int, hashes: Sequence[bytes]) -> Mapping[bytes, StoredResult]:
    """Those of these files, by the SHA-256 of their bytes, that the model has predicted under any reference."""
    if not hashes:
        return {}
    one_of = _one_image_of_each(connection, model_id, hashes)
    if not one_of:
        return {}
    query = (
        select(images.c.sha256, images.c.width, images.c.height, images.c.format, Packed(0).label("packed"))
        .select_from(predictions.join(images, images.c.id == predictions.c.image_id))
        .where(predictions.c.model_id == model_id, in_list(connection, predictions.c.image_id, one_of))
    )
    rows = connection.execute(query).all()
    counts, tag_ids, scores = unpack(connection, [row.packed for row in rows])
    ends = np.cumsum(counts)[:-1]
    pairs = zip(np.split(tag_ids, ends), np.split(scores, ends), strict=True)
    return {
        row.sha256: StoredResult(row.width, row.height, row.format, _ascending(*pair))
        for row, pair in zip(rows, pairs, strict=True)
    }


def _one_image_of_each(connection: Connection, model_id: int, hashes: Sequence[bytes]) -> list[int]:
    wanted = hash_rows(connection, hashes)
    # One look into the index a hash, since a placeholder picture may be there a million times. The prediction by its
    # key, as a subquery with one value, which no planner turns round: before the first `analyze`, PostgreSQL compared
    # each hash with all predictions of the model.
    version = (
        select(predictions.c.image_version)
        .where(predictions.c.model_id == model_id, predictions.c.image_id == images.c.id)
        .correlate(images)
        .scalar_subquery()
    )
    one = (
        select(images.c.id)
        .where(images.c.sha256 == wanted.c.sha256, images.c.version == version)
        .limit(1)
        .correlate(wanted)
        .scalar_subquery()
    )
    return [found for found in connection.scalars(select(one).select_from(wanted)) if found is not None]


def _ascending(tag_ids: Int16Array, scores: Int16Array) -> Scores:
    order = np.lexsort((tag_ids, scores))
    return Scores(tag_ids[order], scores[order])
