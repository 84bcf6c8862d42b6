"""Thumbnails and previews for the pages. An image without one gets a picture with the reason, not a broken link."""

import logging

from anyio import move_on_after, to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from db.errors import ImageError, TagonceError
from db.ledger import failures
from tagonce.web.pictures.thumbnails import PREVIEW_SIZE, SIZE
from tagonce.web.shell import site_of
from tagonce.web.templating import environment

_WAIT_SECONDS = 2.0
"""Seconds. A browser sends six requests to a host at once: pictures from a slow storage would delay the pages."""
_WIDTH, WIDTH_TO_COME = SIZE, PREVIEW_SIZE + 1
"""Sides in pixels of a picture with text. By the second, which no other picture has, the script knows to ask again."""
_KEEP = {"Cache-Control": "private, max-age=600"}

log = logging.getLogger(__name__)


async def thumbnail(request: Request) -> Response:
    """`/thumb/{image_id}`"""
    return await _within_seconds(request, SIZE)


async def preview(request: Request) -> Response:
    """`/preview/{image_id}`: the same, larger."""
    return await _within_seconds(request, PREVIEW_SIZE)


async def _within_seconds(request: Request, side: int) -> Response:
    """Runs in a thread of its own. If it takes longer, it continues, and the next request gets the picture."""
    limiter = site_of(request).pictures
    with move_on_after(_WAIT_SECONDS):
        return await to_thread.run_sync(_picture, request, side, limiter=limiter, abandon_on_cancel=True)
    return _words("still being fetched", width=WIDTH_TO_COME)


def _picture(request: Request, side: int) -> Response:
    site, image_id = site_of(request), request.path_params["image_id"]
    with site.database.read() as connection:
        found = failures.stored_image(connection, image_id)
    if found is None:
        raise HTTPException(404, f"There is no image {image_id}.")
    if found.has_crashed:
        return _words("crashed a worker", "It is not opened here: it would take this page along.")
    try:
        data = site.thumbnails.get(image_id, found.uri, found.version, side=side)
    except ImageError as error:
        return _words(str(error.reason), error.detail)
    except TagonceError as error:
        log.warning("image %d has no thumbnail now: %s", image_id, error)
        return _words("not available now", "The storage does not answer, or refuses access. The log has the reason.")
    return Response(data, media_type="image/webp", headers=_KEEP)


def _words(words: str, detail: str = "", *, width: int = _WIDTH) -> Response:
    drawn = environment().get_template("placeholder.svg").render(words=words, detail=detail, width=width)
    return Response(drawn, media_type="image/svg+xml")
