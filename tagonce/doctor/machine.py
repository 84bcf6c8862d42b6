"""Requirements of a worker on this machine: the model's files, and a device."""

import os
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from db.errors import DatabaseError, SettingsError
from db.ledger import models
from db.ledger.models import Model
from db.scores import to_probability
from tagonce import from_settings
from tagonce.doctor.finding import Finding, Status
from tagonce.settings import Settings
from workers.models.registry import in_cache
from workers.models.spec import ModelSpec
from workers.resize.geometry import COLUMNS_FIRST_SINCE

MODEL = "model"
DEVICE = "device"
_DRIVER = Path("/sys/module/nvidia/version")


def look_at_model(config: Settings) -> Iterator[Finding]:
    """Check that the model's files are here and match the database."""
    try:
        from_settings.need_worker_extra()
    except SettingsError as error:
        yield Finding(MODEL, Status.SKIPPED, f"no model runs on this machine. {error}")
        return
    config = from_settings.with_stored_model(config)
    # A check must not download gigabytes. The hub's library is not imported yet in this process.
    os.environ["HF_HUB_OFFLINE"] = "1"
    if not in_cache(config.model):
        words = f"the files of {config.model} are not downloaded yet"
        yield Finding(MODEL, Status.WARNING, words, "The first worker, or `tagonce tag`, downloads them.")
        return
    spec = from_settings.find_spec_of(config)
    yield Finding(MODEL, Status.OK, f"{spec.name}: {spec.weights}")
    if spec.engine == "onnx":
        yield _onnx_runtime(config)
    try:
        with from_settings.stored(config) as database, database.read() as connection:
            known = models.every(connection)
    except DatabaseError:
        return  # reported by the check of the database
    yield _registered(spec, config, known)


def _onnx_runtime(config: Settings) -> Finding:
    """The engine of an ONNX model. Raises SettingsError if it cannot run on the device."""
    from workers.inference import onnx_network

    names = ", ".join(onnx_network.providers(onnx_network.pick_onnx_device(config.device)))
    return Finding(MODEL, Status.OK, f"runs on ONNX Runtime {onnx_network.version()}: {names}")


def _registered(spec: ModelSpec, config: Settings, known: list[Model]) -> Finding:
    fingerprint = from_settings.fingerprint(spec, config)
    same = next((model for model in known if model.fingerprint == fingerprint), None)
    if same and (begun := _resizes_otherwise(same)):
        return Finding(
            MODEL,
            Status.WARNING,
            f"the first scores of {same.label} are by Pillow {begun}, and {version('pillow')} is installed, which "
            " resizes images more than twice as tall as wide slightly differently",
            "Scores of such images may differ slightly. If that matters, install the same Pillow on all workers.",
        )
    if same:
        return Finding(MODEL, Status.OK, f"registered as {same.label}: the same weights, preprocessing, tags and floor")
    named = [model for model in known if model.name == spec.name]
    if not named:
        return Finding(MODEL, Status.OK, f"{spec.name} is not registered yet: the first worker registers it")
    return Finding(
        MODEL,
        Status.WARNING,
        f"the database has {named[-1].label}, but here {_difference(spec, config, named[-1])}",
        "A worker would register another model, and tag everything again. If that is not intended, restore the "
        "previous files or settings.",
    )


def _resizes_otherwise(stored: Model) -> str | None:
    """The Pillow of the first worker, if it resizes in another order than the installed one; otherwise None."""
    begun: str | None = stored.spec.get("made_with", {}).get("pillow")
    if begun is None or not find_spec("PIL"):
        return None
    orders = {int(one.partition(".")[0]) >= COLUMNS_FIRST_SINCE for one in (begun, version("pillow"))}
    return begun if len(orders) > 1 else None


def _difference(spec: ModelSpec, config: Settings, stored: Model) -> str:
    differing = []
    if stored.weights_sha256 != spec.weights_sha256():
        differing.append(f"the weights are {spec.weights_sha256()[:8]}")
    if stored.floor != config.floor_score:
        differing.append(f"the floor is {to_probability(config.floor_score):g}")
    if changed := sorted(key for key, value in spec.identity().items() if stored.spec.get(key) != value):
        differing.append(f"{', '.join(changed)} differ")
    return " and ".join(differing)


def look_at_device(config: Settings) -> Iterator[Finding]:
    """The device and the precision that a worker would use."""
    if not find_spec("torch"):
        yield Finding(DEVICE, Status.SKIPPED, "torch is not installed: no model runs on this machine")
        return
    import PIL
    import torch

    from workers.inference.device import device_name, pick_device, pick_dtype

    device = pick_device(config.device)
    precision = str(pick_dtype(config.precision, device)).removeprefix("torch.")
    driver = _DRIVER.read_text().strip() if _DRIVER.exists() else ""
    words = f"{device_name(device)}, {precision}, torch {torch.__version__}, Pillow {PIL.__version__}"
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        count = torch.cuda.device_count()
        words += f", CUDA {torch.version.cuda}, driver {driver}, {free / 1e9:,.1f} of {total / 1e9:,.1f} GB free"
        advice = f"{count} GPUs: `tagonce worker --devices all` uses all of them." if count > 1 else ""
        yield Finding(DEVICE, Status.OK, words, advice)
    elif driver and config.device == "auto":
        advice = "Install torch with CUDA, or a recent enough driver."
        yield Finding(
            DEVICE, Status.WARNING, f"{words}: a GPU driver ({driver}) is installed, but torch finds no GPU", advice
        )
    else:
        yield Finding(DEVICE, Status.OK, words)
