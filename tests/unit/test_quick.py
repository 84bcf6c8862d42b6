"""The decoders of sound JPEGs and PNGs give Pillow's pixels, and leave every other file to Pillow."""

import dataclasses
import io
import random
import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from db.errors import ImageError, Reason
from tests.fixtures import hostile
from tests.fixtures.hostile import picture, png, png_header, saved
from workers.images import jpeg_segments, quick_jpeg, quick_png
from workers.images.decode import Decoder
from workers.resize import blend
from workers.resize.pixels import Raster

RNG = np.random.default_rng(5)
SIZES = [(1, 1), (7, 9), (16, 16), (17, 33), (64, 1), (131, 70)]
SAMPLINGS = ["420", "422", "440", "444", "411", "Gray"]
END = (b"IEND", b"")


def smooth(width: int, height: int) -> Image.Image:
    """A picture with shades and a little noise, as photographs have."""
    noise = Image.fromarray(RNG.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((width, height))
    grain = RNG.integers(-9, 10, (height, width, 3))
    return Image.fromarray((np.asarray(noise).astype(int) + grain).clip(0, 255).astype(np.uint8))


def jpeg(size: tuple[int, int], sampling: str = "420", quality: int = 85) -> bytes:
    pixels = np.asarray(smooth(*size))
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", sampling)


def quick(data: bytes) -> Raster | None:
    module = quick_jpeg if data.startswith(b"\xff\xd8") else quick_png
    size = module.size_of(data)
    return module.decoded(data, size) if size else None


def assert_pillows(data: bytes) -> None:
    """It is decoded, to the pixels that Pillow gives."""
    found = quick(data)
    assert found is not None
    image = Image.open(io.BytesIO(data))
    image = image if image.mode == "RGBA" else image.convert("RGB")
    assert found.mode == image.mode
    np.testing.assert_array_equal(found.bytes()[..., : len(image.mode)], np.asarray(image))
    np.testing.assert_array_equal(np.asarray(found.to_pillow()), np.asarray(image))


# ── JPEG ──


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("size", SIZES)
def test_a_jpeg_has_pillows_pixels(sampling: str, size: tuple[int, int]) -> None:
    """Here the versions that are installed are compared; at start those of a worker are."""
    for quality in (5, 60, 97):
        assert_pillows(jpeg(size, sampling, quality))


@pytest.mark.parametrize(
    "options",
    [
        {"progressive": True},
        {"restart_marker_blocks": 2},
        {"optimize": True},
        {"exif": hostile.exif(6), "comment": b"a comment", "icc_profile": b"\xff" * 70_000},
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_kinds_of_jpegs(options: dict[str, object], mode: str) -> None:
    assert_pillows(saved(smooth(83, 61).convert(mode), "jpeg", **options))


JPEG = jpeg((83, 61))
FRAME = JPEG.index(b"\xff\xc0")
SCAN = JPEG.index(b"\xff\xda")


@pytest.mark.parametrize(
    ("why", "data"),
    [
        ("the end is missing", JPEG[:-2]),
        ("half is missing", JPEG[: len(JPEG) // 2]),
        ("the pixels are missing", JPEG[: SCAN + 14] + b"\xff\xd9"),
        ("junk between segments", JPEG[:FRAME] + b"\0\0" + JPEG[FRAME:]),
        ("fill bytes between segments", JPEG[:FRAME] + b"\xff" + JPEG[FRAME:]),
        ("no frame", JPEG[:FRAME] + JPEG[SCAN:]),
        ("bytes after the scan", JPEG[:-2] + b"\0" * 20 + JPEG[-2:]),
        ("Adobe's marker", hostile.jpeg_with(hostile.jpeg_segment(0xEE, b"Adobe\0d\0\0\0\0\1"))),
        ("too many segments", hostile.jpeg_with(*[hostile.jpeg_segment(0xFE, b"")] * 1_000)),
        ("CMYK", saved(picture("CMYK"), "jpeg")),
        ("12 bits", hostile.jpeg_frame(4, 12)),
        ("two components", hostile.jpeg_frame(9, 2)),
        ("lossless", hostile.jpeg_frame(1, 0xC3)),
        ("arithmetic codes", hostile.jpeg_frame(1, 0xC9)),
        ("nothing", b"\xff\xd8"),
        ("a length beyond the end", JPEG[:4] + b"\xff\xff"),
    ],
)
def test_jpegs_that_are_left_to_pillow(why: str, data: bytes) -> None:
    assert quick(data) is None, why


def test_the_limit_of_scans_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a sound file: libjpeg warns of those that `hostile` makes of equal scans."""
    data = saved(smooth(40, 30), "jpeg", progressive=True)
    assert quick(data) is not None
    monkeypatch.setattr(jpeg_segments, "_SCANS", 5)
    assert quick(data) is None


def test_another_libjpeg_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that enlarges the colours in another way, as simplejpeg itself does when asked."""
    quick_jpeg.gives_pillows_pixels.cache_clear()
    monkeypatch.setattr(simplejpeg, "decode_jpeg", partial(simplejpeg.decode_jpeg, fastupsample=True))
    try:
        assert not quick_jpeg.gives_pillows_pixels()
        assert quick(JPEG) is None
    finally:
        quick_jpeg.gives_pillows_pixels.cache_clear()


# ── PNG ──


def filtered(width: int, height: int, kinds: list[int], channels: int) -> bytes:
    """Rows of random bytes: with any filter they are valid, and all values of all neighbours occur."""
    rows = RNG.integers(0, 256, (height, 1 + channels * width), dtype=np.uint8)
    rows[:, 0] = (kinds * height)[:height]
    return rows.tobytes()


def png_of(raw: bytes, size: tuple[int, int] = (31, 23), colour: int = 2, piece: int = 1 << 30) -> bytes:
    """A PNG of 8 bits, whose compressed rows are in chunks of so many bytes."""
    packed = zlib.compress(raw)
    parts = [(b"IDAT", packed[at : at + piece]) for at in range(0, len(packed), piece)]
    return png(png_header(*size, colour=colour), *parts, END)


@pytest.mark.parametrize("kinds", [[0], [1], [2], [3], [4], [4, 3, 2, 1, 0]])
@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (6, 4)])
@pytest.mark.parametrize("size", [(1, 1), (31, 23), (300, 200)])
def test_a_png_has_pillows_pixels(kinds: list[int], colour: int, channels: int, size: tuple[int, int]) -> None:
    raw = filtered(*size, kinds, channels)
    assert_pillows(png_of(raw, size, colour))
    assert_pillows(png_of(raw, size, colour, piece=997))


RAW = filtered(31, 23, [4, 3, 2, 1, 0], 3)
PACKED = zlib.compress(RAW)
HEADER = png_header(31, 23)
PIXELS = (b"IDAT", PACKED)


def test_metadata_around_the_pixels_does_not_matter() -> None:
    text = (b"tEXt", b"Title\0any")
    assert_pillows(png(HEADER, text, (b"eXIf", b"II*\0"), PIXELS, text, END))
    assert_pillows(png_of(RAW) + b"bytes after the end")


@pytest.mark.parametrize(
    ("why", "data"),
    [
        ("no end", png(HEADER, PIXELS)),
        ("the checksum of the pixels is wrong", png(HEADER, (b"IDAT", PACKED[:-1] + b"?"), END)),
        ("the checksum of the pixels is missing", png(HEADER, (b"IDAT", PACKED[:-4]), END)),
        ("the checksum of the header is wrong", png_of(RAW)[:29] + b"????" + png_of(RAW)[33:]),
        ("a row is missing", png_of(RAW[:-94])),
        ("a byte is missing", png_of(RAW[:-1])),
        ("a byte too many", png_of(RAW + b"\0")),
        ("a megabyte too many", png_of(RAW + bytes(1 << 20))),
        ("bytes after the compressed ones", png(HEADER, (b"IDAT", PACKED + b"\0"), END)),
        ("a filter that does not exist", png_of(b"\5" + RAW[1:])),
        ("not compressed data", png(HEADER, (b"IDAT", b"?" * 99), END)),
        ("chunks of pixels with another between", png(HEADER, PIXELS, (b"tEXt", b"a\0b"), (b"IDAT", b""), END)),
        ("a palette", png(HEADER, (b"PLTE", bytes(6)), PIXELS, END)),
        ("a transparent colour", png(HEADER, (b"tRNS", bytes(6)), PIXELS, END)),
        ("moving", hostile.whole()["moving.png"]),
        ("an unknown critical chunk", png(HEADER, (b"ABCD", b""), PIXELS, END)),
        ("16 bits", hostile.deep_rgb_png()),
        ("grey", saved(picture("L"), "png")),
        ("interlaced", png((b"IHDR", HEADER[1][:-1] + b"\1"), PIXELS, END)),
        ("no width", png_of(b"\0" * 23, (0, 23))),
        ("too many chunks", png(HEADER, *[(b"tEXt", b"a\0b")] * 10_000, PIXELS, END)),
    ],
)
def test_pngs_that_are_left_to_pillow(why: str, data: bytes) -> None:
    assert quick(data) is None, why


# ── both, and the steps after them ──


def test_damaged_files_have_pillows_answer() -> None:
    """What is decoded after a defect at random has Pillow's pixels; the rest is left to Pillow."""
    random_ = random.Random(1)
    sound = [JPEG, saved(smooth(40, 30), "jpeg", progressive=True), png_of(RAW), saved(picture("RGBA"), "png")]
    decoder, left = Decoder(hostile.MODEL, 1_000_000), 0
    for number in range(1_500):
        data = sound[number % len(sound)]
        data = random_.choice(hostile.ACCIDENTS)(random_, data, random_.choice(sound))
        left += quick(data[:]) is None
        assert answer(decoder.decode, data) == answer(decoder._by_pillow, data)
    assert 500 < left < 1_490


def answer(decode: Callable[[bytes], object], data: bytes) -> object:
    try:
        found = decode(data)
    except ImageError as error:
        return error.reason, error.detail
    assert dataclasses.is_dataclass(found)
    return found.pixels.shape, found.pixels.tobytes(), found.width, found.height, found.format


SPECS = {
    "no background": {"resize": "fit", "size": 20},
    "fit": {"resize": "fit", "size": 20, "background": (0.5, 0.2, 1.0), "filter": "lanczos"},
    "square": {"resize": "square-pad", "size": 40, "background": (1.0, 0.9, 0.0), "fill": (1.0, 0.0, 0.0)},
    "same size": {"resize": "fit", "size": 24, "background": (0.5, 0.5, 0.5)},
    "nearest": {"resize": "fit", "size": 20, "background": (0.5, 0.5, 0.5), "filter": "nearest"},
    "timm's border": {"crop_mode": "border", "size": 16, "crop_pct": 0.9},
    "reduced": {"resize": "fit", "size": 5, "dct_scaling": True},
    "hardly reduced": {"resize": "fit", "size": 10, "dct_scaling": True},
}


@pytest.mark.parametrize("name", SPECS)
def test_every_preprocessing_has_the_pixels_of_pillows_path(name: str) -> None:
    decoder = Decoder(dataclasses.replace(hostile.MODEL, **SPECS[name]), 1_000_000)
    opaque = picture("RGBA")
    opaque.putalpha(255)
    for file in (
        *(saved(image, "png") for image in (picture(), picture("RGBA"), opaque, smooth(30, 200))),
        *(saved(image, "jpeg") for image in (picture(), picture("L"), smooth(30, 200))),
    ):
        assert quick(file) is not None
        assert answer(decoder.decode, file) == answer(decoder._by_pillow, file)


def test_the_limit_of_pixels_holds() -> None:
    for data in (JPEG, png_of(RAW)):
        with pytest.raises(ImageError) as caught:
            Decoder(hostile.MODEL, 500).decode(data)
        assert caught.value.reason == Reason.TOO_LARGE


def every_value_and_alpha() -> Image.Image:
    value, alpha = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    return Image.fromarray(np.dstack([value, value[:, ::-1], np.roll(value, 77, 1), alpha])).copy()


def test_alpha_is_premultiplied_as_pillow_does() -> None:
    image = every_value_and_alpha()
    assert blend.premultiplied(image).words.tobytes() == image.convert("RGBa").tobytes()


def test_alpha_is_composited_as_pillow_does() -> None:
    image = every_value_and_alpha()
    for level in range(256):
        colour = (level, 255 - level, level // 2)
        expected = Image.new("RGBA", image.size, (*colour, 255))
        expected.alpha_composite(image)
        found = blend.over(image, (colour[0] / 255, colour[1] / 255, colour[2] / 255))
        np.testing.assert_array_equal(found.bytes()[..., :3], np.asarray(expected)[..., :3])


@pytest.mark.parametrize("at", [(0, 0), (29, 19), (3, 19)])
def test_one_transparent_pixel_is_found(at: tuple[int, int]) -> None:
    image = Image.new("RGBA", (30, 20), (1, 2, 3, 255))
    assert blend.is_opaque(image)
    image.putpixel(at, (1, 2, 3, 254))
    assert not blend.is_opaque(image)
