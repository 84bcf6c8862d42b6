"""Decoding and preprocessing against the references' own steps, one image at a time, with torchvision."""

import dataclasses
import io
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as tv
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform
from torchvision.transforms import InterpolationMode

from db.errors import ImageError, Reason
from tests.fixtures.examples import up_to
from workers.images.decode import Decoded, Decoder
from workers.inference.preprocess import Batch, Preprocess
from workers.models.spec import ModelSpec
from workers.resize.geometry import fitted_size

CPU = torch.device("cpu")
MAX_PIXELS = 20_000_000
GREY = (0.5, 0.5, 0.5)
WHITE = (1.0, 1.0, 1.0)
BARE = ModelSpec(name="m", family="timm", architecture="none", tags=(), weights=Path("none"), size=384)
JTP = dataclasses.replace(BARE, resize="fit", filter="lanczos", background=GREY, fill_when="after")
WD = dataclasses.replace(BARE, size=448, resize="square-pad", background=WHITE, fill=WHITE, channel_order="BGR")
NORMALISATIONS = [
    *((0.5, 0.5), (0.0, 1.0)),
    *((0.485, 0.229), (0.456, 0.224), (0.406, 0.225)),  # ImageNet
    *((0.48145466, 0.26862954), (0.4578275, 0.26130258), (0.40821073, 0.27577711)),  # CLIP
]
"""Mean and standard deviation of the families of taggers."""
RNG = np.random.default_rng(7)


