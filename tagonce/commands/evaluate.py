"""`tagonce evaluate`: metrics of the stored scores against human tags."""

import csv
from collections.abc import Iterator, Sequence
from math import isnan
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from db.ledger.models import Tag
from db.names.plural import counted
from db.scope import Gone
from db.scores import to_probability, to_score
from db.truth.evaluation import METRICS, Confusion, Counts
from tagonce import settings
from tagonce.options import parameters
from tagonce.output import ui
from tagonce.output.metric_tables import (
    find_tag,
    judged,
    judged_json,
    metrics_table,
    need_images,
    parse_range,
    progress,
    row_of_cut,
    rows_of,
)

_NUMBERS = ("tp", "fp", "fn", "tn")
_COLUMNS = ("tag", "category", "threshold", "support", *_NUMBERS, *METRICS)
"""Columns of the file of --by-tag."""
_USUAL = "0.1..0.9:0.1"
_PLOT_STEP = 100
"""Step of the curves: 0.01."""


def command(
    truth: parameters.TruthSource,
    threshold: Annotated[
        list[str] | None,
        typer.Option("--threshold", "-t", help="Evaluate at this threshold. Repeatable. Default: see --thresholds."),
    ] = None,
    thresholds: Annotated[
        str | None,
        typer.Option(
            metavar="FROM..TO:STEP",
            help=f"Evaluate at a range of thresholds. Default: the model's own, and {_USUAL} without --profile.",
        ),
    ] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(
            "--profile",
            "-p",
            metavar="NAME[@VERSION]",
            help="Evaluate saved thresholds too. Repeatable.",
        ),
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Show one tag in detail.", show_default=False)] = None,
    by_tag: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Write the metrics of each tag, one row per tag and threshold."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Plot precision-recall and threshold curves, of --tag if given: .png or .svg."
        ),
    ] = None,
    min_support: Annotated[
        int, typer.Option(min=1, help="Exclude tags with fewer human-tagged images from macro averages.")
    ] = 1,
    gone: parameters.Gone = Gone.EXCLUDE,
    model: parameters.StoredModel = None,
    database: parameters.DatabaseUrl = None,
    json: parameters.Json = False,
) -> None:
    """Compare stored scores with human tags: precision, recall, F1 and informedness at many thresholds.

    Informedness is recall + specificity - 1 (bookmaker informedness).

    Example: tagonce evaluate captions/ --threshold 0.2 --threshold 0.35
    """
    from db.ledger import models
    from db.policy import model_default
    from db.truth import calibration
    from db.truth.evaluation import evaluate
    from db.truth.load_truth import read_truth
    from tagonce.from_settings import stored, stored_model
    from tagonce.options.policy_options import resolve_policy
    from tagonce.output import plots
    from tagonce.whole_files import refuse_foreign

    asked = {to_score(one) for one in threshold or ()} | set(parse_range(thresholds) if thresholds else ())
    if plot:
        plots.check(plot)
    if by_tag:
        refuse_foreign(by_tag, ",".join(_COLUMNS).encode())
    with stored(settings.load(database_url=database)) as opened, opened.read(gone=gone) as connection:
        row = stored_model(connection, model)
        tags = models.tag_names(connection, row.id)
        tag_id = None if tag is None else find_tag(row, tag, tags)
        if not asked:
            usual = [] if profile else [score for score in parse_range(_USUAL) if score >= row.floor]
            asked = {max(row.default_threshold, row.floor), *usual}
        default = None if profile or threshold or thresholds else model_default.find(connection, row)
        profile = [default.label] if default else profile
        policies = [resolve_policy(connection, row, profile=name) for name in profile or ()]
        said = read_truth(connection, row, truth)
        tried = {*asked, *(calibration.grid(row.floor, _PLOT_STEP) if plot else ())}
        with progress(said) as advance:
            cuts = [one.cut for one in policies]
            found = evaluate(connection, row, said, sorted(tried), cuts, advance=advance)
    counts, scores = found.counts, sorted(asked)
    need_images(row, said, counts)
    labels = [one.label for one in policies]
    rows = rows_of(counts, scores, min_support)
    rows += [row_of_cut(label, one, min_support) for label, one in zip(labels, found.cuts, strict=True)]
    details = [] if tag_id is None else list(_of_tags(counts, scores, labels, found.cuts, tags, [tag_id]))
    if by_tag:
        every = np.flatnonzero((counts.support > 0) | (counts.kept.sum(axis=1) > 0)).tolist()
        _write(by_tag, _of_tags(counts, scores, labels, found.cuts, tags, every))
    if plot:
        if tag_id is None:
            plots.save_overview(plot, f"{row.name}, {counted(counts.images, 'image')}", counts, min_support=min_support)
        else:
            images = int(counts.judged_on[tag_id])
            plots.save_tag(plot, f"{tags[tag_id].name} by {row.name}, {counted(images, 'image')}", counts, tag_id)
    if json:
        ui.print_json(
            {
                "model": {"id": row.id, "name": row.name},
                "truth": judged_json(said, counts, min_support),
                "results": [one.as_json() for one in rows],
                "tag": details or None,
            }
        )
        return
    ui.output.print(_tag_table(details, counts) if details else metrics_table(rows))
    for line in [*judged(row, said, counts, min_support), *(f"Written: {file}" for file in (by_tag, plot) if file)]:
        ui.errors.print(line, markup=False)


def _of_tags(
    counts: Counts,
    scores: Sequence[int],
    labels: Sequence[str],
    cuts: Sequence[Confusion],
    tags: Sequence[Tag],
    chosen: Sequence[int],
) -> Iterator[dict[str, Any]]:
    """The metrics of each tag: one row per threshold, then one row per policy."""
    places = np.searchsorted(counts.thresholds, scores)
    for tag_id in chosen:
        at = counts.of(slice(tag_id, tag_id + 1)).at(0, places)
        columns = [at, *(one.at(slice(tag_id, tag_id + 1)) for one in cuts)]
        values = {
            name: np.concatenate([getattr(one, name) for one in columns]).tolist() for name in (*_NUMBERS, *METRICS)
        }
        names = [*(to_probability(score) for score in scores), *labels]
        for place, name in enumerate(names):
            numbers = {key: None if isnan(column[place]) else column[place] for key, column in values.items()}
            tag = tags[tag_id]
            yield {
                "tag": tag.name,
                "category": tag.category,
                "threshold": name,
                "support": int(counts.support[tag_id]),
            } | numbers


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    from db.export.text import no_formula
    from tagonce.whole_files import whole_file

    with whole_file(path) as file:
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | {"tag": no_formula(row["tag"])} for row in rows)


def _tag_table(rows: Sequence[dict[str, Any]], counts: Counts) -> Table:
    first = rows[0]
    given = f"given to {counted(first['support'], 'image')}"
    if counts.judged is not None:
        given = f"right on {first['support']:,} of {counted(sum(first[name] for name in _NUMBERS), 'image')} judged"
    table = Table("threshold", box=None, title=f"{first['tag']}, {given}")
    for name in (*_NUMBERS, *METRICS):
        table.add_column(name, justify="right")
    for row in rows:
        metrics = ["" if row[name] is None else f"{row[name]:.4f}" for name in METRICS]
        table.add_row(str(row["threshold"]), *(f"{row[name]:,}" for name in _NUMBERS), *metrics)
    return table
