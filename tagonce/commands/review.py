"""`tagonce review`: a page on which thresholds are chosen by eye."""

import shlex
import webbrowser
from contextlib import suppress
from typing import Annotated

import typer

from tagonce import settings
from tagonce.options import parameters
from tagonce.output import ui

_SECONDS = 30
"""That a page waits for one answer of the database."""


def command(
    profile: parameters.ProfileName = None,
    query: Annotated[
        str | None,
        typer.Option("--query", "-q", help="Begin with the images that this search finds.", show_default=False),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Any but this machine's own needs a token, which is printed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8765,
    reviewer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Who judges. Default: the name of the user.", show_default=False),
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    model: parameters.StoredModel = None,
    database: parameters.DatabaseUrl = None,
) -> None:
    """Look at the stored scores in a browser: move thresholds, see what changes, judge tags by hand, save a profile.

    No model runs, but where one picture is tried. Ctrl-C ends it.

    Example: tagonce review --profile mine --query 'cat ~ dog'
    """
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
        # On the page, for everybody who opens it: a password stays out of it.
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
