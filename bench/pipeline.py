"""The image path from a file to a stored row, compared with alternatives on the same images, model and machine.

    python bench/pipeline.py [--models demo,so400m] [--rows a,b,c,d,e,f,g,h] [--images 500] [--device cuda]

    a  the model alone, on tensors in memory: the upper limit
    b  a simple script: PIL, the transforms of the reference, the model, a CSV, in one process
    c  the same with torch's DataLoader, a worker process a core
    d  Ray Data's batch inference, if ray is installed
    e  `tagonce tag` on a folder: SQLite, the embedded broker
    f  `tagonce worker` and `tagonce enqueue`: PostgreSQL, Redis, the images in S3 (`static_s3.py`)
    g  as a, on ONNX Runtime: the same network, exported (`exported.py`)
    h  as e, on ONNX Runtime

images/s are measured from the loaded model to the last row written. a to d and g report both themselves
(`straight.py`); for e and h timing begins at the log line of the loaded model, for f at the first registered image,
since its worker waits for it. So the figures do not contain the start of Python, Ray, Redis and PostgreSQL, nor loading
the model, nor, for f, the first page of the listing. "Whole" contains all of these: from the start of the command (for
f, of the worker) to its end, for e, f and h to the last row.

A round runs all rows; the table shows the median of the rounds. With demo on a CPU, a to d and g run with one thread of
torch and with one a core, and the faster is shown.

The run fails if, in fp32, a row differs from the probabilities of a by more than 1e-3, or keeps other tags at 0.01 than
a (except tags within 1e-3 of 0.01). e, f and h store probabilities rounded down to ten-thousandths.

demo is EfficientNet-Lite0 at 224. so400m has the shape of JTP-1, SO400M at 384 with 9,083 tags, and random weights;
`--depth` sets its number of blocks. `--memory 20000` adds the memory of a worker over so many images of all sizes
(`memory.py`). `gpu.py` measures what a GPU does. Photographs and weights are made once, in `--folder`. Needs `pip
install --group bench`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

import exported
import memory
import numpy as np
import ours
import photos
import random_model
import torch
from rich.console import Console
from rich.table import Table
from runs import Found, Run, Setup, from_csv, from_parquet
from straight import CORES, FLOOR

from workers.inference.device import pick_device, pick_dtype
from workers.models.registry import find_model

CLOSE = 1e-3
STRAIGHT = Path(__file__).with_name("straight.py")


@dataclass
class Row:
    """A row of the table: one way, and all its runs."""

    title: str
    run: Callable[[Setup, Path, int], Run]
    """Called with an empty folder and the number of threads of torch."""
    threads: tuple[int, ...]
    """Numbers of threads of torch to run with."""
    runs: dict[int, list[Run]] = field(default_factory=dict)
    """Runs by number of threads."""

    def rate(self, threads: int) -> float:
        """Median images/s."""
        return statistics.median(run.images_per_second for run in self.runs[threads])

    @property
    def best(self) -> int:
        """The number of threads with which it is fastest."""
        return max(self.runs, key=self.rate)


def main() -> None:
    """Print a table for each model, then the optional tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", default="demo", help="demo, so400m, both with a comma, or '' for none")
    parser.add_argument("--rows", default="a,b,c,d,e,f,g,h")
    parser.add_argument("--images", type=int, help="default: 500; so400m 24, on a GPU 2,000")
    parser.add_argument("--batch-size", type=int, help="default: 8, so400m 4; on a GPU 64")
    parser.add_argument("--rounds", type=int, help="default: 3; so400m 1")
    parser.add_argument("--device", help="cpu or cuda")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "fp16", "bf16"))
    parser.add_argument("--depth", type=int, default=random_model.DEPTH, help="blocks of so400m")
    parser.add_argument("--memory", type=int, default=0, metavar="IMAGES", help="watch the memory of a worker")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/tagonce-bench"), help="photographs and weights")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for model in filter(None, options.models.split(",")):
        setup = set_up(model, options)
        rows = rows_of(setup, options.rows.split(","), options.folder)
        for number in range(options.rounds or (1 if model == "so400m" else 3)):
            one_round(setup, rows, number, options.folder)
        show(setup, rows)
    if options.memory:
        memory.watch(photos.all_sizes(options.folder, options.memory), options.memory)


def set_up(model: str, options: argparse.Namespace) -> Setup:
    """Create photographs and weights for the runs."""
    large = model == "so400m"
    name = str(random_model.so400m(options.folder, options.depth)) if large else model
    on = options.device or "cpu"
    on_gpu = pick_device(on).type == "cuda"
    images = options.images or ((2_000 if on_gpu else 24) if large else 500)
    return Setup(
        model=name,
        tags=len(find_model(name).tags),
        photos=photos.one_megapixel(options.folder, images),
        batch_size=options.batch_size or (64 if on_gpu else 4 if large else 8),
        device=on,
        precision=options.precision,
    )


