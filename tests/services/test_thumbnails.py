"""Thumbnails of objects in S3: read like workers do, within TAGONCE_ROOTS. Failures of an outage are not cached."""

import io
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import stamina
from PIL import Image

from db.errors import ImageError, Reason, SettingsError, TransientError
from producer.storage.s3_client import s3_client
from tagonce.web.pictures.thumbnails import Thumbnails
from tests.fixtures import hostile
from tests.fixtures.hostile import picture, saved
from workers.storage import s3

SIZE = (hostile.WIDTH, hostile.HEIGHT)


def new(folder: Path, *roots: str) -> Thumbnails:
    return Thumbnails(folder, max_bytes=1 << 20, max_pixels=1_000_000, roots=roots)


def put(bucket: str, key: str, data: bytes) -> str:
    return put_all(bucket, {key: data})[0]


def put_all(bucket: str, files: dict[str, bytes]) -> list[str]:
    """Store objects in the bucket. Returns their uris."""
    client = s3_client()
    for key, data in files.items():
        client.put_object(Bucket=bucket, Key=key, Body=data)
    client.close()
    return [f"s3://{bucket}/{key}" for key in files]


def opened(thumbnail: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(thumbnail), formats=["WEBP"])
    image.load()
    return image


def test_objects_have_thumbnails_whatever_they_are_called(bucket: str, tmp_path: Path) -> None:
    """No part of a key becomes part of a local path."""
    thumbnails = new(tmp_path / "kept")
    keys = ["a.jpg", "b/c d.jpg", "..%2f..%2fx.jpg", "<b>alert(1)</b>", "ü?#%41.jpg", "x" * 1000, "'&;.jpg"]
    for uri in put_all(bucket, dict.fromkeys(keys, saved(picture(), "jpeg"))):
        assert opened(thumbnails.get(1, uri, "1")).size == SIZE
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(kept) == len(keys)
    assert all(
        path.relative_to(tmp_path / "kept").as_posix()[2:].strip("0123456789abcdef/") == ".webp" for path in kept
    )


def test_many_objects_at_once(bucket: str, tmp_path: Path) -> None:
    uris = put_all(bucket, {f"{number}.png": saved(picture(seed=number), "png") for number in range(40)})
    thumbnails = new(tmp_path)
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda position: thumbnails.get(position, uris[position % 40], "1"), range(120)))
    assert found[:40] == found[40:80] == found[80:]
    assert len(set(found)) == 40


def test_a_thumbnail_that_is_kept_needs_no_storage(bucket: str, tmp_path: Path) -> None:
    uri = put(bucket, "a.jpg", saved(picture(), "jpeg"))
    first = new(tmp_path).get(1, uri, "1")
    client = s3_client()
    client.delete_object(Bucket=bucket, Key="a.jpg")
    client.close()
    assert new(tmp_path).get(1, uri, "1") == first
    with pytest.raises(ImageError) as caught:
        new(tmp_path).get(1, uri, "2")
    assert caught.value.reason is Reason.MISSING


def test_nothing_outside_of_the_roots_is_read(bucket: str, tmp_path: Path) -> None:
    inside, outside = (put(bucket, f"{name}/a.jpg", saved(picture(), "jpeg")) for name in ("in", "out"))
    thumbnails = new(tmp_path, f"s3://{bucket}/in")
    assert opened(thumbnails.get(1, inside, "1")).size == SIZE
    for uri in (outside, f"s3://{bucket}/in/../out/a.jpg", "file:///etc/passwd"):
        with pytest.raises(ImageError, match="outside of TAGONCE_ROOTS") as caught:
            thumbnails.get(1, uri, "1")
        assert caught.value.reason is Reason.DENIED


def test_broken_and_large_objects_have_a_reason(bucket: str, tmp_path: Path) -> None:
    files = {
        "large": (bytes(1 << 20) + b"x", Reason.TOO_LARGE),
        "claims.png": (hostile.claims()["claims.png"], Reason.TOO_LARGE),
        "cut.jpg": (saved(picture(), "jpeg")[:100], Reason.CORRUPT),
        "page.html": (b"<html>", Reason.UNSUPPORTED),
    }
    thumbnails = new(tmp_path)
    for key, (data, reason) in files.items():
        uri = put(bucket, key, data)
        with pytest.raises(ImageError) as caught:
            thumbnails.get(1, uri, "1")
        assert caught.value.reason is reason


def test_an_outage_is_not_remembered(
    bucket: str, s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image is not the cause. Its thumbnail is available as soon as the storage is."""
    uri = put(bucket, "a.jpg", saved(picture(), "jpeg"))
    monkeypatch.setattr(s3, "s3_client", partial(s3_client, max_attempts=1))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    thumbnails = new(tmp_path)
    for _look in range(2):
        with stamina.set_testing(True, attempts=2, cap=True), pytest.raises(TransientError):
            thumbnails.get(1, uri, "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_endpoint)
    thumbnails._fetcher._objects.__dict__.pop("_s3")  # boto3 reads its settings only once
    assert opened(thumbnails.get(1, uri, "1")).size == SIZE


def test_missing_credentials_are_said_and_not_remembered(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = put(bucket, "a.jpg", saved(picture(), "jpeg"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    thumbnails = new(tmp_path)
    for _look in range(2):
        with pytest.raises(SettingsError, match="AWS_ACCESS_KEY_ID"):
            thumbnails.get(1, uri, "1")
    assert not thumbnails._failed
