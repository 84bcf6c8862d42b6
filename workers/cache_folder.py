"""The cache folder: files that are kept between starts and can be deleted at any time."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`tagonce` in the user's cache folder (XDG base directory specification). May not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tagonce"
