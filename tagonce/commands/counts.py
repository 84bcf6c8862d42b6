"""`tagonce counts`: how often each tag would be given."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from db.names.plural import counted
from db.sql.gone_scope import Gone
from tagonce import settings
from tagonce.options import parameters
from tagonce.output import ui


def command(
    threshold: parameters.Threshold = None,
    profile: parameters.ProfileName = None,
    category_threshold: parameters.CategoryThresholds = None,
    tag_threshold: parameters.TagThresholds = None,
    top: parameters.Top = None,
    no_top: parameters.NoTop = False,
    mcut: parameters.MCut = None,
    limit: Annotated[
        int, typer.Option(min=1, max=parameters.MOST, help="So many tags are shown, the most frequent ones.")
    ] = 50,
    under: parameters.Under = None,
    gone: parameters.Gone = Gone.EXCLUDE,
    query: parameters.Query = None,
    model: parameters.StoredModel = None,
    database: parameters.DatabaseUrl = None,
    json: parameters.Json = False,
) -> None:
    """How many images each tag would be given to, most frequent first. With --json all of them, a line a tag.

    Example: tagonce counts --threshold 0.35

    With --query cat: which tags come together with cat, and how often.
    """
    from db.ledger.models import title
    from db.read.tag_counts import tag_counts
    from tagonce.from_settings import stored, stored_model
    from tagonce.options import query_option
    from tagonce.options.policy_options import policy_of, resolve_policy
    from tagonce.options.under_option import uri_prefix

    policy = policy_of(
        threshold=threshold,
        category_threshold=category_threshold,
        tag_threshold=tag_threshold,
        top=top,
        no_top=no_top,
        mcut=mcut,
    )
    with stored(settings.load(database_url=database)) as opened, opened.read(gone=gone) as connection:
        row = stored_model(connection, query_option.model_named(query or "", model))
        resolved = resolve_policy(connection, row, policy, profile)
        where = query_option.condition(connection, row, query, resolved.cut)
        found = tag_counts(connection, row, resolved.cut, where=where, under=uri_prefix(connection, under))
        read_from = title(connection, row)
    if json:
        for one in found:
            ui.print_json_line(asdict(one))
        return
    table = Table("tag", "category", box=None)
    for name in ("images", "mean probability"):
        table.add_column(name, justify="right")
    for one in found[:limit]:
        table.add_row(Text(one.tag), Text(one.category or ""), f"{one.images:,}", f"{one.mean_probability:.4f}")
    ui.output.print(table)
    times = counted(sum(one.images for one in found), "time")
    ui.errors.print(
        f"{read_from} at {resolved.label}: {counted(len(found), 'tag')}, {times}"
        + (f"; the {limit:,} most frequent are shown." if len(found) > limit else "."),
        markup=False,
    )
