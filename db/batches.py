"""`itertools.batched`, which Python has from 3.12 on."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter. Takes from `items` only what the next list needs."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
