"""`tagonce thresholds`: named, versioned policies of a model, and what changes from one to another."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text
from sqlalchemy import Connection

from db.errors import ThresholdError
from db.ledger.models import Model
from db.names.plural import counted
from db.policy import model_default, profiles
from db.policy.policies import DEFAULT, Policy, resolve, to_cut, to_threshold
from db.policy.profiles import Profile
from db.scope import Gone
from tagonce import settings
from tagonce.options import parameters
from tagonce.options.policy_options import PolicyOptions, ThresholdOptions, base_profile, takes_policy
from tagonce.output import ui

SHOWN = 3
"""Number of unknown tags that a message lists."""

app = typer.Typer(
    name="thresholds",
    help="""Manage threshold profiles: named and versioned, for one model each, used with --profile.

    Example: tagonce thresholds import calibration.csv --name mine""",
    no_args_is_help=True,
    add_completion=False,
)

Name = Annotated[str, typer.Option("--name", "-n", help="Name of the profile. An existing name gets a new version.")]
Wanted = Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="A profile; default: its latest version.")]
Side = Annotated[str, typer.Argument(help="A profile, one threshold for all tags, or `default` for the model's own.")]


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A table of thresholds: .csv, .tsv or .json.", show_default=False)],
    name: Name,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", "-t", help="Threshold of tags that the file lacks.", show_default=False),
    ] = None,
    raise_to_floor: Annotated[
        bool, typer.Option("--raise-to-floor", help="Raise thresholds below the model's floor to the floor.")
    ] = False,
    model: parameters.StoredModel = None,
    database: parameters.DatabaseUrl = None,
) -> None:
    """Import a file of thresholds: `tag,threshold`, thresholds.csv by category, selected_tags.csv, calibration.csv.

    Example: tagonce thresholds import calibration.csv --name mine
    """
    from db.ledger import models
    from db.policy.threshold_files import for_model, read_thresholds
    from tagonce.from_settings import stored, stored_model

    config = settings.load(database_url=database)
    table = read_thresholds(file)
    with stored(config) as opened, opened.write() as connection:
        row = stored_model(connection, model)
        policy, unknown = for_model(table.policy, models.tag_names(connection, row.id))
        if unknown and not policy.tags:
            raise ThresholdError(
                f"{row.name} has none of the {counted(len(unknown), 'tag')} in {file}. Is it a file of another model?"
            )
        policy = policy.with_default(ThresholdOptions(threshold).changes.default)
        saved = profiles.save(
            connection, row, name, policy.at_least(row.floor) if raise_to_floor else policy, source=f"file {file.name}"
        )
    for names, what in (
        (unknown, f"skipped, because {row.name} has no tag of that name"),
        (table.without, "not changed, because the file gives no threshold"),
    ):
        if names:
            named = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
            ui.errors.print(f"{counted(len(names), 'tag')} {what}: {named}", markup=False)
    if table.rounded:
        ui.errors.print(f"{counted(table.rounded, 'threshold')} with more than four decimals, rounded up.")
    _print_saved(saved, row)


@app.command()
@takes_policy
def save(
    name: Name,
    *,
    policy: PolicyOptions,
    model: parameters.StoredModel = None,
    database: parameters.DatabaseUrl = None,
) -> None:
    """Save these options as a profile; with --profile, save that profile with these changes.

    Example: tagonce thresholds save --name mine -t 0.3 --category-threshold character=0.75
    """
    from tagonce.from_settings import stored, stored_model

    changes = policy.changes
    if changes.is_empty and policy.profile is None:
        raise ThresholdError(
            "Nothing to save: give --threshold, --category-threshold, --tag-threshold, --best-of, --top or --mcut."
        )
    config = settings.load(database_url=database)
    with stored(config) as opened, opened.write() as connection:
        row = stored_model(connection, model)
        source = "command line"
        profiles.hold(connection, row)
        base = base_profile(connection, row, changes, policy.profile)
        if base is not None:
            changes, source = base.policy.changed(changes), f"{base.label}, changed on the command line"
        _print_saved(profiles.save(connection, row, name, changes, source=source), row)


@app.command("list")
def list_(
    model: parameters.StoredModel = None, database: parameters.DatabaseUrl = None, json: parameters.Json = False
) -> None:
    """List the profiles of all models, or of one.

    Example: tagonce thresholds list
    """
    from db.ledger import models
    from tagonce.from_settings import stored, stored_model

    with stored(settings.load(database_url=database)) as opened, opened.read() as connection:
        rows = {row.id: row for row in models.every(connection)}
        found = profiles.every(connection, stored_model(connection, model) if model else None)
    if json:
        ui.print_json([_as_json(profile, rows[profile.model_id]) for profile in found])
        return
    # One line per profile, however narrow the terminal is: `show` prints everything.
    columns = (
        Column(name, no_wrap=True, overflow="ellipsis") for name in ("profile", "model", "keeps", "saved", "from")
    )
    table = Table(*columns, box=None)
    for profile in found:
        table.add_row(
            Text(profile.label),
            Text(f"{rows[profile.model_id].name} (id {profile.model_id})"),
            Text(_in_short(profile.policy)),
            f"{profile.added_at:%Y-%m-%d}",
            Text(profile.source),
        )
    ui.output.print(table if found else "No profiles are saved. Create one with `tagonce thresholds import` or `save`.")


@app.command()
def show(
    profile: Wanted,
    model: parameters.StoredModel = None,
    database: parameters.DatabaseUrl = None,
    json: parameters.Json = False,
) -> None:
    """Show a whole profile. The output of --json can be edited and imported again.

    Example: tagonce thresholds show mine@1
    """
    from tagonce.from_settings import stored, stored_model

    with stored(settings.load(database_url=database)) as opened, opened.read() as connection:
        row = stored_model(connection, model)
        found = profiles.find(connection, row, profile)
    if json:
        ui.print_json(_as_json(found, row))
        return
    ui.output.print(f"{found.label} for {row.label}\nfrom {found.source}", markup=False)
    table = Table("applies to", "threshold", box=None)
    if found.policy.default is not None:
        table.add_row("all other tags", str(to_threshold(found.policy.default)))
    for word, scores in (("category ", found.policy.categories), ("", found.policy.tags)):
        for name, score in scores.items():
            table.add_row(Text(word + name), str(to_threshold(score)))
    for category in found.policy.best_of or ():
        table.add_row(Text(f"category {category}"), "only the most probable one")
    if found.policy.top is not None:
        table.add_row("tags per image, at most", f"{found.policy.top:,}")
    if found.policy.mcut:
        table.add_row("each category", "cut at its largest gap")
    ui.output.print(table)


@app.command()
def diff(
    first: Side,
    second: Side,
    limit: Annotated[
        int, typer.Option(min=0, max=parameters.MOST, help="Number of tags to show, the most changed first.")
    ] = 20,
    under: parameters.Under = None,
    gone: parameters.Gone = Gone.EXCLUDE,
    model: parameters.StoredModel = None,
    database: parameters.DatabaseUrl = None,
    json: parameters.Json = False,
) -> None:
    """Compare two policies: images that would change, and gained and lost tags. Writes nothing.

    Example: tagonce thresholds diff 0.35 mine
    """
    from db.ledger import models
    from db.read.comparison import compare
    from tagonce.from_settings import stored, stored_model
    from tagonce.options.under_option import uri_prefix

    with stored(settings.load(database_url=database)) as opened, opened.read(gone=gone) as connection:
        row = stored_model(connection, model)
        tags = models.tag_names(connection, row.id)
        cuts = [resolve(row, tags, _side(connection, row, text)) for text in (first, second)]
        found = compare(connection, row, *cuts, under=uri_prefix(connection, under))
    shown = [
        {
            "tag": tags[tag_id].name,
            "before": int(found.kept[tag_id] + found.lost[tag_id]),
            "after": int(found.kept[tag_id] + found.gained[tag_id]),
            "gained": int(found.gained[tag_id]),
            "lost": int(found.lost[tag_id]),
        }
        for tag_id in found.by_change
    ]
    if json:
        totals = {"images": found.images, "changed": found.changed}
        ui.print_json({"model": row.name, "first": first, "second": second} | totals | {"tags": shown})
        return
    share = found.changed / found.images if found.images else 0
    ui.output.print(
        f"{found.changed:,} of {counted(found.images, 'image')} changed ({share:.1%}): "
        f"{counted(int(found.gained.sum()), 'tag')} gained, {int(found.lost.sum()):,} lost, "
        f"{int(found.kept.sum()):,} unchanged."
    )
    if not shown or not limit:
        return
    table = Table("tag", box=None)
    for name in ("images before", "after", "gained", "lost"):
        table.add_column(name, justify="right")
    for change in shown[:limit]:
        table.add_row(Text(str(change["tag"])), *(f"{change[key]:,}" for key in ("before", "after", "gained", "lost")))
    ui.output.print(table)
    if len(shown) > limit:
        ui.output.print(f"and {counted(len(shown) - limit, 'more tag')}; --limit shows more, --json all")


@app.command()
def delete(
    profile: Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="One version, or all versions of a name.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    model: parameters.StoredModel = None,
    database: parameters.DatabaseUrl = None,
) -> None:
    """Delete a profile. Records of exports, and SQL queries, may still name it.

    Example: tagonce thresholds delete mine@1
    """
    from tagonce.from_settings import stored, stored_model

    with stored(settings.load(database_url=database)) as opened:
        with opened.read() as connection:
            row = stored_model(connection, model)
            found = profiles.versions(connection, row, profile)
        for one in found:
            policy = _in_short(one.policy)
            ui.errors.print(f"{one.label} for {row.label}: {policy}; from {one.source}", markup=False)
        if not yes and not ui.confirm("Delete them?" if len(found) > 1 else "Delete it?"):
            return
        with opened.write() as connection:
            deleted = profiles.delete(connection, found)
    ui.errors.print(f"{counted(deleted, 'profile')} deleted.")


def _in_short(policy: Policy) -> str:
    """A policy in one line."""
    parts = [] if policy.default is None else [str(to_threshold(policy.default))]
    parts += [f"{name}={to_threshold(score)}" for name, score in policy.categories.items()]
    parts += [counted(len(policy.tags), "tag")] if policy.tags else []
    parts += [f"best of {', '.join(policy.best_of)}"] if policy.best_of else []
    parts += ["MCut"] * bool(policy.mcut) + [f"top {policy.top}"] * (policy.top is not None)
    return ", ".join(parts)


def _side(connection: Connection, model: Model, text: str) -> Policy:
    if text == DEFAULT:
        own = model_default.find(connection, model)
        return own.policy if own else Policy()
    try:
        float(text)
    except ValueError:
        return profiles.find(connection, model, text).policy
    return Policy(to_cut(text))


def _print_saved(profile: Profile, model: Model) -> None:
    policy = profile.policy
    parts = [counted(len(policy.tags), "tag")] if policy.tags else []
    parts += [counted(len(policy.categories), "category", "categories")] if policy.categories else []
    parts += [f"{to_threshold(policy.default)} for the rest"] if policy.default is not None else []
    ui.errors.print(
        f"Saved as {profile.label} for {model.name}: {', '.join(parts) or 'no thresholds of its own'}.\n"
        f"Next: tagonce thresholds diff default {profile.name}, tagonce export --profile {profile.name}",
        markup=False,
    )


def _as_json(profile: Profile, model: Model) -> dict[str, Any]:
    return {
        "profile": profile.label,
        "model": {"id": model.id, "name": model.name, "weights_sha256": model.weights_sha256},
        "policy": profile.policy.as_json(),
        "source": profile.source,
        "saved": profile.added_at.isoformat(),
    }
