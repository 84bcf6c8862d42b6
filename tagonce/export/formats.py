"""The formats of `tagonce export`: for each the writer, and the options that it takes. A new format is one entry."""

from dataclasses import fields
from functools import partial

from db.export.options import CaptionOptions, Placement, Underscores
from db.export.parquet import LongParquet, WideParquet
from db.export.text import JsonLines, Kohya, LongCsv, json_inner
from producer.uris import path_or_uri
from tagonce.export.choices import Format
from tagonce.export.imagefolders import imagefolder_writer
from tagonce.export.job import FormatSpec
from tagonce.export.lake_writer import LakeWriter
from tagonce.export.parquet_writer import ParquetWriter
from tagonce.export.sidecar_writer import SidecarWriter
from tagonce.export.text_writer import TextWriter

_IN_CAPTIONS_ONLY = frozenset({"separator", "escape", "prepend", "append", "score_suffix"})
_IN_ORDER_ONLY = frozenset({"first", "category_order", "sort", "seed"})
HYDRUS_NAMESPACES = {"artist": "creator", "copyright": "series"}
"""The names of these categories in Hydrus."""

_table = partial(
    FormatSpec,
    # For programs: the model's own names by default.
    defaults=CaptionOptions(underscores=Underscores.KEEP, rating=Placement.THRESHOLD, quality=Placement.THRESHOLD),
    unused=_IN_CAPTIONS_ONLY,
    unique_names=True,
)


FORMATS = {
    spec.name: spec
    for spec in (
        FormatSpec(Format.TXT, SidecarWriter, sidecars=True, uses_root=True, to_stdout=False),
        FormatSpec(
            Format.JSONL,
            lambda job: TextWriter(job, JsonLines(job.captioner, job.tags), job.export.out),
            encode=json_inner,
            sizes=True,
        ),
        FormatSpec(Format.IMAGEFOLDER, imagefolder_writer, encode=json_inner, uses_root=True),
        FormatSpec(
            Format.KOHYA,
            lambda job: TextWriter(job, Kohya(job.captioner, path_or_uri), job.export.out),
            encode=json_inner,
            sizes=True,
        ),
        FormatSpec(
            Format.HYDRUS,
            partial(SidecarWriter, whole_name=True),
            defaults=CaptionOptions(
                separator="\n", category_prefix=True, rating=Placement.THRESHOLD, quality=Placement.THRESHOLD
            ),
            unused=frozenset({"separator"}),
            namespaces=HYDRUS_NAMESPACES,
            sidecars=True,
            uses_root=True,
            to_stdout=False,
        ),
        _table(Format.CSV, lambda job: TextWriter(job, LongCsv(job.captioner), job.export.out)),
        _table(Format.PARQUET, partial(ParquetWriter, kind=LongParquet), to_stdout=False),
        _table(
            Format.PARQUET_WIDE,
            partial(ParquetWriter, kind=WideParquet),
            unused=_IN_CAPTIONS_ONLY | _IN_ORDER_ONLY,
            sizes=True,
            to_stdout=False,
        ),
        FormatSpec(
            Format.PARQUET_PACKED,
            LakeWriter,
            unused=frozenset(field.name for field in fields(CaptionOptions)),
            all_scores=True,
            to_stdout=False,
        ),
    )
}
