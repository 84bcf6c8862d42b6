"""Settings of glibc's allocator for a process that computes on the CPU."""

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
    """Keep freed memory in the process, for the tensors of the next forward. Must be called before torch is imported.

    By default glibc returns large freed blocks to the system, and the next forward has each page mapped and zeroed
    again: a third of the CPU time of the demo model (docs/performance.md). With these settings all blocks come from one
    heap that is never trimmed, in huge pages if the system provides them. The process stays as large as its peak.
    """
    if sys.platform != "linux":
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's own switch for huge pages
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # musl has no mallopt
        # No mmap for blocks of any size: up to 2.34, glibc refuses an mmap threshold above 32 MiB.
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _MAX_INT), (_M_ARENA_MAX, 1)):
            if not libc.mallopt(option, value):
                log.warning("glibc refuses mallopt(%d, %d): freed memory may return to the system", option, value)
