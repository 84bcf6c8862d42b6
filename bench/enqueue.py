"""The cost of registering and queueing: tagonce on PostgreSQL and SQLite compared with code written without it.

    python bench/enqueue.py [--references 200000] [--ways postgresql,sqlite,rows,urls]

    postgresql  `producer.enqueue` on PostgreSQL
    sqlite      the same on SQLite
    rows        SQLAlchemy as in its manual, into the same tables of PostgreSQL: `insert ... on conflict do update`
                with a list of rows, 2,000 a transaction, then a query for those that are pending; 256 ids a message
    urls        no database at all: Celery's `apply_async` with one URL a message

References are generated (`synthetic.py`) one at a time, as by a source. All of them are new, then known and still
pending, then known and done. Each of these states is measured in its own process, connected before timing begins; peak
memory is that of the process. CPU time a reference is given for the producer and for PostgreSQL: on a shared machine it
is more reliable than wall time. Needs `pip install --group bench`, and Linux.
"""

import argparse
import multiprocessing
import re
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

import psycopg
import redis
import services
import synthetic
from celery import Celery
from rich.console import Console
from rich.table import Table
from sqlalchemy import and_, or_, select

from db.arrays.batches import batched
from db.database import Database, open_database
from db.ledger.images import Reference, stored_version
from db.schema import failures, images, predictions
from db.sql.rows.upsert import insert_into
from producer.enqueue import enqueue
from producer.queue.broker import TASK_NAME, create_app, queue_name
from producer.queue.chunks import sending

CHUNK = 256
AT_ONCE = 2_000
UNLIMITED = 10**9
_, FILE_BYTES, *_ = synthetic.FACTS

NEW, PENDING, DONE = "new", "known, pending", "known, done"


@dataclass(frozen=True)
class Job:
    """Arguments of a process."""

    way: str
    url: str
    """Of the database."""
    broker: str
    model_id: int
    references: int


@dataclass(frozen=True)
class Run:
    """Measurements of a process."""

    sent: int
    seconds: float
    cpu: float
    """Seconds."""
    peak: int
    """Bytes, of memory."""


def references(number: int) -> Iterator[Reference]:
    """So many references, with versions as long as an ETag."""
    for one in range(number):
        yield Reference(synthetic.uri(one), f"{one:032x}", FILE_BYTES)


# ── the ways ──


def ours(job: Job, database: Database, app: Celery) -> int:
    """As `tagonce enqueue`."""
    with sending(app, job.model_id, max_waiting=UNLIMITED) as sender:
        return enqueue(database, sender, references(job.references), model_id=job.model_id, chunk_size=CHUNK).sent


def rows(job: Job, database: Database, app: Celery) -> int:
    """With a dictionary for each row, and a parameter for each value."""
    sent = 0
    for chunk in batched(_pending_rows(job, database), CHUNK):
        app.send_task(TASK_NAME, kwargs={"model_id": job.model_id, "image_ids": chunk}, queue=queue_name(job.model_id))
        sent += len(chunk)
    return sent


def _pending_rows(job: Job, database: Database) -> Iterator[int]:
    predicted = and_(predictions.c.model_id == job.model_id, predictions.c.image_id == images.c.id)
    failed = and_(failures.c.model_id == job.model_id, failures.c.image_id == images.c.id)
    pending = (
        select(images.c.id)
        .select_from(images.outerjoin(predictions, predicted).outerjoin(failures, failed))
        .where(
            or_(predictions.c.image_id.is_(None), predictions.c.image_version != images.c.version),
            or_(failures.c.image_id.is_(None), failures.c.image_version != images.c.version),
        )
    )
    for batch in batched(references(job.references), AT_ONCE):
        with database.write() as connection:
            insert = insert_into(connection, images)
            connection.execute(
                insert.on_conflict_do_update(
                    index_elements=["uri"],
                    set_={"version": insert.excluded.version, "bytes": insert.excluded.bytes},
                    where=images.c.version != insert.excluded.version,
                ),
                [
                    {
                        "uri": one.uri,
                        "version": stored_version(one.version),
                        "bytes": one.bytes,
                        "added_at": datetime.now(UTC),
                    }
                    for one in batch
                ],
            )
            ids = connection.scalars(pending.where(images.c.uri.in_([one.uri for one in batch]))).all()
        yield from ids


