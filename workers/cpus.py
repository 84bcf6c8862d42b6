"""Number of cores that this process may use: its CPU affinity, limited by the CPU quota of its container."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def cores() -> int:
    """Cores for computation, at least one.

    `docker run --cpus 2` and the CPU limit of a Kubernetes pod leave all cores visible. A process with a thread for
    each visible core is then throttled for most of each scheduling period of 100 ms.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = quota()
    return affinity if limit is None else max(1, min(affinity, math.ceil(limit)))


def quota() -> float | None:
    """Least CPU quota, in cores, of this process's control group and those above it. None: no quota.

    Reads both versions of cgroups: `cpu.max` of v2, `cpu.cfs_quota_us` and `cpu.cfs_period_us` of v1
    (Linux, Documentation/admin-guide/cgroup-v2.rst and Documentation/scheduler/sched-bwc.rst).
    """
    try:
        own = _OWN.read_text().splitlines()
    except OSError:  # not Linux
        return None
    found = []
    for line in own:
        _number, controllers, path = line.split(":", 2)
        names = controllers.split(",")
        if not controllers:
            found += [_of_version_2(folder) for folder in _folders(_CGROUPS, path)]
        elif "cpu" in names:
            for mounted in (controllers, "cpu"):
                found += [_of_version_1(folder) for folder in _folders(_CGROUPS / mounted, path)]
    return min((limit for limit in found if limit is not None), default=None)


def _folders(root: Path, path: str) -> Iterator[Path]:
    """Folders of the group and of all above it. In a container most may not exist: its own group is mounted as root."""
    inside = PurePosixPath(path.lstrip("/"))
    yield from (root / folder for folder in (inside, *inside.parents) if ".." not in folder.parts)


def _of_version_2(folder: Path) -> float | None:
    try:
        limit, period = (folder / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        return None


def _of_version_1(folder: Path) -> float | None:
    try:
        limit, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
    except (OSError, ValueError):
        return None
    return limit / period if limit > 0 and period > 0 else None
