"""Thumbnails of local files and of objects in S3: made once, kept in a folder. Needs no torch.

The files of strangers are opened in this process, within the limits of `workers.images.safe_open`, and are only where
workers read, too (`workers.storage.roots`). What a browser gets is a picture that was made here, and nothing of the
file itself.
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
"""Being fetched, or waiting in memory for a core. Fetching waits for others, so more than there are cores."""

_FAILED_SECONDS = 60.0
"""For so long an image without a thumbnail is not tried again: a page of them would fetch them all at each look."""
_FAILED_NUMBER = 10_000
"""Of which so much is remembered, more or less."""

__all__ = ["PREVIEW_SIZE", "SIZE", "Thumbnails", "open_thumbnails"]

log = logging.getLogger(__name__)


class Thumbnails:
    """Threads share it. Processes may share the folder.

    Args:
        folder: where thumbnails are kept.
        max_bytes: larger files are refused before they are read.
        max_pixels: larger images are refused by their header.
        pixels_in_flight: of all images that are decoded at once. None: twice the above.
        roots: what lies outside is refused; none means no limit.
        kept_bytes: of all thumbnails in the folder; the least recently used go.

    Raises:
        SettingsError: the folder cannot be written to, or a root is no place.
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
        """Until when, by the monotonic clock, and why; oldest first."""

    def get(self, image_id: int, uri: str, version: str, *, side: int = SIZE) -> bytes:
        """A WebP. It waits for the storage, up to minutes where that is away.

        Args:
            image_id: by which the log calls it.
            uri: of the original.
            version: of the original, as it is stored. What is read is the file as it is now.
            side: of the square that it fits into, in pixels. Each that is asked for is kept: take `SIZE` and
                `PREVIEW_SIZE`, and no number of a request.

        Raises:
            ImageError: there can be none, for its reason; for a minute the same is said without trying.
            TransientError: the storage is away. Nothing of that is remembered.
            SettingsError: S3 cannot be asked at all. Nothing of that is remembered.
        """
        self._check_root(uri)  # what is kept here was perhaps made when more was allowed
        name = _name(uri, version, side)
        kept = self._files.read(name)
        return self._once(image_id, name, uri, side) if kept is None else kept

    def _check_root(self, uri: str) -> None:
        if uri.startswith("file://"):
            self._roots.check_path(file_path(uri))
        else:
            self._roots.check_object(uri)

    def _once(self, image_id: int, name: str, uri: str, side: int) -> bytes:
        """Makes it, or waits for the thread that is making it."""
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
                # A new one: on the error hang the frames that it went through, and on these the whole file.
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
        kept = self._files.read(name)  # since the first look, another thread or process may have made it
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
    """As the settings say.

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
    """Of what the thumbnail depends on."""
    return hashlib.sha256(f"{side}\0{version}\0{uri}".encode(errors="surrogatepass")).hexdigest()
