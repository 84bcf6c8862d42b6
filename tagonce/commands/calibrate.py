"""`tagonce calibrate`: the best threshold of each tag from human tags, saved as a profile."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from db.errors import SourceError
from db.ledger.models import Model, Tag
from db.names.plural import counted
from db.policy.policies import to_threshold
from db.policy.profiles import Profile
from db.scope import Gone
from db.scores import NEVER
from db.truth.calibration import By, Calibration, Goal
from db.truth.evaluation import Counts, Evaluation
from db.truth.truth import Truth
from tagonce import settings
from tagonce.options import parameters
from tagonce.output import ui
from tagonce.output.metric_tables import (
    basis,
    judged,
    judged_json,
    metrics_table,
    need_images,
    progress,
    row_of_cut,
)

_SHOWN = 5


def command(
    truth: parameters.TruthSource,
    save: Annotated[str, typer.Option(metavar="NAME", help="Name of the profile; a new version is saved.")],
    by: Annotated[By, typer.Option(help="Metric to maximize for each tag.")] = By.INFORMEDNESS,
    beta: Annotated[float, typer.Option(min=0.01, help="With f-beta: weight of recall relative to precision.")] = 1.0,
    min_precision: Annotated[
        float, typer.Option(min=0, max=1, help="A tag that cannot reach this precision is switched off.")
    ] = 0.0,
    min_recall: Annotated[
        float, typer.Option(min=0, max=1, help="A tag that cannot reach this recall gets the highest possible recall.")
    ] = 0.0,
    min_support: Annotated[
        int, typer.Option(min=1, help="Tags with fewer human-tagged images are not calibrated.")
    ] = 10,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            "-t",
            help="Threshold of tags that are not calibrated. Default: the model's own.",
            show_default=False,
        ),
    ] = None,
    holdout: Annotated[
        float, typer.Option(min=0, max=0.9, help="Hold out this share of the images, and evaluate the result on them.")
    ] = 0.0,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Plot the curves of the images used: .png or .svg.")
    ] = None,
    gone: parameters.Gone = Gone.EXCLUDE,
    model: parameters.StoredModel = None,
    database: parameters.DatabaseUrl = None,
    json: parameters.Json = False,
) -> None:
    """Find the best threshold of each tag from human tags, and save them as a profile.

    The result is evaluated on the same images, which is optimistic, or with --holdout on others.

    Example: tagonce calibrate captions/ --save mine --by f-beta --min-precision 0.1 --holdout 0.2
    """
    from db.ledger import models
    from db.policy import profiles
    from db.policy.policies import own_threshold, resolve
    from db.truth.calibration import calibrate, grid
    from db.truth.evaluation import evaluate
    from db.truth.load_truth import read_truth
    from tagonce.from_settings import stored, stored_model
    from tagonce.options.policy_options import ThresholdOptions, resolve_policy
    from tagonce.output import plots

    default = ThresholdOptions(threshold).changes.default
    profiles.check_name(save)  # before the work, not after it
    goal = Goal(by, beta, min_precision, min_recall, min_support)
    if plot:
        plots.check(plot)
    with stored(settings.load(database_url=database)) as opened:
        with opened.read(gone=gone) as connection:
            row = stored_model(connection, model)
            tags = models.tag_names(connection, row.id)
            default_policy = resolve_policy(connection, row)
            own = default_policy.cut
            said = read_truth(connection, row, truth)
            used, aside = said.split(holdout) if holdout else (said, None)
            # Tags that are not calibrated are evaluated at the model's own threshold, or at --threshold.
            tried = {*grid(row.floor), own_threshold(row)} | ({default} if default and default < NEVER else set())
            with progress(used, "Calibrating") as advance:
                found = evaluate(connection, row, used, sorted(tried), [own], advance=advance)
            need_images(row, said, found.counts)
            result = calibrate(found.counts, tags, goal, default=default)
            _need_thresholds(said, found.counts, result, goal, tags)
            new = resolve(row, tags, result.policy)
            if aside is None:
                before, after, judged_on = found.cuts[0], found.counts.of_cut(new), found.counts
            else:
                with progress(aside, "Judging") as advance:
                    check = evaluate(connection, row, aside, [], [own, new], advance=advance)
                need_images(row, aside, check.counts)
                (before, after), judged_on = check.cuts, check.counts
        source = f"{goal}; {basis(said, found.counts)}"
        with opened.write() as connection:
            profile = profiles.save(connection, row, save, result.policy, source=source)
    rows = [
        row_of_cut(default_policy.profile.label if default_policy.profile else "the model's own", before, 1),
        row_of_cut(profile.label, after, 1),
    ]
    if plot:
        plots.save_overview(plot, f"{row.name}, {counted(found.counts.images, 'image')}", found.counts)
    if json:
        ui.print_json(
            _as_json(row, profile, result, found)
            | {
                "truth": judged_json(said if aside is None else aside, judged_on, 1),
                "held_out": aside is not None,
                "before": rows[0].as_json(),
                "after": rows[1].as_json(),
            }
        )
        return
    ui.output.print(metrics_table(rows, "thresholds"))
    for line in [
        *judged(row, said if aside is None else aside, judged_on, 1),
        _caution(aside, found),
        *_outcome(profile, result),
        *([f"Written: {plot}"] if plot else []),
        f"Next: tagonce thresholds diff default {profile.name}, tagonce export --profile {profile.name}",
    ]:
        ui.errors.print(line, markup=False)


def _need_thresholds(said: Truth, counts: Counts, result: Calibration, goal: Goal, tags: Sequence[Tag]) -> None:
    """A profile without a calibrated tag is not saved.

    Raises:
        SourceError: no tag has enough images.
    """
    if result.policy.tags:
        return
    if said.judged is not None:
        needed = f"{counted(goal.min_support, 'label')} saying right and one saying wrong"
        more = "Label more"
    else:
        needed = f"{counted(goal.min_support, 'image')} with it and one without"
        more = "Give more images with true tags"
    most = int(counts.support.argmax())
    named = counted(int((counts.support > 0).sum()), "tag")
    found = f"{basis(said, counts)}, {named} of the model"
    if counts.support[most]:
        found += f"; the most frequent, {tags[most].name}, is on {counts.support[most]:,} of {counts.judged_on[most]:,}"
    raise SourceError(
        f"Not enough data to calibrate: a tag needs {needed}, and no tag has that. Found: {found}. {more}, or lower "
        "--min-support."
    )


def _caution(aside: Truth | None, found: Evaluation) -> str:
    if aside is None:
        return "Evaluated on the images used for calibration, which is optimistic: --holdout 0.2 uses others."
    return f"None of these images is among the {found.counts.images:,} used for calibration."


def _outcome(profile: Profile, result: Calibration) -> list[str]:
    policy = result.policy
    default = "the model's own" if policy.default is None else to_threshold(policy.default)
    lines = [f"Saved as {profile.label}: thresholds for {counted(len(policy.tags), 'tag')}, {default} for all others."]
    for names, words in (
        (result.off, "are switched off: no threshold reaches the precision, or is better than keeping nothing"),
        (result.short, "do not reach the recall"),
    ):
        if names:
            more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
            lines.append(f"{len(names):,} of them {words}: {', '.join(names[:_SHOWN])}{more}.")
    return lines


def _as_json(model: Model, profile: Profile, result: Calibration, found: Evaluation) -> dict[str, Any]:
    return {
        "model": {"id": model.id, "name": model.name},
        "profile": profile.label,
        "source": profile.source,
        "calibrated_on": found.counts.images,
        "tags": len(result.policy.tags),
        "off": result.off,
        "short_of_recall": result.short,
        "default": None if result.policy.default is None else to_threshold(result.policy.default),
    }
