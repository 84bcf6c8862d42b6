"""`tagonce counts`: number of images of each tag."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from db.names.plural import counted
from db.scope import Gone
from tagonce.options import parameters
from tagonce.options.policy_options import PolicyOptions, resolve_policy, takes_policy
from tagonce.output import ui


@takes_policy
def command(
    *,
    policy: PolicyOptions,
    limit: Annotated[
        int, typer.Option(min=1, max=parameters.MOST, help="Number of tags to show, the most frequent first.")
    ] = 50,
    under: parameters.Under = None,
    gone: parameters.Gone = Gone.EXCLUDE,
    query: parameters.Query = None,
    model: parameters.StoredModel = None,
    database: parameters.DatabaseUrl = None,
    json: parameters.Json = False,
) -> None:
    """Count the images of each tag, the most frequent tag first.

    With --query cat: counts tags of images with a cat. With --json, prints all tags, one line per tag.

    Example: tagonce counts --threshold 0.35
    """
    from db.ledger.models import title
    from db.read.tag_counts import tag_counts
    from tagonce import settings
    from tagonce.from_settings import stored, stored_model
    from tagonce.options import query_option
    from tagonce.options.under_option import uri_prefix

    with stored(settings.load(database_url=database)) as opened, opened.read(gone=gone) as connection:
        row = stored_model(connection, query_option.model_named(query or "", model))
        resolved = resolve_policy(connection, row, policy.changes, policy.profile)
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
        + (f"; showing the {limit:,} most frequent." if len(found) > limit else "."),
        markup=False,
    )
