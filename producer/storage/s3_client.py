"""Clients for S3 and compatible storage, and the translation of their errors.

Endpoint and credentials come from boto3's own variables (AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, AWS_PROFILE, ...), so
all that works with boto3 or the AWS command line works here. If boto3 finds no credentials, requests are not signed,
as public buckets allow. TAGONCE_S3_ANONYMOUS=true never signs.
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
"""Retries of the client for the actual work: storage under load needs time to recover."""
PROBE_ATTEMPTS = 1
"""Retries of the probe: one, so that a dead endpoint costs at most twice connect_timeout."""

REJECTED_CREDENTIALS = frozenset({
    "AuthorizationHeaderMalformed", "ExpiredToken", "InvalidAccessKeyId", "InvalidClientTokenId",
    "InvalidToken", "SignatureDoesNotMatch", "TokenRefreshRequired",
})  # fmt: skip
ANONYMOUS = "TAGONCE_S3_ANONYMOUS"
_YES = {"1", "on", "t", "true", "y", "yes"}
"""Values that pydantic reads as true."""
OK = 200
FORBIDDEN = 403
NOT_FOUND = 404
SERVER_ERROR = 500


def s3_client(*, max_pool_connections: int = 10, max_attempts: int = PATIENT_ATTEMPTS) -> "S3Client":
    """An S3 client, safe to share between threads.

    Its requests are signed if there are credentials, see `is_anonymous`.

    Args:
        max_pool_connections: connections kept open; as many as there are threads.
        max_attempts: retries of a request.

    Raises:
        SettingsError: boto3's own settings are invalid.
    """
    config = Config(
        retries={"mode": "adaptive", "max_attempts": max_attempts},
        connect_timeout=5,
        read_timeout=30,
        max_pool_connections=max_pool_connections,
    )
    # A separate session: boto3.client() shares a global one, which is not safe to create from threads and keeps the
    # first credentials that it found.
    session = botocore.session.get_session()
    # Timestamps stay text, as in the AWS command line: parsing those of a listing, which are not used, took three
    # quarters of its time.
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    try:
        requested = os.environ.get(ANONYMOUS, "").lower() in _YES
        if requested or not _has_credentials(session):
            config = config.merge(Config(signature_version=UNSIGNED))
        client = boto3.session.Session(botocore_session=session).client("s3", config=config)
    except (BotoCoreError, ValueError) as error:  # ValueError: the endpoint lacks http:// or https://
        raise SettingsError(
            f"S3 cannot be used with these settings: {error}. "
            "Check AWS_ENDPOINT_URL_S3, AWS_PROFILE, AWS_DEFAULT_REGION and ~/.aws/config."
        ) from error
    if is_anonymous(client) and not requested:
        _Unsigned(client)
    return client


def is_anonymous(client: "S3Client") -> bool:
    """Whether requests of this client are unsigned."""
    return vars(client.meta.config)["signature_version"] is UNSIGNED  # the stubs lack it


def _has_credentials(session: botocore.session.Session) -> bool:
    try:
        return session.get_credentials() is not None
    except BotoCoreError:  # there are some; the first request reports what is wrong with them
        return True


class _Unsigned:
    """Tells a private bucket from a private object, for a client that does not sign because it has no credentials.

    A refusal by a bucket that never allowed a request means that credentials are missing, not that the object is
    private. A refusal by a bucket that allowed one concerns the object.
    """

    def __init__(self, client: "S3Client") -> None:
        self._public: set[str] = set()
        client.meta.events.register("before-parameter-build.s3", self._note)
        client.meta.events.register("after-call.s3", self._judge)

    def _note(self, params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        context[ANONYMOUS] = params.get("Bucket", "")

    def _judge(self, parsed: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        bucket, status = context.get(ANONYMOUS, ""), parsed.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status == OK:
            self._public.add(bucket)
        elif status == FORBIDDEN and bucket not in self._public:
            raise NoCredentialsError


def check_endpoint(bucket: str) -> None:
    """Probe the endpoint of a bucket with a single retry, before a client with many retries is used.

    Any answer suffices, even a refusal: the next request explains it better than a HEAD can. An address that drops
    packets is detected after 10 s; with all retries it would take 52 s (both measured).

    Raises:
        SourceError: the endpoint does not answer, or the credentials are incomplete.
    """
    client = s3_client(max_attempts=PROBE_ATTEMPTS)
    with s3_errors(bucket):
        try:
            client.head_bucket(Bucket=bucket)
        except (ClientError, NoCredentialsError):  # an unsigned request was refused; its objects may still be public
            return
        finally:
            client.close()


def answers(bucket: str) -> bool:
    """Whether the storage of a bucket answers a HEAD for the bucket, with a single retry.

    A refusal counts as an answer, an error of the server does not.
    """
    client = s3_client(max_attempts=PROBE_ATTEMPTS)
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        return http_status(error) < SERVER_ERROR
    except (ConnectionError, HTTPClientError):
        return False
    except BotoCoreError:  # an invalid bucket name, or an unsigned request was refused
        return True
    finally:
        client.close()
    return True


def http_status(error: ClientError) -> int:
    """HTTP status of a refusal. An answer to HEAD has no body, so the status is all that tells refusals apart."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextmanager
def s3_errors(bucket: str) -> Iterator[None]:
    """Turn every botocore error of the block into a SourceError with advice."""
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
            return f"{bucket!r}, or the key in it, is not a valid name in S3: {error}."
        case ClientError():
            return _refusal(error, bucket)
        case _:
            return f"S3 failed for bucket {bucket!r}: {error}."


def no_credentials(bucket: str) -> str:
    """Message for a bucket that requires credentials."""
    return (
        f"there are no complete S3 credentials, and bucket {bucket!r} is not public: "
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
    )


def _refusal(error: ClientError, bucket: str) -> str:
    """Message for an answer that refuses the request."""
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
            "the credentials need s3:ListBucket and s3:GetObject on it; without credentials (TAGONCE_S3_ANONYMOUS) it "
            "must be public."
        )
    if http_status(error) >= SERVER_ERROR:  # also raised by botocore for a 200 whose body is not XML of S3
        return (
            f"S3 keeps failing for bucket {bucket!r} ({error}): "
            "try again later, and check that AWS_ENDPOINT_URL_S3 is an S3 endpoint, not a web page."
        )
    return f"S3 refuses a request for bucket {bucket!r}: {error}."
