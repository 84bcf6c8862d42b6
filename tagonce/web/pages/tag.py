"""One tag: the distribution of its scores, pictures at its threshold, and its precision by labels."""

from dataclasses import dataclass, replace
from enum import StrEnum

from sqlalchemy import Connection
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from db import sampling
from db.policy.policies import Cut
from db.read import histograms
from db.read.histograms import Histogram
from db.scores import NEVER, SCALE
from db.search import execute
from db.search.tree import Reaches
from db.truth import calibration, labels
from db.truth.calibration import By, Goal
from db.truth.labels import NOT_STORED, Drawn, TagLabels
from db.truth.precision import Estimate, Figures, Weights, confusion_of, figures_at, precision_at, weights_of
from tagonce.web.parts.cards import Card, picture_of, verdicts
from tagonce.web.parts.changes import changes_shown
from tagonce.web.parts.chart import chart_of
from tagonce.web.parts.sliders import tag_slider
from tagonce.web.parts.totals import Number, limits_in_words, totals_of
from tagonce.web.shell import reviewer, shell, site_of
from tagonce.web.state.site import Site
from tagonce.web.templating import page
from tagonce.web.view import View, thresholds_of

BINS = 100
_PICTURES = 8
"""Pictures on either side of the threshold."""
_PAGES = 50
_DRAWN = 12
"""Pictures to judge."""
ENOUGH, ENOUGH_OF_EACH = 10, 3
"""Least number of labels; and of right ones, wrong ones, and those on either side of the threshold. Recall and the best
threshold need as many."""
_COVERED = 0.8
"""Share of the images above the threshold that must be in ranges of scores with labels for an interval to be shown."""
_GOALS = (
    ("best informedness", Goal(min_support=1)),
    ("best F1", Goal(By.F_BETA, min_support=1)),
    ("precision at least 0.9", Goal(By.F_BETA, min_precision=0.9, min_support=1)),
)


class Show(StrEnum):
    """The pictures to show."""

    LINE = "line"
    """Just above and just below it."""
    ABOVE = "above"
    """Drawn at random from the images that keep the tag."""
    BELOW = "below"
    """Drawn at random from the images that do not."""


@dataclass(frozen=True, slots=True)
class Best:
    """The best threshold for a goal, by the labels."""

    goal: str
    """One or several, separated by commas."""
    score: int
    figures: Figures


@dataclass(frozen=True, slots=True)
class Judged:
    """Metrics of a tag at its threshold, by the labels."""

    labels: int
    right: int
    precision: Estimate | None
    """None without labels above the threshold."""
    lowest: int
    """Recall and informedness count images from this score on; `NOT_STORED`: all images."""
    figures: Figures | None
    """None if the labels suffice for precision only."""
    best: list[Best]


@dataclass(frozen=True, slots=True)
class Strip:
    """Pictures side by side."""

    title: str
    cards: list[Card]


def tag(request: Request) -> Response:
    """`/tag/{tag_id}`"""
    site, view = site_of(request), View.of(request.query_params)
    tag_id = request.path_params["tag_id"]
    if tag_id >= len(site.tags) or not site.tags[tag_id].name:  # an empty name holds a slot of the model
        raise HTTPException(404, f"{site.model.name} has no tag {tag_id}.")
    show = _show(request.query_params.get("show", ""))
    with site.database.read() as connection:
        thresholds = thresholds_of(connection, site.model, site.tags, view)
        score = int(thresholds.cut.scores[tag_id])
        spread = _spread(site, connection, tag_id)
        keeps, limits = _keeps(site, connection, tag_id, thresholds.cut), limits_in_words(thresholds.cut, tag_id)
        strips = _strips(site, connection, tag_id, score, show, view.seed, reviewer(request))
        judged = _judged(
            labels.of_tag(connection, site.model, tag_id), calibration.grid(site.model.floor), score, spread
        )
    return page(
        "tag.html",
        **shell(request, view, "/tags"),
        **changes_shown(site, view, thresholds, f"/tag/{tag_id}"),
        tag_id=tag_id,
        tag=site.tags[tag_id],
        slider_shown=tag_slider(site, view, thresholds, tag_id),
        score=score,
        show=show,
        shows=[(Show.LINE, "at the line"), (Show.ABOVE, "random, above"), (Show.BELOW, "random, below")],
        # With MCut or top-k, an image above the threshold may lack the tag.
        strips=[replace(strip, title=strip.title.partition(":")[0]) for strip in strips] if limits else strips,
        drawn=Drawn.LINE if show is Show.LINE else Drawn.SIDE,
        spread=spread,
        chart=chart_of(spread, score, [one.score for one in judged.best]),
        keeps=keeps,
        limits=limits,
        judged=judged,
        enough=(ENOUGH, ENOUGH_OF_EACH),
        covered_enough=_COVERED,
        all_images=NOT_STORED,
    )


