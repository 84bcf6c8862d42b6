"""A minimal S3 server for reading a folder: HEAD, GET and ListObjectsV2, without checking signatures.

    python bench/static_s3.py ROOT PORT

`ROOT/bucket/key` is the object. moto, which simulates all of AWS, took 2.7 ms of CPU an object of 175 kB, this server
takes 0.3, and boto3 in the worker 1.5: on two cores a benchmark would measure moto.
"""

import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

PAGE = 1_000
"""Keys in one answer to a listing, as of S3."""


class Handler(BaseHTTPRequestHandler):
    """One connection, kept open between requests."""

    protocol_version = "HTTP/1.1"
    root: Path

    def do_HEAD(self) -> None:
        """Answer for a bucket or an object."""
        path = self._path()
        self._begin(path.stat().st_size if path.is_file() else 0, path if path.is_file() else None, path.exists())

    def do_GET(self) -> None:
        """Send an object, or the next page of a listing."""
        path = self._path()
        if path.is_file():
            with path.open("rb") as file:
                self._begin(path.stat().st_size, path)
                self.connection.sendfile(file)
        elif path.is_dir():
            body = self._listing(path)
            self._begin(len(body))
            self.wfile.write(body)
        else:
            self._begin(0, exists=False)

    def log_message(self, *_arguments: object) -> None:
        """Log nothing: there are thousands of requests."""

    def _path(self) -> Path:
        return self.root / unquote(urlsplit(self.path).path).strip("/")

    def _begin(self, length: int, file: Path | None = None, exists: bool = True) -> None:
        self.send_response(HTTPStatus.OK if exists else HTTPStatus.NOT_FOUND)
        self.send_header("Content-Length", str(length))
        if file:
            self.send_header("ETag", _etag(file))
        self.end_headers()

    def _listing(self, bucket: Path) -> bytes:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        prefix, after = asked.get("prefix", ""), asked.get("continuation-token", "")
        files = {path.relative_to(bucket).as_posix(): path for path in bucket.rglob("*") if path.is_file()}
        keys = sorted(key for key in files if key.startswith(prefix) and key > after)
        page = keys[:PAGE]
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{files[key].stat().st_size}</Size>"
            f"<ETag>{escape(_etag(files[key]))}</ETag></Contents>"
            for key in page
        )
        more = (
            f"<IsTruncated>true</IsTruncated><NextContinuationToken>{escape(page[-1])}</NextContinuationToken>"
            if len(keys) > PAGE
            else "<IsTruncated>false</IsTruncated>"
        )
        return f"<ListBucketResult><KeyCount>{len(page)}</KeyCount>{more}{contents}</ListBucketResult>".encode()


def _etag(file: Path) -> str:
    status = file.stat()
    return f'"{status.st_size:x}-{status.st_mtime_ns:x}"'


if __name__ == "__main__":
    Handler.root = Path(sys.argv[1])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
