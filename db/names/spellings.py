r"""Other spellings of a file name, for lists from other machines.

A list made on Windows has backslashes, one made on macOS has accents as combining characters (NFD), one from a
browser is percent-encoded. Each of these is also a legal name on Linux. So a name is looked up as written first; other
spellings are used only if nothing has that name.
"""

import os
import re
import unicodedata
import urllib.parse
from collections.abc import Iterator

COLUMNS = (
    *("uri", "url", "path", "file", "filename", "file_name", "image", "image_path", "key"),
    *("fullname", "image_key"),  # PowerShell's Get-ChildItem, kohya's metadata
)
"""Columns that hold the name of an image, in the order of preference. Case is ignored."""

LEGACY = ("cp1252", "cp932", "gb18030", "big5", "cp949", "cp1251", "cp1250", "cp850")
"""Encodings in which Windows and older programs write names, tried for bytes that are not UTF-8."""

_DRIVE = re.compile(r"(?:[A-Za-z]:|\\\\[^\\/]+[\\/][^\\/]+)[\\/]")
"""A drive, or a server and its share."""


def spellings(text: str) -> Iterator[str]:
    """Yield the text as written, then other spellings of it, the more likely ones first."""
    found = [text]
    # Encodings before backslashes: in Shift-JIS a backslash is the second half of many characters.
    for change in (_unquoted, legacy, _slashes, composed, _without_percent):
        for one in found[:]:
            found += [other for other in change(one) if other and other not in found]
    yield from found


def windows_parts(text: str) -> list[str]:
    r"""The components of an absolute Windows path without its drive; empty for any other text.

    `C:\data\sub\a.png` has data, sub, a.png.
    """
    drive = _DRIVE.match(text)
    return [part for part in re.split(r"[\\/]+", text[drive.end() :]) if part] if drive else []


def legacy(text: str) -> Iterator[str]:
    """Yield a text whose bytes are not UTF-8, decoded in the encodings of `LEGACY` that can decode it."""
    if text.isascii() or not any("\udc80" <= one <= "\udcff" for one in text):
        return
    try:
        data = os.fsencode(text)
    except UnicodeEncodeError:  # another surrogate, which no file name holds
        return
    for encoding in LEGACY:
        try:
            yield data.decode(encoding)
        except UnicodeDecodeError:
            continue


def shown(text: str) -> str:
    """Convert a text to valid Unicode, for messages and JSON."""
    return next(legacy(text), text).encode("utf-8", "replace").decode()


def _unquoted(text: str) -> Iterator[str]:
    """Explorer's "Copy as path" and `ls -Q` write names in quotes."""
    if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'":  # noqa: PLR2004 - two quotes
        yield text[1:-1]
    yield text.strip()


def _slashes(text: str) -> Iterator[str]:
    if "\\" in text:
        yield text.replace("\\", "/")


def composed(text: str) -> Iterator[str]:
    """Yield the text, then its composed (NFC) and decomposed (NFD) forms."""
    yield text
    if not text.isascii():
        yield unicodedata.normalize("NFC", text)
        yield unicodedata.normalize("NFD", text)


def _without_percent(text: str) -> Iterator[str]:
    if "%" in text:
        yield urllib.parse.unquote(text, errors="surrogateescape")
