"""An export from beginning to end: count, check what exists, write, leave a record."""

import json

from sqlalchemy import Connection

from db.errors import SettingsError
from db.export.tagged_images import count_images
from db.ledger import models
from tagonce.export.choices import Existing
from tagonce.export.job import Export, Job
from tagonce.export.overwrite_guard import OverwriteGuard
from tagonce.export.record import leave_record
from tagonce.output import ui
from tagonce.output.progress import progress_bar

_FACTS = ("counts", "root", "files", "earlier")
"""Keys at the end of a record, in this order."""


def run(connection: Connection, export: Export) -> str:
    """Write an export.

    Returns:
        What was done, in words; with `Export.dry`, what would be done.

    Raises:
        SettingsError: there is nothing to export, an option does not fit, or a file must not be overwritten.
        StopError: something cannot be written.
    """
    export.format.check(export.options)
    model = export.resolved.model
    total = count_images(connection, model, where=export.where, under=export.under)
    if not total:
        chosen = f" under {export.under}" * bool(export.under) + f" for {export.query}" * (export.query is not None)
        raise SettingsError(f"{models.title(connection, model)} has no predictions{chosen} to export.")
    with progress_bar() as bar:
        job = Job(export, connection, models.tag_names(connection, model.id), total, bar)
        writer = export.format.writer(job)
        guard = OverwriteGuard(
            connection,
            writer.record_at or f"{export.frequencies}.export.json",
            job.selection,
            export.existing is Existing.OVERWRITE,
        )
        replaced = [out for out, name in writer.files.items() if guard.check(out, name)]
        if export.frequencies not in {None, "-"}:
            guard.check(str(export.frequencies))
        if export.dry:
            return writer.plan(replaced)
        done = writer.write(replaced)
        job.write_frequencies()
        facts = {"counts": {**job.counts, **done.counts}, "files": guard.digests(), **done.facts}
        if writer.record_at is None:
            ui.errors.print(json.dumps({**job.record(), "counts": facts["counts"]}, ensure_ascii=False), markup=False)
        else:
            leave_record(writer.record_at, job.record() | {key: facts[key] for key in _FACTS if key in facts})
        return done.summary
