"""A model with the shape and file format of JTP-1, SO400M at 384 with 9,083 tags, with random weights."""

import json
import math
from pathlib import Path

import synthetic
import timm
import torch
from safetensors.torch import save_file

ARCHITECTURE = "vit_so400m_patch14_siglip_384"
DEPTH = 27
"""Blocks of SO400M."""
SPREAD, MIDDLE = 4.5, -13.7
"""Standard deviation and mean of the logits: 2.1 % of the probabilities reach 0.01, 0.18 % reach 0.35, as in
`synthetic.py`."""


def so400m(folder: Path, depth: int = DEPTH) -> Path:
    """The folder of the model, 1.75 GB with all blocks. It is written if it does not exist."""
    return _written(folder / f"so400m-{depth}", 384, {"depth": depth})


def tiny(folder: Path) -> Path:
    """The same with a network that takes milliseconds on a CPU."""
    return _written(folder / "tiny", 98, {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 98})


def _written(folder: Path, size: int, model_args: dict[str, int]) -> Path:
    if (folder / "model.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    # Initialised here: the truncated normal distribution of timm takes minutes.
    with torch.device("meta"):
        network = timm.create_model(ARCHITECTURE, num_classes=synthetic.TAGS, **model_args)
    network = network.to_empty(device="cpu").eval().requires_grad_(requires_grad=False)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0.0, 1 / math.sqrt(parameter[0].numel()), generator=generator)
        else:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    colours = torch.randn(1, 3, 6, 6, generator=generator)  # as smooth as a photograph
    network.head.weight.mul_(SPREAD / network(torch.nn.functional.interpolate(colours, size, mode="bilinear")).std())
    network.head.bias.fill_(MIDDLE)
    save_file(network.state_dict(), folder / f"JTP_PILOT-{ARCHITECTURE}.safetensors")
    tags = {name: position for position, name in enumerate(synthetic.names())}
    (folder / "tags.json").write_text(json.dumps(tags), encoding="utf-8")
    # Written last: a folder with this file is complete.
    described = {"architecture": ARCHITECTURE, "model_args": model_args, "size": size}
    (folder / "model.json").write_text(json.dumps(described), encoding="utf-8")
    return folder
