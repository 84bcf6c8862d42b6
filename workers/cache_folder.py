"""The cache folder: files that are kept between starts and can be deleted at any time."""

import os
from pathlib import Path


def keep_compiled_code() -> None:
    """Have torch keep compiled code here, and not below /tmp, unless `TORCHINDUCTOR_CACHE_DIR` is set.

    Must be called before timm is imported, which has torch set that variable.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))


def cache_folder() -> Path:
    """`tagonce` in the user's cache folder (XDG base directory specification). May not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tagonce"
