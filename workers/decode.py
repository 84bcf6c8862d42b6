"""From the bytes of a file to the pixels a model wants: decoded, flattened or with alpha, resized. Still uint8.

What comes after the resize is arithmetic on a whole batch and is in `workers.preprocess`.
"""

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from db.errors import ImageError, Reason
from workers.models.spec import Colour, ModelSpec

_NOT_OPENED = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
"""Left out of what Pillow opens: EPS starts Ghostscript on a stranger's file, the others it can name but not decode."""

_SIGNATURE = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|....ftypavi[fs]", re.DOTALL)
"""JPEG, PNG, GIF, WebP, AVIF. Pillow calls them unidentified when they break before their header ends."""

_OPAQUE = (255, 255)
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
    """

    def __init__(self, spec: ModelSpec, max_pixels: int) -> None:
        self._spec = spec
        self._max_pixels = max_pixels
        self._formats = _prepare_pillow(max_pixels)
        self._timm_stages = None if spec.resize == "fit" else timm_stages(spec)

    def decode(self, data: bytes) -> Decoded:
        """Decode one file.

        Raises:
            ImageError: `corrupt`, `unsupported` or `too_large`.
        """
        if not data:
            raise ImageError(Reason.CORRUPT, "the file is empty")
        image = self._open(data)
        # Opening reads the header alone; the width of an icon, for one, may change when it is loaded.
        width, height, name = image.width, image.height, (image.format or "unknown").lower()
        self._load(image, name)
        try:
            pixels = np.asarray(self._resized(image))
        except MemoryError as error:
            raise self._too_large("not enough memory to resize it") from error
        except (OSError, ValueError) as error:
            detail = f"{name} of mode {image.mode} cannot be converted: {_one_line(error)}"
            raise ImageError(Reason.UNSUPPORTED, detail) from error
        return Decoded(pixels, width, height, name)

    def _open(self, data: bytes) -> Image.Image:
        try:
            image = Image.open(io.BytesIO(data), formats=self._formats)
        except UnidentifiedImageError as error:
            if _SIGNATURE.match(data):
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

    def _resized(self, image: Image.Image) -> Image.Image:
        spec = self._spec
        if self._timm_stages is None:
            image = image.convert("RGB") if spec.background is None else straight_alpha(image)
            size = fitted_size(image.width, image.height, spec.size, grow=spec.grow)
            # The untouched case matters: a resize of RGBA to its own size would still pass through premultiplied alpha.
            return image if size == image.size else image.resize(size, Image.Resampling[spec.filter.upper()])
        image = image.convert("RGB") if spec.background is None else flattened(image, spec.background)
        self._refuse_elongated(image.width, image.height)
        return self._timm_stages(padded_square(image, spec.fill) if spec.resize == "square-pad" else image)

    def _refuse_elongated(self, width: int, height: int) -> None:
        """A strip of 50,000 x 1 is small, but the square around it, or what is resized to be cropped, is not."""
        spec, long, short = self._spec, max(width, height), min(width, height)
        if spec.resize == "square-pad":
            needed = long * long
        else:
            side = spec.size / spec.crop_pct
            needed = round(side * side * long / short) if spec.crop_mode == "center" else 0
        if needed > self._max_pixels:
            raise self._too_large(f"its {width} x {height} would become {needed:,} on the way")

    def _too_large(self, what: str) -> ImageError:
        return ImageError(Reason.TOO_LARGE, f"more than {self._max_pixels:,} pixels are not decoded: {what}")


def fitted_size(width: int, height: int, size: int, *, grow: bool) -> tuple[int, int]:
    """Width and height after fitting into `size` x `size` with the aspect kept.

    Rounds half to even and caps, as JTP's reference does. Where the short side would round to 0 the reference
    fails (beyond about 768:1 at 384); here it is 1.
    """
    scale = min(size / height, size / width)
    if scale == 1.0 or (scale > 1.0 and not grow):
        return width, height
    return max(1, min(round(width * scale), size)), max(1, min(round(height * scale), size))


def straight_alpha(image: Image.Image) -> Image.Image:
    """RGBA where a pixel is transparent, else RGB: over a background both give the same bits, and RGB is faster."""
    if "transparency" not in image.info:
        if image.mode == "RGB":
            return image
        if image.mode == "L":
            return image.convert("RGB")
    if image.mode == "La":  # the one mode that Pillow does not convert in one go
        image = image.convert("LA")
    image = image if image.mode == "RGBA" else image.convert("RGBA")
    return image.convert("RGB") if image.getchannel("A").getextrema() == _OPAQUE else image


def flattened(image: Image.Image, background: Colour) -> Image.Image:
    """RGB over a colour in 8 bits, as the WD taggers' reference does.

    It asks only whether the mode is RGBA or the file declares a transparent colour: grey with alpha (LA) loses alpha.
    """
    if image.mode not in ("RGB", "RGBA"):
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode == "RGB":
        return image
    canvas = Image.new("RGBA", image.size, (*_bytes(background), 255))
    canvas.alpha_composite(image)
    return canvas.convert("RGB")


def padded_square(image: Image.Image, fill: Colour) -> Image.Image:
    """The image in the middle of a square; an odd pixel goes to the right or the bottom."""
    side = max(image.size)
    if image.size == (side, side):
        return image
    canvas = Image.new("RGB", (side, side), _bytes(fill))
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return canvas


def timm_stages(spec: ModelSpec) -> Callable[[Image.Image], Image.Image]:
    """Timm's own evaluation transform up to the point where it leaves Pillow."""
    from timm.data import create_transform
    from torchvision.transforms import Compose

    transform = create_transform(
        input_size=(3, spec.size, spec.size),
        interpolation=spec.filter,
        crop_pct=spec.crop_pct,
        crop_mode=spec.crop_mode,
        mean=spec.mean,  # of `border`, which pads with it
        normalize=False,
    )
    stages: Callable[[Image.Image], Image.Image] = Compose(transform.transforms[:-1])
    return stages


def _prepare_pillow(max_pixels: int) -> list[str]:
    """Pillow's global state, set here and nowhere else; gives the formats to open.

    The limit guards pictures inside pictures (icons), whose size no header tells. Pillow warns above it and
    raises above twice of it; here both raise. Its other warnings are about files of others, thousands of them.
    """
    Image.init()
    Image.MAX_IMAGE_PIXELS = max_pixels
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
    return [name for name in Image.ID if name not in _NOT_OPENED]


def _bytes(colour: Colour) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in colour)
    return red, green, blue


def _one_line(error: Exception) -> str:
    """The message for a text column: no line breaks, no NUL (PostgreSQL refuses it), not endless."""
    text = " ".join(str(error).replace("\0", " ").split())
    return (text or type(error).__name__)[:_LONGEST_DETAIL]
