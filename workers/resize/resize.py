"""Turns a decoded image into uint8 pixels for a batch: alpha, resize and crop."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from workers.models.spec import ModelSpec
from workers.resize.alpha import as_composited, as_words, without_alpha
from workers.resize.blend import is_opaque, over, premultiplied, to_bytes
from workers.resize.depth import eight_bits
from workers.resize.geometry import Box, Size, canvas_of, target_of
from workers.resize.pixels import Bytes, Raster, Source
from workers.resize.resample import can_resample, resample, warm_up, without_fourth
from workers.resize.staged import staged


class Resizer:
    """Resizes as the reference of one model does. Threads may share it.

    Args:
        spec: the model.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._fill = to_bytes(spec.fill)
        # Only timm itself reproduces its padding, around the image or up to a crop that is larger than it.
        own = spec.resize != "fit" and (spec.crop_mode == "border" or spec.crop_pct > 1)
        self._timm_stages = timm_stages(spec) if own else None
        warm_up()

    def pixels(self, image: Image.Image | Raster, original: Size) -> Bytes:
        """Pixels of an image for a batch.

        Args:
            image: of any mode of Pillow; a raster is RGB or RGBA.
            original: size of the image; of one that was decoded at reduced size, the size before.

        Returns:
            uint8 [height, width, 3]; 4 channels with straight alpha if a pixel is transparent.

        Raises:
            ImageError: `unsupported`: it has more than eight bits, and its white level is unknown.
        """
        spec = self._spec
        if spec.background is None:
            return self._resized(_words(image, without_alpha), original)
        composited = spec.resize != "fit"
        words = _words(image, as_composited if spec.resize in {"square-pad", "timm"} else as_words)
        transparent = words.mode == "RGBA" and not is_opaque(words)
        if transparent and composited:
            return self._resized(over(words, spec.background), original)
        return self._resized(words, original, alpha=transparent)

    def _resized(self, image: Source, original: Size, *, alpha: bool = False) -> Bytes:
        spec, canvas = self._spec, canvas_of(self._spec, image.size)
        if self._timm_stages:
            return np.asarray(self._timm_stages(self._padded(image, canvas, alpha)))
        if spec.resize == "stages":
            return staged(image, spec.stages, original)
        target = target_of(spec, original)
        if target.size == image.size:
            # A resize to the same size changes nothing without alpha, and rounds twice with it.
            return _cut(image, target.window, alpha)
        if not can_resample(spec.filter, canvas):
            padded = self._padded(image, canvas, alpha)
            return _cut(padded.resize(target.size, Image.Resampling[spec.filter.upper()]), target.window, alpha)
        if alpha:
            image = premultiplied(image)
        pixels = resample(image, spec.filter, target.size, target.window, canvas=canvas, fill=self._fill, alpha=alpha)
        return _straight(pixels) if alpha else pixels

    def _padded(self, image: Source, canvas: Size, alpha: bool) -> Image.Image:
        """The image centred on its canvas; an odd pixel of padding is at the right or the bottom."""
        image = image.to_pillow() if isinstance(image, Raster) else image
        image = image if alpha or image.mode == "RGB" else image.convert("RGB")
        if image.size == canvas:
            return image
        padded = Image.new("RGB", canvas, self._fill)
        padded.paste(image, ((canvas[0] - image.width) // 2, (canvas[1] - image.height) // 2))
        return padded


def timm_stages(spec: ModelSpec) -> Callable[[Image.Image], Image.Image]:
    """The stages of timm's evaluation transform before the conversion to a tensor."""
    from timm.data import create_transform
    from torchvision.transforms import Compose

    transform = create_transform(
        input_size=(3, spec.size, spec.size),
        interpolation=spec.filter,
        crop_pct=spec.crop_pct,
        crop_mode=spec.crop_mode,
        mean=spec.mean,  # the padding of `border`
        normalize=False,
    )
    stages: Callable[[Image.Image], Image.Image] = Compose(transform.transforms[:-1])
    return stages


def _words(image: Image.Image | Raster, converted: Callable[[Image.Image], Image.Image]) -> Source:
    """The image with four bytes a pixel; one of Pillow is converted to eight bits, and from its mode."""
    return image if isinstance(image, Raster) else converted(eight_bits(image))


def _cut(image: Source, window: Box, alpha: bool) -> Bytes:
    """Pixels of a window, with three or four channels."""
    if isinstance(image, Raster):
        left, top, right, bottom = window
        pixels = image.bytes()[top:bottom, left:right]
        return pixels if alpha else without_fourth(pixels)
    image = image if alpha or image.mode == "RGB" else image.convert("RGB")
    return np.asarray(image if window == (0, 0, *image.size) else image.crop(window))


def _straight(premultiplied: Bytes) -> Bytes:
    """Straight RGBA of premultiplied RGBa, by Pillow."""
    height, width, _channels = premultiplied.shape
    return np.asarray(Image.frombytes("RGBa", (width, height), premultiplied.tobytes()).convert("RGBA"))
