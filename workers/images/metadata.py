"""Hides metadata of a file from the decoder where it is expensive, or would make it refuse the image.

Text, profiles and tags may have any size, since programs store whole workflows and editing histories in them. Pillow
reads all of them when it opens a file, and refuses the image if they exceed its limits. No pixel changes.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import Literal

_PNG = b"\x89PNG\r\n\x1a\n"
_MAY_HOLD_PNG = (_PNG, b"\0\0\1\0", b"\0\0\2\0", b"icns")
"""First bytes of a PNG, and of icons, cursors and Apple's icons, which may contain some."""
CHUNKS_OF_PIXELS = {b"tRNS", b"acTL", b"fcTL", b"fdAT"}
"""Ancillary chunks, by their first letter, that affect pixels."""
_IGNORED = b"skIp"
"""An undefined kind of chunk: private and ancillary, so that decoders skip it."""
_CHUNKS = 100_000
"""Chunks that are processed. A file with more exceeds the limit of reads anyway."""
_PROFILE = 1 << 20
"""Bytes of a profile that Pillow inflates. It refuses an image with one more."""

_GIF = re.compile(rb"GIF8[79]a")
_EXTENSION, _CONTROL = 0x21, 0xF9
"""Of a GIF: first byte of an extension, and the label of the one that affects pixels."""
_FEW_PIECES, _PIECES = 1_000, 1_000_000
"""Sub-blocks of extensions: up to the first number Pillow may read them; up to the second they are processed."""

_JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
_BOXES = {b"xml ", b"uuid", b"uinf", b"jp2i"}
"""Boxes of a JPEG 2000 without pixels. The library does not skip a megabyte."""
_BOX_HEAD, _SMALL_BOX = 8, 1 << 16

_TIFF = (b"II", b"MM")
_TAGS = 20_000
"""Tags of a directory that are processed."""
_NUMBERS = 1_000_000
"""Limit of numbers in a tag of a TIFF. The largest image has 700,000 offsets with tiles of 16 x 16."""
_BYTES_AND_TEXT = {1, 2, 6, 7}
"""Types of tags that stay bytes; numbers of other types become Python objects."""
_BYTES, _SHORT = 7, 3
_OFFSETS = {273, 279, 324, 325}
"""Tags with offsets and byte counts of strips and tiles."""
_DIRECTORIES = {34665, 34853, 40965}
"""Tags that point to the EXIF, GPS and interoperability directories. Pillow reads all of these."""
_UNUSED_TAG = 65_111


def without_metadata(data: bytes) -> bytes:
    """The file without expensive metadata; the same bytes if it has none, or if it is truncated."""
    if data.startswith(_MAY_HOLD_PNG):
        return _replaced(data, (change for at in _pngs(data) for change in _changes_of_png(data, at)))
    if _GIF.match(data):
        return _without_extensions(data)
    if data.startswith(_JP2):
        return _without_boxes(data)
    if data.startswith(_TIFF):
        return _replaced(data, _changes_of_tiff(data))
    return data


def has_too_many_numbers(tiff: bytes) -> bool:
    """Whether this is a TIFF, and a tag of its first directory holds more than a million numbers.

    Pillow makes an object of each; a fraction takes five microseconds and 250 bytes.
    """
    return tiff.startswith(_TIFF) and any(_is_long(kind, count) for _at, _tag, kind, count in _tags(tiff))


def first_number(tiff: bytes, tag: int) -> int | None:
    """The first 16-bit number of a tag in the first directory of a TIFF or of EXIF; None if there is none."""
    order: Literal["little", "big"] = "little" if tiff.startswith(b"II") else "big"
    for at, found, kind, count in _tags(tiff):
        if found == tag and kind == _SHORT and count:
            return int.from_bytes(tiff[at + 8 : at + 10], order)
    return None


def _replaced(data: bytes, changes: Iterator[tuple[int, bytes]]) -> bytes:
    """The data with bytes replaced at some offsets, given in ascending order. Lengths do not change."""
    parts: list[bytes | memoryview] = []
    view, done = memoryview(data), 0
    for at, new in changes:
        parts += view[done:at], new
        done = at + len(new)
    return b"".join([*parts, view[done:]]) if parts else data


# ── PNG ──


def _pngs(data: bytes) -> Iterator[int]:
    """Offset of each PNG in a file."""
    if data.startswith(_PNG):
        yield 0
        return
    at = data.find(_PNG)
    while at >= 0:
        yield at
        at = data.find(_PNG, at + len(_PNG))


