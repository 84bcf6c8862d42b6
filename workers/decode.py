"""From the bytes of a file to the pixels a model wants, or to the reason why not.

What comes after the resize is arithmetic on a whole batch and is in `workers.preprocess`.
"""

import math
import re
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH

from db.errors import ImageError, Reason
from workers.budget import Budget
from workers.geometry import target_of
from workers.models.spec import ModelSpec
from workers.rations import RationedFile, has_too_many_numbers, has_too_many_scans
from workers.resize import Resizer

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

_LONGEST_DETAIL = 200


@dataclass(frozen=True, slots=True)
class Decoded:
    """One image, ready to be put into a batch."""

    pixels: npt.NDArray[np.uint8]
    """[height, width, 3], or 4 with straight alpha, after the resize. Read-only."""
    width: int
    """Of the original, in pixels."""
    height: int
    """Of the original, in pixels."""
    format: str
    """Pillow's name in lower case: `jpeg`, `png`, `webp`, ..."""


class Decoder:
    """Decodes and resizes as one model's reference does. Threads may share it; Pillow lets go of the interpreter lock.

    As the references of the models here do: only the first frame of an animation, no rotation by EXIF and no
    conversion by ICC profile.

    Args:
        spec: the model.
        max_pixels: larger images are refused by their header, before anything is decoded.
        pixels_in_flight: of all images that are decoded at once. None: twice the above.
    """

    def __init__(self, spec: ModelSpec, max_pixels: int, *, pixels_in_flight: int | None = None) -> None:
        self._spec = spec
        self._max_pixels = max_pixels
        self._in_flight = Budget(pixels_in_flight or 2 * max_pixels)
        self._formats = _prepare_pillow(max_pixels)
        self._resizer = Resizer(spec)

    def decode(self, data: bytes) -> Decoded:
        """Decode one file.

        Raises:
            ImageError: `corrupt`, `unsupported` or `too_large`.
        """
        if not data:
            raise ImageError(Reason.CORRUPT, "the file is empty")
        if has_too_many_numbers(data):
            raise ImageError(Reason.CORRUPT, "a TIFF with more than a million numbers in a tag")
        file = RationedFile(data)
        image = self._open(file)
        # Opening reads the header alone; the width of an icon, for one, may change when it is loaded.
        width, height, name = image.width, image.height, (image.format or "unknown").lower()
        reduced = self._spec.dct_scaling and _reduce(image, self._spec)
        self._refuse_slow(image, data)
        with self._in_flight.taken(self._pixels(image)):
            file.allow_pixels()
            self._load(image, name)
            original = (width, height) if reduced else image.size
            self._refuse_elongated(*original)
            return Decoded(self._resized(image, name, original), width, height, name)

    def _resized(self, image: Image.Image, name: str, original: tuple[int, int]) -> npt.NDArray[np.uint8]:
        try:
            return self._resizer.pixels(image, original)
        except MemoryError as error:
            raise self._too_large("not enough memory to resize it") from error
        except (OSError, ValueError) as error:
            detail = f"{name} of mode {image.mode} cannot be converted: {_one_line(error)}"
            raise ImageError(Reason.UNSUPPORTED, detail) from error

    def _open(self, file: RationedFile) -> Image.Image:
        try:
            image = Image.open(file, formats=self._formats)
        except UnidentifiedImageError as error:
            if _SIGNATURE.match(file.getbuffer()):
                raise ImageError(Reason.CORRUPT, "it starts like an image, and its header is broken") from error
            raise ImageError(Reason.UNSUPPORTED, "not an image in a format that is read here") from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
            raise self._too_large("by its header it has more") from error
        except Exception as error:
            # A decoder fed with a stranger's bytes raises anything: OSError, SyntaxError, struct.error, IndexError, ...
            raise ImageError(Reason.CORRUPT, f"the header is broken: {_one_line(error)}") from error
        if image.width * image.height > self._max_pixels:
            raise self._too_large(f"it has {image.width} x {image.height}")
        return image

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
        if tile > self._max_pixels:
            raise self._too_large(f"its tiles have {tile:,}")
        return max(image.width * image.height, tile)

    def _load(self, image: Image.Image, name: str) -> None:
        try:
            image.load()
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise self._too_large("a picture inside has more") from error
        except MemoryError as error:
            raise self._too_large("not enough memory to decode it") from error
        except Exception as error:
            raise ImageError(Reason.CORRUPT, f"{name} cannot be decoded: {_one_line(error)}") from error
        if image.width * image.height > self._max_pixels:
            raise self._too_large(f"a picture inside has {image.width} x {image.height}")

    def _refuse_elongated(self, width: int, height: int) -> None:
        """A strip of 50,000 x 1 is small, but the square around it, or what is resized to be cropped, is not."""
        spec, long, short = self._spec, max(width, height), min(width, height)
        if spec.resize == "fit":
            return
        if spec.resize == "square-pad":
            needed = long * long
        else:
            side = spec.size / spec.crop_pct
            needed = round(side * side * long / short) if spec.crop_mode == "center" else 0
        if needed > self._max_pixels:
            raise self._too_large(f"its {width} x {height} would become {needed:,} on the way")

    def _too_large(self, what: str) -> ImageError:
        return ImageError(Reason.TOO_LARGE, f"more than {self._max_pixels:,} pixels are not decoded: {what}")


def _reduce(image: Image.Image, spec: ModelSpec) -> bool:
    """Have a JPEG decoded at 1/2, 1/4 or 1/8 from its coefficients: the least that is twice what it is resized to.

    The filter has then still two pixels for each that it makes, which Pillow's documentation calls close to as good;
    it is not the same. An odd pixel at the edge is stretched over.
    """
    width, height = target_of(spec, image.size).size
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


def _one_line(error: Exception) -> str:
    """The message for a text column and a terminal: no line breaks, no NUL (PostgreSQL refuses it), not endless."""
    text = " ".join("".join(character if character.isprintable() else " " for character in str(error)).split())
    return (text or type(error).__name__)[:_LONGEST_DETAIL]
