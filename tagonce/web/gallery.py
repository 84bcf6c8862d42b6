"""The gallery: pictures with the tags that they have at the thresholds of the moment."""

from typing import Any

import numpy as np
from sqlalchemy import Connection, select
from starlette.requests import Request
from starlette.responses import Response

from db import profiles, sampling
from db.database import expect_all_rows
from db.errors import SettingsError
from db.kept import Kept
from db.policies import Policy, own_threshold
from db.schema import images, predictions
from db.search import hits
from db.search.query import Node, named_model, parse
from tagonce.policy_options import uri_prefix
from tagonce.web.cards import cards_of, verdicts
from tagonce.web.changes import assignments_of, change_of, when_counted
from tagonce.web.shell import reviewer, shell, site_of
from tagonce.web.site import Site
from tagonce.web.sliders import category_sliders, default_slider, tag_sliders
from tagonce.web.templating import page
from tagonce.web.view import (
    SIZES,
    Sample,
    Thresholds,
    View,
    export_command,
    thresholds_of,
)

_SAMPLES = {
    Sample.RANDOM: "drawn at random from the whole collection",
    Sample.DIVERSE: "as different from each other as possible, by their scores",
    Sample.NEAREST: "with the most tags close to their thresholds",
    Sample.SEARCH: "that the search finds, at the thresholds of the profile",
}
_DIVERSE_POOL = 2_000


def gallery(request: Request) -> Response:
    """`/`"""
    site, view = site_of(request), View.of(request.query_params)
    with site.database.read() as connection:
        thresholds = thresholds_of(connection, site.model, site.tags, view)
        found = pictures(site, connection, view, thresholds)
        said = verdicts(site, connection, found.image_ids, reviewer(request))
        known = profiles.every(connection, site.model)
    return page(
        "gallery.html",
        **shell(request, view, "/"),
        **changes_shown(site, view, thresholds, "/"),
        cards=cards_of(site, found, thresholds, said),
        profiles=known,
        own=own_threshold(site.model),
        default=default_slider(site, view, thresholds),
        categories=category_sliders(site, view, thresholds),
        tag_changes=tag_sliders(site, view, thresholds),
        samples=_SAMPLES.items(),
        sizes=SIZES,
        saved="saved" in request.query_params,
    )


def changes_shown(site: Site, view: View, thresholds: Thresholds, path: str) -> dict[str, Any]:
    """What `_change.html` needs.

    Args:
        path: of the page that shows it.
    """
    return {
        "back_to_profile": view.address(path, changes=Policy()),
        "thresholds": thresholds,
        "change": change_of(site, thresholds),
        "assignments": assignments_of(site, thresholds),
        "counted": when_counted(site),
        "counting": site.collection.counting,
        "export": export_command(view, thresholds, site.command),
    }


def pictures(site: Site, connection: Connection, view: View, thresholds: Thresholds) -> Kept:
    """Those to show, with everything that is stored of them."""
    if view.sample is Sample.NEAREST:
        return load(site, connection, _nearest(site, view, thresholds))
    if view.sample is Sample.DIVERSE:
        return load(site, connection, _diverse(site, view))
    profile = thresholds.profile.id if thresholds.profile else None
    key = (view.query if view.sample is Sample.SEARCH else None, profile, view.seed, view.size)
    ids = site.samples.get(key, lambda: _ids(site, connection, view, thresholds))
    return load(site, connection, ids)


def load(site: Site, connection: Connection, ids: list[int]) -> Kept:
    """Images in this order, with all of their scores."""
    return sampling.load(connection, site.model, ids, site.model.floor)


def _ids(site: Site, connection: Connection, view: View, thresholds: Thresholds) -> list[int]:
    if view.sample is Sample.SEARCH and view.query:
        return _found(site, connection, view, thresholds)
    return sampling.random_ids(connection, site.model, view.size, view.seed)


def parsed(site: Site, query: str, thresholds: Thresholds) -> Node:
    """A search, at the thresholds of the profile.

    Raises:
        SettingsError: it cannot be understood, or asks for the scores of another model.
    """
    if other := named_model(query):
        raise SettingsError(
            f"Here are the scores of {site.model.name}. Leave model: out, or start tagonce review --model {other}."
        )
    return parse(query, site.model, site.tags, thresholds.before, prefix_of=uri_prefix)


def _nearest(site: Site, view: View, thresholds: Thresholds) -> list[int]:
    """The seed is the number of the page: the nearest ones first, then those that come after them."""
    pool = site.collection.pool
    if pool is None:
        return []
    places = sampling.undecided(pool, thresholds.cut, len(pool))
    first = (view.seed - 1) * view.size % max(len(places), 1)
    return [pool.image_ids[place] for place in places[first : first + view.size]]


def _diverse(site: Site, view: View) -> list[int]:
    pool = site.collection.pool
    if pool is None or not len(pool):
        return []
    return site.samples.get((Sample.DIVERSE, view.seed, view.size), lambda: _spread(site, pool, view))


def _spread(site: Site, pool: Kept, view: View) -> list[int]:
    some = np.random.default_rng(view.seed).permutation(len(pool))[:_DIVERSE_POOL]
    part = sampling.part_of(pool, some)
    return [part.image_ids[place] for place in sampling.diverse(part, view.size, view.seed, len(site.tags))]


def _found(site: Site, connection: Connection, view: View, thresholds: Thresholds) -> list[int]:
    """Of a search: as many as are shown, from a place that the seed says on, and from the start again."""
    tree = parsed(site, view.query, thresholds)
    condition = hits.condition(connection, site.model, tree)
    query = (
        select(predictions.c.image_id)
        .select_from(predictions.join(images, images.c.id == predictions.c.image_id))
        .where(predictions.c.model_id == site.model.id, condition)
        .order_by(predictions.c.image_id)
        .limit(view.size)
    )
    expect_all_rows(connection)
    if view.seed == 1:
        return list(connection.scalars(query))
    start = next(iter(sampling.random_ids(connection, site.model, 1, view.seed)), 0)
    found = list(connection.scalars(query.where(predictions.c.image_id >= start)))
    if len(found) < view.size:
        found += connection.scalars(query.where(predictions.c.image_id < start).limit(view.size - len(found)))
    return found
