"""Thumbnails of local files: what is in them, what a stranger's file can do, how they are made once and kept."""

import io
import os
import stat
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from db.errors import ImageError, Reason, SettingsError
from db.names.uris import file_uri
from tagonce.settings import load
from tagonce.web.pictures import thumbnails as module
from tagonce.web.pictures.thumbnail_files import ThumbnailFiles
from tagonce.web.pictures.thumbnails import PREVIEW_SIZE, SIZE, Thumbnails, open_thumbnails
from tests.fixtures import hostile
from tests.fixtures.hostile import jpeg_segment, jpeg_with, picture, saved
from workers.storage.fetch import Fetcher

MAX_PIXELS = 50_000_000
WHOLE = hostile.whole()
GPS = 0x8825
CAMERA = "Secret Camera 9"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where thumbnails go; not there yet."""
    return tmp_path / "kept" / "thumbnails"


def new(folder: Path, *roots: str, kept_bytes: int = 1 << 30) -> Thumbnails:
    return Thumbnails(folder, max_bytes=1 << 28, max_pixels=MAX_PIXELS, roots=roots, kept_bytes=kept_bytes)


@pytest.fixture
def made(folder: Path, tmp_path: Path) -> Callable[[bytes], Image.Image]:
    """The thumbnail of a file of these bytes, decoded."""

    def make(data: bytes) -> Image.Image:
        path = tmp_path / "original"
        path.write_bytes(data)
        return opened(new(folder).get(1, file_uri(str(path)), str(hash(data))))

    return make


def opened(thumbnail: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(thumbnail), formats=["WEBP"])
    image.load()
    return image


def difference(one: Image.Image, other: Image.Image) -> float:
    """The mean, of values up to 255."""
    assert (one.mode, one.size) == (other.mode, other.size)
    return float(np.abs(np.asarray(one).astype(int) - np.asarray(other)).mean())


def smooth(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    """Four colours, one in each corner, that run into each other: little for a lossy format to lose."""
    corners = np.array([[[250, 20, 20], [20, 230, 20]], [[20, 20, 240], [240, 240, 20]]], np.uint8)
    return Image.fromarray(corners).resize(size, Image.Resampling.BILINEAR).convert(mode)


# ── what is in it ──


@pytest.mark.parametrize("size", [(4000, 3000), (3000, 4000), (361, 10), (50_000, 1)])
def test_a_large_image_fits_into_the_square_and_keeps_its_shape(
    made: Callable[[bytes], Image.Image], size: tuple[int, int]
) -> None:
    for kind in ("jpeg", "png"):
        thumbnail = made(saved(smooth(size=size), kind))
        assert max(thumbnail.size) == SIZE
        assert min(thumbnail.size) == max(1, round(SIZE * min(size) / max(size)))


def test_a_preview_is_larger_and_kept_beside_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(saved(smooth(size=(3000, 1500)), "jpeg"))
    for _look in range(2):
        found = [
            opened(new(folder).get(1, file_uri(str(tmp_path / "a.jpg")), "1", side=side)).size
            for side in (SIZE, PREVIEW_SIZE)
        ]
        assert found == [(SIZE, SIZE // 2), (PREVIEW_SIZE, PREVIEW_SIZE // 2)]
    assert len(files_in(folder)) == 2


def test_a_small_image_is_not_enlarged(made: Callable[[bytes], Image.Image]) -> None:
    assert made(WHOLE["rgb.png"]).size == (hostile.WIDTH, hostile.HEIGHT)


def test_a_reduced_jpeg_looks_as_the_whole_one_does(made: Callable[[bytes], Image.Image]) -> None:
    image = smooth(size=(2000, 1500))
    expected = image.resize((SIZE, SIZE * 3 // 4), Image.Resampling.LANCZOS)
    assert difference(made(saved(image, "jpeg", quality=95)), expected) < 3


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "avif", "tiff"])
def test_it_is_turned_as_exif_says(made: Callable[[bytes], Image.Image], kind: str, orientation: int) -> None:
    """As Pillow's own function does, of which the file of a stranger could make too much; 0 and 9 say nothing."""
    options: dict[str, object] = {"tiffinfo": {0x0112: orientation}} if kind == "tiff" else {}
    options |= {"exif": hostile.exif(orientation)} if kind != "tiff" else {}
    options |= {"lossless": True} if kind == "webp" else {}
    data = saved(smooth(), kind, **options)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert difference(made(data), expected) < 8
    assert expected.size == ((30, 40) if orientation in (5, 6, 7, 8) else (40, 30))


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("cut", [0, 1, 20])
def test_exif_of_either_order_counts_and_cut_exif_does_not(
    made: Callable[[bytes], Image.Image], order: str, cut: int
) -> None:
    sign = "<" if order == "II" else ">"
    entries = struct.pack(sign + "HHIHxx", 0x0100, 3, 1, 7) + struct.pack(sign + "HHIHxx", 0x0112, 3, 1, 6)
    exif = order.encode() + struct.pack(sign + "HIH", 42, 8, 2) + entries
    others = [jpeg_segment(0xE5, b"Exif\0\0" + exif), jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")]
    data = jpeg_with(*others, jpeg_segment(0xE1, b"Exif\0\0" + exif[: len(exif) - cut]))
    upright = (hostile.WIDTH, hostile.HEIGHT)
    assert made(data).size == (upright if cut else upright[::-1])


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "avif"])
def test_nothing_of_the_file_but_its_pixels_is_in_it(made: Callable[[bytes], Image.Image], kind: str) -> None:
    """Where somebody lives, by GPS, and with which camera; comments, descriptions and profiles."""
    exif = Image.Exif()
    exif[0x0110] = CAMERA
    exif.get_ifd(GPS).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)})
    data = saved(smooth(), kind, exif=exif, icc_profile=profile(), xmp=f"<x>{CAMERA}</x>".encode(), comment=CAMERA)
    assert CAMERA.encode() in data
    thumbnail = made(data)
    assert not dict(thumbnail.getexif())
    assert not {"exif", "icc_profile", "xmp", "comment"} & set(thumbnail.info)
    content = thumbnail.fp.getvalue() if isinstance(thumbnail.fp, io.BytesIO) else b""
    assert CAMERA.encode() not in content


