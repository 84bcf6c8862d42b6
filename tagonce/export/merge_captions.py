"""Tags added to a caption that is there: in its own encoding, with its own line ends, and nothing of it changed."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from db.names.text_files import HEAD, Encoding, encoding_of

_NO_TEXT = re.compile("[\0-\x08\x0e-\x1a\x1c-\x1f]")
"""Control characters that text files do not have, and files of other kinds begin with."""
_FIRST_LINE = re.compile(r"[^\r\n]*[^\s][^\r\n]*")
_ESCAPED = re.compile(r"\\([()])")
_WEIGHTED = re.compile(r"\((.*):[0-9.]+\)")


@dataclass(frozen=True, slots=True)
class Caption:
    """A text file that was understood."""

    text: str
    encoding: Encoding

    def with_text(self, text: str) -> bytes | None:
        """The bytes of another text in this file; None when its encoding lacks one of the characters."""
        try:
            return self.encoding.encode(text)
        except UnicodeEncodeError:
            return None


def understood(content: bytes) -> Caption | None:
    """A text file in Unicode, or in any encoding that has ASCII in it; else None.

    Of the last, cp1252 and its kin, only what is ASCII is understood: the other bytes stay as they are.
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
    """What is in a file, unchanged, and the texts that it lacks; None when it lacks none.

    They go behind the first line, which is the one that trainers read; with a separator that ends lines, behind the
    last one. Spaces and underscores, upper and lower case, escaped and plain brackets, and weights make no other tag.
    """
    mark = separator.strip() or separator
    known = set(_as_compared(there, mark))
    # A text that holds the separator is several tags for whoever reads the file.
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
    """The tags of a text, in one spelling."""
    for tag in re.split(f"{re.escape(mark)}|\n", text):
        weighted = _WEIGHTED.fullmatch(tag.strip())
        plain = weighted.group(1) if weighted else tag
        yield _ESCAPED.sub(r"\1", plain).replace("_", " ").strip().casefold()
