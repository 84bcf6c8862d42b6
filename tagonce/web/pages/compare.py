"""Compares the moved thresholds with the profile, and saves them as a profile."""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain, count

import numpy as np
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from db.arrays.types import Int64Array
from db.errors import ThresholdError
from db.policy import profiles
from db.policy.policies import Policy
from db.policy.profiles import MODEL_DEFAULT
from db.read import comparison
from tagonce.web.parts.changes import changes_shown
from tagonce.web.parts.sliders import all_sliders
from tagonce.web.parts.totals import Number
from tagonce.web.shell import fields, in_a_thread, reviewer, shell, site_of
from tagonce.web.state.site import Site
from tagonce.web.templating import page
from tagonce.web.view import Thresholds, View, save_command, thresholds_of

MOST = 100
"""Tags in the table."""


def compare(request: Request) -> Response:
    """`/compare`"""
    site, view = site_of(request), View.of(request.query_params)
    with site.database.read() as connection:
        thresholds = thresholds_of(connection, site.model, site.tags, view)
        names = {label.partition("@")[0] for label in profiles.labels(connection, site.model)}
    base = thresholds.profile
    name = base.name if base and base.name != MODEL_DEFAULT else _free(names)
    by_tag = _by_tag(site, thresholds)
    parts, exact = (by_tag.gained, by_tag.lost), by_tag.estimated_from is None
    changes = by_tag.gained + by_tag.lost
    order = np.lexsort((np.arange(changes.size), -changes))[: np.count_nonzero(changes)].tolist()
    return page(
        "compare.html",
        **shell(request, view, "/compare"),
        **changes_shown(site, view, thresholds, "/compare"),
        rows=[
            (tag_id, site.tags[tag_id].name, *(Number(int(part[tag_id]), exact) for part in parts))
            for tag_id in order[:MOST]
        ],
        more=max(len(order) - MOST, 0),
        estimated_from=by_tag.estimated_from,
        moves=[one for one in all_sliders(site, view, thresholds) if one.moved is not None],
        name=name,
        names=sorted(names - {MODEL_DEFAULT}),
        # With its version: the saved profile names its origin, even if another person saves meanwhile.
        params=view.params(profile=thresholds.profile.label if thresholds.profile else ""),
        save=save_command(view, name, site.command, default=thresholds.profile_name)
        if view.changes != Policy()
        else "",
    )


async def save(request: Request) -> Response:
    """`POST /save`: a view's fields, and `name`."""
    return await in_a_thread(request, _save, await fields(request))


def _save(request: Request, said: dict[str, str]) -> Response:
    site = site_of(request)
    name = said.pop("name", "").strip()
    view = View.of(QueryParams(said))
    with site.database.write() as connection:
        profiles.hold(connection, site.model)
        thresholds = thresholds_of(connection, site.model, site.tags, view)
        if thresholds.policy == Policy():
            raise ThresholdError("Nothing to save: no threshold was moved.")
        base = thresholds.profile
        source = f"{base.label + ', ' if base else ''}changed by {reviewer(request)} in tagonce review"
        saved = profiles.save(
            connection,
            site.model,
            name,
            thresholds.policy,
            source=source,
            # A next version starts from the one before it. Otherwise its other thresholds would be lost silently.
            started_from=base.version if base and base.name == name else 0,
        )
    return RedirectResponse(view.address("/", also={"saved": "1"}, profile=saved.label, changes=Policy()), 303)


def _free(names: Collection[str]) -> str:
    """A name that no profile has."""
    candidates = chain(["mine"], (f"mine-{number}" for number in count(2)))
    return next(name for name in candidates if name not in names)


@dataclass(frozen=True, slots=True)
class ByTag:
    """Images that gain or lose each tag, arrays in step."""

    gained: Int64Array
    lost: Int64Array
    estimated_from: int | None
    """Number of images drawn at random; None for counts of the whole collection."""


def _by_tag(site: Site, thresholds: Thresholds) -> ByTag:
    counted, drawn = site.collection.distribution, site.collection.drawn
    before, cut = thresholds.before, thresholds.cut
    if counted is not None and counted.can_compare(before, cut):
        return ByTag(*counted.gained_lost(before, cut), None)
    if drawn is None:
        none = np.zeros(len(site.tags), dtype=np.int64)
        return ByTag(none, none, None)
    found = comparison.compare_batches([drawn.pool], before, cut)
    estimated_from = None if drawn.is_everything else len(drawn.pool)
    return ByTag(drawn.scaled(found.gained), drawn.scaled(found.lost), estimated_from)
