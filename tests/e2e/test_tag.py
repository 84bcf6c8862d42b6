"""`tagonce tag`: everything on one machine, without a server."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from db.names.uris import file_uri
from tests.e2e.ledger import NOT_STORED, Ledger
from tests.e2e.reference import own_scores
from tests.fixtures.checkpoints import TAGS
from tests.fixtures.command import Outcome

BATCH_SIZE = 8
CHUNK_SIZE = 64
"""Of `tagonce tag`."""


def test_a_folder_is_tagged_once_however_it_is_pointed_at(
    tagonce: Callable[..., Outcome],
    tagonce_script: Callable[..., Outcome],
    make_photos: Callable[..., list[Path]],
    jtp2_folder: Path,
    sqlite_url: str,
    tmp_path: Path,
) -> None:
    """First all, with one broken file as one failure; then nothing; then what was touched and what was added."""
    photos = make_photos(30)
    broken, touched = photos[7], photos[11]
    broken.write_bytes(broken.read_bytes()[:200])
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    options = ("--model", jtp2_folder, "--database", sqlite_url)
    rows = Ledger(sqlite_url)

    first = tagonce_script("tag", "photos", *options, TAGONCE_UPDATE_INDEX="false")
    assert first.code == 0, first.err
    assert "29 images tagged" in first.err
    assert "1 failed:" in first.err
    assert "corrupt" in first.err
    assert rows.failed() == {file_uri(str(broken)): "corrupt"}
    everything = [file_uri(str(photo)) for photo in photos]
    assert rows.finished() == everything
    assert rows.changed_blocks()

    again = tagonce("tag", "photos", *options)
    assert again.code == 0, again.err
    assert "Nothing to tag: 30 images, all with a result." in again.err
    assert not rows.changed_blocks()

    os.utime(touched, ns=(1, 1))
    added = make_photos(1, tmp_path / "photos" / "more")[0]
    everything = sorted([*everything, file_uri(str(added))])
    changed = tagonce("tag", "photos", *options)
    assert changed.code == 0, changed.err
    assert "2 images tagged" in changed.err
    assert "29 already had a result" in changed.err
    assert rows.finished() == everything

    names = [str(path.relative_to(tmp_path)) for path in sorted((tmp_path / "photos").rglob("*.jpg"))]
    (tmp_path / "list.txt").write_text("# all of them\n" + "\n".join(names))
    (tmp_path / "list.csv").write_text("who,path\n" + "\n".join(f"me,{name}" for name in names))
    listed = tagonce("tag", "list.txt", "list.csv", "-", *options, stdin="\n".join(names))
    assert listed.code == 0, listed.err
    assert "Nothing to tag: 93 images, all with a result." in listed.err
    assert rows.finished() == everything
    assert sorted(rows.uris()) == everything


def test_scores_are_the_models_own_at_every_threshold(
    tagonce: Callable[..., Outcome],
    make_photos: Callable[..., list[Path]],
    jtp1_folder: Path,
    postgres_url: str,
    tmp_path: Path,
) -> None:
    """For every k from 0 to 10,000, `score >= k` keeps the tags whose float32 probability is >= k / 10000: stored is
    floor(p * 10000), and with a floor of 0 no tag is missing. (On SQLite: `test_demo_model`, with a floor.)
    """
    photos = make_photos(CHUNK_SIZE + 11)
    (tmp_path / "list.txt").write_text("\n".join(map(str, photos)))  # a folder's order is the file system's
    options = ("--model", jtp1_folder, "--database", postgres_url, "--floor", "0", "--batch-size", BATCH_SIZE)
    done = tagonce("tag", "list.txt", *options)
    assert done.code == 0, done.err
    rows = Ledger(postgres_url)
    stored = rows.scores(len(TAGS))
    expected = own_scores(jtp1_folder, rows.uris(), chunk_size=CHUNK_SIZE, batch_size=BATCH_SIZE)
    assert len(stored) == CHUNK_SIZE + 11
    assert stored.keys() == expected.keys()
    for uri, scores in expected.items():
        assert (stored[uri] != NOT_STORED).all()
        np.testing.assert_array_equal(stored[uri], scores, err_msg=uri)