def rows_of(setup: Setup, names: list[str], folder: Path) -> dict[str, Row]:
    """The rows with these names. An exported network is written to the folder."""
    tried = (CORES,) if setup.device != "cpu" or "so400m" in setup.model else (1, CORES)
    rows = {
        "a": Row("model alone, tensors in memory", alone, tried),
        "b": Row("script: PIL, torchvision, model, CSV", to_csv("script"), tried),
        "c": Row("script with DataLoader", to_csv("loader"), tried),
        "d": Row("Ray Data", ray_data, tried if find_spec("ray") else ()),
        "e": Row("tagonce tag: folder, SQLite", lambda setup, folder, _threads: ours.on_sqlite(setup, folder), (0,)),
        "f": Row("tagonce: S3, Redis, PostgreSQL", lambda setup, folder, _: ours.on_servers(setup, folder), (0,)),
    }
    if {"g", "h"} & set(names):
        on_onnx = replace(setup, model=str(exported.onnx_of(setup.model, folder)))
        rows["g"] = Row(
            "model alone, ONNX Runtime", lambda _, folder, threads: cut(alone(on_onnx, folder, threads)), tried
        )
        rows["h"] = Row("tagonce tag, ONNX Runtime", lambda _, folder, __: ours.on_sqlite(on_onnx, folder), (0,))
    return {name: rows[name] for name in names}


def one_round(setup: Setup, rows: dict[str, Row], number: int, folder: Path) -> None:
    """Run every row once, with every number of threads."""
    for row in rows.values():
        for threads in row.threads:
            with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as own:
                run = row.run(setup, Path(own), threads)
            row.runs.setdefault(threads, []).append(run)
            message = f"round {number + 1}: {row.title}: {run.images_per_second:.2f} images/s"
            print(message, f"with {threads} threads" if threads else "", file=sys.stderr, flush=True)


def straight(way: str, setup: Setup, folder: Path, threads: int, out: Path) -> tuple[dict[str, float], float]:
    """Run a way of `straight.py`; returns its report and the seconds of the whole command."""
    arguments = [way, setup.model, setup.photos, out, *setup.options, "--threads", str(threads)]
    begun = time.perf_counter()
    with (folder / "words").open("w") as words:
        done = subprocess.run(
            [sys.executable, STRAIGHT, *arguments], stdout=subprocess.PIPE, stderr=words, text=True, check=False
        )
    whole = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(f"{way} failed:\n{(folder / 'words').read_text()[-2_000:]}")
    report = json.loads(done.stdout.splitlines()[-1])
    return report, whole


def alone(setup: Setup, folder: Path, threads: int) -> Run:
    """Row a."""
    out = folder / "all.npy"
    report, whole = straight("loop", setup, folder, threads, out)
    images = report["images"]
    return Run(images / report["seconds"], whole, np.load(out), report["cpu_seconds"] / images)


def cut(run: Run) -> Run:
    """The run with the tags that the others keep."""
    return replace(run, found=np.where(run.found >= FLOOR, run.found, np.nan))


def to_csv(way: str) -> Callable[[Setup, Path, int], Run]:
    """Rows b and c."""

    def run(setup: Setup, folder: Path, threads: int) -> Run:
        out = folder / "tags.csv"
        report, whole = straight(way, setup, folder, threads, out)
        return Run(report["images"] / report["seconds"], whole, from_csv(setup, out))

    return run


def ray_data(setup: Setup, folder: Path, threads: int) -> Run:
    """Row d."""
    out = folder / "tags"
    report, whole = straight("ray", setup, folder, threads, out)
    return Run(report["images"] / report["seconds"], whole, from_parquet(setup, out))


def show(setup: Setup, rows: dict[str, Row]) -> None:
    """Print the table; fail if probabilities differ."""
    title = f"{Path(setup.model).name}, {len(setup.names):,} JPEGs of 1 megapixel, batches of {setup.batch_size}"
    table = Table("", title=title, title_justify="left")
    for column in ("images/s", "of the limit", "CPU/image", "whole", "threads", "largest difference", "other tags"):
        table.add_column(column, justify="right")
    limit = rows.get("a")
    wrong = []
    for name, row in rows.items():
        if not row.runs:
            table.add_row(f"{name}  {row.title}", "not installed")
            continue
        runs, rate = row.runs[row.best], row.rate(row.best)
        whole = statistics.median(run.whole_seconds for run in runs)
        share, agreement = "", []
        if limit:
            share = f"{rate / limit.rate(limit.best):.2f}"
        if limit and row is not limit:
            difference, others = compared(limit.runs[limit.best][0].found, runs[0].found)
            agreement = [f"{difference:.5f}", str(others)]
            if difference > CLOSE or others:
                wrong.append(row.title)
        cpu = statistics.median(run.cpu_seconds for run in runs) if runs[0].cpu_seconds else None
        threads = str(row.best) if row.best else "its own"
        table.add_row(
            f"{name}  {row.title}",
            f"{rate:,.2f}",
            share,
            f"{1000 * cpu:,.1f} ms" if cpu else "",
            f"{whole:,.1f} s",
            threads,
            *agreement,
        )
    Console(width=140).print(table)
    if wrong and pick_dtype(setup.precision, pick_device(setup.device)) == torch.float32:
        raise SystemExit(f"Other probabilities or tags than of the model alone: {', '.join(wrong)}")


def compared(exact: Found, found: Found) -> tuple[float, int]:
    """The largest difference of kept tags; the number of tags wrongly kept or dropped, except near the floor."""
    kept = ~np.isnan(found)
    difference = np.abs(found - exact)[kept].max(initial=0.0)
    others = (kept != (exact >= FLOOR)) & (np.abs(exact - FLOOR) > CLOSE)
    return float(difference), int(others.sum())


if __name__ == "__main__":
    main()
