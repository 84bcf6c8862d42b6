"""CPU milliseconds to decode and resize a file, by format and size: this tree, another commit, and Pillow alone.

    python bench/decode.py [--before HEAD~1] [--rounds 3] [--sizes 0,1,4]

Files are one photograph of 4:3 with grain, of so many megapixels, in every format; 0 are files of 16 x 16 pixels. Each
tree runs in a process of its own, the trees in turn, and a file is decoded several times in each. Shown is the lowest
CPU time of the thread, for JTP's preprocessing at 384 without its enlargement of small images. `Pillow` opens and loads
the file, without a resize. The pixels of both trees are compared: a difference ends the benchmark.
"""

import argparse
import dataclasses
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
SIDE = 16
FEWEST, MOST, SECONDS = 3, 500, 0.3
"""Bounds of the repeats of a step in one process, and seconds after which it is not repeated again."""
KINDS = {
    "jpeg": ("RGB", {"format": "jpeg", "quality": 90}),
    "jpeg, progressive": ("RGB", {"format": "jpeg", "quality": 90, "progressive": True}),
    "jpeg, grey": ("L", {"format": "jpeg", "quality": 90}),
    "png": ("RGB", {"format": "png"}),
    "png, alpha": ("RGBA", {"format": "png"}),
    "webp": ("RGB", {"format": "webp", "quality": 90, "method": 0}),
    "webp, alpha": ("RGBA", {"format": "webp", "quality": 90, "method": 0}),
}


def main() -> None:
    """Write the files, measure all trees, print one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--before", help="a commit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", default="0,1,4", help="in megapixels")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(Path(options.measure))))
        return
    from startup import tree_of

    with tempfile.TemporaryDirectory() as place, tree_of(options.before) if options.before else nullcontext() as other:
        names = write_files(Path(place), [float(size) for size in options.sizes.split(",")])
        trees = {"this tree": ROOT} if other is None else {options.before: other, "this tree": ROOT}
        found = best({name: run_in(tree, place) for name, tree in trees.items()} for _round in range(options.rounds))
    table = Table("megapixels", "format", title="CPU milliseconds an image, on one core", title_justify="left")
    for column in ("Pillow", *trees):
        table.add_column(column, justify="right")
    for file, (size, kind) in names.items():
        pillow = min(figures[file]["pillow"] for figures in found.values())
        if len({figures[file]["pixels"] for figures in found.values()}) > 1:
            raise SystemExit(f"{kind} of {size} megapixels: the trees give different pixels")
        table.add_row(size, kind, f"{pillow:.3g}", *(f"{figures[file]['ours']:.3g}" for figures in found.values()))
    Console(width=100).print(table)


def write_files(folder: Path, sizes: list[float]) -> dict[str, tuple[str, str]]:
    """Write every kind in every size. Returns size and kind by the name of the file."""
    from PIL import Image
    from preprocess import enlarged, photograph

    names = {}
    for megapixels in sizes:
        width = round((megapixels * 1e6 * 4 / 3) ** 0.5) or SIDE
        image = enlarged(photograph("coffee.png"), width, round(width * 3 / 4) if megapixels else SIDE)
        for kind, (mode, saving) in KINDS.items():
            made = image.convert(mode)
            if mode == "RGBA":
                made.putalpha(Image.linear_gradient("L").resize(made.size))
            name = f"{len(names):03}"
            made.save(folder / name, **saving)
            names[name] = f"{megapixels:g}" if megapixels else f"{SIDE} x {SIDE}", kind
    return names


def measure(folder: Path) -> dict[str, dict[str, float | str]]:
    """In this process: milliseconds of each file, and a digest of its pixels."""
    from PIL import Image
    from preprocess import SPECS

    from workers.images.decode import Decoder

    decoder = Decoder(dataclasses.replace(SPECS["jtp"], grow=False), 50_000_000)

    def one(data: bytes) -> dict[str, float | str]:
        pixels = decoder.decode(data).pixels
        return {
            "ours": lowest(lambda: decoder.decode(data)),
            "pillow": lowest(lambda: Image.open(io.BytesIO(data)).load()),
            "pixels": hashlib.sha256(pixels.tobytes()).hexdigest(),
        }

    return {path.name: one(path.read_bytes()) for path in sorted(folder.iterdir())}


def lowest(step: Callable[[], object]) -> float:
    """CPU milliseconds of this thread, the least of several repeats."""
    times: list[float] = []
    begun = time.thread_time()
    while len(times) < FEWEST or (len(times) < MOST and time.thread_time() - begun < SECONDS):
        start = time.thread_time()
        step()
        times.append(1000 * (time.thread_time() - start))
    return min(times)


def run_in(tree: Path, folder: str) -> dict[str, dict[str, float | str]]:
    """Measure a tree in a process of its own."""
    # PYTHONPATH comes before an editable installation; -P keeps the current folder out.
    path = os.pathsep.join(map(str, (tree, tree / "bench")))
    command = [sys.executable, "-P", __file__, "--measure", folder]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, check=True)
    found: dict[str, dict[str, float | str]] = json.loads(done.stdout)
    return found


def best(
    rounds: Iterator[dict[str, dict[str, dict[str, float | str]]]],
) -> dict[str, dict[str, dict[str, float | str]]]:
    """The lowest figure of each tree, file and step; digests are those of the first round."""
    found = next(rounds)
    for trees in rounds:
        for tree, files in trees.items():
            for file, figures in files.items():
                for step in ("ours", "pillow"):
                    found[tree][file][step] = min(found[tree][file][step], figures[step])
    return found


if __name__ == "__main__":
    main()
