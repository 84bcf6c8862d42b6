"""Exports that are one text file, or standard output."""

from collections.abc import Sequence

from db.export.text import TextFormat
from db.names.plural import counted
from tagonce.export import destinations
from tagonce.export.job import Done, Job, Writer


class TextWriter(Writer):
    """One file, object or stream.

    Args:
        text: what to write for each batch of images.
        out: where to; None for standard output.
    """

    def __init__(self, job: Job, text: TextFormat, out: str | None) -> None:
        self._job = job
        self._text = text
        self._out = out
        self.record_at = None if out is None else f"{out}.export.json"
        self.files = {} if out is None else {out: None}

    def plan(self, replaced: Sequence[str]) -> str:
        return plan_of_file(self._job, self._out, replaces=bool(replaced))

    def write(self, replaced: Sequence[str]) -> Done:  # noqa: ARG002 - a text file says nothing of what it replaces
        with destinations.whole_text(self._out) as file:
            file.write(self._text.head)
            for batch, written in self._job.batches():
                file.write(self._text.text(batch, written))
            file.write(self._text.tail)
        return Done(f"{counted(self._job.images, 'image')} written to {self._out or 'standard output'}.")


def plan_of_file(job: Job, out: str | None, *, replaces: bool) -> str:
    """The plan of an export that is one file."""
    how = "replacing what is there" if replaces else "a new file"
    where = "standard output" if out is None else f"{out}, {how}"
    return f"Nothing was written. It would be: {counted(job.total, 'image')} to {where}."
