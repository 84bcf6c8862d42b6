"""Plots as PNG or SVG, by matplotlib without pyplot, which would keep global state."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from db.errors import SettingsError
from db.names.plural import counted
from db.read.histograms import Histogram
from db.scores import SCALE
from db.truth.evaluation import Confusion, Counts, FloatArray, Metrics, micro
from tagonce.whole_files import refuse_foreign, whole_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".svg")
_MADE_BY = "tagonce"
"""Stored in the metadata of the file."""
BARS = 20
"""Bins in the histogram of a tag's labelled scores: one per 0.05."""

# The Okabe-Ito palette, safe for all kinds of colour vision; lines differ in style too.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#8C8C8C"
_DPI = 100
_SIZE = (12.8, 5.4)
"""Inches: 1,280 pixels wide."""


def check(path: Path) -> None:
    """Check that a plot can be written, before any work is done.

    Raises:
        SettingsError: the suffix is neither .png nor .svg, matplotlib is not installed, or the file exists and is not
            a plot of tagonce.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise SettingsError(f"--plot writes {' or '.join(SUFFIXES)}, not {path.name}.")
    refuse_foreign(path, _MADE_BY.encode())
    try:
        import matplotlib as mpl  # noqa: F401
    except ModuleNotFoundError as error:
        raise SettingsError("--plot needs matplotlib, which is not installed: pip install 'tagonce[plots]'") from error


def save_overview(path: Path, title: str, counts: Counts, *, min_support: int = 1) -> None:
    """Plot precision over recall, and informedness and F1 over the threshold, micro and macro.

    Macro precision falls at high thresholds, since a tag that is never kept counts as 0.
    """
    thresholds = counts.thresholds / SCALE
    kinds = (
        ("micro", micro(counts.micro()), _BLUE, "-"),
        ("macro", counts.macro(min_support), _ORANGE, "--"),
    )
    with _panels(path, title, 2) as (left, right):
        _share_axes(left, "recall", "precision")
        for name, metrics, colour, style in kinds:
            _precision_recall(left, thresholds, metrics, name, colour, style)
        _legend(left)
        _share_axes(right, "threshold (probability)", "informedness, F1")
        for name, metrics, colour, style in kinds:
            _with_best(right, thresholds, metrics.informedness, f"informedness, {name}", colour, style)
            _with_best(right, thresholds, metrics.f1, f"F1, {name}", colour, ":" if style == "-" else "-.")
        _legend(right)


def save_tag(path: Path, title: str, counts: Counts, tag_id: int) -> None:
    """Plot one tag: precision over recall, informedness and F1 over the threshold, and its scores by label."""
    thresholds = counts.thresholds / SCALE
    confusion: Confusion = counts.of(slice(tag_id, tag_id + 1)).at(0)
    metrics = micro(confusion)
    with _panels(path, title, 3) as (left, middle, right):
        _share_axes(left, "recall", "precision")
        _precision_recall(left, thresholds, metrics, "this tag", _BLUE, "-")
        _legend(left)
        _share_axes(middle, "threshold (probability)", "informedness, F1")
        _with_best(middle, thresholds, metrics.informedness, "informedness", _BLUE, "-")
        _with_best(middle, thresholds, metrics.f1, "F1", _ORANGE, "--")
        _legend(middle)
        bars = np.minimum(counts.thresholds.astype(np.int64) * BARS // SCALE, BARS - 1)
        given, every = (
            np.bincount(bars, weights=table[tag_id], minlength=BARS) for table in (counts.positives, counts.kept)
        )
        support, judged = int(counts.support[tag_id]), int(counts.judged_on[tag_id])
        edges = np.arange(BARS + 1) / BARS
        for values, name, colour, hatch, unseen in (
            (every - given, "not given", _GREY, "", judged - support - (every - given).sum()),
            (given, "given", _BLUE, "//", support - given.sum()),
        ):
            label = f"{name} ({unseen:,.0f} more below the floor)" if unseen else name
            right.stairs(values, edges, fill=not hatch, color=colour, hatch=hatch, label=label, linewidth=1.5)
        _count_axis(right, max(given.max(), (every - given).max()))
        _legend(right)


def save_histogram(path: Path, title: str, found: Histogram) -> None:
    """Plot the distribution of a tag's scores."""
    with _panels(path, title, 1) as (axes,):
        label = f"{counted(found.images, 'image')}, {found.not_stored:,} of them below the floor (not shown)"
        axes.stairs(found.counts, found.edges, fill=True, color=_BLUE, label=label)
        _count_axis(axes, max(found.counts))
        _legend(axes)


def _precision_recall(
    axes: "Axes", thresholds: FloatArray, metrics: Metrics, name: str, colour: str, style: str
) -> None:
    # Where nothing is kept, precision is undefined.
    some = metrics.recall > 0
    recall, precision, f1 = metrics.recall[some], metrics.precision[some], metrics.f1[some]
    if not recall.size:
        axes.plot([], [], color=colour, linestyle=style, label=f"{name}: no true positive at any threshold")
        return
    at = int(np.argmax(f1))
    label = f"{name}, best F1 {f1[at]:.3f} at {thresholds[some][at]:g}"
    axes.plot(recall, precision, color=colour, linestyle=style, label=label)
    axes.plot(recall[at], precision[at], "o", color=colour)


def _with_best(axes: "Axes", thresholds: FloatArray, values: FloatArray, name: str, colour: str, style: str) -> None:
    if np.isnan(values).all():
        axes.plot([], [], color=colour, linestyle=style, label=f"{name}: undefined, no tag is both given and not given")
        return
    at = int(np.nanargmax(values))
    axes.plot(
        thresholds, values, color=colour, linestyle=style, label=f"{name}, best {values[at]:.3f} at {thresholds[at]:g}"
    )
    axes.plot(thresholds[at], values[at], "o", color=colour)


def _share_axes(axes: "Axes", x: str, y: str) -> None:
    axes.set(xlabel=x, ylabel=y, xlim=(0, 1), ylim=(0, 1.02))


def _legend(axes: "Axes") -> None:
    # Below the axes, where it covers nothing.
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), frameon=False)


def _count_axis(axes: "Axes", most: float) -> None:
    axes.set(xlabel="probability", ylabel="images (logarithmic)", xlim=(0, 1), ylim=(0.5, 2 * max(most, 1)))
    # After setting limits: matplotlib warns if it has to find them for the logarithm of zeros only.
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:,.10g}")


@contextmanager
def _panels(path: Path, title: str, number: int) -> Iterator[Sequence[Any]]:
    """Axes side by side; the figure is written at the end of the block."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # Text stays text in an SVG: searchable, and without embedded fonts.
    with rc_context({"svg.fonttype": "none", "font.size": 11}):
        figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
        axes = [figure.add_subplot(1, number, place + 1) for place in range(number)]
        for one in axes:
            one.grid(visible=True, color="#DDDDDD")
            one.set_axisbelow(True)
        figure.suptitle(title, parse_math=False)
        yield axes
        with whole_path(path) as temporary:
            kind = path.suffix[1:].lower()
            figure.savefig(temporary, format=kind, metadata={"Software" if kind == "png" else "Creator": _MADE_BY})
