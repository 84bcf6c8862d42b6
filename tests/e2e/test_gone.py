"""`tagonce tag` on a folder that changes: what is deleted is left out, what is moved keeps its scores."""

import shutil
from collections.abc import Callable
from pathlib import Path

from db.names.uris import file_uri
from tests.e2e.ledger import Ledger
from tests.fixtures.command import Outcome


def test_what_is_deleted_is_left_out_and_what_is_moved_is_known(
    tagonce: Callable[..., Outcome],
    make_photos: Callable[..., list[Path]],
    jtp2_folder: Path,
    sqlite_url: str,
    tmp_path: Path,
) -> None:
    photos = make_photos(6)
    options = ("--model", jtp2_folder, "--database", sqlite_url)
    assert tagonce("tag", "photos", *options).code == 0
    photos[0].unlink()
    moved = photos[1].rename(tmp_path / "photos" / "moved.jpg")

    kept = tagonce("tag", "photos", "--gone", "keep", *options)
    assert (kept.code, "gone" in kept.err) == (0, False), kept.err
    marked = tagonce("tag", "photos", *options)
    assert (marked.code, "2 images are gone" in marked.err) == (0, True), marked.err
    written = tagonce("export", "--threshold", "0.05", "--database", sqlite_url)
    assert "5 captions written beside the images" in written.err
    captions = {path.stem for path in (tmp_path / "photos").glob("*.txt")}
    assert captions == {path.stem for path in [*photos[2:], moved]}
    rows = Ledger(sqlite_url)
    assert set(rows.finished()) == {file_uri(str(path)) for path in [*photos, moved]}

    # The folder is empty, or is gone: nothing is marked, and that is an error.
    for path in [*photos[2:], moved]:
        path.rename(tmp_path / path.name)
    for _ in range(2):
        away = tagonce("tag", "photos", *options)
        assert away.code == 1
        shutil.rmtree(tmp_path / "photos", ignore_errors=True)
    status = tagonce("status", "--json", "--database", sqlite_url).json
    assert (status["images"], status["gone"]) == (5, 2)

    # One of five is back: too few to believe, unless one says so.
    folder = tmp_path / "photos"
    folder.mkdir()
    (tmp_path / photos[2].name).rename(photos[2])
    doubted = tagonce("tag", "photos", *options)
    assert (doubted.code, "more than half" in doubted.err) == (0, True), doubted.err
    refused = tagonce("tag", "photos", "--gone", "mark", *options)
    assert (refused.code, "Nothing was marked in" in refused.err) == (1, True)
    sure = tagonce("tag", "photos", "--gone", "mark", "--yes", *options)
    assert (sure.code, "4 images are gone" in sure.err) == (0, True), sure.err
    forgotten = tagonce("forget", "--gone", "--yes", "--database", sqlite_url)
    assert (forgotten.code, "6 images deleted" in forgotten.err) == (0, True), forgotten.err
    assert set(rows.finished()) == {file_uri(str(photos[2]))}


def test_a_list_says_nothing_of_what_it_does_not_name(
    tagonce: Callable[..., Outcome], sqlite_url: str, tmp_path: Path, jtp2_folder: Path
) -> None:
    (tmp_path / "list.txt").write_text("a.jpg\n")
    refused = tagonce("tag", "list.txt", "--gone", "mark", "--model", jtp2_folder, "--database", sqlite_url)
    assert (refused.code, "A list does not show what is gone" in refused.err) == (2, True), refused.err
    unclear = tagonce("tag", "list.txt", "--yes", "--model", jtp2_folder, "--database", sqlite_url)
    assert (unclear.code, "--yes needs --gone mark" in unclear.err) == (2, True)
