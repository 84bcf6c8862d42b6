"""Metadata of any size, valid or broken, does not change or fail the image."""

import io
import random
import struct
import zlib
from collections.abc import Callable

import pytest
from PIL import Image, PngImagePlugin

from tests.fixtures.hostile import (
    GREY_TIFF_ENTRIES,
    MODEL,
    exif,
    grey_tiff,
    jpeg_segment,
    jpeg_with,
    picture,
    png_chunk,
    psd,
    saved,
    tiff_end,
)
from workers.images.decode import Decoder
from workers.images.metadata import without_metadata
from workers.images.safe_open import Opener

MEGABYTES = random.Random(1).randbytes(3_000_000)
"""Bytes that do not compress, as tables of colours."""
XMP = b"http://ns.adobe.com/xap/1.0/\0"

PNG = saved(picture(), "png")
SQUARE = saved(picture(size=(16, 16)), "png")
HEADER, END = 33, len(PNG) - 12
"""End of the first chunk of a PNG, and begin of the last one."""
GIF = saved(picture("P"), "gif")
GIF_HEADER = 13 + 3 * 256
SHORT, LONG, FLOAT, BYTES = 3, 4, 11, 7


def decoded(data: bytes) -> bytes:
    return Decoder(MODEL, 1_000_000).decode(data).pixels.tobytes()


def png(*chunks: tuple[bytes, bytes], at: int = HEADER, plain: bytes = PNG) -> bytes:
    return plain[:at] + b"".join(png_chunk(*chunk) for chunk in chunks) + plain[at:]


