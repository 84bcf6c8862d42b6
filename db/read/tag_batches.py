"""The tags that a policy keeps, read from the database many images at a time.

A batch is three arrays in CSR layout, so that numpy does the work on each tag of millions of images:

    offsets   0        2     3              6       image i has the tags from offsets[i] to offsets[i + 1]
    tag_ids   17  4    4     9   17  2
    scores    91  40   77    99  52  52             within an image by descending score, ties by ascending tag id
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, Connection, Select, select

from db.arrays.batches import prefetched
from db.arrays.csr import offsets_of, ranges
from db.arrays.types import Int16Array, Int32Array, Int64Array
from db.ledger.models import Model
from db.policy.policies import Cut
from db.schema import files, images, predictions
from db.scores import SCALE, TAG_ID_BITS
from db.sql.current_file import is_file_of
from db.sql.gone_scope import tagged
from db.sql.scores.packed import packed, unpack
from db.sql.scores.score_sql import begins_with
from db.sql.streams import plan_for_all_rows, stream_in_order

IMAGES_AT_ONCE = 2_000
"""Images in one batch, which bounds the memory at any size of the collection. 2,000 images of 100 tags take 1.2 MB."""


@dataclass(frozen=True, slots=True)
class TagBatch:
    """Some images, and the tags that each keeps."""

    image_ids: Sequence[int]
    uris: Sequence[str]
    widths: Sequence[int | None]
    """Pixels, as stored in the file; so are the heights. Empty if they were not read."""
    heights: Sequence[int | None]
    offsets: Int64Array
    """(images + 1,) image i has the tags from offsets[i] to offsets[i + 1]."""
    tag_ids: Int32Array
    """(tags of all images,)"""
    scores: Int16Array
    """(tags of all images,) ten-thousandths."""

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def rows(self) -> Int64Array:
        """(tags of all images,) the position of each tag's image in this batch."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.offsets))

    def only(self, chosen: npt.NDArray[np.bool_]) -> "TagBatch":
        """The same images with the tags where `chosen` is true.

        Args:
            chosen: (tags of all images,)
        """
        before = offsets_of(chosen)
        return TagBatch(
            self.image_ids,
            self.uris,
            self.widths,
            self.heights,
            before[self.offsets],
            self.tag_ids[chosen],
            self.scores[chosen],
        )


def read_tag_batches(
    connection: Connection,
    model: Model,
    cut: Cut,
    *,
    where: ColumnElement[bool] | None = None,
    under: str = "",
    sizes: bool = True,
) -> Iterator[TagBatch]:
    """All images that have a prediction, in the order of registration, including those that keep no tag.

    Args:
        where: a condition on `predictions` and `images`, from `db.search.execute.condition`.
        under: only images whose uri begins with this prefix.
        sizes: read widths and heights, which are in a table of their own.
    """
    source = predictions.join(images, images.c.id == predictions.c.image_id)
    columns = [images.c.id, images.c.uri]
    if sizes:
        source = source.outerjoin(files, is_file_of())
        columns += [files.c.width, files.c.height]
    query = (
        select(*columns, *packed(connection, cut.lowest))
        .select_from(source)
        .where(tagged(connection, model.id))
        .order_by(predictions.c.image_id)
    )
    if under:
        query = query.where(begins_with(under))
    if where is not None:
        query = query.where(where)
        plan_for_all_rows(connection)
    yield from prefetched(_decoded(connection, query, cut, sizes=sizes))


def _decoded(connection: Connection, query: Select[Any], cut: Cut, *, sizes: bool) -> Iterator[TagBatch]:
    """Runs in the thread that fetches: numpy decodes a batch while the caller writes the text of the one before."""
    for rows in stream_in_order(connection, query, IMAGES_AT_ONCE):
        ids, uris, *others = zip(*rows, strict=True)
        widths, heights = others[:2] if sizes else ((), ())
        offsets, tag_ids, scores = _descending(*unpack(connection, rows, cut.lowest))
        yield apply_cut(TagBatch(ids, uris, widths, heights, offsets, tag_ids, scores), cut)


def apply_cut(batch: TagBatch, cut: Cut) -> TagBatch:
    """The batch with only the tags that a cut keeps. The database has selected the tags from `cut.lowest` on."""
    # The database applies a single threshold completely.
    return batch if cut.uniform is not None else batch.only(kept_mask(batch, cut))


