"""One image: large, with everything that is stored of it; and its pictures."""

from sqlalchemy import select
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from db.errors import ImageError, TagonceError
from db.schema import images
from tagonce.web.cards import cards_of, verdicts
from tagonce.web.gallery import load
from tagonce.web.shell import reviewer, shell, site_of
from tagonce.web.site import Site
from tagonce.web.templating import environment, page
from tagonce.web.view import View, thresholds_of

_KEEP = "private, max-age=600"


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


def thumbnail(request: Request) -> Response:
    """`/thumb/{image_id}`"""
    return _picture(request)


def preview(request: Request) -> Response:
    """`/preview/{image_id}`: the same, larger."""
    return _picture(request)


def _picture(request: Request) -> Response:
    site = site_of(request)
    image_id = request.path_params["image_id"]
    uri, version = _reference(site, image_id)
    try:
        data = site.thumbnails.get(image_id, uri, version)
    except ImageError as error:
        return _placeholder(str(error.reason))
    except TagonceError as error:
        return _placeholder("not to be had now", str(error))
    return Response(data, media_type="image/webp", headers={"Cache-Control": _KEEP})


def _reference(site: Site, image_id: int) -> tuple[str, str]:
    """Where an image is, and the version of it that is known."""
    with site.read() as connection:
        row = connection.execute(select(images.c.uri, images.c.version).where(images.c.id == image_id)).first()
    if row is None:
        raise HTTPException(404, f"There is no image {image_id}.")
    return row.uri, row.version


def _placeholder(words: str, detail: str = "") -> Response:
    """A picture that says why there is none: a broken link would say nothing."""
    drawn = environment().get_template("placeholder.svg").render(words=words, detail=detail)
    return Response(drawn, media_type="image/svg+xml")
