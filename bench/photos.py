"""Photographs for benchmarks, made from the CC0 ones in scikit-image's wheel. No two files are identical.

    python bench/photos.py FOLDER NUMBER DRAWN

makes the folder of `with_copies`.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

from tagonce.demo import PHOTOGRAPHS

PIXELS = 1_000_000
GRAIN = 3.0
"""Standard deviation of the noise, in levels of 256. Without it, enlarged files would be a third smaller."""
SMALLEST, LARGEST = 64, 2_000


def one_megapixel(folder: Path, number: int) -> Path:
    """Write JPEGs of about 1 megapixel, quality 90, about 180 kB each, keeping existing files. Returns their folder."""

    def make(position: int, sources: list[Image.Image]) -> Image.Image:
        random = np.random.default_rng(position)
        source = sources[position % len(sources)]
        width, height = (int(side * random.uniform(0.5, 1.0)) for side in source.size)
        scale = (PIXELS / (width * height)) ** 0.5
        enlarged = _part(source, (width, height), (round(width * scale), round(height * scale)), random)
        grain = random.normal(0.0, GRAIN, (enlarged.height, enlarged.width, 3)).astype(np.float32)
        return Image.fromarray((np.asarray(enlarged) + grain).clip(0, 255).astype(np.uint8))

    return _fill(folder / f"photos-{number}", number, make)


def copies_folder(folder: Path, number: int) -> Path:
    """The folder of `with_copies`."""
    return folder / f"copies-{number}"


def with_copies(folder: Path, number: int, drawn: int) -> None:
    """Write JPEGs of about 1 megapixel, keeping existing files. Only some are drawn.

    The others have the pixels of one of these and another comment: they take as long to decode, and no two files have
    the same hash.
    """
    sources = sorted(one_megapixel(folder, min(number, drawn)).iterdir())
    target = copies_folder(folder, number)
    target.mkdir(exist_ok=True)
    for position in range(number):
        path = target / f"{position:06}.jpg"
        if not path.exists():
            data, comment = sources[position % len(sources)].read_bytes(), position.to_bytes(8, "big")
            unfinished = path.with_suffix(".part")
            # A comment segment after the marker that every JPEG begins with.
            unfinished.write_bytes(data[:2] + b"\xff\xfe" + (2 + len(comment)).to_bytes(2, "big") + comment + data[2:])
            unfinished.rename(path)


def all_sizes(folder: Path, number: int) -> Path:
    """Write JPEGs, every fourth one as PNG, with sides of 64 to 2,000 pixels: half below 152, a tenth above 1,000."""

    def make(position: int, sources: list[Image.Image]) -> Image.Image:
        random = np.random.default_rng(position)
        source = sources[position % len(sources)]
        size = [round(SMALLEST * (LARGEST / SMALLEST) ** (random.random() ** 2)) for _ in range(2)]
        return _part(source, (source.width // 2, source.height // 2), (size[0], size[1]), random)

    return _fill(folder / f"sizes-{number}", number, make, png_every=4)


def _part(
    source: Image.Image, part: tuple[int, int], size: tuple[int, int], random: np.random.Generator
) -> Image.Image:
    """A random part of an image, resized."""
    left, top = (int(random.integers(0, whole - side + 1)) for whole, side in zip(source.size, part, strict=True))
    return source.resize(size, Image.Resampling.BILINEAR, box=(left, top, left + part[0], top + part[1]))


def _fill(folder: Path, number: int, make: Callable[[int, list[Image.Image]], Image.Image], png_every: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    sources: list[Image.Image] = []
    for position in range(number):
        kind = "png" if png_every and position % png_every == 0 else "jpg"
        path = folder / f"{position:06}.{kind}"
        if path.exists():
            continue
        if not sources:
            sources = [_source(name) for name in PHOTOGRAPHS]
        unfinished = path.with_suffix(".part")
        make(position, sources).save(unfinished, "png" if kind == "png" else "jpeg", quality=90, compress_level=1)
        unfinished.rename(path)
    return folder


def _source(name: str) -> Image.Image:
    with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
        return image.convert("RGB")


if __name__ == "__main__":
    with_copies(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
