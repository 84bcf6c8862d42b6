# ruff: noqa: INP001 -- a script of the worker image, no package
"""Exit with 0 if the worker of this container answers through Redis, with 1 if not.

A worker with a broken connection may have a live process, so the check goes through Redis as messages do. Docker shows
the result (`docker compose ps`) and does not restart the container because of it.
"""

import os
import socket
import sys

from producer.queue.broker import create_app

TIMEOUT_SECONDS = 5.0


def main() -> int:
    """Ping the worker by host name: the process id in its name is unknown here."""
    app = create_app(os.environ["TAGONCE_BROKER_URL"], model_id=0, client_name="tagonce-healthcheck")
    inspect = app.control.inspect(
        pattern=f"tagonce-*@{socket.gethostname()}", matcher="glob", timeout=TIMEOUT_SECONDS, limit=1
    )
    return 0 if inspect.ping() else 1


if __name__ == "__main__":
    sys.exit(main())
