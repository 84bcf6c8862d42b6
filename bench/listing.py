"""The rate of listing a bucket: boto3's paginator, sequential, and `producer.sources`, with concurrent requests.

    python bench/listing.py [--keys 100000] [--latency 50]

The bucket is simulated by a server that waits so many milliseconds before each answer, and answers as S3 does: with a
thousand keys, in order. The run fails if both ways do not give the same references.
"""

import argparse
import multiprocessing
import os
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from urllib.parse import parse_qs, urlsplit

import boto3
import synthetic
from rich.console import Console
from rich.table import Table

from db.ledger.images import Reference
from producer.sources import references

PAGE = "1000"
BUCKET = "booru"
NAMES: dict[str, Callable[[int], str]] = {
    "original/ab/cd/abcd....jpg": lambda number: synthetic.uri(number).removeprefix(f"s3://{BUCKET}/"),
    "IMG_00000001.jpg": lambda number: f"IMG_{number:08}.jpg",
    "00000001/image.jpg": lambda number: f"{number:08}/image.jpg",
}


def serve(pattern: str, number: int, latency: float, port: Connection) -> None:
    """Run the server in its own process; its port is sent to `port`."""
    keys = sorted(NAMES[pattern](one) for one in range(number))
    etag = "&quot;d41d8cd98f00b204e9800998ecf8427e&quot;"

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(b"")

        def do_GET(self) -> None:
            time.sleep(latency)
            asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            start = asked.get("continuation-token") or asked.get("start-after", "")
            prefix = asked.get("prefix", "")
            begin = max(bisect_right(keys, start), bisect_left(keys, prefix))
            page = keys[begin : begin + int(asked.get("max-keys", PAGE))]
            end = begin + len(page)
            more = end < len(keys) and keys[end].startswith(prefix)
            contents = "".join(
                f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>{etag}</ETag>"
                "<Size>250000</Size><StorageClass>STANDARD</StorageClass></Contents>"
                for key in page
                if key.startswith(prefix)
            )
            token = f"<NextContinuationToken>{page[-1]}</NextContinuationToken>" if more else ""
            truncated = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
            self.answer(f"<ListBucketResult>{truncated}{token}{contents}</ListBucketResult>".encode())

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port.send(server.server_port)
    server.serve_forever()


def one_by_one() -> Iterator[Reference]:
    """As in boto3's documentation."""
    for page in boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for item in page["Contents"]:
            yield Reference(f"s3://{BUCKET}/{item['Key']}", item["ETag"].strip('"'), item["Size"])


def timed(listing: Iterator[Reference]) -> tuple[set[str], float]:
    """URIs, and how many a second."""
    begun = time.perf_counter()
    uris = [one.uri for one in listing]
    seconds = time.perf_counter() - begun
    if len(set(uris)) != len(uris):
        raise SystemExit("An object was listed twice.")
    return set(uris), len(uris) / seconds


def main() -> None:
    """Every kind of names, one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--latency", type=float, default=50.0, help="milliseconds of each answer")
    options = parser.parse_args()
    os.environ |= {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_DEFAULT_REGION": "us-east-1"}
    title = f"{options.keys:,} keys, {options.latency:g} ms an answer: references/s"
    table = Table("names", title=title, title_justify="left")
    for column in ("boto3's paginator", "tagonce"):
        table.add_column(column, justify="right")
    for pattern in NAMES:
        receiver, sender = multiprocessing.Pipe(duplex=False)
        arguments = (pattern, options.keys, options.latency / 1000, sender)
        server = multiprocessing.get_context("spawn").Process(target=serve, args=arguments, daemon=True)
        server.start()
        os.environ["AWS_ENDPOINT_URL_S3"] = f"http://127.0.0.1:{receiver.recv()}"
        found, before = timed(one_by_one())
        same, ours = timed(references(f"s3://{BUCKET}"))
        server.terminate()
        if same != found or len(found) != options.keys:
            raise SystemExit(f"{len(found):,} and {len(same):,} of {options.keys:,} objects were listed.")
        table.add_row(pattern, f"{before:,.0f}", f"{ours:,.0f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
