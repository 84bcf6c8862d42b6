"""The rate of fetching: objects by obstore and by boto3, and local files.

    python bench/fetch.py [--seconds 3] [--latency 20]

The storage is `static_s3.py` in its own process, and waits before each answer to simulate network latency. All ways use
`workers.storage.fetch`; for boto3, obstore is disabled. CPU time is that of the worker alone. Storage and worker share
the cores of this machine: with few cores the storage limits many threads.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import static_s3
from rich.console import Console
from rich.table import Table

from db.names.uris import file_uri
from workers.storage.fetch import Fetcher
from workers.storage.obstore_like_boto3 import Stores

SIZES = {"200 kB": 200_000, "2 MB": 2_000_000}
THREADS = (1, 8, 32)


class Distant(static_s3.Handler):
    """Answers after a delay."""

    disable_nagle_algorithm = True  # otherwise the end of an answer may wait 40 ms for an ACK
    seconds: float

    def do_GET(self) -> None:  # noqa: N802 -- the name that http.server calls
        """Answer as the base class does, after the delay."""
        time.sleep(self.seconds)
        super().do_GET()


def serve(root: str, seconds: float, port: Any) -> None:
    """Run the storage.

    Args:
        port: queue that receives its port.
    """
    Distant.root, Distant.seconds = Path(root), seconds
    with ThreadingHTTPServer(("127.0.0.1", 0), Distant) as server:
        port.put(server.server_port)
        server.serve_forever()


def boto3_alone() -> Fetcher:
    """A fetcher that never uses obstore."""

    class Nowhere(Stores):
        def like(self, *_: Any) -> None:
            return None

    fetcher = Fetcher(max_bytes=10**9, connections=max(THREADS))
    fetcher._objects.__dict__["_stores"] = Nowhere(fetcher._objects._s3.meta.config)  # noqa: SLF001
    return fetcher


def measure(fetch: Callable[[str], bytes], uri: str, threads: int, seconds: float) -> str:
    """Objects/s and CPU of one way."""
    begun, cpu = time.perf_counter(), time.process_time()
    end = begun + seconds

    def one() -> int:
        number = 0
        while time.perf_counter() < end:
            fetch(uri)
            number += 1
        return number

    with ThreadPoolExecutor(threads) as pool:
        number = sum(future.result() for future in [pool.submit(one) for _ in range(threads)])
    took, cpu = time.perf_counter() - begun, time.process_time() - cpu
    return f"{number / took:,.0f}/s, {cpu / number * 1000:.2f} ms"


def main() -> None:
    """Every size and way, one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3, help="for each figure")
    parser.add_argument("--latency", type=float, default=20, help="milliseconds before an answer")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / "bucket").mkdir()
        port = context.Queue()
        storage = context.Process(target=serve, args=(root, options.latency / 1000, port), daemon=True)
        storage.start()
        os.environ |= {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port.get()}",
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        ways = {
            "obstore": Fetcher(max_bytes=10**9, connections=max(THREADS)),
            "boto3": boto3_alone(),
            "local file": Fetcher(max_bytes=10**9, connections=1),
        }
        table = Table("", *(f"threads: {threads}" for threads in THREADS), title="objects/s, CPU an object")
        for name, size in SIZES.items():
            path = Path(root) / "bucket" / name.replace(" ", "")
            path.write_bytes(os.urandom(size))
            for way, fetcher in ways.items():
                uri = file_uri(str(path)) if way == "local file" else f"s3://bucket/{path.name}"
                fetcher.fetch(uri)
                cells = [measure(fetcher.fetch, uri, threads, options.seconds) for threads in THREADS]
                table.add_row(f"{name}, {way}", *cells)
        storage.terminate()
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
