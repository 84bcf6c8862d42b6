"""Adding tags to an existing caption: in its own encoding, with its own line ends, and without other changes."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from db.names.text_files import HEAD, Encoding, encoding_of

_NO_TEXT = re.compile("[\0-\x08\x0e-\x1a\x1c-\x1f]")
"""Control characters that do not occur in text files."""
_FIRST_LINE = re.compile(r"[^\r\n]*[^\s][^\r\n]*")
_ESCAPED = re.compile(r"\\([()])")
_WEIGHTED = re.compile(r"\((.*):[0-9.]+\)")


@dataclass(frozen=True, slots=True)
class Caption:
    """A decoded text file."""

    text: str
    encoding: Encoding

    def with_text(self, text: str) -> bytes | None:
        """Another text in the encoding of this file; None if the encoding lacks a character."""
        try:
            return self.encoding.encode(text)
        except UnicodeEncodeError:
            return None


def understood(content: bytes) -> Caption | None:
    """Decode a text file in Unicode or in an extension of ASCII; None for other content.

    In an extension of ASCII, such as cp1252, only ASCII is decoded; the other bytes are kept.
    """
    encoding = encoding_of(content[:HEAD])
    body = content[len(encoding.mark) :]
    try:
        text = body.decode(encoding.codec)
    except UnicodeDecodeError:
        if encoding.mark or encoding.codec != "utf-8":
            return None
        encoding = replace(encoding, codec="ascii")
        text = body.decode("ascii", "surrogateescape")
    return None if _NO_TEXT.search(text) else Caption(text, encoding)


def merged(there: str, texts: Sequence[str], separator: str) -> str | None:
    """The text of a file with the tags that it lacks added; None if it lacks none.

    They go to the end of the first line, which is the one that trainers read; if the separator ends lines, to the end
    of the file. Tags are equal if they differ only in underscores for spaces, case, escaped brackets or weights.
    """
    mark = separator.strip() or separator
    known = set(_as_compared(there, mark))
    # A text that contains the separator is read as several tags.
    new = [text for text in texts if not known.issuperset(_as_compared(text, mark))]
    if not new:
        return None
    line_end = "\r\n" if "\r\n" in there else "\n"
    separator = separator.replace("\n", line_end)
    first = _FIRST_LINE.search(there)
    if first is None:
        return separator.join(new) + line_end
    start, end = (0, len(there.rstrip())) if "\n" in separator else first.span()
    before = there[start:end].removesuffix(mark)
    return there[:start] + separator.join([before, *new]) + there[end:]


def _as_compared(text: str, mark: str) -> Iterator[str]:
    """The tags of a text, in the spelling in which they are compared."""
    for tag in re.split(f"{re.escape(mark)}|\n", text):
        weighted = _WEIGHTED.fullmatch(tag.strip())
        plain = weighted.group(1) if weighted else tag
        yield _ESCAPED.sub(r"\1", plain).replace("_", " ").strip().casefold()
