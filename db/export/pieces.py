"""Text of many images, joined from pieces that exist already: numpy orders them, and one `join` copies them."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from db.arrays.csr import ranges
from db.arrays.types import Int64Array

ObjectArray = npt.NDArray[np.object_]

Part: TypeAlias = int | Sequence[str] | tuple[Int64Array, Int64Array]
"""A part of the text of every image

    number              the same fragment in each
    texts               (images,) a text of its own in each
    (indices, sizes)    (pieces of all images,) fragments, and (images,) how many of them each image has
"""


def joined(fragments: ObjectArray, parts: Sequence[Part], images: int) -> str:
    """The text of all images, one after the other; each has all parts, in order.

    Args:
        fragments: the texts that indices name.
    """
    sizes = np.zeros(images, dtype=np.int64)
    for part in parts:
        sizes += part[1] if isinstance(part, tuple) else 1
    at = np.cumsum(sizes) - sizes
    indices = np.zeros(int(sizes.sum()), dtype=np.int64)
    own: list[tuple[Int64Array, Sequence[str]]] = []
    for part in parts:
        if isinstance(part, tuple):
            indices[ranges(at, part[1])] = part[0]
            at = at + part[1]
            continue
        if isinstance(part, int):
            indices[at] = part
        else:
            own.append((at, part))
        at = at + 1
    pieces = fragments[indices]
    for positions, texts in own:
        pieces[positions] = texts
    return "".join(pieces.tolist())
