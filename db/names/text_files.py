"""Text files as the programs of people write them: encodings, line ends, separators.

Excel, PowerShell, LibreOffice, `find` and editors differ in all three. Unicode is recognised by its byte order mark,
UTF-16 also without one. Anything else is read as UTF-8, and bytes that are not UTF-8 are kept as Python's surrogate
escapes: they may be names of files. What they mean in an older encoding is found by what exists under the name, in
`db.names.spellings`. A guess from so little text is wrong too often: charset-normalizer took 6 of 15 short lists for
another encoding.
"""

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, TextIO

from db.errors import StopError

HEAD = 1 << 16
"""Bytes that are looked at to recognise an encoding and a separator."""
SEPARATORS = (",", ";", "\t", "|")

# 131,072 characters by default, which captions and paths exceed. The limit is one of the process.
csv.field_size_limit((1 << 31) - 1)

# UTF-32 first: its mark begins like that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8", "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32-le", "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32-be", "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "utf-16"),
)
_MANY, _FEW = 0.4, 0.05
"""Shares of zero bytes at odd or even places: UTF-16 of a text that is mostly ASCII."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a text is written as bytes."""

    codec: str
    """Without the byte order mark."""
    reader: str
    """The codec that passes over the mark when reading."""
    mark: bytes
    newline: str
    r"""How lines end: `\n`, `\r\n`, or `\r` where there is no `\n` at all."""

    def encode(self, text: str) -> bytes:
        """A whole file."""
        return self.mark + text.encode(self.codec, "surrogateescape")


