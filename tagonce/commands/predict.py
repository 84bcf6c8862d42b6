"""`tagonce predict`: tags of single images, without a database."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from db.errors import ImageError
from tagonce.options import parameters
from tagonce.output import ui

if TYPE_CHECKING:
    from collections.abc import Iterator

    from db.policy.policies import Cut
    from workers.models.spec import ModelSpec


def command(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Files or s3:// objects, or a folder.")],
    threshold: parameters.Threshold = None,
    exclude: parameters.Exclude = None,
    no_default_excludes: parameters.NoDefaultExcludes = False,
    all_names: parameters.AllNames = False,
    top: Annotated[
        int | None, typer.Option(min=1, help="At most this many tags per image.", show_default=False)
    ] = None,
    model: parameters.ModelName = None,
    device: parameters.Device = None,
    precision: parameters.Precision = None,
    json: parameters.Json = False,
) -> None:
    """Show the tags of single images, without a database.

    With --json, prints all probabilities of the model, regardless of the threshold, one line per image.

    Example: tagonce predict cat.jpg --threshold 0.2
    """
    from db.read.tag_batches import kept_of
    from db.scores import to_score
    from producer.sources import is_list, references
    from producer.sources.name_filter import NameFilter
    from tagonce import settings
    from tagonce.from_settings import find_spec_of, need_worker_extra, with_stored_model, worker_options

    if threshold is not None:
        to_score(threshold)
    # One image at a time: measuring a batch size or compiling does not pay.
    config = settings.load(model=model, device=device, precision=precision, batch_size=1, compile=False)
    names = NameFilter(exclude or (), default_excludes=not no_default_excludes, all_names=all_names)
    found: list[str] = []
    for source in images:
        uris = [reference.uri for reference in references(source, names=names)]
        found += uris if is_list(source) else sorted(uris)  # a list has an order; folders and buckets do not
    ui.print_names(names)
    need_worker_extra()
    stated, config = config, with_stored_model(config)
    ui.print_model(stated, config)

    from workers.images.decode import Decoder
    from workers.inference.infer import Inferencer
    from workers.storage.fetch import Fetcher

    spec = find_spec_of(config)
    options = worker_options(config, spec)
    fetcher = Fetcher(max_bytes=options.max_bytes, connections=1)
    decoder = Decoder(spec, max_pixels=options.max_pixels)
    inferencer = Inferencer(spec, options, floor=0)
    cut = _cut(spec, threshold)
    failed = False

    def inferred() -> "Iterator[tuple[str, list[float]]]":
        nonlocal failed
        for uri in found:
            try:
                yield uri, inferencer.probabilities([decoder.decode(fetcher.fetch(uri))])[0].tolist()
            except ImageError as error:
                failed = True
                ui.errors.print(f"{uri}: {error}", markup=False)

    for uri, row in inferred():
        named = [(tag.name, probability) for tag, probability in zip(spec.tags, row, strict=True)]
        if json:
            ranked = sorted(named, key=lambda pair: -pair[1])
            ui.print_json_line({"uri": uri, "model": spec.name, "probabilities": dict(ranked)})
        else:
            _print(uri, [named[tag_id] for tag_id in kept_of(row, cut)][:top], cut)
    if failed:
        raise typer.Exit(1)


def _cut(spec: "ModelSpec", threshold: float | None) -> "Cut":
    """The tags at or above a threshold; without one, those of the model's default policy."""
    from db.ledger.models import Model
    from db.policy.model_default import with_groups
    from db.policy.policies import Policy, resolve
    from db.scores import to_score

    model = Model(0, spec.name, "", "", {}, floor=0, default_threshold=to_score(spec.default_threshold))
    policy = with_groups(spec.policy, spec.tags, 0) if threshold is None else Policy(to_score(threshold))
    return resolve(model, spec.tags, policy)


def _print(uri: str, tags: list[tuple[str, float]], cut: "Cut") -> None:
    table = Table("tag", "probability", title=Text(uri), title_justify="left", box=None)
    for name, probability in tags:
        table.add_row(Text(name), f"{probability:.4f}")
    ui.output.print(table if tags else Text(f"{uri}: no tag at or above {_in_words(cut)}"))


def _in_words(cut: "Cut") -> str:
    from db.scores import to_probability

    return "its threshold" if cut.uniform is None else f"{to_probability(cut.uniform):g}"
