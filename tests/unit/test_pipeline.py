"""What bounds the memory of a worker: pixels that are decoded at once, and bytes of files that are on their way."""

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from db.errors import Reason
from db.ledger.images import Image
from db.ledger.results import Failure
from tests.fixtures.command import wait_until
from workers.images.budget import Budget
from workers.options import Options
from workers.pipeline import BYTES_UNDER_WAY, Share, _Chunk, _Results
from workers.stages import NotFetched

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


@dataclass
class Recorded:
    """In the place of `Stages`, of `DeviceThread` and of the pipeline: nothing goes on by itself."""

    share: Share
    fetched: list[Image] = field(default_factory=list)
    expected: int = 0

    @property
    def stages(self) -> "Recorded":
        return self

    @property
    def device(self) -> "Recorded":
        return self

    def fetch(self, _listener: object, images: Iterable[Image]) -> None:
        self.fetched += images

    def expect(self, _group: object, images: int) -> None:
        self.expected += images


MISSING = Failure(0, "", Reason.MISSING, "")


@pytest.mark.parametrize(
    ("share", "size", "at_once"),
    [
        (Share(8, 100 * MB), 1, 8),
        (Share(1, 100 * MB), 1, 1),
        (Share(8, 100 * MB), 50 * MB, 2),
        (Share(8, 100 * MB), 51 * MB, 1),
        (Share(8, 100 * MB), 500 * MB, 1),
        (Share(8, 10 * MB), None, 2),
    ],
)
def test_a_chunk_has_no_more_under_way_than_its_share(share: Share, size: int | None, at_once: int) -> None:
    """Images, and bytes of files; one at least. A file of unknown size counts as one of 4 MiB."""
    under_way = Recorded(share)
    images = [Image(number, f"s3://b/{number}", "", size) for number in range(20)]
    chunk, most = _Chunk(under_way, images, _Results(under_way)), 0  # type: ignore[arg-type]
    with ThreadPoolExecutor(1) as runner:
        running = runner.submit(chunk.run, lambda: False)
        for number, image in enumerate(images):
            wait_until(lambda number=number: len(under_way.fetched) > number, every=0.001)
            most = max(most, len(under_way.fetched) - number)
            chunk.listener.events.put([NotFetched(image, MISSING)])
        running.result(10)
    assert most == at_once
    assert under_way.fetched == images
    assert under_way.expected == 0


def test_the_shares_of_all_chunks_keep_the_device_and_the_fetchers_busy() -> None:
    share = Share.of(Options(batch_size=512, concurrency=16, fetchers=32))
    assert share.images * 16 >= 3 * 512
    assert share.bytes * 16 == BYTES_UNDER_WAY
    assert Share.of(Options(batch_size=8, concurrency=3, fetchers=32)).images * 3 >= 64


@pytest.mark.parametrize(("batch_size", "chunks"), [(1, 3), (64, 3), (65, 4), (512, 24), (4096, 64)])
def test_small_chunks_fill_three_batches(batch_size: int, chunks: int) -> None:
    assert Options(batch_size=batch_size).concurrency == chunks
    assert Options(batch_size=batch_size, concurrency=2).concurrency == 2
