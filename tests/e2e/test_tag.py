"""`tagonce tag`: everything on one machine, without a server."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from db.scores import SCALE
from producer.references import file_uri
from tests.fixtures.checkpoints import TAGS
from tests.fixtures.command import Outcome

BATCH_SIZE = 8
CHUNK_SIZE = 64
"""Of `tagonce tag`."""
NOT_STORED = -1


def test_a_folder_is_tagged_once_however_it_is_pointed_at(
    tagonce: Callable[..., Outcome],
    make_photos: Callable[..., list[Path]],
    jtp2_folder: Path,
    sqlite_url: str,
    ledger: Callable[[str], Any],
    tmp_path: Path,
) -> None:
    """First all, with one broken file as one failure; then nothing; then what was touched; then what was added."""
    photos = make_photos(30)
    broken, touched = photos[7], photos[11]
    broken.write_bytes(broken.read_bytes()[:200])
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    options = ("--model", jtp2_folder, "--database", sqlite_url)
    rows = ledger(sqlite_url)

    first = tagonce("tag", "photos", *options)
    assert first.code == 0, first.err
    assert "29 images tagged" in first.err
    assert "1 failed:" in first.err
    assert "corrupt" in first.err
    assert rows.failed() == {file_uri(str(broken)): "corrupt"}
    everything = [file_uri(str(photo)) for photo in photos]
    assert rows.finished() == everything

    again = tagonce("tag", "photos", *options)
    assert again.code == 0, again.err
    assert "All 30 images were done before; nothing was sent." in again.err

    os.utime(touched, ns=(1, 1))
    after_touch = tagonce("tag", "photos", *options)
    assert after_touch.code == 0, after_touch.err
    assert "1 images tagged" in after_touch.err
    assert "29 were done before" in after_touch.err
    assert rows.finished() == everything

    make_photos(1, tmp_path / "photos" / "more")
    everything = sorted([*everything, file_uri(str(tmp_path / "photos" / "more" / "00000.jpg"))])
    after_adding = tagonce("tag", "photos", *options)
    assert after_adding.code == 0, after_adding.err
    assert "1 images tagged" in after_adding.err
    assert rows.finished() == everything

    names = [str(path.relative_to(tmp_path)) for path in sorted((tmp_path / "photos").rglob("*.jpg"))]
    (tmp_path / "list.txt").write_text("# all of them\n" + "\n".join(names))
    (tmp_path / "list.csv").write_text("who,path\n" + "\n".join(f"me,{name}" for name in names))
    listed = tagonce("tag", "list.txt", "list.csv", "-", *options, stdin="\n".join(names))
    assert listed.code == 0, listed.err
    assert "All 93 images were done before; nothing was sent." in listed.err
    assert rows.finished() == everything
    assert sorted(rows.uris()) == everything


@pytest.mark.parametrize(("kind", "floor"), [("sqlite_url", 0), ("postgres_url", 100)])
def test_scores_are_the_models_own_at_every_threshold(
    tagonce: Callable[..., Outcome],
    make_photos: Callable[..., list[Path]],
    jtp1_folder: Path,
    request: pytest.FixtureRequest,
    ledger: Callable[[str], Any],
    own_scores: Callable[..., Any],
    tmp_path: Path,
    kind: str,
    floor: int,
) -> None:
    """For every k from the floor to 10,000, `score >= k` keeps the tags whose float32 probability is >= k / 10000:
    stored is floor(p * 10000), and with a floor of 0 no tag is missing."""
    photos = make_photos(CHUNK_SIZE + 11)
    (tmp_path / "list.txt").write_text("\n".join(map(str, photos)))  # a folder's order is the file system's
    url = request.getfixturevalue(kind)
    done = tagonce(
        *("tag", "list.txt", "--model", jtp1_folder, "--database", url),
        *("--floor", floor / SCALE, "--batch-size", BATCH_SIZE),
    )
    assert done.code == 0, done.err
    rows = ledger(url)
    stored = rows.scores(len(TAGS))
    expected = own_scores(jtp1_folder, rows.uris(), chunk_size=CHUNK_SIZE, batch_size=BATCH_SIZE, floor=floor)
    assert len(stored) == CHUNK_SIZE + 11
    assert stored.keys() == expected.keys()
    for uri, scores in expected.items():
        np.testing.assert_array_equal(stored[uri], scores, err_msg=uri)
    if floor == 0:
        assert all((scores != NOT_STORED).all() for scores in stored.values())
