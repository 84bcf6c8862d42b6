"""The gate: a chunk that came back is run with nobody else inside."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from workers.queue.isolation import Gate

SOON = 5


def test_new_chunks_go_in_side_by_side() -> None:
    gate = Gate()
    with gate.side_by_side(), gate.side_by_side():
        pass


def test_a_suspect_waits_for_the_others_and_keeps_new_ones_out() -> None:
    gate, order, let_out = Gate(), [], threading.Event()
    first_in, suspect_in = threading.Event(), threading.Event()

    def first() -> None:
        with gate.side_by_side():
            first_in.set()
            let_out.wait(SOON)
            order.append("first")

    def suspect() -> None:
        with gate.alone():
            order.append("suspect")
            suspect_in.set()

    def late() -> None:
        with gate.side_by_side():
            order.append("late")

    with ThreadPoolExecutor(3) as pool, ExitStack() as stack:
        stack.callback(let_out.set)
        pool.submit(first)
        assert first_in.wait(SOON)
        waiting = pool.submit(suspect)
        while not gate._suspects:
            pass
        last = pool.submit(late)
        assert not suspect_in.is_set()
        let_out.set()
        waiting.result(SOON)
        last.result(SOON)
    assert order == ["first", "suspect", "late"]


def test_an_error_inside_opens_the_gate_again() -> None:
    gate = Gate()
    for enter in (gate.alone, gate.side_by_side, gate.alone):
        with pytest.raises(ValueError, match="inside"), enter():
            raise ValueError("inside")