def _spread(site: Site, connection: Connection, tag_id: int) -> Histogram:
    """From the counts of the collection; without them one statement counts this tag."""
    counted = site.collection.distribution
    if counted is not None:
        return counted.histogram(tag_id, BINS)
    return histograms.histogram(connection, site.model, tag_id, BINS)


def _keeps(site: Site, connection: Connection, tag_id: int, cut: Cut) -> Number | None:
    """Images that keep the tag; None before the first counts."""
    totals = totals_of(site, cut)
    if totals is not None and totals.exact[tag_id]:
        return totals.of(tag_id)
    if limits_in_words(cut, tag_id):
        return totals.of(tag_id) if totals else None
    leaf = Reaches((tag_id,), (max(int(cut.scores[tag_id]), site.model.floor),), NEVER)
    return Number(0 if leaf.lows[0] >= NEVER else execute.count(connection, site.model, leaf), exact=True)


def _strips(site: Site, connection: Connection, tag_id: int, score: int, show: Show, seed: int, by: str) -> list[Strip]:
    model, floor = site.model, site.model.floor
    if show is Show.LINE:
        line = min(score, SCALE)
        # The seed is the number of the page, from the line outwards.
        first = _PICTURES * (min(seed, _PAGES) - 1)
        sides = sampling.around(connection, model, tag_id, line, first + _PICTURES, site.collection.distribution)
        titles = ("Just above: these have the tag", "Just below: these do not")
        found = [(title, side[first:]) for title, side in zip(titles, sides, strict=True)]
    elif show is Show.ABOVE:
        drawn = sampling.with_tag(connection, model, tag_id, score, NEVER, _DRAWN, seed)
        found = [("Drawn at random from above: these have the tag", drawn)]
    else:
        drawn = sampling.with_tag(connection, model, tag_id, floor, min(score, NEVER), _DRAWN, seed)
        found = [("Drawn at random from below, down to the floor: these do not", drawn)]
    said = verdicts(site, connection, [hit.image_id for _, near in found for hit in near], by)
    return [Strip(title, [picture_of(site, hit, tag_id, score, said) for hit in near]) for title, near in found]


def _judged(known: TagLabels, tried: list[int], score: int, spread: Histogram) -> Judged:
    weights = weights_of(known, min(score, SCALE), spread.counts, spread.not_stored)
    enough = _are_enough(known, score)
    return Judged(
        len(known),
        int(known.right.sum()),
        precision_at(known, score, spread.counts) if (known.scores >= score).any() else None,
        weights.lowest if weights.lowest == NOT_STORED else max(weights.lowest, tried[0]),
        figures_at(known, min(score, SCALE), weights.values) if enough else None,
        _best(known, tried, weights) if enough else [],
    )


def _are_enough(known: TagLabels, score: int) -> bool:
    kinds = known.right, ~known.right, known.scores >= score, known.scores < score
    return len(known) >= ENOUGH and all(kind.sum() >= ENOUGH_OF_EACH for kind in kinds)


def _best(known: TagLabels, tried: list[int], weights: Weights) -> list[Best]:
    tried = [score for score in tried if score >= weights.lowest]
    every = confusion_of(known, tried, weights.values)
    goals: dict[int, list[str]] = {}
    for words, goal in _GOALS:
        (place,), _ = calibration.best(every, goal)
        if place >= 0:
            goals.setdefault(int(place), []).append(words)
    return [
        Best(", ".join(words), tried[place], figures_at(known, tried[place], weights.values))
        for place, words in goals.items()
    ]


def _show(said: str) -> Show:
    return Show(said) if said in list(Show) else Show.LINE
