"""One image: its preview, and all of its stored scores and labels."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tagonce.web.parts.cards import cards_of, verdicts
from tagonce.web.parts.selection import load
from tagonce.web.shell import reviewer, shell, site_of
from tagonce.web.templating import page
from tagonce.web.view import View, thresholds_of


def image(request: Request) -> Response:
    """`/image/{image_id}`"""
    site, view = site_of(request), View.of(request.query_params)
    image_id = request.path_params["image_id"]
    with site.database.read() as connection:
        thresholds = thresholds_of(connection, site.model, site.tags, view)
        found = load(site, connection, [image_id])
        if not len(found):
            raise HTTPException(404, f"{site.model.name} has not tagged an image {image_id}.")
        (card,) = cards_of(
            site, found, thresholds, verdicts(site, connection, found.image_ids, reviewer(request)), most=None
        )
    return page("image.html", **shell(request, view, ""), card=card, thresholds=thresholds)
