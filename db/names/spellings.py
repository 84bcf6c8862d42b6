r"""Other ways to write a name, for lists that come from other machines.

A list made on Windows has backslashes, one made on a Mac has accents as characters of their own (NFD), one from a
browser has percent signs. Each of these is also a legal name on Linux. So a name is looked up as it stands first, and
the other spellings count only where nothing has that name.
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
"""Where a table keeps the name of an image, in the order of preference, in any case."""

LEGACY = ("cp1252", "cp932", "gb18030", "big5", "cp949", "cp1251", "cp1250", "cp850")
"""Encodings in which Windows and older programs write names, tried where bytes are not UTF-8."""

_DRIVE = re.compile(r"(?:[A-Za-z]:|\\\\[^\\/]+[\\/][^\\/]+)[\\/]")
"""A drive, or a server and its share."""


def spellings(text: str) -> Iterator[str]:
    """The text itself, then other spellings of it, likelier ones first."""
    found = [text]
    # Encodings before backslashes: in Shift-JIS a backslash is the second half of many characters.
    for change in (_unquoted, legacy, _slashes, composed, _without_percent):
        for one in found[:]:
            found += [other for other in change(one) if other and other not in found]
    yield from found


def windows_parts(text: str) -> list[str]:
    r"""The folders and the name of an absolute path of Windows, without its drive; empty where it is none.

    `C:\data\sub\a.png` is data, sub, a.png.
    """
    drive = _DRIVE.match(text)
    return [part for part in re.split(r"[\\/]+", text[drive.end() :]) if part] if drive else []


def legacy(text: str) -> Iterator[str]:
    """What bytes that are not UTF-8 are in older encodings."""
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
    """For messages and JSON, which have to be Unicode."""
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
    """The text, and with accents in one character with their letter (NFC) and in one of their own (NFD)."""
    yield text
    if not text.isascii():
        yield unicodedata.normalize("NFC", text)
        yield unicodedata.normalize("NFD", text)


def _without_percent(text: str) -> Iterator[str]:
    if "%" in text:
        yield urllib.parse.unquote(text, errors="surrogateescape")
