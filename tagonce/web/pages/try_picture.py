"""Tags an uploaded picture with the model, and stores nothing."""

from typing import Any

from anyio import to_thread
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from db.errors import ImageError, SettingsError
from db.read.tag_batches import kept_of
from tagonce.web.shell import shell, site_of
from tagonce.web.templating import page
from tagonce.web.view import View, thresholds_of

MOST = 100
"""Tags in the table."""


def show(request: Request) -> Response:
    """`/try`"""
    return _page(request, {})


async def run(request: Request) -> Response:
    """`POST /try`: a file."""
    async with request.form(max_files=1, max_fields=10) as form:
        file = form.get("file")
        data = await file.read() if isinstance(file, UploadFile) else b""
        name = (file.filename or "") if isinstance(file, UploadFile) else ""
    return await to_thread.run_sync(_run, request, data, name, limiter=site_of(request).tagger.turn)


def _run(request: Request, data: bytes, name: str) -> Response:
    site, view = site_of(request), View.of(request.query_params)
    if not data:
        raise SettingsError("No picture came along. Choose a file first.")
    with site.database.read() as connection:
        cut = thresholds_of(connection, site.model, site.tags, view).cut
    try:
        found = site.tagger.probabilities(data)
    except ImageError as error:
        return _page(request, {"file": name, "error": str(error)}, status=400)
    kept = set(kept_of(found, cut))
    ranked = sorted((pair for pair in enumerate(found) if site.has_name[pair[0]]), key=lambda pair: -pair[1])[:MOST]
    rows = [(tag_id, site.tags[tag_id].name, value, tag_id in kept) for tag_id, value in ranked]
    return _page(request, {"file": name, "rows": rows})


def _page(request: Request, values: dict[str, Any], status: int = 200) -> Response:
    site = site_of(request)
    view = View.of(request.query_params)
    blank = {"file": "", "rows": [], "error": ""}
    return page(
        "try.html",
        status,
        **shell(request, view, "/try"),
        **(blank | values),
        missing=site.tagger.missing,
        action=view.address("/try"),
    )
