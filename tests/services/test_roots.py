"""A worker reads only files and objects below TAGONCE_ROOTS, whatever the database lists."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from db.errors import ImageError, Reason, SettingsError
from db.names.uris import file_uri
from producer.storage.s3_client import s3_client
from workers.storage.fetch import Fetcher
from workers.storage.roots import Roots

INSIDE, OUTSIDE = b"an image", b"the password file"
SECONDS_OF_SWAPPING = 1.0


def fetcher(*roots: str) -> Fetcher:
    return Fetcher(max_bytes=1_000, connections=1, roots=Roots(roots))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of images with a secret file beside it."""
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(INSIDE)
    (tmp_path / "secret").write_bytes(OUTSIDE)
    (tmp_path / "images-2").mkdir()
    (tmp_path / "images-2" / "a.jpg").write_bytes(OUTSIDE)
    return folder


def denied(reader: Fetcher, uri: str) -> None:
    with pytest.raises(ImageError, match="outside of TAGONCE_ROOTS") as caught:
        reader.fetch(uri)
    assert caught.value.reason is Reason.DENIED


def test_a_file_below_a_root_is_read_and_no_other(root: Path) -> None:
    """`..`, a folder whose name begins with that of the root, and S3 are all refused."""
    reader = fetcher("s3://elsewhere/x", str(root))
    assert reader.fetch(file_uri(f"{root}/a.jpg")) == INSIDE
    assert reader.fetch(file_uri(f"{root}/../images/a.jpg")) == INSIDE
    for path in (f"{root}/../secret", f"{root}-2/a.jpg", "/etc/passwd", "/proc/self/environ", f"{root.parent}/gone"):
        denied(reader, file_uri(path))
    denied(reader, "s3://images/a.jpg")


def test_links_lead_out_of_no_root(root: Path) -> None:
    (root / "file.jpg").symlink_to(root.parent / "secret")
    (root / "folder").symlink_to(root.parent)
    (root / "inside.jpg").symlink_to(root / "a.jpg")
    reader = fetcher(file_uri(str(root)))
    denied(reader, file_uri(f"{root}/file.jpg"))
    denied(reader, file_uri(f"{root}/folder/secret"))
    assert reader.fetch(file_uri(f"{root}/inside.jpg")) == INSIDE


def test_a_root_may_be_a_link_itself(root: Path) -> None:
    (root.parent / "mounted").symlink_to(root)
    reader = fetcher(f"{root.parent}/mounted")
    assert reader.fetch(file_uri(f"{root.parent}/mounted/a.jpg")) == INSIDE


def test_a_link_that_changes_while_it_is_read_leads_nowhere_either(root: Path) -> None:
    """Between the check of a path and its opening, another process may put a link there."""
    path, swapped = root / "now.jpg", root / "new"
    path.write_bytes(INSIDE)
    reader, seen = fetcher(str(root)), set()

    with swapping(path, swapped, root.parent / "secret") as ended:
        while not ended.is_set():
            try:
                seen.add(reader.fetch(file_uri(str(path))))
            except ImageError as error:
                assert error.reason is Reason.DENIED  # noqa: PT017 - both outcomes are right, and both should occur
                seen.add(b"denied")
    assert seen == {INSIDE, b"denied"}


@contextmanager
def swapping(path: Path, other: Path, target: Path) -> Iterator[threading.Event]:
    """Replace a file by a link and back, as fast as possible. Yields an event of its end."""
    ended = threading.Event()
    timer = threading.Timer(SECONDS_OF_SWAPPING, ended.set)

    def swap() -> None:
        while not ended.is_set():
            other.symlink_to(target)
            os.replace(other, path)  # noqa: PTH105 - as `other.symlink_to` above: what counts is the system call
            other.write_bytes(INSIDE)
            os.replace(other, path)  # noqa: PTH105

    thread = threading.Thread(target=swap)
    timer.start()
    thread.start()
    yield ended
    thread.join()


def test_an_object_below_a_root_is_read_and_no_other(bucket: str) -> None:
    """No object of other buckets, and none by a key with `..`, which a proxy may normalise before S3 sees it."""
    client = s3_client()
    for key in ("photos/a.jpg", "photos-2/a.jpg", "photos/../other/a.jpg"):
        client.put_object(Bucket=bucket, Key=key, Body=INSIDE)
    client.close()
    reader = fetcher(f"s3://{bucket}/photos")
    assert reader.fetch(f"s3://{bucket}/photos/a.jpg") == INSIDE
    for uri in (
        f"s3://{bucket}/photos-2/a.jpg",
        f"s3://{bucket}/photos/../other/a.jpg",
        f"s3://{bucket}-2/photos/a.jpg",
    ):
        denied(reader, uri)
    denied(reader, "file:///etc/passwd")
    assert fetcher(f"s3://{bucket}").fetch(f"s3://{bucket}/photos-2/a.jpg") == INSIDE


def test_without_roots_everything_is_read(root: Path) -> None:
    assert fetcher().fetch(file_uri(f"{root.parent}/secret")) == OUTSIDE


@pytest.mark.parametrize("root", ["images", "http://host/images", "C:\\images", "~/images"])
def test_a_root_that_is_no_place_is_refused(root: str) -> None:
    with pytest.raises(SettingsError, match="TAGONCE_ROOTS holds"):
        Roots([root])
