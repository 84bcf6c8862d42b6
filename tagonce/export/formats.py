"""What `tagonce export` may be asked for: formats, and which options each of them takes."""

from dataclasses import replace
from enum import StrEnum
from typing import Any

from db.errors import SettingsError
from db.export.options import CaptionOptions, Placement, Underscores, changed


class Format(StrEnum):
    """What an export writes."""

    TXT = "txt"
    JSONL = "jsonl"
    IMAGEFOLDER = "imagefolder"
    CSV = "csv"
    PARQUET = "parquet"
    PARQUET_WIDE = "parquet-wide"
    KOHYA = "kohya"
    HYDRUS = "hydrus"


SIDECARS = frozenset({Format.TXT, Format.HYDRUS})
TABLES = frozenset({Format.CSV, Format.PARQUET, Format.PARQUET_WIDE})
"""For programs: the model's own names, unless options say otherwise."""
PARQUETS = frozenset({Format.PARQUET, Format.PARQUET_WIDE})

_IN_CAPTIONS_ONLY = frozenset({"separator", "escape", "prepend", "append", "score_suffix"})
_IN_ORDER_ONLY = frozenset({"first", "category_order", "sort", "seed"})


class Existing(StrEnum):
    """What becomes of files that are there already."""

    SKIP = "skip"
    OVERWRITE = "overwrite"
    MERGE = "merge"
    """What is in them stays as it is; tags that are not there are added."""


def defaults(format_: Format) -> CaptionOptions:
    """The options of a format when nobody says otherwise."""
    if format_ in TABLES:
        return CaptionOptions(underscores=Underscores.KEEP, rating=Placement.THRESHOLD, quality=Placement.THRESHOLD)
    if format_ is Format.HYDRUS:
        return CaptionOptions(
            separator="\n", category_prefix=True, rating=Placement.THRESHOLD, quality=Placement.THRESHOLD
        )
    return CaptionOptions()


def check_options(format_: Format, options: CaptionOptions) -> None:
    """Refuse what a format has no place for.

    Raises:
        SettingsError: an option says something that this format cannot show.
    """
    useless = _IN_CAPTIONS_ONLY if format_ in TABLES else frozenset()
    if format_ is Format.PARQUET_WIDE:
        useless |= _IN_ORDER_ONLY
    if format_ is Format.HYDRUS:
        useless |= {"separator"}
    wrong = [name for name in changed(options, defaults(format_)) if name in useless]
    if wrong:
        named = ", ".join("--" + name.replace("_", "-") for name in wrong)
        raise SettingsError(f"--format {format_} has no place for {named}. Captions are in txt, jsonl, kohya.")


def with_options(format_: Format, given: dict[str, Any]) -> CaptionOptions:
    """The defaults of a format with what was said: names of `CaptionOptions`, None for what was not."""
    return replace(defaults(format_), **{name: value for name, value in given.items() if value is not None})
