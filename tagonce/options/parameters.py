"""Options that several commands share, spelt and explained once."""

from typing import Annotated

import typer

from db.sql import gone_scope
from tagonce.options import gone_option

_POLICY = "What to keep"
"""Heading in --help of the options that make a policy."""
MOST = 2**31 - 1
"""Of anything that can be asked for. Larger numbers overflow in SQL or in numpy."""

SOURCE_HELP = "A folder, an image, s3://bucket/prefix, a list (.txt .csv .jsonl .parquet), or - for a list on stdin."

Sources = Annotated[list[str], typer.Argument(metavar="SOURCE...", help=SOURCE_HELP, show_default=False)]
OptionalSources = Annotated[
    list[str] | None, typer.Argument(metavar="[SOURCE...]", help=SOURCE_HELP, show_default=False)
]
Column = Annotated[str | None, typer.Option(help="Column of a list that holds the references.", show_default=False)]
Null = Annotated[
    bool, typer.Option("--null", "-0", help="A list has NUL between its references, as by `find -print0`.")
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Leave out what this matches, as in a .gitignore, below the source: 'drafts/', '*_small.*'. Repeatable.",
        show_default=False,
    ),
]
NoDefaultExcludes = Annotated[
    bool,
    typer.Option(
        "--no-default-excludes", help="Take hidden names too, and folders such as @eaDir, #recycle, __MACOSX."
    ),
]
AllNames = Annotated[
    bool,
    typer.Option("--all-names", help="Take every name, also without an image's extension: its content decides."),
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
    typer.Option("--model", "-m", help="Which stored model, by name or id. Default: the latest.", show_default=False),
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
    typer.Option("--compile/--no-compile", help="TAGONCE_COMPILE. Compile the network with torch.", show_default=False),
]
MetricsPort = Annotated[
    int | None, typer.Option(help="TAGONCE_METRICS_PORT. Serve metrics for Prometheus here.", show_default=False)
]
MaxIdle = Annotated[
    float | None, typer.Option(help="TAGONCE_MAX_IDLE. End after so many seconds without work.", show_default=False)
]
Devices = Annotated[
    str | None,
    typer.Option(
        metavar="all|DEVICE,...", help="One process for each: all CUDA GPUs, or a list of devices.", show_default=False
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        "-t",
        help="Keep tags at or above it. Default: the model's own.",
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
        help="Thresholds saved under a name, see `tagonce thresholds`. The options beside it change it: each replaces "
        "what the profile says on the same thing.",
        show_default=False,
        rich_help_panel=_POLICY,
    ),
]
CategoryThresholds = Annotated[
    list[str] | None,
    typer.Option(
        "--category-threshold",
        metavar="CATEGORY=VALUE",
        help="For one category, as in character=0.85; `off` keeps none of it, `default` drops what the profile says. "
        "Repeatable.",
        show_default=False,
        rich_help_panel=_POLICY,
    ),
]
TagThresholds = Annotated[
    list[str] | None,
    typer.Option(
        "--tag-threshold",
        metavar="TAG=VALUE",
        help="For one tag, as in english_text=0.8; `off` and `default` as for a category. Repeatable.",
        show_default=False,
        rich_help_panel=_POLICY,
    ),
]
Top = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MOST,
        help="Of what the thresholds leave, at most so many tags an image.",
        show_default=False,
        rich_help_panel=_POLICY,
    ),
]
NoTop = Annotated[
    bool, typer.Option("--no-top", help="Without the profile's limit of tags an image.", rich_help_panel=_POLICY)
]
MCut = Annotated[
    bool | None,
    typer.Option(
        "--mcut/--no-mcut",
        help="Cut each category of an image at its widest gap; thresholds given beside it are lower bounds.",
        show_default=False,
        rich_help_panel=_POLICY,
    ),
]
Under = Annotated[
    str | None, typer.Option(help="Only images in this folder or under this s3:// prefix.", show_default=False)
]
Query = Annotated[
    str | None,
    typer.Option("--query", "-q", help="Only images that this search finds, see `tagonce search`.", show_default=False),
]
IfGone = Annotated[
    gone_option.IfGone | None,
    typer.Option(
        "--gone",
        help="What a folder or s3:// prefix no longer has: `mark` it, so that searches and exports leave it out until "
        "it is seen again, or `keep` it. Default: tag marks, enqueue keeps.",
        show_default=False,
    ),
]
EvenMost = Annotated[bool, typer.Option("--yes", help="With --gone mark: even more than half of a place.")]
Gone = Annotated[
    gone_scope.Gone,
    typer.Option("--gone", help="Images marked as gone, see `tagonce tag --gone`: leave out, include, or only them."),
]
Json = Annotated[bool, typer.Option("--json", help="For programs: JSON on standard output.")]
