"""`tagonce calibrate`: the best threshold of each tag, by tags that people gave, saved as a profile."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from db.errors import SourceError
from db.ledger.models import Model, Tag
from db.names.plural import counted
from db.policy.policies import to_threshold
from db.policy.profiles import Profile
from db.scores import NEVER
from db.sql.gone_scope import Gone
from db.truth.calibration import By, Calibration, Goal
from db.truth.evaluation import Counts, Evaluation
from db.truth.truth import Truth
from tagonce import settings
from tagonce.options import parameters
from tagonce.output import ui
from tagonce.output.metric_tables import (
    TruthSource,
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
    truth: TruthSource,
    save: Annotated[str, typer.Option(metavar="NAME", help="The profile to save, as its next version.")],
    by: Annotated[By, typer.Option(help="What is made as large as possible for each tag.")] = By.INFORMEDNESS,
    beta: Annotated[
        float, typer.Option(min=0.01, help="With f-beta: recall counts so many times as much as precision.")
    ] = 1.0,
    min_precision: Annotated[
        float, typer.Option(min=0, max=1, help="A tag that cannot reach it is switched off.")
    ] = 0.0,
    min_recall: Annotated[
        float, typer.Option(min=0, max=1, help="A tag that cannot reach it gets the highest recall it can have.")
    ] = 0.0,
    min_support: Annotated[
        int, typer.Option(min=1, help="Tags that people gave to fewer images get no threshold of their own.")
    ] = 10,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            "-t",
            help="For all those tags. Default: the model's own, which stays as it is.",
            show_default=False,
        ),
    ] = None,
    holdout: Annotated[
        float, typer.Option(min=0, max=0.9, help="Keep this share of the images aside, and judge the result on them.")
    ] = 0.0,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the curves of the images used: .png or .svg.")
    ] = None,
    gone: parameters.Gone = Gone.EXCLUDE,
    model: parameters.StoredModel = None,
    database: parameters.DatabaseUrl = None,
    json: parameters.Json = False,
) -> None:
    """Find the best threshold of each tag, from tags that people gave, and save them as a profile.

    The result is judged on the images that it was made from, which flatters it, or with --holdout on others.

    Example: tagonce calibrate captions/ --save mine --by f-beta --min-precision 0.1 --holdout 0.2
    """
    from db.ledger import models
    from db.policy import profiles
    from db.policy.policies import resolve
    from db.truth.calibration import calibrate, grid
    from db.truth.evaluation import evaluate
    from db.truth.load_truth import read_truth
    from tagonce.from_settings import stored, stored_model
    from tagonce.options.policy_options import policy_of
    from tagonce.output import plots

    default = policy_of(threshold=threshold).default
    profiles.check_name(save)  # before the work, not after it
    goal = Goal(by, beta, min_precision, min_recall, min_support)
    if plot:
        plots.check(plot)
    with stored(settings.load(database_url=database)) as opened:
        with opened.read(gone=gone) as connection:
            row = stored_model(connection, model)
            tags = models.tag_names(connection, row.id)
            own = resolve(row, tags)
            said = read_truth(connection, row, truth)
            used, aside = said.split(holdout) if holdout else (said, None)
            # Tags that get no threshold are judged at the model's own, or at --threshold.
            tried = {*grid(row.floor), *own.scores.tolist()} | ({default} if default and default < NEVER else set())
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
        row_of_cut("the model's own", before, 1),
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
        more = "Judge more"
    else:
        needed = f"{counted(goal.min_support, 'image')} with it and one without"
        more = "Give more images with true tags"
    most = int(counts.support.argmax())
    named = counted(int((counts.support > 0).sum()), "tag")
    found = f"{basis(said, counts)}, {named} of the model"
    if counts.support[most]:
        found += f"; the most frequent, {tags[most].name}, is on {counts.support[most]:,} of {counts.judged_on[most]:,}"
    raise SourceError(
        f"Too little to calibrate from: a tag needs {needed}, and none has them. Found: {found}. {more}, or lower "
        "--min-support."
    )


def _caution(aside: Truth | None, found: Evaluation) -> str:
    if aside is None:
        return "The thresholds were made from the same images, which flatters them: --holdout 0.2 judges on others."
    return f"None of these images is among the {found.counts.images:,} from which the thresholds were made from."


def _outcome(profile: Profile, result: Calibration) -> list[str]:
    policy = result.policy
    default = "the model's own" if policy.default is None else to_threshold(policy.default)
    lines = [f"Saved as {profile.label}: thresholds for {counted(len(policy.tags), 'tag')}, {default} for all others."]
    for names, words in (
        (result.off, "are off: none of their thresholds is good enough"),
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
