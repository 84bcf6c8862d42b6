"""`tagonce review`: a web page for choosing thresholds and labelling tags."""

import shlex
import webbrowser
from contextlib import suppress
from typing import Annotated

import typer

from tagonce.options import parameters
from tagonce.output import ui

_SECONDS = 30
"""Time limit of one database statement of a page."""


def command(
    profile: parameters.ProfileName = None,
    query: Annotated[
        str | None,
        typer.Option("--query", "-q", help="Start with the images that match this search.", show_default=False),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Other than localhost, the page needs a token, which is printed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8765,
    reviewer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name stored with labels. Default: your user name.", show_default=False),
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    model: parameters.StoredModel = None,
    database: parameters.DatabaseUrl = None,
) -> None:
    """Review stored scores in a browser: move thresholds, see the effect, label tags, save a profile.

    The model runs only to tag an uploaded picture. Ctrl-C stops the server.

    Example: tagonce review --profile mine --query 'cat ~ dog'
    """
    from tagonce import settings
    from tagonce.from_settings import need_web_extra, stored, stored_model

    need_web_extra()
    from db.ledger import models
    from db.truth import labels
    from tagonce.web import server
    from tagonce.web.parts.selection import parsed
    from tagonce.web.pictures.thumbnails import open_thumbnails
    from tagonce.web.state.site import Site
    from tagonce.web.view import Sample, View, thresholds_of

    config = settings.load(database_url=database)
    if reviewer:
        labels.check_name(reviewer)
    sample = Sample.SEARCH if query else Sample.RANDOM
    view = View(profile=profile or "", query=query or "", sample=sample)
    with stored(config) as opened, server.listen(host, port) as listening:
        with opened.read() as connection:
            row = stored_model(connection, model)
            several = len(models.every(connection)) > 1
        opened.limit_statements(_SECONDS)
        # Shown on the page: must not contain a password.
        place = None if opened.engine.url.password else database
        named = {"model": model or (str(row.id) if several else None), "database": place}
        words = [f" --{option} {shlex.quote(said)}" for option, said in named.items() if said]
        site = Site(opened, row, config, open_thumbnails(config), reviewer=reviewer or "", command="".join(words))
        with site.database.read() as connection:
            thresholds = thresholds_of(connection, row, site.tags, view)
            if query:
                parsed(site, connection, query, thresholds)

        def announce(address: str) -> None:
            ui.errors.print(f"Reviewing {row.label} in {opened.label}. Ctrl-C ends it.", markup=False)
            ui.output.print(f"Open {address}", markup=False)
            if open_browser:
                webbrowser.open(address)

        with suppress(KeyboardInterrupt):
            server.serve(site, listening, host, view, announce)
