"""`tagonce search`: images by their tags, in the query language of boorus."""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text
from typer.core import TyperCommand

from db.names.plural import counted
from db.scope import Gone
from tagonce.options import parameters
from tagonce.options.policy_options import ThresholdOptions, resolve_policy, takes_policy
from tagonce.output import ui

if TYPE_CHECKING:
    from db.ledger.models import Tag
    from db.search.execute import Hit

MISTAKES = "Mistakes"
"""Heading in --help of the options of --truth."""
SHOWN = 100
"""Rows of the table without --limit."""


class SearchFormat(StrEnum):
    PATHS = "paths"
    TABLE = "table"


class SearchCommand(TyperCommand):
    """Takes `-cat` as a word of the query: an argument is an option only if it has that name, or begins with `--`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move the words of the query behind a `--` of our own."""
        takes_value = {
            spelling: not getattr(option, "is_flag", False)
            for option in self.get_params(ctx)
            if option.param_type_name == "option"
            for spelling in (*option.opts, *option.secondary_opts)
        }
        options: list[str] = []
        words: list[str] = []
        left = iter(args)
        for argument in left:
            if argument == "--":
                words.extend(left)
            elif argument in takes_value:
                options += [argument, *islice(left, int(takes_value[argument]))]
            elif argument.startswith("--"):
                options.append(argument)
            else:
                words.append(argument)
        return super().parse_args(ctx, [*options, "--", *words] if words else options)


app = typer.Typer(add_completion=False)


@app.command("search", cls=SearchCommand)
@takes_policy
def command(
    query: Annotated[
        list[str] | None,
        typer.Argument(metavar="QUERY", help="The query, quoted or as several words.", show_default=False),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort",
            "-s",
            metavar="TAG[:asc]",
            help="By the probability of this tag, highest first. Default: order of registration.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=1, max=parameters.MOST, help="At most this many images.", show_default=False),
    ] = None,
    count: Annotated[bool, typer.Option("--count", "-c", help="Print only the number of images.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what the query means, and what is read to answer it.")
    ] = False,
    format_: Annotated[
        SearchFormat | None,
        typer.Option("--format", "-f", help="Default: a table on a terminal, otherwise paths.", show_default=False),
    ] = None,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="Print paths, each terminated by NUL, for `xargs -0`.")
    ] = False,
    truth: Annotated[
        str | None,
        typer.Option(
            metavar="TRUTH",
            help="Find likely mistakes in human tags: a folder of captions, a .jsonl or .csv, `beside`, or `labels`. "
            "QUERY is then optional, and selects images.",
            show_default=False,
            rich_help_panel=MISTAKES,
        ),
    ] = None,
    below: Annotated[
        float | None,
        typer.Option(
            help="Report human tags with a lower probability. Default: 0.05, or the floor if that is higher.",
            show_default=False,
            rich_help_panel=MISTAKES,
        ),
    ] = None,
    above: Annotated[
        float, typer.Option(help="Report missing tags with at least this probability.", rich_help_panel=MISTAKES)
    ] = 0.9,
    tag: Annotated[
        list[str] | None,
        typer.Option(help="Only mistakes in this tag. Repeatable.", show_default=False, rich_help_panel=MISTAKES),
    ] = None,
    *,
    policy: ThresholdOptions,
    under: parameters.Under = None,
    gone: parameters.Gone = Gone.EXCLUDE,
    model: parameters.StoredModel = None,
    database: parameters.DatabaseUrl = None,
    json: parameters.Json = False,
) -> None:
    """Find images by their tags, in the query syntax of boorus; each tag may have its own threshold.

    Example: tagonce search 'cat:0.5 -dog:0.2'

    cat -dog                 both: cat, and not dog
    ( cat dog ) ~ bird       a group, or bird; spaces around brackets and ~
    cat  cat:0.5  cat:..0.2  its threshold in force, another threshold, a range
    *_hair  category:artist  any matching tag, any tag of a category; :0.5 too
    under:PATH  model:NAME   images in a folder; model to use
    width:>=1024 format:png  facts of files, also height, bytes:>1mb, date:2026-11
    "re:zero":0.5            a quoted name is taken literally

    With --truth: human tags with a probability near 0, and missing tags near 1, the largest differences first.
    """
    from db.errors import SettingsError
    from db.ledger import models
    from db.scores import to_score
    from db.search import execute as searches
    from db.search import matches
    from db.search.describe import described
    from db.search.query import And, Node, Under
    from db.truth.load_truth import describe, read_truth
    from db.truth.mistakes import find_mistakes
    from tagonce import settings
    from tagonce.from_settings import stored, stored_model
    from tagonce.options import query_option
    from tagonce.options.under_option import uri_prefix
    from tagonce.output import mistake_table
    from tagonce.output.metric_tables import find_tag

    text = " ".join(query or ())
    if not text and truth is None and gone is not Gone.ONLY:
        raise SettingsError("There is no query. Give one, as in tagonce search 'cat -dog', or --truth.")
    with stored(settings.load(database_url=database)) as opened, opened.read(gone=gone) as connection:
        row = stored_model(connection, query_option.model_named(text, model))
        tags = models.tag_names(connection, row.id)
        cut = resolve_policy(connection, row, policy.changes, policy.profile).cut
        # An empty query is an error; with --truth or --gone only, no query means all images.
        tree: Node = query_option.parsed(connection, row, text, cut) if text else And(())
        if under:
            tree = And((tree, Under(uri_prefix(connection, under))))
        if truth is not None:
            said = read_truth(connection, row, truth)
            found_mistakes = find_mistakes(
                connection,
                row,
                said,
                below=None if below is None else to_score(below),
                above=to_score(above),
                where=searches.condition(connection, row, tree) if text or under else None,
                tags=[find_tag(row, name, tags) for name in tag or ()] or None,
            )
            (mistake_table.print_lines if json else mistake_table.print_table)(found_mistakes, limit)
            ui.errors.print("\n".join(describe(said)), markup=False)
            return
        if explain:
            ui.output.print(f"{described(tree, tags)}\n{matches.explain(connection, row, tree)}", markup=False)
            return
        if count:
            number = searches.count(connection, row, tree)
            ui.print_json({"images": number}) if json else ui.output.print(number)
            return
        form = (
            SearchFormat.PATHS
            if null
            else format_ or (SearchFormat.TABLE if ui.output.is_terminal else SearchFormat.PATHS)
        )
        as_table = form is SearchFormat.TABLE and not json
        most = limit or (SHOWN if as_table else None)
        sort_tag, descending = _order(sort, tags)
        found = searches.search(
            connection,
            row,
            tree,
            sort=sort_tag,
            descending=descending,
            limit=most and most + 1,  # one more says whether there are more
            show=searches.scores_to_show(tree, row, len(tags)) if json or as_table else None,
        )
        names = [tag.name for tag in tags]
        hits = islice(found, most)
        if as_table:
            number = _print_table(hits, names, None if sort_tag is None else names[sort_tag])
        else:
            number = _print_lines(hits, names, json=json, end=b"\0" if null else b"\n")
        more = _each(found, lambda _hit: None) > 0
        name = models.title(connection, row)
    ui.errors.print(
        f"{name}: {counted(number, 'image')}" + (", and there are more." if more else "."),
        markup=False,
    )