def test_no_chunk_of_a_thumbnail_is_about_anything_but_pixels(folder: Path, tmp_path: Path) -> None:
    """By the file itself and not by what Pillow tells of it."""
    path = tmp_path / "a.png"
    path.write_bytes(saved(smooth("RGBA"), "png", icc_profile=profile(), exif=hostile.exif(6)))
    content = new(folder).get(1, file_uri(str(path)), "1")
    kinds, at = [], 12
    while at < len(content):
        kinds.append(content[at : at + 4])
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
    assert set(kinds) <= {b"VP8 ", b"VP8L", b"VP8X", b"ALPH"}


def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile() -> bytes:
    """SRGB, whose red is called green and whose green is called red."""
    content = profile()
    return content.replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ").replace(b"?XYZ", b"gXYZ")


def program_profile(steps: int) -> bytes:
    """Of 8 bytes for each step, all of which are the same matrix; 20,000 steps take a minute and a half."""
    matrix = b"matf" + struct.pack(">4xHH9f3f", 3, 3, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0)
    positions = struct.pack(">II", 16 + 8 * steps, len(matrix)) * steps
    tag = b"mpet" + struct.pack(">4xHHI", 3, 3, steps) + positions + matrix
    head = struct.pack(">I4sI4s4s4s12x4s24x4xIII", 144 + len(tag), b"lcms", 0x04300000, b"mntr", b"RGB ", b"XYZ ",
                       b"acsp", 0xF6D6, 0x10000, 0xD32D)  # fmt: skip
    return head.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"D2B0", 144, len(tag)) + tag


