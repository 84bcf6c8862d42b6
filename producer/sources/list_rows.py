"""Reads lists of references from text, csv, tsv, jsonl and parquet, as (row number, reference).

Text may have any encoding that `db.names.text_files` detects. Bytes that are not UTF-8 become Python's surrogate
escapes, and bytes again in the path, because file names need not be UTF-8. Row numbers start at 1 and are those that an
editor shows; in parquet they count rows.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO, TypeAlias

from db.errors import SettingsError, SourceError
from db.names import text_files
from db.names.plural import counted
from db.names.spellings import COLUMNS
from producer.sources.extensions import is_image

logger = logging.getLogger(__name__)

Row: TypeAlias = tuple[int, str]
Reader: TypeAlias = Callable[[str, str | None], Iterator[Row]]
"""Given the path of a list and the name of a column, or None, yields its rows."""


def at(name: str, number: int, problem: object) -> SourceError:
    """The error for one row, for the caller to raise."""
    return SourceError(f"{name}:{number}: {problem}")


def text_rows(lines: TextIO, name: str) -> Iterator[Row]:
    """One reference in each line. Blank lines and lines that begin with `#` are skipped; spaces are part of a name."""
    images = 0
    example = ""
    for number, line in enumerate(lines, 1):
        text = line.removesuffix("\n").removesuffix("\r")
        if text.startswith("#"):
            if is_image(text):
                images += 1
                example = example or text
        elif text.strip():
            yield number, text
    if images:
        logger.warning(
            "%s: skipped as comments: %s with the name of an image after #, for example %r. For a file of that name "
            "write ./%s, or separate the names by NUL (--null).",
            name, counted(images, "line"), example, example,
        )  # fmt: skip


def null_rows(stream: TextIO) -> Iterator[Row]:
    """References separated by NUL, with any other characters in them, as `find -print0` writes them."""
    return ((number, text) for number, text in enumerate(text_files.null_separated(stream), 1) if text)


def null_separated(path: str) -> Iterator[Row]:
    """`null_rows` of a file."""
    with Path(path).open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        yield from null_rows(stream)


def _text(path: str, _column: str | None) -> Iterator[Row]:
    with text_files.opened(Path(path), SourceError, lines=True) as lines:
        yield from text_rows(lines, path)


def _jsonl(path: str, column: str | None) -> Iterator[Row]:
    """One JSON string, or an object with the column, in each line."""
    with text_files.opened(Path(path), SourceError, lines=True) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise at(path, number, f"this line is not JSON ({error}).") from error
            if isinstance(value, dict):
                value = value[_pick(value, column, f"{path}:{number}")]
            if not isinstance(value, str):
                raise at(path, number, "this line is neither a string nor an object with a string in the column.")
            yield number, value


def _separated(usual: str) -> Reader:
    """A reader for tables with a header. It detects the separator, and prefers the usual one if several fit."""

    def rows(path: str, column: str | None) -> Iterator[Row]:
        known = {*COLUMNS, *([column.lower()] if column else [])}
        with text_files.opened(Path(path), SourceError) as lines:
            table = text_files.rows(lines, path, SourceError, known=known, usual=usual)
            _, header = next(table, (0, None))
            if header is None:
                return
            index = header.index(_pick(header, column, path))
            for number, row in table:
                if not any(row):
                    continue  # spreadsheets write ;;; for rows that were cleared
                if len(row) <= index:
                    raise at(path, number, f"this row has no column {header[index]!r}.")
                yield number, row[index]

    return rows


def _parquet(path: str, column: str | None) -> Iterator[Row]:
    """A column of text, read in batches; other columns, such as images, are not read."""
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
    """The column that holds the references: `column`, matched exactly, or the first of `COLUMNS` in any case."""
    present = list(names)
    listed = ", ".join(present) or "none"
    if column is not None:
        if column in present:
            return column
        raise SourceError(f"{place} has no text column {column!r}; its text columns are: {listed}.")
    by_name = {name.strip().lower(): name for name in reversed(present)}
    for name in COLUMNS:
        if name in by_name:
            return by_name[name]
    raise SourceError(
        f"{place} has no text column with a known name ({', '.join(COLUMNS)}); "
        f"its text columns are: {listed}. Choose one with --column."
    )


READERS: dict[str, Reader] = {
    "txt": _text,
    "list": _text,
    "csv": _separated(","),
    "tsv": _separated("\t"),
    "jsonl": _jsonl,
    "ndjson": _jsonl,
    "parquet": _parquet,
}
"""By extension. A file with one of these is a list of references, any other an image."""

TABLES = frozenset(READERS) - {"txt", "list"}
"""Those whose lines hold more than a name."""
