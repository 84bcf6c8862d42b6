"""Shows the progress of an upgrade of the database: a bar on a terminal, otherwise a line now and then."""

import time
from types import TracebackType
from typing import Self

from db.migrations.packing import Progress
from tagonce.output.progress import progress_bar
from tagonce.output.ui import errors

_LINE_SECONDS = 10


class UpgradeDisplay:
    """A `db.migrate.Report`, for a `with` block around the upgrade."""

    def __init__(self) -> None:
        self.last: Progress | None = None
        """None if the database needed no upgrade in pieces."""
        self._bar = progress_bar()
        self._task = self._bar.add_task("Upgrading", total=None)
        self._line_due = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        """Say what is about to be done, then how far it is."""
        if self.last is None:
            errors.print(progress.plan)
            self._bar.start()
            self._line_due = time.monotonic() + _LINE_SECONDS
        self.last = progress
        self._bar.update(self._task, completed=progress.done, total=progress.total)
        if self._bar.disable and time.monotonic() >= self._line_due:
            errors.print(f"{progress.done:,} of {progress.total:,} images")
            self._line_due = time.monotonic() + _LINE_SECONDS
