"""`itertools.batched` of Python 3.12, for 3.11."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items; the last one may be shorter. Takes from `items` only the items of the next list."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
