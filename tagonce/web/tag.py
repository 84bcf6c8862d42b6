"""One tag: how its scores are spread over the collection, pictures at its line, and how right it is there."""

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from db import labels, sampling
from db.judging import calibration, histograms
from db.judging.calibration import By, Goal
from db.judging.histograms import Histogram
from db.judging.precision import Estimate, confusion_of, precision_at
from db.labels import Drawn, TagLabels
from db.policies import NEVER, Cut
from db.scores import SCALE
from tagonce.web.cards import Card, picture_of, verdicts
from tagonce.web.chart import chart_of
from tagonce.web.gallery import changes_shown
from tagonce.web.shell import reviewer, shell, site_of
from tagonce.web.site import Site
from tagonce.web.sliders import tag_slider
from tagonce.web.templating import page
from tagonce.web.view import View, thresholds_of

BINS = 100
_PICTURES = 8
"""On either side of the line."""
_DRAWN = 12
"""To judge."""
_GOALS = (
    ("best informedness", Goal(min_support=1)),
    ("best F1", Goal(By.F_BETA, min_support=1)),
    ("precision at least 0.9", Goal(By.F_BETA, min_precision=0.9, min_support=1)),
)


class Show(StrEnum):
    """Which pictures."""

    LINE = "line"
    """Just above and just below it."""
    ABOVE = "above"
    """Drawn at random from what is kept."""
    BELOW = "below"
    """Drawn at random from what is not."""


@dataclass(frozen=True, slots=True)
class Best:
    """The threshold that serves a goal best, by the labels."""

    goal: str
    score: int
    precision: float
    recall: float


@dataclass(frozen=True, slots=True)
class Judged:
    """What the labels say of a tag at its line."""

    labels: int
    right: int
    precision: Estimate | None
    recall: float
    informedness: float
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
        strips=strips,
        drawn=Drawn.LINE if show is Show.LINE else Drawn.RANDOM,
        spread=spread,
        chart=chart_of(spread, score, [one.score for one in judged.best]),
        keeps=_keeps(site, spread, tag_id, thresholds.cut),
        judged=judged,
    )


def _spread(site: Site, connection: Connection, tag_id: int) -> Histogram:
    """Of the collection as it was counted; where it was not, one statement counts this tag."""
    counted = site.collection.distribution
    if counted is not None:
        return counted.histogram(tag_id, BINS)
    return histograms.histogram(connection, site.model, tag_id, BINS)


def _keeps(site: Site, spread: Histogram, tag_id: int, cut: Cut) -> int:
    """Images at or above the line."""
    counted = site.collection.distribution
    if counted is not None:
        return int(counted.kept(cut)[tag_id])
    return sum(spread.counts[min(int(cut.scores[tag_id]) * BINS // SCALE, BINS) :])


def _strips(site: Site, connection: Connection, tag_id: int, score: int, show: Show, seed: int, by: str) -> list[Strip]:
    model, floor = site.model, site.model.floor
    if show is Show.LINE:
        line = min(score, SCALE)
        above, below = sampling.around(connection, model, tag_id, line, _PICTURES, site.collection.distribution)
        found = [("Just above: these have the tag", above), ("Just below: these do not", below)]
    elif show is Show.ABOVE:
        drawn = sampling.with_tag(connection, model, tag_id, score, NEVER, _DRAWN, seed)
        found = [("Drawn at random from what has the tag", drawn)]
    else:
        drawn = sampling.with_tag(connection, model, tag_id, floor, min(score, NEVER), _DRAWN, seed)
        found = [("Drawn at random from what does not have it, and has a score", drawn)]
    said = verdicts(site, connection, [hit.image_id for _, hits in found for hit in hits], by)
    return [Strip(title, [picture_of(site, hit, tag_id, score, said) for hit in hits]) for title, hits in found]


def _judged(known: TagLabels, tried: list[int], score: int, spread: Histogram) -> Judged:
    at, every = confusion_of(known, [min(score, SCALE)]), confusion_of(known, tried)
    best = []
    for words, goal in _GOALS:
        (place,), _ = calibration.best(every, goal)
        if place >= 0:
            best.append(Best(words, tried[place], float(every.precision[0, place]), float(every.recall[0, place])))
    kept = int((known.scores >= score).sum())
    return Judged(
        len(known),
        int(known.right.sum()),
        precision_at(known, score, spread.counts) if kept else None,
        float(at.recall[0, 0]),
        float(at.informedness[0, 0]),
        best,
    )


def _show(said: str) -> Show:
    return Show(said) if said in list(Show) else Show.LINE
