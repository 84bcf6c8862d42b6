"""Scores of files computed by the model alone, without a database, a queue or a worker."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from db.arrays.batches import batched
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
    """Scores of every tag by uri: floor(p * 10000) in float64 of the float32 probability; NOT_STORED below the floor.

    The last bit of a float32 sum may differ for the same image in another batch. So the batches must be those of the
    worker: chunks in the order that they were sent in, batches within a chunk, without images that fail.
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
