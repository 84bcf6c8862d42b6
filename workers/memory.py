"""Memory of a process that computes on the CPU."""

import ctypes
import os
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_MAX_INT = 2**31 - 1


def keep_freed_memory() -> None:
    """Tensors of one forward live in the memory of the last. To be called before torch is imported.

    By default glibc gives a large block back to the system when it is freed, and the next forward has to have each
    page of it mapped and zeroed again: a third of the processor time of the demo model (docs/performance.md). So:
    blocks come from one heap, which is never cut, and in huge pages where the system lends them. The process stays as
    large as its largest moment.
    """
    if sys.platform != "linux":
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's own switch for huge pages
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # musl has none
        for option, value in ((_M_MMAP_THRESHOLD, _MAX_INT), (_M_TRIM_THRESHOLD, _MAX_INT), (_M_ARENA_MAX, 1)):
            libc.mallopt(option, value)
