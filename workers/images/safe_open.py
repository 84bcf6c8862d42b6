"""Opens and decodes untrusted files within limits. Needs Pillow, but neither numba nor torch."""

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
from workers.images.jpeg_segments import has_too_many_scans
from workers.images.limited_file import LimitedFile
from workers.images.metadata import has_too_many_numbers, without_metadata
from workers.images.variants import unread_variant
from workers.resize.geometry import Size

# fmt: off
FORMATS = frozenset({
    "AVIF", "BMP", "CUR", "DCX", "DDS", "DIB", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "PSD",
    "QOI", "SGI", "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM",
})
# fmt: on
"""Formats that are opened, by Pillow's names. Pillow has twenty more, for faxes, satellites, films and games:
collections do not contain them, each is attack surface, and EPS would run Ghostscript on an untrusted file. MPO is
opened as JPEG."""

_PIXELS_IN_PYTHON = 10_000_000
"""Limit for decoders of Pillow that are loops in Python: up to a microsecond a pixel, holding the interpreter lock."""

_SIGNATURE = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|....ftypavi[fs]", re.DOTALL)
"""JPEG, PNG, GIF, WebP, AVIF. Pillow reports them as unidentified if their header is broken."""

_SAYS_UNSUPPORTED = re.compile(
    r"unsupported|unimplemented|not implemented|not (yet )?supported|not installed|cannot handle|unable to determine"
    r"|unknown (pixel|PCX|TGA|data|compression)|cannot read this|invalid palette size",
    re.IGNORECASE,
)
"""Messages of Pillow for files that may be valid but of an unsupported kind. It has no exception class for that."""

_LOADED_WHOLE = frozenset({"AVIF", "WEBP", "ICO", "ICNS"})
"""Formats that Pillow reads without a list of tiles."""

_LEFT_OUT, _BROKEN = frozenset({"webp"}), "decoder error -2"
"""TIFF compressions that libtiff may be built without, and its error message in that case."""

_LONGEST_DETAIL = 200


@dataclass(frozen=True, slots=True)
class Opened:
    """A decoded image."""

    image: Image.Image
    """The first frame as in the file: of any mode, without EXIF orientation or colour conversion."""
    width: int
    """By the header, in pixels, before a reduction; may differ from the size of `image`, for example of an icon."""
    height: int
    """By the header, in pixels."""
    format: str
    """Pillow's name in lower case: `jpeg`, `png`, `webp`, ..."""
    reduced: bool
    """Whether it was decoded at reduced size."""

    @property
    def original_size(self) -> Size:
        """Size of the image without a reduction."""
        return (self.width, self.height) if self.reduced else self.image.size


