"""Isolation: a chunk that was delivered before runs alone."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from workers.queue.isolation import SharedLock

SOON = 5


def test_new_chunks_share_the_lock() -> None:
    lock = SharedLock()
    with lock.shared(), lock.shared():
        pass


def test_an_exclusive_holder_waits_for_shared_ones_and_keeps_new_ones_out() -> None:
    lock, order, let_out = SharedLock(), [], threading.Event()
    first_in, exclusive_in = threading.Event(), threading.Event()

    def first() -> None:
        with lock.shared():
            first_in.set()
            let_out.wait(SOON)
            order.append("first")

    def exclusive() -> None:
        with lock.exclusive():
            order.append("exclusive")
            exclusive_in.set()

    def late() -> None:
        with lock.shared():
            order.append("late")

    with ThreadPoolExecutor(3) as pool, ExitStack() as stack:
        stack.callback(let_out.set)
        pool.submit(first)
        assert first_in.wait(SOON)
        waiting = pool.submit(exclusive)
        while not lock._exclusive:
            pass
        last = pool.submit(late)
        assert not exclusive_in.is_set()
        let_out.set()
        waiting.result(SOON)
        last.result(SOON)
    assert order == ["first", "exclusive", "late"]


def test_an_error_inside_releases_the_lock() -> None:
    lock = SharedLock()
    for enter in (lock.exclusive, lock.shared, lock.exclusive):
        with pytest.raises(ValueError, match="inside"), enter():
            raise ValueError("inside")
