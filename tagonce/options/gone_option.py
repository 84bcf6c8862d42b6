"""`--gone` of `tag` and `enqueue`: mark images that a listing no longer has, and report how many."""

from collections.abc import Sequence

from db.arrays.id_set import IdSet
from db.database import Database
from db.errors import SettingsError, StopError
from db.names.plural import counted
from producer import mark_gone, sources
from producer.uris import path_or_uri
from tagonce.options.if_gone import IfGone
from tagonce.output import ui
from tagonce.output.progress import progress_bar


class GoneOption:
    """The option in one run. Create it before listing the sources; call `mark` after all were listed completely.

    Args:
        choice: None marks too, but refusing to mark more than half of a source is then no error.
        even_most: mark even if more than half of a source is gone.

    Raises:
        SettingsError: the options contradict each other.
    """

    def __init__(self, database: Database, given: Sequence[str], choice: IfGone | None, *, even_most: bool) -> None:
        if even_most and choice is not IfGone.MARK:
            raise SettingsError("--yes needs --gone mark.")
        places = [] if choice is IfGone.KEEP else [sources.place(source) for source in given]
        self._places = list(dict.fromkeys(place for place in places if place is not None))
        if choice is IfGone.MARK and not self._places:
            raise SettingsError(
                "--gone mark needs a folder or an s3:// prefix, whose listing is compared with the registered images. "
                "A list does not show what is gone."
            )
        self._database = database
        self._asked_for = choice is IfGone.MARK
        self._even_most = even_most
        self.seen = IdSet() if self._places else None
        """For `producer.enqueue`; None if nothing is to be marked."""
        self._last = mark_gone.newest(database) if self._places else 0

    def mark(self) -> int:
        """Mark images as gone and print how many. Returns that number.

        Raises:
            StopError: with `--gone mark`, more than half of a source is gone; the other sources are marked.
        """
        if self.seen is None:
            return 0
        refused, marked = [], 0
        with progress_bar() as bar:
            task = bar.add_task("Looking for images that are gone", total=None)
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
                f"{counted(marked, 'image is', 'images are')} gone: searches and exports exclude them. To list them: "
                "`tagonce search --gone only`. To remove them from the database: `tagonce forget --gone`.",
                markup=False,
            )
        if refused:
            words = (
                f"Nothing was marked in {', '.join(refused)}, since more than half of the registered images are gone. "
                "If a disk is not mounted, mount it. If the images are really gone, repeat with --gone mark --yes."
            )
            if self._asked_for:
                raise StopError(words)
            ui.errors.print(words, markup=False)
        return marked