def _order(sort: str | None, tags: "Sequence[Tag]") -> tuple[int | None, bool]:
    """The id of the tag to sort by, and whether to sort in descending order."""
    from db.errors import SettingsError
    from db.names.vocabulary import Vocabulary
    from db.policy.policies import unknown_name

    if sort is None:
        return None, True
    vocabulary = Vocabulary(tags)
    # Unchanged first: `:asc` may be part of a name.
    for ending, descending in (("", True), (":asc", False), (":desc", True)):
        if sort.endswith(ending) and (found := vocabulary.find(sort.removesuffix(ending))):
            return found[0], descending
    raise SettingsError(f"--sort: {unknown_name(sort.rpartition(':')[0] or sort, vocabulary.names, 'tag')}")


def _print_lines(hits: "Iterable[Hit]", names: Sequence[str], *, json: bool, end: bytes) -> int:
    if json:
        return _each(hits, lambda hit: ui.print_json_line(_as_json(hit, names)))
    return _each(hits, lambda hit: _print_path(hit, end))


def _each(hits: "Iterable[Hit]", show: "Callable[[Hit], None]") -> int:
    number = 0
    for hit in hits:
        show(hit)
        number += 1
    return number


def _print_path(hit: "Hit", end: bytes) -> None:
    from producer.uris import path_or_uri

    name = path_or_uri(hit.uri)
    # As bytes: names of files need not be valid text. Only a terminal gets a printable form.
    shown = ui.printable(name).encode() if sys.stdout.isatty() else os.fsencode(name)
    sys.stdout.buffer.write(shown + end)


def _print_table(hits: "Iterable[Hit]", names: Sequence[str], sorted_by: str | None) -> int:
    table = Table(
        Column("image", overflow="fold"),
        "size",
        *([Column(Text(sorted_by))] if sorted_by is not None else []),
        "tags of the query",
        box=None,
    )
    for hit in hits:
        size = "" if hit.width is None else f"{hit.width}x{hit.height}"
        tags = ", ".join(f"{names[tag_id]} {probability:.4f}" for tag_id, probability in hit.tags)
        sort = [] if sorted_by is None else ["" if hit.probability is None else f"{hit.probability:.4f}"]
        table.add_row(ui.display_name(hit.uri), size, *sort, Text(tags))
    if table.row_count:
        ui.output.print(table)
    return table.row_count


def _as_json(hit: "Hit", names: Sequence[str]) -> dict[str, Any]:
    return {
        "uri": hit.uri,
        "width": hit.width,
        "height": hit.height,
        "probability": hit.probability,
        "tags": {names[tag_id]: probability for tag_id, probability in hit.tags},
    }
