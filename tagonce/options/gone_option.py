"""`--gone` of `tag` and `enqueue`: what a listing no longer has is marked, within bounds, and said."""

from collections.abc import Sequence
from enum import StrEnum

from db.database import Database
from db.errors import SettingsError, StopError
from db.ledger.id_set import IdSet
from db.names.plural import counted
from producer import mark_gone, sources
from producer.references import path_or_uri
from tagonce.output import ui


class IfGone(StrEnum):
    """What is done about images that a folder or prefix no longer has."""

    MARK = "mark"
    KEEP = "keep"


class GoneOption:
    """The option in one run. Made before its sources are listed, asked to mark when all of them were, to the end.

    Args:
        choice: None marks, where there is something to mark and no doubt about it.
        even_most: more than half of a place, too.

    Raises:
        SettingsError: the options do not fit.
    """

    def __init__(self, database: Database, given: Sequence[str], choice: IfGone | None, *, even_most: bool) -> None:
        if even_most and choice is not IfGone.MARK:
            raise SettingsError("--yes goes with --gone mark.")
        places = [] if choice is IfGone.KEEP else [sources.place(source) for source in given]
        self._places = list(dict.fromkeys(place for place in places if place is not None))
        if choice is IfGone.MARK and not self._places:
            raise SettingsError(
                "--gone mark compares what is registered with the listing of a folder or an s3:// prefix. A list says "
                "nothing about images that it does not name."
            )
        self._database = database
        self._asked_for = choice is IfGone.MARK
        self._even_most = even_most
        self.seen = IdSet() if self._places else None
        """For `producer.enqueue`; None where nothing is to be marked."""
        self._last = mark_gone.newest(database) if self._places else 0

    def mark(self) -> int:
        """Mark, and say how many; returns that number.

        Raises:
            StopError: marking was asked for, and of a place more than half is gone; other places are done.
        """
        if self.seen is None:
            return 0
        refused, marked = [], 0
        with ui.progress_bar() as bar:
            task = bar.add_task("Looking for what is gone", total=None)
            for place in self._places:
                found = mark_gone.mark(
                    self._database,
                    place,
                    self.seen,
                    last=self._last,
                    even_most=self._even_most,
                    on_progress=lambda images: bar.advance(task, images),
                )
                if found.refused:
                    refused.append(f"{path_or_uri(place)} ({counted(found.registered, 'image')} registered)")
                else:
                    marked += found.gone
        if marked:
            ui.errors.print(
                f"{counted(marked, 'image is', 'images are')} gone: searches and exports leave that out from now on. "
                "`tagonce search --gone only` lists it, `tagonce forget --gone` deletes what is stored of it.",
                markup=False,
            )
        if refused:
            words = (
                f"More than half of what is registered is gone from {', '.join(refused)}, so nothing was marked there. "
                "If that is a disk that is not mounted, mount it; if they are really gone, repeat with --gone mark "
                "--yes."
            )
            if self._asked_for:
                raise StopError(words)
            ui.errors.print(words, markup=False)
        return marked
