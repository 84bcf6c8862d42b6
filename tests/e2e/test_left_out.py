"""Files that `tag` and `predict` exclude from a folder, their messages about it, and the order of images."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.command import Outcome


@pytest.fixture
def nas(tmp_path: Path, make_photos: Callable[..., list[Path]]) -> Path:
    """Ten photographs and what a NAS and people put beside them."""
    folder = tmp_path / "nas"
    for number, photo in enumerate(make_photos(10, folder)):
        photo.rename(folder / f"{(number * 7) % 10}.jpg")  # not in the order in which they were made
    for name in ("@eaDir/0.jpg/SYNO_THUMB.jpg", "._0.jpg", "#recycle/old.jpg", "notes.txt", "9.JPG_large"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_what_is_left_out_is_said(nas: Path, jtp2_folder: Path, tagonce: Callable[..., Outcome]) -> None:
    done = tagonce("tag", nas, "--model", jtp2_folder, "--exclude", "3.jpg", "--exclude", "[45].jpg")
    assert done.code == 0, done.err
    assert "7 images tagged" in done.err
    assert "2 names passed over (no image extension: " in done.err
    assert "3 files in hidden or system folders left out; --no-default-excludes takes them" in done.err
    assert "3 files left out by --exclude" in done.err
    shown = tagonce("predict", nas, "--exclude", "3.jpg", "--json", "--model", jtp2_folder)
    names = [json.loads(line)["uri"].rpartition("/")[2] for line in shown.out.splitlines()]
    assert names == [f"{number}.jpg" for number in range(10) if number != 3]
    assert "3 files in hidden or system folders" in shown.err


def test_an_archive_is_refused_before_anything_is_made(tmp_path: Path, tagonce: Callable[..., Outcome]) -> None:
    """No database, no model."""
    (tmp_path / "photos.zip").write_bytes(b"PK")
    done = tagonce("tag", "photos.zip", "--model", "hf-hub:nobody/nothing")
    assert done.code == 1
    assert "Unpack it" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["photos.zip"]
