"""What ships: the built wheel, away from the checkout, holds all that the program reads at run time."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("db", "producer", "tagonce", "workers")


def test_the_wheel_runs_without_the_checkout(tmp_path: Path) -> None:
    """Migrations, the demo's tag list and the type markers are in it; a database is made with it."""
    source = tmp_path / "source"  # a build writes beside what it builds
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == set(PACKAGES)
    assert {"workers/models/wordnet_tags.json", "db/py.typed", "tagonce/py.typed"} <= names
    script = (
        "import db, sys; from db.database import open_database; from workers.models.demo import demo_spec\n"
        "assert db.__file__.startswith(sys.argv[1]), db.__file__\n"
        "open_database(sys.argv[2]).close(); assert len(demo_spec().tags) == 1334"
    )
    subprocess.run(
        [sys.executable, "-P", "-c", script, tmp_path / "site", f"sqlite:///{tmp_path / 'tags.db'}"],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        check=True,
    )
