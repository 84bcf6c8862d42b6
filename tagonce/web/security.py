"""Access control of the review page, and the security headers of its responses.

loopback            every user of this machine has access. A page of another host has none: its name could resolve to
127.0.0.1 (DNS rebinding), so only names of this machine are answered
anywhere else       a token is needed; a browser with the token gets a cookie, and the token leaves the address
everywhere          a change must come from a page of this server (Origin, Sec-Fetch-Site); bodies are limited;
nothing is loaded from, sent to or framed by another host (Content-Security-Policy)
"""

import ipaddress
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp

TOKEN = "token"  # noqa: S105 - the name of a parameter
SMALL_BODY = 64 * 1024
"""Limit of a body in bytes. Only a picture to try may be larger."""

_SAFE = {"GET", "HEAD"}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Addresses hold searches, and before the first redirect a token. Not "no-referrer": browsers would then not send
    # the origin of a form.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_Next = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Access:
    """Access rules of one server."""

    token: str | None = None
    """None: every client that uses a name of this machine."""
    largest_body: int = SMALL_BODY
    """Limit of a picture to try, in bytes."""
    large_path: str = "/try"


class Guard(BaseHTTPMiddleware):
    """Lets requests in by the rules of `Access`."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        super().__init__(app)
        self._access = access

    async def dispatch(self, request: Request, call_next: _Next) -> Response:
        """Answer, or refuse in one sentence."""
        response = self._refused(request)
        if response is None:
            response = await call_next(request)
        return guarded(response)

    def _refused(self, request: Request) -> Response | None:
        token = self._access.token
        refusal = _of_another_name(request) if token is None else _without_token(request, token)
        return refusal or (None if request.method in _SAFE else self._change_refused(request))

    def _change_refused(self, request: Request) -> Response | None:
        if not _is_ours(request):
            return _refusal(403, "This did not come from a page of tagonce review.")
        limit = self._access.largest_body if request.url.path == self._access.large_path else SMALL_BODY
        length = request.headers.get("content-length", "")
        # With both, the length has no effect (RFC 9112, 6.3).
        if not length.isdecimal() or "transfer-encoding" in request.headers:
            return _refusal(411, "What is sent has to say how long it is.")
        if int(length) > limit:
            return _refusal(413, f"More than {limit:,} bytes are not taken here.")
        return None


def guarded(response: Response) -> Response:
    """Add the security headers to a response."""
    for name, value in _HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def is_loopback(host: str) -> bool:
    """Whether a host is a loopback address or `localhost`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def new_token() -> str:
    """A random token, too long to guess."""
    return secrets.token_urlsafe(24)


def _of_another_name(request: Request) -> Response | None:
    if is_loopback(_host(request.headers.get("host", ""))):
        return None
    return _refusal(421, "This page answers to 127.0.0.1 and localhost. For other names, see --host.")


def _without_token(request: Request, token: str) -> Response | None:
    """None if the cookie is valid."""
    # Cookies ignore ports: two pages on one host would share one.
    cookie = f"tagonce-{request.url.port or 0}"
    if _same(request.cookies.get(cookie, ""), token):
        return None
    if not _same(request.query_params.get(TOKEN, ""), token):
        return _refusal(403, "Open the address that `tagonce review` printed: it holds a token, and this one does not.")
    left = urlencode([pair for pair in parse_qsl(request.url.query, keep_blank_values=True) if pair[0] != TOKEN])
    response = RedirectResponse(request.url.path + (f"?{left}" if left else ""), 303)
    response.set_cookie(cookie, token, httponly=True, samesite="lax", secure=request.url.scheme == "https")
    return response


def _is_ours(request: Request) -> bool:
    """Browsers send at least one of the two headers with a POST; a page of another host cannot forge them."""
    if site := request.headers.get("sec-fetch-site"):
        return site == "same-origin"
    scheme, _, place = request.headers.get("origin", "").partition("://")
    return bool(scheme) and place == request.headers.get("host")


def _host(header: str) -> str:
    """The host without its port, and without the brackets of IPv6."""
    try:
        return (urlsplit(f"//{header}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _same(one: str, other: str) -> bool:
    return secrets.compare_digest(one.encode(), other.encode())


def _refusal(status: int, sentence: str) -> Response:
    return PlainTextResponse(sentence + "\n", status)
