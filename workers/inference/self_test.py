"""Test images: they tell an image that the model cannot compute from a device or a model that is broken."""

import io
import logging
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from db.scores import Scores
from workers.images.decode import Decoded, Decoder
from workers.models.spec import ModelSpec

log = logging.getLogger(__name__)

SIDE = 256
"""Pixels of a test image as a file."""


class SelfTest:
    """Decodes and infers the test images as a worker does those of a chunk.

    Args:
        infer: scores of decoded images, None for NaN.
    """

    def __init__(
        self, spec: ModelSpec, infer: Callable[[Sequence[Decoded]], Sequence[Scores | None]], max_pixels: int
    ) -> None:
        self._infer = infer
        self._decoder = Decoder(spec, max(max_pixels, SIDE * SIDE))

    def passes(self) -> bool:
        """Whether each of them gets scores. If not, the log has the reason."""
        try:
            scores = self._infer([self._decoder.decode(_png(plane)) for plane in _planes(SIDE)])
        except Exception:
            log.exception("the model fails on test images, too")
            return False
        return all(one is not None for one in scores)


def test_images(size: int) -> list[Decoded]:
    """The test images as they come out of the decoder, size x size pixels."""
    return [Decoded(plane, size, size, "png") for plane in _planes(size)]


def _planes(side: int) -> tuple[npt.NDArray[np.uint8], ...]:
    """uint8 [side, side, 3]: white, a ramp and noise, since half precision overflows on some and not on others."""
    ramp = np.linspace(0, 255, side, dtype=np.uint8)
    return (
        np.full((side, side, 3), 255, np.uint8),
        np.stack([np.tile(ramp, (side, 1)), np.tile(ramp[:, None], (1, side)), np.tile(ramp[::-1], (side, 1))], -1),
        np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8),
    )


def _png(plane: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(plane).save(buffer, "png")
    return buffer.getvalue()
