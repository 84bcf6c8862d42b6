"""Serves the pages, until Ctrl-C or SIGTERM."""

import socket
from collections.abc import Callable

import uvicorn

from db.errors import SettingsError
from tagonce.web.app import create_app
from tagonce.web.security import TOKEN, Access, is_loopback, new_token
from tagonce.web.state.site import Site
from tagonce.web.view import View

_CONNECTIONS = 200
"""Limit of connections; more are answered with 503."""
_GOODBYE_SECONDS = 3


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        SettingsError: the address is not available.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise SettingsError(
            f"Port {port} of {host} is not available: {error.strerror}. Give another --port; 0 selects a free one."
        ) from error


def serve(site: Site, listening: socket.socket, host: str, view: View, announce: Callable[[str], None]) -> None:
    """Serve one model, until Ctrl-C or SIGTERM.

    Args:
        host: of the listening socket.
        view: the view of the first page.
        announce: called with the address once the server answers.
    """
    config = site.settings
    token = config.review_token or (None if is_loopback(host) else new_token())
    app = create_app(site, Access(token, largest_body=config.max_bytes))
    site.collection.count()
    announce(_address(host, listening.getsockname()[1], view, token))
    uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,  # addresses hold searches
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=_GOODBYE_SECONDS,
        )
    ).run(sockets=[listening])


def _address(host: str, port: int, view: View, token: str | None) -> str:
    name = socket.gethostname() if host in {"0.0.0.0", "::"} else f"[{host}]" if ":" in host else host  # noqa: S104
    address = f"http://{name}:{port}{view.address('/')}"
    return address if token is None else f"{address}{'&' if '?' in address else '?'}{TOKEN}={token}"
