"""Options that several commands share."""

from typing import Annotated

import typer

from db import scope
from tagonce.options import if_gone

_POLICY = "What to keep"
"""Heading in --help of the options that make a policy."""
MOST = 2**31 - 1
"""Upper limit of counts. Larger numbers overflow in SQL or numpy."""

SOURCE_HELP = "A folder, an image, s3://bucket/prefix, a list (.txt .csv .jsonl .parquet), or - for a list on stdin."

Sources = Annotated[list[str], typer.Argument(metavar="SOURCE...", help=SOURCE_HELP, show_default=False)]
OptionalSources = Annotated[
    list[str] | None, typer.Argument(metavar="[SOURCE...]", help=SOURCE_HELP, show_default=False)
]
Column = Annotated[str | None, typer.Option(help="Column of a list that holds the references.", show_default=False)]
Null = Annotated[
    bool, typer.Option("--null", "-0", help="References in a list are separated by NUL, as from `find -print0`.")
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Skip names that match this .gitignore pattern, below the source: 'drafts/', '*_small.*'. Repeatable.",
        show_default=False,
    ),
]
NoDefaultExcludes = Annotated[
    bool,
    typer.Option("--no-default-excludes", help="Include hidden names, and folders such as @eaDir, #recycle, __MACOSX."),
]
AllNames = Annotated[
    bool,
    typer.Option("--all-names", help="Include files without an image extension; their content decides."),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database", "-d", help="TAGONCE_DATABASE_URL. PostgreSQL or SQLite.", show_default=False),
]
BrokerUrl = Annotated[str | None, typer.Option("--broker", "-b", help="TAGONCE_BROKER_URL. Redis.", show_default=False)]
ModelName = Annotated[
    str | None,
    typer.Option("--model", "-m", help="TAGONCE_MODEL. See `tagonce models`; or a folder.", show_default=False),
]
StoredModel = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Stored model, by name or id. Default: the latest.", show_default=False),
]
Floor = Annotated[
    float | None,
    typer.Option(help="TAGONCE_FLOOR. Lower probabilities are not stored.", show_default=False),
]
BatchSize = Annotated[
    str | None, typer.Option(help="TAGONCE_BATCH_SIZE. Images in one forward, or auto.", show_default=False)
]
ChunkSize = Annotated[int | None, typer.Option(help="TAGONCE_CHUNK_SIZE. Images in one message.", show_default=False)]
Device = Annotated[str | None, typer.Option(help="TAGONCE_DEVICE. auto, cpu, cuda, cuda:1, mps.", show_default=False)]
Precision = Annotated[str | None, typer.Option(help="TAGONCE_PRECISION. auto, fp32, fp16, bf16.", show_default=False)]
Compile = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="TAGONCE_COMPILE. Compile the network before the first image, or not at all. Default: on a CUDA GPU, "
        "while the worker already runs.",
        show_default=False,
    ),
]
MetricsPort = Annotated[
    int | None, typer.Option(help="TAGONCE_METRICS_PORT. Port to serve metrics for Prometheus on.", show_default=False)
]
MaxIdle = Annotated[
    float | None, typer.Option(help="TAGONCE_MAX_IDLE. Exit after this many seconds without work.", show_default=False)
]
Devices = Annotated[
    str | None,
    typer.Option(
        metavar="all|DEVICE,...", help="One process per device: all CUDA GPUs, or a list.", show_default=False
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        "-t",
        help="Keep tags at or above this probability. Default: the model's own threshold.",
        show_default=False,
        rich_help_panel=_POLICY,
    ),
]
ProfileName = Annotated[
    str | None,
    typer.Option(
        "--profile",
        "-p",
        metavar="NAME[@VERSION]",
        help="Saved thresholds, see `tagonce thresholds`. Other threshold options override those of the profile.",
        show_default=False,
        rich_help_panel=_POLICY,
    ),
]
CategoryThresholds = Annotated[
    list[str] | None,
    typer.Option(
        "--category-threshold",
        metavar="CATEGORY=VALUE",
        help="Threshold of a category, as in character=0.85; `off` keeps none of its tags, `default` removes the "
        "profile's threshold. Repeatable.",
        show_default=False,
        rich_help_panel=_POLICY,
    ),
]
TagThresholds = Annotated[
    list[str] | None,
    typer.Option(
        "--tag-threshold",
        metavar="TAG=VALUE",
        help="Threshold of a tag, as in english_text=0.8; `off` and `default` as for a category. Repeatable.",
        show_default=False,
        rich_help_panel=_POLICY,
    ),
]
BestOf = Annotated[
    list[str] | None,
    typer.Option(
        "--best-of",
        metavar="CATEGORY",
        help="Keep only the most probable tag of this category, as of rating: its tags exclude each other. Repeatable.",
        show_default=False,
        rich_help_panel=_POLICY,
    ),
]
NoBestOf = Annotated[
    bool,
    typer.Option("--no-best-of", help="Ignore the profile's exclusive categories.", rich_help_panel=_POLICY),
]
Top = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MOST,
        help="At most this many tags per image, after the thresholds.",
        show_default=False,
        rich_help_panel=_POLICY,
    ),
]
NoTop = Annotated[
    bool, typer.Option("--no-top", help="Ignore the profile's limit of tags per image.", rich_help_panel=_POLICY)
]
MCut = Annotated[
    bool | None,
    typer.Option(
        "--mcut/--no-mcut",
        help="Cut each category of an image at its largest gap (MCut); thresholds are lower bounds.",
        show_default=False,
        rich_help_panel=_POLICY,
    ),
]
TruthSource = Annotated[
    str,
    typer.Argument(
        metavar="TRUTH",
        help="Human tags: a folder of captions, a .jsonl, .json or .csv, `beside` for captions next to the images, or "
        "`labels` for labels given in `tagonce review`.",
        show_default=False,
    ),
]
Under = Annotated[
    str | None, typer.Option(help="Only images in this folder or under this s3:// prefix.", show_default=False)
]
Query = Annotated[
    str | None,
    typer.Option("--query", "-q", help="Only images that match this search, see `tagonce search`.", show_default=False),
]
IfGone = Annotated[
    if_gone.IfGone | None,
    typer.Option(
        "--gone",
        help="Images that a folder or s3:// prefix no longer lists: `mark` them, so that searches and exports exclude "
        "them until they are listed again, or `keep` them. Default: tag marks, enqueue keeps.",
        show_default=False,
    ),
]
EvenMost = Annotated[
    bool, typer.Option("--yes", help="With --gone mark: mark even if more than half of a source is gone.")
]
Gone = Annotated[
    scope.Gone,
    typer.Option("--gone", help="Images marked as gone, see `tagonce tag --gone`: exclude, include, or only these."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
