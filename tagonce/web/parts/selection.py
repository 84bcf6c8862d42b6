"""Selects the pictures that a view shows."""

from functools import partial

import numpy as np
from sqlalchemy import Connection, Select, select

from db import sampling
from db.errors import SettingsError
from db.names.plural import counted
from db.read.tag_batches import TagBatch
from db.schema import images, predictions
from db.search import execute
from db.search.query import Node, named_model, parse
from db.sql.gone_scope import tagged
from db.sql.streams import plan_for_all_rows
from tagonce.options.under_option import uri_prefix
from tagonce.web.state.site import Site
from tagonce.web.view import Sample, Thresholds, View

MOST_COUNTED = 1_000
"""Limit of the number of hits that is counted; above it the page says that there are more."""
_DIVERSE_POOL = 2_000


def pictures(site: Site, connection: Connection, view: View, thresholds: Thresholds) -> TagBatch:
    """The images to show, with all of their scores."""
    if view.sample is Sample.NEAREST:
        return load(site, connection, _nearest(site, view, thresholds))
    if view.sample is Sample.DIVERSE:
        return load(site, connection, _diverse(site, view))
    if view.sample is Sample.SEARCH and view.query:
        return load(site, connection, _found(site, connection, view, thresholds))
    key = (Sample.RANDOM, view.seed, view.size)
    drawn = site.sample(key, lambda: sampling.random_ids(connection, site.model, view.size, view.seed))
    return load(site, connection, drawn)


def found_in_words(site: Site, connection: Connection, view: View, thresholds: Thresholds) -> str:
    """The number of hits in words; empty without a search."""
    if view.sample is not Sample.SEARCH or not view.query:
        return ""
    found = len(_first_found(site, connection, view, thresholds))
    return (
        f"The search finds {f'more than {MOST_COUNTED:,} images' if found > MOST_COUNTED else counted(found, 'image')}."
    )


def load(site: Site, connection: Connection, ids: list[int]) -> TagBatch:
    """The images with these ids, in this order, with all of their scores."""
    return sampling.load(connection, site.model, ids, site.model.floor)


def parsed(site: Site, connection: Connection, query: str, thresholds: Thresholds) -> Node:
    """Parse a search, at the thresholds of the profile.

    Raises:
        SettingsError: it has a syntax error, or names another model.
    """
    if other := named_model(query):
        raise SettingsError(
            f"Here are the scores of {site.model.name}. Leave model: out, or start tagonce review --model {other}."
        )
    return parse(query, site.model, site.tags, thresholds.before, prefix_of=partial(uri_prefix, connection))


def _nearest(site: Site, view: View, thresholds: Thresholds) -> list[int]:
    """The seed is the number of the page: the nearest images are on the first page."""
    pool = site.collection.pool
    if pool is None:
        return []
    places = sampling.undecided(pool, thresholds.cut, len(pool))
    return [pool.image_ids[place] for place in _page(places, view)]


def _diverse(site: Site, view: View) -> list[int]:
    pool = site.collection.pool
    if pool is None or not len(pool):
        return []
    return site.sample((Sample.DIVERSE, view.seed, view.size), lambda: _spread(site, pool, view))


def _spread(site: Site, pool: TagBatch, view: View) -> list[int]:
    some = np.random.default_rng(view.seed).permutation(len(pool))[:_DIVERSE_POOL]
    part = sampling.part_of(pool, some)
    return [part.image_ids[place] for place in sampling.diverse(part, view.size, view.seed, len(site.tags))]


def _found(site: Site, connection: Connection, view: View, thresholds: Thresholds) -> list[int]:
    """Hits of a search: pages in order if there are few hits, otherwise hits from a position that the seed selects."""
    first = _first_found(site, connection, view, thresholds)
    if len(first) <= MOST_COUNTED:
        return _page(first, view)
    if view.seed == 1:
        return first[: view.size]
    begin = next(iter(sampling.random_ids(connection, site.model, 1, view.seed)), 0)
    query = _query(site, connection, view, thresholds).limit(view.size)
    found = [row.image_id for row in connection.execute(query.where(predictions.c.image_id >= begin))]
    return found + first[: view.size - len(found)]


def _first_found(site: Site, connection: Connection, view: View, thresholds: Thresholds) -> list[int]:
    """At most one more than the limit of the count."""
    profile = thresholds.profile.id if thresholds.profile else None
    query = _query(site, connection, view, thresholds).limit(MOST_COUNTED + 1)
    return site.sample((view.query, profile), lambda: [row.image_id for row in connection.execute(query)])


def _query(site: Site, connection: Connection, view: View, thresholds: Thresholds) -> Select[tuple[int]]:
    condition = execute.condition(connection, site.model, parsed(site, connection, view.query, thresholds))
    plan_for_all_rows(connection)
    return (
        select(predictions.c.image_id)
        .select_from(predictions.join(images, images.c.id == predictions.c.image_id))
        .where(tagged(connection, site.model.id), condition)
        .order_by(predictions.c.image_id)
    )


def _page(found: list[int], view: View) -> list[int]:
    """The seed is the number of the page; the first page follows the last one."""
    pages = max(-(-len(found) // view.size), 1)
    start = (view.seed - 1) % pages * view.size
    return found[start : start + view.size]
