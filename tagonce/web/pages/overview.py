"""Progress of a run, failures, seconds per stage, and the most frequent tags."""

import numpy as np
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from db.errors import Reason
from db.ledger.workers import Stage
from db.policy.policies import Cut
from tagonce.output.ui import EXPLAINED
from tagonce.web.parts.changes import when_counted
from tagonce.web.parts.totals import Number, limits_in_words, totals_of
from tagonce.web.shell import fields, path_back, shell, site_of
from tagonce.web.state.site import Site
from tagonce.web.templating import page
from tagonce.web.view import View, thresholds_of

_TOP_TAGS = 20


def overview(request: Request) -> Response:
    """`/overview?reason=corrupt`"""
    site, view = site_of(request), View.of(request.query_params)
    said = request.query_params.get("reason", "")
    reason = Reason(said) if said in list(Reason) else None
    with site.database.read() as connection:
        thresholds = thresholds_of(connection, site.model, site.tags, view)
    run = site.watch.status(reason)
    work = run.work
    return page(
        "overview.html",
        **shell(request, view, "/overview"),
        run=run,
        reason=reason,
        explained=EXPLAINED,
        stages=[] if work is None else [(stage, work.seconds_an_image(stage), work.images[stage]) for stage in Stage],
        work=work,
        top=_top(site, thresholds.cut),
        limits=limits_in_words(thresholds.cut),
        counted=when_counted(site),
        counting=site.collection.counting,
        command_ending=site.command,
    )


def _top(site: Site, cut: Cut) -> list[tuple[str, int, Number]]:
    """The most frequent tags: name, id, images."""
    totals = totals_of(site, cut)
    if totals is None:
        return []
    order = np.where(site.has_name, -totals.kept, 0).argsort(kind="stable")[:_TOP_TAGS].tolist()
    return [
        (site.tags[tag_id].name, tag_id, totals.of(tag_id))
        for tag_id in order
        if totals.kept[tag_id] and site.has_name[tag_id]
    ]


async def recount(request: Request) -> Response:
    """`POST /recount`: count the collection anew."""
    said = await fields(request)
    site_of(request).collection.count(anyway=True)
    return RedirectResponse(path_back(said), 303)
