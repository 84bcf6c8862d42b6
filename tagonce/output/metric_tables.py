"""Shared by `evaluate` and `calibrate`: ranges of thresholds, progress, tables of metrics, summaries."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from math import isnan
from typing import Any

from rich.table import Table
from rich.text import Text

from db.errors import SettingsError, SourceError, ThresholdError
from db.ledger.models import Model, Tag
from db.names.match_tags import TagIndex
from db.names.plural import counted
from db.policy.policies import unknown_name
from db.scores import to_probability, to_score
from db.truth.evaluation import METRICS, Confusion, Counts, Metrics, as_column, macro, micro
from db.truth.labels import Drawn
from db.truth.load_truth import describe
from db.truth.truth import Truth
from tagonce.output.progress import progress_bar

_SHOWN_UNKNOWN = 20
_HEADINGS = {"precision": "prec.", "recall": "recall", "f1": "F1", "informedness": "inform."}
"""Short, so that the table fits into 80 columns."""


@dataclass(frozen=True, slots=True)
class MetricRow:
    """The metrics of one threshold or policy."""

    label: str
    threshold: int | None
    """A score; None for a policy."""
    micro: dict[str, float]
    """NaN for what is undefined."""
    macro: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Plain values; None for what is undefined."""
        threshold = None if self.threshold is None else to_probability(self.threshold)
        metrics = {
            kind: {name: None if isnan(value) else value for name, value in values.items()}
            for kind, values in (("micro", self.micro), ("macro", self.macro))
        }
        return {"label": self.label, "threshold": threshold, **metrics}


def parse_range(text: str) -> list[int]:
    """Parse `0.1..0.9:0.1` (from, to inclusive, step) into scores.

    Raises:
        ThresholdError: the text has another form.
    """
    ends, colon, step_text = text.partition(":")
    first_text, dots, last_text = ends.partition("..")
    try:
        step = to_score(Decimal(step_text)) if colon else 0
        first, last = to_score(Decimal(first_text)), to_score(Decimal(last_text))
    except InvalidOperation:
        step = 0
    if not dots or step < 1 or first > last:
        raise ThresholdError(f"--thresholds is FROM..TO:STEP, as in 0.1..0.9:0.1, not {text!r}.")
    return list(range(first, last + 1, step))


@contextmanager
def progress(truth: Truth, description: str = "Comparing") -> Iterator[Callable[[int], None]]:
    """A bar over the labelled images."""
    with progress_bar() as bar:
        task = bar.add_task(description, total=len(truth))
        yield lambda images: bar.advance(task, images)


def rows_of(counts: Counts, scores: Sequence[int], min_support: int) -> list[MetricRow]:
    """The metrics at some of the thresholds that were counted."""
    totals, means = micro(counts.micro()), counts.macro(min_support)
    places = {score: place for place, score in enumerate(counts.thresholds.tolist())}
    return [
        MetricRow(f"{to_probability(score):g}", score, _at(totals, places[score]), _at(means, places[score]))
        for score in scores
    ]


def row_of_cut(label: str, confusion: Confusion, min_support: int) -> MetricRow:
    """The metrics of a policy, from its (tags,) confusion."""
    column = as_column(confusion)
    return MetricRow(label, None, _at(micro(column.summed()), 0), _at(macro([column], min_support), 0))


def metrics_table(rows: Sequence[MetricRow], first: str = "threshold") -> Table:
    """One row each, micro and macro; with several rows, the best value of each column is marked."""
    table = Table(first, box=None, padding=(0, 1, 0, 0))
    for kind in ("micro", "macro"):
        for name in METRICS:
            table.add_column(f"{kind}\n{_HEADINGS[name]}", justify="right")
    # An undefined value is undefined in all rows, since it depends on the truth alone. NaN != NaN, so it gets no star.
    best = [max(row.micro[name] for row in rows) for name in METRICS]
    best += [max(row.macro[name] for row in rows) for name in METRICS]
    for row in rows:
        values = [row.micro[name] for name in METRICS] + [row.macro[name] for name in METRICS]
        table.add_row(Text(row.label), *_marked(values, best if len(rows) > 1 else []))
    return table


