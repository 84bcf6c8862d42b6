"""What all pages share: the database, the model, and what is known of the whole collection."""

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
"""Of the 15 connections that an engine of SQLAlchemy opens at most; one counts, and pictures need one for a moment."""
_PICTURES = 32
_SAMPLES, _SAMPLE_SECONDS = 64, 60.0
"""So that a slider does not search for the same pictures again; not for long, since images come and go."""


class Site:
    """Threads share it.

    Args:
        reviewer: who judges, unless a person says another name.
        command: what names the model and the database on a command line, with a space before it.
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
        """Numbers by name, in the model's order."""
        self.collection = Collection(database, model)
        self.watch = Watch(database, model)
        self.tagger = Tagger(model, settings)
        self.askers = CapacityLimiter(_ASKERS)
        """Threads that make pages."""
        self.pictures = CapacityLimiter(_PICTURES)
        """Threads that make and send pictures."""
        self._samples: TTLCache[Hashable, list[int]] = TTLCache(_SAMPLES, _SAMPLE_SECONDS)
        self._samples_lock = threading.Lock()

    def sample(self, key: Hashable, draw: Callable[[], list[int]]) -> list[int]:
        """The ids of images that were drawn for a key less than a minute ago, or are drawn now.

        Two threads may draw at the same time: the lock is not held while images are drawn.
        """
        return cached(self._samples, key=lambda: key, lock=self._samples_lock)(draw)()


def login_name() -> str:
    """Of the user who runs this; `anonymous` where the system knows none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "anonymous"