def test_colours_are_those_of_the_profile(made: Callable[[bytes], Image.Image]) -> None:
    red = Image.new("RGB", (20, 20), (255, 0, 0))
    assert made(saved(red, "png", icc_profile=profile())).getpixel((9, 9))[0] > 240
    swapped = made(saved(red, "png", icc_profile=swapped_profile())).getpixel((9, 9))
    assert swapped[1] > 200 > swapped[0]


@pytest.mark.parametrize("kind", ["broken", "of grey", "cut", "a program"])
def test_a_profile_that_is_broken_or_of_something_else_changes_nothing(
    made: Callable[[bytes], Image.Image], kind: str
) -> None:
    odd = {
        "broken": profile()[:50] + b"\xff" * 500,
        "of grey": profile().replace(b"RGB ", b"GRAY", 1),
        "cut": profile()[:200],
        "a program": program_profile(100_000),
    }[kind]
    plain, with_profile = (made(saved(smooth(), "jpeg", icc_profile=data)) for data in (None, odd))
    assert difference(plain, with_profile) == 0


def test_ink_becomes_light(made: Callable[[bytes], Image.Image]) -> None:
    cyan = made(saved(Image.new("CMYK", (20, 20), (255, 0, 0, 0)), "jpeg", quality=95)).getpixel((9, 9))
    assert cyan[0] < 30
    assert min(cyan[1:]) > 200


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_eight_bits_are_scaled_and_not_cut_off(made: Callable[[bytes], Image.Image], mode: str) -> None:
    """A ramp from black to white stays one."""
    ramp = np.linspace(0, 1 if mode == "F" else 65535, 64)
    kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    image = Image.fromarray(np.tile(ramp.astype(kind), (8, 1)))
    thumbnail = made(saved(image, "png" if mode == "I;16" else "tiff"))
    row = np.asarray(thumbnail)[4, :, 0].astype(int)
    assert np.abs(row - np.linspace(0, 255, 64)).max() < 12


def test_numbers_that_are_none_do_no_harm(made: Callable[[bytes], Image.Image]) -> None:
    for odd in (np.nan, np.inf, -np.inf, 1e38):
        values = np.full((8, 8), 0.5, np.float32)
        values[3, 3] = odd
        assert made(saved(Image.fromarray(values), "tiff")).size == (8, 8)


