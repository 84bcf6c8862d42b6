"""What is worth keeping from one start of a worker to the next, and can be made anew at any time."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`tagonce` in the user's cache folder, as the XDG base directory specification has it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tagonce"
