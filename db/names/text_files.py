"""Read text files of other programs: detect the encoding, the line ends and the separator.

Excel, PowerShell, LibreOffice, `find` and editors differ in all three. Unicode is recognised by its byte order mark,
UTF-16 also without one. Any other file is read as UTF-8, and bytes that are not UTF-8 are kept as Python's surrogate
escapes: they may be names of files. `db.names.spellings` tries older encodings, and the one under which a file exists
is used. Guessing from so little text is wrong too often: charset-normalizer mistook 6 of 15 short lists for another
encoding.
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
"""Bytes from which an encoding and a separator are recognised."""
SEPARATORS = (",", ";", "\t", "|")

# Captions exceed the default of 131,072 characters. The limit is global to the process.
csv.field_size_limit((1 << 31) - 1)

# UTF-32 before UTF-16: their marks begin with the same bytes.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8", "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32-le", "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32-be", "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "utf-16"),
)
_MANY, _FEW = 0.4, 0.05
"""Fractions of zero bytes at odd or even offsets: UTF-16 of a text that is mostly ASCII."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """The encoding and the line ends of a file."""

    codec: str
    """Without the byte order mark."""
    reader: str
    """The codec that skips the mark when reading."""
    mark: bytes
    newline: str
    r"""`\n`, `\r\n`, or `\r` in a file without any `\n`."""

    def encode(self, text: str) -> bytes:
        """Encode the text of a whole file, with the byte order mark."""
        return self.mark + text.encode(self.codec, "surrogateescape")


def encoding_of(head: bytes) -> Encoding:
    """Recognise the encoding of a file.

    Args:
        head: its first `HEAD` bytes.
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
    """Decode a whole file, without its byte order mark. Line ends are not translated.

    Raises:
        UnicodeDecodeError: the data is neither UTF-8 nor UTF-16 nor UTF-32.
    """
    encoding = encoding_of(data[:HEAD])
    return data[len(encoding.mark) :].decode(encoding.codec), encoding


@contextmanager
def opened(path: Path, error: type[StopError], *, lines: bool = False, strict: bool = False) -> Iterator[TextIO]:
    r"""Open a text file, which may be compressed (.gz). Line ends are not translated.

    Args:
        error: the class of the error raised if the file cannot be read or decoded.
        lines: iterate by lines that end at `\n` alone (or `\r`, in a file without `\n`), since a carriage return may
            be a part of a file name. False: by lines as `csv` expects them.
        strict: refuse bytes that are not Unicode.
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
    """Read a whole small file of Unicode; errors as in `opened`."""
    with opened(path, error, strict=True) as file:
        return file.read()


def as_list(stream: TextIO, *, null: bool = False) -> None:
    """Reconfigure a stream of references, such as standard input, to its encoding. Nothing is consumed.

    Args:
        null: the references are separated by NUL characters.
    """
    if not isinstance(stream, io.TextIOWrapper):
        return
    buffer = stream.buffer
    if isinstance(buffer, io.BufferedReader):
        head = buffer.peek(HEAD)
    elif buffer.seekable():
        position = buffer.tell()
        head = buffer.read(HEAD)
        buffer.seek(position)
    else:
        head = b""
    # Names of one letter separated by NUL bytes look like UTF-16.
    encoding = encoding_of(b"" if null else head)
    errors = "surrogateescape" if encoding.codec == "utf-8" else "strict"
    reader = "utf-8-sig" if encoding.codec == "utf-8" else encoding.reader
    stream.reconfigure(encoding=reader, errors=errors, newline="\r" if encoding.newline == "\r" else "\n")


def null_separated(stream: IO[str]) -> Iterator[str]:
    """Yield the parts of a text separated by NUL characters (`find -print0`), including the one after the last NUL."""
    rest = ""
    while block := stream.read(HEAD):
        *parts, rest = (rest + block).split("\0")
        yield from parts
    yield rest


Row = tuple[int, list[str]]
"""The line on which a row ends, counted from 1, and its cells."""


def rows(
    lines: Iterable[str], name: object, error: type[StopError], *, known: Collection[str], usual: str = ","
) -> Iterator[Row]:
    """Yield the rows of a table, whose separator is detected. Empty lines are skipped.

    Args:
        lines: the lines of a file opened without translation of line ends.
        name: the name of the file, for messages.
        error: the class of the error raised for a malformed row.
        known: names of columns, in lower case. The separator with which the first row has most of them is taken; if it
            has none, the separator with which all rows have the same number of cells.
        usual: the separator that is preferred among equals.
    """
    remaining = iter(lines)
    head = _head(remaining)
    passed = 0
    separator = None
    # The first line may be a type (Export-Csv of Windows PowerShell) or the separator (Excel).
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
        # The last row may be truncated.
        sample = sample[:-1] if len(sample) > 1 else sample
        if not sample:
            continue
        names = sum(cell.strip().lower() in known for cell in sample[0])
        even = len(sample[0]) > 1 and len({len(row) for row in sample}) == 1
        if (names, even) > merit:
            best, merit = separator, (names, even)
    return best