@pytest.mark.parametrize("kind", ["png", "gif", "webp"])
def test_what_is_transparent_stays_so(made: Callable[[bytes], Image.Image], kind: str) -> None:
    image = smooth("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 20, 30))
    thumbnail = made(saved(image, kind))
    assert thumbnail.mode == "RGBA"
    assert thumbnail.getpixel((5, 5))[3] == 0
    assert thumbnail.getpixel((35, 5))[3] == 255


def test_a_palette_with_transparency_stays_transparent(made: Callable[[bytes], Image.Image]) -> None:
    image = smooth().quantize(16)
    hidden = image.getpixel((2, 2))
    thumbnail = made(saved(image, "png", transparency=hidden))
    assert thumbnail.getpixel((2, 2))[3] < 128 < thumbnail.getpixel((35, 25))[3]


def test_what_is_nowhere_transparent_has_no_alpha(made: Callable[[bytes], Image.Image]) -> None:
    assert made(saved(smooth("RGBA"), "png")).mode == "RGB"


@pytest.mark.parametrize("name", [name for name in WHOLE if name.startswith("moving")])
def test_of_an_animation_the_first_picture_is_shown_and_does_not_move(
    made: Callable[[bytes], Image.Image], name: str
) -> None:
    thumbnail = made(WHOLE[name])
    assert getattr(thumbnail, "n_frames", 1) == 1
    assert difference(thumbnail, made(WHOLE["rgb.png"])) < 45


# ── files of strangers ──


@pytest.mark.parametrize("name", WHOLE)
def test_every_format_and_mode_has_a_thumbnail(made: Callable[[bytes], Image.Image], name: str) -> None:
    thumbnail = made(WHOLE[name])
    assert thumbnail.mode in ("RGB", "RGBA")
    assert max(thumbnail.size) <= SIZE


def test_whatever_is_broken_has_a_thumbnail_or_a_reason(folder: Path, tmp_path: Path) -> None:
    thumbnails, path, without = new(folder), tmp_path / "broken", 0
    files = [*hostile.claims().items(), *hostile.broken(500, seed=3), ("empty", b"")]
    for name, data in files:
        path.write_bytes(data)
        try:
            assert max(opened(thumbnails.get(1, file_uri(str(path)), name)).size) <= SIZE
        except ImageError as error:
            without += 1
            assert error.reason in (Reason.CORRUPT, Reason.UNSUPPORTED, Reason.TOO_LARGE)  # noqa: PT017
    assert 100 < without < len(files)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("file:///nowhere/a.jpg", Reason.MISSING),
        ("file:///etc/passwd", Reason.DENIED),
        ("file:///images/../etc/passwd", Reason.DENIED),
        ("file:///%00", Reason.MISSING),
        ("http://127.0.0.1/a.jpg", Reason.UNSUPPORTED),
        ("", Reason.UNSUPPORTED),
        ("\ud800", Reason.UNSUPPORTED),
    ],
)
def test_what_is_no_image_of_ours_has_a_reason(folder: Path, uri: str, reason: Reason) -> None:
    thumbnails = new(folder, *(["/nowhere-else"] if reason is Reason.DENIED else []))
    with pytest.raises(ImageError) as caught:
        thumbnails.get(1, uri, "1")
    assert caught.value.reason is reason


# ── made once, and kept ──


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was fetched, one after the other."""
    fetched, fetch = [], Fetcher.fetch

    def counting(self: Fetcher, uri: str) -> bytes:
        fetched.append(uri)
        return fetch(self, uri)

    monkeypatch.setattr(Fetcher, "fetch", counting)
    return fetched


def an_image(folder: Path, name: str = "a.jpg") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(saved(picture(), "jpeg"))
    return file_uri(str(folder / name))


def test_it_is_made_once_also_for_another_process(folder: Path, tmp_path: Path, counted: list[str]) -> None:
    uri = an_image(tmp_path)
    first = new(folder).get(1, uri, "1")
    assert new(folder).get(1, uri, "1") == first
    assert counted == [uri]
    (kept,) = files_in(folder)
    assert kept.read_bytes() == first
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_another_version_is_another_thumbnail(folder: Path, tmp_path: Path, counted: list[str]) -> None:
    uri, thumbnails = an_image(tmp_path), new(folder)
    before = thumbnails.get(1, uri, "1")
    (tmp_path / "a.jpg").write_bytes(saved(picture(seed=1), "jpeg"))
    assert thumbnails.get(1, uri, "1") == before
    assert thumbnails.get(1, uri, "2") != before
    assert len(counted) == 2


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("damage", ["empty", "cut", "zeros", "a folder"])
def test_a_damaged_thumbnail_is_made_anew(folder: Path, tmp_path: Path, damage: str) -> None:
    uri, thumbnails = an_image(tmp_path), new(folder)
    whole = thumbnails.get(1, uri, "1")
    (path,) = files_in(folder)
    if damage == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes({"empty": b"", "cut": whole[:-10], "zeros": bytes(len(whole))}[damage])
    assert thumbnails.get(1, uri, "1") == whole
    if damage != "a folder":
        assert path.read_bytes() == whole


def test_threads_that_want_the_same_get_it_made_once(folder: Path, tmp_path: Path, counted: list[str]) -> None:
    uris, thumbnails = [an_image(tmp_path, f"{number}.jpg") for number in range(5)], new(folder)
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda number: thumbnails.get(1, uris[number % 5], "1"), range(100)))
    assert sorted(counted) == uris
    assert len(set(found)) == len({opened(one).tobytes() for one in found}) == 1
    assert len(files_in(folder)) == 5


def test_threads_that_wait_get_the_same_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that nobody foresaw, too: nobody is left waiting, and nothing is remembered of it."""
    begun, waiting, go_on, calls = threading.Event(), threading.Semaphore(0), threading.Event(), []

    class Watched(Future[bytes]):
        def result(self, timeout: float | None = None) -> bytes:
            waiting.release()
            return super().result(timeout)

    def fail(_self: Fetcher, uri: str) -> bytes:
        calls.append(uri)
        begun.set()
        assert go_on.wait(30)
        raise RuntimeError("a bug")

    monkeypatch.setattr(Fetcher, "fetch", fail)
    monkeypatch.setattr(module, "Future", Watched)
    thumbnails = new(folder)
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(thumbnails.get, 1, "file:///a", "1") for _ in range(4)]
        assert begun.wait(30)
        assert all(waiting.acquire(timeout=30) for _ in range(3))
        go_on.set()
        for future in futures:
            with pytest.raises(RuntimeError, match="a bug"):
                future.result(30)
    assert calls == ["file:///a"]
    assert not thumbnails._begun
    assert not thumbnails._failed


