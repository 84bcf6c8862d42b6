"""Our resampling compared with Pillow's, bit for bit."""

import gc

import numba
import numba.core.caching
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.fixtures.examples import up_to
from workers.models.spec import Filter
from workers.resize import resample as module
from workers.resize.geometry import Box, Size
from workers.resize.jit import compiled
from workers.resize.pixels import strips
from workers.resize.resample import can_resample, columns_first, resample

FILTERS: tuple[Filter, ...] = ("box", "bilinear", "hamming", "bicubic", "lanczos")
RNG = np.random.default_rng(3)
SIZES = st.tuples(st.integers(1, 300), st.integers(1, 300))


def noise(width: int, height: int, mode: str = "RGB", *, saturated: bool = False) -> Image.Image:
    """Random bytes, or 0 and 255 alone, with which filters overshoot most."""
    data = RNG.integers(0, 256, (height, width, len(mode)), dtype=np.uint8)
    return Image.frombytes(mode, (width, height), (data // 128 * 255 if saturated else data).tobytes())


def pillows(image: Image.Image, kind: Filter, size: Size) -> Image.Image:
    return image.resize(size, Image.Resampling[kind.upper()])


def ours(image: Image.Image, kind: Filter, size: Size, *, alpha: bool = False) -> np.ndarray:
    return resample(image, kind, size, (0, 0, *size), canvas=image.size, alpha=alpha)


@settings(max_examples=up_to(200), deadline=None)
@given(source=SIZES, to=SIZES, kind=st.sampled_from(FILTERS), saturated=st.booleans())
def test_it_equals_pillow_for_any_size(source: Size, to: Size, kind: Filter, saturated: bool) -> None:
    """Larger, smaller, one of each, and unchanged sides."""
    image = noise(*source, saturated=saturated)
    np.testing.assert_array_equal(ours(image, kind, to), np.asarray(pillows(image, kind, to)))


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((1, 1), (384, 384)),
        ((1, 1), (1, 3)),
        ((1, 100), (384, 7)),
        ((30_000, 2), (384, 1)),
        ((65_536, 1), (1, 1)),
        ((1, 65_536), (1, 1)),
        ((60, 6_000), (4, 384)),
        ((60, 6_001), (4, 384)),
        ((3, 301), (3, 302)),
        ((100, 3_000), (384, 384)),
        ((2, 4), (1, 1)),
        ((130, 1_000), (70, 120)),
        ((1_080, 2_400), (173, 384)),
        ((1280, 1024), (384, 307)),
        ((640, 480), (640, 100)),
        ((640, 480), (100, 480)),
        ((640, 480), (640, 480)),
    ],
)
def test_it_equals_pillow_at_the_extremes(kind: Filter, source: Size, target: Size) -> None:
    image = noise(*source)
    np.testing.assert_array_equal(ours(image, kind, target), np.asarray(pillows(image, kind, target)))


@settings(max_examples=up_to(200), deadline=None)
@given(source=st.tuples(st.integers(1, 9), st.integers(1, 999)), to=SIZES, kind=st.sampled_from(FILTERS))
def test_it_equals_pillow_for_tall_images(source: Size, to: Size, kind: Filter) -> None:
    """Sizes at which versions of Pillow differ in the order of the passes."""
    image = noise(*source)
    np.testing.assert_array_equal(ours(image, kind, to), np.asarray(pillows(image, kind, to)))


