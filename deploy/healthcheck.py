# ruff: noqa: INP001 -- a script of the worker image, no package
"""Exit 0 when the worker of this container answers through Redis, 1 when it does not.

A worker whose process is alive and whose connection is not looks well from outside, so the question takes the way the
messages take. Docker shows the answer (`docker compose ps`) and restarts nothing because of it.
"""

import os
import socket
import sys

from producer.queue.broker import create_app

TIMEOUT_SECONDS = 5.0


def main() -> int:
    """Ask by host name: the process id in the worker's name is not known here, the container's name is."""
    app = create_app(os.environ["TAGONCE_BROKER_URL"], model_id=0, client_name="tagonce-healthcheck")
    inspect = app.control.inspect(
        pattern=f"tagonce-*@{socket.gethostname()}", matcher="glob", timeout=TIMEOUT_SECONDS, limit=1
    )
    return 0 if inspect.ping() else 1


if __name__ == "__main__":
    sys.exit(main())
