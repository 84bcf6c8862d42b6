"""Queries as conditions in SQL on the rows of images."""

from typing import assert_never

from sqlalchemy import ColumnElement, Connection, FromClause, and_, false, not_, or_, true

from db.schema import images, predictions
from db.search.tree import And, Node, Not, Or, Reaches, Under
from db.sql.conditions import reaches
from db.sql.score_sql import begins_with


def condition(connection: Connection, model_id: int, node: Node) -> ColumnElement[bool]:
    """A query as a condition on the relations of `source`. It does not select the model."""
    match node:
        case Reaches():
            if not node.tag_ids:
                return false()
            return reaches(connection, model_id, node.tag_ids, node.lows, node.high)
        case Under():
            return begins_with(node.prefix)
        case Not():
            return not_(condition(connection, model_id, node.part))
        case And():
            return and_(true(), *(condition(connection, model_id, part) for part in node.parts))
        case Or():
            return or_(false(), *(condition(connection, model_id, part) for part in node.parts))
        case _:
            assert_never(node)


def source(node: Node) -> FromClause:
    """The relations that the condition of a query refers to: `predictions`, and `images` if it needs them."""
    return predictions.join(images, images.c.id == predictions.c.image_id) if _asks_for_uris(node) else predictions


def _asks_for_uris(node: Node) -> bool:
    match node:
        case And() | Or():
            return any(_asks_for_uris(part) for part in node.parts)
        case Not():
            return _asks_for_uris(node.part)
        case _:
            return isinstance(node, Under)
