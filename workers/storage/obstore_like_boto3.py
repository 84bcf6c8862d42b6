"""Creates obstore stores with the endpoint, credentials and timeouts of a boto3 client.

Endpoint and region are taken from a request that boto3 signed, so that settings, profiles, endpoints and redirects
between regions are resolved by boto3 alone.
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
"""A Signature Version 4, which obstore supports. Those of old storage, S3 Express and multi-region access differ."""

_NO_PARTS = {"", ".", ".."}
"""Parts of keys that obstore drops or refuses."""

_CREDENTIALS_LAST = timedelta(minutes=10)
"""boto3 renews expiring credentials when at least ten minutes are left."""

_BODY_LASTS = timedelta(hours=1)
"""Effectively no limit for the whole body, as in boto3: the read timeout limits the time without a byte."""


class Stores:
    """Creates stores with the credentials that boto3 finds.

    Args:
        config: botocore's `Config` of the boto3 client.
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
        """A store for a bucket, from boto3's request for one of its keys; None if obstore cannot send such requests."""
        place = request.url.removesuffix("/" + quote(key, safe="/~"))
        if place == request.url:
            return None
        common: S3Config = {
            "aws_endpoint_url_s3": place,
            "virtual_hosted_style_request": True,  # `place` contains the bucket already, in its host or in its path
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
    """Whether obstore requests exactly this key: it drops slashes at the ends, and refuses the others excluded here."""
    return key.isprintable() and _NO_PARTS.isdisjoint(key.split("/"))


def _text(header: str | bytes) -> str:
    return header.decode("ascii") if isinstance(header, bytes) else header
