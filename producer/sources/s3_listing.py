"""Lists all objects below a prefix of S3 with concurrent requests.

An answer holds up to a thousand keys, and the next page depends on it, so pages of one listing are sequential. But S3
lists in the byte order of keys and can start after any text. So the keys can be split into ranges anywhere, and the
ranges listed concurrently: no key is missed, and none is listed twice. Split points are found by bisection: while a
connection is free, a request asks whether a range has keys beyond its middle. This needs no folders, and a million
folders with one file each do not slow it down.
"""

import os
from bisect import bisect_right
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from db.errors import SourceError

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import ListObjectsV2OutputTypeDef, ObjectTypeDef

REQUESTS = 16
"""Concurrent requests. Also bounds memory: so many answers are held."""
UNORDERED = "--x-s3"
"""End of the names of directory buckets, the only kind that AWS does not list in order."""

_FIRST, _LAST = " ", "~"
"""Split points are printable ASCII. Keys of other characters are part of the range that they sort into."""


@dataclass(eq=False, slots=True)
class _Range:
    """Keys above `after`, up to and including `last`; None is the end of the prefix."""

    after: str
    last: str | None
    token: str = ""
    """Continuation token of the next page."""
    ended: bool = False

    def take(self, answer: "ListObjectsV2OutputTypeDef") -> list["ObjectTypeDef"]:
        """The objects of an answer that belong to the range. Afterwards the range begins behind them."""
        found = answer.get("Contents", [])
        if found:
            self.after = found[-1]["Key"]
        self.token = answer.get("NextContinuationToken", "")
        self.ended = not answer.get("IsTruncated")
        if self.last is not None and self.after >= self.last:
            self.ended = True
            return found[: bisect_right(found, self.last, key=_key)]
        return found

    def middle(self, prefix: str) -> str | None:
        """A text between `after` and `last`, by the first character in which they differ. None if there is none."""
        high = self.last if self.last is not None else prefix + _LAST
        if self.after >= high:
            return None
        common = len(os.path.commonprefix([self.after, high]))  # noqa: RUF071 -- by characters, not by path parts
        lower = ord(self.after[common : common + 1] or _FIRST)
        upper = ord(min(high[common], _LAST))
        if upper - lower > 1:
            return self.after[:common] + chr((lower + upper) // 2)
        # Adjacent characters. Between them are texts that begin with `after`, or with its first characters.
        ends = (self.after[:length] + _LAST for length in range(common + 1, len(self.after) + 1))
        return next((end for end in ends if self.after < end < high), None)


class _Listing:
    """The requests in flight. A single thread uses it; only requests run in others."""

    def __init__(self, client: "S3Client", bucket: str, prefix: str) -> None:
        self._client = client
        self._scope: Any = {"Bucket": bucket, "Prefix": prefix}
        self._pool = ThreadPoolExecutor(REQUESTS, thread_name_prefix="list")
        self._pages: dict[Future[ListObjectsV2OutputTypeDef], _Range] = {}
        self._probes: dict[Future[ListObjectsV2OutputTypeDef], tuple[_Range, str]] = {}
        self._sequential = bucket.endswith(UNORDERED)
        self._split = False

    def objects(self) -> "Generator[ObjectTypeDef]":
        try:
            self._turn_page(_Range("", None))
            while self._pages:
                for future in wait([*self._pages, *self._probes], return_when=FIRST_COMPLETED).done:
                    if keys := self._pages.pop(future, None):
                        answer = future.result()
                        self._in_order(answer.get("Contents", []))
                        found = keys.take(answer)
                        if not keys.ended:
                            self._turn_page(keys)
                            self._probe(keys)
                        yield from found
                    else:
                        self._divide(*self._probes.pop(future), future)
        finally:
            self._pool.shutdown(cancel_futures=True)

    def _turn_page(self, keys: _Range) -> None:
        start = {"ContinuationToken": keys.token} if keys.token else {"StartAfter": keys.after}
        self._pages[self._ask(**start)] = keys

    def _probe(self, keys: _Range) -> None:
        """Request a key beyond the middle of a range, unless such a request is in flight or no connection is free."""
        asked = any(one is keys for one, _middle in self._probes.values())
        if self._sequential or asked or len(self._pages) + len(self._probes) >= REQUESTS:
            return
        if middle := keys.middle(self._scope["Prefix"]):
            self._probes[self._ask(StartAfter=middle, MaxKeys=1)] = keys, middle

    def _ask(self, **arguments: Any) -> "Future[ListObjectsV2OutputTypeDef]":
        return self._pool.submit(self._client.list_objects_v2, **self._scope, **arguments)

    def _divide(self, keys: _Range, middle: str, probe: "Future[ListObjectsV2OutputTypeDef]") -> None:
        """Split the range at its middle, if there are keys beyond it."""
        if keys.ended or keys.after >= middle:
            return  # its pages have passed the middle already
        answer = probe.result()
        if not self._in_order([{"Key": middle}, *answer.get("Contents", [])]):
            return  # the storage ignores StartAfter
        beyond = _Range(middle, keys.last)
        keys.last = middle
        if beyond.take(answer):
            self._split = True
            self._turn_page(_Range(middle, beyond.last))
        self._probe(keys)

    def _in_order(self, found: "Sequence[ObjectTypeDef]") -> bool:
        """Whether these keys are in order. If not, no range is split any more; if one was split already, it fails."""
        if all(one["Key"] < other["Key"] for one, other in pairwise(found)):
            return True
        self._sequential = True
        if self._split:
            bucket = self._scope["Bucket"]
            raise SourceError(
                f"the S3 storage of bucket {bucket!r} does not list keys in byte order, as others do: "
                "write the references into a list, and give that as the source."
            )
        return False


def objects(client: "S3Client", bucket: str, prefix: str) -> "Generator[ObjectTypeDef]":
    """Every object whose key starts with the prefix, once, in undefined order.

    Args:
        client: an S3 client with `REQUESTS` connections.

    Raises:
        ClientError, BotoCoreError: a request failed.
        SourceError: the storage does not list in the byte order of keys.
    """
    return _Listing(client, bucket, prefix).objects()


def _key(item: "ObjectTypeDef") -> str:
    return item["Key"]