def _marked(values: Iterable[float], best: Sequence[float]) -> list[Text]:
    # The star marks the best without colours.
    return [
        Text(f"{value:.4f}*", style="bold green")
        if best and value == best[place]
        else Text("- " if isnan(value) else f"{value:.4f} ")
        for place, value in enumerate(values)
    ]


def judged(model: Model, truth: Truth, counts: Counts, min_support: int) -> list[str]:
    """Sentences that describe the comparison."""
    supported = counted(int((counts.support >= max(min_support, 1)).sum()), "tag")
    macro_is = f"macro is the mean over {supported} given to at least {max(min_support, 1):,} of them"
    micro_is = f"micro counts all {counts.support.size:,}" if counts.judged is None else "micro counts every label"
    lines = [f"{model.name} evaluated on {basis(truth, counts)}; {macro_is}, {micro_is}."]
    if without := len(truth) - counts.images:
        lines.append(f"{counted(without, 'more image')} with {_words(counts)} but no prediction of this model.")
    return lines + describe(truth) + ([] if counts.judged is None else _cautions(truth))


def basis(truth: Truth, counts: Counts) -> str:
    """The data of the metrics: `45 images with true tags from captions/`, or `123 labels of 45 images`."""
    if counts.judged is None:
        return f"{counted(counts.images, 'image')} with true tags from {truth.source}"
    return f"{counted(int(counts.judged.sum()), 'label')} of {counted(counts.images, 'image')}"


def _words(counts: Counts) -> str:
    return "true tags" if counts.judged is None else "labels"


def _cautions(truth: Truth) -> list[str]:
    """Limits of metrics from labels."""
    unseen = (
        "Only labelled tags count. Tags without a label, such as those with probabilities too low to be shown, are "
        "neither right nor wrong here, so recall may be overestimated."
    )
    lines = [unseen]
    chosen = {name: number for name, number in truth.found.drawn if name != Drawn.RANDOM}
    if chosen:
        ways = ", ".join(f"{name} {number:,}" for name, number in chosen.items())
        lines.append(
            f"{sum(chosen.values()):,} of {counted(sum(dict(truth.found.drawn).values()), 'label')} on images not "
            f"drawn at random ({ways}): the metrics describe the labelled images, not the collection."
        )
    return lines


def judged_json(truth: Truth, counts: Counts, min_support: int) -> dict[str, Any]:
    """The comparison as JSON values."""
    by_hand = {} if counts.judged is None else {"labels": int(counts.judged.sum()), "drawn": dict(truth.found.drawn)}
    return by_hand | {
        "source": truth.source,
        "images": counts.images,
        "without_prediction": len(truth) - counts.images,
        "min_support": max(min_support, 1),
        "tags_with_support": int((counts.support >= max(min_support, 1)).sum()),
        "references": truth.found.entries,
        "unmatched": truth.found.unmatched,
        "ambiguous": truth.found.ambiguous,
        "unreadable": truth.found.unreadable,
        "unknown_tags": len(truth.found.unknown),
        "most_frequent_unknown_tags": dict(truth.found.unknown[:_SHOWN_UNKNOWN]),
    }


def need_images(model: Model, truth: Truth, counts: Counts) -> None:
    """Check that there is something to compare.

    Raises:
        SourceError: no labelled image has a prediction.
    """
    if not counts.images:
        raise SourceError(
            f"Nothing to compare: no image of {counted(len(truth), 'image')} with {_words(counts)} from {truth.source} "
            f"has a prediction of {model.name}."
        )


def find_tag(model: Model, name: str, tags: Sequence[Tag]) -> int:
    """The id of a tag, in any of its spellings.

    Raises:
        SettingsError: the model has no such tag; the message suggests similar names.
    """
    if found := TagIndex(tags).find(name):
        return found[0]
    raise SettingsError(f"{model.name}: {unknown_name(name, [tag.name for tag in tags], 'tag')}")


def _at(metrics: Metrics, place: int) -> dict[str, float]:
    return {name: float(getattr(metrics, name)[place]) for name in METRICS}
