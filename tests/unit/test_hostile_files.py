"""The cost of hostile files is bounded, and unusual valid files are read. Generators: `tests.fixtures.hostile`."""

import dataclasses
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image

from db.errors import ImageError, Reason
from tests.fixtures import hostile
from tests.fixtures.hostile import MODEL, grey_tiff, jpeg_segment, jpeg_with, picture, png_with, saved, tiff_end
from workers.images.decode import Decoder
from workers.images.safe_open import FORMATS
from workers.resize.depth import eight_bits

MAX_PIXELS = 178_956_970
"""The default."""

PILLOW = int(PIL.__version__.partition(".")[0])
"""From 13 on it reads data that tags of a TIFF share only once."""

WHOLE = hostile.whole()
CLAIMS = hostile.claims()


def decoded(data: bytes) -> Any:
    return Decoder(MODEL, MAX_PIXELS).decode(data)


def refused(data: bytes, max_pixels: int = MAX_PIXELS) -> ImageError:
    with pytest.raises(ImageError) as caught:
        Decoder(MODEL, max_pixels).decode(data)
    assert "\n" not in caught.value.detail
    return caught.value


# ── unusual, and valid ──


@pytest.mark.parametrize("name", WHOLE)
def test_every_format_and_mode_is_read(name: str) -> None:
    """Deep, grey, CMYK, with palettes, valid and broken profiles, icons, animations: all give pixels."""
    found = decoded(WHOLE[name])
    assert max(found.pixels.shape[:2]) == MODEL.size
    assert found.pixels.shape[2] in (3, 4)


def test_every_format_that_is_opened_is_tested_here_and_listed() -> None:
    """The list has no untested format. A cursor differs from an icon in one byte."""
    read = {decoded(data).format.upper() for data in WHOLE.values()}
    assert read == FORMATS - {"CUR"}
    cursor = b"\0\0\2\0" + WHOLE["bitmap.ico"][4:]
    assert decoded(cursor).format == "cur"


@pytest.mark.parametrize("name", [name for name in WHOLE if name.startswith(("moving", "two."))])
def test_of_several_pictures_the_first_counts(name: str) -> None:
    """Approximately, if the format is lossy."""
    first = {"two.xpm": None, "two.dcx": WHOLE["rgb.pcx"]}.get(name, WHOLE["rgb.png"])
    if first:
        found, expected = decoded(WHOLE[name]).pixels[..., :3], decoded(first).pixels[..., :3]
        assert np.abs(found.astype(int) - expected).mean() < 45
        other = decoded(saved(picture("RGB", 1), "png")).pixels
        assert np.abs(found.astype(int) - other).mean() > 60


@pytest.mark.parametrize("orientation", range(1, 9))
def test_nothing_is_turned_by_exif(orientation: int) -> None:
    """As in the references of the models here, which ignore it."""
    assert (
        decoded(WHOLE[f"turned-{orientation}.jpg"]).pixels.tobytes() == decoded(WHOLE["turned-1.jpg"]).pixels.tobytes()
    )
    turned = saved(picture(), "avif", speed=10, exif=hostile.exif(orientation))
    assert decoded(turned).pixels.tobytes() == decoded(saved(picture(), "avif", speed=10)).pixels.tobytes()


def test_no_profile_changes_a_colour() -> None:
    for kind in ("jpg", "png"):
        with_profile = decoded(WHOLE[f"icc.{kind}"]).pixels
        assert with_profile.tobytes() == decoded(WHOLE[f"rgb.{kind}"]).pixels.tobytes()


def test_a_video_after_a_photograph_is_not_searched_for_scans() -> None:
    """Phones append videos; any megabyte may contain the marker of a scan by chance."""
    assert decoded(WHOLE["rgb.jpg"] + b"\xff\xda\0\x08" * 1000).format == "jpeg"
    assert decoded(jpeg_with(jpeg_segment(0xE5, b"\xff\xda" * 1000))).format == "jpeg"


@pytest.mark.parametrize("extra", [b"\xff" * 50, b"\xff\xda"])
def test_a_progressive_jpeg_of_many_scans_is_read(extra: bytes) -> None:
    assert decoded(hostile.progressive_scans(99, 80, 80) + extra).width == 80


# ── valid, and of an unsupported kind ──


