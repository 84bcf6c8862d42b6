"""Memory that a forward frees is reused by the next one without system calls."""

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import pytest

from workers.inference import malloc

PAGES_OF_A_BLOCK = 100_000_000 // 4096
TWO_BLOCKS = """
import resource, sys, threading
from workers.inference.malloc import keep_freed_memory
keep_freed_memory()
import torch

def touch():
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(100_000_000, dtype=torch.uint8)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=touch)  # as the worker computes in threads
thread.start()
thread.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it does nothing elsewhere")
def test_a_large_block_is_mapped_once() -> None:
    done = subprocess.run([sys.executable, "-c", TWO_BLOCKS], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) < PAGES_OF_A_BLOCK / 10


@pytest.mark.skipif(sys.platform != "linux", reason="it does nothing elsewhere")
def test_what_glibc_refuses_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Up to 2.34 glibc refuses an mmap threshold above 32 MiB, so none is set, and a refusal of others is logged."""
    asked = {}

    def mallopt(option: int, value: int) -> int:
        asked[option] = value
        return int(option != malloc._M_ARENA_MAX)

    monkeypatch.setattr(ctypes, "CDLL", lambda _name: SimpleNamespace(mallopt=mallopt))
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")
    malloc.keep_freed_memory()
    assert -3 not in asked  # M_MMAP_THRESHOLD
    assert asked[malloc._M_MMAP_MAX] == 0
    assert f"glibc refuses mallopt({malloc._M_ARENA_MAX}, 1)" in caplog.text