def urls(job: Job, _database: Database, app: Celery) -> int:
    """As in Celery's tutorial."""

    @app.task(name=TASK_NAME)
    def tag(uri: str) -> None:
        raise NotImplementedError(uri)

    for one in references(job.references):
        tag.apply_async((one.uri,), queue=queue_name(job.model_id))
    return job.references


WAYS: dict[str, tuple[str, Callable[[Job, Database, Celery], int]]] = {
    "postgresql": ("tagonce, PostgreSQL", ours),
    "sqlite": ("tagonce, SQLite", ours),
    "rows": ("SQLAlchemy by rows, PostgreSQL", rows),
    "urls": ("Celery, a message a URL", urls),
}


# ── measuring ──


def work(job: Job, answer: Connection) -> None:
    """In a process of its own."""
    database = Database(job.url)
    app = create_app(job.broker, job.model_id)
    with database.read(), app.connection_for_write() as connection:
        connection.ensure_connection()
    begun, cpu = time.perf_counter(), time.process_time()
    sent = WAYS[job.way][1](job, database, app)
    answer.send(Run(sent, time.perf_counter() - begun, time.process_time() - cpu, _peak()))


def _peak() -> int:
    """Peak memory of this process alone. That of `getrusage` is at least the peak of the parent process."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    return int(found[1]) * 1024 if found else 0


def run(job: Job) -> Run:
    """Run a job in a new process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(job, sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise SystemExit(f"{job.way} failed.") from None
    finally:
        process.join()


def finish(database: Database, model_id: int) -> None:
    """Give every image a prediction."""
    columns, values = ("", "")
    if database.dialect == "postgresql":
        columns, values = ", tag_ids, scores", ", '{1}', '{9000}'"
    with database.write() as connection:
        connection.exec_driver_sql(
            f"insert into predictions (model_id, image_id, image_version, predicted_at{columns}) "
            f"select {model_id}, id, version, added_at{values} from images"
        )


def measure(way: str, number: int, postgresql: services.Server, queue: services.Server, folder: Path) -> dict[str, str]:
    """Measure one way; returns the cells of its column."""
    name = f"b{uuid.uuid4().hex}"
    if way == "sqlite":
        url = f"sqlite:///{folder / name}.db"
    else:
        with psycopg.connect(postgresql.url, autocommit=True) as connection:
            connection.execute(f"create database {name}")
        url = postgresql.url.replace("/postgres?", f"/{name}?")
    database = open_database(url)
    model = synthetic.register(database)
    cells: dict[str, str] = {}
    peak = 0
    with redis.Redis(unix_socket_path=queue.url.removeprefix("redis+socket://")) as client:
        for state in (NEW,) if way == "urls" else (NEW, PENDING, DONE):
            if state == DONE:
                finish(database, model.id)
            client.flushall()
            memory = client.info("memory")["used_memory"]
            server_cpu = services.cpu_seconds(postgresql.process)
            found = run(Job(way, url, queue.url, model.id, number))
            server_cpu = services.cpu_seconds(postgresql.process) - server_cpu
            if found.sent != (0 if state == DONE else number):
                raise SystemExit(f"{way}: {found.sent:,} of {number:,} references were sent that are {state}.")
            cells[f"{state}: references/s"] = f"{number / found.seconds:,.0f}"
            cells[f"{state}: CPU a reference"] = f"{found.cpu / number * 1e6:.1f} µs" + (
                f" + {server_cpu / number * 1e6:.1f} µs" if way in {"postgresql", "rows"} else ""
            )
            if state == NEW:
                queued = (client.info("memory")["used_memory"] - memory) / number
                cells["Redis for a million"] = f"{queued:,.0f} MB"
            peak = max(peak, found.peak)
            print(f"{way}, {state}: {cells[f'{state}: references/s']} references/s", file=sys.stderr, flush=True)
    cells["peak memory of the producer"] = f"{peak / 1e6:,.0f} MB"
    database.close()
    return cells


def main() -> None:
    """Every way, one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--references", type=int, default=200_000)
    parser.add_argument("--ways", default=",".join(WAYS))
    options = parser.parse_args()
    ways = options.ways.split(",")
    with services.postgresql() as postgresql, services.redis() as queue, tempfile.TemporaryDirectory() as folder:
        columns = [measure(way, options.references, postgresql, queue, Path(folder)) for way in ways]
    table = Table("", title=f"{options.references:,} references", title_justify="left")
    for way in ways:
        table.add_column(WAYS[way][0], justify="right")
    for row in dict.fromkeys(row for column in columns for row in column):
        table.add_row(row, *(column.get(row, "") for column in columns))
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
