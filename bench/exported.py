"""The network of a model as an ONNX file, in a folder that tagonce loads."""

import dataclasses
import json
import warnings
from pathlib import Path

import torch

from workers.inference.network import load_network
from workers.models.registry import find_model

_STATED = (
    *("size", "resize", "grow", "filter", "background", "fill", "fill_when"),
    *("channel_order", "mean", "std", "scale", "crop_pct", "crop_mode"),
)


def onnx_of(model: str, folder: Path) -> Path:
    """The folder of the same network in fp32, with its head. It is written if it does not exist.

    Args:
        model: as `tagonce --model` takes it.
        folder: contains the new folder.
    """
    spec = find_model(model)
    exported = folder / f"{spec.name}-onnx"
    if (exported / "model.json").exists():
        return exported
    exported.mkdir(parents=True, exist_ok=True)
    network = load_network(spec, torch.device("cpu"), torch.float32)
    axes = {name: {0: "images"} for name in ("input", "prediction")}
    with warnings.catch_warnings(action="ignore"), torch.inference_mode():  # of the exporter
        torch.onnx.export(
            network,
            (torch.zeros(2, 3, spec.size, spec.size),),
            exported / "model.onnx",
            input_names=["input"],
            output_names=["prediction"],
            dynamic_axes=axes,
            dynamo=False,  # the other exporter needs one more package
        )
    names = {f"tag_{position}": position for position in range(len(spec.tags))}
    (exported / "tags.json").write_text(json.dumps(names), encoding="utf-8")
    stated = {name: value for name, value in dataclasses.asdict(spec).items() if name in _STATED}
    # Written last: a folder with this file is complete.
    (exported / "model.json").write_text(json.dumps(stated | {"activation": "none"}), encoding="utf-8")
    return exported
