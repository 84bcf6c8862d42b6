"""Is it this image, or is it everything? Pictures that nobody sent tell, when the model has failed."""

import io
import logging

import numpy as np
from PIL import Image

from db.scores import Scores
from workers.images.decode import Decoder
from workers.inference.infer import Inferencer
from workers.models.spec import ModelSpec

log = logging.getLogger(__name__)

SIDE = 256
"""Pixels."""


class SelfTest:
    """Decodes and infers a few pictures of its own, as the images of a chunk are."""

    def __init__(self, spec: ModelSpec, inferencer: Inferencer, max_pixels: int) -> None:
        self._inferencer = inferencer
        self._decoder = Decoder(spec, max(max_pixels, SIDE * SIDE))

    def passes(self) -> bool:
        """Each of them gets scores. Where not, the log says why."""
        try:
            inferred = self._inferencer.scores([self._decoder.decode(data) for data in _pictures()])
        except Exception:
            log.exception("the model fails on test pictures, too")
            return False
        return all(isinstance(scores, Scores) for scores in inferred.scores)


def _pictures() -> list[bytes]:
    """PNGs: white, a ramp and noise, since half precision overflows on some and not on others."""
    ramp = np.linspace(0, 255, SIDE, dtype=np.uint8)
    planes = (
        np.full((SIDE, SIDE, 3), 255, np.uint8),
        np.stack([np.tile(ramp, (SIDE, 1)), np.tile(ramp[:, None], (1, SIDE)), np.tile(ramp[::-1], (SIDE, 1))], -1),
        np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8),
    )
    pictures = []
    for plane in planes:
        buffer = io.BytesIO()
        Image.fromarray(plane).save(buffer, "png")
        pictures.append(buffer.getvalue())
    return pictures
