"""A set of row ids with one bit per id: ten million ids take little more than a megabyte."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

_BITS = 16
"""Pages have 65,536 ids and take 8 kB each. Empty pages are not allocated."""
_PAGE_BYTES = (1 << _BITS) // 8
_NONE = np.zeros(_PAGE_BYTES, dtype=np.uint8)


class IdSet:
    """A set of ids >= 0. Memory is small if ids lie close together, as those of a database do."""

    def __init__(self) -> None:
        self._pages: dict[int, npt.NDArray[np.uint8]] = {}

    def add(self, ids: Sequence[int]) -> None:
        for page, within in _by_page(ids):
            bits = self._pages.setdefault(page, np.zeros(_PAGE_BYTES, dtype=np.uint8))
            np.bitwise_or.at(bits, within >> 3, np.left_shift(1, within & 7).astype(np.uint8))

    def without(self, ids: Sequence[int]) -> set[int]:
        """The ids of `ids` that are not in the set."""
        missing: set[int] = set()
        for page, within in _by_page(ids):
            bits = self._pages.get(page, _NONE)
            absent = within[bits[within >> 3] >> (within & 7).astype(np.uint8) & 1 == 0]
            missing.update(((page << _BITS) + absent).tolist())
        return missing

    def __iter__(self) -> Iterator[int]:
        """Ascending."""
        for page in sorted(self._pages):
            yield from ((page << _BITS) + np.flatnonzero(np.unpackbits(self._pages[page], bitorder="little"))).tolist()

    def __len__(self) -> int:
        return sum(int(np.unpackbits(bits).sum()) for bits in self._pages.values())


def _by_page(ids: Sequence[int]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """(page, positions within the page) for each page that has some of the ids."""
    ordered = np.sort(np.asarray(ids, dtype=np.int64))
    pages, starts = np.unique(ordered >> _BITS, return_index=True)
    for page, start, end in zip(pages.tolist(), starts, [*starts[1:], ordered.size], strict=bool(pages.size)):
        some = ordered[start:end]
        yield page, some & ((1 << _BITS) - 1)
