"""`tagonce tag`: everything on one machine."""

import signal
from itertools import chain
from typing import TYPE_CHECKING

from db.names.plural import counted
from tagonce.options import parameters
from tagonce.output import ui

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from db.errors import Reason
    from producer.sources.name_filter import NameFilter
    from tagonce.local.run import Progress
    from tagonce.options.if_gone import IfGone
    from tagonce.settings import Settings

LINE_SECONDS = 30.0
"""Interval of progress lines if standard error is not a terminal."""


def command(
    sources: parameters.Sources,
    gone: parameters.IfGone = None,
    yes: parameters.EvenMost = False,
    column: parameters.Column = None,
    null: parameters.Null = False,
    exclude: parameters.Exclude = None,
    no_default_excludes: parameters.NoDefaultExcludes = False,
    all_names: parameters.AllNames = False,
    model: parameters.ModelName = None,
    database: parameters.DatabaseUrl = None,
    floor: parameters.Floor = None,
    batch_size: parameters.BatchSize = None,
    device: parameters.Device = None,
    precision: parameters.Precision = None,
    compile: parameters.Compile = None,  # noqa: A002 - the name of the option
) -> None:
    """Tag images on this machine; no server is needed.

    Run it again to resume, or after adding images.

    Example: tagonce tag ~/Pictures --model demo
    """
    from producer.sources.name_filter import NameFilter
    from tagonce import settings

    config = settings.load(
        model=model,
        database_url=database,
        floor=floor,
        batch_size=batch_size,
        device=device,
        precision=precision,
        compile=compile,
    )
    signal.signal(signal.SIGTERM, _interrupt)
    names = NameFilter(exclude or (), default_excludes=not no_default_excludes, all_names=all_names)
    _run(config, sources, column, names, gone, null=null, even_most=yes)


def _run(
    config: "Settings",
    sources: list[str],
    column: str | None,
    names: "NameFilter",
    gone: "IfGone | None",
    *,
    null: bool,
    even_most: bool,
) -> None:
    from db.ledger import run_progress
    from producer.queue import broker
    from producer.sources import references
    from tagonce import from_settings
    from tagonce.local import embedded_redis
    from tagonce.local.run import CHUNK_SIZE, LEASE_SECONDS, LocalRun, LocalWorker
    from tagonce.options.gone_option import GoneOption
    from tagonce.output.index_bar import update_index
    from tagonce.output.progress import progress_bar
    from tagonce.output.upgrade_display import UpgradeDisplay

    found = chain.from_iterable([references(source, column=column, null=null, names=names) for source in sources])
    from_settings.need_worker_extra()
    stated, config = config, from_settings.with_stored_model(config)
    ui.print_model(stated, config)
    config = config.model_copy(update={"lease_seconds": LEASE_SECONDS})
    # An embedded Redis even if the settings name another: that one may be shared, and here is only one worker, whose
    # chunks can be released as soon as it dies.
    with (
        from_settings.stored(config, create=True, display=UpgradeDisplay()) as database,
        embedded_redis.broker() as broker_url,
    ):
        if_any_gone = GoneOption(database, sources, gone, even_most=even_most)
        # The worker loads the model while this process hashes the weights and lists the sources.
        worker = LocalWorker(config, broker_url)
        run = None
        try:
            spec, row = from_settings.find_and_register(database, config)
            app = broker.create_app(broker_url, row.id, lease_seconds=config.lease_seconds)
            broker.check(app)
            with progress_bar() as bar:
                run = LocalRun(database, spec, row, app, worker, _Display(bar).show)
                run.tag(
                    found,
                    max_waiting=config.max_queue,
                    chunk_size=min(config.chunk_size, CHUNK_SIZE),
                    seen=if_any_gone.seen,
                )
        except KeyboardInterrupt:
            ui.errors.print("\nStopping: the worker writes finished images. Press Ctrl-C again to stop it at once.")
            worker.stop()
            done = ""
            if run:
                run.recount()
                done = f" {counted(run.progress.done, 'image')} done."
            ui.errors.print(f"Stopped.{done} Nothing is lost: run the same command to resume.")
            raise
        finally:
            worker.stop()
        if config.update_index:
            update_index(database, row)
        with database.read() as connection:
            failed = run_progress.failures_by_reason(connection, row.id, since=run.progress.begun)
        ui.print_names(names)
        _summarise(run.progress, failed, config)
        if_any_gone.mark()


class _Display:
    """A bar on a terminal, otherwise a line every `LINE_SECONDS`."""

    def __init__(self, bar: "Bar") -> None:
        self._bar = bar
        self._task = bar.add_task("Loading the model", total=None)
        self._line_due = LINE_SECONDS

    def show(self, progress: "Progress") -> None:
        finished = progress.done + progress.failed
        words = "Tagging" if finished else "Loading the model"
        self._bar.update(self._task, completed=finished, total=progress.sent or None, description=words)
        if self._bar.disable and progress.seconds > self._line_due:
            self._line_due += LINE_SECONDS
            rate = finished / progress.seconds
            ui.errors.print(f"{finished:,} of {counted(progress.sent, 'image')}, {rate:,.1f} images/s")


def _summarise(progress: "Progress", failed: "dict[Reason, int]", config: "Settings") -> None:
    from tagonce import settings

    # Only the name of a file is repeated: the URL of a server may hold a password.
    file = settings.database_file(config.database_url)
    database = (
        "" if file is None or config.database_url == settings.DEFAULT_DATABASE else f" --database sqlite:///{file}"
    )
    before = progress.seen - progress.sent
    if not progress.sent:
        ui.errors.print(f"Nothing to tag: {counted(progress.seen, 'image')}, all with a result.")
    else:
        ui.errors.print(
            f"[green]{counted(progress.done, 'image')} tagged[/] in {progress.seconds:,.1f} s, including loading "
            "the model" + (f"; {before:,} already had a result" if before else "")
        )
    if failed:
        ui.errors.print(f"[yellow]{sum(failed.values()):,} failed:[/]")
        ui.print_failures(failed)
        ui.errors.print(
            f"Which ones: tagonce failures{database}\n{ui.failure_advice(failed, f'{database}, and the same command')}",
            markup=False,
        )
    ui.errors.print(
        f"Next: tagonce export --threshold 0.35 --out captions/{database}\n      tagonce review{database}", markup=False
    )


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt
