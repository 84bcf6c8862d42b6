"""Labels: a person's verdict, right or wrong, on a tag of an image, given in `tagonce review`.

A label is stored under the name of the tag, so it serves every model that has the tag, and with the model, score and
file version that the person saw. Functions here take one model, and use the labels of its tags on the registered
versions of files. If several people judged the same tag of an image, the majority decides; a tie is no label.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    String,
    Text,
    and_,
    case,
    delete,
    func,
    literal,
    not_,
    or_,
    select,
)

from db.arrays.types import Int16Array, Int32Array, Int64Array
from db.errors import SettingsError
from db.ledger.models import Model
from db.schema import UtcDateTime, images, labels, predictions, tags
from db.sql.gone_scope import in_scope
from db.sql.in_list import in_list
from db.sql.rows.upsert import insert_into
from db.sql.scores.conditions import ScoreOf

NOT_STORED = -1
"""The score of a tag below the model's floor."""
LONGEST_NAME = 100
"""Characters in the name of a reviewer."""

BoolArray = npt.NDArray[np.bool_]


class Drawn(StrEnum):
    """How an image was drawn for review. The values are stored. Only random images represent the collection."""

    RANDOM = "random"
    DIVERSE = "diverse"
    """Spread over the space of scores."""
    NEAREST = "nearest"
    """Scores nearest to their thresholds, over all tags."""
    SEARCH = "search"
    LINE = "line"
    """Nearest to the threshold of one tag."""
    SIDE = "side"
    """At random from the images on one side of that threshold."""


@dataclass(frozen=True, slots=True)
class TagLabels:
    """The labels of one tag: arrays of shape (labels,)."""

    image_ids: Int64Array
    """Ascending."""
    scores: Int16Array
    """The current scores; NOT_STORED below the floor."""
    right: BoolArray

    def __len__(self) -> int:
        return int(self.image_ids.size)


@dataclass(frozen=True, slots=True)
class ModelLabels:
    """The labels of all tags of a model: arrays of shape (labels,), by image id and then tag id."""

    image_ids: Int64Array
    tag_ids: Int32Array
    right: BoolArray
    undecided: int
    """Judged tags of images that are not in the arrays: a tie, or the file has changed."""
    unknown: dict[str, int]
    """Number of labels by tag, for tags that the model does not have; most frequent first."""
    drawn: dict[str, int]
    """Number of labels by the way in which the image was drawn (`Drawn`); most frequent first."""


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """Numbers of labels that apply to a model, and of what they are about."""

    labels: int
    """Verdicts of single people, before the majority."""
    images: int
    tags: int
    people: int


def check_name(by: str) -> None:
    """Check the name of a reviewer.

    Raises:
        SettingsError: the name is empty or too long, or has control characters or spaces at its ends.
    """
    if not by.strip() or by.strip() != by or len(by) > LONGEST_NAME or not by.isprintable():
        raise SettingsError(
            f"The name of a reviewer has 1 to {LONGEST_NAME} characters, without control characters and without spaces "
            f"at its ends; not {by[:LONGEST_NAME]!r}."
        )


def save(
    connection: Connection, model: Model, image_id: int, tag_id: int, is_right: bool, *, by: str, drawn: Drawn
) -> None:
    """Store a label with the current score and file version. It replaces the person's label of that tag and image.

    Args:
        by: the name of the reviewer.

    Raises:
        SettingsError: the name is not allowed, the model has no such tag, or it has not tagged the current version of
            the image.
    """
    check_name(by)
    statement = insert_into(connection, labels).from_select(
        [column.name for column in labels.c], _seen(model, image_id, tag_id, is_right, by, drawn)
    )
    replaced = [column.name for column in labels.c if not column.primary_key]
    saved = connection.execute(
        statement.on_conflict_do_update(
            index_elements=[column.name for column in labels.primary_key],
            set_={name: statement.excluded[name] for name in replaced},
        ).returning(labels.c.image_id)
    ).all()
    if not saved:
        raise SettingsError(_why_not(connection, model, image_id, tag_id))