UNSUPPORTED = hostile.unsupported()


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_an_unsupported_kind_is_reported_as_such(case: str) -> None:
    error = refused(UNSUPPORTED[case])
    assert error.reason == Reason.UNSUPPORTED, error
    assert len(error.detail) > 20


@pytest.mark.parametrize(
    "name", ["rgb.jpg", "rgb.png", "rgb.bmp", "rgb.tga", "rgb.sgi", "rgba.dds", "RGB.tif", "rgb.ppm"]
)
def test_a_file_truncated_in_its_pixels_is_corrupt(name: str) -> None:
    data = WHOLE[name.lower()]
    assert refused(data[: len(data) * 2 // 3]).reason == Reason.CORRUPT


def test_a_png_without_a_picture_is_corrupt() -> None:
    assert refused(hostile.png(hostile.png_header(2, 2), (b"IEND", b""))).reason == Reason.CORRUPT


# ── deeper than eight bits ──


GREY = picture("L", size=(64, 64))
LEVELS = np.asarray(GREY)
SIXTEEN = Image.fromarray(LEVELS.astype(np.uint16) * 257)


@pytest.mark.parametrize(
    "data",
    [
        saved(SIXTEEN, "png"),
        saved(SIXTEEN, "tiff"),
        saved(SIXTEEN, "tiff", compression="tiff_lzw"),
        saved(SIXTEEN, "ppm"),
        saved(SIXTEEN, "jpeg2000"),
        hostile.deep_tiff(LEVELS.astype(np.uint16) * 257, ">"),
        hostile.deep_tiff(65_535 - LEVELS.astype(np.uint16) * 257, "<", white=0),
        saved(GREY.convert("I"), "tiff"),
        saved(GREY.convert("F"), "tiff"),
        saved(Image.fromarray((LEVELS / 255).astype(np.float32)), "tiff"),
        saved(Image.fromarray((LEVELS / 255).astype(np.float32)), "ppm"),
    ],
    ids=["png", "tiff", "lzw", "pgm", "jp2", "MM", "white is 0", "I", "F", "fractions", "pfm"],
)
def test_deep_grey_is_as_its_copy_in_eight_bits(data: bytes) -> None:
    assert decoded(data).pixels.tobytes() == decoded(saved(GREY, "png")).pixels.tobytes()


def test_every_number_of_16_bits_is_rounded_to_its_257th() -> None:
    every = Image.fromarray(np.arange(65_536, dtype=np.uint16).reshape(256, 256))
    expected = np.round(np.arange(65_536) / 257).reshape(256, 256)
    np.testing.assert_array_equal(np.asarray(eight_bits(every)), expected)


def test_a_transparent_grey_of_16_bits_is_transparent() -> None:
    """That number alone, and not its neighbours, which become the same level."""
    numbers = np.full((64, 64), 1000, np.uint16)
    numbers[:, :32] = 1001
    made = saved(Image.fromarray(numbers), "png", transparency=1000)
    shown = dataclasses.replace(MODEL, background=(0.0, 0.0, 0.0))
    alpha = Decoder(shown, MAX_PIXELS).decode(made).pixels[..., 3]
    assert (alpha[:, :32] == 255).all()
    assert (alpha[:, 32:] == 0).all()


# ── claims ──


@pytest.mark.parametrize("name", CLAIMS)
def test_a_header_that_claims_60000_by_60000_is_refused(name: str) -> None:
    """Before anything is decoded. WebP has no such size; before Pillow 13, a file that claims it cannot be opened."""
    reason = refused(CLAIMS[name]).reason
    assert reason == Reason.TOO_LARGE or (reason == Reason.CORRUPT and name.endswith(".webp"))


@pytest.mark.parametrize("name", CLAIMS)
def test_nor_does_a_lower_limit_let_them_in(name: str) -> None:
    assert refused(hostile.claims(300, 200)[name], 59_999).reason in (Reason.TOO_LARGE, Reason.CORRUPT)


# ── costs ──


def many_tags() -> bytes:
    """2,000 tags that point to the same megabyte."""
    number = 2_000
    where = tiff_end(hostile.GREY_TIFF_ENTRIES + number)
    return grey_tiff(4, 4, *((1000 + tag, 1, 1 << 20, where) for tag in range(number)), after=bytes(1 << 20))


def exif_of_many_tags() -> bytes:
    """The same as EXIF, in segments that Pillow joins."""
    whole = b"Exif\0\0" + many_tags()
    return jpeg_with(
        *(jpeg_segment(0xE1, b"Exif\0\0" + whole[at : at + 60_000]) for at in range(6, len(whole), 60_000))
    )


def list_of_pictures() -> bytes:
    """64 KB that list further pictures of a JPEG, in 5,000 tags of the same 7,500 fractions: 40 million of them."""
    directory = b"".join(struct.pack("<HHII", 1000 + tag, 5, 7_500, 8) for tag in range(5_000))
    listed = b"II*\0" + struct.pack("<IH", 8, 5_000) + directory + bytes(4)
    return jpeg_with(jpeg_segment(0xE2, b"MPF\0" + listed.ljust(65_000, b"\7")))


def gif_comment(pieces: int = 500_000) -> bytes:
    """A comment of so many pieces of a byte."""
    gif, colours = saved(picture("P"), "gif"), 13 + 3 * 256
    return gif[:colours] + b"\x21\xfe" + b"\x01c" * pieces + b"\0" + gif[colours:]


def tiled_tiff() -> bytes:
    """16 x 16 pixels in a tile of 520 million, which would compress to half a megabyte."""
    long, short = 4, 3
    tile = zlib.compress(bytes(1 << 20))
    return hostile.tiff(
        (256, long, 1, 16), (257, long, 1, 16), (258, short, 1, 8), (259, short, 1, 8), (262, short, 1, 1),
        (277, short, 1, 1), (322, long, 1, 20_000), (323, long, 1, 26_000), (324, long, 1, tiff_end(10)),
        (325, long, 1, len(tile)), after=tile,
    )  # fmt: skip


def offsets_of_tiff(*, big: bool = False) -> bytes:
    """The offsets of two million strips."""
    many = 2_000_000
    if big:
        long8 = 16
        return b"II+\0" + struct.pack("<HHQQHHQQ", 8, 0, 16, 1, 273, long8, many, 0) + bytes(8 * many)
    return grey_tiff(4, 4, (273, 4, many, 8), after=bytes(4 * many))


def tiff_of_numbers() -> bytes:
    """A TIFF whose resolution is two million fractions."""
    fraction, many = 5, 2_000_000
    return grey_tiff(4, 4, (282, fraction, many, 8), after=bytes(8 * many))


def looping_tiff() -> bytes:
    """Its first directory is followed by itself."""
    made = bytearray(grey_tiff(4, 4))
    struct.pack_into("<I", made, tiff_end(hostile.GREY_TIFF_ENTRIES) - 4, 8)
    return bytes(made)


def chained_tiff() -> bytes:
    """50,000 empty directories."""
    made = bytearray(grey_tiff(4, 4))
    end = len(made)
    struct.pack_into("<I", made, end - 4, end)
    return bytes(made) + b"".join(struct.pack("<HI", 0, end + 6 * place) for place in range(1, 50_001))


def as_mpo(jpeg: bytes) -> bytes:
    """The same, with a segment that declares two pictures."""
    mpo = WHOLE["two.mpo"]
    begin = mpo.index(b"\xff\xe2")
    return jpeg[:2] + mpo[begin : begin + 2 + int.from_bytes(mpo[begin + 2 : begin + 4], "big")] + jpeg[2:]


def packed(kind: bytes, head: bytes) -> bytes:
    """A PNG with 256 MiB of zeros in a chunk of text or a profile."""
    return png_with((kind, head + zlib.compress(bytes(1 << 28), 1)))


BOMBS: dict[str, tuple[Callable[[], bytes], Reason | None]] = {
    "offsets of a TIFF": (offsets_of_tiff, Reason.CORRUPT),
    "tags of a TIFF": (many_tags, Reason.CORRUPT if PILLOW < 13 else None),
    "tags in EXIF": (exif_of_many_tags, None),
    "the list of pictures in a JPEG": (list_of_pictures, None),
    "segments of EXIF": (lambda: jpeg_with(*[jpeg_segment(0xE1, b"Exif\0\0x")] * 300_000), Reason.CORRUPT),
    "a comment in a GIF": (gif_comment, None),
    "a comment in a GIF without end": (lambda: gif_comment(2_000_000), Reason.CORRUPT),
    "a tile of a TIFF": (tiled_tiff, Reason.TOO_LARGE),
    "numbers in a TIFF": (tiff_of_numbers, None),
    "offsets of a BigTIFF": (lambda: offsets_of_tiff(big=True), Reason.CORRUPT),
    "directories of a TIFF in a circle": (looping_tiff, None),
    "directories of a TIFF in a row": (chained_tiff, None),
    "text in a PNG": (lambda: packed(b"zTXt", b"k\0\0"), None),
    "international text in a PNG": (lambda: packed(b"iTXt", b"k\0\1\0\0\0"), None),
    "a profile in a PNG": (lambda: packed(b"iCCP", b"k\0\0"), None),
    "much text in a PNG": (
        lambda: png_with(*[(b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 20)))] * 200),
        None,
    ),
    "pixels in a PNG that has four": (
        lambda: hostile.png(hostile.png_header(2, 2), (b"IDAT", zlib.compress(bytes(1 << 28), 1)), (b"IEND", b"")),
        None,
    ),
    "chunks of a PNG": (lambda: png_with(*[(b"prIv", b"")] * 300_000), Reason.CORRUPT),
    "scans of a JPEG with a second picture": (
        lambda: as_mpo(hostile.progressive_scans(10_000, 9000, 9000)),
        Reason.CORRUPT,
    ),
    "scans of a JPEG": (lambda: hostile.progressive_scans(10_000, 9000, 9000), Reason.CORRUPT),
    "entries of an icon": (
        lambda: b"icns\xff\xff\xff\xff" + struct.pack(">4sI", b"none", 8) * 500_000,
        Reason.CORRUPT,
    ),
    "pixels of a QOI": (
        lambda: struct.pack(">4sIIBB", b"qoif", 13_000, 13_000, 3, 0) + b"\xfd" * 2_800_000,
        Reason.TOO_LARGE,
    ),
    "runs of a BMP": (lambda: hostile.rle_bmp(13_000, 13_000, b"\xff\1" * 700_000), Reason.TOO_LARGE),
    "lines of text": (lambda: b"P2 13000 13000 9\n" + b"1 " * 1_000_000, Reason.TOO_LARGE),
}
"""Files of at most some megabytes that would take minutes or gigabytes; those without a reason are read."""


