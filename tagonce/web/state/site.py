"""State that all pages share: the database, the model, and the counts of the collection."""

import getpass
import threading
from collections.abc import Callable, Hashable

import numpy as np
from anyio import CapacityLimiter
from cachetools import TTLCache, cached

from db.database import Database
from db.ledger import models
from db.ledger.models import Model
from db.names.vocabulary import Vocabulary, folded_name
from tagonce.settings import Settings
from tagonce.web.pictures.thumbnails import Thumbnails
from tagonce.web.state.collection import Collection
from tagonce.web.state.run_status import Watch
from tagonce.web.state.tagger import Tagger

_ASKERS = 8
"""Connections for pages, of the 15 of a pool: one is for counting, and pictures need some briefly."""
_PICTURES = 32
_SAMPLES, _SAMPLE_SECONDS = 64, 60.0
"""Seconds. A slider then does not draw the same pictures again; they expire because images are added and removed."""


class Site:
    """Threads share it.

    Args:
        reviewer: the default name of labels.
        command: the options of a command line that select the model and the database, with a leading space.
    """

    def __init__(
        self,
        database: Database,
        model: Model,
        settings: Settings,
        thumbnails: Thumbnails,
        *,
        reviewer: str = "",
        command: str = "",
    ) -> None:
        self.database = database
        self.model = model
        self.settings = settings
        self.thumbnails = thumbnails
        self.reviewer = reviewer or login_name()
        self.command = command
        with database.read() as connection:
            self.tags = models.tag_names(connection, model.id)
        self.has_name = np.array([bool(tag.name) for tag in self.tags])
        """(tags,) An empty name holds a slot of the model and is no tag."""
        self.vocabulary = Vocabulary(self.tags)
        self.folded_names = [folded_name(tag.name) for tag in self.tags]
        self.categories = {
            name: number for number, name in enumerate(dict.fromkeys(tag.category for tag in self.tags if tag.category))
        }
        """Category numbers by name, in the model's order."""
        self.collection = Collection(database, model)
        self.watch = Watch(database, model)
        self.tagger = Tagger(model, settings)
        self.askers = CapacityLimiter(_ASKERS)
        """Limits the threads that make pages."""
        self.pictures = CapacityLimiter(_PICTURES)
        """Limits the threads that make and send pictures."""
        self._samples: TTLCache[Hashable, list[int]] = TTLCache(_SAMPLES, _SAMPLE_SECONDS)
        self._samples_lock = threading.Lock()

    def sample(self, key: Hashable, draw: Callable[[], list[int]]) -> list[int]:
        """The ids of images that were drawn for a key less than a minute ago, or are drawn now.

        Two threads may draw at the same time: the lock is not held while images are drawn.
        """
        return cached(self._samples, key=lambda: key, lock=self._samples_lock)(draw)()


def login_name() -> str:
    """Name of the user who runs the server; `anonymous` if the system has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "anonymous"
