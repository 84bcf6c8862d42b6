"""Thumbnails of local files and S3 objects: created once and cached in a folder. Needs no torch.

Untrusted files are opened in this process, within the limits of `workers.images.safe_open` and only below
`workers.storage.roots`, like those of workers. A browser gets a picture encoded here, and no part of the file itself.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from db.errors import ImageError
from db.names.uris import file_path
from tagonce.settings import Settings
from tagonce.web.pictures.orientation import turn_of
from tagonce.web.pictures.shrink import PREVIEW_SIZE, SIZE, shrink, target
from tagonce.web.pictures.thumbnail_files import ThumbnailFiles
from workers.cache_folder import cache_folder
from workers.cpus import cores
from workers.images.safe_open import Opener
from workers.storage.fetch import Fetcher
from workers.storage.roots import Roots

KEPT_BYTES = Settings.model_fields["thumbnails_bytes"].default

_FILES = 16
"""Files being fetched, or waiting in memory for a core. Fetching waits for storage, so there are more than cores."""

_FAILED_SECONDS = 60.0
"""Seconds until an image without a thumbnail is tried again. Otherwise each view of a page would fetch all of them."""
_FAILED_NUMBER = 10_000
"""Approximate number of such images that are remembered."""

__all__ = ["PREVIEW_SIZE", "SIZE", "Thumbnails", "open_thumbnails"]

log = logging.getLogger(__name__)


class Thumbnails:
    """Threads share it. Processes may share the folder.

    Args:
        folder: where thumbnails are kept.
        max_bytes: larger files are refused before they are read.
        max_pixels: larger images are refused by their header.
        pixels_in_flight: pixels of all images decoded at once. None: twice `max_pixels`.
        roots: files outside of these are refused; empty means no limit.
        kept_bytes: limit of all thumbnails in the folder; the least recently used are deleted.

    Raises:
        SettingsError: the folder cannot be written to, or a root is not a folder or prefix.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        max_pixels: int,
        pixels_in_flight: int | None = None,
        roots: Sequence[str] = (),
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self._files = ThumbnailFiles(folder, kept_bytes)
        self._roots = Roots(roots)
        self._fetcher = Fetcher(max_bytes=max_bytes, connections=_FILES, roots=self._roots)
        self._opener = Opener(max_pixels, pixels_in_flight=pixels_in_flight)
        self._in_memory = threading.BoundedSemaphore(_FILES)
        self._at_work = threading.BoundedSemaphore(cores())
        self._lock = threading.Lock()
        self._begun: dict[str, Future[bytes]] = {}
        self._failed: dict[str, tuple[float, ImageError]] = {}
        """Image to (time by the monotonic clock until which it is not tried, error), oldest first."""

    def get(self, image_id: int, uri: str, version: str, *, side: int = SIZE) -> bytes:
        """The thumbnail, as WebP. Waits for the storage, up to minutes if that does not answer.

        Args:
            image_id: for the log.
            uri: of the image.
            version: of the image in the database. The file is read in its present version.
            side: of the square that it fits into, in pixels. Every side is cached: pass `SIZE` or `PREVIEW_SIZE`,
                never a number of a request.

        Raises:
            ImageError: it cannot be created, with the reason. For a minute it is raised again without an attempt.
            TransientError: the storage does not answer. This is not remembered.
            SettingsError: S3 cannot be used at all. This is not remembered.
        """
        self._check_root(uri)  # a cached thumbnail may be from a time when more was allowed
        name = _name(uri, version, side)
        kept = self._files.read(name)
        return self._once(image_id, name, uri, side) if kept is None else kept

    def _check_root(self, uri: str) -> None:
        if uri.startswith("file://"):
            self._roots.check_path(file_path(uri))
        else:
            self._roots.check_object(uri)

    def _once(self, image_id: int, name: str, uri: str, side: int) -> bytes:
        """Create it, or wait for the thread that creates it."""
        with self._lock:
            self._raise_known(name)
            future = self._begun.get(name)
            is_first = future is None
            if future is None:
                future = self._begun[name] = Future()
        if is_first:
            try:
                future.set_result(self._made(name, uri, side))
            except ImageError as error:
                log.info("image %d has no thumbnail: %s", image_id, error)
                # A new error: the old one holds its frames, and these hold the whole file.
                known = ImageError(error.reason, error.detail)
                self._remember(name, known)
                future.set_exception(known)
            except BaseException as error:  # noqa: BLE001 - it is raised below, here and in the threads that wait
                future.set_exception(error)
            finally:
                with self._lock:
                    del self._begun[name]
        return future.result()

    def _made(self, name: str, uri: str, side: int) -> bytes:
        kept = self._files.read(name)  # another thread or process may have created it meanwhile
        if kept is not None:
            return kept
        with self._in_memory:
            data = self._fetcher.fetch(uri)
            with self._at_work, self._opener.opened(data, partial(target, side=side)) as opened:
                thumbnail = shrink(opened.image, turn_of(opened, data), side)
        self._files.write(name, thumbnail)
        return thumbnail

    def _remember(self, name: str, error: ImageError) -> None:
        with self._lock:
            if len(self._failed) >= _FAILED_NUMBER:
                for oldest in list(self._failed)[: _FAILED_NUMBER // 2]:
                    del self._failed[oldest]
            self._failed.pop(name, None)
            self._failed[name] = time.monotonic() + _FAILED_SECONDS, error

    def _raise_known(self, name: str) -> None:
        until, error = self._failed.get(name, (0.0, None))
        if error and time.monotonic() < until:
            raise ImageError(error.reason, error.detail)


def open_thumbnails(config: Settings) -> Thumbnails:
    """Thumbnails by the settings.

    Raises:
        SettingsError: see `Thumbnails`.
    """
    return Thumbnails(
        config.thumbnails or cache_folder() / "thumbnails",
        max_bytes=config.max_bytes,
        max_pixels=config.max_pixels,
        pixels_in_flight=config.max_pixels_in_flight,
        roots=config.roots or (),
        kept_bytes=config.thumbnails_bytes,
    )


def _name(uri: str, version: str, side: int) -> str:
    """Hash of everything that the thumbnail depends on."""
    return hashlib.sha256(f"{side}\0{version}\0{uri}".encode(errors="surrogatepass")).hexdigest()
