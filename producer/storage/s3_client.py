"""S3 and whatever speaks its protocol: one way to make the client, one place where errors become sentences.

Where the storage is and who we are comes from boto3's own variables (AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID,
AWS_PROFILE, ...), so everything that already works with boto3 or the AWS command line works here. Where boto3 finds no
credentials, requests are not signed: that is how public buckets are read. TAGONCE_S3_ANONYMOUS=true asks for it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 -- botocore's name for it; the builtin is not used in this file
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from db.errors import SettingsError, SourceError

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

PATIENT_ATTEMPTS = 8
"""Retries of the client that does the work: storage under load needs a while to recover."""
PROBE_ATTEMPTS = 1
"""Retries of the probe: one, so a dead endpoint costs two times connect_timeout at most."""

REJECTED_CREDENTIALS = frozenset({
    "AuthorizationHeaderMalformed", "ExpiredToken", "InvalidAccessKeyId", "InvalidClientTokenId",
    "InvalidToken", "SignatureDoesNotMatch", "TokenRefreshRequired",
})  # fmt: skip
ANONYMOUS = "TAGONCE_S3_ANONYMOUS"
_YES = {"1", "on", "t", "true", "y", "yes"}
"""As pydantic reads a setting that is on."""
OK = 200
FORBIDDEN = 403
NOT_FOUND = 404
SERVER_ERROR = 500


def s3_client(*, max_pool_connections: int = 10, max_attempts: int = PATIENT_ATTEMPTS) -> "S3Client":
    """A client that may be shared by threads; give it as many connections as there are threads.

    Its requests are signed where there are credentials, see `is_anonymous`.

    Raises SettingsError when boto3's own settings cannot be used.
    """
    config = Config(
        retries={"mode": "adaptive", "max_attempts": max_attempts},
        connect_timeout=5,
        read_timeout=30,
        max_pool_connections=max_pool_connections,
    )
    # A session of its own: boto3.client() shares a global one, which is not safe to build from threads
    # and keeps the credentials it saw first.
    session = botocore.session.get_session()
    # Times stay the text they came as, as in the AWS command line: to read those of a listing, which nobody asked for,
    # took three quarters of its time.
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    try:
        asked_for = os.environ.get(ANONYMOUS, "").lower() in _YES
        if asked_for or not _has_credentials(session):
            config = config.merge(Config(signature_version=UNSIGNED))
        client = boto3.session.Session(botocore_session=session).client("s3", config=config)
    except (BotoCoreError, ValueError) as error:  # ValueError: an endpoint without http:// or https://
        raise SettingsError(
            f"S3 cannot be used with these settings: {error}. "
            "Check AWS_ENDPOINT_URL_S3, AWS_PROFILE, AWS_DEFAULT_REGION and ~/.aws/config."
        ) from error
    if is_anonymous(client) and not asked_for:
        _Unsigned(client)
    return client


def is_anonymous(client: "S3Client") -> bool:
    """Whether its requests are not signed."""
    return vars(client.meta.config)["signature_version"] is UNSIGNED  # the stubs do not know it


def _has_credentials(session: botocore.session.Session) -> bool:
    try:
        return session.get_credentials() is not None
    except BotoCoreError:  # there are some, and the first request says what is wrong with them
        return True


class _Unsigned:
    """Of a client that signs nothing because it has no credentials: tells a private bucket from a private object.

    A refusal by a bucket that never let us in means that credentials are missing, which is no fault of an object. One
    by a bucket that did is about that object.
    """

    def __init__(self, client: "S3Client") -> None:
        self._open: set[str] = set()
        client.meta.events.register("before-parameter-build.s3", self._note)
        client.meta.events.register("after-call.s3", self._judge)

    def _note(self, params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        context[ANONYMOUS] = params.get("Bucket", "")

    def _judge(self, parsed: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        bucket, status = context.get(ANONYMOUS, ""), parsed.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status == OK:
            self._open.add(bucket)
        elif status == FORBIDDEN and bucket not in self._open:
            raise NoCredentialsError


def check_endpoint(bucket: str) -> None:
    """Ask once for the bucket, with hardly any patience, before the patient client starts.

    Any answer will do, even a refusal: the request that follows explains it better than a HEAD can.
    An address that swallows packets is known after 10 s; the patient client would try for 52 s (both measured).

    Raises SourceError when nothing answers or the credentials are not complete.
    """
    client = s3_client(max_attempts=PROBE_ATTEMPTS)
    with s3_errors(bucket):
        try:
            client.head_bucket(Bucket=bucket)
        except (ClientError, NoCredentialsError):  # not signed and refused: its objects may be public all the same
            return
        finally:
            client.close()


def answers(bucket: str) -> bool:
    """Whether the storage of a bucket is at work: asked for the bucket itself, with hardly any patience.

    A refusal is an answer; an error of the server is none.
    """
    client = s3_client(max_attempts=PROBE_ATTEMPTS)
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        return http_status(error) < SERVER_ERROR
    except (ConnectionError, HTTPClientError):
        return False
    except BotoCoreError:  # of a name that cannot be asked for, or a refusal of what is not signed
        return True
    finally:
        client.close()
    return True


def http_status(error: ClientError) -> int:
    """HTTP status of a refusal. A HEAD has no body, so this is all there is to tell one from another."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextmanager
def s3_errors(bucket: str) -> Iterator[None]:
    """Turn every botocore error inside into a SourceError that says what to do about it."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise SourceError(_sentence(error, bucket)) from error


def _sentence(error: Exception, bucket: str) -> str:
    match error:
        case NoCredentialsError() | PartialCredentialsError():
            return no_credentials(bucket)
        case ConnectionError() | HTTPClientError():
            return (
                f"the S3 endpoint of bucket {bucket!r} does not answer ({error}): check "
                "AWS_ENDPOINT_URL_S3 and AWS_DEFAULT_REGION, and that the server is up."
            )
        case ParamValidationError():
            return f"{bucket!r} or the key in it is not a name that S3 takes: {error}."
        case ClientError():
            return _refusal(error, bucket)
        case _:
            return f"S3 failed for bucket {bucket!r}: {error}."


def no_credentials(bucket: str) -> str:
    """The sentence for a bucket that wants to know who we are."""
    return (
        f"there are no complete S3 credentials to read bucket {bucket!r} with, and it does not let everybody in: "
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
    )


def _refusal(error: ClientError, bucket: str) -> str:
    """The sentence for an answer that says no."""
    code = error.response.get("Error", {}).get("Code", "")
    if code == "NoSuchBucket":
        return f"there is no bucket {bucket!r}: check its name and AWS_ENDPOINT_URL_S3."
    if code in REJECTED_CREDENTIALS:
        return (
            f"S3 rejects the credentials for bucket {bucket!r} ({code}): check AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or AWS_PROFILE."
        )
    if http_status(error) == FORBIDDEN:
        return (
            f"S3 denies access to bucket {bucket!r} ({error}): "
            "the credentials need s3:ListBucket and s3:GetObject on it; without any (TAGONCE_S3_ANONYMOUS) it has to "
            "be public."
        )
    if http_status(error) >= SERVER_ERROR:  # also botocore's word for a 200 with something else than S3's XML
        return (
            f"S3 keeps failing for bucket {bucket!r} ({error}): "
            "try again later, and check that AWS_ENDPOINT_URL_S3 is an S3 endpoint and no web page."
        )
    return f"S3 refuses a request for bucket {bucket!r}: {error}."
