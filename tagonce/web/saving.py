"""What was moved, beside what the profile says; and saving it as a profile."""

from collections.abc import Collection
from itertools import chain, count

import numpy as np
from sqlalchemy import Connection
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from db import comparison, profiles
from db.errors import ThresholdError
from db.kept import Int64Array
from db.policies import Policy
from db.profiles import Profile
from tagonce.web.changes import changes_shown
from tagonce.web.shell import fields, in_a_thread, reviewer, shell, site_of
from tagonce.web.site import Site
from tagonce.web.sliders import all_sliders
from tagonce.web.templating import page
from tagonce.web.view import Thresholds, View, save_command, thresholds_of

MOST = 100
"""Tags in the table."""


def compare(request: Request) -> Response:
    """`/compare`"""
    site, view = site_of(request), View.of(request.query_params)
    with site.database.read() as connection:
        thresholds = thresholds_of(connection, site.model, site.tags, view)
        known = profiles.every(connection, site.model)
    name = thresholds.profile.name if thresholds.profile else _free({one.name for one in known})
    gained, lost, exact = _by_tag(site, thresholds)
    changes = gained + lost
    order = np.lexsort((np.arange(changes.size), -changes))[: np.count_nonzero(changes)].tolist()
    return page(
        "compare.html",
        **shell(request, view, "/compare"),
        **changes_shown(site, view, thresholds, "/compare"),
        rows=[(tag_id, site.tags[tag_id].name, int(gained[tag_id]), int(lost[tag_id])) for tag_id in order[:MOST]],
        more=max(len(order) - MOST, 0),
        exact_by_tag=exact,
        moves=[one for one in all_sliders(site, view, thresholds) if one.moved is not None],
        name=name,
        names=sorted({one.name for one in known}),
        params=view.params(),
        save=save_command(view, name, site.command) if view.changes != Policy() else "",
    )


async def save(request: Request) -> Response:
    """`POST /save`: a view's fields, and `name`."""
    return await in_a_thread(request, _save, await fields(request))


def _save(request: Request, said: dict[str, str]) -> Response:
    site = site_of(request)
    name = said.pop("name", "").strip()
    view = View.of(QueryParams(said))
    with site.database.write() as connection:
        thresholds = thresholds_of(connection, site.model, site.tags, view)
        if thresholds.policy == Policy():
            raise ThresholdError("Nothing to save: no threshold was moved.")
        _check_base(connection, site, name, thresholds.profile)
        base = f"{thresholds.label}, " if thresholds.profile else ""
        source = f"{base}changed by {reviewer(request)} in tagonce review"
        saved = profiles.save(connection, site.model, name, thresholds.policy, source=source)
    return RedirectResponse(view.address("/", also={"saved": "1"}, profile=saved.label, changes=Policy()), 303)


def _free(names: Collection[str]) -> str:
    """One that no profile has."""
    candidates = chain(["mine"], (f"mine-{number}" for number in count(2)))
    return next(name for name in candidates if name not in names)


def _check_base(connection: Connection, site: Site, name: str, base: Profile | None) -> None:
    """A next version begins with the one before it, or what that says would be gone without a word.

    Raises:
        ThresholdError: there is a profile of that name, and its latest version is not what was moved away from.
    """
    latest = [one for one in profiles.every(connection, site.model) if one.name == name]
    if latest and (base is None or base.id != latest[-1].id):
        raise ThresholdError(
            f"{latest[-1].label} is there, with thresholds of its own that this would drop. Choose it as the profile "
            "in the gallery first, and move from there; or take another name."
        )


def _by_tag(site: Site, thresholds: Thresholds) -> tuple[Int64Array, Int64Array, bool]:
    """Images that gain each tag, and that lose it; and whether that is of the whole collection."""
    counted, pool = site.collection.distribution, site.collection.pool_at_once
    before, cut = thresholds.before, thresholds.cut
    if counted is not None and counted.can_tell(before) and counted.can_tell(cut):
        return *counted.gained_lost(before, cut), True
    if pool is None:
        none = np.zeros(len(site.tags), dtype=np.int64)
        return none, none, False
    found = comparison.compare_batches([pool], before, cut)
    population = counted.images if counted else len(pool)
    return found.gained, found.lost, len(pool) >= population
