"""`tagonce export`: captions and tables, from what is stored."""

from pathlib import Path
from typing import Annotated

import typer

from db.errors import SettingsError
from db.export.options import Placement, Sort, Underscores, read_replacements, replacement
from db.ledger.models import title
from db.sql.gone_scope import Gone
from producer.sources.extensions import is_image
from tagonce import settings
from tagonce.export.formats import PARQUETS, SIDECARS, Existing, Format, with_options
from tagonce.options import parameters
from tagonce.output import ui

_FILES = "Where it goes"
_TAGS = "Which tags, called what"
_ORDER = "In which order"
_TEXT = "How it is written"

Texts = list[str] | None


def command(
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            "-f",
            help="Sidecar files (txt, hydrus), or one file of all the others. imagefolder is for Hugging Face "
            "`datasets`, kohya the metadata of sd-scripts, parquet-wide has a column for every tag.",
        ),
    ] = Format.TXT,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="A folder or s3://bucket/prefix/ for sidecars and imagefolder, else a file or s3://bucket/key; - is "
            "standard output. Default: beside the images; standard output.",
            show_default=False,
            rich_help_panel=_FILES,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace what is there already. Without it sidecars are left alone, and of other files only those are "
            "replaced that the same export wrote. Images are never replaced.",
            rich_help_panel=_FILES,
        ),
    ] = False,
    merge: Annotated[
        bool,
        typer.Option(
            "--merge",
            help="Leave what is in a sidecar as it is and add the tags that it lacks. Without both, sidecars that are "
            "there are left alone.",
            rich_help_panel=_FILES,
        ),
    ] = False,
    extension: Annotated[
        str, typer.Option(help="Of the sidecars: .txt, .caption, ...", rich_help_panel=_FILES)
    ] = ".txt",
    root: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Names in --out begin below this folder or s3:// prefix. Default: the one that all images of the "
            "model have in common, whichever of them are exported.",
            show_default=False,
            rich_help_panel=_FILES,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Write nothing and say how many files would be new, replaced or left, with an example of each.",
            rich_help_panel=_FILES,
        ),
    ] = False,
    frequencies: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write also how many images got each tag, most frequent first, as CSV; - shows a table.",
            show_default=False,
            rich_help_panel=_FILES,
        ),
    ] = None,
    threshold: parameters.Threshold = None,
    profile: parameters.ProfileName = None,
    category_threshold: parameters.CategoryThresholds = None,
    tag_threshold: parameters.TagThresholds = None,
    top: parameters.Top = None,
    no_top: parameters.NoTop = False,
    mcut: parameters.MCut = None,
    under: parameters.Under = None,
    gone: parameters.Gone = Gone.EXCLUDE,
    query: parameters.Query = None,
    exclude: Annotated[
        Texts,
        typer.Option(
            metavar="TAG",
            help="Leave this tag out; * stands for anything, as in *_text. Repeatable.",
            show_default=False,
            rich_help_panel=_TAGS,
        ),
    ] = None,
    replace: Annotated[
        Texts,
        typer.Option(
            metavar="OLD=NEW",
            help="Call a tag otherwise; an empty NEW drops it. Tags that end up the same become one. Repeatable.",
            show_default=False,
            rich_help_panel=_TAGS,
        ),
    ] = None,
    replace_from: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The same from a CSV file of lines `old,new`.",
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
            help="first, last: the most probable rating, in that place, whatever its threshold; none; threshold: like "
            "other tags. Default: none in captions, threshold in tables and hydrus.",
            show_default=False,
            rich_help_panel=_TAGS,
        ),
    ] = None,
    quality: Annotated[
        Placement | None,
        typer.Option(
            help="The same for the category quality, for models that have it. With both first it comes behind the "
            "rating, with both last before it.",
            show_default=False,
            rich_help_panel=_TAGS,
        ),
    ] = None,
    max_tags: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=parameters.MOST,
            help="So many tags an image, those of --first, then the most probable ones, counted after the above.",
            show_default=False,
            rich_help_panel=_TAGS,
        ),
    ] = None,
    prepend: Annotated[
        Texts,
        typer.Option(
            metavar="TEXT",
            help="Always in front: trigger words. Repeatable.",
            show_default=False,
            rich_help_panel=_TAGS,
        ),
    ] = None,
    append: Annotated[
        Texts,
        typer.Option(metavar="TEXT", help="Always at the end. Repeatable.", show_default=False, rich_help_panel=_TAGS),
    ] = None,
    first: Annotated[
        Texts,
        typer.Option(
            metavar="TAG",
            help="To the front, when it is there, in the order given. Repeatable.",
            show_default=False,
            rich_help_panel=_ORDER,
        ),
    ] = None,
    category_order: Annotated[
        str | None,
        typer.Option(
            metavar="CATEGORIES",
            help="These before the others, as in character,copyright.",
            show_default=False,
            rich_help_panel=_ORDER,
        ),
    ] = None,
    sort: Annotated[
        Sort | None,
        typer.Option(
            help="By falling score (the default), by name, as in the model's list, or shuffled.",
            show_default=False,
            rich_help_panel=_ORDER,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="For shuffling: the same seed, the same order. Default: 0.", show_default=False, rich_help_panel=_ORDER
        ),
    ] = None,
    separator: Annotated[
        str | None,
        typer.Option(help='Between two tags. Default: ", ".', show_default=False, rich_help_panel=_TEXT),
    ] = None,
    underscores: Annotated[
        Underscores | None,
        typer.Option(
            help="spaces: but faces like ^_^ keep them; keep; kohya: spaces in names longer than 3 characters. "
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
            help="character:saber; general tags have none. Default: in hydrus only.",
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

    Beside a file, or in the folder, it leaves a record of what made it: model, profile, thresholds, options.

    Example: tagonce export --threshold 0.35 --out captions/
    """
    from tagonce.export.write import Export, run
    from tagonce.from_settings import stored, stored_model
    from tagonce.options import query_option
    from tagonce.options.policy_options import policy_of, resolve_policy
    from tagonce.options.under_option import uri_prefix

    rules = [*(read_replacements(replace_from) if replace_from else []), *map(replacement, replace or ())]
    options = with_options(
        format_,
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
    policy = policy_of(
        threshold=threshold,
        category_threshold=category_threshold,
        tag_threshold=tag_threshold,
        top=top,
        no_top=no_top,
        mcut=mcut,
    )
    existing = _existing(format_, extension, overwrite=overwrite, merge=merge)
    out = _out(format_, out)
    if root is not None and (out is None or format_ not in {*SIDECARS, Format.IMAGEFOLDER}):
        raise SettingsError("--root is for names below --out, of sidecars and imagefolder.")
    config = settings.load(database_url=database)
    with stored(config) as opened, opened.read(gone=gone) as connection:
        row = stored_model(connection, query_option.model_named(query or "", model))
        resolved = resolve_policy(connection, row, policy, profile)
        summary = run(
            connection,
            Export(
                format_,
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


def _existing(format_: Format, extension: str, *, overwrite: bool, merge: bool) -> Existing:
    if format_ not in SIDECARS and merge:
        raise SettingsError(f"--merge is for sidecars; --format {format_} makes its file anew.")
    if overwrite and merge:
        raise SettingsError("--overwrite throws away what --merge keeps: give one of the two.")
    if not extension.startswith(".") or "/" in extension or extension == ".":
        raise SettingsError(f"--extension begins with a dot, as in .caption, and is not {extension!r}.")
    if is_image(extension.rstrip(". ")):
        raise SettingsError(f"--extension {extension} is one of images: captions would take their names.")
    if overwrite:
        return Existing.OVERWRITE
    return Existing.MERGE if merge else Existing.SKIP


def _out(format_: Format, out: str | None) -> str | None:
    """None for standard output, which people call `-`."""
    if out == "":
        raise SettingsError("--out is empty: name a folder or a file.")
    if out == "-" and (format_ in SIDECARS or format_ in PARQUETS):
        raise SettingsError(f"--format {format_} is no single stream of text: --out names its place.")
    return None if out == "-" else out