class Opener:
    """Opens and decodes files. Threads may share it; Pillow releases the interpreter lock.

    Args:
        max_pixels: larger images are refused by their header, before anything is decoded.
        pixels_in_flight: limit for all images decoded at once. None: twice `max_pixels`.
    """

    def __init__(self, max_pixels: int, *, pixels_in_flight: int | None = None) -> None:
        self.max_pixels = max_pixels
        self.in_flight = Budget(pixels_in_flight or 2 * max_pixels)
        self._formats = _prepare_pillow(max_pixels)

    @contextmanager
    def opened(self, data: bytes, target: Callable[[Size], Size] | None = None) -> Iterator[Opened]:
        """Decode one file. Its pixels count as in flight until the end of the block.

        Args:
            data: the whole file.
            target: given the size of the image, returns the size it will be resized to, so that a large JPEG can be
                decoded at reduced size. None: decode at full size.

        Raises:
            ImageError: `corrupt`, `unsupported` or `too_large`; also for errors of Pillow in the block.
        """
        if not data:
            raise ImageError(Reason.CORRUPT, "the file is empty")
        data = without_metadata(data)
        if has_too_many_numbers(data):
            raise ImageError(Reason.CORRUPT, "a TIFF with more than a million offsets in a tag")
        file = LimitedFile(data)
        image = self._open(file)
        # Opening reads only the header; the size of an icon, for example, may change when it is loaded.
        width, height, name = image.width, image.height, (image.format or "unknown").lower()
        reduced = target is not None and _reduce(image, target(image.size))
        self._refuse_undecodable(image, data)
        self._refuse_slow(image, data)
        with self.in_flight.taken(self._pixels(image)):
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

    def _open(self, file: LimitedFile) -> Image.Image:
        try:
            image = Image.open(file, formats=self._formats)
        except UnidentifiedImageError as error:
            raise self._unidentified(file.getvalue()) from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
            raise self.too_large("by its header it has more") from error
        except Exception as error:
            # Given untrusted bytes, a decoder may raise anything: OSError, SyntaxError, struct.error, IndexError, ...
            raise _refusal("the header is broken", error, file.getvalue()) from error
        if image.width * image.height > self.max_pixels:
            raise self.too_large(f"it has {image.width} x {image.height}")
        return image

    def _unidentified(self, data: bytes) -> ImageError:
        """The error for a file that no format accepts, with the message of the format whose signature it has."""
        broken = "it starts like an image, and its header is broken"
        other = "not an image in a format that is read here"
        for name in self._formats:
            factory, accepts = Image.OPEN[name]
            try:
                if accepts and accepts(data[:16]) is True:
                    factory(LimitedFile(data), "")
            except Exception as error:  # noqa: BLE001 - as when it is opened
                if _SIGNATURE.match(data):
                    return _refusal(broken, error, data)
                says = f"; as {name}: {_one_line(error)}" if _SAYS_UNSUPPORTED.search(str(error)) else ""
                return ImageError(Reason.UNSUPPORTED, other + says)
        return ImageError(*(Reason.CORRUPT, broken) if _SIGNATURE.match(data) else (Reason.UNSUPPORTED, other))

    def _refuse_undecodable(self, image: Image.Image, data: bytes) -> None:
        """Refuse a file that Pillow has no decoder for. Loading it would fail as if it were broken."""
        kind = image.format or ""
        if getattr(image, "tile", None) or kind in _LOADED_WHOLE:
            return
        if _SIGNATURE.match(data):
            raise ImageError(Reason.CORRUPT, "its header is not followed by an image")
        raise ImageError(Reason.UNSUPPORTED, f"a {kind} whose pixels are encoded in a way that is not read here")

    def _refuse_slow(self, image: Image.Image, data: bytes) -> None:
        """Refuse a file within the limit of pixels that would still take minutes."""
        if image.format == "JPEG" and has_too_many_scans(data):
            raise ImageError(Reason.CORRUPT, "a JPEG of more than 100 scans: decoding it would take minutes")
        in_python = any(tile.codec_name in Image.DECODERS for tile in getattr(image, "tile", ()))
        if in_python and image.width * image.height > _PIXELS_IN_PYTHON:
            detail = f"of this kind of {image.format} no more than {_PIXELS_IN_PYTHON:,} pixels are decoded"
            raise ImageError(Reason.TOO_LARGE, f"{detail}: it has {image.width} x {image.height}")

    def _pixels(self, image: Image.Image) -> int:
        """Pixels that are decoded at once: the image, or a tile of a TIFF if that is larger."""
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
    """Have a JPEG decoded at 1/2, 1/4 or 1/8 of its size: the smallest that is at least twice `target`.

    libjpeg scales the DCT coefficients. The filter then still has two source pixels for each output pixel, which
    Pillow's documentation calls close to the full quality; the result differs. An odd pixel at the edge is stretched.

    Returns:
        Whether the image is decoded at reduced size.
    """
    width, height = target
    return image.draft(None, (2 * width, 2 * height)) is not None


def _prepare_pillow(max_pixels: int) -> list[str]:
    """Set Pillow's global state, which no other code does. Returns the formats to open.

    Pillow's limit protects against images inside images (icons), whose size is not in the header. Pillow warns above
    the limit and raises above twice the limit; here both raise. Its other warnings are ignored: they are about the
    files, of which there may be thousands.
    """
    Image.init()
    Image.MAX_IMAGE_PIXELS = max_pixels
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
    return [name for name in Image.ID if name in FORMATS]


def _refusal(what: str, error: Exception, data: bytes) -> ImageError:
    """`unsupported` by Pillow's message or by the kind of the file, else `corrupt`."""
    says = _one_line(error)
    if isinstance(error, NotImplementedError) or _SAYS_UNSUPPORTED.search(says):
        return ImageError(Reason.UNSUPPORTED, f"of a kind that is not read here: {says}")
    if variant := unread_variant(data):
        return ImageError(Reason.UNSUPPORTED, f"of a kind that is not read here: {variant}")
    return ImageError(Reason.CORRUPT, f"{what}: {says}")


def _one_line(error: Exception) -> str:
    """The message for a text column and a terminal: bounded, without line breaks and NUL (PostgreSQL refuses it)."""
    text = " ".join("".join(character if character.isprintable() else " " for character in str(error)).split())
    return (text or type(error).__name__)[:_LONGEST_DETAIL]
