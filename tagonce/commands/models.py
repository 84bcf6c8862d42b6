"""`tagonce models`: known models and families, models with stored scores, and the files of a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from db.errors import ImageError, ModelError, SettingsError
from db.names.plural import counted
from tagonce import settings
from tagonce.options import parameters
from tagonce.output import ui

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from db.ledger.models import Model
    from db.policy.policies import Policy
    from workers.models.registry import KnownModel
    from workers.models.spec import ModelSpec

_NOT_KNOWN = "-"
_TOP_TAGS = 10

app = typer.Typer(
    name="models",
    help="""List known models and families, and those that the database has scores of.

    Example: tagonce models show wd-vit-v3""",
    add_completion=False,
)

FolderOrName = Annotated[
    str, typer.Argument(metavar="NAME|FOLDER", help="A known model, hf-hub:OWNER/NAME, or a folder.")
]


@app.callback(invoke_without_command=True)
def list_(context: typer.Context, database: parameters.DatabaseUrl = None, json: parameters.Json = False) -> None:
    """List known models and families, and those that the database has scores of.

    Nothing is downloaded. The sizes of stored scores are measured on some rows drawn at random.

    Example: tagonce models
    """
    if context.invoked_subcommand is not None:
        return
    from db.ledger import models
    from tagonce.from_settings import stored
    from workers.models.registry import FAMILIES, KNOWN_MODELS

    config = settings.load(database_url=database)
    file = settings.database_file(config.database_url)
    present: list[dict[str, Any]] = []
    label = ""
    if file is None or file.exists():
        with stored(config) as opened, opened.read() as connection:
            present, label = [_stored(connection, row) for row in models.every(connection)], opened.label
    known = [_known(one) for one in KNOWN_MODELS]
    families = [{"name": one.name, "recognised_by": one.recognised_by, "licence": one.licence} for one in FAMILIES]
    if json:
        names = [one["name"] for one in known]
        ui.print_json({"known": names, "known_models": known, "families": families, "stored": present})
        return
    _print_table(
        "Known by name",
        known,
        {"name": str, "tags": _number, "input": _side, "weights in fp32": decimal, "threshold": str, "licence": str}
        | {"description": str},
        {"input": "size", "weights in fp32": "weight_bytes"},
    )
    ui.output.print("\nAlso: hf-hub:owner/name (a timm checkpoint), or a folder with weights and a tag list, of:\n")
    _print_table("Families", families, {"name": str, "recognised by": str, "licence": str}, {})
    if present:
        ui.output.print()
        _print_stored(label, present)


@app.command()
def show(what: FolderOrName, json: parameters.Json = False) -> None:
    """Say what a model's files hold: family, network, preprocessing, thresholds, tags. Nothing is downloaded.

    Example: tagonce models show ./my-model
    """
    known = _known_by_name(what)
    spec = _spec_here(what)
    described = _described(spec) if spec else {}
    found = (_known(known) if known else {}) | {name: value for name, value in described.items() if value is not None}
    if not found:
        raise ModelError(f"The files of {what} are not here. Tag or predict with it once, and they are downloaded.")
    if json:
        ui.print_json(found)
        return
    if spec is None:
        found["files"] = "not downloaded yet: `tagonce tag` and `tagonce predict` download them"
    table = Table(show_header=False, box=None)
    for name, value in found.items():
        table.add_row(name.replace("_", " "), Text("\n".join(_lines(value))))
    ui.output.print(table)


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE.pth", help="A checkpoint of torch.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The file to write.")],
) -> None:
    """Convert a pickled checkpoint to safetensors, without running what the pickle holds.

    The tensors keep their names. Of a checkpoint with `model` or `state_dict`, the tensors there are taken.

    Example: tagonce models convert model.pth model.safetensors
    """
    from tagonce.from_settings import need_worker_extra
    from tagonce.whole_files import whole_path

    if out.suffix != ".safetensors":
        raise SettingsError(f"{out}: the name of the file to write must end with .safetensors.")
    if out.exists():
        raise SettingsError(f"{out} exists already. Remove it, or name another file.")
    need_worker_extra()
    from workers.inference.convert import convert as convert_file

    with whole_path(out) as temporary:
        done = convert_file(file, temporary)
    left_out = f" Without tensors, and left out: {', '.join(done.left_out)}." if done.left_out else ""
    ui.errors.print(
        f"{out}: {counted(done.tensors, 'tensor')}, {counted(done.parameters, 'weight')}.{left_out}", markup=False
    )


@app.command()
def check(
    folder: Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="A model.")],
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Files or s3:// objects.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path(),
    top: Annotated[int, typer.Option(min=1, max=parameters.MOST, help="Tags per image.")] = _TOP_TAGS,
    device: parameters.Device = None,
    json: parameters.Json = False,
) -> None:
    """Tag some images, and write what the network sees of each as IMAGE.seen.png, to compare with a reference.

    Example: tagonce models check ./my-model cat.jpg
    """
    from producer.sources import references
    from producer.uris import path_or_uri
    from tagonce.from_settings import find_spec_of, need_worker_extra, worker_options
    from tagonce.whole_files import whole_path

    config = settings.load(model=folder, device=device, batch_size=1, compile=False)
    found = [reference.uri for source in images for reference in references(source)]
    need_worker_extra()
    from PIL import Image

    from workers.images.decode import Decoder
    from workers.inference.infer import Inferencer
    from workers.storage.fetch import Fetcher

    spec = find_spec_of(config)
    options = worker_options(config, spec)
    fetcher = Fetcher(max_bytes=options.max_bytes, connections=1)
    decoder = Decoder(spec, max_pixels=options.max_pixels)
    inferencer = Inferencer(spec, options, floor=0)
    failed = False
    for uri in found:
        try:
            decoded = decoder.decode(fetcher.fetch(uri))
            row = inferencer.probabilities([decoded])[0].tolist()
        except ImageError as error:
            failed = True
            ui.errors.print(f"{uri}: {error}", markup=False)
            continue
        picture = out / f"{path_or_uri(uri).rpartition('/')[2]}.seen.png"
        with whole_path(picture) as temporary:
            Image.fromarray(inferencer.picture(decoded)).save(temporary, "png")
        ui.errors.print(f"Written: {picture}", markup=False)
        named = sorted(zip((tag.name for tag in spec.tags), row, strict=True), key=lambda pair: -pair[1])[:top]
        if json:
            ui.print_json_line({"uri": uri, "model": spec.name, "picture": str(picture), "tags": dict(named)})
            continue
        table = Table("tag", "probability", title=ui.display_name(uri), title_justify="left", box=None)
        for name, probability in named:
            table.add_row(Text(name), f"{probability:.4f}")
        ui.output.print(table)
    if failed:
        raise typer.Exit(1)


def _known(one: "KnownModel") -> dict[str, Any]:
    from workers.models.description import memory

    return {
        "name": one.name,
        "tags": one.tags,
        "size": one.size,
        "weight_bytes": None if one.parameters is None else memory(one.parameters),
        "threshold": one.default_threshold,
        "licence": one.licence,
        "description": one.description,
    }


def _known_by_name(name: str) -> "KnownModel | None":
    from workers.models.registry import KNOWN_MODELS

    return next((one for one in KNOWN_MODELS if name == one.name or name in one.aliases), None)


def _spec_here(what: str) -> "ModelSpec | None":
    """The model, if its files are on this machine."""
    import os
    from importlib.util import find_spec

    from workers.models.registry import find_model, in_cache

    os.environ["HF_HUB_OFFLINE"] = "1"  # the hub's library is not imported yet
    is_folder = _known_by_name(what) is None and not what.startswith("hf-hub:")
    if is_folder or (find_spec("huggingface_hub") and in_cache(what)):
        return find_model(what)
    return None


def _described(spec: "ModelSpec") -> dict[str, Any]:
    from db.policy.model_default import with_groups
    from workers.models import description
    from workers.models.hub import CHECKPOINT_FILES
    from workers.models.model_file import read_model_file
    from workers.models.registry import FAMILIES

    kind = "onnx" if spec.engine == "onnx" else spec.family
    family = next((one for one in FAMILIES if one.name == kind), None)
    number = description.parameters(spec)
    beside = [name for name in CHECKPOINT_FILES if (spec.weights.parent / name).is_file()]
    files = sorted({spec.weights.name, *beside})
    return {
        "name": spec.name,
        "family": spec.family,
        "recognised_by": family.recognised_by if family else None,
        "licence": family.licence if family else None,
        "folder": str(spec.weights.parent),
        "files": {name: (spec.weights.parent / name).stat().st_size for name in files},
        "stated_in_model_json": sorted(read_model_file(spec.weights.parent)) or None,
        "network": f"{spec.architecture}, head {spec.head}, activation {spec.activation}",
        "parameters": number,
        "weight_bytes": None if number is None else description.memory(number),
        "size": spec.size,
        "preprocessing": description.preprocessing(spec),
        "threshold": spec.default_threshold,
        "policy": _in_short(with_groups(spec.policy, spec.tags, 0)),
        "tags": len(spec.tags),
        "categories": {name or "none": number for name, number in description.tags_by_category(spec).items()},
    }


def _in_short(policy: "Policy") -> dict[str, Any]:
    """A policy, with the number of tags in place of their thresholds."""
    values = policy.as_json()
    return values | ({"tags": len(values["tags"])} if "tags" in values else {})


def _stored(connection: "Connection", row: "Model") -> dict[str, Any]:
    from db.policy import model_default
    from db.sampling import row_size
    from db.scores import to_probability
    from tagonce.output import row_sizes

    own, size = model_default.find(connection, row), row_size(connection, row)
    return {
        "id": row.id,
        "name": row.name,
        "weights_sha256": row.weights_sha256,
        "floor": to_probability(row.floor),
        "threshold": to_probability(row.default_threshold),
        "default_policy": own.label if own else None,
        "bytes_per_image": {f"{to_probability(floor):g}": round(value) for floor, value in size.at.items()}
        if size
        else {},
        "warning": row_sizes.warning(row, size) if size else "",
    }


def _print_stored(label: str, rows: list[dict[str, Any]]) -> None:
    from db.sampling import FLOORS
    from db.scores import to_probability

    floors = [f"{to_probability(floor):g}" for floor in FLOORS]
    table = Table("id", "name", "weights", "floor", "threshold", title=Text(label), title_justify="left", box=None)
    for floor in floors:
        table.add_column(f"bytes an image at {floor}", justify="right")
    for row in rows:
        sizes = row["bytes_per_image"]
        table.add_row(
            str(row["id"]),
            Text(row["name"]),
            row["weights_sha256"][:8],
            f"{row['floor']:g}",
            row["default_policy"] or f"{row['threshold']:g}",
            *(f"{sizes[floor]:,}" if floor in sizes else _NOT_KNOWN for floor in floors),
        )
    ui.output.print(table)
    for row in rows:
        if row["warning"]:
            ui.output.print(Text(row["warning"]))


def _print_table(title: str, rows: list[dict[str, Any]], columns: dict[str, Any], keys: dict[str, str]) -> None:
    table = Table(*columns, title=title, title_justify="left", box=None)
    for row in rows:
        values = [(row[keys.get(name, name.replace(" ", "_"))], words) for name, words in columns.items()]
        table.add_row(*(Text(_NOT_KNOWN if value is None else words(value)) for value, words in values))
    ui.output.print(table)


def _lines(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{name}: {_lines(one)[0]}" for name, one in value.items()] or [_NOT_KNOWN]
    if isinstance(value, list):
        return [str(one) for one in value]
    return [_NOT_KNOWN if value is None else _number(value) if isinstance(value, int) else str(value)]


def _number(value: int) -> str:
    return f"{value:,}"


def _side(value: int) -> str:
    return f"{value} x {value}"
