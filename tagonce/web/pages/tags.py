"""All tags: the number of images that keep each at the current thresholds."""

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from db.names.vocabulary import folded_name
from db.policy.policies import unknown_name
from tagonce.web.parts.changes import when_counted
from tagonce.web.parts.totals import limits_in_words, totals_of
from tagonce.web.shell import shell, site_of
from tagonce.web.templating import page
from tagonce.web.view import View, thresholds_of

MOST = 200
"""Tags on the page."""


def tags(request: Request) -> Response:
    """`/tags?find=hair`: the most frequent tags, or those whose names hold a text."""
    site, view = site_of(request), View.of(request.query_params)
    find = request.query_params.get("find", "").strip()[:200]
    with site.database.read() as connection:
        thresholds = thresholds_of(connection, site.model, site.tags, view)
    totals = totals_of(site, thresholds.cut)
    wanted = folded_name(find)
    found = [tag_id for tag_id, name in enumerate(site.folded_names) if name and wanted in name]
    # The exact name first, then names that begin with the text; each group by number of images.
    names, often = site.folded_names, np.zeros(len(site.tags)) if totals is None else totals.kept
    found.sort(key=lambda one: (names[one] != wanted, not names[one].startswith(wanted), -often[one]))
    rows = [
        {
            "tag_id": tag_id,
            "tag": site.tags[tag_id],
            "score": int(thresholds.cut.scores[tag_id]),
            "kept": None if totals is None else totals.of(tag_id),
        }
        for tag_id in found[:MOST]
    ]
    return page(
        "tags.html",
        **shell(request, view, "/tags"),
        find=find,
        rows=rows,
        more=max(len(found) - MOST, 0),
        images=totals.images if totals else 0,
        limits=limits_in_words(thresholds.cut),
        counting=site.collection.counting,
        counted=when_counted(site),
        suggestion="" if found else unknown_name(find, site.vocabulary.names, "tag"),
    )