def icon(png: bytes) -> bytes:
    """Of one picture."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 24, 18, 0, 0, 1, 32, len(png), 22) + png


def apples_icon(png: bytes) -> bytes:
    return struct.pack(">4sI4sI", b"icns", 16 + len(png), b"icp4", 8 + len(png)) + png


def pieces(content: bytes) -> bytes:
    """Of a GIF, the last of which is empty."""
    cut = (content[at : at + 255] for at in range(0, len(content), 255))
    return b"".join(bytes([len(piece)]) + piece for piece in cut) + b"\0"


def gif(label: int, content: bytes) -> bytes:
    return GIF[:GIF_HEADER] + bytes([0x21, label]) + content + GIF[GIF_HEADER:]


def tiff(tag: int, kind: int, count: int, content: bytes) -> bytes:
    return grey_tiff(8, 8, (tag, kind, count, tiff_end(GREY_TIFF_ENTRIES + 1)), after=content)


def plain_tiff(content: bytes) -> bytes:
    """Its pixels are the file itself, up to the sizes of its tags."""
    return tiff(65_000, BYTES, len(content), content)


def parts(head: bytes, content: bytes, number: int = 0xE1) -> list[bytes]:
    return [jpeg_segment(number, head + content[at : at + 60_000]) for at in range(0, len(content), 60_000)]


def long_psd() -> bytes:
    resource = b"8BIM" + struct.pack(">HHI", 1060, 0, len(MEGABYTES)) + MEGABYTES
    plain = psd()
    return plain[:30] + struct.pack(">I", len(resource)) + resource + plain[34:]


def jp2() -> tuple[bytes, bytes]:
    plain = saved(picture(), "jpeg2000")
    at = plain.index(b"jp2c") - 4
    return plain, plain[:at] + struct.pack(">I4s", 8 + len(MEGABYTES), b"xml ") + MEGABYTES + plain[at:]


PACKED = zlib.compress(MEGABYTES)
CASES: dict[str, Callable[[], tuple[bytes, bytes]]] = {
    "png profile": lambda: (PNG, png((b"iCCP", b"name\0\0" + PACKED))),
    "png profile of another method": lambda: (PNG, png((b"iCCP", b"name\0\1" + PACKED))),
    "png profile without a name": lambda: (PNG, png((b"iCCP", b"\xff" * 99))),
    "png text": lambda: (PNG, png((b"tEXt", b"workflow\0" + MEGABYTES))),
    "png packed text": lambda: (PNG, png((b"zTXt", b"workflow\0\0" + PACKED))),
    "png packed text of another method": lambda: (PNG, png((b"zTXt", b"workflow\0\7" + PACKED))),
    "png international text": lambda: (PNG, png((b"iTXt", b"workflow\0\1\0\0\0" + PACKED))),
    "png text behind the pixels": lambda: (PNG, png((b"zTXt", b"workflow\0\0" + PACKED), at=END)),
    "png exif": lambda: (PNG, png((b"eXIf", b"II*\0" + MEGABYTES))),
    "png text that is damaged": lambda: (PNG, PNG[:HEADER] + png_chunk(b"tEXt", b"a\0b")[:-1] + b"?" + PNG[HEADER:]),
    "png resolution that is cut": lambda: (PNG, png((b"pHYs", b"\1"), (b"gAMA", b"\1"), (b"sRGB", b""))),
    "png provenance": lambda: (PNG, png((b"caBX", MEGABYTES), (b"iDOT", bytes(28)))),
    "png in an icon": lambda: (icon(PNG), icon(png((b"iTXt", b"k\0\1\0\0\0" + PACKED), (b"iCCP", b"k\0\0" + PACKED)))),
    "png in an icon of Apple's": lambda: (
        apples_icon(SQUARE),
        apples_icon(png((b"zTXt", b"k\0\0" + PACKED), plain=SQUARE)),
    ),
    "gif comment": lambda: (GIF, gif(0xFE, pieces(MEGABYTES))),
    "gif xmp": lambda: (GIF, gif(0xFF, b"\x0bXMP DataXMP" + pieces(MEGABYTES))),
    "gif profile": lambda: (GIF, gif(0xFF, b"\x0bICCRGBG1012" + pieces(MEGABYTES))),
    "tiff xmp": lambda: (plain_tiff(MEGABYTES), tiff(700, BYTES, len(MEGABYTES), MEGABYTES)),
    "tiff captions": lambda: (plain_tiff(MEGABYTES), tiff(33723, LONG, len(MEGABYTES) // 4, MEGABYTES)),
    "tiff layers": lambda: (plain_tiff(MEGABYTES * 5), tiff(37724, BYTES, 5 * len(MEGABYTES), MEGABYTES * 5)),
    "tiff numbers": lambda: (plain_tiff(bytes(6_000_000)), tiff(65_000, FLOAT, 1_500_000, bytes(6_000_000))),
    "jpeg xmp": lambda: (jpeg_with(), jpeg_with(*parts(XMP, MEGABYTES * 4))),
    "jpeg exif": lambda: (jpeg_with(), jpeg_with(*parts(b"Exif\0\0", exif(3) + MEGABYTES * 4))),
    "jpeg profile": lambda: (jpeg_with(), jpeg_with(*parts(b"ICC_PROFILE\0\1\1", MEGABYTES, 0xE2))),
    "jpeg comment": lambda: (jpeg_with(), jpeg_with(*parts(b"", MEGABYTES, 0xFE))),
    "jpeg profile that is cut": lambda: (jpeg_with(), jpeg_with(jpeg_segment(0xE2, b"ICC_PROFILE\0"))),
    "jpeg resolution that is cut": lambda: (jpeg_with(), jpeg_with(jpeg_segment(0xE0, b"JFIF"))),
    "jpeg captions that are cut": lambda: (jpeg_with(), jpeg_with(jpeg_segment(0xED, b"Photoshop 3.0\x008BIM\4\4"))),
    "jpeg program that is cut": lambda: (jpeg_with(), jpeg_with(jpeg_segment(0xEE, b"Adobe"))),
    "webp": lambda: (
        saved(picture(), "webp", lossless=True),
        saved(picture(), "webp", lossless=True, exif=MEGABYTES, xmp=MEGABYTES, icc_profile=MEGABYTES),
    ),
    "avif": lambda: (
        saved(picture(), "avif", speed=10),
        saved(picture(), "avif", speed=10, exif=exif(1) + MEGABYTES, xmp=MEGABYTES),
    ),
    "jpeg 2000": jp2,
    "psd": lambda: (psd(), long_psd()),
}


@pytest.mark.parametrize("case", CASES)
def test_the_picture_is_the_same_without(case: str) -> None:
    plain, full = CASES[case]()
    assert decoded(full) == decoded(plain)


def test_directories_of_a_tiff_are_not_followed() -> None:
    """A hundred thousand fractions in EXIF, which Pillow would parse after loading the pixels."""
    at = tiff_end(GREY_TIFF_ENTRIES + 1)
    directory = struct.pack("<HHHII", 1, 282, 5, 1 << 30, 0)
    data = grey_tiff(8, 8, (34665, LONG, 1, at), after=directory)
    assert struct.pack("<HHII", 34665, LONG, 1, at) not in without_metadata(data)
    assert decoded(data)


def test_harmless_metadata_is_kept() -> None:
    """The same bytes object, not a copy. Thumbnails find the small profile and the orientation."""
    for data in (jpeg_with(), GIF, PNG, grey_tiff(8, 8), saved(picture(), "gif", comment=b"hello"), b"", b"GIF89a"):
        assert without_metadata(data) is data
    profile = b"profile" * 99
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "a cat")
    made = saved(picture(), "png", icc_profile=profile, exif=exif(6), pnginfo=info, dpi=(300, 300))
    with Opener(1_000_000).opened(made) as opened:
        assert opened.image.info["icc_profile"] == profile
        assert opened.image.info["exif"]
        assert "Title" not in opened.image.info


def test_what_changes_the_picture_stays() -> None:
    """A transparent colour, frames, an orientation: Pillow reads the same from the file and from ours."""
    frames = {"save_all": True, "append_images": [picture("RGB", 1)]}
    for data in (
        saved(picture("P"), "png", transparency=3),
        saved(picture("L"), "png", transparency=3),
        saved(picture(), "png", transparency=(1, 2, 3)),
        saved(picture(), "png", **frames),
        saved(picture(), "tiff", exif=exif(6)),
        gif(0xFE, pieces(MEGABYTES)),
    ):
        with Image.open(io.BytesIO(data)) as expected, Image.open(io.BytesIO(without_metadata(data))) as found:
            assert found.convert("RGBA").tobytes() == expected.convert("RGBA").tobytes()
            assert found.info.get("transparency") == expected.info.get("transparency")
            assert getattr(found, "n_frames", 1) == getattr(expected, "n_frames", 1)


@pytest.mark.parametrize("plain", [PNG, GIF, grey_tiff(8, 8), png((b"tEXt", b"a\0b")), icon(PNG)])
def test_a_file_that_is_cut_is_left_or_changed_and_never_fails_here(plain: bytes) -> None:
    for end in range(len(plain)):
        assert len(without_metadata(plain[:end])) == end
