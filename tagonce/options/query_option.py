"""`--query` and the query of `tagonce search`: which model it asks, and what it comes to."""

from functools import partial

from sqlalchemy import ColumnElement, Connection

from db.errors import SettingsError
from db.ledger import models
from db.policy.policies import Cut
from db.search import execute
from db.search.query import Node, named_model, parse
from tagonce.options.under_option import uri_prefix


def model_named(query: str, model: str | None) -> str | None:
    """The name or id of the model whose scores are asked: by --model, or by `model:` in the query.

    Raises:
        SettingsError: by both.
    """
    named = named_model(query)
    if named and model:
        raise SettingsError("The model is named twice, by --model and by model: in the query. Leave one away.")
    return named or model


def parsed(connection: Connection, model: models.Model, query: str, cut: Cut) -> Node:
    """A query as `db.search` takes it.

    Raises:
        QueryError, ThresholdError: see `db.search.query.parse`.
    """
    return parse(query, model, models.tag_names(connection, model.id), cut, prefix_of=partial(uri_prefix, connection))


def condition(connection: Connection, model: models.Model, query: str | None, cut: Cut) -> ColumnElement[bool] | None:
    """The same as a condition for `db.read.tag_batches.read_tag_batches`; None without a query."""
    return execute.condition(connection, model, parsed(connection, model, query, cut)) if query else None
