"""Concurrent listing gives the result of a sequential one: every key once, for any keys and any order of answers."""

import hashlib
import threading
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from db.errors import SourceError
from producer.sources.s3_listing import REQUESTS, objects
from tests.fixtures.examples import up_to


class Storage:
    """`list_objects_v2` over keys in memory, in the given order, so many in an answer."""

    def __init__(self, keys: Sequence[str], page: int, *, knows_start_after: bool = True) -> None:
        self.keys = keys
        self.page = page
        self.knows_start_after = knows_start_after
        self.begun: list[str] = []
        self.requests = 0
        self._lock = threading.Lock()

    def list_objects_v2(self, **asked: Any) -> dict[str, Any]:
        begin = int(asked.get("ContinuationToken", 0))
        after = asked.get("StartAfter", "").encode() if self.knows_start_after else b""
        with self._lock:
            self.requests += 1
            if not begin:
                self.begun.append(asked["StartAfter"])
        rest = [
            (number, key)
            for number, key in enumerate(self.keys[begin:], begin)
            if key.startswith(asked["Prefix"]) and key.encode() > after
        ]
        found = rest[: min(self.page, asked.get("MaxKeys", 1_000))]
        answer: dict[str, Any] = {"IsTruncated": len(found) < len(rest)}
        if found:
            answer["Contents"] = [{"Key": key} for _number, key in found]
        if answer["IsTruncated"]:
            answer["NextContinuationToken"] = str(found[-1][0] + 1)
        return answer


def listed(storage: Storage, prefix: str = "", bucket: str = "b") -> list[str]:
    return [item["Key"] for item in objects(cast("Any", storage), bucket, prefix)]


keys = st.text(" !/09AZaz~\x7fé日🐈", min_size=1, max_size=5) | st.text("ab/", min_size=1, max_size=12)


@settings(max_examples=up_to(300), deadline=None)
@given(st.sets(keys, max_size=80), st.sampled_from(["", "a", "a/", "é"]), st.integers(1, 4))
@example({f"{number:04}" for number in range(200)}, "", 3)
@example({f"{number:02}/{number}" for number in range(100)}, "", 1)
@example({"a" * length for length in range(1, 40)}, "", 1)
@example({"a" + "~" * length for length in range(40)}, "a", 1)
def test_every_key_comes_once(found: set[str], prefix: str, page: int) -> None:
    got = listed(Storage(sorted(found), page), prefix)
    assert sorted(got) == sorted(key for key in found if key.startswith(prefix))


@pytest.mark.parametrize(
    "pattern",
    ["{md5}.jpg", "{md5:.2}/{md5}.jpg", "IMG_{number:08}.jpg", "one/long/way/down/{number}.png", "{number}/only.jpg"],
)
def test_the_work_is_shared_whatever_the_names_are(pattern: str) -> None:
    """Without folders, with one, a few, or one a file: concurrent requests, hardly more than sequentially."""
    md5s = [hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest() for number in range(1_500)]
    names = sorted(pattern.format(number=number, md5=md5) for number, md5 in enumerate(md5s))
    storage = Storage(names, 8)
    assert sorted(listed(storage)) == names
    assert len(storage.begun) >= REQUESTS
    assert storage.requests < 3 * len(names) / 8


def test_what_one_answer_holds_is_asked_for_once() -> None:
    storage = Storage(["a", "b"], 2)
    assert listed(storage) == ["a", "b"]
    assert storage.requests == 1


# ── storage whose listing cannot be split ──


@pytest.mark.parametrize(
    ("storage", "bucket"),
    [
        (Storage([f"{number:03}" for number in range(300)], 7, knows_start_after=False), "b"),
        (Storage([f"{number:03}" for number in reversed(range(300))], 7), "b"),
        (Storage([f"{number:03}" for number in range(300)], 7), "photos--use1-az4--x-s3"),
    ],
    ids=["it ignores StartAfter", "it has another order", "it is a directory bucket"],
)
def test_storage_without_order_is_listed_by_one(storage: Storage, bucket: str) -> None:
    assert listed(storage, bucket=bucket) == list(storage.keys)
    assert storage.begun[0] == ""
    assert len(storage.begun) <= 2


def test_an_order_that_ends_after_a_cut_is_an_error() -> None:
    """Keys may have been missed already."""
    ordered = [f"{number:03}" for number in range(300)]
    swapped = [f"{number ^ 1:03}" for number in range(300, 900)]
    with pytest.raises(SourceError, match=r"'b' does not list keys in byte order.* into a list"):
        listed(Storage([*ordered, *swapped], 20))
