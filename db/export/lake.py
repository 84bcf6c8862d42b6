"""Stored scores as Parquet for other engines: a file for each block of images, one row for an image."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from sqlalchemy import Connection, select

from db.arrays.batches import prefetched
from db.arrays.csr import offsets_of
from db.arrays.types import Int16Array, Int32Array, Int64Array
from db.export.parquet import import_pyarrow
from db.ledger.changed_blocks import BLOCK_BITS
from db.ledger.models import Model, Tag
from db.postings.state import in_blocks, read_state
from db.read.tag_batches import IMAGES_AT_ONCE
from db.schema import gone, images, posting_blocks, predictions
from db.scope import Gone
from db.sql.gone_scope import scope_of, tagged
from db.sql.scores.packed import packed, unpack
from db.sql.streams import stream_in_order

_SCORES_IN_GROUP = 4 * 2**20
"""A row group ends after so many scores: 24 MB before they are compressed."""


@dataclass(frozen=True, slots=True)
class BlockState:
    """What the rows of a block depend on. If it is the same in two snapshots, so are the rows."""

    version: int | None
    """Of the block's postings; None if they do not describe its predictions, which may then have changed."""
    gone: str
    """A hash of the images of the block that are marked as gone; empty if none is, or if all images are in scope."""


@dataclass(frozen=True, slots=True)
class Group:
    """Images of one block by ascending id: a row group."""

    image_ids: Sequence[int]
    uris: Sequence[str]
    counts: Int64Array
    """(images,) number of scores of each image."""
    tag_ids: Int32Array
    """(scores of all images,) ascending by score within an image, ties by tag id."""
    scores: Int16Array
    """(scores of all images,) ten-thousandths."""


def read_blocks(connection: Connection, model: Model) -> dict[int, BlockState]:
    """The blocks of a model that may have predictions, ascending, as of the snapshot of the transaction."""
    state = read_state(connection, model.id)
    of_model = select(posting_blocks.c.block, posting_blocks.c.version).where(posting_blocks.c.model_id == model.id)
    versions: dict[int, int] = dict(connection.execute(of_model).all())
    marks = _gone_marks(connection)
    return {
        block: BlockState(versions[block] if block in state.current else None, marks.get(block, ""))
        for block in sorted({*state.current, *state.changed})
    }


def read_groups(connection: Connection, model: Model, block: int) -> Iterator[Group]:
    """All images of a block that have a prediction and are in scope, with all their stored scores."""
    query = (
        select(images.c.id, images.c.uri, *packed(connection, model.floor))
        .select_from(predictions.join(images, images.c.id == predictions.c.image_id))
        .where(tagged(connection, model.id), in_blocks([block]))
        .order_by(predictions.c.image_id)
    )
    parts: list[Group] = []
    size = 0
    for rows in prefetched(stream_in_order(connection, query, IMAGES_AT_ONCE)):
        ids, uris, *_ = zip(*rows, strict=True)
        parts.append(Group(ids, uris, *unpack(connection, rows, model.floor)))
        size += parts[-1].scores.size
        if size >= _SCORES_IN_GROUP:
            yield _joined(parts)
            parts, size = [], 0
    if parts:
        yield _joined(parts)


class BlockFile:
    """A Parquet file with a row for each image: image_id, uri, tag_ids, scores. Call `close` at the end."""

    def __init__(self, path: Path) -> None:
        self._pa = pa = import_pyarrow()
        self._lists = [pa.list_(pa.field("element", kind, nullable=False)) for kind in (pa.int32(), pa.int16())]
        kinds = {"image_id": pa.int64(), "uri": pa.string(), "tag_ids": self._lists[0], "scores": self._lists[1]}
        self._schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in kinds.items()])
        self._writer = pa.parquet.ParquetWriter(
            path,
            self._schema,
            compression="zstd",
            use_dictionary=["tag_ids.list.element"],
            # Within an image scores ascend, in small steps. BYTE_STREAM_SPLIT takes 8 % less of a file, and readers of
            # before 2024 do not know it for integers.
            column_encoding={"scores.list.element": "DELTA_BINARY_PACKED"},
        )

    def write(self, group: Group) -> None:
        """Add a row group."""
        pa = self._pa
        offsets = pa.array(offsets_of(group.counts).astype(np.int32))
        columns = [
            pa.array(group.image_ids, pa.int64()),
            pa.array(group.uris, pa.string()),
            *(
                pa.ListArray.from_arrays(offsets, pa.array(values), type=kind)
                for values, kind in zip((group.tag_ids, group.scores), self._lists, strict=True)
            ),
        ]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        """Write the footer, without which no reader opens the file."""
        self._writer.close()


def write_tags(path: Path, tags: Sequence[Tag]) -> None:
    """A Parquet file with a row for each tag of a model: tag_id, name, category."""
    pa = import_pyarrow()
    fields = [
        pa.field("tag_id", pa.int32(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("category", pa.string()),
    ]
    columns = [range(len(tags)), [tag.name for tag in tags], [tag.category for tag in tags]]
    table = pa.table(
        [pa.array(values, field.type) for values, field in zip(columns, fields, strict=True)], pa.schema(fields)
    )
    pa.parquet.write_table(table, path, compression="zstd")


def _joined(parts: Sequence[Group]) -> Group:
    return Group(
        [one for part in parts for one in part.image_ids],
        [one for part in parts for one in part.uris],
        np.concatenate([part.counts for part in parts]),
        np.concatenate([part.tag_ids for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )


def _gone_marks(connection: Connection) -> dict[int, str]:
    """A hash of the marked images by block. Marks change no prediction, so the versions of postings do not tell."""
    if scope_of(connection) is Gone.INCLUDE:
        return {}
    ids = np.array(connection.scalars(select(gone.c.image_id).order_by(gone.c.image_id)).all(), dtype=np.int64)
    blocks, starts = np.unique(ids >> BLOCK_BITS, return_index=True)
    ends = pairwise([*starts.tolist(), ids.size])
    return {
        block: hashlib.sha256(ids[start:end].tobytes()).hexdigest()
        for block, (start, end) in zip(blocks.tolist(), ends, strict=True)
    }
