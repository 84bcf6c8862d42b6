"""Turns a decoded image into uint8 pixels for a batch: alpha, resize and crop."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

from workers.images.alpha import flattened, to_bytes, with_alpha, without_alpha
from workers.images.depth import eight_bits
from workers.images.geometry import Box, Size, canvas_of, target_of
from workers.images.resample import can_resample, resample, warm_up
from workers.models.spec import ModelSpec

Bytes = npt.NDArray[np.uint8]


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

    def pixels(self, image: Image.Image, original: Size) -> Bytes:
        """Pixels of an image for a batch.

        Args:
            image: of any mode.
            original: size of the image; of one that was decoded at reduced size, the size before.

        Returns:
            uint8 [height, width, 3]; 4 channels with straight alpha if a pixel is transparent.

        Raises:
            ImageError: `unsupported`: it has more than eight bits, and its white level is unknown.
        """
        spec, image = self._spec, eight_bits(image)
        if spec.background is None:
            return self._resized(without_alpha(image), original)
        if spec.resize != "fit":
            return self._resized(flattened(image, spec.background), original)
        image, transparent = with_alpha(image)
        return self._resized(image, original, alpha=transparent)

    def _resized(self, image: Image.Image, original: Size, *, alpha: bool = False) -> Bytes:
        spec, canvas = self._spec, canvas_of(self._spec, image.size)
        if self._timm_stages:
            return np.asarray(self._timm_stages(self._padded(image, canvas, alpha)))
        target = target_of(spec, original)
        if target.size == image.size:
            # A resize to the same size changes nothing without alpha, and rounds twice with it.
            return np.asarray(_plain(_cut(image, target.window), alpha))
        if not can_resample(spec.filter, canvas):
            padded = self._padded(image, canvas, alpha)
            return np.asarray(_cut(padded.resize(target.size, Image.Resampling[spec.filter.upper()]), target.window))
        if alpha:
            image = image.convert("RGBa")
        pixels = resample(image, spec.filter, target.size, target.window, canvas=canvas, fill=self._fill, alpha=alpha)
        return _straight(pixels) if alpha else pixels

    def _padded(self, image: Image.Image, canvas: Size, alpha: bool) -> Image.Image:
        """The image centred on its canvas; an odd pixel of padding is at the right or the bottom."""
        image = _plain(image, alpha)
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


def _plain(image: Image.Image, alpha: bool) -> Image.Image:
    """The image as RGB, unless alpha is used."""
    return image if alpha or image.mode == "RGB" else image.convert("RGB")


def _cut(image: Image.Image, window: Box) -> Image.Image:
    return image if window == (0, 0, *image.size) else image.crop(window)


def _straight(premultiplied: Bytes) -> Bytes:
    """Straight RGBA of premultiplied RGBa, by Pillow."""
    height, width, _channels = premultiplied.shape
    return np.asarray(Image.frombytes("RGBa", (width, height), premultiplied.tobytes()).convert("RGBA"))
