"""What a floor costs: the size of the stored scores of an image, at the floor of the model and at higher ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection

from db.ledger.models import Model
from db.sampling.pool import load
from db.sampling.random_images import random_ids
from db.sql.scores.tag_id_width import bytes_of_tag

FLOORS = (100, 500, 1000)
"""In ten-thousandths: 0.01, 0.05, 0.1."""
LARGE = 4_000
"""Bytes. From here on a million images take 4 GB."""
_SAMPLE = 200
"""Images. A row of 100,000 tags has half a megabyte."""


@dataclass(frozen=True, slots=True)
class RowSize:
    """The mean size of the tag ids and scores of an image, without the columns beside them."""

    images: int
    """Number of images looked at."""
    at: dict[int, float]
    """Bytes an image by floor, in ten-thousandths; for the model's own floor, and higher ones."""


def row_size(connection: Connection, model: Model, floors: Sequence[int] = FLOORS) -> RowSize | None:
    """Measure some images drawn at random; None if the model has tagged none."""
    ids = random_ids(connection, model, _SAMPLE, seed=1)
    if not ids:
        return None
    scores = load(connection, model, ids, model.floor).scores
    size = bytes_of_tag(connection, model.id)
    known = sorted({model.floor, *(floor for floor in floors if floor > model.floor)})
    return RowSize(len(ids), {floor: size * int(np.count_nonzero(scores >= floor)) / len(ids) for floor in known})
