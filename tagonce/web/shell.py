"""What every page has around it: who looks, where else to go, where to return to."""

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
"""The cookie that holds the name of the person who judges."""
_MOST_FIELDS = 300
_SLIDER_STEP = 100
"""A score: 0.01."""


def site_of(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


def reviewer(request: Request) -> str:
    """The name that labels are kept under: of the cookie, where it is one."""
    name = unquote(request.cookies.get(REVIEWER, ""))
    try:
        labels.check_name(name)
    except SettingsError:
        return site_of(request).reviewer
    return name


async def fields(request: Request) -> dict[str, str]:
    """What a form without files says."""
    async with request.form(max_files=0, max_fields=_MOST_FIELDS) as form:
        return {name: str(value) for name, value in form.items()}


async def in_a_thread(request: Request, function: Callable[..., Response], *arguments: Any) -> Response:
    """Of as many as may ask the database at once; those that come then wait."""
    return await to_thread.run_sync(function, request, *arguments, limiter=site_of(request).askers)


def page_handler(function: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
    """A page that is written as a plain function."""

    @wraps(function)
    async def handler(request: Request) -> Response:
        return await in_a_thread(request, function)

    return handler


def path_back(said: dict[str, str]) -> str:
    """Where a form wants to return to: a page of ours, never another host."""
    back = said.get("back", "")
    return back if back.startswith("/") and not back.startswith(("//", "/\\")) else "/"


def shell(request: Request, view: View, here: str) -> dict[str, Any]:
    """What `base.html` needs."""
    site, url = site_of(request), request.url
    site.collection.count_again()
    return {
        "view": view,
        "query": escape(view.address("")),  # what every link ends with: with "?" before it, or empty
        "pages": PAGES,
        "here": here,
        "back": f"{url.path}?{url.query}" if url.query else url.path,
        "who": reviewer(request),
        "model": site.model,
        "place": site.database.label,
        "floor": to_probability(site.model.floor),
        "least": -(-site.model.floor // _SLIDER_STEP) * _SLIDER_STEP / SCALE,  # where sliders begin
    }
