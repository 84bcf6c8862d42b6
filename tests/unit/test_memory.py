"""What a forward frees, the next one gets without the help of the system."""

import subprocess
import sys

import pytest

PAGES_OF_A_BLOCK = 100_000_000 // 4096
TWO_BLOCKS = """
import resource, sys, threading
from workers.memory import keep_freed_memory
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
