"""How many cores this process may use: those it may run on, or the share of them that its container is given."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def cores() -> int:
    """At least one. `docker run --cpus 2` and the CPU limit of a Kubernetes pod leave all cores visible, and hold a
    process that has a thread for each of them up for most of every tenth of a second.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = quota()
    return affinity if limit is None else max(1, min(affinity, math.ceil(limit)))


def quota() -> float | None:
    """Cores by the quota of this process's control group, or of one above it, whichever is least. None: there is none.

    Both versions are read: of 2, `cpu.max`; of 1, `cpu.cfs_quota_us` and `cpu.cfs_period_us`.
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
    """The group and all above it. Of those in a container, most may not be there: it sees its own as the root."""
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
