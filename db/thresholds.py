"""Thresholds over stored scores. Says what is wanted; how each dialect does it stands in the compilers below."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from sqlalchemy import Dialect, Float, Select, SmallInteger, bindparam, func, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import UserDefinedType

from db.errors import ThresholdError
from db.models import Model
from db.schema import images, predictions, tag_scores, tags
from db.scores import Scores, to_probability, to_score


def score_for(model: Model, threshold: float | str | None) -> int:
    """The lowest score to keep at a threshold; None means the model's own default.

    Raises:
        ThresholdError: not a threshold, or one below the floor, which what is stored cannot answer.
    """
    if threshold is None:
        return max(model.default_threshold, model.floor)
    score = to_score(threshold)
    if score < model.floor:
        raise ThresholdError(
            f"{model.name} was stored with a floor of {to_probability(model.floor):g}: what lies below was not kept, "
            f"so {threshold} cannot be answered. Ask for {to_probability(model.floor):g} or more, or tag again with a "
            "lower --floor."
        )
    return score


class _KeptType(UserDefinedType[Scores]):
    """Two lists in step, tag ids and scores, however the dialect hands them over."""

    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Scores]:  # noqa: ARG002
        def process(value: Any) -> Scores:
            pair = json.loads(value) if isinstance(value, str) else value
            tag_ids, scores = pair if len(pair) else ((), ())
            order = np.argsort(np.asarray(scores, dtype=np.int16), kind="stable")
            return Scores(np.asarray(tag_ids, dtype=np.int16)[order], np.asarray(scores, dtype=np.int16)[order])

        return process


class Kept(FunctionElement[Scores]):
    """The `Scores` of a row of `predictions` that are at or above a score. For select lists."""

    name = "kept"
    inherit_cache = True

    def __init__(self, score: int) -> None:
        # Scores are whole numbers: "at least s" is "above s - 1", which is what a bucket search answers.
        super().__init__(bindparam("kept_score", score, SmallInteger, unique=True))
        self.type = _KeptType()


@compiles(Kept, "postgresql")
def _kept_postgresql(element: Kept, compiler: SQLCompiler, **kw: Any) -> str:
    # Scores ascend, so width_bucket is a binary search in C and what is kept is a slice of the end of the row.
    score = compiler.process(element.clauses, **kw)
    start = f"width_bucket(({score} - 1)::smallint, predictions.scores) + 1"
    return f"array_to_json(array[predictions.tag_ids[{start}:], predictions.scores[{start}:]])::text"


_KEPT_SQLITE = (
    "select json_array(json_group_array(k.tag_id), json_group_array(k.score)) from tag_scores k "
    "where k.model_id = predictions.model_id and k.image_id = predictions.image_id"
)


@compiles(Kept, "sqlite")
def _kept_sqlite(element: Kept, compiler: SQLCompiler, **kw: Any) -> str:
    # One range of the clustered key an image.
    score = compiler.process(element.clauses, **kw)
    return f"({_KEPT_SQLITE} and k.score >= {score})"


def images_at(model: Model, score: int) -> Select[tuple[int, str, int | None, int | None, Scores]]:
    """Every image that has a prediction, with the tags it keeps at a score: (image_id, uri, width, height, kept)."""
    return (
        select(
            images.c.id.label("image_id"),
            images.c.uri,
            images.c.width,
            images.c.height,
            Kept(score).label("kept"),
        )
        .select_from(predictions.join(images, images.c.id == predictions.c.image_id))
        .where(predictions.c.model_id == model.id)
    )


def tag_counts_at(model: Model, score: int) -> Select[tuple[str, int, float]]:
    """How often each tag is kept at a score: (tag, images, mean probability), most frequent first."""
    kept = select(tag_scores.c.tag_id, tag_scores.c.score).where(tag_scores.c.model_id == model.id).subquery()
    number = func.count().label("images")
    mean = (func.avg(kept.c.score) / 10_000.0).cast(Float).label("mean_probability")
    return (
        select(tags.c.name.label("tag"), number, mean)
        .select_from(kept.join(tags, tags.c.tag_id == kept.c.tag_id))
        .where(kept.c.score >= score, tags.c.model_id == model.id)
        .group_by(tags.c.name)
        .order_by(number.desc(), tags.c.name)
    )
