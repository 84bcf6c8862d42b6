"""References in a list: a manifest file, or standard input.

A reference to a file that does not exist has no version, and becomes a failure of that image. A row that cannot be a
reference stops the run with its number.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TextIO

from db.errors import SourceError
from db.ledger.images import Reference
from db.names import text_files
from producer.sources.addresses import resolve
from producer.sources.extensions import extension
from producer.sources.list_rows import READERS, TABLES, Row, at, null_rows, null_separated, text_rows
from producer.sources.listed_files import LocalNames
from producer.uris import split_s3

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

THREADS = 32
LOOK_AHEAD = 4 * THREADS
"""References held while HEAD requests for their objects run. Bounds memory; a few per thread keep all busy."""


def is_manifest(path: str) -> bool:
    return extension(path) in READERS


def in_manifest(path: str, base: str, column: str | None, *, null: bool = False) -> Iterator[Reference]:
    """Every reference in the file, in its order.

    Args:
        path: of the file.
        base: folder of relative references.
        column: see `references`.
        null: references are separated by NUL, unless the list is a table.

    Raises:
        SourceError: the file cannot be read, or a row is not a reference; then with the number of the row.
    """
    rows = null_separated(path) if null and extension(path) not in TABLES else READERS[extension(path)](path, column)
    try:
        yield from _found(rows, path, base)
    except OSError as error:
        raise SourceError(f"cannot read {path!r}: {error.strerror or error}.") from error


def in_stream(lines: TextIO, base: str, *, null: bool = False) -> Iterator[Reference]:
    """Every reference on standard input, one in each line or separated by NUL.

    Raises:
        SourceError: as of `in_manifest`.
    """
    name = "standard input"
    text_files.as_list(lines, null=null)
    try:
        yield from _found(null_rows(lines) if null else text_rows(lines, name), name, base)
    except UnicodeDecodeError as error:
        raise SourceError(f"{name} is not {error.encoding.upper()} text ({error}).") from error


def _found(rows: Iterable[Row], name: str, base: str) -> Iterator[Reference]:
    empty = True
    names = LocalNames(name, base)
    for reference in _looked_up(_targets(rows, name, base), names):
        empty = False
        yield reference
    names.report()
    if empty:
        raise SourceError(f"no references in {name!r}: it has at most comments or a header.")


def _targets(rows: Iterable[Row], name: str, base: str) -> Iterator[tuple[str, str]]:
    """Absolute paths and `s3://bucket/key`, each with its text in the list."""
    for number, text in rows:
        try:
            target = resolve(text, base)
        except SourceError as error:
            raise at(name, number, error) from error
        if _is_remote(target) and not split_s3(target)[1]:
            raise at(name, number, f"{text!r} names a bucket without an object.")
        yield target, text


def _looked_up(targets: Iterable[tuple[str, str]], names: LocalNames) -> Iterator[Reference]:
    """References in the order of the targets. Threads ask for objects, at most `LOOK_AHEAD` of them ahead."""
    waiting: deque[Reference | Future[Reference]] = deque()
    client: S3Client | None = None
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="head")
    try:
        for target, text in targets:
            if _is_remote(target):
                client = client or _client_for(target)
                waiting.append(pool.submit(_head, client, target))
            else:
                waiting.append(names.reference(target, text))
            while waiting and (isinstance(waiting[0], Reference) or len(waiting) > LOOK_AHEAD):
                yield _ready(waiting.popleft())
        while waiting:
            yield _ready(waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _is_remote(target: str) -> bool:
    return target.startswith("s3://")


def _ready(item: Reference | Future[Reference]) -> Reference:
    return item if isinstance(item, Reference) else item.result()


# Importing boto3 takes a quarter of a second, which a list of local files does not need.


def _client_for(uri: str) -> "S3Client":
    from producer.storage.s3_client import check_endpoint, s3_client

    check_endpoint(split_s3(uri)[0])
    return s3_client(max_pool_connections=THREADS)


def _head(client: "S3Client", uri: str) -> Reference:
    from producer.sources.s3 import head

    return head(client, uri)
