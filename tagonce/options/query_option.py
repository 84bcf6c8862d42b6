"""`--query` and the query of `tagonce search`: its model, and its condition in SQL."""

from functools import partial

from sqlalchemy import ColumnElement, Connection

from db.errors import SettingsError
from db.ledger import models
from db.policy.policies import Cut
from db.search import execute
from db.search.query import Node, named_model, parse
from tagonce.options.under_option import uri_prefix


def model_named(query: str, model: str | None) -> str | None:
    """The name or id of the model of a query, from --model or from `model:` in the query.

    Raises:
        SettingsError: both are given.
    """
    named = named_model(query)
    if named and model:
        raise SettingsError("The model is given twice, by --model and by model: in the query. Remove one.")
    return named or model


def parsed(connection: Connection, model: models.Model, query: str, cut: Cut) -> Node:
    """Parse a query for `db.search`.

    Raises:
        QueryError, ThresholdError: see `db.search.query.parse`.
    """
    return parse(query, model, models.tag_names(connection, model.id), cut, prefix_of=partial(uri_prefix, connection))


def condition(connection: Connection, model: models.Model, query: str | None, cut: Cut) -> ColumnElement[bool] | None:
    """The query as a condition for `db.read.tag_batches.read_tag_batches`; None without a query."""
    return execute.condition(connection, model, parsed(connection, model, query, cut)) if query else None
