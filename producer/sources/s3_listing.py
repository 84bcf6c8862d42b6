"""All objects below a prefix of S3, by several requests at a time.

S3 gives a thousand keys an answer, and only its end tells where to go on. But it lists in the order of the bytes of the
keys, and starts after any text: so keys can be cut into stretches anywhere, and these listed side by side, and none is
missed and none comes twice. Where a cut is good is found by halving. While a connection is free, a stretch is asked
whether there are keys beyond its middle, as one looks up a word in a dictionary. That needs no folders, and is not
misled by a million of them with a file in each.
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
"""At a time. Bounds memory too: so many answers are held."""
UNORDERED = "--x-s3"
"""How names of directory buckets end, the one kind that AWS does not list in order."""

_FIRST, _LAST = " ", "~"
"""Cuts are made at printable ASCII. Keys of other characters are listed too, with those that lie beside them."""


@dataclass(eq=False, slots=True)
class _Stretch:
    """Keys above `after`, up to and including `last`; None is the end of the prefix."""

    after: str
    last: str | None
    token: str = ""
    """How S3 goes on with what it began."""
    ended: bool = False

    def take(self, answer: "ListObjectsV2OutputTypeDef") -> list["ObjectTypeDef"]:
        """Those objects of an answer that belong to the stretch, which from now on begins behind them."""
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
        """A text between `after` and `last`, in the first character in which these differ. None when none is left."""
        high = self.last if self.last is not None else prefix + _LAST
        if self.after >= high:
            return None
        common = len(os.path.commonprefix([self.after, high]))  # noqa: RUF071 -- by characters it has to be
        lower = ord(self.after[common : common + 1] or _FIRST)
        upper = ord(min(high[common], _LAST))
        if upper - lower > 1:
            return self.after[:common] + chr((lower + upper) // 2)
        # Neighbours. In between is what begins like `after`, for one character more, and so on.
        ends = (self.after[:length] + _LAST for length in range(common + 1, len(self.after) + 1))
        return next((end for end in ends if self.after < end < high), None)


class _Listing:
    """The requests that are on their way. One thread uses it; only requests run in others."""

    def __init__(self, client: "S3Client", bucket: str, prefix: str) -> None:
        self._client = client
        self._scope: Any = {"Bucket": bucket, "Prefix": prefix}
        self._pool = ThreadPoolExecutor(REQUESTS, thread_name_prefix="list")
        self._pages: dict[Future[ListObjectsV2OutputTypeDef], _Stretch] = {}
        self._probes: dict[Future[ListObjectsV2OutputTypeDef], tuple[_Stretch, str]] = {}
        self._whole = bucket.endswith(UNORDERED)
        self._cut = False

    def objects(self) -> "Generator[ObjectTypeDef]":
        try:
            self._turn_page(_Stretch("", None))
            while self._pages:
                for future in wait([*self._pages, *self._probes], return_when=FIRST_COMPLETED).done:
                    if stretch := self._pages.pop(future, None):
                        answer = future.result()
                        self._in_order(answer.get("Contents", []))
                        found = stretch.take(answer)
                        if not stretch.ended:
                            self._turn_page(stretch)
                            self._probe(stretch)
                        yield from found
                    else:
                        self._divide(*self._probes.pop(future), future)
        finally:
            self._pool.shutdown(cancel_futures=True)

    def _turn_page(self, stretch: _Stretch) -> None:
        start = {"ContinuationToken": stretch.token} if stretch.token else {"StartAfter": stretch.after}
        self._pages[self._ask(**start)] = stretch

    def _probe(self, stretch: _Stretch) -> None:
        """Ask for a key beyond the middle of a stretch, unless that is being asked or every connection is in use."""
        asked = any(one is stretch for one, _middle in self._probes.values())
        if self._whole or asked or len(self._pages) + len(self._probes) >= REQUESTS:
            return
        if middle := stretch.middle(self._scope["Prefix"]):
            self._probes[self._ask(StartAfter=middle, MaxKeys=1)] = stretch, middle

    def _ask(self, **arguments: Any) -> "Future[ListObjectsV2OutputTypeDef]":
        return self._pool.submit(self._client.list_objects_v2, **self._scope, **arguments)

    def _divide(self, stretch: _Stretch, middle: str, probe: "Future[ListObjectsV2OutputTypeDef]") -> None:
        """Make what lies beyond the middle a stretch of its own; there may be nothing."""
        if stretch.ended or stretch.after >= middle:
            return  # the pages were faster
        answer = probe.result()
        if not self._in_order([{"Key": middle}, *answer.get("Contents", [])]):
            return  # it does not know StartAfter
        beyond = _Stretch(middle, stretch.last)
        stretch.last = middle
        if beyond.take(answer):
            self._cut = True
            self._turn_page(_Stretch(middle, beyond.last))
        self._probe(stretch)

    def _in_order(self, found: "Sequence[ObjectTypeDef]") -> bool:
        """Whether the storage can be cut, as far as is known. One that cannot, and was, is an error."""
        if all(one["Key"] < other["Key"] for one, other in pairwise(found)):
            return True
        self._whole = True
        if self._cut:
            bucket = self._scope["Bucket"]
            raise SourceError(
                f"the S3 of bucket {bucket!r} does not list keys in the order of their bytes, as others do: "
                "write the references into a list, and give that as the source."
            )
        return False


def objects(client: "S3Client", bucket: str, prefix: str) -> "Generator[ObjectTypeDef]":
    """Every object whose key starts with the prefix, once, in no order.

    Args:
        client: with `REQUESTS` connections.

    Raises:
        ClientError, BotoCoreError: whatever botocore raises for a request.
        SourceError: this storage does not list in the order of keys.
    """
    return _Listing(client, bucket, prefix).objects()


def _key(item: "ObjectTypeDef") -> str:
    return item["Key"]
