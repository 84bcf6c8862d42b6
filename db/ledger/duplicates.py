"""Stored results of identical files. A model gives the same scores for the same bytes, so they are copied."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, select

from db.schema import files, predictions
from db.scores import Scores
from db.sql.in_list import in_hashes, in_list
from db.sql.scores.packed import packed, unpack
from db.sql.streams import plan_with_indexes

_COPIES = 2
"""Copies of each hash that one statement reads, on average."""


@dataclass(frozen=True, slots=True)
class StoredResult:
    """The stored result of a file, known by the hash of its bytes."""

    width: int
    """Pixels, as stored in the file; so is the height."""
    height: int
    format: str
    """Pillow's name of the format, in lower case."""
    scores: Scores


def stored_results(connection: Connection, model_id: int, hashes: Sequence[bytes]) -> Mapping[bytes, StoredResult]:
    """The results of files that the model has predicted under any reference.

    Args:
        hashes: SHA-256 of the bytes of each file, 32 bytes.

    Returns:
        Results by hash. Hashes without a prediction are missing.
    """
    if not hashes:
        return {}
    image_ids = _one_image_of_each(connection, model_id, hashes)
    if not image_ids:
        return {}
    query = (
        select(files.c.sha256, files.c.width, files.c.height, files.c.format, *packed(connection, 0))
        .select_from(predictions.join(files, files.c.image_id == predictions.c.image_id))
        .where(predictions.c.model_id == model_id, in_list(connection, predictions.c.image_id, image_ids))
    )
    rows = connection.execute(query).all()
    counts, tag_ids, scores = unpack(connection, rows, 0)
    ends = np.cumsum(counts)[:-1]
    pairs = zip(np.split(tag_ids, ends), np.split(scores, ends), strict=True)
    return {
        row.sha256: StoredResult(row.width, row.height, row.format, Scores(*pair))
        for row, pair in zip(rows, pairs, strict=True)
    }


def _one_image_of_each(connection: Connection, model_id: int, hashes: Sequence[bytes]) -> list[int]:
    """Ids of images that have the prediction of a hash, one for each hash that has any."""
    # The prediction is looked up by its key in a scalar subquery, which no planner reorders: before the first
    # `analyze`, PostgreSQL compared each hash with all predictions of the model.
    version = (
        select(predictions.c.image_version)
        .where(predictions.c.model_id == model_id, predictions.c.image_id == files.c.image_id)
        .correlate(files)
        .scalar_subquery()
    )
    plan_with_indexes(connection)
    found: dict[bytes, int] = {}
    wanted = set(hashes)
    while wanted:
        # Limited, since a placeholder picture may be registered a million times. A subquery with a limit for each hash
        # would not run on Citus, and `distinct on` reads all copies.
        limit = _COPIES * len(wanted)
        query = select(files.c.sha256, files.c.image_id).where(
            in_hashes(connection, files.c.sha256, sorted(wanted)), files.c.image_version == version
        )
        rows = connection.execute(query.limit(limit)).all()
        found.update(map(tuple, rows))
        if len(rows) < limit:
            break
        wanted -= found.keys()
    return list(found.values())
