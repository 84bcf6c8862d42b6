"""What the image path costs a worker's process besides decoding and the network: CPU time an image.

    python bench/image_path.py [--images 6000] [--before HEAD~1]

Files are JPEGs of 16 x 16 pixels in a folder, so that decoding takes next to nothing. The network is replaced by one
that answers at once, with 191 scores an image. Everything else is real: PostgreSQL, and the threads of a worker, which
runs chunks of 64, three at a time. CPU is user and system time of the worker's process, without PostgreSQL's.
`--before` measures another commit in the same run. The runs take turns; shown is the best of three.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import services
import synthetic
from PIL import Image
from rich.console import Console
from rich.table import Table

ROUNDS = 3
CHUNK = 64
BATCH = 64
SIZE = 16


def measure(folder: Path, url: str) -> dict[str, float]:
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
    _make_instant(workers.pipeline)
    pipeline = workers.pipeline.Pipeline(database, model, _spec(), options)
    chunks = [ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK)]
    begun, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(options.concurrency) as pool:
        done = sum(report.done for report in pool.map(pipeline.run, chunks))
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    assert done == len(ids), (done, len(ids))  # noqa: S101 - a benchmark of nothing is no benchmark
    return {"cpu": 1e6 * cpu / done, "rate": done / seconds}


def _spec() -> object:
    from workers.models.spec import ModelSpec

    return ModelSpec(
        name="instant", family="timm", architecture="none", tags=(), weights=Path("none"), size=SIZE, resize="fit"
    )


def _make_instant(pipeline: ModuleType) -> None:
    import sleeping

    sleeping.Sleeper.images_per_second = 1e9
    pipeline.Inferencer = sleeping.Sleeper  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=6_000)
    parser.add_argument("--before", help="a commit to measure as well")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(Path(arguments.measure[0]), arguments.measure[1])))
        return
    here = Path(__file__).parents[1]
    trees = {"this commit": here}
    with tempfile.TemporaryDirectory(prefix="tagonce-bench-") as place:
        photos = Path(place) / "photos"
        write_photos(photos, arguments.images)
        if arguments.before:
            trees = {arguments.before: Path(place) / "before", **trees}
            subprocess.run(
                ["git", "worktree", "add", "--detach", trees[arguments.before], arguments.before], cwd=here, check=True
            )
        try:
            table = Table("commit", "CPU, µs an image", "images/s")
            for name, figures in _best(trees, photos).items():
                table.add_row(name, f"{figures['cpu']:.0f}", f"{figures['rate']:,.0f}")
        finally:
            if arguments.before:
                subprocess.run(["git", "worktree", "remove", "--force", trees[arguments.before]], cwd=here, check=True)
    Console().print(table)


def write_photos(folder: Path, number: int) -> None:
    folder.mkdir()
    noise = np.random.default_rng(0)
    for position in range(number):
        pixels = noise.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{position:06}.jpg")


def _best(trees: dict[str, Path], photos: Path) -> dict[str, dict[str, float]]:
    best: dict[str, dict[str, float]] = {}
    for _ in range(ROUNDS):
        for name, tree in trees.items():
            script = tree / "bench" / "image_path.py"
            with services.postgresql() as server:
                command = [
                    sys.executable,
                    "-P",
                    script if script.exists() else __file__,
                    "--measure",
                    photos,
                    server.url,
                ]
                # The tree first: this interpreter's own installation is of the commit here.
                path = os.pathsep.join(map(str, (tree, tree / "bench")))
                done = subprocess.run(
                    command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True
                )
            figures = json.loads(done.stdout.splitlines()[-1])
            if name not in best or figures["cpu"] < best[name]["cpu"]:
                best[name] = figures
    return best


if __name__ == "__main__":
    main()