@pytest.mark.parametrize("case", BOMBS)
def test_a_bomb_takes_neither_time_nor_memory(case: str) -> None:
    """It would take minutes without the limits; the bounds are for the test to fail if it hangs."""
    make, reason = BOMBS[case]
    data = make()
    before = resource.getrusage(resource.RUSAGE_SELF)
    if reason:
        assert refused(data).reason == reason
    else:
        assert decoded(data).width <= 24
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_utime - before.ru_utime < 20
    assert after.ru_maxrss - before.ru_maxrss < 600_000, "KiB"


def test_pieces_of_a_byte_are_read_where_a_format_has_them() -> None:
    """Reads are limited in the header only: run lengths and masks of pixels are read two and four bytes at a time."""
    runs = hostile.rle_bmp(400, 200, (b"\1\1" * 400 + b"\0\0") * 200 + b"\0\1")
    assert decoded(runs).width == 400
    masks = bytearray(saved(picture("RGBA", size=(200, 200)), "dds"))
    assert decoded(bytes(masks)).width == 200
    struct.pack_into("<IIII", masks, 92, 0xFF, 0xFF00, 0xFF0000, 0xFF000000)
    assert decoded(bytes(masks)).width == 200


def test_formats_outside_of_the_list_are_not_opened() -> None:
    for kind in ("spider", "blp", "msp"):
        mode = {"spider": "F", "blp": "P", "msp": "1"}.get(kind, "RGB")
        assert refused(saved(picture(mode), kind)).reason == Reason.UNSUPPORTED
    assert decoded(WHOLE["rgb.png"]).format == "png"  # and the others still are


def test_truncated_files_give_no_warnings() -> None:
    """In its own process, where warnings are errors. Any error other than ImageError fails the test."""
    code = (
        "import sys; from tests.fixtures.hostile import MODEL, whole; from workers.images.decode import Decoder\n"
        "from db.errors import ImageError\n"
        "for data in whole().values():\n"
        "    for end in (len(data) // 3, len(data) - 9):\n"
        "        try: Decoder(MODEL, 10**6).decode(data[:end])\n"
        "        except ImageError: pass\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_files_of_hardly_a_byte(size: int) -> None:
    for byte in range(256):
        assert refused(bytes([byte] * size)).reason in (Reason.CORRUPT, Reason.UNSUPPORTED)
