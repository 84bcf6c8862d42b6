"""Ids of rows in a bit each are the set that Python has, at a hundredth of its memory."""

from hypothesis import given
from hypothesis import strategies as st

from db.arrays.id_set import IdSet

# On both sides of the bounds between pages, and far apart.
ids = st.integers(0, 200) | st.integers(65_530, 65_542) | st.integers(0, 2**40)


@given(st.lists(st.lists(ids)), st.lists(ids))
def test_it_holds_what_was_added(added: list[list[int]], asked: list[int]) -> None:
    found, expected = IdSet(), set[int]()
    for some in added:
        found.add(some)
        expected.update(some)
    assert list(found) == sorted(expected)
    assert len(found) == len(expected)
    assert found.without(asked) == set(asked) - expected


def test_millions_take_a_bit_each() -> None:
    found = IdSet()
    for first in range(1, 3_000_001, 100_000):
        found.add(range(first, first + 100_000))
    assert len(found) == 3_000_000
    assert sum(bits.nbytes for bits in found._pages.values()) < 400_000
