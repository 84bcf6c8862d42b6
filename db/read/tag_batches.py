"""The tags that a policy keeps, read from the database many images at a time.

A batch is three arrays in step (CSR), so that what has to be done to every tag of millions of images is done by numpy:

    offsets   0        2     3              6       image i has the tags from offsets[i] to offsets[i + 1]
    tag_ids   17  4    4     9   17  2
    scores    91  40   77    99  52  52             within an image by falling score, ties by tag id
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, Connection, select

from db.ledger.models import Model
from db.policy.policies import Cut
from db.schema import Int16Array, images, predictions
from db.scores import SCALE
from db.sql.gone_scope import tagged
from db.sql.score_sql import Packed, begins_with, unpack
from db.sql.streams import plan_for_all_rows

IMAGES_AT_ONCE = 2_000
"""In one batch: memory stays flat at any size. 2,000 rows of 100 kept tags are 1.2 MB."""

Int64Array = npt.NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TagBatch:
    """Some images, and the tags that each keeps."""

    image_ids: Sequence[int]
    uris: Sequence[str]
    widths: Sequence[int | None]
    """Pixels, as the file is."""
    heights: Sequence[int | None]
    offsets: Int64Array
    """(images + 1,)"""
    tag_ids: Int16Array
    scores: Int16Array
    """Ten-thousandths."""

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def rows(self) -> Int64Array:
        """For every tag the position of its image in this batch."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.offsets))

    def only(self, chosen: npt.NDArray[np.bool_]) -> "TagBatch":
        """The same images with some of the tags: those where `chosen`, in step with `tag_ids`, is true."""
        before = np.concatenate([[0], np.cumsum(chosen)])
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
) -> Iterator[TagBatch]:
    """Every image that has a prediction, in the order of registration; one that keeps no tag is there too.

    Args:
        where: a condition on `predictions` and `images`, as `db.search.execute` makes them.
        under: only images whose uri begins with this.
    """
    query = (
        select(images.c.id, images.c.uri, images.c.width, images.c.height, Packed(cut.lowest))
        .select_from(predictions.join(images, images.c.id == predictions.c.image_id))
        .where(tagged(connection, model.id))
        .order_by(predictions.c.image_id)
    )
    if under:
        query = query.where(begins_with(under))
    if where is not None:
        query = query.where(where)
        plan_for_all_rows(connection)
    with connection.execute(query, execution_options={"yield_per": IMAGES_AT_ONCE}) as result:
        for rows in prefetched(result.partitions()):
            ids, uris, widths, heights, packed = zip(*rows, strict=True)
            offsets, tag_ids, scores = _ranked(*unpack(connection, packed))
            yield apply_cut(TagBatch(ids, uris, widths, heights, offsets, tag_ids, scores), cut)


def apply_cut(found: TagBatch, cut: Cut) -> TagBatch:
    """What a cut leaves of images that have at least all that it keeps."""
    # A single threshold was applied by the database.
    return found if cut.uniform is not None else found.only(kept_mask(found, cut))


def kept_mask(found: TagBatch, cut: Cut) -> npt.NDArray[np.bool_]:
    """Which tags a cut keeps, in step with `found.tag_ids`. `found` has at least the tags at or above `cut.lowest`."""
    mask: npt.NDArray[np.bool_] = found.scores >= cut.scores[found.tag_ids]
    if cut.mcut is not None:
        mask &= _above_the_widest_gap(found, cut.mcut, cut.floor)
    if cut.top is not None:
        # Falling scores: the so-manieth tag that is still there, counted from the first of its image.
        before = np.concatenate([[0], np.cumsum(mask)])
        mask &= before[1:] - before[found.offsets[found.rows]] <= cut.top
    return mask


def _ranked(counts: Int64Array, tag_ids: Int16Array, scores: Int16Array) -> tuple[Int64Array, Int16Array, Int16Array]:
    """Offsets, and tags by falling score, ties by tag id, within each image."""
    offsets = np.concatenate([[0], np.cumsum(counts)])
    rows = np.repeat(np.arange(counts.size, dtype=np.int64), counts)
    # One number that sorts as image, falling score, tag id: sorting numbers is several times faster than lexsort.
    key = (rows << 32) | ((SCALE - scores.astype(np.int64)) << 16) | tag_ids.astype(np.int64)
    key.sort()
    return offsets, (key & 0x7FFF).astype(np.int16), (SCALE - ((key >> 16) & 0x7FFF)).astype(np.int16)


def _above_the_widest_gap(kept: TagBatch, categories: Int16Array, floor: int) -> npt.NDArray[np.bool_]:
    """MCut: in each category of an image, what lies above the widest gap between two neighbouring scores.

    Largeron, Moulin, Gery: "MCut: a thresholding strategy for multi-label classification" (IDA 2012). Of equally wide
    gaps the highest counts. What is not stored is taken to lie right at the floor.
    """
    if not kept.tag_ids.size:
        return np.zeros(0, dtype=np.bool_)
    category = categories[kept.tag_ids].astype(np.int64)
    group = (kept.rows << 16) | category
    order = np.argsort(group, kind="stable")  # stable: falling scores stay falling
    scores, group = kept.scores[order].astype(np.int64), group[order]
    starts = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    ends = np.append(starts[1:], group.size) - 1
    sizes = ends - starts + 1
    gaps = scores - np.append(scores[1:], 0)
    gaps[ends] = scores[ends] - floor
    # Where all tags of the category are stored, there is no gap behind the last one.
    complete = sizes == np.bincount(categories)[category[order][starts]]
    gaps[ends[complete]] = -1
    widest = np.repeat(np.maximum.reduceat(gaps, starts), sizes)
    places = np.where(gaps == widest, np.arange(gaps.size), gaps.size)
    above = np.empty(gaps.size, dtype=np.bool_)
    above[order] = np.arange(gaps.size) <= np.repeat(np.minimum.reduceat(places, starts), sizes)
    return above


def prefetched(items: Iterator[T]) -> Iterator[T]:
    """The same items, each next one fetched while the caller works on the one before."""
    end: Any = object()
    with ThreadPoolExecutor(1, thread_name_prefix="fetch") as pool:
        coming = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item