def forget(connection: Connection, model: Model, image_id: int, tag_id: int, *, by: str) -> None:
    """Delete a person's label of a tag of an image, if there is one."""
    name = select(tags.c.name).where(tags.c.model_id == model.id, tags.c.tag_id == tag_id).scalar_subquery()
    connection.execute(
        delete(labels).where(labels.c.image_id == image_id, labels.c.tag == name, labels.c.judged_by == by)
    )


def of_images(
    connection: Connection, model: Model, image_ids: Sequence[int], *, by: str | None = None
) -> dict[int, dict[int, bool]]:
    """Map image id to tag id to whether the tag is right. Images without labels are left out.

    Args:
        by: a reviewer, whose labels are returned instead of the majority's.
    """
    query = (
        select(labels.c.image_id, labels.c.tag, (_VOTES > 0).label("is_right"))
        .select_from(_LABELLED)
        .where(in_scope(connection, labels.c.image_id), in_list(connection, labels.c.image_id, image_ids))
        .group_by(labels.c.image_id, labels.c.tag)
        .having(_VOTES != 0)
    )
    rows = connection.execute(query if by is None else query.where(labels.c.judged_by == by)).all()
    # No join with tags: SQLite would index all tags of the model anew for each query, and few images have labels.
    tag_ids = _tag_ids(connection, model, {row.tag for row in rows})
    found: dict[int, dict[int, bool]] = {}
    for row in rows:
        for tag_id in tag_ids[row.tag]:
            found.setdefault(row.image_id, {})[tag_id] = row.is_right
    return found


def of_tag(connection: Connection, model: Model, tag_id: int) -> TagLabels:
    """All labels of a tag on images whose current version the model has tagged."""
    verdicts = _verdicts(connection, model, tags.c.tag_id == tag_id).subquery()
    query = (
        select(verdicts.c.image_id, func.coalesce(ScoreOf(tag_id), NOT_STORED), verdicts.c.is_right)
        .select_from(verdicts.join(predictions, _predicted(verdicts, model)))
        .where(predictions.c.image_version == verdicts.c.version)
        .order_by(verdicts.c.image_id)
    )
    return TagLabels(*_columns(connection, query, np.int64, np.int16, np.bool_))


def every(connection: Connection, model: Model) -> ModelLabels:
    """All labels that apply to a model, except those of images that it tagged before the file changed."""
    verdicts = _verdicts(connection, model).subquery()
    query = (
        select(verdicts.c.image_id, verdicts.c.tag_id, verdicts.c.is_right)
        .select_from(verdicts.outerjoin(predictions, _predicted(verdicts, model)))
        .where(or_(predictions.c.image_id.is_(None), predictions.c.image_version == verdicts.c.version))
        .order_by(verdicts.c.image_id, verdicts.c.tag_id)
    )
    image_ids, tag_ids, right = _columns(connection, query, np.int64, np.int32, np.bool_)
    judged = select(labels.c.image_id, tags.c.tag_id).join_from(labels, tags, _of_tag(model)).distinct()
    judged = judged.where(in_scope(connection, labels.c.image_id))
    undecided = int(connection.scalar(select(func.count()).select_from(judged.subquery())) or 0) - image_ids.size
    present = in_scope(connection, labels.c.image_id)
    unknown = _tally(connection, labels.c.tag, and_(not_(_of_tags(model)), present))
    drawn = _tally(connection, labels.c.drawn, _counts_for(connection, model))
    return ModelLabels(image_ids, tag_ids, right, undecided, unknown, drawn)


def counts(connection: Connection, model: Model) -> LabelCounts:
    """Count labels, and the images, tags and reviewers that they are of."""
    columns = (labels.c.image_id, labels.c.tag, labels.c.judged_by)
    query = select(func.count(), *(func.count(column.distinct()) for column in columns)).select_from(_LABELLED)
    return LabelCounts(*map(int, connection.execute(query.where(_counts_for(connection, model))).one()))


def people(connection: Connection, model: Model) -> dict[str, int]:
    """Number of labels by reviewer, most first."""
    return _tally(connection, labels.c.judged_by, _counts_for(connection, model))


