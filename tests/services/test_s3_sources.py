"""Prefixes and manifests of objects, on a real S3 server over HTTP."""

import hashlib
import http.client
import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest

from db.errors import SettingsError, SourceError
from db.ledger.images import Reference
from db.names.uris import file_uri
from producer.sources import NameFilter, references
from producer.storage.s3_client import is_anonymous, s3_client, s3_errors
from producer.uris import split_s3
from tests.fixtures.s3 import fill, new_bucket
from workers.storage.fetch import Fetcher


def put(bucket: str, *keys: str) -> set[Reference]:
    """Store objects whose content is their key. Returns the references that a source should yield."""
    fill(bucket, {key: key.encode() for key in keys})
    return {expected(bucket, key) for key in keys}


def expected(bucket: str, key: str) -> Reference:
    """The ETag of an object uploaded in one part is its MD5."""
    content = key.encode()
    etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return Reference(f"s3://{bucket}/{key}", etag, len(content))


def found(source: str) -> list[Reference]:
    """All references of a source."""
    return list(references(source))


def manifest_of(folder: Path, *uris: str) -> str:
    path = folder / "manifest.txt"
    path.write_text("".join(f"{uri}\n" for uri in uris))
    return str(path)


WEIRD_KEYS = [
    "a b.jpg", "日本語 🐈.png", "100%.jpg", "q?x=1&y=2#z.jpg", "plus+.jpg", "//double//slash.jpg", "'\".gif", "%41.jpg",
    "dots/../up.jpg", "./here.jpg",
]  # fmt: skip


def test_2300_objects_equal_their_manifest_whatever_an_answer_holds(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In nested folders, beside folders, in folders with a common beginning: each object once, by parallel requests.

    Listing and manifest yield the same references: an unchanged object never counts as changed.
    """
    names = [f"{number % 3}/{number % 50:02}/{number}.jpg" for number in range(2_100)]
    names += [f"{number}.png" for number in range(100)] + [f"0-{number}/{number}.png" for number in range(100)]
    objects = put(bucket, *(f"photos/{name}" for name in names))
    put(bucket, "photos.jpg", "photographs/1.jpg", "photos/0/readme.md")
    for page in ("50", "1000"):
        monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", page)
        listed = found(f"s3://{bucket}/photos/")
        assert len(listed) == 2_300
        assert set(listed) == objects
    some = listed[::10]
    assert found(manifest_of(tmp_path, *(each.uri for each in some))) == some


def test_a_listing_may_be_left_half_way(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing the generator ends its threads."""
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")
    objects = put(bucket, *(f"{number:03}.jpg" for number in range(500)))
    got = references(f"s3://{bucket}")
    assert {next(got) for _ in range(50)} <= objects
    del got
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("list")]


def test_keys_are_taken_literally(bucket: str, tmp_path: Path) -> None:
    """Spaces, percent signs, question marks, emoji and empty path segments are unchanged by listing and manifest."""
    objects = put(bucket, *WEIRD_KEYS)
    assert set(references(f"s3://{bucket}")) == objects
    assert set(references(manifest_of(tmp_path, *(each.uri for each in objects)))) == objects


def test_a_prefix_is_nothing_a_folder_a_part_of_a_name_or_a_key(bucket: str) -> None:
    """Folder markers and other files are skipped. An object given by its full key is taken, whatever its name."""
    put(bucket, "cat/", "cat/1.JPG", "cat/photo.orig", "cats.png", "dog")
    keys = {
        prefix: {split_s3(each.uri)[1] for each in references(f"s3://{bucket}{prefix}")}
        for prefix in ("", "/", "/cat", "/cat/", "/dog", "/cat/photo.orig")
    }
    assert keys == {
        "": {"cat/1.JPG", "cats.png"},
        "/": {"cat/1.JPG", "cats.png"},
        "/cat": {"cat/1.JPG", "cats.png"},
        "/cat/": {"cat/1.JPG"},
        "/dog": {"dog"},
        "/cat/photo.orig": {"cat/photo.orig"},
    }


def test_a_prefix_without_images_says_what_it_saw(bucket: str) -> None:
    put(bucket, "texts/a.md", "texts/b.md")
    with pytest.raises(SourceError, match=rf"no image files in 's3://{bucket}/texts' \(2 other objects"):
        found(f"s3://{bucket}/texts")
    with pytest.raises(SourceError, match=r"no image files .* \(0 other objects"):
        found(f"s3://{bucket}/nothing/")


def test_names_in_a_bucket_are_left_out_as_on_a_disk(bucket: str) -> None:
    """By their path relative to the folder of the prefix. The object of exactly the given key is always taken."""
    kept = put(bucket, "nas/@eaDir/pics/a.jpg", "nas/@eaDir/pics/sub/b.jpg")
    put(bucket, "nas/@eaDir/pics/.c.jpg", "nas/@eaDir/pics/@eaDir/d.jpg", "nas/@eaDir/pics/drafts/e.jpg")
    put(bucket, "nas/@eaDir/pics/f.txt", "nas/@eaDir/pics/g")
    names = NameFilter(["drafts/"])
    assert set(references(f"s3://{bucket}/nas/@eaDir/pics/", names=names)) == kept
    assert (names.passed_over, names.hidden, names.excluded) == (2, 2, 1)
    everything = NameFilter(default_excludes=False, all_names=True)
    assert len(list(references(f"s3://{bucket}/nas/@eaDir/pics/", names=everything))) == 7
    assert found(f"s3://{bucket}/nas/@eaDir/pics/.c.jpg") == [expected(bucket, "nas/@eaDir/pics/.c.jpg")]