def kept_mask(batch: TagBatch, cut: Cut) -> npt.NDArray[np.bool_]:
    """(tags of all images,) whether a cut keeps each tag of a batch.

    Args:
        batch: has at least the tags at or above `cut.lowest`.
    """
    mask: npt.NDArray[np.bool_] = batch.scores >= cut.scores[batch.tag_ids]
    if cut.mcut is not None:
        mask &= _above_the_widest_gap(batch, cut.mcut, cut.floor)
    if cut.groups is not None:
        _keep_the_best(batch, mask, cut.groups)
    if cut.top is not None:
        # The rank of each tag among those still kept, from 1: within an image scores are descending.
        before = offsets_of(mask)
        mask &= before[1:] - before[batch.offsets[batch.rows]] <= cut.top
    return mask


def kept_of(probabilities: Sequence[float], cut: Cut) -> list[int]:
    """The tags that a cut would keep of an image if it were stored, most probable first.

    Args:
        probabilities: (tags,) of all tags.
    """
    scores = np.array([int(value * SCALE) for value in probabilities], dtype=np.int16)
    stored = np.flatnonzero(scores >= cut.floor)
    ranked = stored[np.argsort(-scores[stored].astype(np.int64), kind="stable")].astype(np.int32)
    one = TagBatch([0], [""], [None], [None], np.array([0, ranked.size]), ranked, scores[ranked])
    kept: list[int] = ranked[kept_mask(one, cut)].tolist()
    return kept


def _keep_the_best(batch: TagBatch, mask: npt.NDArray[np.bool_], groups: Int32Array) -> None:
    """In place: of the tags of a group that an image keeps, only the first stays. Scores are descending.

    Args:
        mask: (tags of all images,)
        groups: (tags,) the number of each tag's group, -1 outside of them.
    """
    positions = np.flatnonzero(mask & (groups[batch.tag_ids] >= 0))
    number = batch.rows[positions] * (int(groups.max()) + 1) + groups[batch.tag_ids[positions]]
    _, firsts = np.unique(number, return_index=True)
    mask[positions] = False
    mask[positions[firsts]] = True


def _descending(
    counts: Int64Array, tag_ids: Int32Array, scores: Int16Array
) -> tuple[Int64Array, Int32Array, Int16Array]:
    """(offsets, tag ids, scores) by descending score within each image; ties stay by ascending tag id.

    Args:
        counts: (images,) number of tags of each.
        tag_ids: (tags,) by ascending score within each image, ties by ascending tag id; so are the scores.
    """
    offsets = offsets_of(counts)
    mirrored = np.repeat(offsets[:-1] + offsets[1:] - 1, counts)
    mirrored -= np.arange(mirrored.size)
    tag_ids, scores = tag_ids[mirrored], scores[mirrored]
    # Mirroring has also reversed the tags of equal scores: these runs are mirrored again.
    equal = np.zeros(scores.size + 1, dtype=np.bool_)
    np.equal(scores[1:], scores[:-1], out=equal[1:-1])
    equal[offsets] = False
    firsts, lasts = np.flatnonzero(equal[1:] > equal[:-1]), np.flatnonzero(equal[1:] < equal[:-1])
    runs = ranges(firsts, lasts - firsts + 1)
    tag_ids[runs] = tag_ids[np.repeat(firsts + lasts, lasts - firsts + 1) - runs]
    return offsets, tag_ids, scores


def _above_the_widest_gap(batch: TagBatch, categories: Int32Array, floor: int) -> npt.NDArray[np.bool_]:
    """MCut: in each category of an image, the tags above the widest gap between two neighbouring scores.

    Largeron, Moulin, Gery: "MCut: a thresholding strategy for multi-label classification" (IDA 2012). Of equally wide
    gaps the highest counts. Scores that are not stored count as the floor.

    Args:
        categories: (tags,) the number of each tag's category.

    Returns:
        (tags of all images,)
    """
    if not batch.tag_ids.size:
        return np.zeros(0, dtype=np.bool_)
    category = categories[batch.tag_ids].astype(np.int64)
    group = (batch.rows << TAG_ID_BITS) | category  # a category has at least one tag
    order = np.argsort(group, kind="stable")  # stable: scores stay descending
    scores, group = batch.scores[order].astype(np.int64), group[order]
    starts = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    ends = np.append(starts[1:], group.size) - 1
    sizes = ends - starts + 1
    gaps = scores - np.append(scores[1:], 0)
    gaps[ends] = scores[ends] - floor
    # If all tags of the category are stored, there is no gap below the last one.
    complete = sizes == np.bincount(categories)[category[order][starts]]
    gaps[ends[complete]] = -1
    widest = np.repeat(np.maximum.reduceat(gaps, starts), sizes)
    positions = np.where(gaps == widest, np.arange(gaps.size), gaps.size)
    above = np.empty(gaps.size, dtype=np.bool_)
    above[order] = np.arange(gaps.size) <= np.repeat(np.minimum.reduceat(positions, starts), sizes)
    return above
