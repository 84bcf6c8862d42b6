"""Lists of references as they are written: text, csv, tsv, jsonl, parquet. Read as (row number, reference).

Text of every kind is UTF-8, with or without a byte order mark. Bytes that are none become Python's surrogate
escapes and are bytes again in the path, because file names need not be UTF-8. Row numbers are those an editor
shows, from 1; in parquet the first row is 1.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO, TypeAlias

from db.errors import SettingsError, SourceError

COLUMNS = ("uri", "url", "path", "file", "filename", "file_name", "image", "image_path", "key")
"""Where the reference is looked for, in this order, when nobody says which column holds it."""

Row: TypeAlias = tuple[int, str]
Reader: TypeAlias = Callable[[str, str | None], Iterator[Row]]
"""From the path of a list and the name of a column, or None, to rows."""


def at(name: str, number: int, problem: object) -> SourceError:
    """The error for one row, to be raised."""
    return SourceError(f"{name}:{number}: {problem}")


def text_rows(lines: TextIO) -> Iterator[Row]:
    """A reference a line. Blank lines and lines from `#` on are passed over; spaces are part of a name."""
    for number, line in enumerate(lines, 1):
        text = line.removesuffix("\n").removesuffix("\r")
        if text.strip() and not text.startswith("#"):
            yield number, text


def _text(path: str, _column: str | None) -> Iterator[Row]:
    # Lines end at \n alone: a carriage return is a legal, if mad, part of a file name.
    with Path(path).open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as lines:
        yield from text_rows(lines)


def _jsonl(path: str, column: str | None) -> Iterator[Row]:
    """A JSON string, or an object with the column, a line."""
    with Path(path).open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise at(path, number, f"this is not JSON ({error}).") from error
            if isinstance(value, dict):
                value = value[_pick(value, column, f"{path}:{number}")]
            if not isinstance(value, str):
                raise at(path, number, "this is neither a string nor an object with a string in the column.")
            yield number, value


def _separated(dialect: type[csv.Dialect]) -> Reader:
    """A reader for csv or tsv, with a header."""

    def rows(path: str, column: str | None) -> Iterator[Row]:
        with Path(path).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            reader = csv.reader(lines, dialect)
            try:
                header = next(reader, None)
                if header is None:
                    return
                index = header.index(_pick(header, column, path))
                for row in reader:
                    if len(row) > index:
                        yield reader.line_num, row[index]
                    elif row:
                        raise at(path, reader.line_num, f"this row has no column {header[index]!r}.")
            except csv.Error as error:
                raise at(path, reader.line_num, f"{error}.") from error

    return rows


def _parquet(path: str, column: str | None) -> Iterator[Row]:
    """A column of text, read a batch at a time; other columns, images among them, stay on the disk."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise SettingsError(f"reading {path!r} needs pyarrow: pip install 'tagonce[parquet]'.") from error
    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            texts = [field.name for field in schema if _holds_text(field.type)]
            name = _pick(texts, column, path)
            number = 0
            for batch in file.iter_batches(columns=[name]):
                for value in batch.column(0).to_pylist():
                    number += 1
                    yield number, value or ""
    except pa.ArrowException as error:
        raise SourceError(f"{path!r} cannot be read as parquet: {error}.") from error


def _holds_text(kind: Any) -> bool:
    """Whether a pyarrow type is text, plain or dictionary-encoded."""
    from pyarrow import types

    plain = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(plain) or types.is_large_string(plain) or types.is_string_view(plain))


def _pick(names: Iterable[str], column: str | None, place: str) -> str:
    """The column that holds the references. A name given by a person is matched exactly, ours in any case."""
    present = list(names)
    listed = ", ".join(present) or "none"
    if column is not None:
        if column in present:
            return column
        raise SourceError(f"{place}: there is no text column {column!r}; there is: {listed}.")
    by_name = {name.strip().lower(): name for name in reversed(present)}
    for name in COLUMNS:
        if name in by_name:
            return by_name[name]
    raise SourceError(
        f"{place}: no text column is named like a reference ({', '.join(COLUMNS)}); "
        f"there is: {listed}. Choose one with --column."
    )


READERS: dict[str, Reader] = {
    "txt": _text,
    "list": _text,
    "csv": _separated(csv.excel),
    "tsv": _separated(csv.excel_tab),
    "jsonl": _jsonl,
    "ndjson": _jsonl,
    "parquet": _parquet,
}
"""By extension. A file with one of these is a list of references, any other is an image."""
