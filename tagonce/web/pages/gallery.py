"""The gallery: pictures with their tags at the current thresholds."""

from urllib.parse import urlsplit

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from db.policy import profiles
from db.policy.policies import own_threshold
from db.policy.profiles import MODEL_DEFAULT
from tagonce.web.parts.cards import cards_of, deltas, verdicts
from tagonce.web.parts.changes import changes_shown
from tagonce.web.parts.selection import found_in_words, pictures
from tagonce.web.parts.sliders import category_sliders, default_slider, tag_sliders
from tagonce.web.shell import reviewer, shell, site_of
from tagonce.web.templating import page
from tagonce.web.view import SIZES, Sample, View, thresholds_of

CARDS = "x-cards"
"""The header in which the script sends the digests of the cards that it shows, separated by spaces. `Referer` is the
address that they belong to. The answer is `#results` alone, with deltas in place of those cards."""
_SAMPLES = {
    Sample.RANDOM: "drawn at random from the whole collection",
    Sample.DIVERSE: "as different from each other as possible, by their scores",
    Sample.NEAREST: "with the most tags close to their thresholds",
    Sample.SEARCH: "that the search finds, at the thresholds of the profile",
}


def gallery(request: Request) -> Response:
    """`/`"""
    site, view = site_of(request), View.of(request.query_params)
    shown = request.headers.get(CARDS)
    with site.database.read() as connection:
        thresholds = thresholds_of(connection, site.model, site.tags, view)
        found = pictures(site, connection, view, thresholds)
        note = found_in_words(site, connection, view, thresholds)
        said = verdicts(site, connection, found.image_ids, reviewer(request))
        labels = profiles.labels(connection, site.model) if shown is None else []
    cards = cards_of(site, found, thresholds, said)
    values = {
        **shell(request, view, "/"),
        **changes_shown(site, view, thresholds, "/"),
        "note": note,
        "saved": "saved" in request.query_params,
    }
    if shown is not None:
        before = View.of(QueryParams(urlsplit(request.headers.get("referer", "")).query))
        known = {}
        # The card of an image also depends on the profile and on the kind of sample.
        if (before.profile, before.sample) == (view.profile, view.sample):
            earlier = cards_of(site, found, thresholds.moved_by(site.model, site.tags, before.changes), said)
            known = deltas(cards, earlier, set(shown.split()))
        return page("results.html", **values | {"back": view.address("/")}, cards=cards, known=known)
    has_default = any(label.startswith(f"{MODEL_DEFAULT}@") for label in labels)
    return page(
        "gallery.html",
        **values,
        cards=cards,
        known={},
        profiles=labels,
        own=None if has_default else own_threshold(site.model),
        default=default_slider(site, view, thresholds),
        categories=category_sliders(site, view, thresholds),
        tag_changes=tag_sliders(site, view, thresholds),
        samples=_SAMPLES.items(),
        sizes=SIZES,
    )
