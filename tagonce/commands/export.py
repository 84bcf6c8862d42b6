"""`tagonce export`: captions and tables from stored scores."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from db.errors import SettingsError
from db.export.options import Placement, Sort, Underscores, read_replacements, replacement
from db.scope import Gone
from tagonce.export.choices import Existing, Format
from tagonce.options import parameters
from tagonce.options.policy_options import PolicyOptions, resolve_policy, takes_policy
from tagonce.output import ui

if TYPE_CHECKING:
    from tagonce.export.job import FormatSpec

_EXTENSION = ".txt"
_FILES = "Output"
_TAGS = "Tags and their names"
_ORDER = "Order"
_TEXT = "Spelling"

Texts = list[str] | None


@takes_policy
def command(
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            "-f",
            help="txt and hydrus: a sidecar file for each image; all others: one file. imagefolder is for Hugging Face "
            "`datasets`, kohya is the metadata of sd-scripts, parquet-wide has a column for each tag. parquet-packed "
            "is a folder with all stored scores, whatever the threshold, for DuckDB, ClickHouse and Spark.",
        ),
    ] = Format.TXT,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="For sidecars, imagefolder and parquet-packed a folder or s3://bucket/prefix/, else a file or "
            "s3://bucket/key; - is standard output. Default: sidecars beside the images, else standard output.",
            show_default=False,
            rich_help_panel=_FILES,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace existing files. Without it existing sidecars stay, and another file is replaced only if the "
            "same export wrote it. Images are never replaced.",
            rich_help_panel=_FILES,
        ),
    ] = False,
    merge: Annotated[
        bool,
        typer.Option(
            "--merge",
            help="Add tags that an existing sidecar lacks, and change nothing else in it.",
            rich_help_panel=_FILES,
        ),
    ] = False,
    extension: Annotated[
        str, typer.Option(help="Of sidecars: .txt, .caption, ...", rich_help_panel=_FILES)
    ] = _EXTENSION,
    root: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Names in --out are relative to this folder or s3:// prefix. Default: the common folder of all images "
            "of the model, also of those that are not exported.",
            show_default=False,
            rich_help_panel=_FILES,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Write nothing; print how many files would be new, replaced or unchanged, with an example of each.",
            rich_help_panel=_FILES,
        ),
    ] = False,
    frequencies: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write also the number of images of each tag, most frequent first, as CSV; - shows a table.",
            show_default=False,
            rich_help_panel=_FILES,
        ),
    ] = None,
    *,
    policy: PolicyOptions,
    under: parameters.Under = None,
    gone: parameters.Gone = Gone.EXCLUDE,
    query: parameters.Query = None,
    exclude: Annotated[
        Texts,
        typer.Option(
            metavar="TAG",
            help="Leave this tag out; * matches any text, as in *_text. Repeatable.",
            show_default=False,
            rich_help_panel=_TAGS,
        ),
    ] = None,
    replace: Annotated[
        Texts,
        typer.Option(
            metavar="OLD=NEW",
            help="Rename a tag; an empty NEW drops it. Tags that get the same name become one. Repeatable.",
            show_default=False,
            rich_help_panel=_TAGS,
        ),
    ] = None,
    replace_from: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Rename tags by a CSV file of lines `old,new`.",
            show_default=False,
            rich_help_panel=_TAGS,
        ),
    ] = None,
    expand_characters: Annotated[
        bool,
        typer.Option(
            "--expand-characters",
            help="The character name_(series) becomes two tags, name and series.",
            rich_help_panel=_TAGS,
        ),
    ] = False,
    rating: Annotated[
        Placement | None,
        typer.Option(
            help="first, last: the most probable rating at that end, at any probability; none: no rating; threshold: "
            "like other tags. Default: none in captions, threshold in tables and hydrus.",
            show_default=False,
            rich_help_panel=_TAGS,
        ),
    ] = None,
    quality: Annotated[
        Placement | None,
        typer.Option(
            help="The same for the category quality, of models that have it. If both are first, after the rating; if "
            "both are last, before it.",
            show_default=False,
            rich_help_panel=_TAGS,
        ),
    ] = None,
    max_tags: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=parameters.MOST,
            help="At most this many tags an image, after the options above: those of --first, then the most probable.",
            show_default=False,
            rich_help_panel=_TAGS,
        ),
    ] = None,
    prepend: Annotated[
        Texts,
        typer.Option(
            metavar="TEXT",
            help="Text at the beginning of every caption: trigger words. Repeatable.",
            show_default=False,
            rich_help_panel=_TAGS,
        ),
    ] = None,
    append: Annotated[
        Texts,
        typer.Option(
            metavar="TEXT",
            help="Text at the end of every caption. Repeatable.",
            show_default=False,
            rich_help_panel=_TAGS,
        ),
    ] = None,
    first: Annotated[
        Texts,
        typer.Option(
            metavar="TAG",
            help="Tags that go first, in the order given. Repeatable.",
            show_default=False,
            rich_help_panel=_ORDER,
        ),
    ] = None,
    category_order: Annotated[
        str | None,
        typer.Option(
            metavar="CATEGORIES",
            help="Categories that go before the others, as in character,copyright.",
            show_default=False,
            rich_help_panel=_ORDER,
        ),
    ] = None,
    sort: Annotated[
        Sort | None,
        typer.Option(
            help="By falling score (the default), by name, by the model's list, or shuffled.",
            show_default=False,
            rich_help_panel=_ORDER,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Of --sort shuffle: the same seed gives the same order. Default: 0.",
            show_default=False,
            rich_help_panel=_ORDER,
        ),
    ] = None,
    separator: Annotated[
        str | None,
        typer.Option(help='Between two tags. Default: ", ".', show_default=False, rich_help_panel=_TEXT),
    ] = None,
    underscores: Annotated[
        Underscores | None,
        typer.Option(
            help="spaces, except in faces like ^_^; keep; kohya: spaces in names longer than 3 characters. "
            "Default: spaces in captions, keep in tables.",
            show_default=False,
            rich_help_panel=_TEXT,
        ),
    ] = None,
    escape: Annotated[
        bool, typer.Option("--escape", help="A backslash before ( and ), for prompts.", rich_help_panel=_TEXT)
    ] = False,
    category_prefix: Annotated[
        bool | None,
        typer.Option(
            "--category-prefix/--no-category-prefix",
            help="character:saber; general tags have no prefix. Default: in hydrus only.",
            show_default=False,
            rich_help_panel=_TEXT,
        ),
    ] = None,
    score_suffix: Annotated[
        bool, typer.Option("--score-suffix", help="(tag:0.9123), a weight in prompts.", rich_help_panel=_TEXT)
    ] = False,
    model: parameters.StoredModel = None,
    database: parameters.DatabaseUrl = None,
) -> None:
    """Write the tags that thresholds keep. No model is needed: this is SQL over stored probabilities.

    A record of model, profile, thresholds and options is written beside the file, or into the folder.

    Example: tagonce export --threshold 0.35 --out captions/
    """
    from db.ledger.models import title
    from db.policy.policies import Policy
    from tagonce import settings
    from tagonce.export.formats import FORMATS
    from tagonce.export.job import Export
    from tagonce.export.run import run
    from tagonce.from_settings import stored, stored_model
    from tagonce.options import query_option
    from tagonce.options.under_option import uri_prefix

    rules = [*(read_replacements(replace_from) if replace_from else []), *map(replacement, replace or ())]
    spec = FORMATS[format_]
    options = spec.options(
        {
            "separator": separator,
            "underscores": underscores,
            "escape": escape,
            "exclude": tuple(exclude or ()),
            "replace": tuple(rules),
            "expand_characters": expand_characters,
            "first": tuple(first or ()),
            "prepend": tuple(prepend or ()),
            "append": tuple(append or ()),
            "category_order": tuple(name.strip() for name in (category_order or "").split(",") if name.strip()),
            "category_prefix": category_prefix,
            "rating": rating,
            "quality": quality,
            "max_tags": max_tags,
            "sort": sort,
            "seed": seed,
            "score_suffix": score_suffix,
        },
    )
    existing = _existing(spec, extension, overwrite=overwrite, merge=merge)
    out = _out(spec, out)
    if root is not None and (out is None or not spec.uses_root):
        raise SettingsError(
            "--root needs --out and a format with sidecars, or imagefolder: names in --out are relative to it."
        )
    if spec.all_scores:
        _refuse_choices(spec, policy, under=under, query=query, frequencies=frequencies, extension=extension)
    config = settings.load(database_url=database)
    with stored(config) as opened, opened.read(gone=gone) as connection:
        row = stored_model(connection, query_option.model_named(query or "", model))
        changes = Policy(default=row.floor) if spec.all_scores else policy.changes
        resolved = resolve_policy(connection, row, changes, policy.profile)
        summary = run(
            connection,
            Export(
                spec,
                out,
                options,
                resolved,
                extension=extension,
                existing=existing,
                under=uri_prefix(connection, under),
                where=query_option.condition(connection, row, query, resolved.cut),
                query=query,
                root=None if root is None else uri_prefix(connection, root).rstrip("/") + "/",
                dry=dry_run,
                frequencies=frequencies,
            ),
        )
        name = title(connection, row)
    ui.errors.print(f"{name} at {resolved.label}: {summary}", markup=False)


def _refuse_choices(spec: "FormatSpec", policy: PolicyOptions, *, extension: str, **given: str | None) -> None:
    """For a format that writes all scores of all images."""
    from db.policy.policies import Policy

    named = [f"--{name}" for name, value in given.items() if value is not None]
    named += ["--extension"] if extension != _EXTENSION else []
    named += ["options of thresholds"] if policy.profile or policy.changes != Policy() else []
    if named:
        raise SettingsError(
            f"--format {spec.name} writes all stored scores of all images, and does not take {', '.join(named)}. "
            "--format parquet writes the tags that thresholds keep, of the images that you choose."
        )


def _existing(spec: "FormatSpec", extension: str, *, overwrite: bool, merge: bool) -> Existing:
    from producer.sources.extensions import is_image

    if merge and not spec.sidecars:
        raise SettingsError(f"--merge is for sidecars; --format {spec.name} writes a new file.")
    if overwrite and merge:
        raise SettingsError("--overwrite and --merge contradict each other. Give one of them.")
    if not extension.startswith(".") or "/" in extension or extension == ".":
        raise SettingsError(f"--extension begins with a dot, as in .caption, not {extension!r}.")
    if is_image(extension.rstrip(". ")):
        raise SettingsError(
            f"--extension {extension} is that of images: captions would get their names. Give another one."
        )
    if overwrite:
        return Existing.OVERWRITE
    return Existing.MERGE if merge else Existing.SKIP


def _out(spec: "FormatSpec", out: str | None) -> str | None:
    """None for standard output, `-` on the command line."""
    if out == "":
        raise SettingsError("--out is empty: name a folder or a file.")
    if out == "-" and not spec.to_stdout:
        raise SettingsError(f"--format {spec.name} cannot go to standard output: name a file or folder with --out.")
    return None if out == "-" else out
