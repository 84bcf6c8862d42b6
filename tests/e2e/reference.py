"""What the model itself says about files, without a database, a queue or a worker in between."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from db.batches import batched
from db.errors import ImageError
from db.scores import SCALE
from tests.e2e.ledger import NOT_STORED
from workers.images.decode import Decoded, Decoder
from workers.inference.infer import Inferencer
from workers.models.registry import find_model
from workers.options import Options
from workers.storage.fetch import Fetcher


def own_scores(
    model: str | Path, uris: Sequence[str], *, chunk_size: int, batch_size: int, floor: int = 0
) -> dict[str, npt.NDArray[np.int16]]:
    """By uri floor(p * 10000), in float64, of the model's float32 probability of every tag; NOT_STORED below the floor.

    A float32 sum may end in another last bit when the same image is in another batch. So the batches have to be those
    of the worker: chunks in the order that they were sent in, batches within a chunk, images that fail left out.
    """
    spec = find_model(str(model))
    options = Options(batch_size=batch_size)
    fetcher = Fetcher(max_bytes=options.max_bytes, connections=1)
    decoder = Decoder(spec, max_pixels=options.max_pixels)
    inferencer = Inferencer(spec, options, floor=0)
    found = {}
    for chunk in batched(uris, chunk_size):
        for batch in batched(chunk, batch_size):
            decoded = _decoded(fetcher, decoder, batch)
            probabilities = inferencer.probabilities(list(decoded.values())).numpy()
            scores = np.floor(probabilities.astype(np.float64) * SCALE).astype(np.int16)
            found |= dict(zip(decoded, np.where(scores >= floor, scores, NOT_STORED), strict=True))
    return found


def _decoded(fetcher: Fetcher, decoder: Decoder, uris: Iterable[str]) -> dict[str, Decoded]:
    decoded = {}
    for uri in uris:
        try:
            decoded[uri] = decoder.decode(fetcher.fetch(uri))
        except ImageError:
            continue
    return decoded
