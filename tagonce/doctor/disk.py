"""Free disk space."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tagonce.doctor.finding import Finding, Status
from workers.cache_folder import cache_folder

NAME = "disk"


def look(*, least_free: float) -> Iterator[Finding]:
    """Check the cache folder and the folder of temporary files."""
    for folder in (cache_folder(), Path(tempfile.gettempdir())):
        yield finding(NAME, folder, least_free)


def finding(check: str, folder: Path, least_free: float) -> Finding:
    """Free space of the disk of a folder, which need not exist yet.

    Args:
        least_free: bytes.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    words = f"{free / 1e9:,.1f} GB free for {folder}"
    if free >= least_free:
        return Finding(check, Status.OK, words)
    return Finding(check, Status.WARNING, words, "Free some space: a full disk stops the workers.")
