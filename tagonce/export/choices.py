"""The values of `--format`, and what happens to existing files. Imports nothing large: `--help` needs them."""

from enum import StrEnum


class Format(StrEnum):
    """The values of `--format`. `tagonce.export.formats` has an entry for each."""

    TXT = "txt"
    JSONL = "jsonl"
    IMAGEFOLDER = "imagefolder"
    CSV = "csv"
    PARQUET = "parquet"
    PARQUET_WIDE = "parquet-wide"
    PARQUET_PACKED = "parquet-packed"
    KOHYA = "kohya"
    HYDRUS = "hydrus"


class Existing(StrEnum):
    """What happens to files that exist already."""

    SKIP = "skip"
    OVERWRITE = "overwrite"
    MERGE = "merge"
    """Their content stays as it is; tags that they lack are added."""