def _changes_of_png(data: bytes, begin: int) -> Iterator[tuple[int, bytes]]:
    """Replacements that turn a metadata chunk into one that is skipped: its kind and its checksum."""
    at, chunks = begin + len(_PNG), 0
    while chunks < _CHUNKS:
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        first, end = at + 8, at + 8 + length
        if end + 4 > len(data) or not kind.isalpha() or kind == b"IEND":
            return
        if kind[:1].islower() and kind not in CHUNKS_OF_PIXELS:
            chunks += 1
            content = memoryview(data)[first:end]
            sound = zlib.crc32(content, zlib.crc32(kind)) == int.from_bytes(data[end : end + 4], "big")
            if not (sound and _is_harmless(kind, content)):
                yield at + 4, _IGNORED
                yield end, zlib.crc32(content, zlib.crc32(_IGNORED)).to_bytes(4, "big")
        at = end + 4


def _is_harmless(kind: bytes, content: memoryview) -> bool:
    """Whether Pillow can read a chunk that thumbnails use: EXIF, or a profile within its limit."""
    if kind != b"iCCP":
        return kind == b"eXIf"
    _name, _end, packed = bytes(content).partition(b"\0")
    if not packed.startswith(b"\0"):
        return False
    inflater = zlib.decompressobj()
    try:
        inflater.decompress(packed[1:], _PROFILE)
    except zlib.error:
        return False
    return not inflater.unconsumed_tail


# ── GIF ──


def _without_extensions(gif: bytes) -> bytes:
    """The GIF without the extensions before its first image, if these have many sub-blocks. One has up to 255 bytes."""
    try:
        at = 13 + (3 << (gif[10] & 7) + 1 if gif[10] & 128 else 0)
        kept, pieces = [gif[:at]], 0
        while gif[at] == _EXTENSION and pieces < _PIECES:
            begin, at = at, at + 2
            while gif[at] and pieces < _PIECES:
                at += 1 + gif[at]
                pieces += 1
            at += 1
            if gif[begin + 1] == _CONTROL:
                kept.append(gif[begin:at])
    except IndexError:
        return gif
    return gif if pieces < _FEW_PIECES or pieces >= _PIECES else b"".join([*kept, gif[at:]])


# ── JPEG 2000 ──


def _without_boxes(jp2: bytes) -> bytes:
    """The JPEG 2000 without large boxes that hold no pixels."""
    kept, at, done = [], 0, 0
    while at + _BOX_HEAD <= len(jp2):
        length, kind = int.from_bytes(jp2[at : at + 4], "big"), jp2[at + 4 : at + 8]
        if length == 1:
            length = int.from_bytes(jp2[at + 8 : at + 16], "big")
        if length < _BOX_HEAD:  # a box up to the end of the file, or a broken one
            break
        if kind in _BOXES and length > _SMALL_BOX:
            kept.append(jp2[done:at])
            done = at + length
        at += length
    return b"".join([*kept, jp2[done:]]) if kept else jp2


# ── TIFF ──


def _changes_of_tiff(tiff: bytes) -> Iterator[tuple[int, bytes]]:
    """Replacements that turn pointers to directories into an unused tag, and long lists into bytes."""
    order: Literal["little", "big"] = "little" if tiff.startswith(b"II") else "big"
    for at, tag, kind, count in _tags(tiff):
        if tag in _DIRECTORIES:
            yield at, _UNUSED_TAG.to_bytes(2, order)
        elif _is_long(kind, count) and tag not in _OFFSETS:
            yield at + 2, _BYTES.to_bytes(2, order)


def _is_long(kind: int, count: int) -> bool:
    return kind not in _BYTES_AND_TEXT and count > _NUMBERS


def _tags(tiff: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Entries of the first directory: offset of the entry, tag, type, count."""
    order = "<" if tiff.startswith(b"II") else ">"
    head, many, entry = ("8xQ", "Q", "HHQ8x") if tiff[2:4] in (b"+\0", b"\0+") else ("4xI", "H", "HHI4x")
    try:
        (at,) = struct.unpack_from(order + head, tiff)
        (entries,) = struct.unpack_from(order + many, tiff, at)
    except (struct.error, OverflowError):
        return  # the file is truncated; Pillow reports it
    begin, step = at + struct.calcsize(order + many), struct.calcsize(order + entry)
    table = tiff[begin : begin + step * min(entries, _TAGS)]
    for number, found in enumerate(struct.iter_unpack(order + entry, table[: len(table) // step * step])):
        yield begin + step * number, *found
