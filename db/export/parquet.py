"""Exports as Parquet, through pyarrow: a row a tag, or a row an image with a column for every tag.

Both are written one row group at a time, so that memory does not grow with the number of images.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from db.arrays.types import Int64Array
from db.errors import SettingsError
from db.export.captions import Captioner, Written
from db.read.tag_batches import IMAGES_AT_ONCE, TagBatch
from db.scores import SCALE

_WIDE_CELLS = 16 * 2**20
"""Probabilities in a row group of the wide form: 64 MB before they are compressed."""
_WIDE_CHUNKS = 40_000
"""Columns times row groups in one file of the wide form: a writer, and a reader, holds 1 kB for each."""
MOST_WIDE_COLUMNS = 32_767
"""Tags of a file of the wide form. Its footer has a hundred bytes and more for each column of each row group."""
_IMAGE_COLUMNS = ("image_id", "uri", "width", "height")


def import_pyarrow() -> ModuleType:
    """pyarrow, with its Parquet module.

    Raises:
        SettingsError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise SettingsError("Parquet needs pyarrow, not installed here: pip install 'tagonce[parquet]'") from error
    return pa  # type: ignore[no-any-return]


class ParquetFile(ABC):
    """A Parquet file, written one batch of images at a time. Call `close` at the end.

    Args:
        metadata: key-value pairs for the schema.
    """

    def __init__(self, path: Path, captioner: Captioner, metadata: Mapping[str, str]) -> None:
        self._pa = import_pyarrow()
        self._captioner = captioner
        self._schema = self._pa.schema(self._fields(), metadata=dict(metadata))
        self._writer = self._pa.parquet.ParquetWriter(path, self._schema, compression="zstd", **self._options())

    @abstractmethod
    def write(self, batch: TagBatch, found: Written) -> None:
        """Add these images.

        Args:
            batch: the images, as read.
            found: their captions, from `Captioner.written`.
        """

    def close(self) -> None:
        """Write the footer, without which no reader opens the file."""
        self._writer.close()

    @abstractmethod
    def _fields(self) -> list[Any]: ...

    def _options(self) -> dict[str, Any]:
        return {}


class LongParquet(ParquetFile):
    """A row for each tag of an image: image_id, uri, tag, category, probability. Images without a tag have no row."""

    def _fields(self) -> list[Any]:
        pa = self._pa
        names = pa.dictionary(pa.int32(), pa.string())
        return [
            pa.field("image_id", pa.int64(), nullable=False),
            pa.field("uri", pa.string(), nullable=False),
            pa.field("tag", names, nullable=False),
            pa.field("category", names),
            pa.field("probability", pa.float32(), nullable=False),
        ]

    def write(self, batch: TagBatch, found: Written) -> None:
        pa, rows = self._pa, found.rows
        columns = [
            pa.array(np.array(batch.image_ids, dtype=np.int64)[rows]),
            pa.array(batch.uris, pa.string()).take(pa.array(rows)),
            self._named(self._captioner.texts, found.items),
            self._named(self._captioner.categories, found.items),
            pa.array(_probabilities(found)),
        ]
        if found.items.size:
            self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))

    def _named(self, values: Sequence[str | None], items: Int64Array) -> Any:
        pa = self._pa
        distinct = list(dict.fromkeys(value for value in values if value is not None))
        numbers: dict[str | None, int] = {value: number for number, value in enumerate(distinct)}
        codes = np.array([numbers.get(value, -1) for value in values], dtype=np.int32)[items]
        return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), pa.array(distinct, pa.string()))


class WideParquet(ParquetFile):
    """A row for each image: image_id, uri, width, height, and a column for each tag: its probability, or null.

    Two tags with the same name have one column. A tag with the name of one of the first four columns becomes
    `tag:width`.
    """

    def _fields(self) -> list[Any]:
        pa = self._pa
        self._names = list(dict.fromkeys(self._captioner.texts))
        numbers = {name: number for number, name in enumerate(self._names)}
        self._columns = np.array([numbers[text] for text in self._captioner.texts], dtype=np.int64)
        first = [
            pa.field("image_id", pa.int64(), nullable=False),
            pa.field("uri", pa.string(), nullable=False),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
        ]
        return first + [
            pa.field(f"tag:{name}" if name in _IMAGE_COLUMNS else name, pa.float32()) for name in self._names
        ]

    def _options(self) -> dict[str, Any]:
        # With thousands of columns these take more room than the numbers.
        return {"write_statistics": False, "use_dictionary": False}

    def write(self, batch: TagBatch, found: Written) -> None:
        size = _rows_at_once(len(self._names))
        columns, rows, probabilities = self._columns[found.items], found.rows, _probabilities(found)
        for start in range(0, len(batch), size):
            stop = min(start + size, len(batch))
            part = slice(found.offsets[start], found.offsets[stop])
            # Column after column in memory: each is an array for Arrow, without a copy.
            values = np.zeros((len(self._names), stop - start), dtype=np.float32)
            absent = np.ones(values.shape, dtype=np.bool_)
            values[columns[part], rows[part] - start] = probabilities[part]
            absent[columns[part], rows[part] - start] = False
            self._write_rows(batch, slice(start, stop), values, absent)

    def _write_rows(self, batch: TagBatch, rows: slice, values: Any, absent: Any) -> None:
        pa = self._pa
        arrays = [
            pa.array(batch.image_ids[rows], pa.int64()),
            pa.array(batch.uris[rows], pa.string()),
            pa.array(batch.widths[rows], pa.int32()),
            pa.array(batch.heights[rows], pa.int32()),
            *(pa.array(column, mask=mask) for column, mask in zip(values, absent, strict=True)),
        ]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))


def images_in_a_file(columns: int) -> int:
    """Most images in one file of the wide form. More images go into several files."""
    return _rows_at_once(columns) * max(1, _WIDE_CHUNKS // columns)


def _rows_at_once(columns: int) -> int:
    return min(IMAGES_AT_ONCE, max(1, _WIDE_CELLS // columns))


def _probabilities(found: Written) -> Any:
    return (found.scores / SCALE).astype(np.float32)