def _tally(connection: Connection, column: Column[str], where: ColumnElement[bool]) -> dict[str, int]:
    number = func.count()
    query = select(column, number).select_from(_LABELLED).where(where).group_by(column).order_by(number.desc(), column)
    return {row[0]: row[1] for row in connection.execute(query)}


_LABELLED = labels.join(images, and_(images.c.id == labels.c.image_id, images.c.version == labels.c.image_version))
"""Labels of the registered versions of files."""

_VOTES = func.sum(case((labels.c.is_right, 1), else_=-1))
"""Of one tag of one image: positive where most say that it is right."""


def _of_tag(model: Model) -> ColumnElement[bool]:
    return and_(tags.c.model_id == model.id, tags.c.name == labels.c.tag)


def _counts_for(connection: Connection, model: Model) -> ColumnElement[bool]:
    """The rows of `_LABELLED` about tags of the model and images in scope."""
    return and_(_of_tags(model), in_scope(connection, labels.c.image_id))


def _of_tags(model: Model) -> ColumnElement[bool]:
    # No join: a model may have a name twice.
    return labels.c.tag.in_(select(tags.c.name).where(tags.c.model_id == model.id))


def _tag_ids(connection: Connection, model: Model, names: Collection[str]) -> Mapping[str, Sequence[int]]:
    """By name; several where the model has a name twice, none where it has it not."""
    found: dict[str, list[int]] = {name: [] for name in names}
    if names:
        query = select(tags.c.tag_id, tags.c.name).where(tags.c.model_id == model.id, tags.c.name.in_(names))
        for row in connection.execute(query):
            found[row.name].append(row.tag_id)
    return found


def _verdicts(connection: Connection, model: Model, *where: ColumnElement[bool]) -> Select[Any]:
    """(image_id, tag_id, is_right, version of the file): a row a tag of an image on which there is a majority."""
    return (
        select(
            labels.c.image_id,
            tags.c.tag_id,
            (_VOTES > 0).label("is_right"),
            func.min(labels.c.image_version).label("version"),
        )
        .select_from(_LABELLED.join(tags, _of_tag(model)))
        .where(in_scope(connection, labels.c.image_id), *where)
        .group_by(labels.c.image_id, tags.c.tag_id)
        .having(_VOTES != 0)
    )


def _predicted(verdicts: FromClause, model: Model) -> ColumnElement[bool]:
    return and_(predictions.c.model_id == model.id, predictions.c.image_id == verdicts.c.image_id)


def _seen(model: Model, image_id: int, tag_id: int, is_right: bool, by: str, drawn: Drawn) -> Select[Any]:
    """The row to store; no row if the tag does not exist, or the current file version has no prediction."""
    return (
        select(
            images.c.id,
            tags.c.name,
            literal(by, Text),
            literal(is_right, Boolean),
            literal(datetime.now(UTC), UtcDateTime),
            literal(model.id, labels.c.model_id.type),
            ScoreOf(tag_id),
            images.c.version,
            literal(Drawn(drawn).value, String),
        )
        .select_from(predictions)
        .join(images, and_(images.c.id == predictions.c.image_id, images.c.version == predictions.c.image_version))
        .join(tags, tags.c.model_id == predictions.c.model_id)
        .where(
            predictions.c.model_id == model.id,
            predictions.c.image_id == image_id,
            tags.c.tag_id == tag_id,
            # An output with an empty name is not a tag.
            tags.c.name != "",
        )
    )


def _why_not(connection: Connection, model: Model, image_id: int, tag_id: int) -> str:
    name = connection.scalar(select(tags.c.name).where(tags.c.model_id == model.id, tags.c.tag_id == tag_id))
    if not name:
        return f"{model.name} has no tag {tag_id}."
    return (
        f"{model.name} has not tagged the current version of image {image_id}, so there is nothing to judge. Tag it "
        "first: tagonce enqueue --pending, or tagonce tag."
    )


def _columns(connection: Connection, query: Select[Any], *types: type[np.generic]) -> list[npt.NDArray[Any]]:
    """Run a query and return its columns as (rows,) arrays."""
    rows = connection.execute(query).all()
    columns = zip(*rows, strict=True) if rows else ((),) * len(types)
    return [np.array(column, dtype=kind) for column, kind in zip(columns, types, strict=True)]
