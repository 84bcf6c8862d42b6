"""Fetching: the bytes of a file or an object, or the reason why it cannot be read."""

import gc
import http.server
import os
import ssl
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import Message
from functools import partial
from pathlib import Path

import pytest
import stamina
from botocore.awsrequest import AWSPreparedRequest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from db.errors import ImageError, Reason, SettingsError, TransientError
from db.names.uris import file_uri
from producer.storage import s3_client
from workers.storage import fetch, s3
from workers.storage.fetch import Fetcher
from workers.storage.obstore_like_boto3 import Stores

LIMIT = 1_000
NOBODY = 65_534
DOWN = "ServiceUnavailable"
"""With 503. After a `SlowDown` boto3 sends the next requests more slowly, by seconds."""


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    """Three attempts as usual, without pauses."""
    with stamina.set_testing(True, attempts=fetch.ATTEMPTS, cap=True):
        yield


@pytest.fixture
def fetcher() -> Fetcher:
    return Fetcher(max_bytes=LIMIT, connections=2)


def refused(fetcher: Fetcher, uri: str) -> ImageError:
    with pytest.raises(ImageError) as caught:
        fetcher.fetch(uri)
    assert "\n" not in caught.value.detail
    return caught.value


# ── files ──


@pytest.mark.parametrize("name", [b"plain.jpg", b"100%25 #?.jpg", "日本 🐈.jpg".encode(), b"\xff\xfe.jpg", b"a\nb"])
def test_a_file_is_read_whole_whatever_its_name_is(fetcher: Fetcher, tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(name)
    assert fetcher.fetch(file_uri(str(path))) == name


def test_a_link_is_followed_and_an_empty_file_is_a_file(fetcher: Fetcher, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    assert fetcher.fetch(file_uri(str(tmp_path / "link"))) == b""


@pytest.mark.parametrize("name", ["gone.jpg", "file/inside.jpg", "dangling", "circle", "nul\0.jpg", "x" * 300])
def test_a_path_that_leads_nowhere_is_missing(fetcher: Fetcher, tmp_path: Path, name: str) -> None:
    """A part of the path is a file, a link is broken, or no file can have that name."""
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    error = refused(fetcher, file_uri(f"{tmp_path}/{name}"))
    assert (error.reason, error.detail) == (Reason.MISSING, "no such file")


@contextmanager
def as_another_user() -> Iterator[None]:
    """File modes do not apply to root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_file_that_may_not_be_read_is_denied(fetcher: Fetcher, tmp_path: Path) -> None:
    path = tmp_path / "secret.jpg"
    path.touch(mode=0)
    with as_another_user():
        error = refused(fetcher, file_uri(str(path)))
    assert error.reason is Reason.DENIED


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, partial(os.mknod, mode=stat.S_IFSOCK)])
def test_what_is_no_regular_file_is_not_read(fetcher: Fetcher, tmp_path: Path, make: Callable[[Path], None]) -> None:
    """Reading a pipe without a writer would block for ever."""
    path = tmp_path / "x.jpg"
    make(path)
    error = refused(fetcher, file_uri(str(path)))
    assert (error.reason, error.detail) == (Reason.UNSUPPORTED, "not a regular file")


def test_a_file_above_the_limit_is_too_large(fetcher: Fetcher, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(bytes(LIMIT))
    assert len(fetcher.fetch(file_uri(str(path)))) == LIMIT
    path.write_bytes(bytes(LIMIT + 1))
    error = refused(fetcher, file_uri(str(path)))
    assert error.reason is Reason.TOO_LARGE
    assert error.detail == "the file has 1,001 bytes, the limit is 1,000 (TAGONCE_MAX_BYTES)"


@pytest.mark.parametrize("uri", ["http://host/a.jpg", "/a.jpg", "", "FILE:///a.jpg"])
def test_other_references_are_not_followed(fetcher: Fetcher, uri: str) -> None:
    assert refused(fetcher, uri).reason is Reason.UNSUPPORTED


# ── objects in a real S3 ──


@pytest.mark.parametrize("key", ["a.jpg", "a b/%41?#+日本🐈.jpg", "//double//slash", "dots/../up"])
def test_an_object_is_read_whole_whatever_its_key_is(fetcher: Fetcher, bucket: str, key: str) -> None:
    client = s3_client.s3_client()
    client.put_object(Bucket=bucket, Key=key, Body=key.encode())
    client.close()
    assert fetcher.fetch(f"s3://{bucket}/{key}") == key.encode()


def test_an_object_or_a_bucket_that_is_not_there_is_missing(fetcher: Fetcher, bucket: str) -> None:
    error = refused(fetcher, f"s3://{bucket}/gone.jpg")
    assert (error.reason, error.detail) == (Reason.MISSING, "no such object (NoSuchKey)")
    error = refused(fetcher, "s3://no-such-bucket-here/a.jpg")
    assert (error.reason, error.detail) == (Reason.MISSING, "no such object (NoSuchBucket)")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://images/",
        "s3://images",
        "s3://no bucket/a.jpg",
        "s3:///a.jpg",
        "s3://arn:aws:s3:us-east-1:123456789012:accesspoint:theirs/a.jpg",
    ],
)
@pytest.mark.usefixtures("s3_settings")
def test_a_name_that_no_object_can_have_is_missing(fetcher: Fetcher, uri: str) -> None:
    assert refused(fetcher, uri).reason is Reason.MISSING


def test_an_object_above_the_limit_is_too_large(fetcher: Fetcher, bucket: str) -> None:
    client = s3_client.s3_client()
    client.put_object(Bucket=bucket, Key="a", Body=bytes(LIMIT + 1))
    client.close()
    assert refused(fetcher, f"s3://{bucket}/a").reason is Reason.TOO_LARGE
    gc.collect()  # a connection that was left open fails the test here


def test_a_worker_without_credentials_stops(
    fetcher: Fetcher, forbidding: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would record a failure for every image."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SettingsError, match="no complete S3 credentials.* AWS_ACCESS_KEY_ID"):
        fetcher.fetch("s3://shut/a.jpg")


# ── storage that fails ──


@dataclass(frozen=True)
class Seen:
    """A request."""

    path: str
    headers: Message

    @property
    def agent(self) -> str:
        """Client: `Boto3` or `object_store`."""
        return self.headers["User-Agent"].partition("/")[0]

    @property
    def credential(self) -> str:
        """Access key, day and region of the signature."""
        return self.headers["Authorization"].partition("Credential=")[2].partition(",")[0]


@dataclass
class Storage:
    """A server with scripted answers, then the object; it counts requests."""

    answers: list[tuple[int, str]] = field(default_factory=list)
    """Status and S3's code, one a request, first to last. Status 0: half of the object, then silence."""
    repeat: bool = False
    """Repeat the first answer for ever."""
    seen: list[Seen] = field(default_factory=list)
    server: http.server.HTTPServer | None = None
    alive: bool = True
    """Whether it answers a HEAD for the bucket."""
    region: str = ""
    """Region of the bucket: requests signed for another are redirected."""

    @property
    def requests(self) -> int:
        return len(self.seen)

    def next(self, seen: Seen) -> tuple[int, str]:
        self.seen.append(seen)
        if self.region not in seen.headers.get("Authorization", self.region):
            return 301, "PermanentRedirect"
        if not self.answers:
            return 200, ""
        return self.answers[0] if self.repeat else self.answers.pop(0)


CONTENT = b"0123456789"


@pytest.fixture
def failing(s3_settings: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """A scripted S3. boto3's own retries are off: they would take a minute, and are not tested here."""
    storage = Storage()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, code = storage.next(Seen(self.path, self.headers))
            body = CONTENT if status in (0, 200) else f"<Error><Code>{code}</Code></Error>".encode()
            self.send_response(status or 200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("x-amz-bucket-region", storage.region)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if status == 0 else body)
            self.close_connection = True

        def do_HEAD(self) -> None:
            self.send_response(200 if storage.alive else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        storage.server = server
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(s3, "s3_client", partial(s3_client.s3_client, max_attempts=0))
        yield storage
        server.shutdown()


def test_a_private_object_of_a_public_bucket_is_denied(
    fetcher: Fetcher, failing: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unsigned requests. The bucket allowed one before, so the refusal concerns this object."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    failing.answers = [(200, ""), (403, "AccessDenied"), (403, "AccessDenied"), (200, "")]
    assert fetcher.fetch("s3://b/a.jpg") == CONTENT
    assert refused(fetcher, "s3://b/secret.jpg").reason is Reason.DENIED
    assert fetcher.fetch("s3://b/b.jpg") == CONTENT
    assert not any("Authorization" in seen.headers for seen in failing.seen)


@pytest.mark.parametrize("status", [503, 0], ids=["busy", "half an answer"])
def test_a_storage_that_recovers_costs_nothing_but_time(fetcher: Fetcher, failing: Storage, status: int) -> None:
    failing.answers = [(status, DOWN)] * (fetch.ATTEMPTS - 1)
    assert fetcher.fetch("s3://b/a.jpg") == CONTENT
    assert failing.requests == fetch.ATTEMPTS


@pytest.mark.parametrize("status", [500, 0])
def test_an_object_that_keeps_failing_is_given_up(
    fetcher: Fetcher, failing: Storage, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """No log line for each attempt: it would be mixed with the output of `predict --json`."""
    failing.answers, failing.repeat = [(status, "InternalError")], True
    assert refused(fetcher, "s3://b/a.jpg").reason is Reason.TIMEOUT
    assert failing.requests == fetch.ATTEMPTS
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("s3_settings")
def test_a_bucket_that_cannot_be_asked_for_is_no_outage(fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a row would block its chunk for ever. It is the name of a directory bucket without its zone."""
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    assert refused(fetcher, "s3://photos--x-s3/a.jpg").reason is Reason.TIMEOUT


def test_an_outage_is_no_fault_of_the_images(fetcher: Fetcher, failing: Storage) -> None:
    """After failures the bucket is probed; while it does not answer, one thread probes for all."""
    failing.answers, failing.repeat, failing.alive = [(503, DOWN)], True, False
    for name in ("a", "b"):
        with pytest.raises(TransientError, match=f"S3 answered {DOWN}"):
            fetcher.fetch(f"s3://b/{name}.jpg")


def test_an_outage_may_begin_while_an_object_is_tried_for_the_second_time(
    fetcher: Fetcher, failing: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At first it was the only one that failed; then the storage failed."""

    def answer(seen: Seen) -> tuple[int, str]:
        failing.seen.append(seen)
        if seen.path.endswith("other.jpg"):
            return 200, ""
        if failing.alive:
            fetcher.fetch("s3://b/other.jpg")
            failing.alive = False
        return 503, DOWN

    monkeypatch.setattr(failing, "next", answer)
    with pytest.raises(TransientError, match=f"S3 answered {DOWN}"):
        fetcher.fetch("s3://b/a.jpg")


def test_a_bucket_that_delivered_meanwhile_is_not_away(
    fetcher: Fetcher, failing: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether or not its bucket answers a HEAD: some storages do not."""
    failing.alive = False
    begun = time.monotonic()
    fetcher.fetch("s3://b/a.jpg")
    assert not fetcher._objects.is_away("b", since=begun)
    assert fetcher._objects.is_away("b", since=time.monotonic())


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (403, "AccessDenied", Reason.DENIED),
        (403, "InvalidObjectState", Reason.DENIED),
        (404, "NoSuchKey", Reason.MISSING),
        (404, "NoSuchBucket", Reason.MISSING),
    ],
)
def test_a_refusal_is_final(fetcher: Fetcher, failing: Storage, status: int, code: str, reason: Reason) -> None:
    """With one request. An archived object (InvalidObjectState) cannot be read for now."""
    failing.answers, failing.repeat = [(status, code)], True
    error = refused(fetcher, "s3://b/a.jpg")
    assert error.reason is reason
    assert code in error.detail
    assert failing.requests == 1


@pytest.mark.parametrize(("status", "code"), [(400, "ExpiredToken"), (403, "InvalidAccessKeyId")])
def test_credentials_that_are_refused_are_no_fault_of_the_image(
    fetcher: Fetcher, failing: Storage, status: int, code: str
) -> None:
    """An expired session must not turn the rest of the queue into failures."""
    failing.answers, failing.repeat = [(status, code)], True
    with pytest.raises(SettingsError, match=code):
        fetcher.fetch("s3://b/a.jpg")


# ── by obstore, after boto3 has read an object ──


@pytest.fixture
def knowing(fetcher: Fetcher, failing: Storage) -> Fetcher:
    """A fetcher whose obstore has read from bucket `b`."""
    fetcher.fetch("s3://b/first.jpg")
    fetcher.fetch("s3://b/second.jpg")
    assert [seen.agent for seen in failing.seen] == ["Boto3", "object_store"]
    failing.seen.clear()
    return fetcher


NAMED = [
    "a b/%41?#+日本🐈.jpg",
    "%2e%2e/%2F",
    "a\\b",
    "...",
    "~a.",
    " a ",
    "é",
    "e\u0301",
    "<>|\"'`^[]{}&=;:@!$,()*",
    "b",
]
"""Keys that obstore can request."""
NOT_NAMED = ["//double//slash", "/a", "a/", "./a", "a/./b", "dots/../up", "..", "a\nb", "a\x7fb", "\x00"]
"""Keys that it would change, or refuses."""


def test_any_key_is_asked_for_as_boto3_does(knowing: Fetcher, failing: Storage) -> None:
    for key in NAMED + NOT_NAMED:
        failing.seen.clear()
        assert knowing.fetch(f"s3://b/{key}") == CONTENT
        knowing._objects._read_with_boto3("b", key)
        ours, theirs = failing.seen
        assert ours.path == theirs.path
        assert (ours.agent, theirs.agent) == ("object_store" if key in NAMED else "Boto3", "Boto3")


@pytest.mark.parametrize("key", ["a b/%41?#+日本🐈.jpg", "//double//slash", "dots/../up", "b.jpg"])
def test_a_real_storage_knows_the_key(fetcher: Fetcher, bucket: str, key: str) -> None:
    client = s3_client.s3_client()
    for name in ("first.jpg", "second.jpg", key):
        client.put_object(Bucket=bucket, Key=name, Body=name.encode())
        assert fetcher.fetch(f"s3://{bucket}/{name}") == name.encode()
    client.close()
    error = refused(fetcher, f"s3://{bucket}/gone.jpg")
    assert (error.reason, error.detail) == (Reason.MISSING, "no such object (NoSuchKey)")


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (0, "")])
def test_what_obstore_does_not_get_boto3_gets(knowing: Fetcher, failing: Storage, status: int, code: str) -> None:
    failing.answers = [(status, code)]
    assert knowing.fetch("s3://b/a.jpg") == CONTENT
    assert knowing.fetch("s3://b/a.jpg") == CONTENT
    assert [seen.agent for seen in failing.seen] == ["object_store", "Boto3", "object_store"]


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (403, "AccessDenied", Reason.DENIED),
        (404, "NoSuchKey", Reason.MISSING),
        (404, "NoSuchBucket", Reason.MISSING),
    ],
)
def test_boto3_says_what_a_refusal_means(
    knowing: Fetcher, failing: Storage, status: int, code: str, reason: Reason
) -> None:
    failing.answers, failing.repeat = [(status, code)], True
    error = refused(knowing, "s3://b/a.jpg")
    assert error.reason is reason
    assert code in error.detail
    assert [seen.agent for seen in failing.seen] == ["object_store", "Boto3"]


@pytest.mark.parametrize(("status", "code"), [(400, "ExpiredToken"), (403, "InvalidAccessKeyId")])
def test_credentials_that_are_refused_later_stop_the_worker(
    knowing: Fetcher, failing: Storage, status: int, code: str
) -> None:
    failing.answers, failing.repeat = [(status, code)], True
    with pytest.raises(SettingsError, match=code):
        knowing.fetch("s3://b/a.jpg")


def test_a_storage_that_fails_later_is_given_up(knowing: Fetcher, failing: Storage) -> None:
    """Three times by both: obstore does not add retries to those of boto3 and ours."""
    failing.answers, failing.repeat = [(500, "InternalError")], True
    assert refused(knowing, "s3://b/a.jpg").reason is Reason.TIMEOUT
    assert failing.requests == 2 * fetch.ATTEMPTS


def test_obstore_reads_nothing_above_the_limit(failing: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    fetcher = Fetcher(max_bytes=len(CONTENT), connections=1)
    fetcher.fetch("s3://b/a.jpg")
    monkeypatch.setitem(globals(), "CONTENT", bytes(len(CONTENT) + 1))
    assert refused(fetcher, "s3://b/a.jpg").reason is Reason.TOO_LARGE
    assert [seen.agent for seen in failing.seen] == ["Boto3", "object_store"]


def test_where_obstore_never_works_boto3_reads_all(
    fetcher: Fetcher, failing: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise each object would wait for the failure of obstore first. Other buckets are not affected."""
    fetcher.fetch("s3://b/a.jpg")
    failing.answers = [(400, "NotForMe")]
    for uri in ("s3://b/a.jpg", "s3://b/a.jpg", "s3://c/a.jpg", "s3://c/a.jpg"):
        assert fetcher.fetch(uri) == CONTENT
    agents = [seen.agent for seen in failing.seen]
    assert agents == ["Boto3", "object_store", "Boto3", "Boto3", "Boto3", "object_store"]
    assert "'b' is read by boto3 alone" in caplog.text


def test_obstore_is_who_boto3_is(
    fetcher: Fetcher, failing: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A profile with a session token; and a bucket in another region, to which boto3 is redirected."""
    (tmp_path / "credentials").write_text(
        "[work]\naws_access_key_id = theirs\naws_secret_access_key = s\naws_session_token = token\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    failing.region = "eu-central-1"
    for _ in range(2):
        assert fetcher.fetch("s3://b/a.jpg") == CONTENT
    *_, theirs, ours = failing.seen
    assert (theirs.agent, ours.agent) == ("Boto3", "object_store")
    assert ours.credential == theirs.credential
    assert ours.credential.startswith("theirs/")
    assert ours.credential.endswith("/eu-central-1/s3/aws4_request")
    assert ours.headers["X-Amz-Security-Token"] == theirs.headers["X-Amz-Security-Token"] == "token"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://b.s3.eu-west-1.amazonaws.com/a/b%20c", "https://b.s3.eu-west-1.amazonaws.com"),
        ("https://s3.eu-west-1.amazonaws.com/a.b/a/b%20c", "https://s3.eu-west-1.amazonaws.com/a.b"),
        ("http://minio:9000/a/b%20c/a/b%20c", "http://minio:9000/a/b%20c"),
        ("https://b.s3.eu-west-1.amazonaws.com/other", None),
    ],
)
@pytest.mark.usefixtures("s3_settings")
def test_a_store_is_where_the_request_went(url: str, place: str | None) -> None:
    stores = Stores(s3_client.s3_client().meta.config)
    signed = "AWS4-HMAC-SHA256 Credential=key/20260101/eu-west-1/s3/aws4_request, SignedHeaders=host, Signature=0"
    store = stores.like(AWSPreparedRequest("GET", url, {"Authorization": signed}, None, False), "b", "a/b c")
    assert (store and dict(store.config)["endpoint_url_s3"]) == place
    assert store is None or store.config["region"] == "eu-west-1"


@pytest.mark.parametrize(
    "signed",
    [
        "AWS key:signature",
        "AWS4-HMAC-SHA256 Credential=key/20260101/eu-west-1/s3express/aws4_request, SignedHeaders=host, Signature=0",
        "AWS4-ECDSA-P256-SHA256 Credential=key/20260101/s3/aws4_request, SignedHeaders=host, Signature=0",
    ],
)
@pytest.mark.usefixtures("s3_settings")
def test_what_obstore_cannot_sign_is_left_to_boto3(signed: str) -> None:
    stores = Stores(s3_client.s3_client().meta.config)
    request = AWSPreparedRequest("GET", "https://s3.amazonaws.com/b/a", {"Authorization": signed}, None, False)
    assert stores.like(request, "b", "a") is None


def test_over_tls_both_trust_the_same_authority(
    fetcher: Fetcher, failing: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate whose authority is only in AWS_CA_BUNDLE."""
    certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    assert failing.server
    failing.server.socket = context.wrap_socket(failing.server.socket, server_side=True)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"https://localhost:{failing.server.server_port}")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    for _ in range(3):
        assert fetcher.fetch("s3://b/a.jpg") == CONTENT
    assert [seen.agent for seen in failing.seen] == ["Boto3", "object_store", "object_store"]


def self_signed(folder: Path) -> Path:
    """Key and certificate of `localhost`, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + made.public_bytes(Encoding.PEM))
    return file
