"""`tagonce status`: progress of tagging."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from db.errors import BrokerError
from db.names.plural import counted
from tagonce.options import parameters
from tagonce.output import ui

if TYPE_CHECKING:
    from db.ledger.models import Model
    from db.ledger.run_progress import ModelProgress
    from db.ledger.workers import Work, Worker
    from tagonce.settings import Settings


@dataclass(frozen=True, slots=True)
class Queue:
    """State of the queue in Redis. Counts are chunks, not images."""

    waiting: int
    in_flight: int
    workers: list[str]


@dataclass(frozen=True, slots=True)
class StatusReport:
    """Everything that is shown."""

    model: "Model"
    progress: "ModelProgress"
    workers: "list[tuple[Worker, Work]]"
    queue: Queue | str | None
    """None without a broker in the settings; an error message if it does not answer."""

    @property
    def work(self) -> "Work | None":
        """The sum of all workers; None without workers."""
        from db.ledger.workers import together

        return together([work for _, work in self.workers]) if self.workers else None


def command(
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Refresh every few seconds; with --json, print one line each time.")
    ] = False,
    interval: Annotated[float, typer.Option(min=0.5, help="Seconds between two refreshes.")] = 2.0,
    model: parameters.StoredModel = None,
    database: parameters.DatabaseUrl = None,
    broker: parameters.BrokerUrl = None,
    json: parameters.Json = False,
) -> None:
    """Show progress, failures by reason, images/s, time left, and where workers spend their time.

    With a broker, the queue is shown too.

    Example: tagonce status --watch
    """
    from db.ledger import run_progress, workers
    from tagonce import settings
    from tagonce.from_settings import stored, stored_model

    config = settings.load(database_url=database, broker_url=broker)
    with stored(config) as opened:

        def look() -> StatusReport:
            with opened.read() as connection:
                row = stored_model(connection, model)
                progress = run_progress.progress(connection, row.id)
                seen = workers.seen_since(connection, row.id, datetime.now(UTC) - workers.LOOK_BACK)
            # Outside the transaction: workers get a second to answer.
            return StatusReport(row, progress, seen, _queue(config, row))

        if not watch:
            ui.print_json(_as_json(look())) if json else ui.output.print(_table(look()))
        elif json:
            for seen in _again(look, interval):
                ui.print_json_line(_as_json(seen))
        elif ui.output.is_terminal:
            from rich.live import Live

            with Live(console=ui.output, refresh_per_second=4) as live:
                for seen in _again(look, interval):
                    live.update(_table(seen))
        else:  # a file or a pipe: tables one after the other
            for seen in _again(look, interval):
                ui.output.print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC", _table(seen), sep="\n")


def _again(look: Callable[[], StatusReport], seconds: float) -> Iterator[StatusReport]:
    """Look every so many seconds, forever. Standard output is flushed in between."""
    while True:
        yield look()
        sys.stdout.flush()
        time.sleep(seconds)


def _queue(config: "Settings", model: "Model") -> Queue | str | None:
    if config.broker_url is None:
        return None
    from producer.queue import broker

    app = broker.create_app(config.broker_url, model.id, client_name="tagonce-status")
    try:
        depth = broker.depth(app, model.id)
        return Queue(depth.waiting, depth.in_flight, broker.workers(app))
    except BrokerError as error:
        return str(error)


def _table(look: StatusReport) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    progress, queue = look.progress, look.queue
    rows: list[tuple[str, str]] = [
        ("model", escape(look.model.label)),
        ("images", f"{progress.images:,}"),
        ("done", f"{progress.done:,}"),
        ("pending", f"{progress.pending:,}"),
        ("failed", f"{sum(progress.failed.values()):,}"),
        *((f"  {reason}", f"{count:,}  [dim]{ui.EXPLAINED[reason]}[/]") for reason, count in progress.failed.items()),
        ("speed", f"{progress.rate:,.1f} images/s" if progress.rate else "nothing in the last minute"),
    ]
    if progress.failed:
        rows.insert(
            5 + len(progress.failed), ("", f"[dim]{ui.failure_advice(progress.failed)} Which: tagonce failures[/]")
        )
    if progress.gone:
        rows.append(("gone", f"{progress.gone:,}  [dim]excluded from all counts; see tagonce search --gone only[/]"))
    if progress.pending and progress.seconds_left is not None:
        rows.append(("time left", str(timedelta(seconds=round(progress.seconds_left)))))
    if look.work:
        rows += [
            ("an image takes", _split(look.work) or "-"),
            ("device busy", _busy(look.work)),
            *(
                (f"  {escape(worker.name)}", f"{_busy(work)}  [dim]{escape(worker.device)}[/]")
                for worker, work in look.workers
            ),
        ]
        if look.work.duplicates:
            rows.append(("duplicates", f"{look.work.duplicates:,} in the last minute: same bytes, no inference"))
    if isinstance(queue, Queue):
        rows.append(("queue", f"{counted(queue.waiting, 'chunk')} waiting, {queue.in_flight:,} being processed"))
        rows.append(("workers", escape(", ".join(queue.workers)) or "none answers"))
    elif queue is not None:
        rows.append(("queue", f"[yellow]{escape(queue)}[/]"))
    for name, value in rows:
        table.add_row(f"[bold]{name}[/]", value)
    return table


def _split(work: "Work") -> str:
    """Milliseconds per image and stage, of one thread: several threads fetch and decode at once."""
    from db.ledger.workers import Stage

    times = ((stage, work.seconds_an_image(stage)) for stage in Stage)
    return ", ".join(f"{stage} {1000 * seconds:,.1f} ms" for stage, seconds in times if seconds is not None)


def _busy(work: "Work") -> str:
    return "-" if work.device_busy is None else f"{work.device_busy:.0%} of the time with work"


def _as_json(look: StatusReport) -> dict[str, Any]:
    from db.ledger.workers import Stage

    progress, queue = look.progress, look.queue
    return {
        "model": {"id": look.model.id, "name": look.model.name},
        "images": progress.images,
        "done": progress.done,
        "pending": progress.pending,
        "failed": {str(reason): count for reason, count in progress.failed.items()},
        "gone": progress.gone,
        "images_per_second": round(progress.rate, 2),
        "seconds_left": progress.seconds_left,
        "devices": [
            {
                "worker": worker.name,
                "device": worker.device,
                "busy": work.device_busy,
                "seconds_an_image": {str(stage): work.seconds_an_image(stage) for stage in Stage},
                "images": {str(stage): work.images[stage] for stage in Stage},
                "duplicates": work.duplicates,
            }
            for worker, work in look.workers
        ],
        "queue": {"waiting": queue.waiting, "in_flight": queue.in_flight} if isinstance(queue, Queue) else None,
        "workers": queue.workers if isinstance(queue, Queue) else None,
    }