def encoding_of(head: bytes) -> Encoding:
    """Recognise the encoding by how a file begins.

    Args:
        head: the first `HEAD` bytes, or all of them.
    """
    codec, reader, mark = "utf-8", "utf-8", b""
    for some, its_codec, its_reader in _MARKS:
        if head.startswith(some):
            codec, reader, mark = its_codec, its_reader, some
            break
    else:
        odd, even = (head[first::2].count(0) / max(len(head) // 2, 1) for first in (1, 0))
        if odd > _MANY and even < _FEW:
            codec = reader = "utf-16-le"
        elif even > _MANY and odd < _FEW:
            codec = reader = "utf-16-be"
    text = head[len(mark) :].decode(codec, "replace")
    newline = "\r" if "\r" in text and "\n" not in text else "\r\n" if "\r\n" in text else "\n"
    return Encoding(codec, reader, mark, newline)


def decode(data: bytes) -> tuple[str, Encoding]:
    """A whole file as text without a byte order mark, its line ends as they are.

    Raises:
        UnicodeDecodeError: it is neither UTF-8 nor UTF-16 nor UTF-32.
    """
    encoding = encoding_of(data[:HEAD])
    return data[len(encoding.mark) :].decode(encoding.codec), encoding


@contextmanager
def opened(path: Path, error: type[StopError], *, lines: bool = False, strict: bool = False) -> Iterator[TextIO]:
    r"""A text file, packed (.gz) or not. Line ends are not translated.

    Args:
        error: raised in place of what Python raises, with a sentence.
        lines: iterate by lines that end at `\n` alone (or `\r` where there is no `\n`), since a carriage return may
            be a part of a file name. Otherwise as `csv` wants it.
        strict: refuse what is not Unicode.
    """
    try:
        with _binary(path) as file:
            encoding = encoding_of(file.peek(HEAD)[:HEAD])
            errors = "strict" if strict or encoding.codec != "utf-8" else "surrogateescape"
            newline = ("\r" if encoding.newline == "\r" else "\n") if lines else ""
            with io.TextIOWrapper(file, encoding.reader, errors, newline) as text:
                yield text
    except UnicodeDecodeError as problem:
        raise error(f"{path} is not {problem.encoding.upper()} text ({problem}). Save it as UTF-8.") from problem
    except (OSError, EOFError, zlib.error) as problem:
        raise error(f"{path} cannot be read: {getattr(problem, 'strerror', None) or problem}.") from problem


def _binary(path: Path) -> io.BufferedReader:
    if path.suffix.lower() == ".gz":
        return io.BufferedReader(gzip.open(path), HEAD)
    return io.BufferedReader(io.FileIO(path), HEAD)


def read_text(path: Path, error: type[StopError]) -> str:
    """A whole small file in Unicode."""
    with opened(path, error, strict=True) as file:
        return file.read()


def as_list(stream: TextIO, *, null: bool = False) -> None:
    """Set a stream of references, standard input for one, to its encoding, as `opened` does. Nothing is read yet."""
    if not isinstance(stream, io.TextIOWrapper):
        return
    buffer = stream.buffer
    if isinstance(buffer, io.BufferedReader):
        head = buffer.peek(HEAD)
    elif buffer.seekable():
        place = buffer.tell()
        head = buffer.read(HEAD)
        buffer.seek(place)
    else:
        head = b""
    # Names of one letter between NUL bytes look like UTF-16.
    encoding = encoding_of(b"" if null else head)
    errors = "surrogateescape" if encoding.codec == "utf-8" else "strict"
    reader = "utf-8-sig" if encoding.codec == "utf-8" else encoding.reader
    stream.reconfigure(encoding=reader, errors=errors, newline="\r" if encoding.newline == "\r" else "\n")


def null_separated(stream: IO[str]) -> Iterator[str]:
    """The parts of a text between NUL characters, as `find -print0` writes them. What follows the last one counts."""
    rest = ""
    while block := stream.read(HEAD):
        *parts, rest = (rest + block).split("\0")
        yield from parts
    yield rest


Row = tuple[int, list[str]]
"""The line of a file on which a row ends, from 1, and its cells."""


def rows(
    lines: Iterable[str], name: object, error: type[StopError], *, known: Collection[str], usual: str = ","
) -> Iterator[Row]:
    """The rows of a table whose separator is found out. Empty lines are no rows.

    Args:
        name: of the file, for messages.
        error: raised for a row that is no CSV.
        known: names of columns, in lower case; the separator under which the first row has most of them is right.
            Without any of them, it is the one that gives every row the same number of cells.
        usual: the separator that is taken where others do as well.
    """
    remaining = iter(lines)
    head = _head(remaining)
    passed = 0
    separator = None
    # Windows PowerShell's Export-Csv writes the type of its objects first, Excel its separator.
    if head and head[0].startswith("#TYPE "):
        passed += 1
    elif head and head[0].lower().startswith("sep=") and len(head[0].strip("\r\n")) == len("sep=;"):
        separator = head[0][4]
        passed += 1
    reader = csv.reader(
        chain(head[passed:], remaining), delimiter=separator or _separator(head[passed:], known, usual), strict=True
    )
    first = 1
    try:
        for row in reader:
            first = reader.line_num + 1
            if row:
                yield passed + reader.line_num, row
    except csv.Error as problem:
        if "unexpected end" in str(problem):
            problem = csv.Error("a quoted field begins here and never ends")
        raise error(f"{name}, line {passed + first}: {problem}.") from problem


def _head(lines: Iterator[str]) -> list[str]:
    head: list[str] = []
    size = 0
    for line in lines:
        head.append(line)
        size += len(line)
        if size > HEAD:
            break
    return head


def _separator(head: Sequence[str], known: Collection[str], usual: str) -> str:
    best, merit = usual, (0, False)
    for separator in (usual, *(one for one in SEPARATORS if one != usual)):
        sample = [row for row in csv.reader(head, delimiter=separator) if row]
        # The last one may be cut off.
        sample = sample[:-1] if len(sample) > 1 else sample
        if not sample:
            continue
        names = sum(cell.strip().lower() in known for cell in sample[0])
        even = len(sample[0]) > 1 and len({len(row) for row in sample}) == 1
        if (names, even) > merit:
            best, merit = separator, (names, even)
    return best
