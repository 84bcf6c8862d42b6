"""Objects made from settings: database, model, options of a worker; and checks of installed extras."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from db import migrate
from db.database import Database, open_database
from db.errors import DatabaseError, SettingsError
from db.ledger import models
from db.ledger.models import Model
from db.policy import model_default
from db.scores import to_probability, to_score
from tagonce.settings import Settings
from workers.cpus import cores, quota
from workers.options import Options

if TYPE_CHECKING:
    from workers.models.spec import ModelSpec

GPU_BATCH_SIZE = 64
CPU_BATCH_SIZE = 8


@contextmanager
def stored(
    settings: Settings,
    *,
    create: bool = False,
    threads: int = 1,
    display: AbstractContextManager[migrate.Report] | None = None,
) -> Iterator[Database]:
    """Open the database of the settings, and close it at the end.

    Args:
        create, threads: see `open_database`.
        display: shows the progress of an upgrade; by default it is logged.
    """
    with display or nullcontext() as report:
        database = open_database(settings.database_url, create=create, threads=threads, report=report)
    try:
        yield database
    finally:
        database.close()


def stored_model(connection: Connection, name: str | None) -> Model:
    """A model of the database: by name, id or folder; without a name, the latest."""
    if not name:
        return models.latest(connection)
    from workers.models.registry import stored_name

    return models.find(connection, stored_name(name))


def with_stored_model(settings: Settings, *, files: bool = True) -> Settings:
    """Replace the default model by the one of the database, if no model is set and the database has exactly one.

    The floor is taken from the database too, unless it is set: another floor would make another model. Nothing changes
    if there is no database, no model in it, or the default model is in it.

    Args:
        files: whether the model's files are needed.

    Raises:
        SettingsError: the database has several other models, or one whose files cannot be found by its name.
    """
    if "model" in settings.model_fields_set:
        return settings
    try:
        with stored(settings) as database, database.read() as connection:
            known = models.every(connection)
    except DatabaseError:
        return settings  # not there yet; its first use reports any other error
    names = list(dict.fromkeys(model.name for model in known))
    if not names or settings.model in names:
        return settings
    if len(names) > 1:
        raise SettingsError(
            f"No model is set, and the database has scores of several: {', '.join(names)}. Choose one of them, or "
            "another: --model NAME, or TAGONCE_MODEL."
        )
    from workers.models.registry import can_be_found

    if files and not can_be_found(names[0]):
        raise SettingsError(
            f"No model is set, and the database has scores of {names[0]}, a model from a folder. Give the folder: "
            "--model FOLDER, or TAGONCE_MODEL; or choose another model."
        )
    floor = {} if "floor" in settings.model_fields_set else {"floor": to_probability(known[-1].floor)}
    return settings.model_copy(update={"model": names[0], **floor})


def register_model(database: Database, spec: "ModelSpec", settings: Settings) -> Model:
    """Find or create the row of a model, and its default policy. Reads the weights once, for their hash."""
    from importlib.metadata import version

    weights_sha256 = spec.weights_sha256()
    with database.write() as connection:
        is_new = models.with_fingerprint(connection, fingerprint(spec, settings)) is None
        model = models.register(
            connection,
            name=spec.name,
            weights_sha256=weights_sha256,
            spec=spec.identity(),
            tag_list=spec.tags,
            floor=settings.floor_score,
            default_threshold=to_score(spec.default_threshold),
            made_with={"pillow": version("pillow")},
        )
        model_default.save(connection, model, spec.policy, is_new=is_new)
        return model


def fingerprint(spec: "ModelSpec", settings: Settings) -> str:
    """The fingerprint that `register_model` would store. Reads the weights too."""
    return models.fingerprint_of(spec.name, spec.weights_sha256(), spec.identity(), spec.tags, settings.floor_score)


def find_and_register(database: Database, settings: Settings) -> "tuple[ModelSpec, Model]":
    """Find the model of the settings, download it if needed, and register it."""
    spec = find_spec_of(settings)
    return spec, register_model(database, spec, settings)


def find_spec_of(settings: Settings) -> "ModelSpec":
    """The model of the settings, with their preprocessing options."""
    from workers.models.registry import find_model

    return replace(find_model(settings.model), dct_scaling=settings.dct_scaling)


def worker_options(settings: Settings, spec: "ModelSpec") -> Options:
    """The options of a worker on this machine. Imports torch, since the batch size depends on the device.

    With `batch_size="auto"` this measures, unless the best size is in the cache.
    """
    from workers.inference.device import pick_device

    given = settings.model_dump(include=set(Options.model_fields), exclude_none=True)
    if not isinstance(settings.batch_size, int):
        on_gpu = pick_device(settings.device).type == "cuda"
        given["batch_size"] = GPU_BATCH_SIZE if on_gpu else CPU_BATCH_SIZE
    if settings.torch_threads is None and quota():
        given["torch_threads"] = cores()  # torch would take one for each core that it sees
    options = Options(**given)
    if settings.batch_size == "auto":
        from workers.inference.tuning import best_batch_size

        return Options(**given | {"batch_size": best_batch_size(spec, options)})
    return options


def missing_for_worker() -> list[str]:
    """Packages that a worker needs and that are not installed."""
    needed = (
        "torch",
        "torchvision",
        "timm",
        "PIL",
        "safetensors",
        "stamina",
        "numba",
        "obstore",
        "prometheus_client",
        "structlog",
    )
    return [name for name in needed if not find_spec(name)]


def need_worker_extra() -> None:
    """Check that the extra `worker` is installed.

    Raises:
        SettingsError: a package is missing; the message says how to install it.
    """
    if missing := missing_for_worker():
        raise SettingsError(
            f"Running a model needs {', '.join(missing)}, not installed here: pip install 'tagonce[worker]'"
        )


def need_web_extra() -> None:
    """Check that the extra `web` is installed.

    Raises:
        SettingsError: a package is missing; the message says how to install it.
    """
    needed = ("starlette", "uvicorn", "jinja2", "python_multipart", "PIL", "obstore", "stamina")
    if missing := [name for name in needed if not find_spec(name)]:
        raise SettingsError(
            f"The review page needs {', '.join(missing)}, not installed here: pip install 'tagonce[web]'"
        )
