"""What all pages share: the database, the model, and what is known of the whole collection."""

import getpass

import numpy as np
from anyio import CapacityLimiter

from db.database import Database
from db.ledger import models
from db.ledger.models import Model
from db.names.vocabulary import Vocabulary, folded_name
from tagonce.settings import Settings
from tagonce.web.pictures.thumbnails import Thumbnails
from tagonce.web.state.collection import Collection
from tagonce.web.state.run_status import Watch
from tagonce.web.state.tagger import Tagger
from tagonce.web.state.ttl_cache import Remembered

_ASKERS = 8
"""Of the 15 connections that an engine of SQLAlchemy opens at most; one counts, and pictures need one for a moment."""
_PICTURES = 32
_REMEMBERED, _REMEMBERED_SECONDS = 64, 60.0
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
        self.samples = Remembered[list[int]](_REMEMBERED, _REMEMBERED_SECONDS)
        """Ids of images by what was asked for."""


def login_name() -> str:
    """Of the user who runs this; `anonymous` where the system knows none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "anonymous"
