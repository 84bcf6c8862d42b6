"""Resident memory of a worker while `tagonce tag` processes many images of all sizes, sampled once a second."""

import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import ours
import psutil
from rich.console import Console
from rich.table import Table
from runs import times

SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
SECONDS = 1.0
MIB = 2**20


def watch(photos: Path, number: int) -> None:
    """Tag the folder with the demo model, and print the memory of the worker by the number of images done."""
    samples: list[tuple[int, int]] = []
    with tempfile.TemporaryDirectory(prefix="memory-", dir=photos.parent) as name:
        folder = Path(name)
        url = f"sqlite:///{folder}/tags.db"
        arguments = ["tag", str(photos), "--model", "demo", "--database", url]
        with ours.running(arguments, folder) as command:
            while command.poll() is None:
                with suppress(psutil.NoSuchProcess):
                    workers = [child for child in psutil.Process(command.pid).children() if "worker" in child.cmdline()]
                    if workers and (done := times(url)[0]):
                        samples.append((done, workers[0].memory_info().rss))
                with suppress(subprocess.TimeoutExpired):
                    command.wait(SECONDS)
        if command.returncode or times(url)[0] != number:
            raise SystemExit(f"{times(url)[0]} of {number} images have a prediction:\n{ours.log_of(folder)}")
    done, resident = np.array(samples).T
    title = f"Memory of a worker over {number:,} images of 64 to 2,000 px"
    table = Table("images done", "resident", title=title, title_justify="left", min_width=len(title))
    for share in SHARES:
        reached = min(int(np.searchsorted(done, share * number)), len(done) - 1)
        table.add_row(f"{done[reached]:,} ({share:.0%})", f"{resident[reached] / MIB:,.0f} MB")
    later = done >= SHARES[0] * number
    slope = np.polyfit(done[later], resident[later] / MIB, 1)[0] * 1_000
    table.add_row("highest", f"{resident.max() / MIB:,.0f} MB")
    table.add_row("slope from 10 % on", f"{slope:+.2f} MB per 1,000 images")
    Console(width=120).print(table)
