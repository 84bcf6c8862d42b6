"""Hugging Face `datasets` loads the files of `--format imagefolder`: images with their captions."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from db.database import open_database
from db.ledger import images, models, results
from db.ledger.models import Tag
from db.ledger.results import Prediction
from db.scores import Scores
from producer.sources import references
from tests.fixtures.command import Outcome

LOAD = """
import json, sys
from datasets import load_dataset
rows = load_dataset("imagefolder", data_dir=sys.argv[1], split="train")
json.dump([{**row, "image": row["image"].size} for row in rows], sys.stdout)
"""


def store(url: str, folder: Path, counts: Sequence[int]) -> None:
    """The images of a folder, in the order of their names, each with a given number of tags."""
    database = open_database(url)
    with database.write() as connection:
        tags = [Tag("big_cat"), Tag('"quoted", dog')]
        model = models.register(
            connection, name="m", weights_sha256="", spec={}, tag_list=tags, floor=100, default_threshold=3500
        )
        found = sorted(references(str(folder)), key=lambda one: one.uri)
        for image_id, kept in zip(images.register(connection, found, model.id), counts, strict=True):
            scores = Scores(np.arange(kept, dtype=np.int16), np.array([5000, 9000], np.int16)[:kept])
            version = images.pending_among(connection, [image_id], model.id)[0].version
            done = Prediction(image_id, version, 1, 48, 40, "jpeg", bytes(32), scores)
            results.save(connection, model.id, [done], [])
    database.close()


def test_datasets_loads_an_imagefolder(
    invoke: Callable[..., Outcome], make_photos: Callable[..., list[Path]], sqlite_url: str, tmp_path: Path
) -> None:
    """The first image keeps both tags, the second one tag, the third none. One image is in a subfolder."""
    folder = tmp_path / "photos"
    make_photos(2)
    make_photos(1, folder / "more", size=(30, 20))
    store(sqlite_url, folder, (2, 1, 0))
    exported = invoke("export", "-f", "imagefolder", "--out", folder, "--database", sqlite_url)
    assert exported.code == 0, exported.err
    loaded = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD, folder],
        env={"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    rows = sorted(json.loads(loaded.stdout), key=lambda row: -len(row["tags"]))
    assert [row["text"] for row in rows] == ['"quoted", dog, big cat', "big cat", ""]
    assert [row["tags"] for row in rows] == [['"quoted", dog', "big_cat"], ["big_cat"], []]
    assert [row["probabilities"] for row in rows] == [[0.9, 0.5], [0.5], []]
    assert [row["image"] for row in rows] == [[48, 40], [48, 40], [30, 20]]


LOAD_SPLITS = """
import json, sys
from datasets import load_dataset
splits = load_dataset(*sys.argv[1:2], **json.loads(sys.argv[2]))
json.dump({name: sorted(row.get("text", "-") for row in rows) for name, rows in splits.items()}, sys.stdout)
"""


@pytest.mark.parametrize(
    ("names", "how", "expected"),
    [
        (("test/b.png", "train/a.png", "train/c.png"), "imagefolder", {"test": [0], "train": [1, 2]}),
        (("train/b.png", "x dev/a.png", "x dev/c.png"), "imagefolder", {"train": [0], "validation": [1, 2]}),
        (("a/train.png", "a/b.png", "b.png"), "folder", {"train": [0, 1, 2]}),
        (("a/train.png", "a/b.png", "b.png"), "data_files", {"train": [0, 1, 2]}),
    ],
)
def test_datasets_loads_the_captions_of_folders_and_pictures_that_are_called_like_splits(
    invoke: Callable[..., Outcome],
    make_photos: Callable[..., list[Path]],
    sqlite_url: str,
    tmp_path: Path,
    names: tuple[str, ...],
    how: str,
    expected: dict[str, list[int]],
) -> None:
    """Parameters: names of images; for each split the positions of its images, with captions."""
    folder = tmp_path / "photos"
    for name, photo in zip(names, make_photos(len(names), tmp_path / "made"), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        photo.rename((folder / name).with_suffix(photo.suffix))
    store(sqlite_url, folder, (2, 1, 0))
    exported = invoke("export", "-f", "imagefolder", "--out", folder, "--database", sqlite_url)
    assert exported.code == 0, exported.err
    given = {
        "imagefolder": ("imagefolder", {"data_dir": str(folder)}),
        "folder": (str(folder), {}),
        "data_files": ("imagefolder", {"data_dir": str(folder), "data_files": {"train": "**"}}),
    }
    loaded = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD_SPLITS, given[how][0], json.dumps(given[how][1])],
        env={"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    captions = ['"quoted", dog, big cat', "big cat", ""]
    assert json.loads(loaded.stdout) == {
        split: sorted(captions[place] for place in places) for split, places in expected.items()
    }
