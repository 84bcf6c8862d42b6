"""The frame of every page: the reviewer, the navigation, the address to return to."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any
from urllib.parse import unquote

from anyio import to_thread
from markupsafe import escape
from starlette.requests import Request
from starlette.responses import Response

from db.errors import SettingsError
from db.scores import SCALE, to_probability
from db.truth import labels
from tagonce.web.state.site import Site
from tagonce.web.view import View

PAGES = (
    ("/", "Gallery"),
    ("/tags", "Tags"),
    ("/compare", "Compare and save"),
    ("/try", "Try an image"),
    ("/overview", "Overview"),
)
REVIEWER = "tagonce-reviewer"
"""The cookie with the name of the reviewer."""
_MOST_FIELDS = 300
_SLIDER_STEP = 100
"""As a score: 0.01."""


def site_of(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


def reviewer(request: Request) -> str:
    """The name under which labels are stored: the cookie's if it is a valid name, else the user of the server."""
    name = unquote(request.cookies.get(REVIEWER, ""))
    try:
        labels.check_name(name)
    except SettingsError:
        return site_of(request).reviewer
    return name


async def fields(request: Request) -> dict[str, str]:
    """The fields of a form without files."""
    async with request.form(max_files=0, max_fields=_MOST_FIELDS) as form:
        return {name: str(value) for name, value in form.items()}


async def in_a_thread(request: Request, function: Callable[..., Response], *arguments: Any) -> Response:
    """Runs a function in one of the threads that may use the database at once; more requests wait."""
    return await to_thread.run_sync(function, request, *arguments, limiter=site_of(request).askers)


def page_handler(function: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
    """The handler of a page that is a plain function."""

    @wraps(function)
    async def handler(request: Request) -> Response:
        return await in_a_thread(request, function)

    return handler


def path_back(said: dict[str, str]) -> str:
    """The address that a form returns to: a page of this server, never another host."""
    back = said.get("back", "")
    return back if back.startswith("/") and not back.startswith(("//", "/\\")) else "/"


def shell(request: Request, view: View, here: str) -> dict[str, Any]:
    """The variables of `base.html`."""
    site, url = site_of(request), request.url
    site.collection.count_again()
    return {
        "view": view,
        "query": escape(view.address("")),  # the end of every link: with "?" before it, or empty
        "pages": PAGES,
        "here": here,
        "back": f"{url.path}?{url.query}" if url.query else url.path,
        "who": reviewer(request),
        "model": site.model,
        "place": site.database.label,
        "floor": to_probability(site.model.floor),
        "least": -(-site.model.floor // _SLIDER_STEP) * _SLIDER_STEP / SCALE,  # the lowest position of sliders
    }
