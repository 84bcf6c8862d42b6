"""An obstore store that asks where boto3 has asked, as the one that boto3 was, and with as much patience.

All of it is read off a request that boto3 signed: whatever of settings, profiles, endpoints and redirects between
regions went into it, none of it is worked out a second time.
"""

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import botocore.session
from botocore import UNSIGNED
from botocore.awsrequest import AWSPreparedRequest
from botocore.httpsession import where
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

_SCOPE = re.compile(r"AWS4-HMAC-SHA256 Credential=[^,]*/(?P<region>[^/,]+)/s3/aws4_request,")
"""Of a signature as obstore makes them too. Those of old storages, of S3 Express and of several regions differ."""

_NO_PARTS = {"", ".", ".."}

_CREDENTIALS_LAST = timedelta(minutes=10)
"""boto3 renews those that expire when they have ten minutes left, at the latest."""

_BODY_LASTS = timedelta(hours=1)
"""As good as no limit, as in boto3: what counts is the time without a byte."""


class Stores:
    """Makes stores of one person: who that is, boto3 says.

    Args:
        config: botocore's `Config` of the client whose requests are to be followed.
    """

    def __init__(self, config: Any) -> None:
        session = botocore.session.get_session()
        self._config = config
        if config.signature_version is not UNSIGNED:
            self._credentials = Boto3CredentialProvider(session, ttl=_CREDENTIALS_LAST)
        self._certificates = Path(
            session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE") or where()
        )

    def like(self, request: AWSPreparedRequest, bucket: str, key: str) -> S3Store | None:
        """A store of the bucket, from the request for one of its keys; None where obstore cannot ask like that."""
        place = request.url.removesuffix("/" + quote(key, safe="/~"))
        if place == request.url:
            return None
        common: S3Config = {
            "aws_endpoint_url_s3": place,
            "virtual_hosted_style_request": True,  # the bucket is in `place` already, in its name or in its path
        }
        options = self._options(https=place.startswith("https:"))
        once: RetryConfig = {"max_retries": 0}
        if self._config.signature_version is UNSIGNED:
            return S3Store(bucket, config={**common, "skip_signature": True}, client_options=options, retry_config=once)
        scope = _SCOPE.match(_text(request.headers.get("Authorization", "")))
        if not scope:
            return None
        return S3Store(
            bucket,
            config={**common, "region": scope["region"]},
            credential_provider=self._credentials,
            client_options=options,
            retry_config=once,
        )

    def _options(self, *, https: bool) -> "ClientConfig":
        options: ClientConfig = {
            "connect_timeout": timedelta(seconds=self._config.connect_timeout),
            "read_timeout": timedelta(seconds=self._config.read_timeout),
            "timeout": _BODY_LASTS,
            "pool_max_idle_per_host": str(self._config.max_pool_connections),
        }
        if not https:
            return {**options, "allow_http": True}
        if self._certificates.is_file():
            return {**options, "root_certificate": self._certificates.read_bytes()}
        return options


def can_name(key: str) -> bool:
    """Whether obstore asks for exactly this key. It drops slashes at the ends, and refuses the other keys left out."""
    return key.isprintable() and _NO_PARTS.isdisjoint(key.split("/"))


def _text(header: str | bytes) -> str:
    return header.decode("ascii") if isinstance(header, bytes) else header
