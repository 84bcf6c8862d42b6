"""Opens and decodes a stranger's file within limits. Needs Pillow, and neither numba nor torch."""

import math
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH

from db.errors import ImageError, Reason
from workers.images.budget import Budget
from workers.images.geometry import Size
from workers.images.hostile import RationedFile, has_too_many_scans
from workers.images.metadata import has_too_many_numbers, without_metadata
from workers.images.variants import unread_variant

# fmt: off
FORMATS = frozenset({
    "AVIF", "BMP", "CUR", "DCX", "DDS", "DIB", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "PSD",
    "QOI", "SGI", "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM",
})
# fmt: on
"""What is opened, by Pillow's names. It has twenty more, for faxes, satellites, films and games; no collection holds
them, each is a decoder to attack, and EPS would start Ghostscript on a stranger's file. MPO is a JPEG here."""

_PIXELS_IN_PYTHON = 10_000_000
"""Of what Pillow decodes by loops in Python, at up to a microsecond each, in which no other thread decodes."""

_SIGNATURE = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|....ftypavi[fs]", re.DOTALL)
"""JPEG, PNG, GIF, WebP, AVIF. Pillow calls them unidentified when they break before their header ends."""

_SAYS_UNSUPPORTED = re.compile(
    r"unsupported|unimplemented|not implemented|not (yet )?supported|not installed|cannot handle|unable to determine"
    r"|unknown (pixel|PCX|TGA|data|compression)|cannot read this|invalid palette size",
    re.IGNORECASE,
)
"""What Pillow says of a file that may be sound, and is of a kind that it does not read. It has no error for that."""

_LOADED_WHOLE = frozenset({"AVIF", "WEBP", "ICO", "ICNS"})
"""Formats whose pictures Pillow reads without a list of tiles."""

_LEFT_OUT, _BROKEN = frozenset({"webp"}), "decoder error -2"
"""Compressions of a TIFF that libtiff may have been built without, and what it calls their pixels then."""

_LONGEST_DETAIL = 200


@dataclass(frozen=True, slots=True)
class Opened:
    """An image that is decoded."""

    image: Image.Image
    """Its first frame, as the file has it: of any mode, not turned, in the colours of its profile."""
    width: int
    """By the header, in pixels, before it was reduced; that of an icon, for one, may differ from the image's."""
    height: int
    """By the header, in pixels."""
    format: str
    """Pillow's name in lower case: `jpeg`, `png`, `webp`, ..."""
    reduced: bool
    """Whether it was decoded smaller than it is."""

    @property
    def original_size(self) -> Size:
        """Of the picture, had it not been reduced."""
        return (self.width, self.height) if self.reduced else self.image.size