def test_no_more_are_decoded_at_once_than_there_are_cores(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, most, lock, shrink = 0, 0, threading.Lock(), module.shrink

    def watched(*arguments: object) -> bytes:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.02)
        try:
            return shrink(*arguments)
        finally:
            with lock:
                at_once -= 1

    monkeypatch.setattr(module, "shrink", watched)
    monkeypatch.setattr(module, "cores", lambda: 2)
    thumbnails = new(folder)
    uris = [an_image(tmp_path, f"{number}.jpg") for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda uri: thumbnails.get(1, uri, "1"), uris))
    assert most == 2


def test_a_broken_image_is_not_tried_again_for_a_minute(
    folder: Path, tmp_path: Path, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    path, thumbnails = tmp_path / "a.jpg", new(folder)
    path.write_bytes(b"\xff\xd8\xff broken")
    for _look in range(3):
        with pytest.raises(ImageError) as caught:
            thumbnails.get(1, file_uri(str(path)), "1")
        assert caught.value.reason is Reason.CORRUPT
    assert len(counted) == 1
    an_image(tmp_path)
    now[0] += 61
    assert opened(thumbnails.get(1, file_uri(str(path)), "1")).size == (hostile.WIDTH, hostile.HEIGHT)


def test_the_file_of_a_failure_is_not_kept_in_memory(folder: Path, tmp_path: Path) -> None:
    """What is remembered is a sentence."""
    path, thumbnails = tmp_path / "a.jpg", new(folder)
    path.write_bytes(b"\xff\xd8\xff broken")
    with pytest.raises(ImageError) as caught:
        thumbnails.get(1, file_uri(str(path)), "1")
    ((_until, remembered),) = thumbnails._failed.values()
    assert remembered.detail == caught.value.detail
    assert remembered.__cause__ is None
    functions = [entry.name for entry in caught.traceback]
    assert "_once" in functions
    assert "_made" not in functions


def test_failures_that_are_remembered_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FAILED_NUMBER", 10)
    thumbnails = new(folder)
    for number in range(50):
        with pytest.raises(ImageError):
            thumbnails.get(number, f"file:///nowhere/{number}", "1")
    assert 5 <= len(thumbnails._failed) <= 10


# ── the folder ──


def test_the_least_recently_used_go_when_they_are_too_many(tmp_path: Path) -> None:
    files = ThumbnailFiles(tmp_path, max_bytes=10_000)
    names = [f"{number:064x}" for number in range(256, 276)]
    for age, name in enumerate(reversed(names)):
        files.write(name, webp(900))
        for path in files_in(tmp_path):
            if path.name.startswith(name[2:]):
                os.utime(path, (time.time() - 100_000 + age,) * 2)
        files.read(names[-1])  # looked at again and again
    kept = {name for name in names if files.read(name)}
    assert names[-1] in kept
    assert names[0] in kept
    assert names[-2] not in kept
    assert sum(path.stat().st_size for path in files_in(tmp_path)) <= 10_000


def webp(size: int) -> bytes:
    """Of which the header alone is right."""
    return b"RIFF" + struct.pack("<I", size - 8) + b"WEBP".ljust(size - 8, b"\0")


def test_what_others_left_there_counts(tmp_path: Path) -> None:
    """Other processes, and those that were killed half-way; but no file that is not a thumbnail is ever deleted."""
    other = ThumbnailFiles(tmp_path, max_bytes=1 << 20)
    for number in range(20):
        other.write(f"{number:064x}", webp(1000))
    (tmp_path / "00" / ".tagonce-left").write_bytes(bytes(50_000))
    foreign = [tmp_path / "00" / "cat.webp", tmp_path / "holiday.jpg", tmp_path / "albums" / f"{'0' * 62}.webp"]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(50_000))
        os.utime(path, (1, 1))
    os.utime(tmp_path / "00" / ".tagonce-left", (1, 1))
    ThumbnailFiles(tmp_path, max_bytes=10_000).write("f" * 64, webp(1000))
    assert all(path.exists() for path in foreign)
    ours = [path for path in files_in(tmp_path) if path not in foreign]
    assert 0 < sum(path.stat().st_size for path in ours) <= 10_000
    assert not (tmp_path / "00" / ".tagonce-left").exists()


