"""One image: large, with everything that is stored of it; and its pictures."""

import logging

from anyio import to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from db import failures
from db.errors import ImageError, TagonceError
from tagonce.web.cards import cards_of, verdicts
from tagonce.web.gallery import load
from tagonce.web.shell import reviewer, shell, site_of
from tagonce.web.templating import environment, page
from tagonce.web.thumbnails import PREVIEW_SIZE, SIZE
from tagonce.web.view import View, thresholds_of

_KEEP = "private, max-age=600"

log = logging.getLogger(__name__)


def image(request: Request) -> Response:
    """`/image/{image_id}`"""
    site, view = site_of(request), View.of(request.query_params)
    image_id = request.path_params["image_id"]
    with site.read() as connection:
        thresholds = thresholds_of(connection, site.model, site.tags, view)
        found = load(site, connection, [image_id])
        if not len(found):
            raise HTTPException(404, f"{site.model.name} has not tagged an image {image_id}.")
        (card,) = cards_of(
            site, found, thresholds, verdicts(site, connection, found.image_ids, reviewer(request)), most=None
        )
    return page("image.html", **shell(request, view, ""), card=card, thresholds=thresholds)


async def thumbnail(request: Request) -> Response:
    """`/thumb/{image_id}`"""
    return await _in_a_thread(request, SIZE)


async def preview(request: Request) -> Response:
    """`/preview/{image_id}`: the same, larger."""
    return await _in_a_thread(request, PREVIEW_SIZE)


async def _in_a_thread(request: Request, side: int) -> Response:
    """Of those for pictures alone: a storage that hangs for minutes shall not keep the pages waiting."""
    return await to_thread.run_sync(_picture, request, side, limiter=site_of(request).pictures)


def _picture(request: Request, side: int) -> Response:
    site, image_id = site_of(request), request.path_params["image_id"]
    with site.read() as connection:
        found = failures.reference(connection, image_id)
    if found is None:
        raise HTTPException(404, f"There is no image {image_id}.")
    if found.has_crashed:
        return _placeholder("crashed a worker", "It is not opened here: it would take this page along.")
    try:
        data = site.thumbnails.get(image_id, found.uri, found.version, side=side)
    except ImageError as error:
        return _placeholder(str(error.reason), error.detail)
    except TagonceError as error:
        log.warning("image %d has no thumbnail now: %s", image_id, error)
        return _placeholder("not to be had now", "The storage does not answer, or refuses us: the log says why.")
    return Response(data, media_type="image/webp", headers={"Cache-Control": _KEEP})


def _placeholder(words: str, detail: str = "") -> Response:
    """A picture that says why there is none: a broken link would say nothing."""
    drawn = environment().get_template("placeholder.svg").render(words=words, detail=detail)
    return Response(drawn, media_type="image/svg+xml")
