"""Memory of a process that computes on the CPU."""

import ctypes
import logging
import os
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8
_MAX_INT = 2**31 - 1

log = logging.getLogger(__name__)


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
        # No block by mmap, whatever its size: up to 2.34 glibc refuses a threshold for that above 32 MiB.
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _MAX_INT), (_M_ARENA_MAX, 1)):
            if not libc.mallopt(option, value):
                log.warning("glibc refuses mallopt(%d, %d): freed memory may go back to the system", option, value)