def test_a_list_may_lie_in_the_bucket(bucket: str, tmp_path: Path) -> None:
    """Relative references start at the list's folder. Absolute paths are local. Errors name the list by its uri."""
    put(bucket, "lists/a.jpg", "b.jpg")
    local = tmp_path / "c.jpg"
    local.write_bytes(b"c")
    lines = f"file_name,x\na.jpg,1\n../b.jpg,2\ns3://{bucket}/b.jpg,3\n{local},4\n"
    client = s3_client()
    client.put_object(Bucket=bucket, Key="lists/train.csv", Body=lines.encode())
    client.put_object(Bucket=bucket, Key="lists/wrong.txt", Body=b"a.jpg\nhttps://b/c\n")
    client.put_object(Bucket=bucket, Key="folder.txt/d.jpg", Body=b"folder.txt/d.jpg")
    client.close()
    a, b = expected(bucket, "lists/a.jpg"), expected(bucket, "b.jpg")
    assert found(f"s3://{bucket}/lists/train.csv")[:3] == [a, b, b]
    assert found(f"s3://{bucket}/lists/train.csv")[3].uri == file_uri(str(local))
    with pytest.raises(SourceError, match=rf"^s3://{bucket}/lists/wrong.txt:2: .*https:// is not supported"):
        found(f"s3://{bucket}/lists/wrong.txt")
    with pytest.raises(SourceError, match="no text column 'nothing'"):
        list(references(f"s3://{bucket}/lists/train.csv", column="nothing"))
    assert found(f"s3://{bucket}/folder.txt") == [expected(bucket, "folder.txt/d.jpg")], "no list: a prefix"


def test_a_manifest_mixes_storage_and_keeps_its_order(bucket: str, tmp_path: Path) -> None:
    """Objects and files are in the order of the rows, even if there are many more than are looked up at once."""
    keys = [f"{number}.jpg" for number in range(300)]
    put(bucket, *keys)
    lines = [line for key in keys for line in (f"s3://{bucket}/{key}", f"local-{key}")]
    got = found(manifest_of(tmp_path, *lines))
    assert got[::2] == [expected(bucket, key) for key in keys]
    assert [each.uri for each in got[1::2]] == [file_uri(str(tmp_path / f"local-{key}")) for key in keys]


def test_what_is_missing_in_a_manifest_has_no_version(bucket: str, tmp_path: Path) -> None:
    """A missing object or bucket becomes a failure later and does not abort the listing."""
    (there,) = put(bucket, "a.jpg")
    gone = [f"s3://{bucket}/gone.jpg", "s3://no-such-bucket-here/a.jpg"]
    got = found(manifest_of(tmp_path, gone[0], there.uri, gone[1]))
    assert got == [Reference(gone[0], "", None), there, Reference(gone[1], "", None)]


def test_a_manifest_may_be_left_half_way(bucket: str, tmp_path: Path) -> None:
    """Closing the generator ends its threads."""
    objects = put(bucket, *(f"{number}.jpg" for number in range(200)))
    got = references(manifest_of(tmp_path, *(each.uri for each in objects)))
    assert next(got) in objects
    del got
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("head")]


# ── storage that refuses ──


@pytest.mark.usefixtures("s3_settings")
def test_a_bucket_that_does_not_exist() -> None:
    with pytest.raises(SourceError, match="there is no bucket 'nobody-made-this': check its name"):
        found("s3://nobody-made-this/photos")


def test_no_credentials(forbidding: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For a bucket without public access, the error is about credentials, not about rights."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for source in ("s3://shut/photos/", manifest_of(tmp_path, "s3://shut/a.jpg")):
        with pytest.raises(SourceError, match="no complete S3 credentials, and bucket 'shut' is not public: set"):
            found(source)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "half of them")
    with pytest.raises(SettingsError, match="missing: AWS_SECRET_ACCESS_KEY"):
        found("s3://shut/photos/")


@pytest.fixture
def public_bucket(s3_settings: None, request: pytest.FixtureRequest) -> str:
    """A bucket with public listing and reading, with and without the check of credentials."""
    name = new_bucket()
    client = s3_client()
    client.put_bucket_acl(Bucket=name, ACL="public-read")
    client.put_object(Bucket=name, Key="a.jpg", Body=b"a.jpg", ACL="public-read")
    client.close()
    return name


@pytest.fixture
def without_credentials(bucket: str, public_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials from here on. The buckets were created before."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")


