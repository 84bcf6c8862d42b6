"""What the image path costs a worker's process besides the network: CPU time an image, and images/s.

    python bench/image_path.py [--images 6000] [--sqlite] [--megapixel] [--rate 300] [--before HEAD~1]

Files are JPEGs in a folder: of 16 x 16 pixels, which take next to nothing to decode, or photographs of a megapixel. The
network is replaced by one that answers at once, or computes `--rate` images/s, with 191 scores an image. Everything
else is real: PostgreSQL or SQLite, and the threads of a worker, which runs chunks of 256, three at a time. CPU is user
and system time of the worker's process, without PostgreSQL's. `--before` measures another commit in the same run. The
runs take turns; shown is the best of three. The last row reads and decodes the files and does nothing else.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import services
import synthetic
from PIL import Image
from rich.console import Console
from rich.table import Table

ROUNDS = 3
CHUNK = 256
BATCH = 64
SIDE = 16
"""Of small files, in pixels."""
MODEL_SIDE = 384
"""Of the network's input, for photographs."""
INSTANT = 1e9
"""images/s."""
DRAWN = 60
"""Photographs that are drawn; the others are copies with another comment."""
ALONE = "decoding alone"


def measure(folder: Path, url: str, *, rate: float = INSTANT, side: int = SIDE) -> dict[str, float]:
    """In this process: microseconds of CPU an image, and images/s."""
    import workers.pipeline
    from db.database import open_database
    from db.ledger import images, models
    from producer.sources import references
    from workers.options import Options

    database = open_database(url)
    with database.write() as connection:
        model = models.register(
            connection,
            name="instant",
            weights_sha256="0" * 64,
            spec={},
            tag_list=[models.Tag(f"tag_{number}") for number in range(synthetic.TAGS)],
            floor=synthetic.FLOOR,
            default_threshold=synthetic.DEFAULT_THRESHOLD,
        )
        ids = images.register(connection, list(references(str(folder))), model.id)
    options = Options(batch_size=BATCH, concurrency=3)
    _replace_network(workers.pipeline, rate)
    pipeline = workers.pipeline.Pipeline(database, model, _spec(side), options)
    chunks = [ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK)]
    with ThreadPoolExecutor(options.concurrency) as pool:
        return _timed(len(ids), lambda: sum(report.done for report in pool.map(pipeline.run, chunks)))


def decode_alone(folder: Path, side: int) -> dict[str, float]:
    """As `measure`: files are read and decoded by one thread per core."""
    from workers.cpus import cores
    from workers.images.decode import Decoder

    decoder, paths, threads = Decoder(_spec(side), 1 << 28), sorted(folder.iterdir()), cores()

    def decode(start: int) -> int:
        return len([decoder.decode(path.read_bytes()) for path in paths[start::threads]])

    with ThreadPoolExecutor(threads) as pool:
        return _timed(len(paths), lambda: sum(pool.map(decode, range(threads))))


def _timed(images: int, run: Callable[[], int]) -> dict[str, float]:
    begun, cpu = time.perf_counter(), time.process_time()
    done = run()
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    assert done == images, (done, images)  # noqa: S101 - a benchmark of nothing is no benchmark
    return {"cpu": 1e6 * cpu / done, "rate": done / seconds}


def _spec(side: int) -> object:
    from workers.models.spec import ModelSpec

    return ModelSpec(
        name="instant", family="timm", architecture="none", tags=(), weights=Path("none"), size=side, resize="fit"
    )


def _replace_network(pipeline: ModuleType, rate: float) -> None:
    import sleeping

    sleeping.Sleeper.images_per_second = rate
    pipeline.Inferencer = sleeping.Sleeper  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=6_000)
    parser.add_argument("--sqlite", action="store_true", help="an SQLite file, not PostgreSQL")
    parser.add_argument("--megapixel", action="store_true")
    parser.add_argument("--rate", type=float, default=INSTANT, help="images/s of the network")
    parser.add_argument("--before", help="a commit to measure as well")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        folder, url = Path(arguments.measure[0]), arguments.measure[1]
        side = MODEL_SIDE if arguments.megapixel else SIDE
        figures = measure(folder, url, rate=arguments.rate, side=side) if url else decode_alone(folder, side)
        print(json.dumps(figures))
        return
    here = Path(__file__).parents[1]
    trees = {"this commit": here}
    with tempfile.TemporaryDirectory(prefix="tagonce-bench-") as place:
        photos = _photos(Path(place), arguments.images, megapixel=arguments.megapixel)
        given = ["--rate", str(arguments.rate), *(["--megapixel"] if arguments.megapixel else [])]
        if arguments.before:
            trees = {arguments.before: Path(place) / "before", **trees}
            subprocess.run(
                ["git", "worktree", "add", "--detach", trees[arguments.before], arguments.before], cwd=here, check=True
            )
        try:
            table = Table("", "CPU, µs an image", "images/s")
            for name, figures in _best(trees, photos, given, sqlite=arguments.sqlite).items():
                table.add_row(name, f"{figures['cpu']:,.0f}", f"{figures['rate']:,.0f}")
        finally:
            if arguments.before:
                subprocess.run(["git", "worktree", "remove", "--force", trees[arguments.before]], cwd=here, check=True)
    Console().print(table)


def _photos(place: Path, number: int, *, megapixel: bool) -> Path:
    if megapixel:
        import photos

        photos.with_copies(place, number, DRAWN)
        return photos.copies_folder(place, number)
    write_photos(place / "photos", number)
    return place / "photos"


def write_photos(folder: Path, number: int) -> None:
    """JPEGs of 16 x 16 pixels, each another one."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    for position in range(number):
        pixels = noise.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{position:06}.jpg")


def _best(trees: dict[str, Path], photos: Path, given: list[str], *, sqlite: bool) -> dict[str, dict[str, float]]:
    best: dict[str, dict[str, float]] = {}
    for _ in range(ROUNDS):
        for name, tree in trees.items():
            with _sqlite_url() if sqlite else _postgresql_url() as url:
                figures = _measured(tree, [photos, url, *given])
            if name not in best or figures["cpu"] < best[name]["cpu"]:
                best[name] = figures
    return best | {ALONE: _measured(Path(__file__).parents[1], [photos, "", *given])}


@contextmanager
def _postgresql_url() -> Iterator[str]:
    with services.postgresql() as server:
        yield server.url


@contextmanager
def _sqlite_url() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="tagonce-bench-") as place:
        yield f"sqlite:///{place}/tags.db"


def _measured(tree: Path, arguments: list[str | Path]) -> dict[str, float]:
    # The tree first: this interpreter's own installation is of the commit here. This script, also for another commit.
    path = os.pathsep.join(map(str, (tree, tree / "bench")))
    command = [sys.executable, "-P", __file__, "--measure", *arguments]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


if __name__ == "__main__":
    main()
