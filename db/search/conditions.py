"""Queries as conditions in SQL on the rows of images."""

from typing import assert_never

from sqlalchemy import ColumnElement, Connection, FromClause, and_, false, func, not_, or_, true

from db.schema import files, images, predictions
from db.search.facts import FACTS
from db.search.tree import And, BestIn, Node, Not, Or, Reaches, Under, Within
from db.sql.current_file import is_file_of
from db.sql.scores.conditions import best_is, reaches
from db.sql.scores.score_sql import begins_with


def condition(connection: Connection, model_id: int, node: Node) -> ColumnElement[bool]:
    """A query as a condition on the relations of `source`. It does not select the model."""
    match node:
        case Reaches() | BestIn():
            return _of_tags(connection, model_id, node)
        case Under() | Within():
            return _of_image(node)
        case Not():
            return not_(condition(connection, model_id, node.part))
        case And():
            return and_(true(), *(condition(connection, model_id, part) for part in node.parts))
        case Or():
            return or_(false(), *(condition(connection, model_id, part) for part in node.parts))
        case _:
            assert_never(node)


def source(node: Node) -> FromClause:
    """The relations that the condition of a query refers to: `predictions`, and `images` and `files` if needed."""
    if not _asks_for_more(node):
        return predictions
    return predictions.join(images, images.c.id == predictions.c.image_id).outerjoin(files, is_file_of())


def _asks_for_more(node: Node) -> bool:
    match node:
        case And() | Or():
            return any(_asks_for_more(part) for part in node.parts)
        case Not():
            return _asks_for_more(node.part)
        case _:
            return isinstance(node, Under | Within)


def _of_tags(connection: Connection, model_id: int, node: Reaches | BestIn) -> ColumnElement[bool]:
    if isinstance(node, BestIn):
        return best_is(connection, model_id, node.tag_ids, node.group.tag_ids, node.group.lows)
    return reaches(connection, model_id, node.tag_ids, node.lows, node.high) if node.tag_ids else false()


def _of_image(node: Under | Within) -> ColumnElement[bool]:
    if isinstance(node, Under):
        return begins_with(node.prefix)
    column = FACTS[node.fact].column
    if node.exactly:
        return func.coalesce(column == node.low, false())
    limits = [column >= node.low] if node.low is not None else []
    limits += [column < node.high] if node.high is not None else []
    return func.coalesce(and_(*limits), false())  # null, as of an unknown size, would stay null when it is negated
