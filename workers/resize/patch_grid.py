"""The number of patches of an image for a network that takes any number of them (NaFlex)."""

import math

from workers.models.spec import PATCH

_PRECISION = 1e-5


def patch_grid(width: int, height: int, most: int) -> tuple[int, int]:
    """Rows and columns of patches: as many as fit into the image, scaled down to at most `most` patches.

    The scale is found by bisection, as in Hydra's reference. The image is resized to whole patches, so that its aspect
    ratio changes slightly, and it is enlarged only if a side is shorter than a patch.
    """
    all_rows, all_columns = max(1, height // PATCH), max(1, width // PATCH)
    if all_rows * all_columns <= most:
        return all_rows, all_columns
    low, high = _PRECISION, 1.0
    best = 1, 1
    while high - low >= _PRECISION:
        scale = (low + high) / 2
        rows = min(math.ceil(height * scale / PATCH), all_rows)
        columns = min(math.ceil(width * scale / PATCH), all_columns)
        if rows * columns > most:
            high = scale
            continue
        low, best = scale, (rows, columns)
        if rows * columns == most:
            break
    return best


def snapped_grid(width: int, height: int, longest: int) -> tuple[int, int]:
    """Rows and columns of patches for an image whose long side is cut to whole patches of at most `longest` pixels.

    The other side is scaled by the same factor, rounded, and cut to whole patches: the rule of Taggerine. A side has at
    least one patch, for which its reference has no rule.
    """
    long, short = max(width, height), min(width, height)
    along = max(1, min(long, longest) // PATCH)
    across = max(1, round(short * along * PATCH / long) // PATCH)
    return (across, along) if width >= height else (along, across)