def noise(mode: str, width: int, height: int) -> Image.Image:
    """Random pixels: the hardest content for a resampling filter."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    shape = (height, width) if bands == 1 else (height, width, bands)
    if mode == "I;16":
        return Image.fromarray(RNG.integers(0, 65536, shape, dtype=np.uint16))
    if mode in ("1", "P"):
        return noise("RGB", width, height).convert(mode)
    if mode == "LA":
        return Image.merge("LA", [noise("L", width, height), noise("L", width, height)])
    data = RNG.integers(0, 256, shape, dtype=np.uint8)
    return Image.frombytes(mode, (width, height), data.tobytes())


def encoded(image: Image.Image, kind: str = "png", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def ours(spec: ModelSpec, *files: bytes) -> torch.Tensor:
    preprocess = Preprocess(spec, CPU)
    decoder = Decoder(spec, MAX_PIXELS)
    return preprocess.normalise(preprocess.collate([decoder.decode(file) for file in files], len(files)))


def opened(data: bytes) -> Image.Image:
    """The image as the references open it, except 16 bits, which become eight first."""
    image = Image.open(io.BytesIO(data))
    if image.mode == "I;16":
        return Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8))
    return image


def jtp_reference(data: bytes, filter_: str = "lanczos", *, size: int = 384) -> torch.Tensor:
    """RGBA, fit with growth, tensor, composite on 0.5, normalise, centre crop that pads."""
    image = opened(data).convert("RGBA")
    width, height = image.size
    scale = min(size / height, size / width)
    if scale != 1.0:
        # The reference has no max(1, ...) and raises where a side rounds to 0.
        new = [max(1, min(round(side * scale), size)) for side in (height, width)]
        image = tv.resize(image, new, InterpolationMode[filter_.upper()], antialias=True)
    tensor = tv.to_tensor(image)
    rgb, alpha = tensor[:3], tensor[3:]
    composed = rgb * alpha + 0.5 * (1 - alpha)
    return tv.center_crop(tv.normalize(composed, [0.5] * 3, [0.5] * 3), [size, size])


def wd_reference(data: bytes, filter_: str = "bicubic", *, size: int = 448) -> torch.Tensor:
    """White under transparency, a white square, bicubic, normalise, RGB to BGR."""
    image = opened(data)
    if image.mode not in ("RGB", "RGBA"):
        image = image.convert("RGBA") if "transparency" in image.info else image.convert("RGB")
    if image.mode == "RGBA":
        canvas = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(canvas, image).convert("RGB")
    longest = max(image.size)
    square = Image.new("RGB", (longest, longest), (255, 255, 255))
    square.paste(image, ((longest - image.width) // 2, (longest - image.height) // 2))
    tensor = tv.to_tensor(square.resize((size, size), Image.Resampling[filter_.upper()]))
    return tv.normalize(tensor, [0.5] * 3, [0.5] * 3)[[2, 1, 0]]


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def with_alpha(width: int, height: int, alpha: int) -> Image.Image:
    image = noise("RGBA", width, height)
    image.putalpha(alpha)
    return image


CASES: dict[str, Callable[[], bytes]] = {
    "rgb": lambda: encoded(noise("RGB", 500, 400)),
    "jpeg": lambda: encoded(noise("RGB", 640, 480), "jpeg", quality=80),
    "jpeg that says it is turned": lambda: encoded(noise("RGB", 50, 20), "jpeg", exif=b"Exif\0\0" + turned_exif()),
    "rgba": lambda: encoded(noise("RGBA", 500, 400)),
    "rgba, opaque": lambda: encoded(with_alpha(500, 400, 255)),
    "rgba, not resized": lambda: encoded(noise("RGBA", 384, 200)),
    "rgba, enlarged": lambda: encoded(noise("RGBA", 90, 41)),
    "palette": lambda: encoded(noise("P", 300, 200)),
    "palette with a transparent colour": lambda: encoded(noise("P", 300, 200), transparency=3),
    "palette with many alphas": lambda: encoded(noise("P", 300, 200), transparency=bytes(range(256))),
    "rgb with a transparent colour": lambda: encoded(Image.new("RGB", (30, 20), (1, 2, 3)), transparency=(1, 2, 3)),
    "grey": lambda: encoded(noise("L", 300, 200)),
    "grey with a transparent level": lambda: encoded(noise("L", 300, 200), transparency=9),
    "grey with alpha": lambda: encoded(noise("LA", 300, 200)),
    "one bit": lambda: encoded(noise("1", 300, 200)),
    "16 bit": lambda: encoded(noise("I;16", 300, 200)),
    "cmyk": lambda: encoded(noise("CMYK", 300, 200), "jpeg"),
    "webp with alpha": lambda: encoded(noise("RGBA", 300, 200), "webp", lossless=True),
    "animation": lambda: encoded(noise("P", 30, 20), "gif", save_all=True, append_images=[noise("P", 30, 20)]),
    "tiff": lambda: encoded(noise("RGB", 300, 200), "tiff"),
    "one pixel": lambda: encoded(noise("RGB", 1, 1)),
    "5000 x 3": lambda: encoded(noise("RGB", 5000, 3)),
    "3 x 5000": lambda: encoded(noise("RGBA", 3, 5000)),
    "exactly 384": lambda: encoded(noise("RGB", 384, 384)),
    "smaller": lambda: encoded(noise("RGB", 200, 100)),
    "odd padding below": lambda: encoded(noise("RGB", 384, 301)),
    "odd padding right": lambda: encoded(noise("RGB", 301, 384)),
}


def turned_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes().removeprefix(b"Exif\0\0")


class TestJtp:
    @pytest.mark.parametrize("case", CASES)
    def test_it_equals_the_reference(self, case: str) -> None:
        data = CASES[case]()
        close(ours(JTP, data)[0], jtp_reference(data))

    def test_a_batch_of_all_kinds_equals_the_images_one_by_one(self) -> None:
        """With and without alpha, padded and not: each image gives the same result as alone."""
        files = [make() for make in CASES.values()]
        found = ours(JTP, *files)
        for position, data in enumerate(files):
            close(found[position], jtp_reference(data))

    def test_what_is_transparent_is_zero(self) -> None:
        """0.5 grey under it, 0.5 subtracted."""
        assert torch.count_nonzero(ours(JTP, encoded(with_alpha(50, 40, 0)))) == 0

    def test_the_odd_row_of_padding_is_at_the_bottom(self) -> None:
        found = ours(JTP, encoded(Image.new("RGB", (384, 301), (255, 0, 0))))[0, 0]
        assert torch.count_nonzero(found[:41]) == 0
        assert found[41:342].min() == 1
        assert torch.count_nonzero(found[342:]) == 0

    @settings(max_examples=up_to(40), deadline=None)
    @given(
        width=st.integers(1, 500),
        height=st.integers(1, 500),
        mode=st.sampled_from(["RGB", "RGBA", "L", "LA", "P", "1", "I;16"]),
    )
    def test_it_equals_the_reference_for_any_size_and_mode(self, width: int, height: int, mode: str) -> None:
        data = encoded(noise(mode, width, height), compress_level=1)
        close(ours(JTP, data)[0], jtp_reference(data))

    @settings(deadline=None)
    @given(width=st.integers(1, 100_000), height=st.integers(1, 100_000))
    def test_the_fitted_size_touches_the_square_and_never_leaves_it(self, width: int, height: int) -> None:
        fitted = fitted_size(width, height, 384, grow=True)
        assert max(fitted) == 384
        assert min(fitted) >= 1

    def test_without_growth_small_images_keep_their_size(self) -> None:
        assert fitted_size(200, 100, 384, grow=False) == (200, 100)
        assert fitted_size(768, 384, 384, grow=False) == (384, 192)


class TestFill:
    def test_a_fill_before_normalisation_is_a_colour(self) -> None:
        """Padding of that colour in the file would give the same."""
        spec = dataclasses.replace(JTP, fill=(0.2, 0.4, 0.6), fill_when="before", mean=(0.1, 0.2, 0.3))
        image = Image.new("RGB", (384, 200), (51, 102, 153))
        found = ours(spec, encoded(image))
        close(found, found[:, :, 192:193, :1].expand_as(found))

    def test_without_a_background_alpha_is_dropped(self) -> None:
        spec = dataclasses.replace(JTP, background=None)
        image = noise("RGBA", 384, 384)
        close(ours(spec, encoded(image)), ours(spec, encoded(image.convert("RGB"))))

    def test_channels_are_swapped_after_mean_and_std(self) -> None:
        spec = dataclasses.replace(JTP, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
        data = encoded(noise("RGB", 384, 384))
        swapped = ours(dataclasses.replace(spec, channel_order="BGR"), data)
        close(swapped, ours(spec, data)[:, [2, 1, 0]])


class TestWd:
    @pytest.mark.parametrize("case", [case for case in CASES if "5000" not in case])
    def test_it_equals_the_reference(self, case: str) -> None:
        data = CASES[case]()
        close(ours(WD, data)[0], wd_reference(data))

    def test_padding_is_white_to_the_network(self) -> None:
        found = ours(WD, encoded(Image.new("RGB", (400, 100), (0, 0, 0))))[0]
        assert found[:, :100].min() == 1


class TestTimm:
    @pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
    @pytest.mark.parametrize("crop_pct", [0.875, 0.9, 1.0])
    @pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
    def test_it_equals_timms_own_transform(self, crop_mode: str, crop_pct: float, interpolation: str) -> None:
        config = {
            "input_size": (3, 160, 160),
            "interpolation": interpolation,
            "crop_pct": crop_pct,
            "crop_mode": crop_mode,
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
        }
        transform = create_transform(**config)
        del config["input_size"], config["interpolation"]
        spec = dataclasses.replace(BARE, size=160, filter=interpolation, **config)
        for case in ("rgb", "jpeg", "palette", "rgba", "grey", "one pixel", "smaller", "odd padding right"):
            data = CASES[case]()
            expected = transform(Image.open(io.BytesIO(data)).convert("RGB"))
            close(ours(spec, data)[0], expected)


class TestNearest:
    """The filter that Pillow computes."""

    def test_fit(self) -> None:
        for case in ("rgb", "rgba", "rgba, opaque", "smaller"):
            data = CASES[case]()
            close(ours(dataclasses.replace(JTP, filter="nearest"), data)[0], jtp_reference(data, "nearest"))

    def test_square(self) -> None:
        for case in ("rgb", "rgba", "rgba, opaque", "smaller"):
            data = CASES[case]()
            close(ours(dataclasses.replace(WD, filter="nearest"), data)[0], wd_reference(data, "nearest"))


class TestDctScaling:
    """JPEGs are decoded at reduced size if a model sets `dct_scaling`."""

    SCALED = dataclasses.replace(JTP, dct_scaling=True)

    def decoded(self, data: bytes) -> tuple[Decoded, Decoded]:
        """As the reference does, and scaled."""
        return Decoder(JTP, MAX_PIXELS).decode(data), Decoder(self.SCALED, MAX_PIXELS).decode(data)

    @pytest.mark.parametrize("size", [(1601, 1203), (900, 1537), (4000, 2999), (3073, 40)])
    def test_it_is_close_and_not_the_same(self, size: tuple[int, int]) -> None:
        """The size of the result and the facts of the original do not change."""
        image = Image.radial_gradient("L").convert("RGB").resize(size)
        plain, scaled = self.decoded(encoded(image, "jpeg", quality=90))
        assert (scaled.width, scaled.height, scaled.format) == (*size, "jpeg")
        assert scaled.pixels.shape == plain.pixels.shape
        difference = np.abs(scaled.pixels.astype(int) - plain.pixels)
        assert 0 < difference.max() < 32
        assert difference.mean() < 2

    @pytest.mark.parametrize(
        ("image", "kind"),
        [
            (noise("RGB", 1535, 1200), "jpeg"),  # a half would be less than twice 384
            (noise("RGB", 100, 80), "jpeg"),
            (noise("RGB", 1600, 1200), "png"),
        ],
    )
    def test_what_cannot_be_scaled_is_the_same(self, image: Image.Image, kind: str) -> None:
        plain, scaled = self.decoded(encoded(image, kind))
        assert plain.pixels.tobytes() == scaled.pixels.tobytes()

    @pytest.mark.parametrize("spec", [WD, dataclasses.replace(BARE, crop_pct=0.875)])
    def test_every_family_gets_pixels_of_its_size(self, spec: ModelSpec) -> None:
        decoder = Decoder(dataclasses.replace(spec, dct_scaling=True), MAX_PIXELS)
        data = encoded(noise("RGB", 3001, 2003), "jpeg")
        assert decoder.decode(data).pixels.shape == (spec.size, spec.size, 3)

    def test_scores_of_it_are_those_of_another_model(self) -> None:
        """Without it the identity of the model is unchanged."""
        assert self.SCALED.identity() == {**JTP.identity(), "dct_scaling": True}


class TestBatches:
    def test_pixels_stay_eight_bit_and_have_alpha_only_where_it_is_needed(self) -> None:
        decoder, preprocess = Decoder(JTP, MAX_PIXELS), Preprocess(JTP, CPU)
        plain = decoder.decode(encoded(noise("RGB", 384, 384)))
        opaque = decoder.decode(encoded(with_alpha(384, 384, 255)))
        clear = decoder.decode(encoded(with_alpha(384, 384, 9)))
        assert preprocess.collate([plain, opaque], 2).pixels.shape == (2, 384, 384, 3)
        batch = preprocess.collate([plain, clear], 2)
        assert (batch.pixels.shape, batch.pixels.dtype) == ((2, 384, 384, 4), torch.uint8)

    def test_boxes_are_there_only_when_something_is_padded(self) -> None:
        decoder, preprocess = Decoder(JTP, MAX_PIXELS), Preprocess(JTP, CPU)
        full = decoder.decode(encoded(noise("RGB", 384, 384)))
        half = decoder.decode(encoded(noise("RGB", 384, 192)))
        assert preprocess.collate([full], 1).boxes is None
        assert preprocess.collate([full, half], 2).boxes is not None

    def test_the_result_is_fp32_in_channel_first_shape_and_channel_last_memory(self) -> None:
        """The layout of convolutions: no copy before the first of them."""
        found = Preprocess(JTP, CPU).normalise(Batch(torch.zeros((2, 384, 384, 3), dtype=torch.uint8), None))
        assert (found.shape, found.dtype) == ((2, 3, 384, 384), torch.float32)
        assert found.is_contiguous(memory_format=torch.channels_last)

    def test_canvases_without_an_image_hold_the_fill(self) -> None:
        """Their memory may hold old values."""
        preprocess = Preprocess(dataclasses.replace(JTP, fill=(0.25, 0.5, 0.75)), CPU)
        full = Decoder(JTP, MAX_PIXELS).decode(encoded(noise("RGB", 384, 384)))
        found = preprocess.normalise(preprocess.collate([full], 3))
        assert found.shape[0] == 3
        close(found[:1], preprocess.normalise(preprocess.collate([full], 1)))
        close(found[1:], torch.tensor([0.25, 0.5, 0.75]).view(1, 3, 1, 1).expand(2, 3, 384, 384))

    @pytest.mark.parametrize(("mean", "std"), NORMALISATIONS)
    def test_every_value_of_a_pixel_gives_the_bits_of_the_reference(self, mean: float, std: float) -> None:
        values = torch.arange(256, dtype=torch.uint8)
        spec = dataclasses.replace(BARE, size=16, mean=(mean,) * 3, std=(std,) * 3)
        pixels = values.view(1, 16, 16, 1).expand(1, 16, 16, 3).contiguous()
        found = Preprocess(spec, CPU).normalise(Batch(pixels, None))[0, 0]
        assert torch.equal(found, tv.normalize(values.view(1, 16, 16).float().div(255), [mean], [std])[0])

    def test_threads_can_share_a_decoder(self) -> None:
        decoder, data = Decoder(JTP, MAX_PIXELS), encoded(noise("RGB", 500, 300))
        found: list[bytes] = []
        threads = [
            threading.Thread(target=lambda: found.append(decoder.decode(data).pixels.tobytes())) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [decoder.decode(data).pixels.tobytes()] * 8


class TestFacts:
    @pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "bmp", "tiff", "avif", "jpeg2000", "ppm", "tga"])
    def test_size_and_format_are_those_of_the_file(self, kind: str) -> None:
        found = Decoder(JTP, MAX_PIXELS).decode(encoded(noise("RGB", 60, 40), kind))
        assert (found.width, found.height, found.format) == (60, 40, kind)
        assert found.pixels.shape == (256, 384, 3)


PNG = encoded(Image.new("RGB", (400, 300), (9, 8, 7)), compress_level=0)
JPEG = encoded(Image.new("RGB", (400, 300), (9, 8, 7)), "jpeg")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header declares another size than its content."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def icon_of(png: bytes) -> bytes:
    """An icon of 16 x 16 by its header, with this PNG in it."""
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(png), 22) + png


BROKEN: dict[str, tuple[bytes, Reason]] = {
    "empty": (b"", Reason.CORRUPT),
    "text": (b"<!DOCTYPE html><title>404</title>", Reason.UNSUPPORTED),
    "zeros": (bytes(4000), Reason.UNSUPPORTED),
    "a video": (b"\0\0\0\x18ftypmp42" + bytes(100), Reason.UNSUPPORTED),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", Reason.UNSUPPORTED),
    "the start of a PNG": (PNG[:20], Reason.CORRUPT),
    "the start of a JPEG": (JPEG[:20], Reason.CORRUPT),
    "half a PNG": (PNG[: len(PNG) // 2], Reason.CORRUPT),
    "half a JPEG": (JPEG[: len(JPEG) // 2 + 200], Reason.CORRUPT),
    "a PNG with a bad checksum": (PNG[:5000] + b"\xff" + PNG[5001:], Reason.CORRUPT),
    "a PNG without data": (png_of(40, 30), Reason.CORRUPT),
    "half a GIF": (encoded(noise("P", 99, 99), "gif")[:2000], Reason.CORRUPT),
    "half a WebP": (encoded(noise("RGB", 99, 99), "webp")[:900], Reason.CORRUPT),
    "half a TIFF": (encoded(noise("RGB", 99, 99), "tiff")[:900], Reason.CORRUPT),
    "half a JPEG 2000": (encoded(noise("RGB", 99, 99), "jpeg2000")[:400], Reason.CORRUPT),
    "half an AVIF": (encoded(noise("RGB", 99, 99), "avif")[:900], Reason.CORRUPT),
    "a little too large": (png_of(20_001, 1_000), Reason.TOO_LARGE),
    "much too large": (png_of(60_000, 60_000), Reason.TOO_LARGE),
    "much too large, in an icon": (icon_of(png_of(60_000, 60_000)), Reason.TOO_LARGE),
    "a little too large, in an icon": (icon_of(png_of(20_001, 1_000)), Reason.TOO_LARGE),
}


class TestBroken:
    @pytest.mark.parametrize("case", BROKEN)
    def test_each_gets_its_reason_and_a_sentence(self, case: str) -> None:
        data, reason = BROKEN[case]
        with pytest.raises(ImageError) as caught:
            Decoder(JTP, MAX_PIXELS).decode(data)
        assert caught.value.reason == reason
        assert 5 < len(caught.value.detail) < 300
        assert "\n" not in caught.value.detail

    def test_an_empty_file_is_called_that(self) -> None:
        with pytest.raises(ImageError, match="the file is empty"):
            Decoder(JTP, MAX_PIXELS).decode(b"")

    def test_the_limit_itself_is_allowed(self) -> None:
        data = encoded(Image.new("L", (100, 50)))
        assert Decoder(JTP, 5000).decode(data).width == 100
        with pytest.raises(ImageError, match="too_large"):
            Decoder(JTP, 4999).decode(data)

    @pytest.mark.parametrize("spec", [WD, BARE])
    def test_a_strip_that_would_grow_beyond_the_limit_is_refused_before_it_does(self, spec: ModelSpec) -> None:
        """50,000 x 1 is a small file; the square around it is 7.5 GB."""
        with pytest.raises(ImageError, match="would become"):
            Decoder(spec, MAX_PIXELS).decode(encoded(Image.new("RGB", (50_000, 1))))

    @settings(max_examples=up_to(200), deadline=None)
    @given(
        position=st.integers(0, len(JPEG) - 1),
        value=st.integers(0, 255),
        kind=st.sampled_from(["jpeg", "png", "gif", "webp", "tiff", "bmp"]),
    )
    def test_a_damaged_byte_gives_an_image_or_a_reason_and_nothing_else(
        self, position: int, value: int, kind: str
    ) -> None:
        data = bytearray(SMALL[kind])
        data[position % len(data)] = value
        try:
            found = Decoder(JTP, MAX_PIXELS).decode(bytes(data))
        except ImageError as error:
            assert error.reason in (Reason.CORRUPT, Reason.UNSUPPORTED, Reason.TOO_LARGE)  # noqa: PT017 - either is fine
        else:
            assert max(found.pixels.shape) == 384


SMALL = {kind: encoded(noise("RGB", 20, 16), kind) for kind in ("jpeg", "png", "gif", "webp", "tiff", "bmp")}