def test_a_public_bucket_needs_no_credentials(public_bucket: str, without_credentials: None, tmp_path: Path) -> None:
    """Listing, a manifest, and reading: first by boto3, then by obstore."""
    reference = expected(public_bucket, "a.jpg")
    assert found(f"s3://{public_bucket}/") == [reference]
    assert found(manifest_of(tmp_path, reference.uri)) == [reference]
    fetcher = Fetcher(max_bytes=100, connections=2)
    assert [fetcher.fetch(reference.uri) for _ in range(3)] == [b"a.jpg"] * 3
    assert public_bucket in fetcher._objects._proven, "obstore has read it"


def test_credentials_are_not_used_where_that_is_asked_for(
    public_bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any bucket would reject these credentials."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with credentials_checked(s3_endpoint), pytest.raises(SourceError, match="rejects the credentials"):
        found(f"s3://{public_bucket}/")
    monkeypatch.setenv("TAGONCE_S3_ANONYMOUS", "1")
    assert is_anonymous(s3_client())
    assert found(f"s3://{public_bucket}/") == [expected(public_bucket, "a.jpg")]


@contextmanager
def credentials_checked(endpoint: str) -> Iterator[None]:
    """Makes the server check credentials and rights as AWS does. By default moto accepts every request."""

    def requests_before_checking(count: str) -> None:
        connection = http.client.HTTPConnection(endpoint.removeprefix("http://"))
        connection.request("POST", "/moto-api/reset-auth", count)
        assert connection.getresponse().status == 200
        connection.close()

    requests_before_checking("0")
    try:
        yield
    finally:
        requests_before_checking("inf")


def test_rejected_credentials(bucket: str, s3_endpoint: str, tmp_path: Path) -> None:
    """A listing raises an error. For a HEAD this looks like one denied object, which the worker records."""
    put(bucket, "a.jpg")
    uri = f"s3://{bucket}/a.jpg"
    with credentials_checked(s3_endpoint):
        with pytest.raises(SourceError, match=r"rejects the credentials .*InvalidAccessKeyId.*: check AWS_"):
            found(f"s3://{bucket}")
        assert found(manifest_of(tmp_path, uri)) == [Reference(uri, "", None)]


def test_denied(bucket: str, s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a user without any right, a listing raises an error, and an object of a manifest is left to the worker."""
    put(bucket, "a.jpg")
    uri = f"s3://{bucket}/a.jpg"
    iam = boto3.session.Session().client("iam", endpoint_url=s3_endpoint)
    iam.create_user(UserName=bucket)
    key = iam.create_access_key(UserName=bucket)["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    with credentials_checked(s3_endpoint):
        with pytest.raises(SourceError, match=rf"denies access to bucket '{bucket}' .* need s3:ListBucket"):
            found(f"s3://{bucket}")
        assert found(manifest_of(tmp_path, uri)) == [Reference(uri, "", None)]


def test_a_refusal_in_the_middle_ends_a_listing(bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of many requests is denied: earlier references are yielded, then the error is raised. No thread is left."""
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")
    put(bucket, *(f"{number:03}.jpg" for number in range(500)))
    got = []
    with refusing_after(20, s3_endpoint) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        with pytest.raises(SourceError, match=rf"denies access to bucket '{bucket}' .* need s3:ListBucket"):
            got.extend(references(f"s3://{bucket}"))
    assert 0 < len(set(got)) == len(got) < 500
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("list")]


@contextmanager
def refusing_after(answers: int, endpoint: str) -> Iterator[str]:
    """A proxy that forwards a number of GETs and denies all others."""
    left = threading.Semaphore(answers)

    class Front(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_GET(self) -> None:
            connection = http.client.HTTPConnection(endpoint.removeprefix("http://"))
            connection.request("GET", self.path)
            answer = connection.getresponse()
            body, allowed = answer.read(), left.acquire(blocking=False)
            connection.close()
            self.send_response(answer.status if allowed else 403)
            self.end_headers()
            self.wfile.write(body if allowed else b"<Error><Code>AccessDenied</Code></Error>")

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Front) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_endpoint_where_nobody_listens(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reported within seconds, for a prefix and for a manifest, although other requests are retried for long."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{closed.getsockname()[1]}")
        for source in (f"s3://{bucket}", manifest_of(tmp_path, f"s3://{bucket}/a.jpg")):
            with pytest.raises(SourceError, match=rf"endpoint of bucket '{bucket}' does not answer .*AWS_"):
                found(source)


def test_an_endpoint_without_a_scheme(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "localhost:9000")
    with pytest.raises(SettingsError, match=r"localhost:9000.* Check AWS_ENDPOINT_URL_S3"):
        found(f"s3://{bucket}")


@pytest.fixture
def web_page(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A web server that answers every request with a page, like a wrong port or a login page."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>Welcome<br>")

        do_HEAD = do_GET  # noqa: N815 -- the name that http.server expects

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        yield
        server.shutdown()


@pytest.mark.usefixtures("web_page")
def test_an_endpoint_that_is_no_s3(bucket: str) -> None:
    """Without retries here: a page looks like a temporary failure of the server."""
    client = s3_client(max_attempts=0)
    with pytest.raises(SourceError, match=r"keeps failing .* AWS_ENDPOINT_URL_S3 is an"), s3_errors(bucket):
        client.list_objects_v2(Bucket=bucket)
