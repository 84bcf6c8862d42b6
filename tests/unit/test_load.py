"""What bounds the memory of a worker: pixels that are decoded at once, and bytes of files that are on their way."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fixtures.command import wait_until
from workers import load
from workers.images.budget import Budget

THREADS = 8
MB = 1024 * 1024


class Counted:
    """Calls that end when they are let go, and how many went on at once."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.go = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, item: int) -> int:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.go.wait()
        with self._lock:
            self.inside -= 1
        return item


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(THREADS) as threads:
        yield threads


def test_no_more_than_the_budget_is_taken_at_once(pool: ThreadPoolExecutor) -> None:
    """Three of 30 fit into 100; one of 500 gets in when nobody else is there."""
    budget, calls = Budget(100), Counted()

    def take(amount: int) -> int:
        with budget.taken(amount):
            return calls(amount)

    futures = [pool.submit(take, amount) for amount in (30, 30, 30, 30, 30, 500)]
    wait_until(lambda: calls.inside == 3, every=0.01)
    calls.go.set()
    assert [future.result() for future in futures] == [30, 30, 30, 30, 30, 500]
    assert calls.most == 3


def test_a_large_one_gets_its_turn(pool: ThreadPoolExecutor) -> None:
    """However many small ones come after it."""
    budget, order = Budget(100), list[int]()

    def take(amount: int) -> None:
        with budget.taken(amount):
            order.append(amount)

    with budget.taken(60):
        futures = [pool.submit(take, 100)]
        wait_until(lambda: len(budget._turns) == 1, every=0.01)
        futures += [pool.submit(take, 1) for _ in range(3)]
        wait_until(lambda: len(budget._turns) == 4, every=0.01)
    for future in futures:
        future.result()
    assert order[0] == 100


@pytest.mark.parametrize(
    ("size", "at_once"),
    [(1, THREADS), (load.BYTES_AHEAD // 4, 4), (load.BYTES_AHEAD // 3, 4), (10 * load.BYTES_AHEAD, 1)],
)
def test_large_files_are_begun_one_after_the_other(pool: ThreadPoolExecutor, size: int, at_once: int) -> None:
    """None is begun while those on their way are as large as may be; so it is one more, and at least one."""
    calls = Counted()
    with ThreadPoolExecutor(1) as reader:
        results = reader.submit(list, load._in_order(pool, calls, range(20), 100, lambda _item: size, lambda: False))
        wait_until(lambda: calls.inside == at_once, every=0.01)
        calls.go.set()
        assert results.result() == list(range(20))
    assert calls.most == at_once


def test_files_of_unknown_size_count_as_something() -> None:
    from db.ledger.images import Image

    assert load._expected_bytes(Image(1, "s3://b/a", "", None)) == load.BYTES_UNKNOWN
    assert load._expected_bytes(Image(1, "s3://b/a", "", 5)) == 5


def test_what_waits_to_be_recognised_is_bounded_too() -> None:
    """A look-up for a batch would else wait until the files of a whole batch are in memory."""
    from db.ledger.images import Image

    image = Image(1, "s3://b/a", "", None)
    files = [load.Fetched(image, bytes(size), b"") for size in (load.BYTES_AHEAD - 1, 1, 1, 1, 1)]
    assert [len(group) for group in load._groups(iter(files), 2)] == [2, 2, 1]
    assert [len(group) for group in load._groups(iter(files), 4)] == [2, 3]