@pytest.mark.parametrize("pillow", [12, 13])
@settings(max_examples=up_to(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(source=SIZES, to=SIZES, kind=st.sampled_from(FILTERS))
def test_either_order_equals_two_resizes_of_one_side_each(
    source: Size, to: Size, kind: Filter, pillow: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With any version of Pillow: two separate resizes give either order."""
    monkeypatch.setattr(module, "_PILLOW", pillow)
    image = noise(*source)
    between = (source[0], to[1]) if columns_first(source, to, pillow) else (to[0], source[1])
    expected = np.asarray(pillows(pillows(image, kind, between), kind, to))
    np.testing.assert_array_equal(ours(image, kind, to), expected)


@pytest.mark.parametrize(
    ("canvas", "size", "before", "since"),
    [
        ((60, 6_000), (4, 384), False, True),
        ((60, 6_001), (4, 384), True, True),
        ((1, 101), (1, 101), False, False),
        ((1, 101), (1, 102), False, False),
        ((100, 3_000), (384, 384), False, True),
        ((1_000, 1_500), (256, 384), False, False),
        ((1_080, 2_400), (173, 384), False, True),
        ((1_024, 1_024), (448, 448), False, False),
        ((20, 30), (10, 10), False, False),
        ((20, 31), (10, 10), False, True),
        ((20, 30), (15, 20), False, False),
    ],
)
def test_the_order_of_the_passes(canvas: Size, size: Size, before: bool, since: bool) -> None:
    assert columns_first(canvas, size, 12) == before
    assert columns_first(canvas, size, 13) == since


@settings(deadline=None)
@given(
    source=st.tuples(st.integers(4, 200), st.integers(4, 200)),
    size=SIZES,
    parts=st.tuples(*[st.floats(0, 1)] * 4),
    kind=st.sampled_from(FILTERS),
)
def test_a_window_is_that_part_of_the_whole(source: Size, size: Size, parts: tuple[float, ...], kind: Filter) -> None:
    (left, right), (top, bottom) = (
        sorted(int(part * side) for part in pair) for pair, side in zip((parts[:2], parts[2:]), size, strict=True)
    )
    window: Box = (left, top, max(right, left + 1), max(bottom, top + 1))
    assume(window[2] <= size[0] and window[3] <= size[1])
    image = noise(*source)
    found = resample(image, kind, size, window, canvas=image.size)
    np.testing.assert_array_equal(found, np.asarray(pillows(image, kind, size).crop(window)))


@settings(deadline=None)
@given(
    source=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    more=st.tuples(st.integers(0, 200), st.integers(0, 200)),
    size=SIZES,
    kind=st.sampled_from(FILTERS),
    fill=st.tuples(*[st.integers(0, 255)] * 3),
)
def test_a_canvas_is_as_one_painted_before(
    source: Size, more: Size, size: Size, kind: Filter, fill: tuple[int, int, int]
) -> None:
    """Above, below, left, right: the middle, with an odd pixel at the right and the bottom."""
    image, canvas = noise(*source), (source[0] + more[0], source[1] + more[1])
    painted = Image.new("RGB", canvas, fill)
    painted.paste(image, (more[0] // 2, more[1] // 2))
    found = resample(image, kind, size, (0, 0, *size), canvas=canvas, fill=fill)
    np.testing.assert_array_equal(found, np.asarray(pillows(painted, kind, size)))


@pytest.mark.parametrize("kind", FILTERS)
def test_premultiplied_alpha_is_a_fourth_channel(kind: Filter) -> None:
    image = noise(200, 300, "RGBA").convert("RGBa")
    found = ours(image, kind, (70, 90), alpha=True)
    assert found.tobytes() == pillows(image, kind, (70, 90)).tobytes()


def test_alpha_that_does_not_count_changes_nothing() -> None:
    image = noise(200, 300, "RGBA")
    np.testing.assert_array_equal(ours(image, "lanczos", (70, 90)), ours(image.convert("RGB"), "lanczos", (70, 90)))


@pytest.mark.parametrize("size", [(2_500, 2_001), (1_500, 3_100)])
def test_an_image_that_pillow_keeps_in_pieces_is_resampled_like_others(size: Size) -> None:
    image = noise(*size)
    with pytest.raises(ValueError, match="multiple array blocks|not contiguous"):
        image.__arrow_c_array__()
    for to in ((300, 240), (1_490, 240)):
        np.testing.assert_array_equal(ours(image, "bilinear", to), np.asarray(pillows(image, "bilinear", to)))


@pytest.mark.parametrize(
    ("kind", "canvas", "expected"),
    [
        ("lanczos", (1, 65_536), True),
        ("lanczos", (1, 65_537), False),
        ("lanczos", (65_536, 1), True),
        ("lanczos", (65_537, 1), False),
        ("nearest", (10, 10), False),
    ],
)
def test_what_is_left_to_pillow(kind: Filter, canvas: Size, expected: bool) -> None:
    assert can_resample(kind, canvas) == expected


def test_without_a_cache_it_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container whose files are read-only and whose user has no home."""
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(_double)
    assert compiled(_double)(21) == 42


def _double(number: int) -> int:
    return 2 * number


class TestStrips:
    def test_they_are_the_words_of_the_image(self) -> None:
        image = noise(30, 20, "RGBA")
        ((top, words),) = strips(image, -5, 99)
        assert (top, words.shape) == (0, (20, 30))
        assert words.tobytes() == image.tobytes()
        assert not words.flags.writeable

    def test_they_may_be_some_rows(self) -> None:
        image = noise(30, 20, "RGBA")
        ((top, words),) = strips(image, 5, 7)
        assert top == 5
        assert words.tobytes() == image.crop((0, 5, 30, 7)).tobytes()

    def test_they_keep_what_they_show(self) -> None:
        """The image is deleted, but its memory is not reused."""
        image = noise(300, 200, "RGBA")
        expected = image.tobytes()
        ((_top, words),) = strips(image, 0, 200)
        del image
        gc.collect()
        others = [noise(300, 200, "RGBA") for _ in range(5)]
        assert words.tobytes() == expected
        assert len(others) == 5

    def test_pieces_follow_one_another(self) -> None:
        image = noise(3_000, 1_500, "RGBA")
        found = list(strips(image, 10, 1_490))
        assert len(found) > 1
        assert b"".join(words.tobytes() for _top, words in found) == image.crop((0, 10, 3_000, 1_490)).tobytes()
        assert [top for top, _words in found] == [10 + 349 * number for number in range(len(found))]