class Opener:
    """Threads may share it; Pillow lets go of the interpreter lock.

    Args:
        max_pixels: larger images are refused by their header, before anything is decoded.
        pixels_in_flight: of all images that are decoded at once. None: twice the above.
    """

    def __init__(self, max_pixels: int, *, pixels_in_flight: int | None = None) -> None:
        self.max_pixels = max_pixels
        self._in_flight = Budget(pixels_in_flight or 2 * max_pixels)
        self._formats = _prepare_pillow(max_pixels)

    @contextmanager
    def opened(self, data: bytes, target: Callable[[Size], Size] | None = None) -> Iterator[Opened]:
        """Decode one file. Until the end of the block its pixels count as being in flight.

        Args:
            data: the whole file.
            target: tells of a size what will be made of it, so that a large JPEG may be reduced. None: nothing is.

        Raises:
            ImageError: `corrupt`, `unsupported` or `too_large`, by the file or by what the block does with its image.
        """
        if not data:
            raise ImageError(Reason.CORRUPT, "the file is empty")
        data = without_metadata(data)
        if has_too_many_numbers(data):
            raise ImageError(Reason.CORRUPT, "a TIFF with more than a million offsets in a tag")
        file = RationedFile(data)
        image = self._open(file)
        # Opening reads the header alone; the width of an icon, for one, may change when it is loaded.
        width, height, name = image.width, image.height, (image.format or "unknown").lower()
        reduced = target is not None and _reduce(image, target(image.size))
        self._refuse_undecodable(image, data)
        self._refuse_slow(image, data)
        with self._in_flight.taken(self._pixels(image)):
            file.allow_pixels()
            self._load(image, name, data)
            try:
                yield Opened(image, width, height, name, reduced)
            except MemoryError as error:
                raise self.too_large("not enough memory to resize it") from error
            except (OSError, ValueError) as error:
                detail = f"{name} of mode {image.mode} cannot be converted: {_one_line(error)}"
                raise ImageError(Reason.UNSUPPORTED, detail) from error

    def too_large(self, what: str) -> ImageError:
        return ImageError(Reason.TOO_LARGE, f"more than {self.max_pixels:,} pixels are not decoded: {what}")

    def _open(self, file: RationedFile) -> Image.Image:
        try:
            image = Image.open(file, formats=self._formats)
        except UnidentifiedImageError as error:
            raise self._unidentified(file.getvalue()) from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
            raise self.too_large("by its header it has more") from error
        except Exception as error:
            # A decoder fed with a stranger's bytes raises anything: OSError, SyntaxError, struct.error, IndexError, ...
            raise _refusal("the header is broken", error, file.getvalue()) from error
        if image.width * image.height > self.max_pixels:
            raise self.too_large(f"it has {image.width} x {image.height}")
        return image

    def _unidentified(self, data: bytes) -> ImageError:
        """By what the format says whose signature the file has, which Pillow keeps to itself."""
        broken = "it starts like an image, and its header is broken"
        other = "not an image in a format that is read here"
        for name in self._formats:
            factory, accepts = Image.OPEN[name]
            try:
                if accepts and accepts(data[:16]) is True:
                    factory(RationedFile(data), "")
            except Exception as error:  # noqa: BLE001 - as when it is opened
                if _SIGNATURE.match(data):
                    return _refusal(broken, error, data)
                says = f"; as {name}: {_one_line(error)}" if _SAYS_UNSUPPORTED.search(str(error)) else ""
                return ImageError(Reason.UNSUPPORTED, other + says)
        return ImageError(*(Reason.CORRUPT, broken) if _SIGNATURE.match(data) else (Reason.UNSUPPORTED, other))

    def _refuse_undecodable(self, image: Image.Image, data: bytes) -> None:
        """What Pillow has no decoder for. It would fail only when it is loaded, in the words of a broken file."""
        kind = image.format or ""
        if getattr(image, "tile", None) or kind in _LOADED_WHOLE:
            return
        if _SIGNATURE.match(data):
            raise ImageError(Reason.CORRUPT, "there is no picture behind its header")
        raise ImageError(Reason.UNSUPPORTED, f"a {kind} whose pixels are packed as no decoder here reads them")

    def _refuse_slow(self, image: Image.Image, data: bytes) -> None:
        """What is small, within the limit of pixels, and would still take minutes."""
        if image.format == "JPEG" and has_too_many_scans(data):
            raise ImageError(Reason.CORRUPT, "a JPEG of more than 100 scans: it would be decoded for minutes")
        in_python = any(tile.codec_name in Image.DECODERS for tile in getattr(image, "tile", ()))
        if in_python and image.width * image.height > _PIXELS_IN_PYTHON:
            detail = f"of its kind of {image.format} no more than {_PIXELS_IN_PYTHON:,} pixels are decoded"
            raise ImageError(Reason.TOO_LARGE, f"{detail}: it has {image.width} x {image.height}")

    def _pixels(self, image: Image.Image) -> int:
        """What is decoded at once: the image, or a tile of a TIFF that is larger than it."""
        tags = getattr(image, "tag_v2", {})
        sides = [side for side in (tags.get(TILEWIDTH), tags.get(TILELENGTH)) if isinstance(side, int)]
        tile = math.prod(sides) if sides else 0
        if tile > self.max_pixels:
            raise self.too_large(f"its tiles have {tile:,}")
        return max(image.width * image.height, tile)

    def _load(self, image: Image.Image, name: str, data: bytes) -> None:
        try:
            image.load()
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise self.too_large("a picture inside has more") from error
        except MemoryError as error:
            raise self.too_large("not enough memory to decode it") from error
        except Exception as error:
            if image.info.get("compression") in _LEFT_OUT and _BROKEN in str(error):
                raise ImageError(Reason.UNSUPPORTED, f"a {name} compressed as {image.info['compression']}") from error
            raise _refusal(f"{name} cannot be decoded", error, data) from error
        if image.width * image.height > self.max_pixels:
            raise self.too_large(f"a picture inside has {image.width} x {image.height}")


def _reduce(image: Image.Image, target: Size) -> bool:
    """Have a JPEG decoded at 1/2, 1/4 or 1/8 from its coefficients: the least that is twice what it is resized to.

    The filter has then still two pixels for each that it makes, which Pillow's documentation calls close to as good;
    it is not the same. An odd pixel at the edge is stretched over.
    """
    width, height = target
    return image.draft(None, (2 * width, 2 * height)) is not None


def _prepare_pillow(max_pixels: int) -> list[str]:
    """Pillow's global state, set here and nowhere else; gives the formats to open.

    The limit guards pictures inside pictures (icons), whose size no header tells. Pillow warns above it and
    raises above twice of it; here both raise. Its other warnings are about files of others, thousands of them.
    """
    Image.init()
    Image.MAX_IMAGE_PIXELS = max_pixels
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
    return [name for name in Image.ID if name in FORMATS]


def _refusal(what: str, error: Exception, data: bytes) -> ImageError:
    """`unsupported` where Pillow says so in its own words, or the file is known to be so, else `corrupt`."""
    says = _one_line(error)
    if isinstance(error, NotImplementedError) or _SAYS_UNSUPPORTED.search(says):
        return ImageError(Reason.UNSUPPORTED, f"of a kind that is not read here: {says}")
    if variant := unread_variant(data):
        return ImageError(Reason.UNSUPPORTED, f"of a kind that is not read here: {variant}")
    return ImageError(Reason.CORRUPT, f"{what}: {says}")


def _one_line(error: Exception) -> str:
    """The message for a text column and a terminal: no line breaks, no NUL (PostgreSQL refuses it), not endless."""
    text = " ".join("".join(character if character.isprintable() else " " for character in str(error)).split())
    return (text or type(error).__name__)[:_LONGEST_DETAIL]