def test_several_that_write_and_make_room_at_once_harm_nobody(tmp_path: Path) -> None:
    folders = [ThumbnailFiles(tmp_path, max_bytes=20_000) for _ in range(4)]

    def write(position: int) -> bool:
        name = f"{position % 40:064x}"
        folders[position % 4].write(name, webp(1000))
        found = folders[(position + 1) % 4].read(name)
        return found is None or found == webp(1000)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write, range(400)))
    assert sum(path.stat().st_size for path in files_in(tmp_path)) <= 20_000 * (1 + 4 / 16) + 4_000


def test_a_folder_that_cannot_be_used_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "thumbnails", Path("/proc/1/thumbnails")):
        with pytest.raises(SettingsError, match=r"cannot be kept in .*TAGONCE_THUMBNAILS names another folder"):
            new(folder)


def test_without_its_folder_it_goes_on_and_says_so_once(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk, say."""
    thumbnails = new(folder)
    folder.rmdir()
    folder.write_text("now a file")
    for number in range(3):
        assert opened(thumbnails.get(number, an_image(tmp_path, f"{number}.jpg"), "1"))
    assert [record.message for record in caplog.records if "cannot be kept" in record.message] == [
        f"thumbnails cannot be kept in {folder}: [Errno 20] Not a directory: '{folder / first_shard(tmp_path)}'"
    ]


def first_shard(tmp_path: Path) -> str:
    return module._name(file_uri(str(tmp_path / "0.jpg")), "1", SIZE)[:2]


def test_settings_say_where_and_how_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "images").mkdir()
    uri = an_image(tmp_path / "images")
    open_thumbnails(load(roots=(str(tmp_path / "images"),))).get(1, uri, "1")
    assert len(files_in(tmp_path / "cache" / "tagonce" / "thumbnails")) == 1
    monkeypatch.setenv("TAGONCE_THUMBNAILS", str(tmp_path / "own"))
    monkeypatch.setenv("TAGONCE_THUMBNAILS_BYTES", "1")
    monkeypatch.setenv("TAGONCE_MAX_BYTES", "10")
    with pytest.raises(ImageError, match="TAGONCE_MAX_BYTES"):
        open_thumbnails(load()).get(1, uri, "1")
    assert (tmp_path / "own").is_dir()
