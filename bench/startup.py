"""CPU seconds of short commands, most of which is importing modules: this tree beside another commit.

    python bench/startup.py [--beside HEAD~1] [--rounds 7]

Each command runs as a process of its own, the two trees in turn, and its user and system time is measured; the table
holds medians. The database is an SQLite file with a hundred images. Files of both trees are compiled in a first round
that does not count.
"""

import argparse
import io
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import synthetic
from rich.console import Console
from rich.table import Table

from db.database import open_database

ROOT = Path(__file__).parents[1]
IMAGES = 100
COMMANDS = (
    ("--version",),
    ("--help",),
    ("status", "--help"),
    ("search", "--help"),
    ("export", "--help"),
    ("status",),
    ("search", "cat"),
    ("export", "--threshold", "0.35", "--format", "jsonl"),
)


def main() -> None:
    """Run all commands in both trees, print one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--beside", default="HEAD~1", help="a commit")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, tree_of(options.beside) as other:
        fill(Path(folder))
        title = f"CPU seconds, median of {options.rounds} runs"
        table = Table("tagonce ...", options.beside, "this tree", title=title, title_justify="left")
        for command in COMMANDS:
            trees = (other, ROOT)
            _first, *runs = [
                [cpu_seconds(tree, command, folder) for tree in trees] for _round in range(options.rounds + 1)
            ]
            medians = [statistics.median(seconds) for seconds in zip(*runs, strict=True)]
            table.add_row(" ".join(command), *(f"{seconds:.2f}" for seconds in medians))
    Console(width=100).print(table)


@contextmanager
def tree_of(commit: str) -> Iterator[Path]:
    """The files of a commit, in a folder that is removed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True)
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(folder, filter="data")
        yield Path(folder)


def fill(folder: Path) -> None:
    """Make the database that the commands find in their current folder."""
    file = folder / "tagonce.db"
    database = open_database(f"sqlite:///{file}")
    synthetic.fill_sqlite(str(file), synthetic.register(database), list(synthetic.generate(IMAGES)))
    database.close()


def cpu_seconds(tree: Path, command: tuple[str, ...], folder: str) -> float:
    """User and system time of one run.

    Raises:
        CalledProcessError: the command failed.
    """
    # PYTHONPATH comes before an editable installation; -P keeps the current folder out.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TAGONCE_")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-P", "-m", "tagonce", *command],
        cwd=folder,
        env=inherited | {"PYTHONPATH": str(tree)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
