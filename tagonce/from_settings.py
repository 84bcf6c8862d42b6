"""Put the parts together from settings: which model, which row, which queue."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec

from sqlalchemy import Connection

from db.database import Database, open_database
from db.errors import DatabaseError, SettingsError
from db.ledger import models
from db.ledger.models import Model
from db.scores import to_probability, to_score
from tagonce.settings import Settings
from workers.cpus import cores, quota
from workers.models.registry import can_be_found, find_model, stored_name
from workers.models.spec import ModelSpec
from workers.options import Options

GPU_BATCH_SIZE = 64
CPU_BATCH_SIZE = 8


@contextmanager
def stored(settings: Settings, *, create: bool = False, threads: int = 1) -> Iterator[Database]:
    """The database of the settings, closed at the end. `threads`: how many use it at the same time."""
    database = open_database(settings.database_url, create=create, threads=threads)
    try:
        yield database
    finally:
        database.close()


def stored_model(connection: Connection, name: str | None) -> Model:
    """A model that the database knows: by name, id, or where its files are; else the latest."""
    return models.find(connection, stored_name(name)) if name else models.latest(connection)


def with_stored_model(settings: Settings, *, files: bool = True) -> Settings:
    """The settings with the model of the database, where nobody stated one and the database holds a single one.

    Its floor comes with it unless one is stated: with another it would be another model. The default stays where the
    database holds that too, and where there is none, or nothing in it.

    Args:
        files: whether those of the model are needed.

    Raises:
        SettingsError: the database holds several other models, or one whose files cannot be found by its name.
    """
    if "model" in settings.model_fields_set:
        return settings
    try:
        with stored(settings) as database, database.read() as connection:
            known = models.every(connection)
    except DatabaseError:
        return settings  # there is none yet; what else is wrong with it, its first use says
    names = list(dict.fromkeys(model.name for model in known))
    if not names or settings.model in names:
        return settings
    if len(names) > 1:
        raise SettingsError(
            f"The database holds scores of {', '.join(names)}. Say which one is meant, or another: --model NAME, or "
            "TAGONCE_MODEL."
        )
    if files and not can_be_found(names[0]):
        raise SettingsError(
            f"The database holds scores of {names[0]}, a model from a folder. Say where it is: --model FOLDER, or "
            "TAGONCE_MODEL; or name another model."
        )
    floor = {} if "floor" in settings.model_fields_set else {"floor": to_probability(known[-1].floor)}
    return settings.model_copy(update={"model": names[0], **floor})


def register_model(database: Database, spec: ModelSpec, settings: Settings) -> Model:
    """The row of a model whose files are here. Reads the weights once, for their hash."""
    weights_sha256 = spec.weights_sha256()
    with database.write() as connection:
        return models.register(
            connection,
            name=spec.name,
            weights_sha256=weights_sha256,
            spec=spec.identity(),
            tag_list=spec.tags,
            floor=settings.floor_score,
            default_threshold=to_score(spec.default_threshold),
            made_with={"pillow": version("pillow")},
        )


def fingerprint(spec: ModelSpec, settings: Settings) -> str:
    """What `register_model` would know the model by. Reads the weights as well."""
    return models.fingerprint_of(spec.name, spec.weights_sha256(), spec.identity(), spec.tags, settings.floor_score)


def find_and_register(database: Database, settings: Settings) -> tuple[ModelSpec, Model]:
    """The model of the settings, found (and downloaded, when it has to be) and registered."""
    spec = find_spec_of(settings)
    return spec, register_model(database, spec, settings)


def find_spec_of(settings: Settings) -> ModelSpec:
    """The model of the settings, with what they change about it."""
    return replace(find_model(settings.model), dct_scaling=settings.dct_scaling)


def worker_options(settings: Settings, spec: ModelSpec) -> Options:
    """What a worker is told. The batch size depends on the device, so this imports torch, and may measure."""
    from workers.inference.device import pick_device

    on_gpu = pick_device(settings.device).type == "cuda"
    given = settings.batch_size
    options = Options(
        batch_size=given if isinstance(given, int) else GPU_BATCH_SIZE if on_gpu else CPU_BATCH_SIZE,
        device=settings.device,
        precision=settings.precision,
        compile=settings.compile,
        # torch takes one a core by itself, and of all that it sees.
        torch_threads=settings.torch_threads or (cores() if quota() else None),
        concurrency=settings.concurrency,
        fetchers=settings.fetchers,
        decoders=settings.decoders or cores(),
        max_pixels=settings.max_pixels,
        max_bytes=settings.max_bytes,
        max_pixels_in_flight=settings.max_pixels_in_flight,
        roots=settings.roots or (),
        grace_seconds=settings.grace_seconds,
        stall_seconds=settings.stall_seconds,
        max_idle_seconds=settings.max_idle,
    )
    if given == "auto":
        from workers.inference.tuning import best_batch_size

        return replace(options, batch_size=best_batch_size(spec, options))
    return options


def missing_for_worker() -> list[str]:
    """Packages that running a model needs, and that are not installed."""
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
    """Say what to install before something deep inside fails to import.

    Raises:
        SettingsError: torch or one of its companions is missing.
    """
    if missing := missing_for_worker():
        raise SettingsError(
            f"Running a model needs {', '.join(missing)}, not installed here: pip install 'tagonce[worker]'"
        )


def need_web_extra() -> None:
    """The same for the page of `tagonce review`.

    Raises:
        SettingsError: something is missing.
    """
    needed = ("starlette", "uvicorn", "jinja2", "python_multipart", "PIL", "obstore", "stamina")
    if missing := [name for name in needed if not find_spec(name)]:
        raise SettingsError(f"The page needs {', '.join(missing)}, not installed here: pip install 'tagonce[web]'")
